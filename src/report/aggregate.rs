//! Sums of records: by host, row of time, device and operation.
//!
//! Everything is integers and maxima, so that the result is the same to the last digit in
//! whatever order, and on however many threads, the records were read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hist::Hist;
use super::times::Rows;
use crate::archive::reader::{DeviceView, InflightView, OperationView, RecordView, Sink, Source};
use crate::record::{Audit, Operations};

/// Number of operations that a record tells apart.
pub const OPERATIONS: usize = Operations::NAMES.len();

/// One operation of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests finally completed.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sum of their latencies, ns.
    pub sum_ns: u128,
    /// Largest of their latencies, ns.
    pub max_ns: u64,
    /// Those with an error.
    pub errors: u64,
    /// Their latencies.
    pub hist: Hist,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// By operation, in the order of [`Operations::NAMES`].
    pub operations: [Totals; OPERATIONS],
    /// Requests given back to the queue.
    pub requeues: u64,
    /// Integral of the number in flight over time, in millionths of a request · µs.
    pub inflight_integral: u128,
    /// Most in flight at one time.
    pub inflight_max: u64,
    /// Greatest age that a request had reached when a window ended, ns.
    pub oldest_ns: u64,
}

/// One host and layer in one row of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRow {
    /// Windows.
    pub windows: u64,
    /// Their lengths together, µs.
    pub time_us: u64,
    /// What could not be measured.
    pub audit: Audit,
    /// By name.
    pub devices: BTreeMap<String, Device>,
}

/// Sums by host and layer, and row of time (its begin, µs since the Unix epoch; 0 when time is not
/// cut).
#[derive(Clone, Debug, Default)]
pub struct Aggregate {
    rows: Rows,
    /// Rows of devices that there are: the measure of the memory.
    pub devices: usize,
    /// The sums.
    pub sources: BTreeMap<Source, BTreeMap<i64, HostRow>>,
}

/// Nanoseconds of a number of microseconds as the record has it.
fn ns(us: f64) -> u64 {
    (us * 1000.0).round() as u64
}

impl Totals {
    fn add(&mut self, stats: &OperationView<'_>) {
        self.count = self.count.saturating_add(stats.total);
        self.bytes = self.bytes.saturating_add(stats.bytes);
        self.sum_ns = self.sum_ns.saturating_add((stats.sum_us * 1000.0).round() as u128);
        self.max_ns = self.max_ns.max(ns(stats.max_us));
        self.errors = self.errors.saturating_add(stats.errors);
        self.hist.add(stats);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.errors = self.errors.saturating_add(other.errors);
        self.hist.merge(&other.hist);
    }
}

impl Device {
    fn add(&mut self, view: &DeviceView<'_>) {
        for operation in view.operations() {
            self.operations[operation.place].add(&operation);
        }
        self.requeues = self.requeues.saturating_add(view.requeues);
    }

    fn add_inflight(&mut self, view: &InflightView<'_>, length_us: u64) {
        let integral = (view.mean * length_us as f64 * 1e6).round() as u128;
        self.inflight_integral = self.inflight_integral.saturating_add(integral);
        self.inflight_max = self.inflight_max.max(view.max);
        self.oldest_ns = self.oldest_ns.max(ns(view.oldest_us));
    }

    /// Adds all of `other`, of the same time.
    pub fn merge(&mut self, other: &Self) {
        for (totals, other) in self.operations.iter_mut().zip(&other.operations) {
            totals.merge(other);
        }
        self.requeues = self.requeues.saturating_add(other.requeues);
        self.inflight_integral = self.inflight_integral.saturating_add(other.inflight_integral);
        self.inflight_max = self.inflight_max.max(other.inflight_max);
        self.oldest_ns = self.oldest_ns.max(other.oldest_ns);
    }

    /// All operations together.
    #[must_use]
    pub fn all(&self) -> Totals {
        let mut all = Totals::default();
        for totals in &self.operations {
            all.merge(totals);
        }
        all
    }

    /// Time-weighted mean number in flight over `time_us` microseconds.
    #[must_use]
    pub fn inflight_mean(&self, time_us: u64) -> f64 {
        if time_us == 0 { 0.0 } else { self.inflight_integral as f64 / 1e6 / time_us as f64 }
    }
}

/// Adds `other` to `audit`, key by key.
fn add_audit(audit: &mut Audit, other: &Audit) {
    for (sum, more) in [
        (&mut audit.untracked_completions, other.untracked_completions),
        (&mut audit.inflight_table_full, other.inflight_table_full),
        (&mut audit.device_table_full, other.device_table_full),
        (&mut audit.probe_misses, other.probe_misses),
        (&mut audit.dropped_snapshots, other.dropped_snapshots),
    ] {
        *sum = sum.saturating_add(more);
    }
}

impl HostRow {
    /// Lets `change` work on the device of that name, and says whether it was there before. (The
    /// map's entry API would allocate a name for every record.)
    fn with_device(&mut self, name: &str, change: impl FnOnce(&mut Device)) -> bool {
        if let Some(device) = self.devices.get_mut(name) {
            change(device);
            true
        } else {
            change(self.devices.entry(name.to_owned()).or_default());
            false
        }
    }

    /// Adds what `other` has about its windows, without its devices.
    pub fn add_time(&mut self, other: &Self) {
        self.windows = self.windows.saturating_add(other.windows);
        self.time_us = self.time_us.saturating_add(other.time_us);
        add_audit(&mut self.audit, &other.audit);
    }

    /// Adds all of `other`: other windows, or (for a fleet) other hosts.
    pub fn merge(&mut self, other: &Self) {
        self.add_time(other);
        for (name, device) in &other.devices {
            self.with_device(name, |mine| mine.merge(device));
        }
    }
}

impl Aggregate {
    /// An empty sum with time cut into `rows`.
    #[must_use]
    pub fn new(rows: Rows) -> Self {
        Self { rows, ..Self::default() }
    }

    /// Goes over to wider rows, each of which must be a union of those so far.
    pub fn set_rows(&mut self, rows: Rows) {
        for by_time in self.sources.values_mut() {
            for (begin, row) in std::mem::take(by_time) {
                by_time.entry(rows.begin_us(begin)).or_default().merge(&row);
            }
        }
        self.rows = rows;
    }

    /// Adds all of `other`, which has other windows of the same selection.
    pub fn merge(&mut self, other: Self) {
        self.devices += other.devices;
        for (source, rows) in other.sources {
            let mine = self.sources.entry(source).or_default();
            for (begin, row) in rows {
                mine.entry(begin).or_default().merge(&row);
            }
        }
    }

    /// The sums of several threads as one.
    #[must_use]
    pub fn merged(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().unwrap_or_default();
        for part in parts {
            whole.merge(part);
        }
        whole
    }
}

impl Sink for Aggregate {
    fn take(&mut self, record: &RecordView<'_>) {
        let begin = self.rows.begin_us(record.middle_us());
        let source = Source { host: record.host.to_string(), layer: record.layer };
        let row = self.sources.entry(source).or_default().entry(begin).or_default();
        let length_us = record.length_us();
        row.windows += 1;
        row.time_us = row.time_us.saturating_add(length_us);
        add_audit(&mut row.audit, &record.audit);
        for view in record.devices() {
            let known = row.with_device(view.name, |device| device.add(&view));
            self.devices += usize::from(!known);
        }
        for view in record.inflight() {
            let known = row.with_device(view.name, |device| device.add_inflight(&view, length_us));
            self.devices += usize::from(!known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::reader::{Parser, Wanted};
    use crate::config::Detail;
    use crate::report::synthetic::{Disk, Plan, windows};
    use proptest::prelude::*;

    fn lines(detail: Detail) -> Vec<Vec<u8>> {
        let disk = |name: &str, id, median_ns| Disk {
            name: name.into(),
            id,
            median_ns,
            requests: 12,
            slow: Some((10, 20)),
        };
        let plan = Plan {
            seed: 5,
            host: "h".into(),
            start_us: 1_795_305_600_000_000,
            window_us: 7_000_000,
            windows: 40,
            detail,
            disks: vec![disk("sda", 1, 4_000_000), disk("sdb", 2, 90_000)],
        };
        let line = |record: crate::record::Record| {
            let mut line = Vec::new();
            record.write_line(&mut line);
            line
        };
        windows(&plan).map(|(record, _)| line(record)).collect()
    }

    fn sum<'a>(lines: impl IntoIterator<Item = &'a Vec<u8>>, rows: &Rows) -> Aggregate {
        let mut sums = Aggregate::new(rows.clone());
        let mut parser = Parser::default();
        for line in lines {
            sums.take(&parser.parse(line, &Wanted::default()).unwrap().unwrap());
        }
        sums
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However windows are dealt to threads and whichever is merged first, the sums are equal
        /// to the last digit; and wider rows are the sums of narrower ones.
        #[test]
        fn parts_add_up(
            owners in prop::collection::vec(0usize..4, 40),
            reverse in any::<bool>(),
            mixed in any::<bool>(),
        ) {
            let mut lines = lines(Detail::Fine);
            if mixed {
                let coarse = super::tests::lines(Detail::Log2);
                lines.iter_mut().zip(coarse).step_by(3).for_each(|(line, other)| *line = other);
            }
            let rows = Rows::epoch(60);
            let whole = sum(&lines, &rows);
            let mut parts: Vec<_> = (0..4)
                .map(|part| {
                    let own = lines.iter().zip(&owners).filter(|(_, owner)| **owner == part);
                    sum(own.map(|(line, _)| line), &rows)
                })
                .collect();
            if reverse {
                parts.reverse();
            }
            let mut merged = Aggregate::merged(parts);
            prop_assert_eq!(&merged.sources, &whole.sources);
            merged.set_rows(Rows::epoch(180));
            prop_assert_eq!(&merged.sources, &sum(&lines, &Rows::epoch(180)).sources);
        }
    }
}
