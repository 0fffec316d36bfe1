//! Two sides compared: what became slower or faster, the greatest change of a distribution first.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde::Serialize;

use super::aggregate::{Aggregate, Device, HostRow, Totals};
use super::hist::Hist;
use super::summary::{self, ALL, Row, Shown};
use super::table::{Columns, ERROR_BOUND, ERROR_BOUND_LOG2, Format, io_error};
use super::units::{latency, printable, three_digits};
use crate::archive::reader::Layer;
use crate::histogram;
use crate::record::Operations;

/// Name of the host column when the hosts of a side are taken together.
pub const ANY_HOST: &str = "*";

/// One device and operation on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Host name, or [`ANY_HOST`].
    pub host: String,
    /// Kernel name of the disk.
    pub device: String,
    /// Where the requests were measured.
    pub layer: Layer,
    /// An operation of the record, or [`ALL`].
    pub operation: &'static str,
    /// Geometric mean of the latencies of B over that of A: 2 is twice as slow. `None` when a side
    /// has no request.
    pub factor: Option<f64>,
    /// How far the distribution moved, in octaves: the mean distance on a logarithmic axis that
    /// its requests have to be moved to turn A into B (earth mover's distance). A shift of
    /// everything by a factor of 2 is 1; a widening shows here and not in `factor`.
    pub moved: Option<f64>,
    /// Side A.
    pub a: Row,
    /// Side B.
    pub b: Row,
}

/// Shares of the requests by fine bucket or, if either side has only slots, by slot; with the
/// octave (log2 of the latency in units) at which each lies.
fn shares(hist: &Hist, fine: bool) -> Vec<(f64, f64)> {
    let total = hist.total() as f64;
    if fine {
        // The middle of bucket 0, half a unit, has no logarithm far below that of bucket 1.
        let octave = |index: usize| {
            let low = histogram::bucket_low_units(index) as f64;
            (low + histogram::bucket_width_units(index).unwrap_or(0) as f64 / 2.0).log2()
        };
        hist.fine().map(|(index, count)| (octave(index), count as f64 / total)).collect()
    } else {
        let slots = hist.slots();
        let some = slots.iter().enumerate().filter(|&(_, &count)| count > 0);
        some.map(|(slot, &count)| (slot as f64, count as f64 / total)).collect()
    }
}

/// The change of the logarithmic mean and the earth mover's distance, both in octaves; `None` when
/// either is empty.
#[must_use]
pub fn shift(a: &Hist, b: &Hist) -> Option<(f64, f64)> {
    if a.total() == 0 || b.total() == 0 {
        return None;
    }
    let fine = a.is_fine() && b.is_fine();
    let (a, b) = (shares(a, fine), shares(b, fine));
    let mean = |shares: &[(f64, f64)]| shares.iter().map(|(octave, share)| octave * share).sum();
    let (mean_a, mean_b): (f64, f64) = (mean(&a), mean(&b));
    // Between two neighbouring octaves of either side, what has to be carried over is the
    // difference of the cumulated shares.
    let mut steps: Vec<(f64, f64)> = a;
    steps.extend(b.into_iter().map(|(octave, share)| (octave, -share)));
    steps.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut carried, mut moved) = (0.0f64, 0.0);
    for pair in steps.windows(2) {
        carried += pair[0].1;
        moved += carried.abs() * (pair[1].0 - pair[0].0);
    }
    Some((mean_b - mean_a, moved))
}

/// A host's name, or [`ANY_HOST`], and a layer.
type Key<'a> = (&'a str, Layer);

/// One side by host and layer, its times together.
fn by_source(side: &Aggregate) -> BTreeMap<Key<'_>, HostRow> {
    let sum = |rows: &BTreeMap<i64, HostRow>| {
        let mut all = HostRow::default();
        rows.values().for_each(|row| all.merge(row));
        all
    };
    let rows = side.sources.iter();
    rows.map(|(source, rows)| ((source.host.as_str(), source.layer), sum(rows))).collect()
}

/// All hosts of a side as one; the time of each counts, so rates are means per host.
fn together(sources: BTreeMap<Key<'_>, HostRow>) -> BTreeMap<Key<'_>, HostRow> {
    let mut all: BTreeMap<Key<'_>, HostRow> = BTreeMap::new();
    for ((_, layer), row) in &sources {
        all.entry((ANY_HOST, *layer)).or_default().merge(row);
    }
    all
}

/// Compares side `a` with side `b`. Hosts are matched by name if the sides have one in common, and
/// otherwise, or with `merge_hosts`, taken together: one host against another, or two fleets.
/// Changes come in order of [`Change::moved`], greatest first, what is on one side only at the end.
#[must_use]
pub fn compare(a: &Aggregate, b: &Aggregate, shown: Shown, merge_hosts: bool) -> Vec<Change> {
    let (mut a, mut b) = (by_source(a), by_source(b));
    let hosts: BTreeSet<_> = a.keys().map(|(host, _)| *host).collect();
    if merge_hosts || !b.keys().any(|(host, _)| hosts.contains(host)) {
        (a, b) = (together(a), together(b));
    }
    let mut changes = Vec::new();
    let none = HostRow::default();
    let sources: BTreeSet<_> = a.keys().chain(b.keys()).copied().collect();
    for source in sources {
        let (a, b) = (a.get(&source).unwrap_or(&none), b.get(&source).unwrap_or(&none));
        let devices: BTreeSet<_> = a.devices.keys().chain(b.devices.keys()).collect();
        for device in devices {
            compare_device(&mut changes, (source, device), a, b, shown);
        }
    }
    changes.sort_by(|x, y| {
        let key = |change: &Change| change.moved.unwrap_or(-1.0);
        key(y).total_cmp(&key(x))
    });
    changes
}

fn compare_device(
    changes: &mut Vec<Change>,
    ((host, layer), name): (Key<'_>, &str),
    a: &HostRow,
    b: &HostRow,
    shown: Shown,
) {
    let none = Device::default();
    let device_a = a.devices.get(name).unwrap_or(&none);
    let device_b = b.devices.get(name).unwrap_or(&none);
    let mut push = |operation, totals_a: &Totals, totals_b: &Totals, whole: bool| {
        let row = |totals, device, time_us| {
            summary::row((host, name, layer), operation, totals, whole.then_some(device), time_us)
        };
        let shift = shift(&totals_a.hist, &totals_b.hist);
        changes.push(Change {
            host: host.into(),
            device: name.into(),
            layer,
            operation,
            factor: shift.map(|(mean, _)| mean.exp2()),
            moved: shift.map(|(_, moved)| moved),
            a: row(totals_a, device_a, a.time_us),
            b: row(totals_b, device_b, b.time_us),
        });
    };
    if shown.all {
        push(ALL, &device_a.all(), &device_b.all(), true);
    }
    for (place, &operation) in Operations::NAMES.iter().enumerate() {
        let (a, b) = (&device_a.operations[place], &device_b.operations[place]);
        if shown.operations[place] && a.count + b.count > 0 {
            push(operation, a, b, false);
        }
    }
}

/// Writes `changes`; `names` says what A and B are.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: &mut dyn Write,
    format: Format,
    names: [&str; 2],
    changes: &[Change],
) -> io::Result<()> {
    match format {
        Format::Table => table(out, names, changes),
        Format::Csv => csv(out, changes),
        Format::Jsonl => {
            for change in changes {
                serde_json::to_writer(&mut *out, change)?;
                writeln!(out)?;
            }
            Ok(())
        }
        Format::Json => {
            #[derive(Serialize)]
            struct Document<'a> {
                a: &'a str,
                b: &'a str,
                changes: &'a [Change],
            }
            let document = Document { a: names[0], b: names[1], changes };
            serde_json::to_writer_pretty(&mut *out, &document)?;
            writeln!(out)
        }
    }
}

/// `84.3 µs → 1.25 ms ×14.8`, or as much of it as is known.
fn step(a: Option<f64>, b: Option<f64>) -> String {
    let text = |us: Option<f64>| us.map_or("-".into(), |us| latency(us * 1e3));
    let times = match (a, b) {
        (Some(a), Some(b)) if a > 0.0 => format!(" {}", factor(b / a)),
        _ => String::new(),
    };
    format!("{} → {}{times}", text(a), text(b))
}

/// `×1.83`, `÷2.10`, `=`: a ratio as people say it.
fn factor(ratio: f64) -> String {
    match ratio {
        r if r >= 1.005 => format!("×{}", three_digits(r)),
        r if r > 0.0 && r <= 1.0 / 1.005 => format!("÷{}", three_digits(1.0 / r)),
        _ => "=".into(),
    }
}

fn table(out: &mut dyn Write, names: [&str; 2], changes: &[Change]) -> io::Result<()> {
    writeln!(out, "A: {}\nB: {}\n", printable(names[0]), printable(names[1]))?;
    let many = changes.iter().any(|change| change.host != ANY_HOST);
    let mut header = Vec::new();
    header.extend(many.then_some("HOST"));
    header.extend(["DEVICE", "OP"]);
    let left = header.len();
    header.extend(["MOVED", "CHANGE", "IOPS", "P50", "P90", "P99", "P99.9", "MAX", "ERRORS"]);
    let mut columns = Columns::new(left, &header);
    for change in changes {
        let (a, b) = (&change.a, &change.b);
        let mut cells = Vec::new();
        cells.extend(many.then(|| printable(&change.host).into_owned()));
        cells.extend([summary::label(&change.device, change.layer), change.operation.to_owned()]);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        cells.push(or_dash(change.moved.map(|octaves| format!("{octaves:.2}"))));
        cells.push(or_dash(change.factor.map(factor)));
        cells.push(format!("{} → {}", three_digits(a.iops), three_digits(b.iops)));
        for (a, b) in [
            (a.p50_us, b.p50_us),
            (a.p90_us, b.p90_us),
            (a.p99_us, b.p99_us),
            (a.p999_us, b.p999_us),
            (a.max_us, b.max_us),
        ] {
            cells.push(step(a, b));
        }
        cells.push(format!("{} → {}", a.errors, b.errors));
        columns.push(cells);
    }
    columns.write(out)?;
    writeln!(
        out,
        "\nMOVED: mean distance, in octaves, between the two distributions (1.00: a factor of 2).\n\
         CHANGE: ratio of the geometric means, × slower, ÷ faster.\n{ERROR_BOUND}"
    )?;
    let coarse = |row: &Row| row.resolution == "log2";
    if changes.iter().any(|change| coarse(&change.a) || coarse(&change.b)) {
        writeln!(out, "{ERROR_BOUND_LOG2}")?;
    }
    Ok(())
}

fn csv(out: &mut dyn Write, changes: &[Change]) -> io::Result<()> {
    const STATISTICS: [&str; 9] =
        ["count", "iops", "mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us", "errors"];
    let mut writer = csv::Writer::from_writer(out);
    let mut header: Vec<String> =
        ["host", "device", "layer", "operation", "factor", "moved"].map(String::from).to_vec();
    for name in STATISTICS {
        header.extend(["a", "b"].map(|side| format!("{side}_{name}")));
    }
    writer.write_record(&header).map_err(io_error)?;
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for change in changes {
        let values = |row: &Row| {
            [
                row.count.to_string(),
                row.iops.to_string(),
                number(row.mean_us),
                number(row.p50_us),
                number(row.p90_us),
                number(row.p99_us),
                number(row.p999_us),
                number(row.max_us),
                row.errors.to_string(),
            ]
        };
        let mut line = vec![
            change.host.clone(),
            change.device.clone(),
            change.layer.name().to_owned(),
            change.operation.to_owned(),
            number(change.factor),
            number(change.moved),
        ];
        for (a, b) in values(&change.a).into_iter().zip(values(&change.b)) {
            line.extend([a, b]);
        }
        writer.write_record(&line).map_err(io_error)?;
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(latencies: &[u64]) -> Hist {
        let mut hist = Hist::default();
        for &ns in latencies {
            hist.add_fine(histogram::bucket_of_ns(ns), 1);
        }
        hist
    }

    #[test]
    fn shifts() {
        let a = of(&[100_000, 200_000, 400_000]);
        assert_eq!(shift(&a, &a), Some((0.0, 0.0)));
        assert_eq!(shift(&a, &Hist::default()), None);
        let twice = of(&[200_000, 400_000, 800_000]);
        let (mean, moved) = shift(&a, &twice).unwrap();
        assert!((mean - 1.0).abs() < 1e-9 && (moved - 1.0).abs() < 1e-9, "{mean} {moved}");
        let (mean, _) = shift(&twice, &a).unwrap();
        assert!((mean + 1.0).abs() < 1e-9);
        // A widening that leaves the mean where it is.
        let (mean, moved) = shift(&of(&[200_000; 2]), &of(&[100_000, 400_000])).unwrap();
        assert!(mean.abs() < 1e-9 && (moved - 1.0).abs() < 1e-9, "{mean} {moved}");
    }

    #[test]
    fn ratios_in_words() {
        assert_eq!(step(Some(80.0), Some(160.0)), "80.0 µs → 160 µs ×2.00");
        assert_eq!(step(Some(80.0), Some(80.1)), "80.0 µs → 80.1 µs =");
        assert_eq!(step(Some(100.0), Some(50.0)), "100 µs → 50.0 µs ÷2.00");
        assert_eq!(step(None, Some(50.0)), "- → 50.0 µs");
    }

    proptest! {
        /// With as many requests on both sides, the distance is the mean of |log2 b - log2 a| over
        /// the sorted pairs.
        #[test]
        fn moved_is_the_earth_movers_distance(pairs in prop::collection::vec((1_000u64..1 << 40, 1_000u64..1 << 40), 1..80)) {
            let (mut a, mut b): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            a.sort_unstable();
            b.sort_unstable();
            let octave = |ns: u64| {
                let (low, high) = histogram::bucket_bounds_ns(histogram::bucket_of_ns(ns));
                ((low + high) as f64 / 2.0).log2()
            };
            let truth = a.iter().zip(&b).map(|(&a, &b)| (octave(a) - octave(b)).abs()).sum::<f64>()
                / a.len() as f64;
            let (_, moved) = shift(&of(&a), &of(&b)).unwrap();
            prop_assert!((moved - truth).abs() < 1e-9, "{} {}", moved, truth);
        }
    }
}
