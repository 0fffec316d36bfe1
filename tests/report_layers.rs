//! Records of several layers of one host: series of their own everywhere.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::fs;

use serde_json::{Value, json};
use support::*;

/// A host whose disk `sda` was measured as requests, and `sda` and `dm-0` as bios; the bios of ten
/// windows are missing.
fn archive() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let (requests, _) = generate(&plan("db-17", 1, 120));
    let (bios, _) = generate(&plan("db-17", 2, 120));
    let mut text = String::new();
    for (place, (request, bio)) in requests.iter().zip(&bios).enumerate() {
        text.push_str(&format!("{}\n", serde_json::to_string(request).unwrap()));
        if (50..60).contains(&place) {
            continue;
        }
        let mut bio = serde_json::to_value(bio).unwrap();
        bio["layer"] = json!("bio");
        bio["boot_id"] = json!(request.boot_id);
        text.push_str(&format!("{bio}\n").replace("nvme0n1", "dm-0"));
    }
    fs::write(root.path().join("blkiolat.jsonl"), text).unwrap();
    root
}

/// The sum of `total` that the archive has of a device and layer, read without the program.
fn truth(directory: &str, device: &str, bio: bool) -> u64 {
    let text = fs::read_to_string(format!("{directory}/blkiolat.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records
        .filter(|record| record.get("layer").is_some() == bio)
        .flat_map(|record| record["latency_histogram"].as_array().unwrap().clone())
        .filter(|of| of["device_name"] == device)
        .map(|of| of["total"].as_u64().unwrap())
        .sum()
}

#[test]
fn each_layer_has_rows_rates_and_gaps_of_its_own() {
    let root = archive();
    let directory = root.path().to_str().unwrap();
    let json = text(blkiolat(&["report", "-f", "json", "--op", "all", directory]), 0);
    let document: Value = serde_json::from_str(&json).unwrap();
    let key = |row: &Value| (row["device"].as_str().unwrap().to_owned(), row["layer"].clone());
    let rows: Vec<_> = document["rows"].as_array().unwrap().iter().collect();
    let keys: Vec<_> = rows.iter().map(|row| key(row)).collect();
    let expected = [("dm-0", "bio"), ("nvme0n1", "request"), ("sda", "request"), ("sda", "bio")];
    assert_eq!(keys, expected.map(|(device, layer)| (device.to_owned(), json!(layer))));
    for row in rows {
        let bio = row["layer"] == "bio";
        let count = truth(directory, row["device"].as_str().unwrap(), bio);
        assert_eq!(row["count"], count);
        // The rate is by the time of the layer's own windows.
        let seconds = if bio { 110.0 } else { 120.0 } * 5.0;
        assert_eq!(row["iops"], count as f64 / seconds);
    }
    let hosts = document["hosts"].as_array().unwrap();
    let summary = |place: usize| (&hosts[place]["layer"], &hosts[place]["missing_windows"]);
    assert_eq!(summary(0), (&json!("request"), &json!(0)));
    assert_eq!(summary(1), (&json!("bio"), &json!(10)));
}

#[test]
fn every_form_says_the_layer() {
    let root = archive();
    let directory = root.path().to_str().unwrap();
    let table = text(blkiolat(&["report", directory]), 0);
    assert!(table.contains("\ndb-17 (bio): 110 windows"), "{table}");
    assert!(table.contains("\ndm-0 (bio)  all "), "{table}");
    assert!(table.contains("\nsda (bio)   all "), "{table}");
    assert!(table.contains("\nsda         all "), "{table}");
    let om = text(blkiolat(&["export", "-f", "openmetrics", directory]), 0);
    let series = "blkiolatd_io_bytes_total{host=\"db-17\",device=\"dm-0\",layer=\"bio\",operation=";
    assert!(om.contains(series));
    for arguments in [["report", "-f", "csv", directory], ["export", "-f", "csv-wide", directory]] {
        let csv = text(blkiolat(&arguments), 0);
        assert!(csv.contains(",db-17,dm-0,bio,read,"), "{arguments:?}");
        assert!(csv.contains(",db-17,sda,request,read,"), "{arguments:?}");
    }
    let csv = text(blkiolat(&["export", directory]), 0);
    assert!(csv.contains(",dm-0,bio,read,"));
    let histogram = text(blkiolat(&["histogram", directory]), 0);
    assert!(histogram.contains("disk = dm-0 (bio)\n"), "{histogram}");
    let map = text(blkiolat(&["heatmap", "--device", "dm-*", "--colour", "ascii", directory]), 0);
    assert!(map.contains("dm-0 (bio)"), "{map}");
    let half = "2026-11-22T00:05:00Z";
    let sides = [format!("since=@0,until={half}"), format!("since={half}")];
    let diff = text(blkiolat(&["diff", &sides[0], &sides[1], directory]), 0);
    assert!(diff.contains("dm-0 (bio)"), "{diff}");
}

#[test]
fn a_layer_that_is_not_known_is_named() {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("h", 1, 2));
    let mut strange = serde_json::to_value(&records[1]).unwrap();
    strange["layer"] = json!("fabric");
    let path = root.path().join("x.jsonl");
    fs::write(&path, format!("{}{strange}\n", String::from_utf8(lines(&records[..1])).unwrap()))
        .unwrap();
    let output = blkiolat(&["report", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("x.jsonl: line 2 is a record of the layer `fabric`"), "{errors}");
}
