//! `blkiolat export --format parquet`: read back by DuckDB, the numbers are those of the archive.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use blkiolatd::config::Detail;
use blkiolatd::record::Record;
use blkiolatd::report::synthetic::Plan;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::*;

/// Rows of a query that DuckDB answers; none where it is not installed.
fn duckdb(sql: &str) -> Option<Vec<Vec<Value>>> {
    let found = Command::new("python3").args(["-c", "import duckdb"]).output().unwrap();
    if !found.status.success() {
        skip("python3 has no module duckdb");
        return None;
    }
    let program = "import duckdb, json, sys\n\
        print(json.dumps(duckdb.sql(sys.argv[1]).fetchall(), default=str))";
    let output = Command::new("python3").args(["-c", program, sql]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Two hosts, one with fine buckets and one with log2 slots.
fn archive() -> (tempfile::TempDir, Vec<Record>) {
    let root = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for (host, seed, detail) in [("db-17", 1, Detail::Fine), ("db-18", 2, Detail::Log2)] {
        let (records, _) = generate(&Plan { detail, ..plan(host, seed, 150) });
        write_archive(&root.path().join(host), &records, 40);
        all.extend(records);
    }
    (root, all)
}

fn export(format: &str, directory: &Path) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
    let path = file.path().to_str().unwrap();
    let directory = directory.to_str().unwrap();
    assert_eq!(text(blkiolat(&["export", "-f", format, "-o", path, directory]), 0), "");
    file
}

#[test]
fn the_long_form_has_every_request_in_its_bucket() {
    let (root, records) = archive();
    let file = export("parquet", root.path());
    let table = file.path().display();
    // The truth: straight from the records.
    let mut expected: BTreeMap<(String, String, String, String, i64), u64> = BTreeMap::new();
    let mut windows = 0.0;
    for record in &records {
        for device in &record.latency_histogram {
            for (operation, stats) in device.ops.iter() {
                let kinds = [("fine", &stats.fine), ("log2", &stats.slots)];
                for (resolution, pairs) in kinds {
                    for &(index, count) in pairs.iter().flatten() {
                        let key = (
                            record.host.clone(),
                            device.device_name.clone(),
                            operation.to_owned(),
                            resolution.to_owned(),
                            i64::from(index),
                        );
                        *expected.entry(key).or_default() += count;
                        windows += record.timestamp - 1.79e9;
                    }
                }
            }
        }
    }
    let Some(rows) = duckdb(&format!(
        "SELECT host, device, operation, resolution, bucket, sum(count)::BIGINT, min(layer), \
         min(low_us), max(high_us) FROM '{table}' GROUP BY ALL"
    )) else {
        return;
    };
    assert_eq!(rows.len(), expected.len());
    for row in rows {
        let text = |at: usize| row[at].as_str().unwrap().to_owned();
        let bucket = row[4].as_i64().unwrap();
        let key = (text(0), text(1), text(2), text(3), bucket);
        assert_eq!(row[5], expected[&key], "{key:?}");
        assert_eq!(row[6], "request");
        let (low, high) = (row[7].as_f64().unwrap(), row[8].as_f64().unwrap());
        // As docs/record.md has it.
        let truth = match (row[3].as_str().unwrap(), bucket) {
            ("fine", ..16) => (bucket as f64 / 8.0, (bucket + 1) as f64 / 8.0),
            ("fine", _) => {
                let width = f64::from(1 << (bucket / 16 - 1)) / 8.0;
                let low = (16 + bucket % 16) as f64 * width;
                (low, low + width)
            }
            (_, 0) => (0.0, 2.0),
            _ => (f64::from(1 << bucket), f64::from(2 << bucket)),
        };
        assert_eq!((low, high), truth, "{key:?}");
    }
    let sums = duckdb(&format!(
        "SELECT count(DISTINCT (host, boot_id, seq)), min(time)::VARCHAR, max(time)::VARCHAR, \
         sum(epoch(time) - 1.79e9), min(window_s), max(window_s) FROM '{table}'"
    ));
    let row = &sums.unwrap()[0];
    assert_eq!(row[0], 300);
    assert!(row[1].as_str().unwrap().starts_with("2026-11-22 00:00:05"), "{row:?}");
    assert!(row[2].as_str().unwrap().starts_with("2026-11-22 00:12:30"), "{row:?}");
    let sum = row[3].as_f64().unwrap();
    assert!((sum - windows).abs() < 1e-6 * windows, "{sum} {windows}");
    assert_eq!((&row[4], &row[5]), (&5.0.into(), &5.0.into()));
}

#[test]
fn the_wide_form_has_the_rows_of_the_csv() {
    let (root, records) = archive();
    let file = export("parquet-wide", root.path());
    let table = file.path().display();
    let directory = root.path().to_str().unwrap();
    let csv = tempfile::NamedTempFile::new().unwrap();
    let path = csv.path().to_str().unwrap();
    let export = ["export", "-f", "csv-wide", "-o", path, directory];
    assert_eq!(text(blkiolat(&export), 0), "");
    let columns = "host, device, layer, operation, resolution, count, iops, bytes, mb_per_s, \
         mean_us, p50_us, p90_us, p99_us, p999_us, max_us, errors, requeues, inflight_mean, \
         inflight_max, oldest_us";
    let Some(different) = duckdb(&format!(
        "WITH a AS (SELECT time, {columns} FROM '{table}'), \
         b AS (SELECT time::TIMESTAMPTZ AS time, {columns} FROM read_csv('{path}')) \
         (FROM a EXCEPT ALL FROM b) UNION ALL (FROM b EXCEPT ALL FROM a)"
    )) else {
        return;
    };
    assert_eq!(different, Vec::<Vec<Value>>::new());
    // And independently of the program: totals by operation.
    let mut expected: BTreeMap<String, [f64; 4]> = BTreeMap::new();
    for device in records.iter().flat_map(|record| &record.latency_histogram) {
        for (operation, stats) in device.ops.iter() {
            let sums = expected.entry(operation.to_owned()).or_default();
            sums[0] += stats.total as f64;
            sums[1] += stats.bytes as f64;
            sums[2] += stats.errors as f64;
            sums[3] += stats.sum_us;
        }
    }
    let rows = duckdb(&format!(
        "SELECT operation, sum(count)::DOUBLE, sum(bytes)::DOUBLE, sum(errors)::DOUBLE, \
         sum(mean_us * count) FROM '{table}' WHERE operation <> 'all' GROUP BY operation"
    ));
    let rows = rows.unwrap();
    assert_eq!(rows.len(), expected.len());
    for row in rows {
        for (place, truth) in expected[row[0].as_str().unwrap()].into_iter().enumerate() {
            let value = row[place + 1].as_f64().unwrap();
            assert!((value - truth).abs() <= 1e-9 * truth, "{row:?}: {truth}");
        }
    }
}

/// Waits until the program has a file of `directory` open, which is then at work.
fn at_work(child: &mut Child, directory: &Path) {
    let descriptors = format!("/proc/{}/fd", child.id());
    let open = || {
        let links = fs::read_dir(&descriptors).unwrap().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).any(|to| to.starts_with(directory))
    };
    while !open() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        std::thread::yield_now();
    }
}

#[test]
fn an_interrupted_export_leaves_what_was_there() {
    for format in ["csv", "parquet", "parquet-wide", "openmetrics"] {
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("x");
        fs::write(&path, "before").unwrap();
        // Its input does not end.
        let mut child = command(&["export", "-f", format, "-o", path.to_str().unwrap(), "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        at_work(&mut child, out.path());
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let status = child.wait().unwrap();
        assert!(!status.success(), "{status}");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1, "{format}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    }
}

#[test]
fn a_full_disk_is_said() {
    let (root, _) = archive();
    let directory = root.path().to_str().unwrap();
    let output = command(&["export", "-f", "parquet", directory])
        .stdout(fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("cannot write the output"), "{errors}");
}
