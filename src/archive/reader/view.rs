//! A record as a reader sees it: borrowed from the line, without the keys that no reader needs.

use std::borrow::Cow;

use serde::Deserialize;

use crate::histogram;
use crate::record::{Audit, OperationStats, Operations, SCHEMA_VERSION};

/// Unix seconds of the first instant that a record cannot have: the year 10,000.
const TIMESTAMP_END: f64 = 253_402_300_800.0;

/// One record, version 1, borrowed from its line. The keys are those of
/// [`Record`](crate::record::Record); `iso_timestamp`, `buckets` and unknown keys are skipped.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordView<'a> {
    /// End of the window, Unix seconds.
    pub timestamp: f64,
    /// Version of the record's shape.
    pub schema: u32,
    /// Host name.
    #[serde(borrow)]
    pub host: Cow<'a, str>,
    /// The kernel's boot id.
    #[serde(borrow)]
    pub boot_id: Cow<'a, str>,
    /// Number of the window in its run of the daemon.
    pub seq: u64,
    /// True length of the window, seconds.
    pub window_s: f64,
    /// Latencies by device.
    #[serde(borrow)]
    pub latency_histogram: Vec<DeviceView<'a>>,
    /// Requests in flight by device.
    #[serde(borrow)]
    pub inflight: Vec<InflightView<'a>>,
    /// What could not be measured.
    pub audit: Audit,
}

/// Latency of one device in one window.
#[derive(Clone, Debug, Deserialize)]
pub struct DeviceView<'a> {
    /// Kernel name of the disk.
    #[serde(borrow)]
    pub device_name: Cow<'a, str>,
    /// Requests finally completed.
    pub total: u64,
    /// The same by operation.
    pub ops: Operations,
    /// Requests given back to the queue.
    pub requeues: u64,
}

/// Requests of one device in flight.
#[derive(Clone, Debug, Deserialize)]
pub struct InflightView<'a> {
    /// Kernel name of the disk.
    #[serde(borrow)]
    pub device_name: Cow<'a, str>,
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
    /// The line is no record.
    #[error("is no record of version {SCHEMA_VERSION}: {0}")]
    NoRecord(String),
}

/// The one key that is read from a line that is no record of this version.
#[derive(Deserialize)]
struct Version {
    schema: u64,
}

impl<'a> RecordView<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// When the line is no record of this version, or one that contradicts itself: then its counts
    /// cannot be trusted, and none of it is used.
    pub fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let record: Self =
            serde_json::from_slice(line).map_err(|error| version_or(line, &error))?;
        if record.schema > SCHEMA_VERSION {
            return Err(LineError::FutureSchema(record.schema.into()));
        }
        record.check().map_err(LineError::NoRecord)?;
        Ok(record)
    }

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

    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA_VERSION {
            return Err(format!("`schema` is {}, expected {SCHEMA_VERSION}", self.schema));
        }
        if !(0.0..TIMESTAMP_END).contains(&self.timestamp) {
            return Err(format!(
                "`timestamp` {} is outside of the years 1970-9999",
                self.timestamp
            ));
        }
        if self.window_s <= 0.0 {
            return Err(format!("`window_s` is {}, expected more than 0", self.window_s));
        }
        for device in &self.latency_histogram {
            let mut total = 0u64;
            for (name, stats) in device.ops.iter() {
                check_operation(stats)
                    .map_err(|what| format!("{} {name}: {what}", device.device_name))?;
                total = total.saturating_add(stats.total);
            }
            if total != device.total {
                return Err(format!(
                    "{}: `total` is {}, and its operations have {total}",
                    device.device_name, device.total
                ));
            }
        }
        Ok(())
    }
}

fn check_operation(stats: &OperationStats) -> Result<(), String> {
    let (pairs, buckets, name) = match (&stats.fine, &stats.slots) {
        (Some(fine), None) => (fine, histogram::BUCKETS, "fine"),
        (None, Some(slots)) => (slots, histogram::SLOTS, "slots"),
        (Some(_), Some(_)) => return Err("both `fine` and `slots`".into()),
        (None, None) => return Err("neither `fine` nor `slots`".into()),
    };
    let mut sum = 0u64;
    for &(index, count) in pairs {
        if usize::from(index) >= buckets {
            return Err(format!("`{name}` has index {index}, expected less than {buckets}"));
        }
        sum = sum.saturating_add(count);
    }
    if sum != stats.total {
        return Err(format!("`total` is {}, and `{name}` has {sum}", stats.total));
    }
    if stats.sum_us < 0.0 || stats.max_us < 0.0 {
        return Err("a negative latency".into());
    }
    Ok(())
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
                                 "fine": [[3, 2]]},
                        "write": {"total": 1, "bytes": 1, "sum_us": 1.0, "max_us": 1.0,
                                  "errors": 0, "slots": [[0, 1]]}},
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
        RecordView::parse(value.to_string().as_bytes()).map(|record| record.middle_us())
    }

    #[test]
    fn reads_what_it_needs_and_skips_the_rest() {
        let line = sample().to_string();
        let record = RecordView::parse(line.as_bytes()).unwrap();
        assert_eq!(record.end_us(), 100_500_000);
        assert_eq!(record.middle_us(), 98_000_000);
        assert_eq!(record.latency_histogram[0].device_name, "sd\u{e9}\n");
        assert!(matches!(record.host, Cow::Borrowed("h")));
        assert_eq!(record.audit.dropped_snapshots, 5);
        assert_eq!(record.inflight[0].max, 2);
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        let cases = [
            ("/schema", json!(0), "`schema` is 0"),
            ("/window_s", json!(0.0), "`window_s` is 0"),
            ("/timestamp", json!(1e300), "outside"),
            ("/latency_histogram/0/total", json!(4), "operations have 3"),
            ("/latency_histogram/0/ops/read/total", json!(3), "`fine` has 2"),
            ("/latency_histogram/0/ops/read/fine", json!([[529, 2]]), "index 529"),
            ("/latency_histogram/0/ops/write/slots", json!([[34, 1]]), "index 34"),
            ("/latency_histogram/0/ops/write/slots", Value::Null, "neither"),
            ("/latency_histogram/0/ops/read/sum_us", json!(-1.0), "negative"),
            ("/seq", json!("7"), "invalid type"),
        ];
        for (pointer, value, expected) in cases {
            let mut broken = sample();
            *broken.pointer_mut(pointer).unwrap() = value;
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
        assert!(matches!(RecordView::parse(b"{\"schema\":1}"), Err(LineError::NoRecord(_))));
        assert!(matches!(RecordView::parse(b"\0\0\0"), Err(LineError::NoRecord(_))));
        assert!(matches!(RecordView::parse(b"{\"timestamp\":1.0,"), Err(LineError::NoRecord(_))));
    }
}
