//! A long run needs no more than a short one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::support::*;

/// Windows of the run that is part of every test run; 60 days at 5 s are a million.
const SHORT: u64 = 200_000;
/// What retention may keep, in bytes.
const LIMIT: u64 = 1 << 20;
/// The active file is set aside at this size, in bytes.
const SEGMENT: u64 = 128 << 10;
/// A file system counts whole pages, and its directory.
const PAGE: u64 = 4096;

const DIR: &str = "BLKIOLATD_TEST_SOAK_DIR";
const WINDOWS: &str = "BLKIOLATD_SOAK";

/// Of this process, in KiB: `VmRSS`, what is resident now, or `VmHWM`, the most that ever was.
fn memory_kib(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What a process holds while nothing is being compressed.
struct Held {
    kib: u64,
    descriptors: usize,
}

impl Held {
    /// Waits until every segment is an archive, and its descriptors are closed.
    fn when_idle(dir: &Path, most_descriptors: usize) -> Self {
        until("compression catches up", || {
            let unfinished = |name: &String| name.starts_with("b-") && !name.ends_with(".gz");
            !names(dir).iter().any(unfinished)
        });
        until("its files are closed", || descriptors() <= most_descriptors);
        Self { kib: memory_kib("VmRSS"), descriptors: descriptors() }
    }
}

/// Not a test of its own: the process whose memory and descriptors nobody else uses.
#[test]
#[ignore = "run by a_long_run_needs_no_more_than_a_short_one"]
fn runs_long() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let total: u64 = std::env::var(WINDOWS).unwrap().parse().unwrap();
    let mut settings = settings(dir);
    settings.output.flush_every = 12;
    settings.rotation.max_size = SEGMENT;
    settings.retention.max_total_size = LIMIT;
    let writer = spawn(&settings);
    let (warm, mut first) = (total / 5, None);
    for seq in 0..total {
        writer.push(record(seq));
        if seq % 600 == 599 {
            writer.flush(AGES).unwrap();
            if seq > warm && first.is_none() {
                first = Some((Held::when_idle(dir, usize::MAX), memory_kib("VmHWM")));
            }
        }
    }
    let (first, peak_then) = first.unwrap();
    writer.flush(AGES).unwrap();
    let last = Held::when_idle(dir, first.descriptors);
    let peak = memory_kib("VmHWM");
    assert_eq!(writer.status().dropped, 0);
    writer.close(AGES).unwrap();
    println!(
        "\nresident: {} KiB after a fifth, {} KiB at the end; at most {peak_then} KiB until then, {peak} KiB in all",
        first.kib, last.kib
    );
    assert!(last.kib <= first.kib + 512, "memory grew from {} to {} KiB", first.kib, last.kib);
    assert!(peak <= peak_then + 1024, "its peak grew from {peak_then} to {peak} KiB");
}

/// `BLKIOLATD_SOAK` windows (`make soak`: a million), with rotation, compression and retention. The
/// witness of the space is the file system, which is asked thousands of times a second.
#[test]
fn a_long_run_needs_no_more_than_a_short_one() {
    if !is_root("a_long_run_needs_no_more_than_a_short_one") {
        return;
    }
    let total: u64 = std::env::var(WINDOWS).map_or(SHORT, |n| n.parse().unwrap());
    let mount = Mount::tmpfs("64m");
    let dir = mount.point.join("log");
    fs::create_dir(&dir).unwrap();
    let used = || {
        let stat = rustix::fs::statvfs(&mount.point).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    };
    let ended = AtomicBool::new(false);
    let (output, (most, samples, files)) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let (mut most, mut samples, mut files) = (0, 0u64, 0);
            while !ended.load(Ordering::Relaxed) {
                most = most.max(used());
                samples += 1;
                if samples % 100 == 0 {
                    files = files.max(names(&dir).len() as u64);
                }
                // The other processor is not ours alone.
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            (most, samples, files)
        });
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["soak::runs_long", "--exact", "--ignored", "--nocapture"])
            .env(DIR, &dir)
            .env(WINDOWS, total.to_string())
            .output();
        ended.store(true, Ordering::Relaxed);
        (output.unwrap(), sampler.join().unwrap())
    });
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    let resident = said.lines().find(|line| line.starts_with("resident")).unwrap();
    println!("{total} windows; at most {most} bytes in {files} files, {samples} looks; {resident}");
    assert!(samples > 1000, "{samples} looks are too few");
    // Between two counts of the files a few can come.
    assert!(most <= LIMIT + (files + 8) * PAGE, "{most} bytes in {files} files");

    let found = records(&dir);
    assert!(found.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "the newest, no gap");
    assert_eq!(found.last().unwrap().seq, total - 1);
    // Retention was at work, and did not remove more than it had to. Segments that are not compressed yet count whole, and
    // the reserve for compressing one is half of it: what is kept would, unpacked, still nearly fill the limit.
    let kept = found.iter().map(|record| {
        let mut line = Vec::new();
        record.write_line(&mut line);
        line.len() as u64
    });
    let kept: u64 = kept.sum();
    assert!(found[0].seq > 0, "nothing was removed");
    assert!(kept > LIMIT - 3 * SEGMENT, "{kept} bytes from record {}", found[0].seq);
}
