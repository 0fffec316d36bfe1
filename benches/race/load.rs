//! The load: loop devices over files in memory, fio for the hot one, and single requests for the
//! cold one.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::machine::{Background, command, run, text_of, wait_until};

const MIB: usize = 1 << 20;

/// A loop device over a file in memory. The file has no name, and the kernel detaches the device as
/// soon as nobody has it open: nothing is left behind, even if the race is killed.
#[derive(Debug)]
pub struct Disk {
    pub name: String,
    pub node: PathBuf,
    bytes: u64,
    _open: File,
}

impl Disk {
    /// # Errors
    /// When the machine has no loop devices or no memory for it.
    pub fn new(mib: usize) -> Result<Self> {
        let mut file = tempfile::Builder::new()
            .prefix("blkiolatd-bench-")
            .tempfile_in("/dev/shm")
            .context("/dev/shm")?;
        // Written once, so that the memory is there before anything is measured.
        let zeros = vec![0; MIB];
        for _ in 0..mib {
            file.write_all(&zeros).context("/dev/shm")?;
        }
        let path = file.path().to_str().context("/dev/shm")?;
        let node = run(&["losetup", "--find", "--show", path])?;
        let node = PathBuf::from(node.trim());
        let open = OpenOptions::new().read(true).write(true).open(&node);
        // While it is open, this leaves the detaching to the last one who closes it.
        run(&["losetup", "--detach", node.to_str().unwrap_or_default()])?;
        let name = node.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let disk = Self {
            name,
            _open: open.with_context(|| node.display().to_string())?,
            node,
            bytes: (mib * MIB) as u64,
        };
        disk.set("nomerges", "2")?;
        disk.set("scheduler", "none")?;
        Ok(disk)
    }

    fn set(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/sys/block").join(&self.name).join("queue").join(key);
        fs::write(&path, value).with_context(|| path.display().to_string())
    }

    /// Reads and writes that were completed since the disk is there.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn completed(&self) -> Result<u64> {
        let text = text_of(Path::new("/sys/block").join(&self.name).join("stat"))?;
        let field: Vec<u64> =
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        ensure!(field.len() > 4, "{}: stat is {text:?}", self.name);
        Ok(field[0] + field[4])
    }
}

/// How hard fio works.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub depth: u32,
    pub batch: u32,
    /// CPUs that it may use, as taskset writes them.
    pub cpus: Option<&'static str>,
    /// Reads, and as many writes, per second and disk; as fast as it can without.
    pub rate: Option<u32>,
}

impl Shape {
    /// The load of every comparison.
    pub const HOT: Self = Self { depth: 64, batch: 8, cpus: None, rate: None };
}

/// fio, 4 KiB random reads and writes with libaio, until it is dropped.
#[derive(Debug)]
pub struct Hot<'a> {
    fio: Background,
    disks: &'a [Disk],
}

impl<'a> Hot<'a> {
    /// Starts one job for each disk, and waits until all of them work.
    ///
    /// # Errors
    /// When fio does not start.
    pub fn start(disks: &'a [Disk], shape: Shape) -> Result<Self> {
        let mut fio = command("fio");
        fio.args(["--thread", "--direct=1", "--ioengine=libaio", "--rw=randrw", "--bs=4k"])
            .args(["--time_based", "--runtime=86400", "--norandommap", "--gtod_reduce=1"])
            .arg(format!("--iodepth={}", shape.depth))
            .arg(format!("--iodepth_batch={}", shape.batch))
            .arg(format!("--iodepth_batch_complete_min={}", shape.batch))
            .args(shape.cpus.map(|cpus| format!("--cpus_allowed={cpus}")))
            .args(shape.rate.map(|rate| format!("--rate_iops={rate},{rate}")))
            .args(shape.rate.map(|_| "--rate_process=poisson"));
        for disk in disks {
            fio.arg(format!("--name={}", disk.name))
                .arg(format!("--filename={}", disk.node.display()));
        }
        // In memory: fio writes its state where it is.
        fio.current_dir("/dev/shm").stdout(Stdio::null()).stderr(Stdio::null());
        let mut hot = Self { fio: Background::start(&mut fio)?, disks };
        for disk in disks {
            let before = disk.completed()?;
            wait_until("fio works", || {
                hot.fio.check_alive().context("fio")?;
                Ok(disk.completed()? > before + 100)
            })?;
        }
        Ok(hot)
    }

    /// Lets it rest, until the disks are idle.
    ///
    /// # Errors
    /// When fio is gone.
    pub fn stop(&self) -> Result<()> {
        self.fio.signal(Signal::STOP)?;
        wait_until("the disks are idle", || {
            let before = self.completed()?;
            thread::sleep(Duration::from_millis(5));
            Ok(self.completed()? == before)
        })
    }

    /// Lets it work again.
    ///
    /// # Errors
    /// When fio is gone.
    pub fn go_on(&self) -> Result<()> {
        self.fio.signal(Signal::CONT)
    }

    /// Requests that were completed since the disks are there.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn completed(&self) -> Result<u64> {
        self.disks.iter().map(Disk::completed).sum()
    }
}

#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Requests one at a time, 500 us apart: the caches hold nothing of the last one any more.
pub struct Cold {
    file: File,
    page: Box<Page>,
    blocks: u64,
    random: u64,
}

impl std::fmt::Debug for Cold {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Cold")
    }
}

impl Cold {
    const PERIOD: Duration = Duration::from_micros(500);

    /// # Errors
    /// When the disk cannot be opened.
    pub fn new(disk: &Disk) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
            .open(&disk.node)
            .with_context(|| disk.node.display().to_string())?;
        Ok(Self {
            file,
            page: Box::new(Page([0; 4096])),
            blocks: disk.bytes / 4096,
            random: 0x9e37_79b9_7f4a_7c15,
        })
    }

    /// Reads and writes for this long.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn run(&mut self, length: Duration) -> Result<()> {
        let start = Instant::now();
        let mut due = start;
        while due < start + length {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // xorshift64
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let offset = self.random % self.blocks * 4096;
            if self.random >> 63 == 0 {
                rustix::io::pread(&self.file, &mut self.page.0, offset)?;
            } else {
                rustix::io::pwrite(&self.file, &self.page.0, offset)?;
            }
            due += Self::PERIOD;
        }
        Ok(())
    }
}
