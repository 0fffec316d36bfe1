//! `blkiolat histogram`: the distribution of any range as the daemon's terminal shows a window, or
//! in every bucket that was recorded.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::aggregate::{Aggregate, Device, HostRow, Totals};
use super::summary::{self, ALL, Shown};
use super::times;
use super::units::{latency, printable};
use crate::archive::reader::Source;
use crate::histogram;
use crate::record::Operations;
use crate::terminal::{self, Language};

/// Width of the bars of a detailed histogram.
const BAR: usize = 50;

/// How histograms are printed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Every recorded bucket instead of powers of two.
    pub fine: bool,
    /// One histogram per operation instead of one per device.
    pub by_operation: bool,
    /// The language of the headings.
    pub language: Language,
}

/// Prints the histograms of `aggregate`, whose time must not be cut into rows. `range` gives each
/// source's first and last instant, µs since the Unix epoch. Says how many there were.
///
/// # Errors
/// Those of `out`.
pub fn write(
    mut out: &mut dyn Write,
    aggregate: &Aggregate,
    range: impl Fn(&Source) -> (i64, i64),
    shown: Shown,
    style: Style,
    zone: &TimeZone,
) -> io::Result<usize> {
    let mut pictures = 0;
    let heading = match style.language {
        Language::English => "I/O latency by device:",
        Language::Spanish => "Latencia I/O por dispositivo:",
    };
    for (place, (source, rows)) in aggregate.sources.iter().enumerate() {
        let mut whole = HostRow::default();
        rows.values().for_each(|row| whole.merge(row));
        let (first, last) = range(source);
        let separator = if place > 0 { "\n" } else { "" };
        let (first, last) = (times::civil(first, zone), times::civil(last, zone));
        writeln!(out, "{separator}{}, {first} - {last} - {heading}\n", printable(&source.host))?;
        for (name, device) in &whole.devices {
            for (operation, totals) in chosen(device, shown, style.by_operation) {
                if totals.count == 0 {
                    continue;
                }
                let name = summary::label(name, source.layer);
                if operation == ALL {
                    writeln!(out, "disk = {name}")?;
                } else {
                    writeln!(out, "disk = {name}, operation = {operation}")?;
                }
                if style.fine && totals.hist.is_fine() {
                    write_fine(out, &totals)?;
                } else {
                    terminal::print_histogram(&mut out, style.language, &by_slot(&totals))?;
                }
                writeln!(out)?;
                pictures += 1;
            }
        }
    }
    Ok(pictures)
}

/// What of a device is printed: each operation, or those that were chosen together.
fn chosen(device: &Device, shown: Shown, by_operation: bool) -> Vec<(&'static str, Totals)> {
    let operations = Operations::NAMES.into_iter().zip(&device.operations);
    if by_operation {
        let some = operations.zip(shown.operations).filter(|&(_, shown)| shown);
        return some.map(|((name, totals), _)| (name, totals.clone())).collect();
    }
    // Of a single operation it is said which; `all` is what was read, which is what was asked for.
    let single = operations.zip(shown.operations).filter(|&(_, shown)| shown).collect::<Vec<_>>();
    match single.as_slice() {
        [((name, totals), _)] if !shown.all => vec![(name, (*totals).clone())],
        _ => vec![(ALL, device.all())],
    }
}

/// Counts from slot 0 to the highest that is not empty.
fn by_slot(totals: &Totals) -> Vec<u64> {
    let slots = totals.hist.slots();
    let end = slots.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
    slots[..end].to_vec()
}

/// Every bucket from the first to the last that is not empty, with its share and that of all up to
/// its end.
fn write_fine(out: &mut dyn Write, totals: &Totals) -> io::Result<()> {
    let counts: Vec<(usize, u64)> = totals.hist.fine().collect();
    let (Some(&(first, _)), Some(&(last, _))) = (counts.first(), counts.last()) else {
        return Ok(());
    };
    let total = totals.hist.total() as f64;
    let most = counts.iter().map(|&(_, count)| count).max().unwrap_or(1);
    writeln!(
        out,
        "{:>10}    {:<10} : {:<10} {:>7} {:>8}  distribution",
        "from", "to", "count", "share", "up to"
    )?;
    let mut counts = counts.into_iter().peekable();
    let mut seen = 0;
    for index in first..=last {
        let count = counts.next_if(|&(at, _)| at == index).map_or(0, |(_, count)| count);
        seen += count;
        let (low, high) = histogram::bucket_bounds_ns(index);
        let high = if high == u64::MAX { "...".into() } else { latency(high as f64) };
        // Rounded up: a bucket that is not empty shows something.
        let bar = (count as u128 * BAR as u128).div_ceil(u128::from(most)) as usize;
        writeln!(
            out,
            "{:>10} -> {high:<10} : {count:<10} {:>6.2}% {:>7.3}% |{:<BAR$}|",
            latency(low as f64),
            count as f64 / total * 100.0,
            seen as f64 / total * 100.0,
            "*".repeat(bar),
        )?;
    }
    Ok(())
}
