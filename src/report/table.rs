//! The report as text: an aligned table for people, JSON, JSON Lines and CSV for programs.

use std::collections::BTreeSet;
use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde::Serialize;

use super::aggregate::Totals;
use super::summary::{self, ALL, HostSummary, Row, RowSource};
use super::times;
use super::units::{counted, duration, latency, printable, three_digits};
use crate::archive::reader::Layer;

/// Gaps of one host that the table names; the JSON has all.
const GAPS_SHOWN: usize = 5;

/// Hosts that the table describes one by one; of more, only those with something missing.
const HOSTS_SHOWN: usize = 10;

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// Comma-separated values with a header, latencies in µs.
    Csv,
    /// One JSON object per line: first the hosts, then the rows.
    Jsonl,
}

/// Bound of the error of a percentile, as the table states it.
pub const ERROR_BOUND: &str = "Percentiles are within 1/32 (3.1 %) of the true value, below 2 µs \
     within 62.5 ns; mean and max are exact.";
/// The same where only log2 slots were recorded.
pub const ERROR_BOUND_LOG2: &str =
    "~ only log2 slots were recorded: the percentile is 0.75 to 1.5 times the true value.";

/// Columns of text, the first `left` of them aligned left and the rest right.
#[derive(Debug)]
pub struct Columns {
    left: usize,
    lines: Vec<Vec<String>>,
}

impl Columns {
    /// A table with a header.
    #[must_use]
    pub fn new(left: usize, header: &[&str]) -> Self {
        Self { left, lines: vec![header.iter().map(|&name| name.to_owned()).collect()] }
    }

    /// Adds a line, which should have as many cells as the header.
    pub fn push(&mut self, cells: Vec<String>) {
        self.lines.push(cells);
    }

    /// Writes all lines, without blanks at their ends.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = Vec::new();
        self.lines.iter().for_each(|line| widen(&mut widths, line));
        self.lines.iter().try_for_each(|line| write_line(out, line, &widths, self.left))
    }
}

/// Makes `widths` wide enough for `cells`.
fn widen(widths: &mut Vec<usize>, cells: &[String]) {
    widths.resize(widths.len().max(cells.len()), 0);
    for (width, cell) in widths.iter_mut().zip(cells) {
        *width = (*width).max(cell.chars().count());
    }
}

fn write_line(
    out: &mut dyn Write,
    cells: &[String],
    widths: &[usize],
    left: usize,
) -> io::Result<()> {
    let mut text = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        if column > 0 {
            text.push_str("  ");
        }
        if column < left {
            text.push_str(&format!("{cell:<width$}"));
        } else {
            text.push_str(&format!("{cell:>width$}"));
        }
    }
    writeln!(out, "{}", text.trim_end())
}

/// Writes a report.
///
/// # Errors
/// Those of `out` and of `rows`.
pub fn write(
    out: &mut dyn Write,
    format: Format,
    hosts: &[HostSummary],
    rows: &RowSource<'_>,
    zone: &TimeZone,
) -> io::Result<()> {
    match format {
        Format::Table => table(out, hosts, rows, zone),
        Format::Json => {
            // One object, written piece by piece.
            write!(out, "{{\n\"hosts\": ")?;
            serde_json::to_writer_pretty(&mut *out, hosts)?;
            write!(out, ",\n\"rows\": [")?;
            let mut separator = "";
            rows(&mut |row| {
                writeln!(out, "{separator}")?;
                separator = ",";
                serde_json::to_writer_pretty(&mut *out, &row).map_err(io::Error::from)
            })?;
            writeln!(out, "\n]\n}}")
        }
        Format::Jsonl => {
            for host in hosts {
                json_line(out, "host", host)?;
            }
            rows(&mut |row| json_line(out, "row", &row))
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(out);
            rows(&mut |row| write_csv_row(&mut writer, &row))?;
            writer.flush()
        }
    }
}

/// One object on one line, with its `type` in front.
fn json_line(out: &mut dyn Write, kind: &str, value: &impl Serialize) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a, T> {
        r#type: &'a str,
        #[serde(flatten)]
        value: &'a T,
    }
    serde_json::to_writer(&mut *out, &Line { r#type: kind, value })?;
    writeln!(out)
}

/// A row as CSV. The column `time` is there in any case, so that the columns never change.
#[derive(Serialize)]
struct CsvRow<'a> {
    time: Option<&'a str>,
    host: &'a str,
    device: &'a str,
    layer: &'a str,
    operation: &'a str,
    count: u64,
    iops: f64,
    bytes: u64,
    mb_per_s: f64,
    mean_us: Option<f64>,
    p50_us: Option<f64>,
    p90_us: Option<f64>,
    p99_us: Option<f64>,
    p999_us: Option<f64>,
    max_us: Option<f64>,
    resolution: &'a str,
    errors: u64,
    requeues: Option<u64>,
    inflight_mean: Option<f64>,
    inflight_max: Option<u64>,
    oldest_us: Option<f64>,
}

impl<'a> CsvRow<'a> {
    fn new(row: &'a Row) -> Self {
        Self {
            time: row.time.as_deref(),
            host: &row.host,
            device: &row.device,
            layer: row.layer.name(),
            operation: row.operation,
            count: row.count,
            iops: row.iops,
            bytes: row.bytes,
            mb_per_s: row.mb_per_s,
            mean_us: row.mean_us,
            p50_us: row.p50_us,
            p90_us: row.p90_us,
            p99_us: row.p99_us,
            p999_us: row.p999_us,
            max_us: row.max_us,
            resolution: row.resolution,
            errors: row.errors,
            requeues: row.requeues,
            inflight_mean: row.inflight_mean,
            inflight_max: row.inflight_max,
            oldest_us: row.oldest_us,
        }
    }
}

/// Writes one row, and before the first one the header if `writer` has headers.
///
/// # Errors
/// Those of the output.
pub(super) fn write_csv_row<W: Write>(writer: &mut csv::Writer<W>, row: &Row) -> io::Result<()> {
    writer.serialize(CsvRow::new(row)).map_err(io_error)
}

/// The header of rows as CSV.
///
/// # Errors
/// None but those of memory.
pub(super) fn csv_header() -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let nobody = ("", "", Layer::default());
    write_csv_row(&mut writer, &summary::row(nobody, ALL, &Totals::default(), None, 0))?;
    let mut lines = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    let end = lines.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    lines.truncate(end);
    Ok(lines)
}

/// The I/O error in a CSV error; a closed pipe must stay recognisable.
pub(super) fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn table(
    out: &mut dyn Write,
    hosts: &[HostSummary],
    rows: &RowSource<'_>,
    zone: &TimeZone,
) -> io::Result<()> {
    write_hosts(out, hosts, zone)?;
    // The rows come twice, first to be measured: they need not fit into memory.
    let mut shape = Shape::default();
    rows(&mut |row| {
        shape.see(&row, zone);
        Ok(())
    })?;
    if shape.first_host.is_none() {
        return Ok(());
    }
    writeln!(out)?;
    let header = HEADER.map(String::from).to_vec();
    widen(&mut shape.widths, &header);
    shape.write(out, header)?;
    rows(&mut |row| shape.write(out, cells(&row, zone)))?;
    writeln!(out, "\n{ERROR_BOUND}")?;
    if shape.coarse {
        writeln!(out, "{ERROR_BOUND_LOG2}")?;
    }
    Ok(())
}

/// All columns, of which those are shown that have something to say.
const HEADER: [&str; 18] = [
    "HOST",
    "DEVICE",
    "OP",
    "FROM",
    "COUNT",
    "IOPS",
    "MB/S",
    "MEAN",
    "P50",
    "P90",
    "P99",
    "P99.9",
    "MAX",
    "ERRORS",
    "REQUEUES",
    "IN FLIGHT",
    "MOST",
    "OLDEST",
];
/// Place of `FROM` in [`HEADER`].
const FROM: usize = 3;
/// Place of the first column that is about a device and not an operation.
const OF_DEVICE: usize = 14;

/// What a table of many rows looks like.
#[derive(Debug, Default)]
struct Shape {
    widths: Vec<usize>,
    first_host: Option<String>,
    /// Rows of several hosts.
    many: bool,
    /// Rows over time.
    cut: bool,
    /// Rows of all operations: requeues and requests in flight are shown there.
    devices: bool,
    /// Percentiles from log2 slots.
    coarse: bool,
}

impl Shape {
    fn see(&mut self, row: &Row, zone: &TimeZone) {
        widen(&mut self.widths, &cells(row, zone));
        let first = self.first_host.get_or_insert_with(|| row.host.clone());
        self.many |= *first != row.host;
        self.cut |= row.time.is_some();
        self.devices |= row.operation == ALL;
        self.coarse |= row.resolution == "log2";
    }

    fn write(&self, out: &mut dyn Write, cells: Vec<String>) -> io::Result<()> {
        let shown = |column: usize| match column {
            0 => self.many,
            FROM => self.cut,
            OF_DEVICE.. => self.devices,
            _ => true,
        };
        let left = (0..=FROM).filter(|&column| shown(column)).count();
        let columns = cells.into_iter().zip(&self.widths).enumerate();
        let (cells, widths): (Vec<_>, Vec<_>) =
            columns.filter(|(column, _)| shown(*column)).map(|(_, column)| column).unzip();
        write_line(out, &cells, &widths, left)
    }
}

/// A row's cells, one for each of [`HEADER`].
fn cells(row: &Row, zone: &TimeZone) -> Vec<String> {
    let from = if row.time.is_some() { times::civil(row.begin_us, zone) } else { String::new() };
    let mut cells = vec![
        printable(&row.host).into_owned(),
        summary::label(&row.device, row.layer),
        row.operation.to_owned(),
        from,
    ];
    let exact = |us: Option<f64>| us.map_or("-".into(), |us| latency(us * 1e3));
    let near = |us: Option<f64>| {
        let mark = if us.is_some() && row.resolution == "log2" { "~" } else { "" };
        format!("{mark}{}", exact(us))
    };
    cells.extend([row.count.to_string(), three_digits(row.iops), three_digits(row.mb_per_s)]);
    cells.push(exact(row.mean_us));
    cells.extend([row.p50_us, row.p90_us, row.p99_us, row.p999_us].map(near));
    cells.extend([exact(row.max_us), row.errors.to_string()]);
    let or_blank = |cell: Option<String>| cell.unwrap_or_default();
    let age = |us: f64| if us > 0.0 { latency(us * 1e3) } else { "-".into() };
    cells.extend([
        or_blank(row.requeues.map(|count| count.to_string())),
        or_blank(row.inflight_mean.map(three_digits)),
        or_blank(row.inflight_max.map(|count| count.to_string())),
        or_blank(row.oldest_us.map(age)),
    ]);
    cells
}

/// One host in words: what was read, and before anything else is believed, what is missing.
fn write_host(out: &mut dyn Write, host: &HostSummary, zone: &TimeZone) -> io::Result<()> {
    let (first_us, last_us) = host.range_us;
    let span_us = last_us.saturating_sub(first_us);
    writeln!(
        out,
        "{}{}: {} from {} to {} {} ({}), {}",
        printable(&host.host),
        host.layer.suffix(),
        counted(host.windows, "window"),
        times::civil(first_us, zone),
        times::civil(last_us, zone),
        times::zone_name(last_us, zone),
        duration(span_us),
        counted(host.runs, "run"),
    )?;
    if let Some(us) = uncovered_us(host) {
        writeln!(out, "  not covered: {}", duration(us))?;
    }
    if host.missing_windows > 0 {
        writeln!(out, "  missing: {}", counted(host.missing_windows, "window"))?;
        for gap in host.gaps.iter().take(GAPS_SHOWN) {
            writeln!(
                out,
                "    {} between {} and {}",
                counted(gap.windows, "window"),
                times::civil(gap.span_us.0, zone),
                times::civil(gap.span_us.1, zone)
            )?;
        }
        if host.gaps.len() > GAPS_SHOWN {
            let more = (host.gaps.len() - GAPS_SHOWN) as u64;
            writeln!(out, "    and {}", counted(more, "more gap"))?;
        }
    }
    for (count, what) in losses(host) {
        if count > 0 {
            writeln!(out, "  {count} {what}")?;
        }
    }
    Ok(())
}

/// Time between the first and the last window without a window, if it is worth a word: a daemon
/// that runs without a break misses some microseconds between its windows.
fn uncovered_us(host: &HostSummary) -> Option<i64> {
    let span_us = host.range_us.1.saturating_sub(host.range_us.0);
    let uncovered_us = span_us.saturating_sub((host.time_s * 1e6) as i64);
    (uncovered_us > 1_000_000 && uncovered_us > span_us / 10_000).then_some(uncovered_us)
}

/// What a host could not measure or keep, in words.
fn losses(host: &HostSummary) -> [(u64, &'static str); 6] {
    [
        (host.audit.dropped_snapshots, "snapshots dropped by the writer"),
        (host.audit.untracked_completions, "completions without a start record"),
        (host.audit.inflight_table_full, "requests not measured: in-flight table full"),
        (host.audit.device_table_full, "requests not measured: device table full"),
        (host.audit.probe_misses, "probe runs skipped by the kernel"),
        (host.overlaps, "overlaps in time: two daemons at once, or a clock that was set back"),
    ]
}

/// Every host, or of a fleet only what is worth a word.
fn write_hosts(out: &mut dyn Write, hosts: &[HostSummary], zone: &TimeZone) -> io::Result<()> {
    let names: BTreeSet<_> = hosts.iter().map(|host| &host.host).collect();
    if names.len() <= HOSTS_SHOWN {
        return hosts.iter().try_for_each(|host| write_host(out, host, zone));
    }
    let incomplete = |host: &&HostSummary| {
        let lost = losses(host).iter().any(|&(count, _)| count > 0);
        lost || host.missing_windows > 0 || uncovered_us(host).is_some()
    };
    let incomplete: Vec<_> = hosts.iter().filter(incomplete).collect();
    let first_us = hosts.iter().map(|host| host.range_us.0).min().unwrap_or(0);
    let last_us = hosts.iter().map(|host| host.range_us.1).max().unwrap_or(0);
    writeln!(
        out,
        "{} hosts: {} from {} to {} {}; {} with something missing",
        names.len(),
        counted(hosts.iter().map(|host| host.windows).sum(), "window"),
        times::civil(first_us, zone),
        times::civil(last_us, zone),
        times::zone_name(last_us, zone),
        incomplete.len(),
    )?;
    for host in incomplete.iter().take(HOSTS_SHOWN) {
        write_host(out, host, zone)?;
    }
    if incomplete.len() > HOSTS_SHOWN {
        writeln!(out, "and {} more", incomplete.len() - HOSTS_SHOWN)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Audit;

    fn host(name: &str) -> HostSummary {
        HostSummary {
            host: name.into(),
            layer: Layer::Request,
            first: String::new(),
            last: String::new(),
            windows: 720,
            time_s: 3600.0,
            runs: 1,
            missing_windows: 0,
            gaps: Vec::new(),
            overlaps: 0,
            audit: Audit::default(),
            range_us: (1_795_305_600_000_000, 1_795_309_200_000_000),
        }
    }

    #[test]
    fn of_a_fleet_only_what_is_worth_a_word() {
        let mut hosts: Vec<_> = (0..100).map(|i| host(&format!("db-{i}"))).collect();
        hosts[7].audit.probe_misses = 3;
        hosts[9].range_us.1 += 600_000_000;
        let mut out = Vec::new();
        write_hosts(&mut out, &hosts, &TimeZone::UTC).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "100 hosts: 72000 windows from 2026-11-22 00:00:00 to 2026-11-22 01:10:00 UTC; 2 with \
             something missing\n\
             db-7: 720 windows from 2026-11-22 00:00:00 to 2026-11-22 01:00:00 UTC (1h), 1 run\n  \
             3 probe runs skipped by the kernel\n\
             db-9: 720 windows from 2026-11-22 00:00:00 to 2026-11-22 01:10:00 UTC (1h 10m), 1 run\n  \
             not covered: 10m\n"
        );
    }
}
