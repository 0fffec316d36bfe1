//! Heat maps: time across, latency upwards on a logarithmic scale, colour for the share that each
//! latency has of the requests of its time.

pub mod draw;
pub mod html;
pub mod palette;
pub mod png;
pub mod svg;
pub mod terminal;

use jiff::tz::TimeZone;

use super::aggregate::{Aggregate, Device, HostRow, OPERATIONS, Totals};
use super::hist::Hist;
use super::summary::{ALL, Shown};
use super::times::Rows;
use crate::archive::reader::{RecordView, Sink, Source};
use crate::histogram;
use crate::record::Operations;

/// Widths of the columns that are collected, s; each divides the next.
const WIDTHS_S: [i64; 15] =
    [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 604_800, 6_048_000];
/// Columns that are collected at most; a picture has fewer.
const COLLECTED: i64 = 2048;

/// Sums by columns of time that become wider as the range grows, so that any range fits into the
/// same memory.
#[derive(Debug)]
pub struct Collector {
    sums: Aggregate,
    width: usize,
    ends_us: Option<(i64, i64)>,
}

/// A heat map of one device and operation of one host.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Host name.
    pub host: String,
    /// Kernel name of the disk, with the layer if it is not that of requests.
    pub device: String,
    /// An operation of the record, or [`ALL`].
    pub operation: &'static str,
    /// Requests in all columns.
    pub count: u64,
    /// One after the other; `None` where nothing was recorded, which is not the same as no I/O.
    pub columns: Vec<Option<Totals>>,
}

/// Panels of the same time.
#[derive(Clone, Debug)]
pub struct Map {
    /// Begin of the first column, µs since the Unix epoch.
    pub begin_us: i64,
    /// Width of a column, µs.
    pub width_us: i64,
    /// Number of columns.
    pub columns: usize,
    /// The panels, the busiest first.
    pub panels: Vec<Panel>,
    /// The zone that times are written in.
    pub zone: TimeZone,
}

impl Default for Collector {
    fn default() -> Self {
        Self { sums: Aggregate::new(Rows::epoch(WIDTHS_S[0])), width: 0, ends_us: None }
    }
}

impl Collector {
    /// Makes the columns so wide that `COLLECTED` of them are enough, and at least `width`.
    fn widen(&mut self, width: usize) {
        let Some((first, last)) = self.ends_us else { return self.set_width(width) };
        let needed = |width: usize| {
            let width_us = WIDTHS_S[width] * 1_000_000;
            last.div_euclid(width_us) - first.div_euclid(width_us) + 1
        };
        let fits = (width..WIDTHS_S.len()).find(|&width| needed(width) <= COLLECTED);
        self.set_width(fits.unwrap_or(WIDTHS_S.len() - 1));
    }

    fn set_width(&mut self, width: usize) {
        if width > self.width {
            self.width = width;
            self.sums.set_rows(Rows::epoch(WIDTHS_S[width]));
        }
    }

    fn note(&mut self, first_us: i64, last_us: i64) {
        let (first, last) = self.ends_us.unwrap_or((first_us, last_us));
        self.ends_us = Some((first.min(first_us), last.max(last_us)));
        self.widen(self.width);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, mut other: Self) {
        if let Some((first, last)) = other.ends_us {
            self.widen(other.width);
            self.note(first, last);
        }
        other.set_width(self.width);
        self.sums.merge(other.sums);
    }

    /// The map of all that was collected, with at most `columns` columns (at least 1).
    #[must_use]
    pub fn map(&self, columns: usize, shown: Shown, zone: &TimeZone) -> Option<Map> {
        let (first_us, last_us) = self.ends_us?;
        let base_us = WIDTHS_S[self.width] * 1_000_000;
        let (first, last) = (first_us.div_euclid(base_us), last_us.div_euclid(base_us));
        let bins = last - first + 1;
        // A column narrower than a window would leave every other one empty.
        let windows = self.sums.sources.values().flat_map(|rows| rows.values());
        let (count, time_us) =
            windows.fold((0, 0), |(n, t), row| (n + row.windows, t + row.time_us));
        let window_us = (time_us / count.max(1)) as i64;
        let least = (window_us + base_us / 2) / base_us;
        let columns = i64::try_from(columns.max(1)).unwrap_or(i64::MAX);
        let group = ((bins + columns - 1) / columns).max(least).max(1);
        let first = first.div_euclid(group) * group;
        let width_us = base_us * group;
        let columns = ((last - first) / group + 1) as usize;
        let frame = Frame { begin_us: first * base_us, width_us, columns, window_us };
        let mut panels = Vec::new();
        for (source, rows) in &self.sums.sources {
            panels.extend(frame.panels(source, rows, shown));
        }
        panels.sort_by_key(|panel: &Panel| std::cmp::Reverse(panel.count));
        let begin_us = frame.begin_us;
        Some(Map { begin_us, width_us, columns, panels, zone: zone.clone() })
    }
}

impl Sink for Collector {
    fn take(&mut self, record: &RecordView<'_>) {
        let at_us = record.middle_us();
        self.note(at_us, at_us);
        self.sums.take(record);
    }
}

/// The columns that all panels of a map share.
struct Frame {
    begin_us: i64,
    width_us: i64,
    columns: usize,
    window_us: i64,
}

impl Frame {
    fn panels(
        &self,
        source: &Source,
        rows: &std::collections::BTreeMap<i64, HostRow>,
        shown: Shown,
    ) -> Vec<Panel> {
        let mut columns: Vec<Option<HostRow>> = vec![None; self.columns];
        for (begin_us, row) in rows {
            let place = (begin_us - self.begin_us) / self.width_us;
            if let Some(column) = usize::try_from(place).ok().and_then(|p| columns.get_mut(p)) {
                column.get_or_insert_default().merge(row);
            }
        }
        // Windows drift against the columns: where a column is hardly longer than a window, one
        // without a window's middle lies within the window before it.
        if self.width_us < self.window_us * 3 / 2 {
            for place in 1..columns.len().saturating_sub(1) {
                if columns[place].is_none() && columns[place + 1].is_some() {
                    columns[place] = columns[place - 1].clone();
                }
            }
        }
        let mut devices: Vec<&String> =
            columns.iter().flatten().flat_map(|row| row.devices.keys()).collect();
        devices.sort();
        devices.dedup();
        let mut panels = Vec::new();
        for device in devices {
            for operation in (0..OPERATIONS).map(Some).chain([None]) {
                let wanted = operation.map_or(shown.all, |place| shown.operations[place]);
                if !wanted {
                    continue;
                }
                let totals = |row: &HostRow| match (row.devices.get(device), operation) {
                    (Some(device), Some(place)) => device.operations[place].clone(),
                    (Some(device), None) => Device::all(device),
                    (None, _) => Totals::default(),
                };
                let columns: Vec<Option<Totals>> =
                    columns.iter().map(|row| row.as_ref().map(totals)).collect();
                let count = columns.iter().flatten().map(|totals| totals.count).sum();
                if count > 0 {
                    panels.push(Panel {
                        host: source.host.clone(),
                        device: format!("{device}{}", source.layer.suffix()),
                        operation: operation.map_or(ALL, |place| Operations::NAMES[place]),
                        count,
                        columns,
                    });
                }
            }
        }
        panels
    }
}

/// A band of latencies: `low..high`, ns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Lower bound.
    pub low_ns: f64,
    /// Upper bound.
    pub high_ns: f64,
}

/// The bands of a panel and the share of each in each column.
#[derive(Clone, Debug)]
pub struct Cells {
    /// Ascending, without a gap.
    pub bands: Vec<Band>,
    /// By column, then band: requests. Fractions come from slots that are spread over bands.
    pub counts: Vec<Vec<f64>>,
    /// Largest share that a band has in its column, 0 to 1.
    pub most: f64,
}

impl Panel {
    /// The panel's cells, with `per_octave` bands per octave: a power of two up to 16.
    #[must_use]
    pub fn cells(&self, per_octave: usize) -> Cells {
        let join = 16 / per_octave.clamp(1, 16);
        let band_of = |index: usize| index / join;
        let (mut first, mut last) = (usize::MAX, 0);
        let mut note = |index: usize| {
            first = first.min(band_of(index));
            last = last.max(band_of(index));
        };
        for hist in self.columns.iter().flatten().map(|totals| &totals.hist) {
            spread(hist, |index, _| note(index));
        }
        if first > last {
            return Cells { bands: Vec::new(), counts: Vec::new(), most: 0.0 };
        }
        // A band of air on both sides, so that the ends of the distribution are seen as such.
        let (first, last) = (first.saturating_sub(1), last + 1);
        let bands = (first..=last)
            .map(|band| {
                let bound = |index: usize| {
                    let index = index.min(histogram::OVERFLOW_BUCKET);
                    // Half a unit stands for nothing, which has no place on a logarithmic axis.
                    (histogram::bucket_low_units(index) as f64).max(0.5) * histogram::UNIT_NS as f64
                };
                Band { low_ns: bound(band * join), high_ns: bound((band + 1) * join) }
            })
            .filter(|band| band.high_ns > band.low_ns)
            .collect::<Vec<_>>();
        let mut most = 0.0f64;
        let counts = self.columns.iter().map(|column| {
            let mut counts = vec![0.0; bands.len()];
            if let Some(totals) = column {
                spread(&totals.hist, |index, count| {
                    let place = (band_of(index) - first).min(bands.len() - 1);
                    counts[place] += count;
                });
                let largest = counts.iter().copied().fold(0.0, f64::max);
                most = most.max(largest / (totals.count.max(1) as f64));
            }
            counts
        });
        let counts = counts.collect();
        Cells { bands, counts, most }
    }
}

/// Calls `each` with fine buckets and their counts; what is only known by slot is spread evenly
/// over the slot's buckets.
fn spread(hist: &Hist, mut each: impl FnMut(usize, f64)) {
    if hist.is_fine() {
        return hist.fine().for_each(|(index, count)| each(index, count as f64));
    }
    for (slot, &count) in hist.slots().iter().enumerate().filter(|&(_, &count)| count > 0) {
        let (low_us, high_us) = histogram::slot_bounds_us(slot);
        let bucket = |us: u64| histogram::bucket_of_units(us.saturating_mul(8));
        let (first, end) = (bucket(low_us), bucket(high_us + 1).max(bucket(low_us) + 1));
        for index in first..end {
            each(index, count as f64 / (end - first) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::reader::{Parser, Wanted};
    use crate::config::Detail;
    use crate::report::synthetic::{Disk, Plan, windows};

    const EVERYTHING: Shown = Shown { operations: [true; OPERATIONS], all: true };

    fn plan(windows: u64, window_us: i64) -> Plan {
        Plan {
            seed: 1,
            host: "h".into(),
            start_us: 1_795_305_600_000_000,
            window_us,
            windows,
            detail: Detail::Fine,
            disks: vec![Disk {
                name: "sda".into(),
                id: 1,
                median_ns: 100_000,
                requests: 20,
                slow: None,
            }],
        }
    }

    fn take(collector: &mut Collector, line: &[u8]) {
        collector.take(&Parser::default().parse(line, &Wanted::default()).unwrap().unwrap());
    }

    fn collect(plan: &Plan, parts: usize) -> Collector {
        let mut collectors: Vec<_> = (0..parts).map(|_| Collector::default()).collect();
        for (place, (record, _)) in windows(plan).enumerate() {
            let mut line = Vec::new();
            record.write_line(&mut line);
            take(&mut collectors[place % parts], &line);
        }
        let mut whole = collectors.remove(0);
        collectors.into_iter().for_each(|part| whole.merge(part));
        whole
    }

    #[test]
    fn columns_widen_with_the_range_and_lose_nothing() {
        for (count, window_us) in
            [(1, 5_000_000), (300, 5_000_000), (5000, 5_000_000), (900, 60_000_000)]
        {
            let plan = plan(count, window_us);
            let truth: usize = windows(&plan).map(|(_, requests)| requests.len()).sum();
            for parts in [1, 3] {
                let map = collect(&plan, parts).map(200, EVERYTHING, &TimeZone::UTC).unwrap();
                assert!(map.columns <= 201, "{}", map.columns);
                assert!(count < 200 || map.columns > 60, "{} of {count}", map.columns);
                let all = map.panels.iter().find(|panel| panel.operation == ALL).unwrap();
                assert_eq!(all.count, truth as u64);
                assert_eq!(all.columns.len(), map.columns);
                assert!(all.columns.iter().all(Option::is_some), "{count} {window_us}");
                let cells = all.cells(8);
                let sum: f64 = cells.counts.iter().flatten().sum();
                assert!((sum - truth as f64).abs() < 1e-6);
                assert!(cells.most > 0.0 && cells.most <= 1.0);
            }
        }
    }

    #[test]
    fn order_of_reading_does_not_matter() {
        let plan = plan(3000, 5_000_000);
        let (one, many) = (collect(&plan, 1), collect(&plan, 4));
        assert_eq!(one.width, many.width);
        assert_eq!(one.sums.sources, many.sums.sources);
    }

    #[test]
    fn bands_tile_the_axis() {
        let map = collect(&plan(50, 5_000_000), 1).map(50, EVERYTHING, &TimeZone::UTC).unwrap();
        for per_octave in [1, 4, 8, 16] {
            let cells = map.panels[0].cells(per_octave);
            assert!(cells.bands.windows(2).all(|pair| pair[0].high_ns == pair[1].low_ns));
        }
    }

    #[test]
    fn nothing_recorded_differs_from_no_request() {
        let mut collector = Collector::default();
        for (place, (mut record, _)) in windows(&plan(30, 5_000_000)).enumerate() {
            if (10..15).contains(&place) {
                continue;
            }
            if (20..25).contains(&place) {
                record.latency_histogram.clear();
            }
            let mut line = Vec::new();
            record.write_line(&mut line);
            take(&mut collector, &line);
        }
        let map = collector.map(100, EVERYTHING, &TimeZone::UTC).unwrap();
        assert_eq!(map.columns, 30);
        for (place, column) in map.panels[0].columns.iter().enumerate() {
            let expected = match place {
                10..15 => None,
                20..25 => Some(false),
                _ => Some(true),
            };
            assert_eq!(column.as_ref().map(|totals| totals.count > 0), expected, "{place}");
        }
    }
}
