//! Records in the shapes that other programs read: CSV, long and wide, and OpenMetrics text.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::aggregate::{Aggregate, Device, HostRow, OPERATIONS, Selection, Totals};
use super::summary::{self, Shown};
use super::table::{CsvRows, io_error};
use super::times;
use crate::archive::reader::{RecordView, Sink};
use crate::histogram;
use crate::record::{OperationStats, Operations};

/// Writes each record as it comes; the first error of the output ends the writing.
pub struct CsvExport<W: Write> {
    selection: Selection,
    shown: Shown,
    form: Form<W>,
    zone: TimeZone,
    result: io::Result<()>,
}

enum Form<W: Write> {
    Long(Box<csv::Writer<W>>),
    Wide(Box<CsvRows<W>>),
}

impl<W: Write> CsvExport<W> {
    /// One line per host, window, device, operation and bucket.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn long(out: W, selection: Selection, zone: TimeZone) -> io::Result<Self> {
        let mut writer = csv::Writer::from_writer(out);
        writer
            .write_record([
                "timestamp",
                "time",
                "window_s",
                "host",
                "boot_id",
                "seq",
                "device",
                "operation",
                "low_us",
                "high_us",
                "count",
            ])
            .map_err(io_error)?;
        let shown = Shown { operations: [true; OPERATIONS], all: false };
        let form = Form::Long(Box::new(writer));
        Ok(Self { selection, shown, form, zone, result: Ok(()) })
    }

    /// One line per host, window, device and operation, with percentiles; the columns are those of
    /// `report`.
    pub fn wide(out: W, selection: Selection, shown: Shown, zone: TimeZone) -> Self {
        let form = Form::Wide(Box::new(CsvRows::new(out)));
        Self { selection, shown, form, zone, result: Ok(()) }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The first that the output had.
    pub fn finish(self) -> io::Result<()> {
        self.result?;
        match self.form {
            Form::Long(mut writer) => writer.flush(),
            Form::Wide(rows) => rows.finish(),
        }
    }

    fn write(&mut self, record: &RecordView<'_>) -> io::Result<()> {
        match &mut self.form {
            Form::Long(writer) => write_long(writer, record, &self.selection, &self.zone),
            Form::Wide(rows) => {
                // A record is an archive of one window.
                let mut aggregate = Aggregate::new(self.selection.clone());
                aggregate.take(record);
                let time = times::rfc3339(record.end_us(), &self.zone);
                for mut row in summary::rows(&aggregate, self.shown, false, &self.zone) {
                    row.time = Some(time.clone());
                    rows.write(&row)?;
                }
                Ok(())
            }
        }
    }
}

impl<W: Write> Sink for CsvExport<W> {
    fn take(&mut self, record: &RecordView<'_>) {
        if self.result.is_ok() {
            self.result = self.write(record);
        }
    }
}

fn write_long<W: Write>(
    writer: &mut csv::Writer<W>,
    record: &RecordView<'_>,
    selection: &Selection,
    zone: &TimeZone,
) -> io::Result<()> {
    let seconds = |us: u64| us as f64 / 1e6;
    let front = [
        (record.end_us() as f64 / 1e6).to_string(),
        times::rfc3339(record.end_us(), zone),
        seconds(record.length_us()).to_string(),
        record.host.to_string(),
        record.boot_id.to_string(),
        record.seq.to_string(),
    ];
    let devices = selection.devices.as_ref();
    for device in &record.latency_histogram {
        if devices.is_some_and(|devices| !devices.is_match(&*device.device_name)) {
            continue;
        }
        for (operation, stats) in device.ops.iter() {
            let place = Operations::NAMES.iter().position(|&name| name == operation);
            if let (Some(wanted), Some(place)) = (selection.operations, place)
                && !wanted[place]
            {
                continue;
            }
            for (low, high, count) in bounds(stats) {
                for field in &front {
                    writer.write_field(field).map_err(io_error)?;
                }
                let high = high.map_or(String::new(), |us| us.to_string());
                let rest =
                    [&*device.device_name, operation, &low.to_string(), &high, &count.to_string()];
                for field in rest {
                    writer.write_field(field).map_err(io_error)?;
                }
                writer.write_record(None::<&[u8]>).map_err(io_error)?;
            }
        }
    }
    Ok(())
}

/// Bounds (µs, the upper one exclusive, none for the last bucket) and counts of what was recorded.
fn bounds(stats: &OperationStats) -> impl Iterator<Item = (f64, Option<f64>, u64)> {
    let fine = stats.fine.iter().flatten().map(|&(index, count)| {
        let (low, high) = histogram::bucket_bounds_ns(index.into());
        let high = (high != u64::MAX).then_some(high as f64 / 1e3);
        (low as f64 / 1e3, high, count)
    });
    let slots = stats.slots.iter().flatten().map(|&(slot, count)| {
        let (low, high) = histogram::slot_bounds_us(slot.into());
        let last = usize::from(slot) == histogram::SLOTS - 1;
        (low as f64, (!last).then_some(high as f64 + 1.0), count)
    });
    fine.chain(slots)
}

/// Highest slot that has a bound of its own in OpenMetrics: up to 134 s. What is slower is in
/// `+Inf`.
const LAST_BOUND: usize = 26;

/// One series of OpenMetrics: the rows of a device, in order of time, with the host's.
type Series<'a> = Vec<(i64, &'a HostRow, Option<&'a Device>)>;

/// Writes `aggregate`, whose time is cut into rows, as OpenMetrics text with timestamps, for
/// `promtool tsdb create-blocks-from openmetrics`. Counters count from the first row on; each
/// sample stands at its row's begin plus `step_s`, the row's end.
///
/// # Errors
/// Those of `out`.
pub fn write_openmetrics(
    out: &mut dyn Write,
    aggregate: &Aggregate,
    shown: Shown,
    step_s: i64,
) -> io::Result<()> {
    let mut series: BTreeMap<(&str, &str), Series<'_>> = BTreeMap::new();
    for (host, rows) in &aggregate.hosts {
        let mut devices: Vec<&str> =
            rows.values().flat_map(|row| row.devices.keys()).map(String::as_str).collect();
        devices.sort_unstable();
        devices.dedup();
        for device in devices {
            let of_device = rows
                .iter()
                .map(|(begin, row)| (begin / 1_000_000 + step_s, row, row.devices.get(device)));
            series.insert((host, device), of_device.collect());
        }
    }
    write_latencies(out, &series, shown)?;
    type Counter = (&'static str, &'static str, fn(&Totals) -> u64);
    let counters: [Counter; 2] = [
        ("blkiolatd_io_bytes", "Bytes of completed requests.", |totals| totals.bytes),
        ("blkiolatd_io_errors", "Requests completed with an error.", |totals| totals.errors),
    ];
    for (name, help, value) in counters {
        writeln!(out, "# TYPE {name} counter\n# HELP {name} {help}")?;
        for (key, rows) in &series {
            for operation in operations(rows, shown) {
                let labels = labels(key, Some(operation));
                let mut sum = 0u64;
                for (at, _, device) in rows {
                    sum += device.map_or(0, |device| value(&device.operations[operation]));
                    writeln!(out, "{name}_total{{{labels}}} {sum} {at}")?;
                }
            }
        }
    }
    let name = "blkiolatd_io_requeues";
    writeln!(out, "# TYPE {name} counter\n# HELP {name} Requests given back to the queue.")?;
    for (key, rows) in &series {
        let labels = labels(key, None);
        let mut sum = 0u64;
        for (at, _, device) in rows {
            sum += device.map_or(0, |device| device.requeues);
            writeln!(out, "{name}_total{{{labels}}} {sum} {at}")?;
        }
    }
    type Gauge = (&'static str, &'static str, fn(&Device, u64) -> f64);
    let gauges: [Gauge; 3] = [
        ("blkiolatd_inflight_mean", "Time-weighted mean number in flight.", Device::inflight_mean),
        ("blkiolatd_inflight_max", "Most requests in flight at one time.", |device, _| {
            device.inflight_max as f64
        }),
        ("blkiolatd_oldest_seconds", "Greatest age of a request in flight.", |device, _| {
            device.oldest_ns as f64 / 1e9
        }),
    ];
    for (name, help, value) in gauges {
        writeln!(out, "# TYPE {name} gauge")?;
        if name.ends_with("_seconds") {
            writeln!(out, "# UNIT {name} seconds")?;
        }
        writeln!(out, "# HELP {name} {help}")?;
        for (key, rows) in &series {
            let labels = labels(key, None);
            for (at, row, device) in rows {
                let value = device.map_or(0.0, |device| value(device, row.time_us));
                writeln!(out, "{name}{{{labels}}} {value} {at}")?;
            }
        }
    }
    writeln!(out, "# EOF")
}

fn write_latencies(
    out: &mut dyn Write,
    series: &BTreeMap<(&str, &str), Series<'_>>,
    shown: Shown,
) -> io::Result<()> {
    let name = "blkiolatd_io_latency_seconds";
    writeln!(
        out,
        "# TYPE {name} histogram\n# UNIT {name} seconds\n\
         # HELP {name} Time from issue to completion of requests."
    )?;
    for (key, rows) in series {
        for operation in operations(rows, shown) {
            let labels = labels(key, Some(operation));
            let mut slots = [0u64; histogram::SLOTS];
            let (mut count, mut sum_ns) = (0u64, 0u128);
            for (at, _, device) in rows {
                if let Some(totals) = device.map(|device| &device.operations[operation]) {
                    for (sum, more) in slots.iter_mut().zip(totals.hist.slots()) {
                        *sum += more;
                    }
                    count += totals.count;
                    sum_ns += totals.sum_ns;
                }
                let mut up_to = 0;
                for (slot, more) in slots.iter().enumerate().take(LAST_BOUND + 1) {
                    up_to += more;
                    let bound = (histogram::slot_bounds_us(slot).1 + 1) as f64 / 1e6;
                    writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {up_to} {at}")?;
                }
                writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count} {at}")?;
                writeln!(out, "{name}_count{{{labels}}} {count} {at}")?;
                writeln!(out, "{name}_sum{{{labels}}} {} {at}", sum_ns as f64 / 1e9)?;
            }
        }
    }
    Ok(())
}

/// The operations that a device had at any time and that are shown.
fn operations(rows: &Series<'_>, shown: Shown) -> Vec<usize> {
    let had = |place: usize| {
        rows.iter().any(|(_, _, device)| device.is_some_and(|d| d.operations[place].count > 0))
    };
    (0..OPERATIONS).filter(|&place| shown.operations[place] && had(place)).collect()
}

fn labels((host, device): &(&str, &str), operation: Option<usize>) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut labels = format!("host=\"{}\",device=\"{}\"", escape(host), escape(device));
    if let Some(place) = operation {
        labels.push_str(&format!(",operation=\"{}\"", Operations::NAMES[place]));
    }
    labels
}
