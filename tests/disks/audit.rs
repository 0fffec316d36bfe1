//! Every kind of loss, forced: it is counted, and no latency is wrong for it.
//!
//! `BLKIOLATD_TEST_TABLES` makes the kernel's tables tiny. They are the daemon's own, but disks of tests that run beside
//! these use them, too, for the moment until they are known not to be measured: such an attempt is repeated.
//! Two kinds cannot be forced here: `probe_misses`, which this kernel makes by itself now and then (every
//! comparison of counts in these tests reckons with them), and `dropped_snapshots`, which `tests/daemon` has.

use blkiolatd::record::{Audit, Record};

use crate::counts::{ATTEMPTS, measured_with};
use crate::daemon::{Daemon, Launch, Run};
use crate::fio::Fio;
use crate::fixture::{Frozen, Loop, Mode, Mount, needs, run, wait_until};

/// How long requests are held: windows of 50 ms, of which the daemon may tell two late.
const HELD_WINDOWS: u64 = 20;
const HELD_US: f64 = 500_000.0;
/// Requests that are held.
const HELD: u64 = 16;

/// A loop device over a file on a file system that can be frozen.
struct Holdable {
    // Dropped in this order: a file system with a disk over one of its files cannot be unmounted.
    disk: Loop,
    mount: Mount,
    _outer: Loop,
}

impl Holdable {
    fn new() -> Self {
        let outer = Loop::new(128, Mode::Buffered);
        run(&["mkfs.ext4", "-q", outer.node()]);
        let mount = Mount::new(&outer);
        let file = mount.path().join("disk");
        std::fs::write(&file, vec![0; 16 << 20]).unwrap();
        let disk = Loop::over(&file, Mode::Buffered);
        Self { disk, mount, _outer: outer }
    }

    /// Begins [`HELD`] writes, none of which completes while the file system is frozen; calls `held`; lets them end.
    fn hold(&self, held: impl FnOnce()) {
        let load;
        let frozen = Frozen::new(&self.mount);
        let job = format!(
            "--rw=randwrite --bs=4k --ioengine=libaio --iodepth={HELD} --size=8m --number_ios={HELD}"
        );
        load = Fio::new().job(&self.disk, &job).start();
        wait_until("all writes are held", || self.disk.inflight() == [0, HELD]);
        held();
        assert_eq!(self.disk.inflight(), [0, HELD]);
        drop(frozen);
        load.wait();
        self.disk.stat();
    }

    /// A load that never has more in flight than fits anywhere.
    fn one_by_one(&self) -> u64 {
        let before = self.disk.stat();
        let job = "--rw=randread --bs=4k --ioengine=psync --number_ios=200 --size=8m";
        Fio::new().job(&self.disk, job).run();
        self.disk.stat().since(before).reads
    }
}

fn sum(run: &Run, of: impl Fn(&Audit) -> u64) -> u64 {
    run.records.iter().map(|record| of(&record.audit)).sum()
}

fn idle_at_the_end(run: &Run) -> bool {
    run.records.last().unwrap().inflight.iter().all(|device| device.count == 0)
}

/// Repeats an attempt that others disturbed.
fn undisturbed(mut attempt: impl FnMut() -> Result<(), String>) {
    let mut disturbed = Vec::new();
    for _ in 0..ATTEMPTS {
        match attempt() {
            Ok(()) => return,
            Err(reason) => {
                println!("again: {reason}");
                disturbed.push(reason);
            }
        }
    }
    panic!("disturbed {ATTEMPTS} times in a row: {disturbed:#?}");
}

#[test]
fn requests_that_find_no_place_are_counted_and_the_others_measured_right() {
    needs!("fio", "fsfreeze", "mkfs.ext4", "mount");
    let holdable = Holdable::new();
    let disk = &holdable.disk;
    // Four places in the set and four in the overflow; eight in the hash map of the other probe.
    for (probe, tables) in [("btf", "sets=1,overflow=4"), ("tracepoint", "pending=8")] {
        undisturbed(|| {
            let launch = Launch::of(&[disk]).arguments(&["--probe", probe]);
            let mut daemon = launch.tables(tables).start();
            holdable.hold(|| daemon.wait_windows(HELD_WINDOWS));
            let reads = holdable.one_by_one();
            let run = daemon.stop();
            let write = run.totals(&disk.name).write;
            let read = run.totals(&disk.name).read;
            // Whatever happened: nothing that was counted is wrong.
            assert!(write.requests <= 8 && run.inflight_max(&disk.name) <= 8, "{write:?}");
            assert!(write.sum_us >= write.requests as f64 * HELD_US, "{write:?}");
            assert!(read.requests <= reads && read.max_us < HELD_US, "{read:?}");
            let full = sum(&run, |audit| audit.inflight_table_full);
            let untracked = sum(&run, |audit| audit.untracked_completions);
            let found = (write.requests, full, read.requests, run.inflight_max(&disk.name));
            if found != (8, 8, reads, 8) || untracked != 8 || sum(&run, |a| a.probe_misses) > 0 {
                return Err(format!("{probe}: {found:?}, {untracked} untracked, {reads} reads"));
            }
            assert!(idle_at_the_end(&run), "a place is not given back");
            Ok(())
        });
    }
}

#[test]
fn an_overflowing_table_loses_nothing() {
    needs!("fio");
    let disk = Loop::new(64, Mode::Buffered);
    let launch = || Launch::of(&[&disk]).tables("sets=1,overflow=4096");
    let job = "--rw=randrw --bs=4k --ioengine=libaio --iodepth=64 --fsync=50 --time_based \
               --runtime=400ms";
    // Compares with the kernel's counts; `kept` says that no table was full.
    let (run, _, totals, report) =
        measured_with(launch, &disk, || Fio::new().job(&disk, job).run());
    assert_eq!((totals.read.requests, totals.write.requests), (report.reads, report.writes));
    let most = run.inflight_max(&disk.name);
    assert!(most > 4, "only {most} were in flight: the set was never full");
}

#[test]
fn a_disk_without_a_slot_is_counted_as_a_loss() {
    needs!("dd");
    let disks = [Loop::new(8, Mode::Buffered), Loop::new(8, Mode::Buffered)];
    let [first, second] = &disks;
    undisturbed(|| {
        let before = disks.each_ref().map(Loop::stat);
        let daemon = Launch::of(&[first, second]).tables("devices=1").start();
        for disk in [first, second] {
            let source = format!("if={}", disk.node());
            run(&["dd", &source, "of=/dev/null", "bs=64k", "count=64", "iflag=direct"]);
        }
        let [of_first, of_second] = [0, 1].map(|n: usize| disks[n].stat().since(before[n]).reads);
        let run = daemon.stop();
        let counted = [first, second].map(|disk| run.totals(&disk.name).read.requests);
        assert!(counted[0] <= of_first, "{counted:?}");
        let full = sum(&run, |audit| audit.device_table_full);
        if (counted, full) != ([of_first, 0], of_second) || run.lost(&first.name) > of_second {
            return Err(format!("{counted:?} of {of_first}, {full} losses of {of_second}"));
        }
        Ok(())
    });
}

#[test]
fn an_operation_without_a_histogram_is_counted_as_a_loss() {
    needs!("dd");
    let disk = Loop::new(8, Mode::Buffered);
    undisturbed(|| {
        let before = disk.stat();
        let daemon = Launch::of(&[&disk]).tables("histograms=1").start();
        let (source, target) = (format!("if={}", disk.node()), format!("of={}", disk.node()));
        run(&["dd", &source, "of=/dev/null", "bs=64k", "count=64", "iflag=direct"]);
        run(&["dd", "if=/dev/zero", &target, "bs=64k", "count=32", "oflag=direct"]);
        let kernel = disk.stat().since(before);
        let run = daemon.stop();
        let totals = run.totals(&disk.name);
        assert!(totals.read.requests <= kernel.reads, "{totals:?}");
        let full = sum(&run, |audit| audit.device_table_full);
        let found = (totals.read.requests, totals.write.requests, full);
        if found != (kernel.reads, 0, kernel.writes) || run.lost(&disk.name) > 0 {
            return Err(format!("{found:?}, the kernel {kernel:?}"));
        }
        assert!(idle_at_the_end(&run), "they have completed all the same");
        Ok(())
    });
}

#[test]
fn what_is_in_flight_at_the_start_has_no_latency() {
    needs!("fio", "fsfreeze", "mkfs.ext4", "mount");
    let holdable = Holdable::new();
    let disk = &holdable.disk;
    for probe in ["btf", "tracepoint"] {
        undisturbed(|| {
            let mut started: Option<Daemon> = None;
            holdable.hold(|| {
                let mut daemon = Launch::of(&[disk]).arguments(&["--probe", probe]).start();
                daemon.wait_windows(3);
                started = Some(daemon);
            });
            let Some(daemon) = started else { panic!("it was not started") };
            let reads = holdable.one_by_one();
            let run = daemon.stop().kept();
            let totals = run.totals(&disk.name);
            assert_eq!(totals.write.requests, 0, "what began before is measured: {totals:?}");
            assert!(totals.read.requests <= reads && totals.read.max_us < HELD_US, "{totals:?}");
            let named = |record: &Record| record.inflight.iter().any(|d| d.count > 1);
            assert!(!run.records.iter().any(named), "one read at a time is in flight");
            let untracked = sum(&run, |audit| audit.untracked_completions);
            let missed = sum(&run, |audit| audit.probe_misses);
            if (untracked, totals.read.requests, missed) != (HELD, reads, 0) {
                return Err(format!("{probe}: {untracked} untracked, {totals:?}, missed {missed}"));
            }
            Ok(())
        });
    }
}

#[test]
fn wrong_sizes_of_tables_are_refused() {
    needs!("losetup");
    let run = Launch::new().tables("sets=3").arguments(&["--count", "1"]).run();
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let said = "BLKIOLATD_TEST_TABLES=sets=3: sets: 3: expected a power of two";
    assert!(run.stderr.contains(said), "{}", run.stderr);
}
