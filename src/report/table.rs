//! The report as text: an aligned table for people, JSON, JSON Lines and CSV for programs.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde::Serialize;

use super::summary::{ALL, HostSummary, Row};
use super::times;
use super::units::{counted, duration, latency, printable, three_digits};

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
        let columns = self.lines.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for line in &self.lines {
            let mut text = String::new();
            for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
                if column > 0 {
                    text.push_str("  ");
                }
                if column < self.left {
                    text.push_str(&format!("{cell:<width$}"));
                } else {
                    text.push_str(&format!("{cell:>width$}"));
                }
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Writes a report.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: &mut dyn Write,
    format: Format,
    hosts: &[HostSummary],
    rows: &[Row],
    zone: &TimeZone,
) -> io::Result<()> {
    match format {
        Format::Table => table(out, hosts, rows, zone),
        Format::Json => {
            #[derive(Serialize)]
            struct Document<'a> {
                hosts: &'a [HostSummary],
                rows: &'a [Row],
            }
            serde_json::to_writer_pretty(&mut *out, &Document { hosts, rows })?;
            writeln!(out)
        }
        Format::Jsonl => {
            for host in hosts {
                json_line(out, "host", host)?;
            }
            for row in rows {
                json_line(out, "row", row)?;
            }
            Ok(())
        }
        Format::Csv => {
            let mut csv = CsvRows::new(out);
            rows.iter().try_for_each(|row| csv.write(row))?;
            csv.finish()
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

/// Rows as CSV. The column `time` is there in any case, so that the columns never change.
pub struct CsvRows<W: Write> {
    writer: csv::Writer<W>,
}

#[derive(Serialize)]
struct CsvRow<'a> {
    time: Option<&'a str>,
    host: &'a str,
    device: &'a str,
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

impl<W: Write> CsvRows<W> {
    /// Begins with the header, once there is a row.
    pub fn new(out: W) -> Self {
        Self { writer: csv::Writer::from_writer(out) }
    }

    /// Writes one row.
    ///
    /// # Errors
    /// Those of the output.
    pub fn write(&mut self, row: &Row) -> io::Result<()> {
        let line = CsvRow {
            time: row.time.as_deref(),
            host: &row.host,
            device: &row.device,
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
        };
        self.writer.serialize(line).map_err(io_error)
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
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
    rows: &[Row],
    zone: &TimeZone,
) -> io::Result<()> {
    write_hosts(out, hosts, zone)?;
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    columns(rows, zone).write(out)?;
    writeln!(out, "\n{ERROR_BOUND}")?;
    if rows.iter().any(|row| row.resolution == "log2") {
        writeln!(out, "{ERROR_BOUND_LOG2}")?;
    }
    Ok(())
}

fn columns(rows: &[Row], zone: &TimeZone) -> Columns {
    let cut = rows.iter().any(|row| row.time.is_some());
    let many = rows.iter().any(|row| row.host != rows[0].host);
    // Requeues and requests in flight are per device: shown where its row of all operations is.
    let devices = rows.iter().any(|row| row.operation == ALL);
    let mut header: Vec<&str> = Vec::new();
    header.extend(many.then_some("HOST"));
    header.extend(["DEVICE", "OP"]);
    header.extend(cut.then_some("FROM"));
    let left = header.len();
    header.extend(["COUNT", "IOPS", "MB/S", "MEAN", "P50", "P90", "P99", "P99.9", "MAX", "ERRORS"]);
    if devices {
        header.extend(["REQUEUES", "IN FLIGHT", "MOST", "OLDEST"]);
    }
    let mut columns = Columns::new(left, &header);
    for row in rows {
        let mut cells = Vec::new();
        cells.extend(many.then(|| printable(&row.host).into_owned()));
        cells.extend([printable(&row.device).into_owned(), row.operation.to_owned()]);
        cells.extend(cut.then(|| times::civil(row.begin_us, zone)));
        let exact = |us: Option<f64>| us.map_or("-".into(), |us| latency(us * 1e3));
        let near = |us: Option<f64>| {
            let mark = if us.is_some() && row.resolution == "log2" { "~" } else { "" };
            format!("{mark}{}", exact(us))
        };
        cells.extend([row.count.to_string(), three_digits(row.iops), three_digits(row.mb_per_s)]);
        cells.push(exact(row.mean_us));
        cells.extend([row.p50_us, row.p90_us, row.p99_us, row.p999_us].map(near));
        cells.extend([exact(row.max_us), row.errors.to_string()]);
        if devices {
            let or_blank = |cell: Option<String>| cell.unwrap_or_default();
            cells.extend([
                or_blank(row.requeues.map(|count| count.to_string())),
                or_blank(row.inflight_mean.map(three_digits)),
                or_blank(row.inflight_max.map(|count| count.to_string())),
                or_blank(row.oldest_us.map(
                    |us| {
                        if us > 0.0 { latency(us * 1e3) } else { "-".into() }
                    },
                )),
            ]);
        }
        columns.push(cells);
    }
    columns
}

/// One host in words: what was read, and before anything else is believed, what is missing.
fn write_host(out: &mut dyn Write, host: &HostSummary, zone: &TimeZone) -> io::Result<()> {
    let (first_us, last_us) = host.range_us;
    let span_us = last_us.saturating_sub(first_us);
    writeln!(
        out,
        "{}: {} from {} to {} {} ({}), {}",
        printable(&host.host),
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
    if hosts.len() <= HOSTS_SHOWN {
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
        hosts.len(),
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
