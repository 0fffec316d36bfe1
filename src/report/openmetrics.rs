//! Sums as OpenMetrics text with timestamps, for
//! `promtool tsdb create-blocks-from openmetrics`.

use std::io::{self, Write};

use super::aggregate::Device;
use super::cells::{Cell, Cells, Key};
use super::summary::{HostTimes, Shown};
use crate::histogram;
use crate::record::Operations;

/// Highest slot that has a bound of its own: up to 134 s. What is slower is in `+Inf`.
const LAST_BOUND: usize = 26;
/// The metric of the latencies.
const LATENCY: &str = "blkiolatd_io_latency_seconds";

/// One sample of a series: the sum so far, the cell and the length of its row, and its time.
struct Sample<'a> {
    /// All cells of the series up to this one together.
    sum: &'a Sum,
    /// The row's own cell and the time of its windows, µs; none where there was no request.
    cell: Option<(&'a Cell, u64)>,
    /// Unix seconds.
    at_s: i64,
}

/// What counters have counted.
struct Sum {
    count: u64,
    bytes: u64,
    errors: u64,
    requeues: u64,
    sum_ns: u128,
    slots: [u64; histogram::SLOTS],
}

impl Sum {
    const ZERO: Self = Self {
        count: 0,
        bytes: 0,
        errors: 0,
        requeues: 0,
        sum_ns: 0,
        slots: [0; histogram::SLOTS],
    };

    fn add(&mut self, cell: &Cell) {
        let totals = &cell.totals;
        self.count = self.count.saturating_add(totals.count);
        self.bytes = self.bytes.saturating_add(totals.bytes);
        self.errors = self.errors.saturating_add(totals.errors);
        self.requeues = self.requeues.saturating_add(cell.requeues);
        self.sum_ns = self.sum_ns.saturating_add(totals.sum_ns);
        for (sum, more) in self.slots.iter_mut().zip(totals.hist.slots()) {
            *sum = sum.saturating_add(more);
        }
    }
}

/// Writes `cells`, whose time is cut into rows of `step_s`. Counters count from the first row on;
/// each sample stands at the end of its row. Every metric is a pass through the cells.
///
/// # Errors
/// Those of `out` and of `cells`.
pub fn write(out: &mut dyn Write, cells: &Cells, shown: Shown, step_s: i64) -> io::Result<()> {
    let pass = Pass { cells, shown, step_s };
    writeln!(
        out,
        "# TYPE {LATENCY} histogram\n# UNIT {LATENCY} seconds\n\
         # HELP {LATENCY} Time from issue to completion of requests."
    )?;
    pass.operations(|labels, sample| write_latency(out, labels, sample))?;
    type Counter = (&'static str, &'static str, fn(&Sum) -> u64);
    let counters: [Counter; 2] = [
        ("blkiolatd_io_bytes", "Bytes of completed requests.", |sum| sum.bytes),
        ("blkiolatd_io_errors", "Requests completed with an error.", |sum| sum.errors),
    ];
    for (name, help, value) in counters {
        writeln!(out, "# TYPE {name} counter\n# HELP {name} {help}")?;
        pass.operations(|labels, sample| {
            writeln!(out, "{name}_total{{{labels}}} {} {}", value(sample.sum), sample.at_s)
        })?;
    }
    let name = "blkiolatd_io_requeues";
    writeln!(out, "# TYPE {name} counter\n# HELP {name} Requests given back to the queue.")?;
    pass.devices(|labels, sample| {
        writeln!(out, "{name}_total{{{labels}}} {} {}", sample.sum.requeues, sample.at_s)
    })?;
    type Gauge = (&'static str, &'static str, fn(&Cell, u64) -> f64);
    let gauges: [Gauge; 3] = [
        ("blkiolatd_inflight_mean", "Time-weighted mean number in flight.", |cell, time_us| {
            let inflight_integral = cell.inflight_integral;
            Device { inflight_integral, ..Device::default() }.inflight_mean(time_us)
        }),
        ("blkiolatd_inflight_max", "Most requests in flight at one time.", |cell, _| {
            cell.inflight_max as f64
        }),
        ("blkiolatd_oldest_seconds", "Greatest age of a request in flight.", |cell, _| {
            cell.oldest_ns as f64 / 1e9
        }),
    ];
    for (name, help, value) in gauges {
        writeln!(out, "# TYPE {name} gauge")?;
        if name.ends_with("_seconds") {
            writeln!(out, "# UNIT {name} seconds")?;
        }
        writeln!(out, "# HELP {name} {help}")?;
        pass.devices(|labels, sample| {
            let value = sample.cell.map_or(0.0, |(cell, time_us)| value(cell, time_us));
            writeln!(out, "{name}{{{labels}}} {value} {}", sample.at_s)
        })?;
    }
    writeln!(out, "# EOF")
}

fn write_latency(out: &mut dyn Write, labels: &str, sample: &Sample<'_>) -> io::Result<()> {
    let &Sample { sum, at_s, .. } = sample;
    let mut up_to = 0;
    for (slot, more) in sum.slots.iter().enumerate().take(LAST_BOUND + 1) {
        up_to += more;
        let bound = (histogram::slot_bounds_us(slot).1 + 1) as f64 / 1e6;
        writeln!(out, "{LATENCY}_bucket{{{labels},le=\"{bound}\"}} {up_to} {at_s}")?;
    }
    let (count, sum_s) = (sum.count, sum.sum_ns as f64 / 1e9);
    writeln!(out, "{LATENCY}_bucket{{{labels},le=\"+Inf\"}} {count} {at_s}")?;
    writeln!(out, "{LATENCY}_count{{{labels}}} {count} {at_s}")?;
    writeln!(out, "{LATENCY}_sum{{{labels}}} {sum_s} {at_s}")
}

/// A way through all series.
struct Pass<'c> {
    cells: &'c Cells,
    shown: Shown,
    step_s: i64,
}

impl Pass<'_> {
    /// Every sample of every operation that is shown, with its labels.
    fn operations(&self, each: impl FnMut(&str, &Sample<'_>) -> io::Result<()>) -> io::Result<()> {
        let shown = |place: u8| {
            usize::from(place).checked_sub(1).is_some_and(|place| self.shown.operations[place])
        };
        self.samples(shown, each)
    }

    /// Every sample of every device, with its labels.
    fn devices(&self, each: impl FnMut(&str, &Sample<'_>) -> io::Result<()>) -> io::Result<()> {
        self.samples(|place| place == 0, each)
    }

    fn samples(
        &self,
        shown: impl Fn(u8) -> bool,
        mut each: impl FnMut(&str, &Sample<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut times = HostTimes::default();
        let mut series: Option<Series> = None;
        self.cells.for_each(|key, cell| {
            // The times of a host come before its devices, so those of the host before are done.
            if key.device.is_empty()
                && let Some(series) = series.take()
            {
                series.finish(&mut each)?;
            }
            if times.take(key, cell) || !shown(key.place) {
                return Ok(());
            }
            if series.as_ref().is_none_or(|series| !series.has(key)) {
                if let Some(series) = series.take() {
                    series.finish(&mut each)?;
                }
                series = Some(Series::new(key, &times, self.step_s));
            }
            series.as_mut().map_or(Ok(()), |series| series.add(key, cell, &mut each))
        })?;
        series.map_or(Ok(()), |series| series.finish(&mut each))
    }
}

/// One series on its way through time: it has a sample for each row of its host.
struct Series {
    key: Key,
    labels: String,
    sum: Box<Sum>,
    /// Rows still to come: begin and length, µs, the last one first.
    rows: Vec<(i64, u64)>,
    step_s: i64,
}

impl Series {
    fn new(key: &Key, times: &HostTimes, step_s: i64) -> Self {
        let mut rows: Vec<_> = times.of(key.layer).collect();
        rows.reverse();
        Self { key: key.clone(), labels: labels(key), sum: Box::new(Sum::ZERO), rows, step_s }
    }

    fn has(&self, key: &Key) -> bool {
        let name = |key: &'_ Key| (key.place, key.layer);
        name(&self.key) == name(key) && self.key.device == key.device && self.key.host == key.host
    }

    /// Gives the samples up to the one of `cell`.
    fn add(
        &mut self,
        key: &Key,
        cell: &Cell,
        each: &mut impl FnMut(&str, &Sample<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        while let Some((begin_us, time_us)) = self.rows.pop() {
            let own = begin_us == key.begin_us;
            if own {
                self.sum.add(cell);
            }
            self.give(begin_us, own.then_some((cell, time_us)), each)?;
            if own {
                break;
            }
        }
        Ok(())
    }

    /// Gives the samples that are left.
    fn finish(
        mut self,
        each: &mut impl FnMut(&str, &Sample<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        while let Some((begin_us, _)) = self.rows.pop() {
            self.give(begin_us, None, each)?;
        }
        Ok(())
    }

    fn give(
        &self,
        begin_us: i64,
        cell: Option<(&Cell, u64)>,
        each: &mut impl FnMut(&str, &Sample<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let at_s = begin_us / 1_000_000 + self.step_s;
        each(&self.labels, &Sample { sum: &self.sum, cell, at_s })
    }
}

fn labels(key: &Key) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let (host, device, layer) = (escape(&key.host), escape(&key.device), key.layer.name());
    let mut labels = format!("host=\"{host}\",device=\"{device}\",layer=\"{layer}\"");
    if let Some(place) = usize::from(key.place).checked_sub(1) {
        labels.push_str(&format!(",operation=\"{}\"", Operations::NAMES[place]));
    }
    labels
}
