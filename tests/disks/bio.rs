//! The bio layer on this machine: zram disks, which have no request queue. What is made of other disks is
//! tested on Debian's kernels (`tests/vm/guest/bio.sh`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::counts::ATTEMPTS;
use crate::daemon::{Launch, Run};
use crate::fio::{Fio, Report};
use crate::fixture::{Loop, Mode, Stat, needs, run};

const CONTROL: &str = "/sys/class/zram-control";

/// A zram disk; gone when dropped.
struct Zram {
    number: String,
    name: String,
    node: PathBuf,
}

impl Zram {
    /// A disk of `mib` MiB; `None` where the kernel has no zram.
    fn new(mib: u64) -> Option<Self> {
        let number = fs::read_to_string(Path::new(CONTROL).join("hot_add")).ok()?.trim().to_owned();
        let name = format!("zram{number}");
        let disk = Self { number, node: Path::new("/dev").join(&name), name };
        fs::write(disk.sysfs("disksize"), format!("{mib}M")).unwrap();
        // Whoever looks at a new disk has looked.
        let _ = crate::fixture::command("udevadm").args(["settle", "--timeout=10"]).output();
        Some(disk)
    }

    fn sysfs(&self, file: &str) -> PathBuf {
        Path::new("/sys/block").join(&self.name).join(file)
    }

    fn stat(&self) -> Stat {
        Stat::parse(&fs::read_to_string(self.sysfs("stat")).unwrap())
    }

    fn launch(&self) -> Launch {
        Launch::new().arguments(&["--device", &self.name, "--bio"])
    }

    /// A run of fio under the daemon that `launch` makes.
    fn measured(&self, launch: Launch, jobs: u32, options: &str) -> (Run, Stat, Report) {
        let before = self.stat();
        let daemon = launch.start();
        let options = format!("--direct=1 --ioengine=psync --time_based --runtime=400ms {options}");
        let fio = (0..jobs).fold(Fio::new(), |fio, _| fio.job_on(&self.node, &options));
        let report = fio.run();
        (daemon.stop(), self.stat().since(before), report)
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Path::new(CONTROL).join("hot_remove"), &self.number) {
            eprintln!("cannot remove {}: {error}", self.name);
        }
    }
}

/// Returns from the test where there is no zram.
macro_rules! zram {
    () => {
        match Zram::new(64) {
            Some(disk) => disk,
            None => {
                assert!(std::env::var_os("CI").is_none(), "this test needs zram");
                println!("skipped: needs zram (modprobe zram)");
                return;
            }
        }
    };
}

/// Asserts that the bios counted are those of fio and of the kernel; `false` when the run says that some
/// were missed.
fn assert_equal(run: &Run, disk: &Zram, kernel: Stat, report: &Report) -> bool {
    let ours = run.totals(&disk.name);
    let lost = run.lost(&disk.name);
    let context = format!("{ours:?} {kernel:?} {report:?} lost {lost}");
    // The kernel counts an empty flush as a write.
    for (ours, kernel, fio) in [
        (ours.read.requests, kernel.reads, report.reads),
        (ours.write.requests + ours.flush.requests, kernel.writes, report.writes + report.syncs),
    ] {
        assert!(ours <= kernel, "counted more than there was: {context}");
        assert!(kernel - ours <= lost, "lost more than it says: {context}");
        assert_eq!(kernel, fio, "somebody else uses the disk: {context}");
    }
    if lost > 0 {
        println!("again: {lost} bios were missed");
        return false;
    }
    assert_eq!(ours.read.bytes, kernel.read_sectors * 512, "{context}");
    assert_eq!(ours.write.bytes, kernel.write_sectors * 512, "{context}");
    assert_eq!((ours.requeues, ours.read.errors + ours.write.errors), (0, 0), "{context}");
    true
}

#[test]
fn bios_are_counted_as_fio_and_the_kernel_count_them() {
    needs!("fio");
    let disk = zram!();
    for options in ["--rw=randrw --bs=4k", "--rw=randrw --bsrange=4k-256k"] {
        let equal = (0..ATTEMPTS).any(|_| {
            let (run, kernel, report) = disk.measured(disk.launch(), 2, options);
            assert_eq!(run.names(), [""; 0], "a disk without requests is in the request layer");
            let run = run.of_bios().kept();
            assert_eq!(run.names(), [disk.name.as_str()]);
            let most = run.inflight_max(&disk.name);
            assert!((1..=2).contains(&most), "{most} in flight of two threads");
            assert!(run.windows_of(&disk.name).len() > 1, "one window proves little");
            assert_equal(&run, &disk, kernel, &report)
        });
        assert!(equal, "bios were missed {ATTEMPTS} times in a row");
    }
}

#[test]
fn an_overflowing_table_of_bios_loses_nothing() {
    needs!("fio");
    let disk = zram!();
    let equal = (0..ATTEMPTS).any(|_| {
        let launch = disk.launch().tables("sets=1,overflow=4096");
        let (run, kernel, report) = disk.measured(launch, 16, "--rw=randrw --bs=64k");
        assert_equal(&run.of_bios().kept(), &disk, kernel, &report)
    });
    assert!(equal, "bios were missed {ATTEMPTS} times in a row");
}

#[test]
fn without_the_option_there_are_no_bios() {
    needs!("dd");
    let disk = zram!();
    let daemon = Launch::new().arguments(&["--device", &disk.name]).start();
    run(&["dd", &format!("if={}", disk.node.display()), "of=/dev/null", "bs=1M", "count=1"]);
    let run = daemon.stop();
    assert!(run.bios.is_empty() && !run.records.is_empty());
    assert_eq!(run.names(), [""; 0]);
}

#[test]
fn a_disk_with_requests_is_not_in_the_bio_layer() {
    needs!("dd");
    let disk = Loop::new(8, Mode::Buffered);
    let daemon = Launch::of(&[&disk]).arguments(&["--bio"]).start();
    run(&["dd", &format!("if={}", disk.node()), "of=/dev/null", "bs=64k", "iflag=direct"]);
    let run = daemon.stop().kept();
    assert_eq!(run.names(), [disk.name.as_str()]);
    assert_eq!(run.totals(&disk.name).read.bytes, 8 << 20);
    assert_eq!(run.bios.len(), run.records.len());
    let bios = run.of_bios();
    assert_eq!(bios.names(), [""; 0]);
    assert_eq!(bios.lost(&disk.name), 0, "a loop device's bios end within requests");
}

#[test]
fn a_reload_says_that_the_layer_needs_a_restart() {
    needs!("dd");
    let disk = Loop::new(8, Mode::Buffered);
    let mut daemon = Launch::of(&[&disk]).start();
    daemon.reload("[sampling]\nbio = true\n");
    let run = daemon.stop();
    assert!(run.bios.is_empty());
    let said = "sampling.bio: false -> true (not until the daemon is restarted)";
    assert!(run.stderr.contains(said), "{}", run.stderr);
}

#[test]
fn both_layers_are_printed() {
    needs!("dd");
    let disk = zram!();
    let launch = disk.launch().arguments(&["--print"]);
    let daemon = launch.start();
    run(&["dd", &format!("if={}", disk.node.display()), "of=/dev/null", "bs=1M", "iflag=direct"]);
    let run = daemon.stop();
    let headings = |text: &str| run.stdout.matches(text).count();
    let windows = run.records.len();
    assert_eq!(headings(" - I/O latency by device:"), windows);
    assert_eq!(headings(" - I/O latency by stacked device (bios):"), windows);
    assert!(run.stdout.contains(&format!("disk = {}\n", disk.name)), "{}", run.stdout);
}
