//! `blkiolat report` against independent computations from the same archives.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use blkiolatd::config::Detail;
use blkiolatd::record::Operations;
use serde_json::Value;
use support::*;

fn rows(text: &str) -> BTreeMap<(String, String, String), Value> {
    let document: Value = serde_json::from_str(text).unwrap();
    let key = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = document["rows"].as_array().unwrap().iter();
    rows.map(|row| ((key(row, "host"), key(row, "device"), key(row, "operation")), row.clone()))
        .collect()
}

#[test]
fn agrees_with_an_independent_computation() {
    let root = tempfile::tempdir().unwrap();
    let mut plain = Vec::new();
    for (host, seed) in [("db-17", 1), ("db-18", 2), ("web-1", 3)] {
        let (records, _) = generate(&plan(host, seed, 240));
        write_archive(&root.path().join("hosts").join(host), &records, 50);
        let path = root.path().join(format!("{host}.jsonl"));
        fs::write(&path, lines(&records)).unwrap();
        plain.push(path);
    }
    let truth = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/report_truth.py"))
        .args(&plain)
        .output()
        .unwrap();
    assert!(truth.status.success(), "{}", String::from_utf8_lossy(&truth.stderr));
    let hosts = root.path().join("hosts");
    let report = text(blkiolat(&["report", "--format", "json", hosts.to_str().unwrap()]), 0);
    let rows = rows(&report);
    let truth = String::from_utf8(truth.stdout).unwrap();
    let mut compared = 0;
    for line in truth.lines() {
        let expected: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| expected[name].as_str().unwrap().to_owned();
        let row = &rows[&(text("host"), text("device"), text("operation"))];
        for (key, value) in expected.as_object().unwrap() {
            let (Some(value), Some(actual)) = (value.as_f64(), row[key].as_f64()) else {
                assert_eq!(value, &row[key], "{key}");
                continue;
            };
            assert!(
                (value - actual).abs() <= 1e-9 * value.abs(),
                "{key}: expected {value}, reported {actual} in {line}"
            );
            compared += 1;
        }
    }
    assert_eq!(truth.lines().count(), rows.len());
    assert!(compared > 300, "{compared}");
}

#[test]
fn percentiles_are_those_of_all_latencies_within_the_bound() {
    let root = tempfile::tempdir().unwrap();
    for (detail, low, high) in [(Detail::Fine, 31.0 / 32.0, 33.0 / 32.0), (Detail::Log2, 0.75, 1.5)]
    {
        let plan = blkiolatd::report::synthetic::Plan { detail, ..plan("h", 7, 120) };
        let (records, requests) = generate(&plan);
        let path = root.path().join("x.jsonl");
        fs::write(&path, lines(&records)).unwrap();
        let report = text(blkiolat(&["report", "-f", "json", path.to_str().unwrap()]), 0);
        let rows = rows(&report);
        for (place, disk) in plan.disks.iter().enumerate() {
            for operation in 0..4 {
                let mut latencies: Vec<_> = requests
                    .iter()
                    .filter(|request| request.disk == place && request.operation == operation)
                    .map(|request| request.ns)
                    .collect();
                latencies.sort_unstable();
                let name = Operations::NAMES[operation];
                let row = &rows[&("h".into(), disk.name.clone(), name.into())];
                assert_eq!(row["count"], latencies.len());
                assert_eq!(row["max_us"], *latencies.last().unwrap() as f64 / 1e3);
                let sum: u64 = latencies.iter().sum();
                assert_eq!(row["mean_us"], sum as f64 / latencies.len() as f64 / 1e3);
                for (key, share) in
                    [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999)]
                {
                    let rank = (share * latencies.len() as f64).ceil() as usize;
                    let truth = latencies[rank - 1] as f64 / 1e3;
                    let reported = row[key].as_f64().unwrap();
                    assert!(
                        (truth * low..=truth * high).contains(&reported),
                        "{detail:?} {name} {key}: {reported}, true {truth}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_way_to_name_the_same_windows_reports_the_same() {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("db-17", 1, 200));
    let archive = root.path().join("archive");
    let paths = write_archive(&archive, &records, 30);
    let whole = root.path().join("whole.jsonl");
    fs::write(&whole, lines(&records)).unwrap();
    let archive = archive.to_str().unwrap();
    let report = |arguments: &[&str]| {
        let mut all = vec!["report", "--format", "json"];
        all.extend(arguments);
        String::from_utf8(blkiolat(&all).stdout).unwrap()
    };
    let expected = report(&[archive]);
    assert!(rows(&expected).len() >= 8);
    let paths: Vec<_> = paths.iter().rev().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(report(&paths), expected, "files in reverse");
    assert_eq!(report(&["--threads", "1", archive]), expected, "one thread");
    assert_eq!(report(&["--threads", "8", archive]), expected, "eight threads");
    assert_eq!(report(&[whole.to_str().unwrap()]), expected, "one file");
    assert_eq!(report(&[whole.to_str().unwrap(), archive]), expected, "everything twice");
    let stdin = command(&["report", "--format", "json", "-"])
        .stdin(fs::File::open(&whole).unwrap())
        .output()
        .unwrap();
    assert_eq!(text(stdin, 0), expected, "standard input");
    let compressed = root.path().join("all.gz");
    let (one, two) = records.split_at(77);
    fs::write(&compressed, [gzip(&lines(one)), gzip(&lines(two))].concat()).unwrap();
    assert_eq!(report(&[compressed.to_str().unwrap()]), expected, "two members");
}

#[test]
fn a_segment_beside_its_archive_counts_once() {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("db-17", 1, 60));
    write_archive(root.path(), &records, 20);
    let directory = root.path().to_str().unwrap();
    let expected = text(blkiolat(&["report", "-f", "json", directory]), 0);
    let segment = lines(&records[20..40]);
    let name = segment_name(&records[20]);
    // As after a crash between the archive's rename and the segment's removal ...
    fs::write(root.path().join(format!("{name}.gz")), gzip(&segment)).unwrap();
    assert_eq!(text(blkiolat(&["report", "-f", "json", directory]), 0), expected);
    // ... and as somebody's copy under another name.
    fs::write(root.path().join("copy.jsonl"), segment).unwrap();
    let output = blkiolat(&["report", "-f", "json", directory]);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "blkiolat: 20 windows were there more than once and are counted once\n"
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn ranges_add_up_and_leave_files_closed() {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("db-17", 1, 720));
    let paths = write_archive(root.path(), &records, 120);
    let directory = root.path().to_str().unwrap();
    let count = |arguments: &[&str]| {
        let mut all = vec!["report", "-f", "json", directory];
        all.extend(arguments);
        let rows = rows(&text(blkiolat(&all), 0));
        rows.values()
            .filter(|row| row["operation"] == "all")
            .fold(0, |sum, row| sum + row["count"].as_u64().unwrap())
    };
    let cut = "2026-11-22T00:20:00Z";
    let (before, after) = (count(&["--until", cut]), count(&["--since", cut]));
    assert!(before > 0 && after > 0);
    assert_eq!(before + after, count(&[]));
    // The window from 00:19:55 to 00:20:00 belongs to what is before.
    let expected: u64 = records[..240]
        .iter()
        .flat_map(|record| &record.latency_histogram)
        .map(|device| device.total)
        .sum();
    assert_eq!(before, expected);
    // Files of another time are not even opened: damage in them goes unnoticed.
    fs::write(&paths[0], "damage\n").unwrap();
    assert_eq!(count(&["--since", cut]), after);
    let output = blkiolat(&["report", directory]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn rows_over_time_add_up() {
    let root = tempfile::tempdir().unwrap();
    let (records, requests) = generate(&plan("db-17", 1, 720));
    write_archive(root.path(), &records, 100);
    let directory = root.path().to_str().unwrap();
    let csv = text(blkiolat(&["report", "-f", "csv", "--by", "10m", "--op", "read", directory]), 0);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<BTreeMap<String, String>> =
        reader.deserialize().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), 12);
    let times: Vec<_> = rows[..6].iter().map(|row| row["time"].as_str()).collect();
    assert_eq!(times[0], "2026-11-22T00:00:00+00:00");
    assert_eq!(times[5], "2026-11-22T00:50:00+00:00");
    let count: usize = rows.iter().map(|row| row["count"].parse::<usize>().unwrap()).sum();
    assert_eq!(count, requests.iter().filter(|request| request.operation == 0).count());
    let worst = text(
        blkiolat(&[
            "report", "-f", "jsonl", "--by", "10m", "--top", "1", "--op", "read", directory,
        ]),
        0,
    );
    let worst: Value = serde_json::from_str(worst.lines().last().unwrap()).unwrap();
    assert_eq!((&worst["device"], &worst["type"]), (&"sda".into(), &"row".into()));
    assert_eq!(worst["time"], "2026-11-22T00:30:00+00:00");
}

#[test]
fn gaps_are_stated_first() {
    let root = tempfile::tempdir().unwrap();
    let (mut records, _) = generate(&plan("db-17", 1, 240));
    records.drain(100..112);
    records[100].audit.dropped_snapshots = 12;
    records[3].audit.untracked_completions = 2;
    // The daemon starts again, and one disk has a request that does not come back.
    let mut later = plan("db-17", 1, 60);
    later.start_us += 3_600_000_000;
    let (mut restarted, _) = generate(&later);
    for record in &mut restarted {
        record.inflight.push(blkiolatd::record::DeviceInflight {
            device_id: 7,
            device_name: "sd\u{1b}[2Jb".into(),
            count: 1,
            mean: 1.0,
            max: 1,
            oldest_us: 9e6,
        });
    }
    records.extend(restarted);
    write_archive(root.path(), &records, 100);
    let directory = root.path().to_str().unwrap();
    golden("report.txt", &text(blkiolat(&["report", directory]), 0));
    let top = ["report", "--top", "3", "--by", "1m", directory];
    golden("report_top.txt", &text(blkiolat(&top), 0));
    golden("report.csv", &text(blkiolat(&["report", "-f", "csv", "--top", "2", directory]), 0));
    let json = text(blkiolat(&["report", "-f", "json", directory]), 0);
    let host = &serde_json::from_str::<Value>(&json).unwrap()["hosts"][0];
    assert_eq!(host["missing_windows"], 12);
    assert_eq!(host["runs"], 2);
    assert_eq!(host["audit"]["dropped_snapshots"], 12);
    assert_eq!(host["gaps"][0]["after"], "2026-11-22T00:08:20+00:00");
}

#[test]
fn filters() {
    let root = tempfile::tempdir().unwrap();
    for (host, seed) in [("db-17", 1), ("db-18", 2), ("web-1", 3)] {
        let (records, _) = generate(&plan(host, seed, 20));
        write_archive(&root.path().join(host), &records, 50);
    }
    let directory = root.path().to_str().unwrap();
    let keys = |arguments: &[&str]| {
        let mut all = vec!["report", "-f", "json", directory];
        all.extend(arguments);
        rows(&text(blkiolat(&all), 0)).into_keys().collect::<Vec<_>>()
    };
    let key = |host: &str, device: &str, op: &str| (host.into(), device.into(), op.into());
    assert_eq!(
        keys(&["--host", "db-*", "--device", "nvme*", "--op", "read"]),
        [key("db-17", "nvme0n1", "read"), key("db-18", "nvme0n1", "read")]
    );
    assert_eq!(
        keys(&["--host", "web-1", "--op", "all"]),
        [key("web-1", "nvme0n1", "all"), key("web-1", "sda", "all")]
    );
}

#[test]
fn what_matches_nothing_is_said() {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("db-17", 1, 20));
    write_archive(root.path(), &records, 20);
    let directory = root.path().to_str().unwrap();
    let parquet = root.path().join("out.parquet");
    let nothing = |command: &[&str], filter: &str| {
        let arguments = [command, &[filter, directory]].concat();
        let output = blkiolat(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        let expected = "blkiolat: no request of the devices and operations asked for\n";
        assert_eq!(errors, expected, "{arguments:?}");
    };
    for filter in ["--device=nosuch", "--op=other"] {
        for command in ["report", "histogram", "heatmap"] {
            nothing(&[command], filter);
        }
        nothing(&["diff", directory, directory], filter);
        nothing(&["export", "-f", "csv"], filter);
        nothing(&["export", "-f", "parquet", "-o", parquet.to_str().unwrap()], filter);
        assert!(!parquet.exists());
    }
    // With any operation a device has figures of its own, which this form has, too.
    nothing(&["export", "-f", "openmetrics"], "--device=nosuch");
}
