//! A record as a reader sees it: parsed into memory that the next record uses again, without the
//! keys that no reader needs.

mod own;
mod seeds;

use std::borrow::Cow;
use std::ops::Range;

use globset::GlobSet;
use serde::de::DeserializeSeed as _;
use serde::{Deserialize, Serialize};

use super::TimeRange;
use crate::histogram;
use crate::record::{Audit, Operations, SCHEMA_VERSION};

/// Unix seconds of the first instant that a record cannot have: the year 10,000.
const TIMESTAMP_END: f64 = 253_402_300_800.0;
/// Number of operations that a record tells apart.
const OPERATIONS: usize = Operations::NAMES.len();

/// Where requests were measured, in ascending distance from the device.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Requests, from issue to completion: records without the key `layer`.
    #[default]
    Request,
    /// Bios of devices that have no requests, for example device mapper's.
    Bio,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Request, Self::Bio];

    /// The layer's name, which the key `layer` has.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Bio => "bio",
        }
    }

    /// What people read behind a name: nothing, or ` (bio)`.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Request => "",
            Self::Bio => " (bio)",
        }
    }
}

/// What of the records is wanted; the rest is skipped where that saves time. What is skipped is
/// checked no further than that it is JSON, if at all.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Windows of this time.
    pub range: TimeRange,
    /// Devices; none: all.
    pub devices: Option<GlobSet>,
    /// Operations, in the order of [`Operations::NAMES`]; none: all.
    pub operations: Option<[bool; OPERATIONS]>,
}

impl Wanted {
    /// Whether the device of that name is.
    #[must_use]
    pub fn device(&self, name: &str) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.is_match(name))
    }

    /// Whether the operation at that place of [`Operations::NAMES`] is.
    #[must_use]
    pub fn operation(&self, place: usize) -> bool {
        self.operations.is_none_or(|wanted| wanted[place])
    }
}

/// Parses lines; the memory for one record serves the next.
#[derive(Debug, Default, PartialEq)]
pub struct Parser {
    /// Names of devices, one behind the other.
    names: String,
    devices: Vec<Device>,
    operations: Vec<Operation>,
    pairs: Vec<(u16, u64)>,
    inflight: Vec<Inflight>,
}

#[derive(Debug, PartialEq)]
struct Device {
    name: Range<usize>,
    total: u64,
    requeues: u64,
    operations: Range<usize>,
    /// Whether the operations were parsed and can be checked.
    wanted: bool,
}

#[derive(Debug, PartialEq)]
struct Operation {
    place: usize,
    total: u64,
    bytes: u64,
    sum_us: f64,
    max_us: f64,
    errors: u64,
    pairs: Pairs,
}

/// The histogram of an operation.
#[derive(Debug, Default, PartialEq)]
enum Pairs {
    /// Not there.
    #[default]
    None,
    /// There, but not wanted.
    Skipped,
    Fine(Range<usize>),
    Slots(Range<usize>),
    /// There twice, which is no record.
    Both,
}

#[derive(Debug, PartialEq)]
struct Inflight {
    name: Range<usize>,
    count: u64,
    mean: f64,
    max: u64,
    oldest_us: f64,
}

/// What a record says besides its devices.
#[derive(Debug, PartialEq)]
struct Head<'a> {
    timestamp: f64,
    schema: u32,
    host: Cow<'a, str>,
    boot_id: Cow<'a, str>,
    layer: Option<Cow<'a, str>>,
    seq: u64,
    window_s: f64,
    audit: Audit,
}

/// One record, version 1. The keys are those of [`Record`](crate::record::Record);
/// `iso_timestamp`, `buckets`, `device_id` and unknown keys are skipped.
#[derive(Clone, Debug)]
pub struct RecordView<'a> {
    /// End of the window, Unix seconds.
    pub timestamp: f64,
    /// Host name.
    pub host: Cow<'a, str>,
    /// The kernel's boot id.
    pub boot_id: Cow<'a, str>,
    /// Where the requests were measured.
    pub layer: Layer,
    /// Number of the window in its run of the daemon.
    pub seq: u64,
    /// True length of the window, seconds.
    pub window_s: f64,
    /// What could not be measured.
    pub audit: Audit,
    parser: &'a Parser,
}

/// Latency of one device in one window.
#[derive(Clone, Copy, Debug)]
pub struct DeviceView<'a> {
    /// Kernel name of the disk.
    pub name: &'a str,
    /// Requests finally completed.
    pub total: u64,
    /// Requests given back to the queue.
    pub requeues: u64,
    parser: &'a Parser,
    operations: &'a [Operation],
}

/// One operation of one device in one window.
#[derive(Clone, Copy, Debug)]
pub struct OperationView<'a> {
    /// Its place in [`Operations::NAMES`].
    pub place: usize,
    /// Requests finally completed.
    pub total: u64,
    /// Bytes of those requests.
    pub bytes: u64,
    /// Sum of their latencies, µs.
    pub sum_us: f64,
    /// Largest of their latencies, µs.
    pub max_us: f64,
    /// Requests that completed with an error.
    pub errors: u64,
    /// Whether `pairs` are fine buckets; otherwise they are log2 slots.
    pub fine: bool,
    /// Index (checked) and count of the histogram's places that are not empty.
    pub pairs: &'a [(u16, u64)],
}

/// Requests of one device in flight.
#[derive(Clone, Copy, Debug)]
pub struct InflightView<'a> {
    /// Kernel name of the disk.
    pub name: &'a str,
    /// Requests in flight at the end of the window.
    pub count: u64,
    /// Time-weighted mean over the window.
    pub mean: f64,
    /// Largest number at one time.
    pub max: u64,
    /// Age of the oldest at the end of the window, µs.
    pub oldest_us: f64,
}

/// Why a line cannot be used as a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The record is of a later version than this reader knows.
    #[error(
        "is a record of schema version {0}, and this blkiolat reads up to version {SCHEMA_VERSION}: \
         use a newer blkiolat"
    )]
    FutureSchema(u64),
    /// The record is of a layer that this reader does not know.
    #[error(
        "is a record of the layer `{0}`, which this blkiolat does not know: use a newer blkiolat"
    )]
    UnknownLayer(String),
    /// The line is no record.
    #[error("is no record of version {SCHEMA_VERSION}: {0}")]
    NoRecord(String),
}

/// The one key that is read from a line that is no record of this version.
#[derive(Deserialize)]
struct Version {
    schema: u64,
}

impl Parser {
    /// Reads one line; `None` when its time is certainly not wanted.
    ///
    /// # Errors
    /// When the line is no record of this version, or one that contradicts itself: then its counts
    /// cannot be trusted, and none of it is used.
    pub fn parse<'a>(
        &'a mut self,
        line: &'a [u8],
        wanted: &Wanted,
    ) -> Result<Option<RecordView<'a>>, LineError> {
        self.clear();
        let head = match own::read(self, line, wanted) {
            Some(head) => Some(head),
            None => self.parse_any(line, wanted)?,
        };
        let Some(head) = head else { return Ok(None) };
        if head.schema > SCHEMA_VERSION {
            return Err(LineError::FutureSchema(head.schema.into()));
        }
        self.check(&head).map_err(LineError::NoRecord)?;
        let layer = match head.layer.as_deref() {
            None => Layer::Request,
            Some(name) => Layer::ALL
                .into_iter()
                .find(|layer| layer.name() == name)
                .ok_or_else(|| LineError::UnknownLayer(name.to_owned()))?,
        };
        let Head { timestamp, host, boot_id, seq, window_s, audit, .. } = head;
        Ok(Some(RecordView { timestamp, host, boot_id, layer, seq, window_s, audit, parser: self }))
    }

    /// Reads a line of any form; `None` when its time is certainly not wanted.
    fn parse_any<'a>(
        &mut self,
        line: &'a [u8],
        wanted: &Wanted,
    ) -> Result<Option<Head<'a>>, LineError> {
        self.clear();
        let mut json = serde_json::Deserializer::from_slice(line);
        seeds::RecordSeed { parser: self, wanted }
            .deserialize(&mut json)
            .and_then(|head| json.end().map(|()| head))
            .map_err(|error| version_or(line, &error))
    }

    fn clear(&mut self) {
        self.names.clear();
        self.devices.clear();
        self.operations.clear();
        self.pairs.clear();
        self.inflight.clear();
    }

    fn check(&self, head: &Head<'_>) -> Result<(), String> {
        if head.schema != SCHEMA_VERSION {
            return Err(format!("`schema` is {}, expected {SCHEMA_VERSION}", head.schema));
        }
        if !(0.0..TIMESTAMP_END).contains(&head.timestamp) {
            return Err(format!(
                "`timestamp` {} is outside of the years 1970-9999",
                head.timestamp
            ));
        }
        if head.window_s <= 0.0 {
            return Err(format!("`window_s` is {}, expected more than 0", head.window_s));
        }
        for device in self.devices.iter().filter(|device| device.wanted) {
            let name = &self.names[device.name.clone()];
            let mut total = 0u64;
            for operation in &self.operations[device.operations.clone()] {
                self.check_operation(operation).map_err(|what| {
                    format!("{name} {}: {what}", Operations::NAMES[operation.place])
                })?;
                total = total.saturating_add(operation.total);
            }
            if total != device.total {
                return Err(format!(
                    "{name}: `total` is {}, and its operations have {total}",
                    device.total
                ));
            }
        }
        Ok(())
    }

    fn check_operation(&self, operation: &Operation) -> Result<(), String> {
        let (pairs, buckets, name) = match &operation.pairs {
            Pairs::Fine(pairs) => (pairs, histogram::BUCKETS, "fine"),
            Pairs::Slots(pairs) => (pairs, histogram::SLOTS, "slots"),
            Pairs::Skipped => return Ok(()),
            Pairs::Both => return Err("both `fine` and `slots`".into()),
            Pairs::None => return Err("neither `fine` nor `slots`".into()),
        };
        let mut sum = 0u64;
        for &(index, count) in &self.pairs[pairs.clone()] {
            if usize::from(index) >= buckets {
                return Err(format!("`{name}` has index {index}, expected less than {buckets}"));
            }
            sum = sum.saturating_add(count);
        }
        if sum != operation.total {
            return Err(format!("`total` is {}, and `{name}` has {sum}", operation.total));
        }
        if operation.sum_us < 0.0 || operation.max_us < 0.0 {
            return Err("a negative latency".into());
        }
        Ok(())
    }
}

impl<'a> RecordView<'a> {
    /// End of the window, µs since the Unix epoch.
    #[must_use]
    pub fn end_us(&self) -> i64 {
        (self.timestamp * 1e6).round() as i64
    }

    /// True length of the window, µs.
    #[must_use]
    pub fn length_us(&self) -> u64 {
        (self.window_s * 1e6).round() as u64
    }

    /// Middle of the window, µs since the Unix epoch: what decides to which range or row of a
    /// report the window belongs, because most of it does.
    #[must_use]
    pub fn middle_us(&self) -> i64 {
        self.end_us().saturating_sub_unsigned(self.length_us() / 2)
    }

    /// The latencies of the devices that are wanted.
    pub fn devices(&self) -> impl Iterator<Item = DeviceView<'a>> + use<'a> {
        let parser = self.parser;
        parser.devices.iter().filter(|device| device.wanted).map(|device| DeviceView {
            name: &parser.names[device.name.clone()],
            total: device.total,
            requeues: device.requeues,
            parser,
            operations: &parser.operations[device.operations.clone()],
        })
    }

    /// The requests in flight of the devices that are wanted.
    pub fn inflight(&self) -> impl Iterator<Item = InflightView<'a>> + use<'a> {
        let parser = self.parser;
        parser.inflight.iter().map(|inflight| InflightView {
            name: &parser.names[inflight.name.clone()],
            count: inflight.count,
            mean: inflight.mean,
            max: inflight.max,
            oldest_us: inflight.oldest_us,
        })
    }
}

impl<'a> DeviceView<'a> {
    /// The operations that are wanted, in the order of the record.
    pub fn operations(&self) -> impl Iterator<Item = OperationView<'a>> + use<'a> {
        let parser = self.parser;
        self.operations.iter().filter_map(|operation| {
            let (fine, pairs) = match &operation.pairs {
                Pairs::Fine(pairs) => (true, pairs),
                Pairs::Slots(pairs) => (false, pairs),
                Pairs::None | Pairs::Skipped | Pairs::Both => return None,
            };
            let &Operation { place, total, bytes, sum_us, max_us, errors, .. } = operation;
            let pairs = &parser.pairs[pairs.clone()];
            Some(OperationView { place, total, bytes, sum_us, max_us, errors, fine, pairs })
        })
    }
}

/// A later version may have changed what this one expects, so its number is looked for before the
/// line is called broken.
fn version_or(line: &[u8], error: &serde_json::Error) -> LineError {
    match serde_json::from_slice::<Version>(line) {
        Ok(Version { schema }) if schema > u64::from(SCHEMA_VERSION) => {
            LineError::FutureSchema(schema)
        }
        _ => LineError::NoRecord(without_line(error)),
    }
}

/// serde_json counts lines within the text that it was given, which is always line 1 here and
/// would be taken for the file's line.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line 1 column ") {
        Some(at) => format!("{} (column {})", &text[..at], error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sample() -> Value {
        json!({
            "timestamp": 100.5, "iso_timestamp": "1970-01-01T00:01:40.500000+00:00",
            "interval_s": 5.0,
            "latency_histogram": [{"device_id": 1, "device_name": "sd\u{e9}\n", "total": 3,
                "buckets": [{"slot": 0, "count": 3, "bucket_low": 0, "bucket_high": 1}],
                "ops": {"read": {"total": 2, "bytes": 1, "sum_us": 1.0, "max_us": 1.0, "errors": 0,
                                 "fine": [[3], [2]]},
                        "write": {"total": 1, "bytes": 1, "sum_us": 1.0, "max_us": 1.0,
                                  "errors": 0, "slots": [[0], [1]]}},
                "requeues": 4}],
            "inflight": [{"device_id": 1, "device_name": "sda", "count": 1, "mean": 0.5, "max": 2,
                "oldest_us": 1.5}],
            "schema": 1, "host": "h", "boot_id": "b", "seq": 7, "window_s": 5.0,
            "audit": {"untracked_completions": 1, "inflight_table_full": 2,
                "device_table_full": 3, "probe_misses": 4, "dropped_snapshots": 5},
            "unknown": {"a": [1, 2]}
        })
    }

    fn parse(value: &Value) -> Result<i64, LineError> {
        parse_line(value.to_string().as_bytes())
    }

    fn parse_line(line: &[u8]) -> Result<i64, LineError> {
        let mut parser = Parser::default();
        let record = parser.parse(line, &Wanted::default())?;
        Ok(record.unwrap().middle_us())
    }

    #[test]
    fn reads_what_it_needs_and_skips_the_rest() {
        let line = sample().to_string();
        let mut parser = Parser::default();
        // A second time in the same memory: nothing of the first remains.
        for _ in 0..2 {
            let record = parser.parse(line.as_bytes(), &Wanted::default()).unwrap().unwrap();
            assert_eq!(record.end_us(), 100_500_000);
            assert_eq!(record.middle_us(), 98_000_000);
            assert_eq!(record.layer, Layer::Request);
            assert!(matches!(record.host, Cow::Borrowed("h")));
            assert_eq!(record.audit.dropped_snapshots, 5);
            let devices: Vec<_> = record.devices().collect();
            assert_eq!((devices.len(), devices[0].name), (1, "sd\u{e9}\n"));
            assert_eq!((devices[0].total, devices[0].requeues), (3, 4));
            let operations: Vec<_> = devices[0].operations().collect();
            assert_eq!(operations.len(), 2);
            assert_eq!((operations[0].place, operations[0].fine), (0, true));
            assert_eq!(operations[0].pairs, [(3, 2)]);
            assert_eq!((operations[1].place, operations[1].fine), (1, false));
            assert_eq!(operations[1].pairs, [(0, 1)]);
            let inflight: Vec<_> = record.inflight().collect();
            assert_eq!((inflight.len(), inflight[0].name, inflight[0].max), (1, "sda", 2));
        }
    }

    #[test]
    fn skips_what_is_not_wanted() {
        let mut wanted =
            Wanted { operations: Some([false, true, false, false, false]), ..Default::default() };
        let line = sample().to_string();
        let mut parser = Parser::default();
        let operations = |parser: &mut Parser, wanted: &Wanted| -> Vec<usize> {
            let record = parser.parse(line.as_bytes(), wanted).unwrap().unwrap();
            let devices = record.devices().flat_map(|device| device.operations());
            devices.map(|operation| operation.place).collect()
        };
        assert_eq!(operations(&mut parser, &wanted), [1]);
        let globs = globset::GlobSet::new([globset::Glob::new("nvme*").unwrap()]).unwrap();
        wanted = Wanted { devices: Some(globs), ..Default::default() };
        assert_eq!(operations(&mut parser, &wanted), [0; 0]);
        assert_eq!(parser.inflight.len(), 0);
        let range = |since_us, until_us| Wanted {
            range: TimeRange { since_us, until_us },
            ..Default::default()
        };
        let mut is_read =
            |wanted: &Wanted| parser.parse(line.as_bytes(), wanted).unwrap().is_some();
        assert!(!is_read(&range(Some(100_500_001), None)));
        assert!(is_read(&range(Some(100_500_000), None)));
        assert!(is_read(&range(None, Some(98_000_000))), "its window may be long");
        assert!(!is_read(&range(None, Some(100_500_000 - 3_600_000_000))));
    }

    #[test]
    fn layers() {
        let mut bio = sample();
        bio["layer"] = json!("bio");
        let line = bio.to_string();
        let mut parser = Parser::default();
        let record = parser.parse(line.as_bytes(), &Wanted::default()).unwrap().unwrap();
        assert_eq!(record.layer, Layer::Bio);
        bio["layer"] = json!("fabric");
        assert_eq!(parse(&bio), Err(LineError::UnknownLayer("fabric".into())));
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        let cases = [
            ("/schema", json!(0), "`schema` is 0"),
            ("/window_s", json!(0.0), "`window_s` is 0"),
            ("/timestamp", json!(1e300), "outside"),
            ("/latency_histogram/0/total", json!(4), "operations have 3"),
            ("/latency_histogram/0/ops/read/total", json!(3), "`fine` has 2"),
            ("/latency_histogram/0/ops/read/fine", json!([[529], [2]]), "index 529"),
            ("/latency_histogram/0/ops/write/slots", json!([[34], [1]]), "index 34"),
            ("/latency_histogram/0/ops/write/slots", Value::Null, "neither"),
            ("/latency_histogram/0/ops/read/sum_us", json!(-1.0), "negative"),
            ("/seq", json!("7"), "invalid type"),
            ("/latency_histogram/0/ops/read/slots", json!([[], []]), "both"),
            ("/latency_histogram/0/ops/read/fine", json!([]), "two columns"),
            ("/latency_histogram/0/ops/read/fine", json!([[1]]), "two columns"),
            ("/latency_histogram/0/ops/read/fine", json!([[1, 2], [2]]), "two columns"),
            ("/latency_histogram/0/ops/read/fine", json!([[1], [2, 3]]), "two columns"),
            ("/latency_histogram/0/ops/read/fine", json!([[1], [2], [3]]), "two columns"),
            ("/latency_histogram/0/ops/read/fine", json!([[3, 2]]), "two columns"),
        ];
        for (pointer, value, expected) in cases {
            let mut broken = sample();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            broken.pointer_mut(parent).unwrap()[key] = value;
            let error = parse(&broken).unwrap_err().to_string();
            assert!(error.contains(expected), "{pointer}: {error}");
            assert!(!error.contains("at line"), "{error}");
        }
    }

    #[test]
    fn tells_a_future_version_from_a_broken_line() {
        let mut future = sample();
        future["schema"] = json!(2);
        assert_eq!(parse(&future), Err(LineError::FutureSchema(2)));
        future["latency_histogram"] = json!("quite another shape");
        assert_eq!(parse(&future), Err(LineError::FutureSchema(2)));
        assert!(matches!(parse_line(b"{\"schema\":1}"), Err(LineError::NoRecord(_))));
        assert!(matches!(parse_line(b"\0\0\0"), Err(LineError::NoRecord(_))));
        assert!(matches!(parse_line(b"{\"timestamp\":1.0,"), Err(LineError::NoRecord(_))));
    }
}
