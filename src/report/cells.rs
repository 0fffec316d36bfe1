//! Sums by host, device, operation and row of time that need not fit into memory.
//!
//! Threads add up records in memory. What grows too large is written as a sorted run to a file
//! without a name, and the runs are merged when the sums are read. Sums of whatever parts are equal
//! to those of the whole, so this changes nothing but the memory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::aggregate::{Aggregate, HostRow, Totals};
use super::times::Rows;
use crate::archive::reader::{Layer, RecordView, Sink, Source};

/// Rows of devices that all threads together keep in memory; one is a few kB.
const KEPT: usize = 1500;
/// Runs that are merged at a time.
const RUNS: usize = 128;
/// Buffer for each run, bytes.
const BUFFER: usize = 16 << 10;

/// What a [`Cell`] is the sum of. In this order, a host's times come before its devices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Host name.
    pub host: String,
    /// Kernel name of the disk; empty for the time of the host.
    pub device: String,
    /// Where the requests were measured.
    pub layer: Layer,
    /// 0: all operations together; otherwise 1 + the place in
    /// [`Operations::NAMES`](crate::record::Operations::NAMES).
    pub place: u8,
    /// Begin of the row of time, µs since the Unix epoch; 0 when time is not cut.
    pub begin_us: i64,
}

/// One sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Length of the windows, µs: of a host's time only.
    pub time_us: u64,
    /// Requests.
    pub totals: Totals,
    /// Requests given back to the queue; like what follows, of all operations together only.
    pub requeues: u64,
    /// Integral of the number in flight over time, in millionths of a request · µs.
    pub inflight_integral: u128,
    /// Most in flight at one time.
    pub inflight_max: u64,
    /// Greatest age that a request had reached when a window ended, ns.
    pub oldest_ns: u64,
}

impl Cell {
    fn merge(&mut self, other: &Self) {
        self.time_us = self.time_us.saturating_add(other.time_us);
        self.totals.merge(&other.totals);
        self.requeues = self.requeues.saturating_add(other.requeues);
        self.inflight_integral = self.inflight_integral.saturating_add(other.inflight_integral);
        self.inflight_max = self.inflight_max.max(other.inflight_max);
        self.oldest_ns = self.oldest_ns.max(other.oldest_ns);
    }
}

/// Cells in ascending order of their keys.
fn cells(aggregate: Aggregate) -> Vec<(Key, Cell)> {
    let mut cells = Vec::new();
    for (source, rows) in aggregate.sources {
        for (begin_us, row) in rows {
            let key = |device: &str, place| Key {
                host: source.host.clone(),
                device: device.into(),
                layer: source.layer,
                place,
                begin_us,
            };
            cells.push((key("", 0), Cell { time_us: row.time_us, ..Cell::default() }));
            for (name, device) in row.devices {
                let all = Cell {
                    time_us: 0,
                    totals: device.all(),
                    requeues: device.requeues,
                    inflight_integral: device.inflight_integral,
                    inflight_max: device.inflight_max,
                    oldest_ns: device.oldest_ns,
                };
                cells.push((key(&name, 0), all));
                for (place, totals) in (1..).zip(device.operations) {
                    if totals.count > 0 {
                        cells.push((key(&name, place), Cell { totals, ..Cell::default() }));
                    }
                }
            }
        }
    }
    cells.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    cells
}

/// Where the sums of all threads come together.
#[derive(Debug)]
pub struct Cells {
    rows: Rows,
    /// Rows of devices that each thread keeps.
    kept: usize,
    runs: Mutex<Runs>,
    /// What was never written.
    memory: Vec<(Key, Cell)>,
    /// Times and audits of all rows of time together, complete after [`Cells::finish`].
    pub sums: BTreeMap<Source, HostRow>,
}

/// Sorted cells in a file.
#[derive(Debug, Default)]
struct Runs {
    file: Option<File>,
    runs: Vec<Range<u64>>,
    /// [`Cells::sums`] so far.
    sums: BTreeMap<Source, HostRow>,
    /// Writing failed: the sums are incomplete.
    error: Option<io::Error>,
}

/// One thread's sums.
#[derive(Debug)]
pub struct Part<'c> {
    cells: &'c Cells,
    aggregate: Aggregate,
}

impl Sink for Part<'_> {
    fn take(&mut self, record: &RecordView<'_>) {
        self.aggregate.take(record);
        if self.aggregate.devices > self.cells.kept {
            let full =
                std::mem::replace(&mut self.aggregate, Aggregate::new(self.cells.rows.clone()));
            self.cells.spill(full);
        }
    }
}

impl<'c> Part<'c> {
    /// What is still in memory.
    #[must_use]
    pub fn into_aggregate(self) -> Aggregate {
        self.aggregate
    }
}

impl Cells {
    /// Sums by `rows`, to be made by `threads`.
    #[must_use]
    pub fn new(rows: Rows, threads: usize) -> Self {
        Self::with_limit(rows, KEPT / threads.max(1))
    }

    fn with_limit(rows: Rows, kept: usize) -> Self {
        let (runs, memory) = (Mutex::default(), Vec::new());
        Self { rows, kept, runs, memory, sums: BTreeMap::new() }
    }

    /// An empty part for a thread.
    #[must_use]
    pub fn part(&self) -> Part<'_> {
        Part { cells: self, aggregate: Aggregate::new(self.rows.clone()) }
    }

    /// Takes what the parts still have.
    ///
    /// # Errors
    /// When sums that did not fit into memory could not be written.
    pub fn finish(&mut self, parts: Vec<Aggregate>) -> io::Result<()> {
        if self.lock().runs.is_empty() {
            let all = Aggregate::merged(parts);
            self.lock().note(&all);
            self.memory = cells(all);
        } else {
            parts.into_iter().for_each(|part| self.spill(part));
        }
        let mut runs = self.lock();
        let (sums, error) = (std::mem::take(&mut runs.sums), runs.error.take());
        drop(runs);
        self.sums = sums;
        error.map_or(Ok(()), Err)
    }

    fn spill(&self, aggregate: Aggregate) {
        self.lock().note(&aggregate);
        let cells = cells(aggregate);
        let mut runs = self.lock();
        if runs.error.is_some() {
            return;
        }
        if let Err(error) = runs.add(cells) {
            let error = io::Error::new(
                error.kind(),
                format!(
                    "the sums do not fit into memory and cannot be written to {}: {error} (TMPDIR \
                     chooses another place)",
                    std::env::temp_dir().display()
                ),
            );
            runs.error = Some(error);
        }
    }

    /// Calls `each` with every cell in ascending order of keys.
    ///
    /// # Errors
    /// Those of `each`, and of reading what was written.
    pub fn for_each(&self, mut each: impl FnMut(&Key, &Cell) -> io::Result<()>) -> io::Result<()> {
        self.memory.iter().try_for_each(|(key, cell)| each(key, cell))?;
        let runs = self.lock();
        runs.merge(|key, cell| each(&key, &cell))
    }

    /// A thread that panicked while it held the lock ends the program.
    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    /// Adds up the times.
    fn note(&mut self, aggregate: &Aggregate) {
        for (source, rows) in &aggregate.sources {
            let sum = self.sums.entry(source.clone()).or_default();
            rows.values().for_each(|row| sum.add_time(row));
        }
    }

    fn add(&mut self, cells: Vec<(Key, Cell)>) -> io::Result<()> {
        self.write(|writer| cells.iter().try_for_each(|(key, cell)| put(writer, key, cell)))?;
        if self.runs.len() >= RUNS {
            let Some(file) = &self.file else { return Ok(()) };
            let file = Some(file.try_clone()?);
            let old = Self { file, runs: std::mem::take(&mut self.runs), ..Self::default() };
            self.write(|writer| old.merge(|key, cell| put(writer, &key, &cell)))?;
        }
        Ok(())
    }

    /// Appends a run.
    fn write(
        &mut self,
        fill: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile()?);
        }
        let Some(mut file) = self.file.as_ref() else { return Ok(()) };
        let start = file.seek(SeekFrom::End(0))?;
        let mut writer = BufWriter::with_capacity(1 << 17, file);
        fill(&mut writer)?;
        writer.flush()?;
        drop(writer);
        self.runs.push(start..file.stream_position()?);
        Ok(())
    }

    fn merge(&self, mut each: impl FnMut(Key, Cell) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut sections: Vec<_> = self
            .runs
            .iter()
            .map(|range| BufReader::with_capacity(BUFFER, Section { file, range: range.clone() }))
            .collect();
        let mut heap = BinaryHeap::new();
        for (run, section) in sections.iter_mut().enumerate() {
            heap.extend(get(section)?.map(|(key, cell)| Next { key, cell, run }));
        }
        while let Some(Next { key, mut cell, run }) = heap.pop() {
            heap.extend(get(&mut sections[run])?.map(|(key, cell)| Next { key, cell, run }));
            while heap.peek().is_some_and(|next| next.key == key) {
                let Some(same) = heap.pop() else { break };
                cell.merge(&same.cell);
                let run = same.run;
                heap.extend(get(&mut sections[run])?.map(|(key, cell)| Next { key, cell, run }));
            }
            each(key, cell)?;
        }
        Ok(())
    }
}

/// The next cell of a run; the smallest key is the greatest, because the heap gives that first.
struct Next {
    key: Key,
    cell: Cell,
    run: usize,
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Next {}

/// A part of a file.
struct Section<'f> {
    file: &'f File,
    range: Range<u64>,
}

impl Read for Section<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let most = out.len().min(left);
        let length = self.file.read_at(&mut out[..most], self.range.start)?;
        self.range.start += length as u64;
        Ok(length)
    }
}

/// Writes one cell: its length, then what postcard makes of it.
fn put(writer: &mut impl Write, key: &Key, cell: &Cell) -> io::Result<()> {
    let bytes = postcard::to_stdvec(&(key, cell)).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(&bytes)
}

/// Reads what [`put`] wrote; `None` at the end.
fn get(reader: &mut impl Read) -> io::Result<Option<(Key, Cell)>> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    reader.read_exact(&mut bytes)?;
    postcard::from_bytes(&bytes).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::reader::{Parser, Wanted};
    use crate::config::Detail;
    use crate::report::synthetic::{Disk, Plan, windows};

    /// Everything that `limit` rows in memory and `parts` threads make of 600 windows.
    fn sums(limit: usize, parts: usize, rows: &Rows) -> (Vec<(Key, Cell)>, usize) {
        let disk = |name: &str, median_ns| Disk {
            name: name.into(),
            id: 1,
            median_ns,
            requests: 10,
            slow: None,
        };
        let plan = Plan {
            seed: 5,
            host: "h".into(),
            start_us: 1_795_305_600_000_000,
            window_us: 5_000_000,
            windows: 600,
            detail: Detail::Fine,
            disks: vec![disk("sda", 4_000_000), disk("sdb", 90_000)],
        };
        let mut cells = Cells::with_limit(rows.clone(), limit);
        let mut threads: Vec<_> = (0..parts).map(|_| cells.part()).collect();
        let mut parser = Parser::default();
        for (place, (record, _)) in windows(&plan).enumerate() {
            let mut line = Vec::new();
            record.write_line(&mut line);
            threads[place % parts].take(&parser.parse(&line, &Wanted::default()).unwrap().unwrap());
        }
        let left = threads.into_iter().map(Part::into_aggregate).collect();
        cells.finish(left).unwrap();
        let mut all = Vec::new();
        cells
            .for_each(|key, cell| {
                all.push((key.clone(), cell.clone()));
                Ok(())
            })
            .unwrap();
        let runs = cells.lock().runs.len();
        (all, runs)
    }

    #[test]
    fn what_does_not_fit_into_memory_adds_up_the_same() {
        for rows in [Rows::default(), Rows::epoch(60), Rows::epoch(5)] {
            let (expected, runs) = sums(usize::MAX, 1, &rows);
            assert_eq!(runs, 0);
            assert!(expected.windows(2).all(|pair| pair[0].0 < pair[1].0));
            for (limit, parts) in [(1, 1), (7, 3), (50, 2)] {
                assert_eq!(sums(limit, parts, &rows).0, expected, "{limit} {parts}");
            }
        }
        // One row at a time: more runs than are merged at once.
        let (_, runs) = sums(1, 1, &Rows::epoch(5));
        assert!((1..RUNS).contains(&runs), "{runs}");
    }
}
