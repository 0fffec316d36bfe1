//! From sums to the rows of a report: rates, percentiles, order.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::aggregate::{Aggregate, Device, HostRow, OPERATIONS, Totals};
use super::cells::{Cell, Cells, Key};
use super::times;
use super::units::printable;
use crate::archive::reader::{Coverage, Layer, Source};
use crate::record::{Audit, Operations};

/// Name of the row that has all operations of a device together.
pub const ALL: &str = "all";

/// One row of a report. Latencies are in µs and `None` when nothing was completed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Begin of the row of time, RFC 3339, when time is cut into rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The same, µs since the Unix epoch; 0 when time is not cut.
    #[serde(skip)]
    pub begin_us: i64,
    /// Host name.
    pub host: String,
    /// Kernel name of the disk.
    pub device: String,
    /// Where the requests were measured.
    pub layer: Layer,
    /// An operation of the record, or [`ALL`].
    pub operation: &'static str,
    /// Requests finally completed.
    pub count: u64,
    /// Requests per second of the windows' time.
    pub iops: f64,
    /// Bytes of the requests.
    pub bytes: u64,
    /// Millions of bytes per second.
    pub mb_per_s: f64,
    /// Mean latency; exact.
    pub mean_us: Option<f64>,
    /// Median.
    pub p50_us: Option<f64>,
    /// 90th percentile.
    pub p90_us: Option<f64>,
    /// 99th percentile.
    pub p99_us: Option<f64>,
    /// 99.9th percentile.
    pub p999_us: Option<f64>,
    /// Largest latency; exact.
    pub max_us: Option<f64>,
    /// What the percentiles were computed from: `fine` buckets or `log2` slots.
    pub resolution: &'static str,
    /// Requests that completed with an error.
    pub errors: u64,
    /// Requests given back to the queue; per device, so only in the row of all operations, like
    /// the keys after it.
    pub requeues: Option<u64>,
    /// Time-weighted mean number of requests in flight.
    pub inflight_mean: Option<f64>,
    /// Most requests in flight at one time.
    pub inflight_max: Option<u64>,
    /// Greatest age that a request in flight had reached when a window ended.
    pub oldest_us: Option<f64>,
}

/// Where the rows of a report come from: calls what it is given with each of them, as often as it
/// is asked. They need not be in memory.
pub type RowSource<'a> = dyn Fn(&mut dyn FnMut(Row) -> io::Result<()>) -> io::Result<()> + 'a;

/// What was read of one layer of one host, and what is missing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostSummary {
    /// Host name.
    pub host: String,
    /// Where the requests were measured.
    pub layer: Layer,
    /// Begin of the first window, RFC 3339.
    pub first: String,
    /// End of the last window.
    pub last: String,
    /// Different windows.
    pub windows: u64,
    /// Length of the windows together, s.
    pub time_s: f64,
    /// Runs of the daemon.
    pub runs: u64,
    /// Windows that are missing between others (gaps in `seq`).
    pub missing_windows: u64,
    /// Where they are missing, in order of time.
    pub gaps: Vec<GapSummary>,
    /// How often windows overlap in time: two daemons at once, or a clock that was set back.
    pub overlaps: u64,
    /// What could not be measured or kept.
    pub audit: Audit,
    /// Begin of the first window and end of the last, µs since the Unix epoch.
    #[serde(skip)]
    pub range_us: (i64, i64),
}

/// Windows that are missing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GapSummary {
    /// End of the last window before, RFC 3339.
    pub after: String,
    /// Begin of the first window behind.
    pub until: String,
    /// Windows that are missing.
    pub windows: u64,
    /// Both ends, µs since the Unix epoch.
    #[serde(skip)]
    pub span_us: (i64, i64),
}

/// What rows are sorted by, largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SortKey {
    /// Requests.
    Count,
    /// Requests per second.
    Iops,
    /// Bytes.
    Bytes,
    /// Mean latency.
    Mean,
    /// Median.
    P50,
    /// 90th percentile.
    P90,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
    /// Largest latency.
    Max,
    /// Errors.
    Errors,
    /// Age of the oldest request in flight.
    Oldest,
}

/// Which operations a report has rows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// By place in [`Operations::NAMES`].
    pub operations: [bool; OPERATIONS],
    /// The row of all of them together.
    pub all: bool,
}

/// A device as people read it: its name, with the layer if it is not that of requests.
#[must_use]
pub fn label(device: &str, layer: Layer) -> String {
    format!("{}{}", printable(device), layer.suffix())
}

/// The rows of `aggregate`, whose time is not cut: by host, device, layer and operation (all
/// first).
#[must_use]
pub fn rows(aggregate: &Aggregate, shown: Shown) -> Vec<Row> {
    let mut rows = Vec::new();
    for (source, by_time) in &aggregate.sources {
        for row_of_time in by_time.values() {
            for (name, device) in &row_of_time.devices {
                let mut push = |operation, totals: &Totals, device: Option<&Device>| {
                    let key = (source.host.as_str(), name.as_str(), source.layer);
                    rows.push(row(key, operation, totals, device, row_of_time.time_us));
                };
                if shown.all {
                    push(ALL, &device.all(), Some(device));
                }
                for (place, totals) in device.operations.iter().enumerate() {
                    if shown.operations[place] && totals.count > 0 {
                        push(Operations::NAMES[place], totals, None);
                    }
                }
            }
        }
    }
    rows.sort_by(|a, b| (&a.host, &a.device, a.layer).cmp(&(&b.host, &b.device, b.layer)));
    rows
}

/// Calls `each` with every row of `cells`: by host, device, layer, operation (all first) and time.
/// `cut` says whether time is cut into rows.
///
/// # Errors
/// Those of `each`, and of sums that are not in memory.
pub fn for_each_row(
    cells: &Cells,
    shown: Shown,
    cut: bool,
    zone: &TimeZone,
    mut each: impl FnMut(Row) -> io::Result<()>,
) -> io::Result<()> {
    let mut times = HostTimes::default();
    cells.for_each(|key, cell| {
        if times.take(key, cell) {
            return Ok(());
        }
        let wanted = match usize::from(key.place).checked_sub(1) {
            None => shown.all,
            Some(place) => shown.operations[place],
        };
        if !wanted {
            return Ok(());
        }
        let mut row = row_of(key, cell, times.us(key));
        row.time = cut.then(|| times::rfc3339(key.begin_us, zone));
        row.begin_us = key.begin_us;
        each(row)
    })
}

/// The times of the host whose cells are being read.
#[derive(Debug, Default)]
pub struct HostTimes {
    host: String,
    /// By layer and row.
    times: BTreeMap<(Layer, i64), u64>,
}

impl HostTimes {
    /// Whether the cell was a time, which is kept.
    pub fn take(&mut self, key: &Key, cell: &Cell) -> bool {
        if !key.device.is_empty() {
            return false;
        }
        if key.host != self.host {
            self.host.clone_from(&key.host);
            self.times.clear();
        }
        self.times.insert((key.layer, key.begin_us), cell.time_us);
        true
    }

    /// The time of the windows that the cell of `key` is about, µs.
    #[must_use]
    pub fn us(&self, key: &Key) -> u64 {
        self.times.get(&(key.layer, key.begin_us)).copied().unwrap_or(0)
    }

    /// Begin and length of all rows of a layer, in order of time.
    pub fn of(&self, layer: Layer) -> impl Iterator<Item = (i64, u64)> {
        let rows = self.times.range((layer, i64::MIN)..=(layer, i64::MAX));
        rows.map(|(&(_, begin_us), &time_us)| (begin_us, time_us))
    }
}

fn row_of(key: &Key, cell: &Cell, time_us: u64) -> Row {
    let operation =
        usize::from(key.place).checked_sub(1).map_or(ALL, |place| Operations::NAMES[place]);
    let device = Device {
        requeues: cell.requeues,
        inflight_integral: cell.inflight_integral,
        inflight_max: cell.inflight_max,
        oldest_ns: cell.oldest_ns,
        ..Device::default()
    };
    let device = (key.place == 0).then_some(&device);
    row((&key.host, &key.device, key.layer), operation, &cell.totals, device, time_us)
}

/// One row from its sums over `time_us` microseconds.
#[must_use]
pub fn row(
    (host, name, layer): (&str, &str, Layer),
    operation: &'static str,
    totals: &Totals,
    device: Option<&Device>,
    time_us: u64,
) -> Row {
    let per_second = |sum: f64| if time_us == 0 { 0.0 } else { sum * 1e6 / time_us as f64 };
    let quantile = |q| totals.hist.quantile_ns(q, totals.max_ns).map(|ns| ns / 1e3);
    let some = |us: f64| (totals.count > 0).then_some(us);
    Row {
        time: None,
        begin_us: 0,
        host: host.into(),
        device: name.into(),
        layer,
        operation,
        count: totals.count,
        iops: per_second(totals.count as f64),
        bytes: totals.bytes,
        mb_per_s: per_second(totals.bytes as f64 / 1e6),
        mean_us: some(totals.sum_ns as f64 / totals.count as f64 / 1e3),
        p50_us: quantile(0.5),
        p90_us: quantile(0.9),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        max_us: some(totals.max_ns as f64 / 1e3),
        resolution: if totals.hist.is_fine() { "fine" } else { "log2" },
        errors: totals.errors,
        requeues: device.map(|device| device.requeues),
        inflight_mean: device.map(|device| device.inflight_mean(time_us)),
        inflight_max: device.map(|device| device.inflight_max),
        oldest_us: device.map(|device| device.oldest_ns as f64 / 1e3),
    }
}

/// Sorts `rows` by `key`, largest first; rows without a value come last, equal ones stay in order.
pub fn sort(rows: &mut [Row], key: SortKey) {
    let value = |row: &Row| match key {
        SortKey::Count => Some(row.count as f64),
        SortKey::Iops => Some(row.iops),
        SortKey::Bytes => Some(row.bytes as f64),
        SortKey::Mean => row.mean_us,
        SortKey::P50 => row.p50_us,
        SortKey::P90 => row.p90_us,
        SortKey::P99 => row.p99_us,
        SortKey::P999 => row.p999_us,
        SortKey::Max => row.max_us,
        SortKey::Errors => Some(row.errors as f64),
        SortKey::Oldest => row.oldest_us,
    };
    rows.sort_by(|a, b| value(b).partial_cmp(&value(a)).unwrap_or(Ordering::Equal));
}

/// The first rows of `rows` in order of `key`, largest first; all of them without `most`.
///
/// # Errors
/// Those of `rows`.
pub fn first(rows: &RowSource<'_>, key: SortKey, most: Option<usize>) -> io::Result<Vec<Row>> {
    let mut first: Vec<Row> = Vec::new();
    rows(&mut |row| {
        first.push(row);
        // What cannot be among the first any more goes, now and then.
        if let Some(most) = most
            && first.len() >= most.saturating_mul(2).max(1024)
        {
            sort(&mut first, key);
            first.truncate(most);
        }
        Ok(())
    })?;
    sort(&mut first, key);
    first.truncate(most.unwrap_or(usize::MAX));
    Ok(first)
}

/// What was read of each host and layer. `sums` has their times and what could not be measured.
#[must_use]
pub fn hosts(
    sums: &BTreeMap<Source, HostRow>,
    coverage: &BTreeMap<Source, Coverage>,
    zone: &TimeZone,
) -> Vec<HostSummary> {
    let time = |at_us| times::rfc3339(at_us, zone);
    let none = HostRow::default();
    let summary = |(source, coverage): (&Source, &Coverage)| {
        let sums = sums.get(source).unwrap_or(&none);
        HostSummary {
            host: source.host.clone(),
            layer: source.layer,
            first: time(coverage.first_us),
            last: time(coverage.last_us),
            windows: coverage.windows,
            time_s: sums.time_us as f64 / 1e6,
            runs: coverage.runs,
            missing_windows: coverage.gaps.iter().map(|gap| gap.windows).sum(),
            gaps: coverage
                .gaps
                .iter()
                .map(|gap| GapSummary {
                    after: time(gap.after_us),
                    until: time(gap.until_us),
                    windows: gap.windows,
                    span_us: (gap.after_us, gap.until_us),
                })
                .collect(),
            overlaps: coverage.overlaps,
            audit: sums.audit,
            range_us: (coverage.first_us, coverage.last_us),
        }
    };
    coverage.iter().map(summary).collect()
}
