//! `blkiolat histogram`: the picture of the daemon's terminal, for any range.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::fs;

use blkiolatd::histogram;
use support::*;

fn archive() -> (tempfile::TempDir, Vec<blkiolatd::report::synthetic::Request>) {
    let root = tempfile::tempdir().unwrap();
    let (records, requests) = generate(&plan("db-17", 1, 120));
    write_archive(root.path(), &records, 50);
    (root, requests)
}

/// The counts of a block of the output, by its first line.
fn counts(text: &str, heading: &str) -> Vec<u64> {
    let mut lines = text.lines().skip_while(|line| *line != heading).skip(2);
    let mut counts = Vec::new();
    while let Some(line) = lines.next().filter(|line| line.contains(" : ")) {
        counts.push(
            line.split(" : ").nth(1).unwrap().split('|').next().unwrap().trim().parse().unwrap(),
        );
    }
    counts
}

#[test]
fn by_device_and_by_operation() {
    let (root, requests) = archive();
    let directory = root.path().to_str().unwrap();
    let whole = text(blkiolat(&["histogram", directory]), 0);
    golden("histogram.txt", &whole);
    let by_op = text(blkiolat(&["histogram", "--by-op", directory]), 0);
    let truth = |wanted: &dyn Fn(usize, usize) -> bool| {
        let mut slots = vec![0u64; histogram::SLOTS];
        for request in requests.iter().filter(|r| wanted(r.disk, r.operation)) {
            slots[histogram::slot_of_us(request.ns / 1000)] += 1;
        }
        slots.truncate(slots.iter().rposition(|&count| count > 0).unwrap() + 1);
        slots
    };
    assert_eq!(counts(&whole, "disk = nvme0n1"), truth(&|disk, _| disk == 0));
    assert_eq!(counts(&whole, "disk = sda"), truth(&|disk, _| disk == 1));
    let write = "disk = sda, operation = write";
    assert_eq!(counts(&by_op, write), truth(&|disk, op| (disk, op) == (1, 1)));
    let some = text(blkiolat(&["histogram", "--op", "read,write", directory]), 0);
    assert_eq!(counts(&some, "disk = sda"), truth(&|disk, op| disk == 1 && op < 2));
    let one = text(blkiolat(&["histogram", "--op", "write", "--device", "sda", directory]), 0);
    assert_eq!(counts(&one, write), truth(&|disk, op| (disk, op) == (1, 1)));
    assert!(!one.contains("nvme0n1"));
}

#[test]
fn in_spanish() {
    let (root, _) = archive();
    let output = command(&["histogram", root.path().to_str().unwrap()])
        .env("LC_ALL", "es_ES.UTF-8")
        .output()
        .unwrap();
    let spanish = text(output, 0);
    assert!(spanish.contains("Latencia I/O por dispositivo:"));
    assert!(spanish.contains("microsegundos"));
}

#[test]
fn in_every_bucket() {
    let (root, requests) = archive();
    let directory = root.path().to_str().unwrap();
    let arguments = ["histogram", "--fine", "--device", "sda", "--op", "flush", directory];
    let fine = text(blkiolat(&arguments), 0);
    golden("histogram_fine.txt", &fine);
    let mut total = 0;
    for line in fine.lines().filter(|line| line.contains('|')) {
        total += line
            .split(" : ")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse::<usize>()
            .unwrap();
    }
    assert_eq!(total, requests.iter().filter(|r| (r.disk, r.operation) == (1, 2)).count());
}

#[test]
fn names_cannot_control_the_terminal() {
    let root = tempfile::tempdir().unwrap();
    let mut plan = plan("h\u{1b}[2J", 1, 5);
    plan.disks[0].name = "d\u{1b}]0;x\u{7}".into();
    let (records, _) = generate(&plan);
    fs::write(root.path().join("x.jsonl"), lines(&records)).unwrap();
    let output = text(blkiolat(&["histogram", root.path().to_str().unwrap()]), 0);
    assert!(!output.contains('\u{1b}') && output.contains("disk = d\\u{1b}]0;x\\u{7}"));
}
