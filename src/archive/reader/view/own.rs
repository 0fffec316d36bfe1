//! Reads a line that is byte for byte of the form in which the daemon writes records, several times as fast as serde
//! does: the keys come in one order, without spaces or escapes, so that each is one comparison.
//!
//! Whatever is different is none of its business: it gives up, and serde reads the line and says what is wrong with
//! it, if anything is. What is accepted here serde would read just the same, but for the content of `buckets`, which
//! no reader needs and which is jumped over.

use std::borrow::Cow;
use std::ops::Range;

use super::seeds::{is_outside, keep};
use super::{Device, Head, Inflight, Operation, Pairs, Parser, Wanted};
use crate::record::{Audit, Operations};

/// What stands before the value of each operation, in the order of [`Operations::NAMES`].
const OPERATION_KEYS: [&[u8]; Operations::NAMES.len()] =
    [b"\"read\":", b"\"write\":", b"\"flush\":", b"\"discard\":", b"\"other\":"];

/// Fills `parser`, which is empty. `None`, with some of it filled, when the line is of another form or of a time that is
/// certainly not wanted.
pub(super) fn read<'a>(parser: &mut Parser, line: &'a [u8], wanted: &Wanted) -> Option<Head<'a>> {
    let mut text = Cursor(line);
    text.skip(b"{\"timestamp\":")?;
    let timestamp = text.number()?;
    if is_outside(wanted, timestamp) {
        return None;
    }
    text.skip(b",\"iso_timestamp\":")?;
    text.string()?;
    text.skip(b",\"interval_s\":")?;
    text.number()?;
    text.skip(b",\"latency_histogram\":[")?;
    text.list(|text| device(text, parser, wanted))?;
    text.skip(b",\"inflight\":[")?;
    text.list(|text| inflight(text, parser, wanted))?;
    text.skip(b",\"schema\":")?;
    let schema = u32::try_from(text.integer()?).ok()?;
    text.skip(b",\"host\":")?;
    let host = Cow::Borrowed(text.string()?);
    text.skip(b",\"boot_id\":")?;
    let boot_id = Cow::Borrowed(text.string()?);
    let layer = match text.skip(b",\"layer\":") {
        Some(()) => Some(Cow::Borrowed(text.string()?)),
        None => None,
    };
    text.skip(b",\"seq\":")?;
    let seq = text.integer()?;
    text.skip(b",\"window_s\":")?;
    let window_s = text.number()?;
    text.skip(b",\"audit\":{\"untracked_completions\":")?;
    let untracked_completions = text.integer()?;
    text.skip(b",\"inflight_table_full\":")?;
    let inflight_table_full = text.integer()?;
    text.skip(b",\"device_table_full\":")?;
    let device_table_full = text.integer()?;
    text.skip(b",\"probe_misses\":")?;
    let probe_misses = text.integer()?;
    text.skip(b",\"dropped_snapshots\":")?;
    let dropped_snapshots = text.integer()?;
    text.skip(b"}}")?;
    let audit = Audit {
        untracked_completions,
        inflight_table_full,
        device_table_full,
        probe_misses,
        dropped_snapshots,
    };
    text.0.is_empty().then_some(Head {
        timestamp,
        schema,
        host,
        boot_id,
        layer,
        seq,
        window_s,
        audit,
    })
}

fn device(text: &mut Cursor<'_>, parser: &mut Parser, wanted: &Wanted) -> Option<()> {
    text.skip(b"{\"device_id\":")?;
    text.integer()?;
    text.skip(b",\"device_name\":")?;
    let name = text.string()?;
    text.skip(b",\"total\":")?;
    let total = text.integer()?;
    text.skip(b",\"buckets\":[")?;
    text.0 = &text.0[memchr::memchr(b']', text.0)?..];
    text.skip(b"],\"ops\":{")?;
    let is_wanted = wanted.device(name);
    let (start, first_pair) = (parser.operations.len(), parser.pairs.len());
    let mut is_first = true;
    for (place, key) in OPERATION_KEYS.into_iter().enumerate() {
        let before = text.0;
        if !is_first && text.skip(b",").is_none() {
            break;
        }
        if text.skip(key).is_some() {
            is_first = false;
            let operation = operation(text, parser, place, wanted.operation(place))?;
            parser.operations.push(operation);
        } else {
            text.0 = before;
        }
    }
    text.skip(b"},\"requeues\":")?;
    let requeues = text.integer()?;
    text.skip(b"}")?;
    let mut operations = start..parser.operations.len();
    if !is_wanted {
        parser.operations.truncate(start);
        parser.pairs.truncate(first_pair);
        operations = 0..0;
    }
    let name = keep(&mut parser.names, name);
    parser.devices.push(Device { name, total, requeues, operations, wanted: is_wanted });
    Some(())
}

fn operation(
    text: &mut Cursor<'_>,
    parser: &mut Parser,
    place: usize,
    is_wanted: bool,
) -> Option<Operation> {
    text.skip(b"{\"total\":")?;
    let total = text.integer()?;
    text.skip(b",\"bytes\":")?;
    let bytes = text.integer()?;
    text.skip(b",\"sum_us\":")?;
    let sum_us = text.number()?;
    text.skip(b",\"max_us\":")?;
    let max_us = text.number()?;
    text.skip(b",\"errors\":")?;
    let errors = text.integer()?;
    let is_fine = text.skip(b",\"fine\":[[").is_some();
    if !is_fine {
        text.skip(b",\"slots\":[[")?;
    }
    let range = columns(text, &mut parser.pairs)?;
    text.skip(b"]}")?;
    let pairs = match (is_wanted, is_fine) {
        (false, _) => {
            parser.pairs.truncate(range.start);
            Pairs::Skipped
        }
        (true, true) => Pairs::Fine(range),
        (true, false) => Pairs::Slots(range),
    };
    Some(Operation { place, total, bytes, sum_us, max_us, errors, pairs })
}

/// Behind the first bracket of a column of indexes: that one, and a column of as many counts.
fn columns(text: &mut Cursor<'_>, pairs: &mut Vec<(u16, u64)>) -> Option<Range<usize>> {
    let start = pairs.len();
    text.column(|index| {
        pairs.push((u16::try_from(index).ok()?, 0));
        Some(())
    })?;
    text.skip(b",[")?;
    let mut counts = pairs[start..].iter_mut();
    text.column(|count| {
        counts.next()?.1 = count;
        Some(())
    })?;
    counts.next().is_none().then_some(start..pairs.len())
}

fn inflight(text: &mut Cursor<'_>, parser: &mut Parser, wanted: &Wanted) -> Option<()> {
    text.skip(b"{\"device_id\":")?;
    text.integer()?;
    text.skip(b",\"device_name\":")?;
    let name = text.string()?;
    text.skip(b",\"count\":")?;
    let count = text.integer()?;
    text.skip(b",\"mean\":")?;
    let mean = text.number()?;
    text.skip(b",\"max\":")?;
    let max = text.integer()?;
    text.skip(b",\"oldest_us\":")?;
    let oldest_us = text.number()?;
    text.skip(b"}")?;
    if wanted.device(name) {
        let name = keep(&mut parser.names, name);
        parser.inflight.push(Inflight { name, count, mean, max, oldest_us });
    }
    Some(())
}

/// What of the line is still to be read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Goes behind `expected`, if it comes next.
    #[inline]
    fn skip(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// Behind an opening bracket: elements with commas between them, and the closing bracket.
    #[inline]
    fn list(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.skip(b"]").is_some() {
            return Some(());
        }
        loop {
            element(self)?;
            match self.0.split_first()? {
                (b',', rest) => self.0 = rest,
                (b']', rest) => {
                    self.0 = rest;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Behind an opening bracket: unsigned integers, as [`integer`](Self::integer) takes them, with commas between
    /// them, and the closing bracket. Most of a record is this; one loop takes two thirds of the time of
    /// `list` and `integer`.
    #[inline]
    fn column(&mut self, mut take: impl FnMut(u64) -> Option<()>) -> Option<()> {
        if self.skip(b"]").is_some() {
            return Some(());
        }
        let mut bytes = self.0.iter();
        loop {
            let first = bytes.next()?.wrapping_sub(b'0');
            if first > 9 {
                return None;
            }
            let (mut value, mut length) = (u64::from(first), 1);
            let end = loop {
                let &byte = bytes.next()?;
                let digit = byte.wrapping_sub(b'0');
                if digit > 9 {
                    break byte;
                }
                value = value.wrapping_mul(10).wrapping_add(digit.into());
                length += 1;
            };
            // What is longer may not fit; what begins with 0 is 0.
            if length > 19 || (first == 0 && length > 1) {
                return None;
            }
            take(value)?;
            match end {
                b',' => {}
                b']' => {
                    self.0 = bytes.as_slice();
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Digits, at most 19, and the number that they are.
    #[inline]
    fn digits(&mut self) -> Option<(&'a [u8], u64)> {
        let mut value = 0u64;
        let mut length = 0;
        while let Some(digit) = self.0.get(length).map(|byte| byte.wrapping_sub(b'0'))
            && digit < 10
        {
            // More than 19 are refused below, whatever came of them.
            value = value.wrapping_mul(10).wrapping_add(digit.into());
            length += 1;
        }
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        (1..20).contains(&length).then_some((digits, value))
    }

    /// An unsigned integer of at most 19 digits, as JSON writes it.
    #[inline]
    fn integer(&mut self) -> Option<u64> {
        let (digits, value) = self.digits()?;
        let is_plain = digits.len() == 1 || digits[0] != b'0';
        let ends = !matches!(self.0.first(), Some(b'.' | b'e' | b'E'));
        (is_plain && ends).then_some(value)
    }

    /// A number that is not negative and has no exponent; rounded to the nearest `f64`, as serde does.
    #[inline]
    fn number(&mut self) -> Option<f64> {
        let begin = self.0;
        let (digits, whole) = self.digits()?;
        if digits.len() > 1 && digits[0] == b'0' {
            return None;
        }
        let (mut mantissa, mut places) = (Some(whole), 0);
        if self.skip(b".").is_some() {
            let (digits, fraction) = self.digits()?;
            places = digits.len();
            mantissa = whole
                .checked_mul(10u64.pow(u32::try_from(places).ok()?))
                .and_then(|whole| whole.checked_add(fraction));
        }
        if matches!(self.0.first(), Some(b'e' | b'E')) {
            return None;
        }
        match mantissa {
            // Both are exact, so that one rounding is left, the division's.
            Some(mantissa) if mantissa < 1 << f64::MANTISSA_DIGITS => {
                Some(mantissa as f64 / POWERS[places])
            }
            _ => {
                let text = &begin[..begin.len() - self.0.len()];
                std::str::from_utf8(text).ok()?.parse().ok()
            }
        }
    }

    /// A string without escapes.
    #[inline]
    fn string(&mut self) -> Option<&'a str> {
        self.skip(b"\"")?;
        let end = self.0.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest;
        self.skip(b"\"")?;
        std::str::from_utf8(text).ok()
    }
}

/// Powers of ten; each is exact.
const POWERS: [f64; 20] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{
        DeviceInflight, DeviceLatency, Layer, OperationStats, Record, SCHEMA_VERSION, SlotCount,
    };
    use globset::{Glob, GlobSet, GlobSetBuilder};
    use proptest::prelude::*;

    type Read<'a> = (Parser, Option<Head<'a>>);

    fn by_own<'a>(line: &'a [u8], wanted: &Wanted) -> Option<Read<'a>> {
        let mut parser = Parser::default();
        read(&mut parser, line, wanted).map(|head| (parser, Some(head)))
    }

    fn by_serde<'a>(line: &'a [u8], wanted: &Wanted) -> Option<Read<'a>> {
        let mut parser = Parser::default();
        let head = parser.parse_any(line, wanted).ok()?;
        Some((parser, head))
    }

    fn globs(patterns: &[&str]) -> GlobSet {
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            builder.add(Glob::new(pattern).unwrap());
        }
        builder.build().unwrap()
    }

    fn wanted_kinds() -> [Wanted; 3] {
        let devices = Some(globs(&["sd*"]));
        let operations = Some([true, false, false, true, false]);
        [
            Wanted::default(),
            Wanted { devices, ..Wanted::default() },
            Wanted { operations, ..Wanted::default() },
        ]
    }

    fn microseconds() -> impl Strategy<Value = f64> {
        let thousandths = (0..1u64 << 60).prop_map(|nanos| nanos as f64 / 1e3);
        prop_oneof![Just(0.0), (0..1_000_000u64).prop_map(|us| us as f64), thousandths, 0.0..1e9]
    }

    prop_compose! {
        fn statistics()(
            total in 0..1u64 << 40, bytes in 0..1u64 << 60, sum_us in microseconds(),
            max_us in microseconds(), errors in 0..3u64, is_fine in any::<bool>(),
            pairs in prop::collection::vec((any::<u16>(), 0..1u64 << 50), 0..9),
        ) -> OperationStats {
            let (fine, slots) = if is_fine { (Some(pairs), None) } else { (None, Some(pairs)) };
            OperationStats { total, bytes, sum_us, max_us, errors, fine, slots }
        }
    }

    prop_compose! {
        fn latency()(
            device_id in any::<u32>(), device_name in "(sd[a-c]|nvme0n1|ä|x[ !#-Z]{0,3})",
            total in any::<u32>(), requeues in any::<u32>(),
            slots in prop::collection::vec((0..34u32, 1..99u64), 0..4),
            operations in prop::collection::vec(prop::option::of(statistics()), 5),
        ) -> DeviceLatency {
            let buckets = slots.into_iter().map(|(slot, count)| SlotCount {
                slot, count, bucket_low: 1 << slot, bucket_high: (2 << slot) - 1,
            }).collect();
            let mut ops = Operations::default();
            for (place, operation) in operations.into_iter().enumerate() {
                *ops.slot_mut(place) = operation;
            }
            let (total, requeues) = (total.into(), requeues.into());
            DeviceLatency { device_id, device_name, total, buckets, ops, requeues }
        }
    }

    prop_compose! {
        fn record()(
            timestamp in 0..1u64 << 51, interval_s in 0.01..10.0f64,
            latency_histogram in prop::collection::vec(latency(), 0..3),
            inflight in prop::collection::vec((0..9u64, microseconds(), 0..9u64, microseconds()), 0..3),
            host in "[a-z]{1,5}", is_bio in any::<bool>(), seq in any::<u32>(),
            window_s in 0.01..10.0f64, lost in 0..3u64,
        ) -> Record {
            let inflight = inflight.into_iter().zip(["sda", "nvme0n1", "sdb"]);
            Record {
                timestamp: timestamp as f64 / 1e6,
                iso_timestamp: "1970-01-01T00:00:00.000000+00:00".into(),
                interval_s,
                latency_histogram,
                inflight: inflight.map(|((count, mean, max, oldest_us), name)| DeviceInflight {
                    device_id: 1, device_name: name.into(), count, mean, max, oldest_us,
                }).collect(),
                schema: SCHEMA_VERSION,
                host,
                boot_id: "c0ffee".into(),
                layer: if is_bio { Layer::Bio } else { Layer::default() },
                seq: seq.into(),
                window_s,
                audit: Audit { probe_misses: lost, ..Audit::default() },
            }
        }
    }

    fn line_of(record: &Record) -> Vec<u8> {
        let mut line = Vec::new();
        record.write_line(&mut line);
        line.pop();
        line
    }

    /// The line with nothing between the brackets that end at the first `]` behind each `"buckets":[`.
    fn without_buckets(line: &[u8]) -> Vec<u8> {
        const KEY: &[u8] = b",\"buckets\":[";
        let (mut rest, mut kept) = (line, Vec::new());
        while let Some(at) = rest.windows(KEY.len()).position(|part| part == KEY) {
            kept.extend_from_slice(&rest[..at + KEY.len()]);
            rest = &rest[at + KEY.len()..];
            let end = rest.iter().position(|&byte| byte == b']').unwrap_or(rest.len());
            rest = &rest[end..];
        }
        kept.extend_from_slice(rest);
        kept
    }

    proptest! {
        /// Whatever the daemon writes is of this form, if its numbers have no exponent and its names no escapes.
        #[test]
        fn reads_what_the_daemon_writes_as_serde_does(record in record()) {
            let line = line_of(&record);
            for wanted in wanted_kinds() {
                let own = by_own(&line, &wanted);
                let has_exponent = line.windows(2).any(|part| part[0].is_ascii_digit() && part[1] == b'e');
                prop_assert!(own.is_some() || has_exponent, "{}", String::from_utf8_lossy(&line));
                if own.is_some() {
                    prop_assert_eq!(own, by_serde(&line, &wanted));
                }
            }
        }

        #[test]
        fn accepts_nothing_that_serde_reads_otherwise(
            record in record(), at in any::<prop::sample::Index>(), length in 0..3usize,
            instead in prop::sample::select(vec!["", "0", "1", "9", ".", "-", "e", ",", "[", "]", "{", "}", "\"", "\\", " ", "00", "1.", "\u{1}", "null", "99999999999999999999"]),
        ) {
            let mut line = line_of(&record);
            let start = at.index(line.len());
            let end = (start + length).min(line.len());
            line.splice(start..end, instead.bytes());
            let cut = without_buckets(&line);
            for wanted in wanted_kinds() {
                if let Some(own) = by_own(&line, &wanted) {
                    prop_assert_eq!(Some(own), by_serde(&cut, &wanted), "{}", String::from_utf8_lossy(&line));
                }
            }
        }

        #[test]
        fn numbers_are_rounded_as_serde_does(text in "(0|[1-9][0-9]{0,20})(\\.[0-9]{1,21})?") {
            let own = Cursor(text.as_bytes()).number();
            let serde = serde_json::from_str::<f64>(&text).unwrap();
            prop_assert!(own.is_none_or(|own| own.to_bits() == serde.to_bits()), "{:?} {}", own, serde);
            let digits: Vec<usize> = text.split('.').map(str::len).collect();
            prop_assert_eq!(own.is_some(), digits.iter().all(|&length| length < 20));
        }
    }
}
