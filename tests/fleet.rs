//! Every statement of `docs/fleet.md` on every engine, against `blkiolat report` and against numpy.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use blkiolatd::report::synthetic::fleet::Fleet;
use serde_json::Value;
use support::*;

/// By query, its rows.
type Answers = BTreeMap<String, Vec<Vec<Value>>>;

/// What an engine says, by what it was asked about: `jsonl` or `parquet`.
fn answers(engine: &str, archives: &Path, parquet: &Path) -> BTreeMap<String, Answers> {
    let output = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/fleet.py"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleet.md"))
        .arg(engine)
        .args([archives, parquet])
        .output()
        .unwrap();
    assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether the engine is there; where it must be, that it is not is a failure.
fn has(module: &str, program: Option<&str>) -> bool {
    let import =
        Command::new("python3").args(["-c", &format!("import {module}")]).output().unwrap();
    if !import.status.success() {
        skip(&format!("python3 has no module {module}"));
        return false;
    }
    if let Some(program) = program
        && Command::new(program).arg("-version").output().is_err()
    {
        skip(&format!("{program} is missing"));
        return false;
    }
    true
}

/// Equal texts and whole numbers; numbers with a fraction within rounding.
fn assert_same(what: &str, actual: &Answers, expected: &Answers) {
    let names: Vec<_> = actual.keys().collect();
    assert_eq!(names, ["fleet", "percentile", "worst"], "{what}");
    for (name, rows) in expected {
        assert_eq!(actual[name].len(), rows.len(), "{what}: {name}");
        for (actual, expected) in actual[name].iter().zip(rows) {
            assert_eq!(actual.len(), expected.len(), "{what}: {name}");
            for (a, b) in actual.iter().zip(expected) {
                match (a.as_f64(), b.as_f64()) {
                    (Some(x), Some(y)) => {
                        assert!(
                            (x - y).abs() <= 1e-9 * y,
                            "{what}: {name}: {actual:?} {expected:?}"
                        );
                    }
                    _ => assert_eq!(a, b, "{what}: {name}: {actual:?} {expected:?}"),
                }
            }
        }
    }
}

#[test]
fn recipes_give_the_same_on_every_engine() {
    if !has("numpy", None) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let fleet = Fleet { hosts: 20, days: 1, disks: 2, window_s: 600, requests: 60, seed: 7 };
    let archives = root.path().join("archives");
    fleet.write(&archives).unwrap();
    let parquet = root.path().join("fleet.parquet");
    let directory = archives.to_str().unwrap();
    let export = ["export", "-f", "parquet", "-o", parquet.to_str().unwrap(), directory];
    assert_eq!(text(blkiolat(&export), 0), "");

    // The program against numpy. It knows the maximum and never says more than that.
    let truth = answers("numpy", &archives, &parquet).remove("jsonl").unwrap();
    let json = text(blkiolat(&["report", "-f", "json", directory]), 0);
    let report: Value = serde_json::from_str(&json).unwrap();
    let rows: BTreeMap<_, _> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                (
                    row["host"].clone().to_string(),
                    row["device"].to_string(),
                    row["operation"].to_string(),
                ),
                row,
            )
        })
        .collect();
    assert!(truth["percentile"].len() > 20 * 2 * 3);
    assert_eq!(truth["worst"].len(), 10);
    for expected in &truth["percentile"] {
        let key = (expected[0].to_string(), expected[1].to_string(), expected[3].to_string());
        let row = rows[&key];
        assert_eq!(row["count"], expected[4]);
        let max = row["max_us"].as_f64().unwrap();
        for (name, place) in [("p50_us", 5), ("p99_us", 6), ("p999_us", 7)] {
            let (said, true_us) = (row[name].as_f64().unwrap(), expected[place].as_f64().unwrap());
            assert_eq!(said, true_us.min(max), "{name} of {key:?}");
        }
    }

    for (engine, module, program) in [
        ("duckdb", "duckdb", None),
        ("clickhouse", "chdb", None),
        ("spark", "pyspark", Some("java")),
    ] {
        if !has(module, program) {
            continue;
        }
        let answers = answers(engine, &archives, &parquet);
        for source in ["jsonl", "parquet"] {
            assert_same(&format!("{engine} from {source}"), &answers[source], &truth);
        }
    }
}

/// A disk of one host in 16 ails, and the recipe for the worst devices finds it first.
#[test]
fn the_same_seed_makes_the_same_fleet() {
    let root = tempfile::tempdir().unwrap();
    let fleet = Fleet { hosts: 4, days: 2, disks: 1, window_s: 900, requests: 80, seed: 3 };
    let report = |name: &str, fleet: &Fleet| {
        let path = root.path().join(name);
        fleet.write(&path).unwrap();
        text(blkiolat(&["report", "-f", "json", path.to_str().unwrap()]), 0)
    };
    let first = report("a", &fleet);
    assert_eq!(first, report("b", &fleet));
    assert_ne!(first, report("c", &Fleet { seed: 4, ..fleet.clone() }));
    let path = root.path().join("a");
    let worst = ["report", "-f", "csv", "--op", "read", "--top", "1", path.to_str().unwrap()];
    let worst = text(blkiolat(&worst), 0);
    assert!(
        worst.lines().nth(1).unwrap().starts_with(",host-00003,nvme0n1,request,read,"),
        "{worst}"
    );
    let document: Value = serde_json::from_str(&first).unwrap();
    let missing = |host: usize| document["hosts"][host]["missing_windows"].as_u64().unwrap();
    assert_eq!((missing(0), missing(1)), (0, 8));
}
