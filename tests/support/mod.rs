//! Made-up archives and runs of `blkiolat` for the tests of the reader.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure
#![allow(dead_code, reason = "each test uses a part")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use blkiolatd::config::Detail;
use blkiolatd::record::Record;
use blkiolatd::report::synthetic::{Disk, Plan, Request, windows};
use flate2::Compression;
use flate2::write::GzEncoder;

/// 2026-11-22T00:00:00Z.
pub const START_US: i64 = 1_795_305_600_000_000;

/// A host with a fast and a slow disk; the slow one has a bad time in the middle.
pub fn plan(host: &str, seed: u64, windows: u64) -> Plan {
    let disk = |name: &str, id, median_ns, requests, slow| Disk {
        name: name.into(),
        id,
        median_ns,
        requests,
        slow,
    };
    Plan {
        seed,
        host: host.into(),
        start_us: START_US,
        window_us: 5_000_000,
        windows,
        detail: Detail::Fine,
        disks: vec![
            disk("nvme0n1", 259 << 20, 80_000, 400, None),
            disk("sda", 8 << 20, 4_000_000, 60, Some((windows / 2, windows * 5 / 8))),
        ],
    }
}

/// Everything that the plan gives.
pub fn generate(plan: &Plan) -> (Vec<Record>, Vec<Request>) {
    let (records, requests): (Vec<_>, Vec<_>) = windows(plan).unzip();
    (records, requests.concat())
}

/// The records as lines.
pub fn lines(records: &[Record]) -> Vec<u8> {
    let mut lines = Vec::new();
    for record in records {
        record.write_line(&mut lines);
    }
    lines
}

/// `bytes` as one gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Name of the segment that begins with `record`.
pub fn segment_name(record: &Record) -> String {
    let time = jiff::Timestamp::from_millisecond((record.timestamp * 1e3).floor() as i64).unwrap();
    let time = jiff::tz::TimeZone::UTC.to_datetime(time);
    format!("blkiolat-{}.jsonl", time.strftime("%Y%m%dT%H%M%S%.3fZ"))
}

/// Writes the records as a daemon would have: archives, one segment, the active file.
pub fn write_archive(directory: &Path, records: &[Record], per_file: usize) -> Vec<PathBuf> {
    fs::create_dir_all(directory).unwrap();
    let chunks: Vec<_> = records.chunks(per_file).collect();
    let mut paths = Vec::new();
    for (place, chunk) in chunks.iter().enumerate() {
        let name = segment_name(&chunk[0]);
        let (name, bytes) = match chunks.len() - place {
            1 => ("blkiolat.jsonl".to_owned(), lines(chunk)),
            2 => (name, lines(chunk)),
            _ => (format!("{name}.gz"), gzip(&lines(chunk))),
        };
        paths.push(directory.join(name));
        fs::write(&paths[place], bytes).unwrap();
    }
    paths
}

/// Runs `blkiolat`, in UTC and English, with colours off.
pub fn blkiolat(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// The command that [`blkiolat`] runs.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blkiolat"));
    command.args(arguments).env("TZ", "UTC").env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1");
    command
}

/// Standard output as text, once the run has ended with `code` and (for 0) said nothing else.
pub fn text(output: Output, code: i32) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    if code == 0 {
        assert_eq!(errors, "");
    }
    String::from_utf8(output.stdout).unwrap()
}

/// Compares with `tests/golden/NAME`; with `BLESS=1` in the environment, writes it.
pub fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == expected,
        "{name} differs (BLESS=1 accepts it)\n--- expected\n{expected}\n--- actual\n{actual}"
    );
}

/// Says why a test cannot run here; fails where CI is set, which may not skip.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI may not skip: {reason}");
    eprintln!("skipped: {reason}");
}
