//! `docs/record.schema.json` accepts what [`blkiolatd::record`] writes, and nothing that breaks the
//! contract.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

use blkiolatd::histogram;
use blkiolatd::record::{
    Audit, DeviceInflight, DeviceLatency, OperationStats, Operations, Record, SCHEMA_VERSION,
    SlotCount,
};
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../docs/record.schema.json");

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn operation(fine: Option<Vec<(u16, u64)>>, slots: Option<Vec<(u16, u64)>>) -> OperationStats {
    let total = fine.iter().chain(&slots).flatten().map(|&(_, count)| count).sum();
    OperationStats {
        total,
        bytes: total * 4096,
        sum_us: 6210.5,
        max_us: 131.25,
        errors: 1,
        fine,
        slots,
    }
}

/// A record that uses every key, with the outermost buckets.
fn full() -> Record {
    let read = operation(Some(vec![(0, 1), (73, 12), (528, u64::MAX >> 20)]), None);
    let write = operation(None, Some(vec![(0, 3), (33, 1)]));
    let mut counts = vec![(0, 3), (33, 1)];
    counts.extend([(0, 1), (4, 12), (33, u64::MAX >> 20)]);
    let buckets = [0, 4, 33]
        .into_iter()
        .map(|slot| {
            let (bucket_low, bucket_high) = histogram::slot_bounds_us(slot);
            let count = counts.iter().filter(|c| c.0 == slot).map(|c| c.1).sum();
            SlotCount { slot: slot as u32, count, bucket_low, bucket_high }
        })
        .collect();
    Record {
        timestamp: 1_691_400_312.123,
        iso_timestamp: "2023-08-07T09:25:12.123000+00:00".into(),
        interval_s: 5.0,
        latency_histogram: vec![
            DeviceLatency {
                device_id: 271_581_184,
                device_name: "nvme0n1".into(),
                total: read.total + write.total,
                buckets,
                ops: Operations { read: Some(read), write: Some(write), ..Default::default() },
                requeues: 2,
            },
            DeviceLatency {
                device_id: u32::MAX,
                device_name: "cciss!c0d0".into(),
                requeues: 1,
                ..Default::default()
            },
        ],
        inflight: vec![DeviceInflight {
            device_id: 271_581_184,
            device_name: "nvme0n1".into(),
            count: 1,
            mean: 0.83,
            max: 12,
            oldest_us: 84.2,
        }],
        schema: SCHEMA_VERSION,
        host: "db-17".into(),
        boot_id: "0f9b3c52-6f0e-4d5c-9f5e-2f6c3f0a7b11".into(),
        layer: blkiolatd::record::Layer::Bio,
        seq: 42,
        window_s: 5.0003,
        audit: Audit { dropped_snapshots: u64::MAX, ..Default::default() },
    }
}

fn value(record: &Record) -> Value {
    let mut line = Vec::new();
    record.write_line(&mut line);
    serde_json::from_slice(&line).unwrap()
}

#[test]
fn accepts_what_is_written() {
    let validator = validator();
    let idle = Record { latency_histogram: vec![], inflight: vec![], ..full() };
    for record in [full(), idle] {
        let value = value(&record);
        let errors: Vec<_> = validator
            .iter_errors(&value)
            .map(|e| format!("{e} at {}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

#[test]
fn accepts_keys_it_does_not_know() {
    let mut value = value(&full());
    value["later"] = json!({"a": 1});
    value["audit"]["later"] = json!(7);
    value["latency_histogram"][0]["ops"]["read"]["later"] = json!("x");
    assert!(validator().is_valid(&value));
}

/// Every key of a full record is required, except the layer, the operations and their two kinds of histogram.
#[test]
fn refuses_a_record_without_a_key() {
    let validator = validator();
    let whole = value(&full());
    let mut tried = 0;
    for parent in [
        "",
        "/audit",
        "/inflight/0",
        "/latency_histogram/0",
        "/latency_histogram/0/buckets/0",
        "/latency_histogram/0/ops/read",
        "/latency_histogram/0/ops/write",
    ] {
        let keys: Vec<String> =
            whole.pointer(parent).unwrap().as_object().unwrap().keys().cloned().collect();
        for key in keys.into_iter().filter(|key| key != "layer") {
            let mut less = whole.clone();
            less.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(&key);
            assert!(!validator.is_valid(&less), "{parent}/{key} is not required");
            tried += 1;
        }
    }
    assert_eq!(tried, 11 + 5 + 6 + 6 + 4 + 6 + 6);
}

#[test]
fn refuses_wrong_types_and_ranges() {
    let validator = validator();
    let whole = value(&full());
    let wrong = [
        ("/timestamp", json!("1691400312.123")),
        ("/timestamp", json!(-1)),
        ("/iso_timestamp", json!("2023-08-07T09:25:12.123Z")),
        ("/iso_timestamp", json!("2023-08-07T09:25:12+00:00")),
        ("/interval_s", json!(0)),
        ("/interval_s", json!(3601)),
        ("/latency_histogram", json!({})),
        ("/inflight", json!(null)),
        ("/schema", json!(2)),
        ("/schema", json!("1")),
        ("/host", json!("")),
        ("/layer", json!("disk")),
        ("/boot_id", json!("0f9b3c52-6f0e-4d5c-9f5e-2f6c3f0a7b11\n")),
        ("/seq", json!(-1)),
        ("/seq", json!(1.5)),
        ("/window_s", json!(0)),
        ("/audit", json!([])),
        ("/audit/probe_misses", json!(-1)),
        ("/inflight/0/mean", json!(-0.1)),
        ("/inflight/0/max", json!("12")),
        ("/inflight/0/oldest_us", json!(null)),
        ("/latency_histogram/0/device_id", json!(4_294_967_296_u64)),
        ("/latency_histogram/0/device_name", json!("")),
        ("/latency_histogram/0/total", json!(-1)),
        ("/latency_histogram/0/requeues", json!(0.5)),
        ("/latency_histogram/0/buckets/0/slot", json!(34)),
        ("/latency_histogram/0/buckets/0/count", json!(0)),
        ("/latency_histogram/0/buckets/0/bucket_low", json!(-1)),
        ("/latency_histogram/0/buckets/0/bucket_high", json!(0)),
        ("/latency_histogram/0/ops", json!([])),
        ("/latency_histogram/0/ops/read", json!(null)),
        ("/latency_histogram/0/ops/read/total", json!(0)),
        ("/latency_histogram/0/ops/read/bytes", json!(-4096)),
        ("/latency_histogram/0/ops/read/sum_us", json!(-1)),
        ("/latency_histogram/0/ops/read/max_us", json!("131")),
        ("/latency_histogram/0/ops/read/errors", json!(-1)),
        ("/latency_histogram/0/ops/read/fine", json!([])),
        ("/latency_histogram/0/ops/read/fine", json!([[529], [1]])),
        ("/latency_histogram/0/ops/read/fine", json!([[0], [0]])),
        ("/latency_histogram/0/ops/read/fine", json!([[], []])),
        ("/latency_histogram/0/ops/read/fine", json!([[0]])),
        ("/latency_histogram/0/ops/read/fine", json!([[0], [1], [2]])),
        ("/latency_histogram/0/ops/read/slots", json!([[3], [1]])),
        ("/latency_histogram/0/ops/write/slots", json!([[34], [1]])),
    ];
    for (pointer, replacement) in wrong {
        let mut broken = whole.clone();
        if let Some(place) = broken.pointer_mut(pointer) {
            *place = replacement.clone();
        } else {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            broken.pointer_mut(parent).unwrap()[key] = replacement.clone();
        }
        assert!(!validator.is_valid(&broken), "{pointer} = {replacement} is accepted");
    }
}
