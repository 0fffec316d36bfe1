//! `blkiolat tail` and `blkiolat top`: their screens, how they follow the real writer, and how they
//! treat a real terminal.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod follow;
#[path = "../support/mod.rs"]
mod support;
mod tail;
mod terminal;
mod view;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use blkiolatd::record::{DeviceInflight, Record};

/// Long enough for any machine; nothing waits that long unless it is broken.
const AGES: Duration = Duration::from_secs(60);

/// Waits until something is so; fails the test with what was seen last if it never is.
fn until(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(seen) = look() {
        assert!(start.elapsed() < AGES, "{what}: it did not come to that\n{seen}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The first `count` windows of a host with a fast and a slow disk, with requests in flight.
fn records(count: u64) -> Vec<Record> {
    let mut records = support::generate(&support::plan("db-17", 7, count)).0;
    for record in &mut records {
        let inflight =
            |(place, device): (usize, &blkiolatd::record::DeviceLatency)| DeviceInflight {
                device_id: device.device_id,
                device_name: device.device_name.clone(),
                count: place as u64,
                mean: 0.25,
                max: 4 + place as u64,
                oldest_us: 84.5 * place as f64,
            };
        record.inflight = record.latency_histogram.iter().enumerate().map(inflight).collect();
    }
    records
}

/// The record as a line about bios.
fn bio_line(record: &Record) -> Vec<u8> {
    let text = String::from_utf8(support::lines(std::slice::from_ref(record))).unwrap();
    text.replacen("\"schema\":1", "\"schema\":1,\"layer\":\"bio\"", 1).into_bytes()
}

/// Appends to a file, which is made if it is not there.
fn append(path: &Path, bytes: &[u8]) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}
