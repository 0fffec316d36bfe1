//! The terminal's picture of a record: biolatency's histogram, to the character. Pure but for the
//! writer that it is given.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::record::{Audit, DeviceLatency, Layer, Record};
use crate::{histogram, record};

/// Width of the bars, in characters.
const STARS: u64 = 40;
/// From this number of slots on, biolatency uses wider columns and shorter bars.
const WIDE_FROM: usize = 33;

/// The language of the headings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Spanish.
    Spanish,
}

impl Language {
    /// The language of a locale: the first of `LC_ALL`, `LC_MESSAGES` and `LANG` that is set and not
    /// empty.
    pub fn of_environment(get: impl Fn(&str) -> Option<String>) -> Self {
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .find_map(|name| get(name).filter(|value| !value.is_empty()));
        let language = locale.as_deref().and_then(|locale| locale.split(['_', '.', '@']).next());
        if language.is_some_and(|l| l.eq_ignore_ascii_case("es")) {
            Self::Spanish
        } else {
            Self::English
        }
    }

    const fn by_device(self, layer: Layer) -> &'static str {
        match (self, layer) {
            (Self::English, Layer::Request) => "I/O latency by device:",
            (Self::English, Layer::Bio) => "I/O latency by stacked device (bios):",
            (Self::Spanish, Layer::Request) => "Latencia I/O por dispositivo:",
            (Self::Spanish, Layer::Bio) => "Latencia I/O por dispositivo apilado (bios):",
        }
    }

    const fn microseconds(self) -> &'static str {
        match self {
            Self::English => "usecs",
            Self::Spanish => "microsegundos",
        }
    }

    const fn in_flight(self, layer: Layer) -> &'static str {
        match (self, layer) {
            (Self::English, Layer::Request) => "In-flight I/O (requests):",
            (Self::English, Layer::Bio) => "In-flight I/O (bios):",
            (Self::Spanish, Layer::Request) => "Cola I/O en vuelo (requests):",
            (Self::Spanish, Layer::Bio) => "Cola I/O en vuelo (bios):",
        }
    }

    const fn not_measured(self) -> &'static str {
        match self {
            Self::English => "Not measured:",
            Self::Spanish => "No medido:",
        }
    }
}

/// How records are printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// The language of the headings.
    pub language: Language,
    /// One histogram per operation instead of one per device.
    pub by_operation: bool,
    /// Escape sequences that make what was not measured stand out.
    pub colour: bool,
}

/// Prints one record. `time` is its local time, `HH:MM:SS`.
///
/// # Errors
/// Those of `out`.
pub fn print_record(
    out: &mut impl Write,
    record: &Record,
    time: &str,
    style: &Style,
) -> io::Result<()> {
    let language = style.language;
    writeln!(out, "{time} - {}\n", language.by_device(record.layer))?;
    for device in record.latency_histogram.iter().filter(|device| device.total > 0) {
        let name = printable(&device.device_name);
        if style.by_operation {
            for (operation, stats) in device.ops.iter() {
                writeln!(out, "disk = {name}, operation = {operation}")?;
                print_histogram(out, language, &slot_counts(stats_slots(stats)))?;
                writeln!(out)?;
            }
        } else {
            writeln!(out, "disk = {name}")?;
            print_histogram(out, language, &slot_counts(device_slots(device)))?;
            writeln!(out)?;
        }
    }
    writeln!(out, "{}", language.in_flight(record.layer))?;
    for device in record.inflight.iter().filter(|device| device.count > 0) {
        writeln!(out, "{:>14} -> {}", printable(&device.device_name), device.count)?;
    }
    print_audit(out, &record.audit, style)?;
    writeln!(out)
}

fn device_slots(device: &DeviceLatency) -> Vec<(usize, u64)> {
    device.buckets.iter().map(|bucket| (bucket.slot as usize, bucket.count)).collect()
}

fn stats_slots(stats: &record::OperationStats) -> Vec<(usize, u64)> {
    let pairs = |pairs: &[(u16, u64)]| -> Vec<(usize, u64)> {
        pairs.iter().map(|&(index, count)| (usize::from(index), count)).collect()
    };
    match (&stats.fine, &stats.slots) {
        (Some(fine), _) => histogram::slots_of_fine(pairs(fine)),
        (None, Some(slots)) => pairs(slots),
        (None, None) => Vec::new(),
    }
}

/// Counts by slot, from slot 0 to the highest that is not empty.
fn slot_counts(slots: Vec<(usize, u64)>) -> Vec<u64> {
    let mut counts = vec![0; slots.iter().map(|&(slot, _)| slot + 1).max().unwrap_or(0)];
    for (slot, count) in slots {
        counts[slot] += count;
    }
    counts
}

/// Prints `counts` by log2 slot as bcc's `print_log2_hist` does. Prints nothing for no counts.
///
/// # Errors
/// Those of `out`.
pub fn print_histogram(out: &mut impl Write, language: Language, counts: &[u64]) -> io::Result<()> {
    let largest = counts.iter().copied().max().unwrap_or(0);
    if largest == 0 {
        return Ok(());
    }
    let unit = language.microseconds();
    let wide = counts.len() >= WIDE_FROM;
    if wide {
        writeln!(out, "               {unit:<29} : count     distribution")?;
    } else {
        writeln!(out, "     {unit:<19} : count     distribution")?;
    }
    for (slot, &count) in counts.iter().enumerate() {
        let (low, high) = histogram::slot_bounds_us(slot);
        if wide {
            let bar = stars(count, largest, STARS / 2);
            writeln!(out, "{low:>20} -> {high:<20} : {count:<8} |{bar:<20}|")?;
        } else {
            let bar = stars(count, largest, STARS);
            writeln!(out, "{low:>10} -> {high:<10} : {count:<8} |{bar:<40}|")?;
        }
    }
    Ok(())
}

fn stars(count: u64, largest: u64, width: u64) -> String {
    let stars = u128::from(width) * u128::from(count) / u128::from(largest);
    "*".repeat(stars as usize)
}

fn print_audit(out: &mut impl Write, audit: &Audit, style: &Style) -> io::Result<()> {
    let losses = [
        ("untracked_completions", audit.untracked_completions),
        ("inflight_table_full", audit.inflight_table_full),
        ("device_table_full", audit.device_table_full),
        ("probe_misses", audit.probe_misses),
        ("dropped_snapshots", audit.dropped_snapshots),
    ];
    let losses: Vec<String> = losses
        .iter()
        .filter(|&&(_, count)| count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if losses.is_empty() {
        return Ok(());
    }
    let (on, off) = if style.colour { ("\x1b[1;33m", "\x1b[0m") } else { ("", "") };
    writeln!(out, "{on}{} {}{off}", style.language.not_measured(), losses.join(", "))
}

/// A name that others chose, with everything that could control a terminal escaped.
#[must_use]
pub fn printable(name: &str) -> Cow<'_, str> {
    // Besides control characters: those that turn the direction of what follows.
    let hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !name.contains(hostile) {
        return Cow::Borrowed(name);
    }
    let escaped = name
        .chars()
        .map(|c| if hostile(c) { c.escape_default().to_string() } else { c.to_string() });
    Cow::Owned(escaped.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{DeviceInflight, OperationStats, Operations, SlotCount};

    fn environment<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| pairs.iter().find(|p| p.0 == name).map(|p| p.1.to_owned())
    }

    #[test]
    fn the_first_locale_that_is_set_decides() {
        let of = |pairs: &[(&str, &str)]| Language::of_environment(environment(pairs));
        assert_eq!(of(&[("LANG", "es_ES.UTF-8")]), Language::Spanish);
        assert_eq!(of(&[("LC_ALL", "C"), ("LANG", "es_ES.UTF-8")]), Language::English);
        assert_eq!(of(&[("LC_ALL", ""), ("LC_MESSAGES", "es")]), Language::Spanish);
        assert_eq!(of(&[("LANG", "est")]), Language::English);
        assert_eq!(of(&[]), Language::English);
    }

    fn record() -> Record {
        let bucket = |slot: usize, count| {
            let (bucket_low, bucket_high) = histogram::slot_bounds_us(slot);
            SlotCount { slot: slot as u32, count, bucket_low, bucket_high }
        };
        Record {
            latency_histogram: vec![DeviceLatency {
                device_name: "nvme0n1".into(),
                total: 84,
                buckets: vec![bucket(4, 57), bucket(5, 27)],
                ops: Operations {
                    read: Some(OperationStats {
                        fine: Some(vec![(65, 50), (81, 27)]),
                        ..OperationStats::default()
                    }),
                    flush: Some(OperationStats {
                        slots: Some(vec![(4, 7)]),
                        ..OperationStats::default()
                    }),
                    ..Operations::default()
                },
                ..DeviceLatency::default()
            }],
            inflight: vec![
                DeviceInflight { device_name: "sda".into(), count: 1, ..DeviceInflight::default() },
                DeviceInflight {
                    device_name: "sdb".into(),
                    count: 0,
                    max: 3,
                    ..DeviceInflight::default()
                },
                DeviceInflight {
                    device_name: "nvme0n1".into(),
                    count: 1,
                    ..DeviceInflight::default()
                },
            ],
            ..Record::default()
        }
    }

    fn printed(record: &Record, style: &Style) -> String {
        let mut out = Vec::new();
        print_record(&mut out, record, "08:45:12", style).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn english() {
        assert_eq!(
            printed(&record(), &Style::default()),
            include_str!("../tests/golden/english.txt")
        );
    }

    #[test]
    fn spanish() {
        let style = Style { language: Language::Spanish, ..Style::default() };
        assert_eq!(printed(&record(), &style), include_str!("../tests/golden/spanish.txt"));
    }

    #[test]
    fn by_operation() {
        let style = Style { by_operation: true, ..Style::default() };
        assert_eq!(printed(&record(), &style), include_str!("../tests/golden/by-op.txt"));
    }

    #[test]
    fn bios_have_a_section_of_their_own() {
        let mut record = record();
        record.layer = Layer::Bio;
        let requests = include_str!("../tests/golden/english.txt");
        let bios = requests
            .replace("by device:", "by stacked device (bios):")
            .replace("(requests):", "(bios):");
        assert_eq!(printed(&record, &Style::default()), bios);
    }

    #[test]
    fn very_long_latencies_get_wide_columns() {
        let mut out = Vec::new();
        let mut counts = vec![0; 34];
        counts[33] = 3;
        counts[2] = 1;
        print_histogram(&mut out, Language::English, &counts).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), include_str!("../tests/golden/wide.txt"));
    }

    #[test]
    fn says_what_was_not_measured() {
        let mut record = record();
        record.audit.probe_misses = 2;
        let text = printed(&record, &Style::default());
        assert!(text.ends_with("Not measured: probe_misses 2\n\n"), "{text}");
        let style = Style { colour: true, ..Style::default() };
        assert!(printed(&record, &style).contains("\x1b[1;33mNot measured: probe_misses 2\x1b[0m"));
    }

    #[test]
    fn a_hostile_name_cannot_move_the_cursor() {
        assert_eq!(printable("sda\x1b[2J\n"), "sda\\u{1b}[2J\\n");
        assert_eq!(printable("nvme0n1"), "nvme0n1");
        assert_eq!(printable("dÿsk µ"), "dÿsk µ");
        assert_eq!(printable("a\x1b[2Jb\n\u{9b}\u{202e}"), "a\\u{1b}[2Jb\\n\\u{9b}\\u{202e}");
    }
}
