//! Disks to measure, and what the kernel's sysfs says of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test gives up. Far beyond what a busy machine needs: it
/// bounds a hang, it does not measure.
pub const PATIENCE: Duration = Duration::from_secs(60);

const MIB: u64 = 1 << 20;

/// Returns from the test where this machine lacks something.
macro_rules! needs {
    ($($program:literal),*) => {
        if let Some(missing) = $crate::fixture::missing(&[$($program),*]) {
            assert!(std::env::var_os("CI").is_none(), "this test needs {missing}");
            println!("skipped: {} needs {missing}", module_path!());
            return;
        }
    };
}
pub(crate) use needs;

/// What keeps tests from running here: root, loop devices, one of `programs`.
pub fn missing(programs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root".into());
    }
    for path in ["/dev/loop-control", "/dev/shm"] {
        if !Path::new(path).exists() {
            return Some(path.into());
        }
    }
    let path = search_path();
    let exists = |name: &&&str| std::env::split_paths(&path).any(|dir| dir.join(name).exists());
    ["losetup"].iter().chain(programs).find(|name| !exists(name)).map(|name| (*name).into())
}

fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// A command that also finds administrators' programs, and speaks English.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", search_path()).env("LC_ALL", "C");
    command
}

/// Runs a program that has to succeed.
pub fn run(words: &[&str]) -> Output {
    let output = command(words[0]).args(&words[1..]).output().expect(words[0]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {} {errors}", words.join(" "), output.status);
    output
}

/// Runs a clean-up that must not panic, as a panic may be under way.
pub fn clean_up(words: &[&str]) {
    match command(words[0]).args(&words[1..]).output() {
        Ok(output) if output.status.success() => {}
        other => eprintln!("clean-up failed: {}: {other:?}", words.join(" ")),
    }
}

/// Waits until `condition` holds. Polls, because sysfs cannot be waited for.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the loop device goes through the backing file's page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Buffered,
    Direct,
}

/// A directory in memory, for files behind loop devices.
pub fn memory() -> TempDir {
    tempfile::Builder::new().prefix("blkiolatd-test-").tempdir_in("/dev/shm").unwrap()
}

/// A loop device; gone when dropped.
#[derive(Debug)]
pub struct Loop {
    pub node: PathBuf,
    pub name: String,
    /// The file behind it.
    pub file: PathBuf,
    _directory: Option<TempDir>,
}

impl Loop {
    /// A device of `mib` MiB over a file in memory.
    pub fn new(mib: u64, mode: Mode) -> Self {
        let directory = memory();
        let file = directory.path().join("disk");
        fs::File::create(&file).unwrap().set_len(mib * MIB).unwrap();
        let mut device = Self::over(&file, mode);
        device._directory = Some(directory);
        device
    }

    /// A device over a file that is the caller's.
    pub fn over(file: &Path, mode: Mode) -> Self {
        let direct = if mode == Mode::Direct { "--direct-io=on" } else { "--direct-io=off" };
        let path = file.to_str().unwrap();
        let output = run(&["losetup", "--find", "--show", direct, path]);
        let node = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        let name = node.file_name().unwrap().to_str().unwrap().to_owned();
        let device = Self { node, name, file: file.into(), _directory: None };
        // A loop device keeps what the last one with its number was set to.
        for (file, value) in [("scheduler", "none"), ("iostats", "1"), ("nomerges", "0")] {
            device.set(&format!("queue/{file}"), value);
        }
        device.rest();
        device
    }

    /// Waits until nobody who noticed the new device reads from it any more.
    fn rest(&self) {
        // Without udev there is nobody.
        let _ = command("udevadm").args(["settle", "--timeout=10"]).output();
        self.stat();
    }

    pub fn node(&self) -> &str {
        self.node.to_str().unwrap()
    }

    pub fn sysfs(&self, file: &str) -> PathBuf {
        Path::new("/sys/block").join(&self.name).join(file)
    }

    pub fn set(&self, file: &str, value: &str) {
        fs::write(self.sysfs(file), value).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.sysfs(file)).unwrap().trim().to_owned()
    }

    /// `major << 20 | minor`, from sysfs.
    pub fn device_id(&self) -> u32 {
        let dev = self.read("dev");
        let (major, minor) = dev.split_once(':').unwrap();
        major.parse::<u32>().unwrap() << 20 | minor.parse::<u32>().unwrap()
    }

    /// The kernel's counts, once no request is under way: the submitter of a request hears of its
    /// end before it is counted.
    pub fn stat(&self) -> Stat {
        let mut stat = Stat::default();
        wait_until("the disk is idle", || {
            stat = self.counts();
            stat.in_flight == 0
        });
        stat
    }

    /// The kernel's counts as they stand.
    pub fn counts(&self) -> Stat {
        Stat::parse(&self.read("stat"))
    }

    /// Requests that the driver has, `[reads, writes]`.
    pub fn inflight(&self) -> [u64; 2] {
        let text = self.read("inflight");
        let numbers: Vec<u64> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    /// Detaches the file, and the kernel forgets the disk.
    pub fn detach(self) {}
}

impl Drop for Loop {
    fn drop(&mut self) {
        clean_up(&["losetup", "--detach", self.node()]);
    }
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    directory: TempDir,
}

impl Mount {
    pub fn new(device: &Loop) -> Self {
        let directory = memory();
        run(&["mount", device.node(), directory.path().to_str().unwrap()]);
        Self { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        clean_up(&["umount", self.path().to_str().unwrap()]);
    }
}

/// A file system that lets no write begin; thawed when dropped. What it holds up is declared before it, and so dropped
/// after it: otherwise a test that fails waits for ever for what cannot end.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Mount);

impl<'a> Frozen<'a> {
    pub fn new(mount: &'a Mount) -> Self {
        run(&["fsfreeze", "--freeze", mount.path().to_str().unwrap()]);
        Self(mount)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        clean_up(&["fsfreeze", "--unfreeze", self.0.path().to_str().unwrap()]);
    }
}

/// `/sys/block/X/stat` (Documentation/block/stat.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub reads: u64,
    pub read_merges: u64,
    pub read_sectors: u64,
    pub read_ms: u64,
    pub writes: u64,
    pub write_merges: u64,
    pub write_sectors: u64,
    pub write_ms: u64,
    pub in_flight: u64,
    /// Milliseconds that all requests together spent, from their allocation on.
    pub queue_ms: u64,
    pub discards: u64,
    pub discard_sectors: u64,
    pub discard_ms: u64,
    pub flushes: u64,
    pub flush_ms: u64,
}

impl Stat {
    pub fn parse(text: &str) -> Self {
        let field: Vec<u64> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert!(field.len() >= 17, "this kernel counts no flushes: {text}");
        Self {
            reads: field[0],
            read_merges: field[1],
            read_sectors: field[2],
            read_ms: field[3],
            writes: field[4],
            write_merges: field[5],
            write_sectors: field[6],
            write_ms: field[7],
            in_flight: field[8],
            queue_ms: field[10],
            discards: field[11],
            discard_sectors: field[13],
            discard_ms: field[14],
            flushes: field[15],
            flush_ms: field[16],
        }
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            read_merges: self.read_merges - before.read_merges,
            read_sectors: self.read_sectors - before.read_sectors,
            read_ms: self.read_ms - before.read_ms,
            writes: self.writes - before.writes,
            write_merges: self.write_merges - before.write_merges,
            write_sectors: self.write_sectors - before.write_sectors,
            write_ms: self.write_ms - before.write_ms,
            in_flight: self.in_flight,
            queue_ms: self.queue_ms - before.queue_ms,
            discards: self.discards - before.discards,
            discard_sectors: self.discard_sectors - before.discard_sectors,
            discard_ms: self.discard_ms - before.discard_ms,
            flushes: self.flushes - before.flushes,
            flush_ms: self.flush_ms - before.flush_ms,
        }
    }
}
