//! `blkiolat export`: what other programs get adds up to what the report says.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;

use serde_json::Value;
use support::*;

type Key = (String, String, String);

fn archive() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (host, seed) in [("db-17", 1), ("db-18", 2)] {
        let (mut records, _) = generate(&plan(host, seed, 240));
        records.drain(100..130);
        write_archive(&root.path().join(host), &records, 50);
    }
    root
}

fn report(directory: &str) -> BTreeMap<Key, Value> {
    let json = text(blkiolat(&["report", "-f", "json", directory]), 0);
    let document: Value = serde_json::from_str(&json).unwrap();
    let rows = document["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        ((text("host"), text("device"), text("operation")), row.clone())
    })
    .collect()
}

fn csv_rows(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().unwrap()
}

fn key(row: &BTreeMap<String, String>) -> Key {
    (row["host"].clone(), row["device"].clone(), row["operation"].clone())
}

#[test]
fn csv_long_has_every_request() {
    let root = archive();
    let directory = root.path().to_str().unwrap();
    let rows = csv_rows(&text(blkiolat(&["export", directory]), 0));
    let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
    let mut windows = BTreeSet::new();
    let mut previous = BTreeMap::new();
    for row in &rows {
        *counts.entry(key(row)).or_default() += row["count"].parse::<u64>().unwrap();
        let (low, high): (f64, f64) =
            (row["low_us"].parse().unwrap(), row["high_us"].parse().unwrap());
        assert!(low < high);
        windows.insert((row["host"].clone(), row["seq"].clone()));
        let time: f64 = row["timestamp"].parse().unwrap();
        let last = previous.insert(row["host"].clone(), time).unwrap_or(time);
        assert!(last <= time, "in order of time");
    }
    assert_eq!(windows.len(), 2 * 210);
    let report = report(directory);
    for (key, row) in report.iter().filter(|(key, _)| key.2 != "all") {
        assert_eq!(counts[key], row["count"].as_u64().unwrap(), "{key:?}");
    }
    assert_eq!(counts.len(), report.len() - 4);
}

#[test]
fn csv_wide_has_a_row_per_window() {
    let root = archive();
    let directory = root.path().to_str().unwrap();
    let arguments = ["export", "-f", "csv-wide", "--op", "read,all", directory];
    let rows = csv_rows(&text(blkiolat(&arguments), 0));
    let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
    let mut largest: BTreeMap<Key, f64> = BTreeMap::new();
    for row in &rows {
        *counts.entry(key(row)).or_default() += row["count"].parse::<u64>().unwrap();
        let most = largest.entry(key(row)).or_default();
        *most = most.max(row["max_us"].parse().unwrap());
        let (p50, p99): (f64, f64) =
            (row["p50_us"].parse().unwrap(), row["p99_us"].parse().unwrap());
        assert!(p50 <= p99);
    }
    for (key, row) in report(directory) {
        if key.2 == "read" || key.2 == "all" {
            assert_eq!(counts[&key], row["count"].as_u64().unwrap(), "{key:?}");
            assert_eq!(largest[&key], row["max_us"].as_f64().unwrap(), "{key:?}");
        }
    }
}

#[test]
fn openmetrics_is_well_formed_and_complete() {
    let root = archive();
    let directory = root.path().to_str().unwrap();
    let text = text(blkiolat(&["export", "-f", "openmetrics", "--by", "1m", directory]), 0);
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/export.om"), &text).unwrap();
    assert!(text.ends_with("\n# EOF\n"));
    let mut family = String::new();
    let mut families = BTreeSet::new();
    let mut closed = BTreeSet::new();
    let mut current = String::new();
    let mut last: BTreeMap<String, (f64, i64)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} is in one piece");
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, rest) = line.rsplit_once("} ").unwrap();
        let (value, time) = rest.split_once(' ').unwrap();
        let (value, time): (f64, i64) = (value.parse().unwrap(), time.parse().unwrap());
        assert!(series.starts_with(&family), "{series} belongs to {family}");
        // The samples of one series of labels are not interleaved with another's.
        let labels = series.split_once('{').unwrap().1;
        let group = format!("{family}{{{}", labels.split(",le=").next().unwrap());
        if group != current {
            assert!(closed.insert(group.clone()), "{group} is in one piece");
            current = group;
        }
        let gauge = family.contains("inflight") || family.contains("oldest");
        if let Some((before, at)) = last.insert(series.to_owned(), (value, time)) {
            assert!(at < time, "{series} in order of time");
            assert!(gauge || before <= value, "{series} counts up");
        }
    }
    assert_eq!(families.len(), 7);
    for ((host, device, operation), row) in report(directory) {
        if operation == "all" {
            let series = format!(
                "blkiolatd_io_requeues_total{{host=\"{host}\",device=\"{device}\",layer=\"request\""
            );
            assert_eq!(last[&series].0, row["requeues"].as_f64().unwrap());
            continue;
        }
        let labels = format!(
            "{{host=\"{host}\",device=\"{device}\",layer=\"request\",operation=\"{operation}\""
        );
        let value = |name: &str, rest: &str| last[&format!("blkiolatd_io_{name}{labels}{rest}")].0;
        let count = row["count"].as_f64().unwrap();
        assert_eq!(value("latency_seconds_count", ""), count);
        assert_eq!(value("latency_seconds_bucket", ",le=\"+Inf\""), count);
        assert_eq!(value("bytes_total", ""), row["bytes"].as_f64().unwrap());
        assert_eq!(value("errors_total", ""), row["errors"].as_f64().unwrap());
        let mean = value("latency_seconds_sum", "") / count * 1e6;
        assert!((mean / row["mean_us"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    }
}

#[test]
fn a_killed_export_leaves_nothing() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("x.csv");
    let mut child = command(&["export", "-o", path.to_str().unwrap(), "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // Its input does not end, so it is at work from the moment that it has its output open.
    let descriptors = format!("/proc/{}/fd", child.id());
    let open = || {
        let links = fs::read_dir(&descriptors).unwrap().flatten();
        links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .any(|to| to.starts_with(out.path()))
    };
    while !open() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn a_file_appears_when_it_is_complete() {
    let root = archive();
    let out = tempfile::tempdir().unwrap();
    let directory = root.path().to_str().unwrap();
    let path = out.path().join("x.csv");
    let file = path.to_str().unwrap();
    assert_eq!(text(blkiolat(&["export", "-o", file, directory]), 0), "");
    assert_eq!(fs::read_to_string(&path).unwrap(), text(blkiolat(&["export", directory]), 0));
    // Nothing to export leaves what was there, and nothing else.
    let failed = blkiolat(&["export", "-o", file, "--host", "nobody", directory]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(fs::read_to_string(&path).unwrap().lines().count() > 1000);
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    let full = command(&["export", directory])
        .stdout(fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&full.stderr).contains("cannot write the output"));
}
