//! Disks of a test's own: loop devices over files on tmpfs, load on them, and the kernel's counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::process::until;

/// Runs a command that must succeed; its standard output.
pub fn command(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A loop device.
pub struct Disk {
    /// For example `loop3`.
    pub name: String,
    // Removed after the device is detached.
    _file: tempfile::NamedTempFile,
}

impl Disk {
    pub fn new(mib: u64) -> Self {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        file.as_file().set_len(mib << 20).unwrap();
        let node = command(&["losetup", "--find", "--show", file.path().to_str().unwrap()]);
        Self { name: node.strip_prefix("/dev/").unwrap().to_owned(), _file: file }
    }

    pub fn node(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// What the kernel has counted (Documentation/block/stat.rst).
    pub fn counts(&self) -> Counts {
        let text = fs::read_to_string(format!("/sys/block/{}/stat", self.name)).unwrap();
        let fields: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
        Counts { reads: fields[0], writes: fields[4], flushes: fields[15] }
    }

    /// Starts random reads and writes, so many in all.
    pub fn load(&self, requests: u64) -> Child {
        let arguments = [
            "--name=load",
            &format!("--filename={}", self.node()),
            &format!("--number_ios={requests}"),
            "--size=100%",
            "--io_size=100g",
            "--rw=randrw",
            "--bs=4k",
            "--iodepth=16",
            "--ioengine=libaio",
            "--direct=1",
            "--output=/dev/null",
        ];
        Command::new("fio").args(arguments).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Loads the disk, and waits for the end of that.
    pub fn run_load(&self, requests: u64) {
        assert!(self.load(requests).wait().unwrap().success());
        self.quiet();
    }

    /// Waits until nothing is in flight.
    pub fn quiet(&self) {
        let path = format!("/sys/block/{}/inflight", self.name);
        until("quiet", || fs::read_to_string(&path).unwrap().split_whitespace().all(|n| n == "0"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.node()]).status();
    }
}

/// Completed requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
}

impl Counts {
    pub fn since(self, earlier: Self) -> Self {
        Self {
            reads: self.reads - earlier.reads,
            writes: self.writes - earlier.writes,
            flushes: self.flushes - earlier.flushes,
        }
    }
}

/// A file system on a disk of its own.
pub struct FileSystem {
    pub disk: Disk,
    pub point: PathBuf,
    _dir: tempfile::TempDir,
}

impl FileSystem {
    pub fn new() -> Self {
        let disk = Disk::new(64);
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("mnt");
        fs::create_dir(&point).unwrap();
        // Nothing that the file system does by itself later.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        command(&["mkfs.ext4", "-q", "-E", options, &disk.node()]);
        command(&["mount", "-o", "commit=3600", &disk.node(), point.to_str().unwrap()]);
        Self { disk, point, _dir: dir }
    }

    /// Every write waits, without an end, until [`Self::thaw`].
    pub fn freeze(&self) {
        command(&["fsfreeze", "--freeze", self.path()]);
    }

    pub fn thaw(&self) {
        command(&["fsfreeze", "--unfreeze", self.path()]);
    }

    fn path(&self) -> &str {
        self.point.to_str().unwrap()
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let quietly = |words: &[&str]| {
            Command::new(words[0]).args(&words[1..]).stderr(Stdio::null()).status()
        };
        // A test that fails half-way leaves it frozen.
        let _ = quietly(&["fsfreeze", "--unfreeze", self.path()]);
        let _ = quietly(&["umount", "--lazy", self.path()]);
    }
}

/// Whether `name` is a file in `dir`.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
