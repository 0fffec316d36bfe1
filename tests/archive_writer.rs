//! The writer as a whole: its threads, real full and stuck disks, and processes that are killed.

// The lint's exception for tests does not see that helpers here are only used by tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use blkiolatd::archive::writer::State;
use blkiolatd::archive::{OpenError, Settings, Start, Writer, WriterHandle};
use blkiolatd::config::FreeSpace;
use blkiolatd::record::{Record, SCHEMA_VERSION};

/// Long enough for any machine; nothing waits that long unless it is broken.
const AGES: Duration = Duration::from_secs(60);

fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.output.path = dir.join("b.jsonl");
    settings.output.flush_every = 1;
    settings.rotation.gzip_level = 1;
    settings.retention.min_free_space = FreeSpace::Bytes(0);
    settings
}

fn record(seq: u64) -> Record {
    Record {
        seq,
        timestamp: 1_795_362_300.0 + seq as f64 / 100.0,
        schema: SCHEMA_VERSION,
        host: "test".into(),
        ..Record::default()
    }
}

/// Waits until something is so; fails the test if it never is.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < AGES, "{what}: it did not come to that");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// All records of the archives, the segments without archive and the active file, in that order
/// of their names. Panics on a line that is not a whole record.
fn records(dir: &Path) -> Vec<Record> {
    let names = names(dir);
    let mut paths: Vec<PathBuf> = names
        .iter()
        .filter(|name| name.starts_with("b-"))
        .filter(|name| name.ends_with(".gz") || name.ends_with(".jsonl"))
        .filter(|name| !names.contains(&format!("{name}.gz")))
        .map(|name| dir.join(name))
        .collect();
    paths.push(dir.join("b.jsonl"));
    paths.iter().filter(|path| path.exists()).flat_map(|path| read(path)).collect()
}

fn read(path: &Path) -> Vec<Record> {
    let bytes = fs::read(path).unwrap();
    let mut text = String::new();
    if path.extension().unwrap() == "gz" {
        flate2::bufread::GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    assert!(text.is_empty() || text.ends_with('\n'), "{path:?} ends in a torn line");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{path:?}: {e}: {line}")))
        .collect()
}

/// Every record is there or counted as dropped by the one after it.
fn assert_gaps_are_counted(records: &[Record], total: u64) {
    let mut next = 0;
    for record in records {
        assert_eq!(record.seq, next + record.audit.dropped_snapshots, "the gap is counted");
        next = record.seq + 1;
    }
    assert_eq!(next, total);
}

/// A writer. Another test may be starting a process right now, which for a moment holds copies of
/// all our files, locks released since included: then this waits for that.
fn spawn(settings: &Settings) -> WriterHandle {
    let start = Instant::now();
    loop {
        match Writer::spawn(settings.clone(), Start::Strict) {
            Ok(writer) => return writer,
            Err(OpenError::Locked { .. }) if start.elapsed() < AGES => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_is_pushed_is_written_and_the_rest_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.output.flush_every = 7;
    let writer = spawn(&settings);
    (0..100).for_each(|seq| writer.push(record(seq)));
    writer.flush(AGES).unwrap();
    assert_eq!(writer.status().records, 100);
    assert_eq!(writer.status().state, State::Recording);
    (100..103).for_each(|seq| writer.push(record(seq)));
    writer.close(AGES).unwrap();
    let records = records(dir.path());
    assert_gaps_are_counted(&records, 103);
    assert!(records.iter().all(|record| record.audit.dropped_snapshots == 0));
    assert_eq!(names(dir.path()), ["b.jsonl"]);
}

#[test]
fn segments_are_compressed_behind_the_scenes() {
    let dir = tempfile::tempdir().unwrap();
    let writer = spawn(&settings(dir.path()));
    for round in 0..5 {
        (0..10).for_each(|seq| writer.push(record(round * 10 + seq)));
        writer.rotate_now();
    }
    writer.flush(AGES).unwrap();
    until("five archives", || {
        let names = names(dir.path());
        names.iter().filter(|name| name.ends_with(".gz")).count() == 5 && names.len() == 7
    });
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(dir.path()), 50);
    for name in names(dir.path()).iter().filter(|name| name.ends_with(".gz")) {
        let status = Command::new("gzip").arg("-t").arg(dir.path().join(name)).status().unwrap();
        assert!(status.success(), "{name}");
    }
}

#[test]
fn a_strict_start_reports_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let good = settings(dir.path());
    let writer = spawn(&good);
    for start in [Start::Strict, Start::Patient] {
        let error = Writer::spawn(good.clone(), start).unwrap_err();
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    }
    writer.close(AGES).unwrap();
    spawn(&good).close(AGES).unwrap();
    let error = Writer::spawn(settings(&dir.path().join("none")), Start::Strict).unwrap_err();
    assert!(error.may_pass() && error.to_string().contains("make the directory"), "{error}");
}

#[test]
fn the_queue_overflows_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let writer = Writer::spawn(settings(&home), Start::Patient).unwrap();
    (0..1000).for_each(|seq| writer.push(record(seq)));
    let status = writer.status();
    assert_eq!(status.state, State::Waiting);
    assert_eq!(status.dropped, 280, "720 wait, as nothing is taken out while recording fails");
    let error = status.last_error.unwrap();
    assert!(!error.over && error.message.contains("make the directory"), "{error:?}");
    assert!(writer.status().healthy(Instant::now() + AGES, Duration::ZERO));
    fs::create_dir(&home).unwrap();
    until("it records", || writer.status().records == 720);
    assert!(writer.status().last_error.unwrap().over);
    writer.push(record(1000));
    writer.close(AGES).unwrap();
    let records = records(&home);
    assert_eq!((records[0].seq, records[0].audit.dropped_snapshots), (280, 280));
    assert_gaps_are_counted(&records, 1001);
}

#[test]
fn what_is_lost_at_the_end_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::spawn(settings(&dir.path().join("none")), Start::Patient).unwrap();
    (0..5).for_each(|seq| writer.push(record(seq)));
    let error = writer.close(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.lost, 5);
    assert!(error.reason.contains("No such file"), "{error}");
}

#[test]
fn settings_take_effect_between_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.output.flush_every = 100;
    let writer = spawn(&settings);
    (0..5).for_each(|seq| writer.push(record(seq)));
    settings.output.path = dir.path().join("c.jsonl");
    let answer = writer.reconfigure(settings.clone());
    (5..8).for_each(|seq| writer.push(record(seq)));
    answer.blocking_recv().unwrap().unwrap();
    settings.output.path = dir.path().join("none/d.jsonl");
    let refused = writer.reconfigure(settings.clone());
    (8..9).for_each(|seq| writer.push(record(seq)));
    assert!(refused.blocking_recv().unwrap().is_err());
    writer.close(AGES).unwrap();
    let sequence = |name| -> Vec<u64> {
        read(&dir.path().join(name)).iter().map(|record| record.seq).collect()
    };
    assert_eq!(sequence("b.jsonl"), [0, 1, 2, 3, 4]);
    assert_eq!(sequence("c.jsonl"), [5, 6, 7, 8]);
}

#[test]
fn a_new_path_mends_what_fails() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::spawn(settings(&dir.path().join("none")), Start::Patient).unwrap();
    (0..3).for_each(|seq| writer.push(record(seq)));
    let answer = writer.reconfigure(settings(dir.path()));
    answer.blocking_recv().unwrap().unwrap();
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(dir.path()), 3);
}

#[test]
fn off_and_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.output.enabled = false;
    let writer = spawn(&settings);
    writer.push(record(0));
    writer.flush(AGES).unwrap();
    assert_eq!(writer.status().state, State::Off);
    assert!(names(dir.path()).is_empty());
    settings.output.enabled = true;
    let _answer = writer.reconfigure(settings);
    writer.push(record(1));
    writer.close(AGES).unwrap();
    assert_eq!(records(dir.path()).len(), 1);
}

#[test]
fn compression_gives_way_and_writing_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let writer = spawn(&settings(dir.path()));
    // Threads of other tests bear these names too, and may end while we look.
    let priorities = |name: &str| -> Vec<i32> {
        let tasks = fs::read_dir("/proc/self/task").unwrap().map_while(Result::ok);
        let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
        stats
            .filter(|stat| stat.contains(&format!("({name})")))
            .filter_map(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok())
            .collect()
    };
    until("a thread at the lowest priority", || priorities("blkiolatd-gzip").contains(&19));
    let ours = rustix::process::getpriority_process(None).unwrap();
    let writers = priorities("blkiolatd-write");
    assert!(writers.iter().all(|priority| *priority == ours), "{writers:?}");
    assert!(!writers.is_empty());
    writer.close(AGES).unwrap();
}

#[test]
fn a_dropped_handle_ends_the_threads_and_frees_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    drop(spawn(&settings(dir.path())));
    until("the lock is free", || Writer::spawn(settings(dir.path()), Start::Strict).is_ok());
}

/// A million windows, or as many as `BLKIOLATD_SOAK` says: 60 days at 5 s. Run it alone:
/// `cargo test --release --test archive_writer a_long_run -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn a_long_run_needs_no_more_than_a_short_one() {
    let total: u64 = std::env::var("BLKIOLATD_SOAK").map_or(1_000_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.output.flush_every = 12;
    settings.rotation.max_size = 256 << 10;
    settings.retention.max_total_size = 8 << 20;
    let writer = spawn(&settings);
    let resident_kib = || -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (mut warm, mut peak) = (None, 0);
    for seq in 0..total {
        writer.push(record(seq));
        if seq % 600 == 599 {
            writer.flush(AGES).unwrap();
            let sizes = fs::read_dir(dir.path()).unwrap().filter_map(|e| e.ok()?.metadata().ok());
            let used: u64 = sizes.map(|metadata| metadata.len()).sum();
            assert!(used <= 8 << 20, "{used} bytes at record {seq}");
            if seq > total / 5 {
                let now = (resident_kib(), descriptors());
                warm.get_or_insert(now);
                peak = peak.max(now.0);
                assert!(now.1 <= warm.unwrap().1 + 3, "{} descriptors", now.1);
            }
        }
    }
    assert_eq!(writer.status().dropped, 0);
    writer.close(AGES).unwrap();
    let (warm, _) = warm.unwrap();
    println!("resident: {warm} KiB after a fifth, {peak} KiB at most later");
    assert!(peak <= warm + 1024, "memory grew from {warm} to {peak} KiB");
    let found = records(dir.path());
    assert!(found.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "the newest, no gap");
    assert_eq!(found.last().unwrap().seq, total - 1);
}

// --- With privileges ---

/// Whether the test can go on. Where it matters (CI) missing privileges are a failure.
fn is_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} needs root");
    println!("SKIPPED {test}: it mounts file systems, which needs root");
    false
}

fn command(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system that is unmounted at the end of the test, however that comes.
struct Mount {
    point: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mount {
    fn tmpfs(size: &str) -> Self {
        let (dir, point) = Self::point();
        let point_name = point.to_str().unwrap();
        command(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", point_name]);
        Self { point, _dir: dir }
    }

    fn ext4() -> Self {
        let (dir, point) = Self::point();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let image = image.to_str().unwrap();
        command(&["mkfs.ext4", "-q", "-F", image]);
        command(&["mount", "-o", "loop", image, point.to_str().unwrap()]);
        Self { point, _dir: dir }
    }

    fn point() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("mnt");
        fs::create_dir(&point).unwrap();
        (dir, point)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.point).status();
    }
}

/// Fills a file system to the last byte.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12, 512, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_that_empties_again() {
    if !is_root("a_full_disk_that_empties_again") {
        return;
    }
    for mount in [Mount::tmpfs("256k"), Mount::ext4()] {
        let dir = mount.point.join("log");
        fs::create_dir(&dir).unwrap();
        let mut settings = settings(&dir);
        settings.output.flush_every = 3;
        let writer = spawn(&settings);
        (0..10).for_each(|seq| writer.push(record(seq)));
        writer.flush(AGES).unwrap();
        fill(&mount.point.join("filler"));
        // What is left of the last block takes a few more lines.
        let mut seq = 10;
        until("the disk is full", || {
            writer.push(record(seq));
            seq += 1;
            let status = writer.status();
            status.last_error.is_some_and(|error| !error.over && error.message.contains("No space"))
        });
        // Nothing torn is visible meanwhile.
        assert!(records(&dir).len() >= 10);
        (seq..seq + 1000).for_each(|seq| writer.push(record(seq)));
        let status = writer.status();
        assert!(status.dropped >= 280, "{status:?}");
        fs::remove_file(mount.point.join("filler")).unwrap();
        writer.flush(AGES).unwrap();
        assert!(writer.status().last_error.unwrap().over);
        writer.close(AGES).unwrap();
        assert_gaps_are_counted(&records(&dir), seq + 1000);
    }
}

#[test]
fn a_disk_that_is_read_only_for_a_while() {
    if !is_root("a_disk_that_is_read_only_for_a_while") {
        return;
    }
    let mount = Mount::ext4();
    let point = mount.point.to_str().unwrap();
    let dir = mount.point.join("log");
    fs::create_dir(&dir).unwrap();
    command(&["mount", "-o", "remount,ro", point]);
    let error = Writer::spawn(settings(&dir), Start::Strict).unwrap_err();
    assert!(error.to_string().contains("Read-only"), "{error}");
    let writer = Writer::spawn(settings(&dir), Start::Patient).unwrap();
    (0..10).for_each(|seq| writer.push(record(seq)));
    command(&["mount", "-o", "remount,rw", point]);
    writer.flush(AGES).unwrap();
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(&dir), 10);
}

#[test]
fn a_frozen_disk_stops_nobody() {
    if !is_root("a_frozen_disk_stops_nobody") {
        return;
    }
    let mount = Mount::ext4();
    let point = mount.point.to_str().unwrap().to_owned();
    let dir = mount.point.join("log");
    fs::create_dir(&dir).unwrap();
    let writer = spawn(&settings(&dir));
    writer.push(record(0));
    writer.flush(AGES).unwrap();
    command(&["fsfreeze", "--freeze", &point]);
    // Thawed even if an assertion fails: unmounting would hang.
    struct Thaw(String);
    impl Drop for Thaw {
        fn drop(&mut self) {
            let _ = Command::new("fsfreeze").args(["--unfreeze", &self.0]).status();
        }
    }
    let thaw = Thaw(point);
    (1..1500).for_each(|seq| writer.push(record(seq)));
    until("the thread is in the kernel", || writer.status().in_call.is_some());
    let status = writer.status();
    assert!(status.healthy(Instant::now() + AGES, Duration::ZERO), "{status:?}");
    assert!(status.dropped > 0);
    drop(thaw);
    writer.flush(AGES).unwrap();
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(&dir), 1500);
}

#[test]
fn closing_does_not_wait_for_a_frozen_disk() {
    if !is_root("closing_does_not_wait_for_a_frozen_disk") {
        return;
    }
    let mount = Mount::ext4();
    let point = mount.point.to_str().unwrap().to_owned();
    let writer = spawn(&settings(&mount.point));
    writer.push(record(0));
    writer.flush(AGES).unwrap();
    command(&["fsfreeze", "--freeze", &point]);
    writer.push(record(1));
    let result = writer.close(Duration::from_millis(200));
    command(&["fsfreeze", "--unfreeze", &point]);
    let error = result.unwrap_err();
    assert_eq!(error.lost, 1, "{error}");
}

// --- Power failures ---

/// Has an ext4 forget, at once, all that has not reached its device, and refuse everything from
/// then on: to the file system the same as a power failure.
fn cut_power(point: &Path) {
    /// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`.
    const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
    /// `EXT4_GOING_FLAGS_NOLOGFLUSH`: nothing is written any more, the journal neither.
    const NO_LOG_FLUSH: u32 = 2;
    let dir = fs::File::open(point).unwrap();
    // SAFETY: this ioctl reads one `u32` through its argument, and `Setter` passes a pointer to
    // one that lives for the call.
    unsafe {
        let setter = rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH);
        rustix::ioctl::ioctl(&dir, setter).unwrap();
    }
}

#[test]
fn nothing_flushed_is_lost_by_power_failures_with_fsync() {
    if !is_root("nothing_flushed_is_lost_by_power_failures_with_fsync") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (image, point) = (home.path().join("image"), home.path().join("mnt"));
    let after = home.path().join("image-after-power-failure");
    fs::create_dir(&point).unwrap();
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    command(&["mkfs.ext4", "-q", "-F", image.to_str().unwrap()]);
    let mount =
        || command(&["mount", "-o", "loop", image.to_str().unwrap(), point.to_str().unwrap()]);
    let unmount = || {
        until("unmounted", || {
            Command::new("umount").arg(&point).stderr(Stdio::null()).status().unwrap().success()
        });
    };
    // For a test that fails half-way; otherwise there is nothing left to unmount.
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
        }
    }
    let _unmount = Unmount(point.clone());
    let dir = point.join("log");
    let mut settings = settings(&dir);
    settings.output.flush_every = 3;
    settings.output.fsync = true;
    settings.rotation.max_size = 8000;
    mount();
    fs::create_dir(&dir).unwrap();
    command(&["sync", "-f", point.to_str().unwrap()]);
    let (mut next, mut flushed) = (0, Vec::new());
    for round in 0..30 {
        let writer = spawn(&settings);
        let count = 3 + (round * 37) % 90;
        (next..next + count).for_each(|seq| writer.push(record(seq)));
        writer.flush(AGES).unwrap();
        flushed.extend(next..next + count);
        // These may or may not get there.
        (next + count..next + count + 20).for_each(|seq| writer.push(record(seq)));
        next += 1000;
        cut_power(&point);
        // It cannot write the rest, and says so; how much that is depends on its speed.
        let _ = writer.close(Duration::from_millis(20));
        unmount();
        // A container that was started meanwhile may still have the dead file system mounted; the
        // same image would then be that one again.
        fs::copy(&image, &after).unwrap();
        fs::remove_file(&image).unwrap();
        fs::rename(&after, &image).unwrap();
        mount();
    }
    let writer = spawn(&settings);
    until("everything is compressed", || {
        names(&dir).iter().all(|name| !name.starts_with("b-") || name.ends_with(".gz"))
    });
    writer.close(AGES).unwrap();
    let found: Vec<u64> = records(&dir).iter().map(|record| record.seq).collect();
    let leftovers = names(&dir);
    unmount();
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "twice or out of order");
    let missing: Vec<_> = flushed.iter().filter(|seq| found.binary_search(seq).is_err()).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    assert!(!leftovers.iter().any(|name| name.contains("tmp") || name.contains("lock")));
}

// --- Processes that are killed ---

const KILLED_DIR: &str = "BLKIOLATD_TEST_KILLED_DIR";
const KILLED_FROM: &str = "BLKIOLATD_TEST_KILLED_FROM";

fn killed_settings(dir: &Path) -> Settings {
    let mut settings = settings(dir);
    settings.output.flush_every = 3;
    settings.rotation.max_size = 8000;
    settings
}

/// Not a test of its own: the process that `nothing_flushed_is_lost_by_sigkill` kills.
#[test]
#[ignore = "run by nothing_flushed_is_lost_by_sigkill"]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(KILLED_DIR) else { return };
    let from: u64 = std::env::var(KILLED_FROM).unwrap().parse().unwrap();
    let writer = spawn(&killed_settings(Path::new(&dir)));
    for seq in from..from + 1_000_000 {
        writer.push(record(seq));
        if seq % 3 == 0 {
            writer.flush(AGES).unwrap();
            println!("flushed {seq}");
            std::io::stdout().flush().unwrap();
        }
    }
}

#[test]
fn nothing_flushed_is_lost_by_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let rounds = 60;
    let (mut next, mut flushed) = (0, Vec::new());
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writes_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(KILLED_DIR, dir.path())
            .env(KILLED_FROM, u64::to_string(&next))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // 1 to 60 flushes: up to some rotations and compressions.
        let flushes = 1 + (round * 37) % 60;
        let reported = |line: String| line.strip_prefix("flushed ")?.parse::<u64>().ok();
        let mut last = None;
        lines
            .by_ref()
            .map(Result::unwrap)
            .filter_map(reported)
            .take(flushes)
            .for_each(|seq| last = Some(seq));
        child.kill().unwrap();
        // What it said before it died counts too.
        last = lines.map_while(Result::ok).filter_map(reported).last().or(last);
        child.wait().unwrap();
        let last = last.expect("the child wrote something");
        flushed.extend(next..=last);
        // Beyond what was reported at most a batch can be there: leave a gap.
        next = last + 1000;
    }
    let writer = spawn(&killed_settings(dir.path()));
    until("everything is compressed", || {
        names(dir.path()).iter().all(|name| !name.starts_with("b-") || name.ends_with(".gz"))
    });
    writer.close(AGES).unwrap();
    let found: Vec<u64> = records(dir.path()).iter().map(|record| record.seq).collect();
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "twice or out of order");
    let missing: Vec<_> = flushed.iter().filter(|seq| found.binary_search(seq).is_err()).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    assert!(!names(dir.path()).iter().any(|name| name.contains("tmp") || name.contains("lock")));
    for name in names(dir.path()).iter().filter(|name| name.ends_with(".gz")) {
        let status = Command::new("gzip").arg("-t").arg(dir.path().join(name)).status().unwrap();
        assert!(status.success(), "{name}");
    }
}
