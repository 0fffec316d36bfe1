//! `blkiolat diff`: two times, two hosts, two archives.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use support::*;

/// One slow disk in the second half hour, as in the plan of the support module.
fn archive() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (host, seed) in [("db-17", 1), ("db-18", 2)] {
        let mut plan = plan(host, seed, 720);
        plan.disks[1].slow = Some((360, 720));
        let (records, _) = generate(&plan);
        write_archive(&root.path().join(host), &records, 100);
    }
    root
}

#[test]
fn the_disk_that_became_slow_comes_first() {
    let root = archive();
    let directory = root.path().join("db-17");
    let arguments =
        ["diff", "..2026-11-22T00:30", "2026-11-22T00:30..", directory.to_str().unwrap()];
    golden("diff.txt", &text(blkiolat(&arguments), 0));
    let mut json = arguments.to_vec();
    json.extend(["-f", "json"]);
    let document: Value = serde_json::from_str(&text(blkiolat(&json), 0)).unwrap();
    let changes = document["changes"].as_array().unwrap();
    let by_name: BTreeMap<_, _> = changes
        .iter()
        .map(|change| {
            let name = |key: &str| change[key].as_str().unwrap().to_owned();
            ((name("device"), name("operation")), change)
        })
        .collect();
    // The generator makes it 16 times as slow, and nothing else.
    let slow = by_name[&("sda".into(), "read".into())]["factor"].as_f64().unwrap();
    assert!((14.0..18.0).contains(&slow), "{slow}");
    let same = by_name[&("nvme0n1".into(), "read".into())]["factor"].as_f64().unwrap();
    assert!((0.97..1.03).contains(&same), "{same}");
    assert_eq!(changes[0]["device"], "sda");
    let moved: Vec<_> = changes.iter().map(|change| change["moved"].as_f64().unwrap()).collect();
    assert!(moved.is_sorted_by(|a, b| a >= b), "{moved:?}");
    // Both sides are what `report` says of them.
    let report = text(
        blkiolat(&[
            "report",
            "-f",
            "json",
            "--until",
            "2026-11-22T00:30",
            directory.to_str().unwrap(),
        ]),
        0,
    );
    let report: Value = serde_json::from_str(&report).unwrap();
    for row in report["rows"].as_array().unwrap() {
        let name = |key: &str| row[key].as_str().unwrap().to_owned();
        assert_eq!(&by_name[&(name("device"), name("operation"))]["a"], row);
    }
}

#[test]
fn hosts_archives_and_fleets() {
    let root = archive();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let csv = |arguments: &[&str]| {
        let mut all = vec!["diff", "-f", "csv"];
        all.extend(arguments);
        text(blkiolat(&all), 0)
    };
    let directory = path("");
    let hosts = csv(&["host=db-17", "host=db-18", &directory]);
    assert_eq!(hosts, csv(&[&path("db-17"), &path("db-18")]));
    assert_eq!(
        hosts,
        csv(&[&format!("host=db-17,path={directory}"), &format!("host=*8,path={directory}")])
    );
    assert!(hosts.lines().nth(1).unwrap().starts_with("*,"));
    // The same hosts before and after are matched one by one, unless that is not wanted.
    let sides = ["since=00:00,until=2026-11-22T00:30", "2026-11-22T00:30.."];
    let sides = [sides[0].replace("00:00", "2026-11-22T00:00"), sides[1].to_owned()];
    let by_host = csv(&[&sides[0], &sides[1], &directory]);
    assert!(by_host.contains("\ndb-17,") && by_host.contains("\ndb-18,"));
    let fleet = csv(&["--merge-hosts", &sides[0], &sides[1], &directory]);
    assert_eq!(by_host.lines().count() - 1, 2 * (fleet.lines().count() - 1));
}

#[test]
fn what_is_on_one_side_only_comes_last() {
    let root = tempfile::tempdir().unwrap();
    let (a, _) = generate(&plan("h", 1, 20));
    let mut other = plan("h", 1, 20);
    other.disks[0].name = "nvme1n1".into();
    let (b, _) = generate(&other);
    for (name, records) in [("a.jsonl", &a), ("b.jsonl", &b)] {
        fs::write(root.path().join(name), lines(records)).unwrap();
    }
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let lines = text(blkiolat(&["diff", "-f", "jsonl", &path("a.jsonl"), &path("b.jsonl")]), 0);
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["factor"], Value::Null);
    assert_eq!(last["a"]["count"], 0);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&first["device"], &first["moved"]), (&"sda".into(), &0.0.into()));
}

#[test]
fn sides_that_make_no_sense() {
    for side in ["nonsense", "hosts=x", "x..now", "since=never"] {
        let output = blkiolat(&["diff", side, "today", "/tmp"]);
        assert_eq!(output.status.code(), Some(2), "{side}");
    }
}
