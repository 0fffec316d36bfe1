//! Settings, records and file systems for tests, and what they left in a directory.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use blkiolatd::archive::{OpenError, Settings, Start, Writer, WriterHandle};
use blkiolatd::config::FreeSpace;
use blkiolatd::record::{Record, SCHEMA_VERSION};

/// Long enough for any machine; nothing waits that long unless it is broken.
pub const AGES: Duration = Duration::from_secs(60);

pub fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.output.path = dir.join("b.jsonl");
    settings.output.flush_every = 1;
    settings.rotation.gzip_level = 1;
    settings.retention.min_free_space = FreeSpace::Bytes(0);
    settings
}

pub fn record(seq: u64) -> Record {
    Record {
        seq,
        timestamp: 1_795_362_300.0 + seq as f64 / 100.0,
        schema: SCHEMA_VERSION,
        host: "test".into(),
        ..Record::default()
    }
}

/// Waits until something is so; fails the test if it never is.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < AGES, "{what}: it did not come to that");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// All records of the archives, the segments without archive and the active file, in that order
/// of their names. Panics on a line that is not a whole record.
pub fn records(dir: &Path) -> Vec<Record> {
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

pub fn read(path: &Path) -> Vec<Record> {
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
pub fn assert_gaps_are_counted(records: &[Record], total: u64) {
    let mut next = 0;
    for record in records {
        assert_eq!(record.seq, next + record.audit.dropped_snapshots, "the gap is counted");
        next = record.seq + 1;
    }
    assert_eq!(next, total);
}

/// A writer. Another test may be starting a process right now, which for a moment holds copies of
/// all our files, locks released since included: then this waits for that.
pub fn spawn(settings: &Settings) -> WriterHandle {
    let start = Instant::now();
    loop {
        match Writer::spawn(settings.clone(), Start::Strict) {
            Ok(writer) => return writer,
            Err(OpenError::Locked { .. }) if start.elapsed() < AGES => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whether the test can go on. Where it matters (CI) missing privileges are a failure.
pub fn is_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} needs root");
    println!("SKIPPED {test}: it mounts file systems, which needs root");
    false
}

pub fn command(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a file system in a new image of the size that its kind needs at least.
pub fn make_file_system(kind: &str, image: &Path) {
    let mib = match kind {
        "ext4" => 16,
        "xfs" => 300,
        "btrfs" => 128,
        _ => panic!("{kind}"),
    };
    fs::File::create(image).unwrap().set_len(mib << 20).unwrap();
    let image = image.to_str().unwrap();
    match kind {
        "ext4" => command(&["mkfs.ext4", "-q", "-F", image]),
        "xfs" => command(&["mkfs.xfs", "-q", "-f", image]),
        _ => command(&["mkfs.btrfs", "-q", "-f", image]),
    }
}

/// A file system that is unmounted at the end of the test, however that comes.
pub struct Mount {
    pub point: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mount {
    /// In memory, so large.
    pub fn tmpfs(size: &str) -> Self {
        let (dir, point) = Self::point();
        let point_name = point.to_str().unwrap();
        command(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", point_name]);
        Self { point, _dir: dir }
    }

    /// A new file system of this kind on a loop device.
    pub fn disk(kind: &str) -> Self {
        let (dir, point) = Self::point();
        let image = dir.path().join("image");
        make_file_system(kind, &image);
        command(&["mount", "-o", "loop", image.to_str().unwrap(), point.to_str().unwrap()]);
        Self { point, _dir: dir }
    }

    fn point() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let point = dir.path().join("mnt");
        fs::create_dir(&point).unwrap();
        (dir, point)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount_later(&self.point);
    }
}

/// Unmounts when nobody uses it any more, if it is mounted.
pub fn unmount_later(point: &Path) {
    let _ = Command::new("umount").arg("-l").arg(point).stderr(Stdio::null()).status();
}

/// Fills a file system to the last byte.
pub fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let mut length = 0;
    for size in [64 << 20, 1 << 20, 1 << 16, 1 << 12] {
        let flags = rustix::fs::FallocateFlags::empty();
        while rustix::fs::fallocate(&file, flags, length, size).is_ok() {
            length += size;
        }
    }
    file.seek(SeekFrom::End(0)).unwrap();
    for size in [1 << 16, 1 << 12, 512, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

/// Has an ext4 or XFS forget, at once, all that has not reached its device, and refuse everything
/// from then on: to the file system the same as a power failure.
pub fn cut_power(point: &Path) {
    /// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`, `_IOR('X', 125, __u32)`.
    const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
    /// `EXT4_GOING_FLAGS_NOLOGFLUSH` and XFS' `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`: nothing is written
    /// any more, the journal neither.
    const NO_LOG_FLUSH: u32 = 2;
    let dir = fs::File::open(point).unwrap();
    // SAFETY: this ioctl reads one `u32` through its argument, and `Setter` passes a pointer to
    // one that lives for the call.
    unsafe {
        let setter = rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH);
        rustix::ioctl::ioctl(&dir, setter).unwrap();
    }
}
