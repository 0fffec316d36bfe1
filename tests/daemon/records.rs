//! What the daemon wrote, each line held against the published schema.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::disk::{Counts, names};

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(include_str!("../../docs/record.schema.json")).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
});

/// The whole lines of one file, compressed or not; the last line of a growing one may be torn.
pub fn of_file(path: &Path) -> Vec<Value> {
    let mut text = String::new();
    let file = File::open(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    } else {
        (&file).read_to_string(&mut text).unwrap();
    }
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let records: Vec<Value> = whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for record in &records {
        if let Some(error) = SCHEMA.iter_errors(record).next() {
            panic!("{path:?}: {error}: {record}");
        }
    }
    records
}

/// The records of a daemon that has ended, from all files in `dirs`, by `seq`.
pub fn of_dirs(dirs: &[&Path]) -> Vec<Value> {
    let mut records = Vec::new();
    for dir in dirs {
        for name in names(dir) {
            let file = name.ends_with(".jsonl") || name.ends_with(".jsonl.gz");
            // Its source is there until it is complete.
            if file && !names(dir).contains(&format!("{name}.gz")) {
                assert!(!fs::metadata(dir.join(&name)).unwrap().is_dir());
                records.extend(of_file(&dir.join(name)));
            }
        }
    }
    records.sort_by_key(seq);
    records
}

pub fn seq(record: &Value) -> u64 {
    record["seq"].as_u64().unwrap()
}

pub fn dropped(record: &Value) -> u64 {
    record["audit"]["dropped_snapshots"].as_u64().unwrap()
}

/// Fails unless each window is there exactly once, from the first on.
pub fn assert_complete(records: &[Value]) {
    let found: Vec<u64> = records.iter().map(seq).collect();
    assert_eq!(found, (0..records.len() as u64).collect::<Vec<_>>());
    assert!(records.iter().all(|record| dropped(record) == 0));
}

/// The completed requests of one device in all records.
pub fn counts(records: &[Value], device: &str) -> Counts {
    let sum = |operation: &str| {
        let latencies = records.iter().flat_map(|r| r["latency_histogram"].as_array().unwrap());
        let of_device = latencies.filter(|latency| latency["device_name"] == device);
        of_device.filter_map(|latency| latency["ops"][operation]["total"].as_u64()).sum()
    };
    Counts { reads: sum("read"), writes: sum("write"), flushes: sum("flush") }
}

/// Sum of the windows' lengths, in seconds.
pub fn seconds(records: &[Value]) -> f64 {
    records.iter().map(|record| record["window_s"].as_f64().unwrap()).sum()
}

/// Fails unless all reads and writes that the kernel counted were recorded, but for completions that
/// the daemon never saw and says so: counted in the audit, or still taken for in flight. (This kernel's
/// tracepoints leave some out while another program is attached to them, and tests run at once.)
pub fn assert_all_counted(records: &[Value], device: &str, kernel: Counts) {
    let found = counts(records, device);
    let missed: u64 = records.iter().map(|r| r["audit"]["probe_misses"].as_u64().unwrap()).sum();
    let inflight = records.last().unwrap()["inflight"].as_array().unwrap().iter();
    let left: u64 = inflight
        .filter(|inflight| inflight["device_name"] == device)
        .map(|inflight| inflight["count"].as_u64().unwrap())
        .sum();
    assert!(found.reads <= kernel.reads && found.writes <= kernel.writes, "{found:?} {kernel:?}");
    let lost = kernel.reads + kernel.writes - found.reads - found.writes;
    // Those of other disks are among them.
    let known = missed + left;
    assert!(lost <= known, "recorded {found:?}, {missed} missed, {left} left; kernel {kernel:?}");
}
