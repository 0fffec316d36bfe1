//! Counts and bytes, exactly equal to the kernel's own.

use crate::daemon::{Launch, Run, Totals};
use crate::fio::{Fio, Report};
use crate::fixture::{Loop, Mode, Mount, Stat, needs, run};
use crate::trace::{EMPTY_FLUSHES, Event, REQUESTS, Trace, empty_flushes};

/// Asserts that a run counted what the kernel counted: exactly, but for what the run itself says it
/// lost.
///
/// The kernel's count of writes includes the `empty_flushes`, which reach no driver (trap 16), and
/// write-zeroes, which are `other` here.
pub fn assert_equal(run: &Run, disk: &Loop, kernel: Stat, empty_flushes: u64) -> Totals {
    let ours = run.totals(&disk.name);
    let lost = run.lost(&disk.name);
    let counts = ours.all().map(|(name, total)| (name, total.requests, total.bytes));
    let context = format!("{counts:?} {kernel:?} empty flushes {empty_flushes} lost {lost}");
    let pairs = [
        (ours.read.requests, kernel.reads),
        (ours.write.requests + ours.other.requests + empty_flushes, kernel.writes),
        (ours.discard.requests, kernel.discards),
        (ours.flush.requests, kernel.flushes),
    ];
    let bytes = [
        (ours.read.bytes, kernel.read_sectors * 512),
        (ours.write.bytes + ours.other.bytes, kernel.write_sectors * 512),
        (ours.discard.bytes, kernel.discard_sectors * 512),
    ];
    for (ours, kernel) in pairs.into_iter().chain(bytes) {
        assert!(ours <= kernel, "counted more than there was: {context}");
        assert!(lost > 0 || ours == kernel, "lost without a word: {context}");
    }
    let missing: u64 = pairs.iter().map(|(ours, kernel)| kernel - ours).sum();
    assert!(missing <= lost, "lost more than it says: {context}");
    // The kernel measures from the request's allocation, and cuts to milliseconds.
    for (ours, kernel_ms) in [
        (ours.read.sum_us, kernel.read_ms),
        (ours.write.sum_us + ours.other.sum_us, kernel.write_ms),
        (ours.discard.sum_us, kernel.discard_ms),
        (ours.flush.sum_us, kernel.flush_ms),
    ] {
        assert!(ours <= (kernel_ms + 1) as f64 * 1e3, "time: {ours} of {kernel_ms} {context}");
    }
    assert_sums(&ours);
    ours
}

/// Asserts that sums and maxima lie where the histograms say.
fn assert_sums(totals: &Totals) {
    for (name, total) in totals.all() {
        let (mut least, mut most) = (0.0, 0.0);
        for (&bucket, &count) in &total.fine {
            let (low, high) = blkiolatd::histogram::bucket_bounds_ns(bucket.into());
            least += low as f64 / 1e3 * count as f64;
            most += high as f64 / 1e3 * count as f64;
        }
        let slack = most * 1e-9; // of floating point
        assert!((least - slack..=most + slack).contains(&total.sum_us), "{name}: {total:?}");
        assert!(total.max_us <= total.sum_us + slack, "{name}: {total:?}");
    }
}

/// How often a load may be repeated until the kernel skipped no program.
pub const ATTEMPTS: u32 = 8;

/// Runs `load` on an idle disk under a daemon, and compares; again, until nothing was lost, so that
/// the counts were seen to be equal.
fn measured<T>(disk: &Loop, load: impl FnMut() -> T) -> (Run, Stat, Totals, T) {
    measured_with(|| Launch::of(&[disk]), disk, load)
}

/// The same under another daemon.
pub fn measured_with<T>(
    launch: impl Fn() -> Launch,
    disk: &Loop,
    mut load: impl FnMut() -> T,
) -> (Run, Stat, Totals, T) {
    for _ in 0..ATTEMPTS {
        let trace = Trace::start(disk, &[EMPTY_FLUSHES]);
        let before = disk.stat();
        let daemon = launch().start();
        let result = load();
        let after = disk.stat();
        let run = daemon.stop().kept();
        assert_eq!(disk.stat(), after, "somebody else uses the disk");
        let kernel = after.since(before);
        let totals = assert_equal(&run, disk, kernel, empty_flushes(&trace.stop()));
        match run.lost(&disk.name) {
            0 => return (run, kernel, totals, result),
            lost => println!("again: the kernel skipped programs, {lost} requests are lost"),
        }
    }
    panic!("requests were lost {ATTEMPTS} times in a row");
}

/// The same for a load that is one run of fio; fio's own counts of bytes have to agree, too.
fn measured_fio(disk: &Loop, job: &str) -> (Run, Stat, Totals, Report) {
    let (run, kernel, totals, report) = measured(disk, || Fio::new().job(disk, job).run());
    assert_eq!(totals.read.bytes, report.read_bytes);
    assert_eq!(totals.write.bytes, report.write_bytes);
    let busy = run.windows_of(&disk.name).len();
    assert!(busy > 1, "the load spans {busy} windows, which proves little");
    (run, kernel, totals, report)
}

#[test]
fn random_requests_of_any_depth() {
    needs!("fio");
    for mode in [Mode::Buffered, Mode::Direct] {
        let disk = Loop::new(64, mode);
        for (engine, depth) in
            [("libaio", 1), ("io_uring", 8), ("libaio", 64), ("io_uring", 128), ("libaio", 256)]
        {
            let job = format!(
                "--rw=randrw --bs=4k --ioengine={engine} --iodepth={depth} --time_based --runtime=400ms"
            );
            let (run, _, totals, report) = measured_fio(&disk, &job);
            // Random requests are not merged: one for each that fio asked for.
            assert_eq!(totals.read.requests, report.reads);
            assert_eq!(totals.write.requests, report.writes);
            assert!(totals.read.requests > 0 && totals.write.requests > 0);
            let most = run.inflight_max(&disk.name);
            assert!((1..=depth).contains(&most), "{most} in flight of {depth}");
        }
    }
}

#[test]
fn merged_and_unmerged_sequential_requests() {
    needs!("fio");
    let disk = Loop::new(64, Mode::Buffered);
    for (nomerges, rw) in [("0", "read"), ("0", "write"), ("2", "read"), ("2", "write")] {
        disk.set("queue/nomerges", nomerges);
        let job = format!(
            "--rw={rw} --bs=4k --ioengine=libaio --iodepth=64 --iodepth_batch_submit=32 \
             --iodepth_batch_complete_min=32 --time_based --runtime=400ms"
        );
        let (_, kernel, totals, report) = measured_fio(&disk, &job);
        let merges = kernel.read_merges + kernel.write_merges;
        let requests = totals.read.requests + totals.write.requests;
        assert_eq!(requests + merges, report.reads + report.writes);
        assert_eq!(merges > 0, nomerges == "0", "{merges} merges with nomerges {nomerges}");
    }
}

#[test]
fn requests_through_a_scheduler() {
    needs!("fio");
    let disk = Loop::new(64, Mode::Buffered);
    let schedulers = disk.read("queue/scheduler");
    for scheduler in ["mq-deadline", "kyber", "bfq"] {
        if !schedulers.contains(scheduler) {
            println!("skipped: this kernel has no {scheduler}");
            continue;
        }
        disk.set("queue/scheduler", scheduler);
        let job = "--rw=randrw --bs=4k --ioengine=libaio --iodepth=64 --fsync=20 --time_based \
                   --runtime=400ms";
        let (_, _, totals, report) = measured_fio(&disk, job);
        assert_eq!(totals.write.requests, report.writes);
        assert!(totals.flush.requests > 0);
    }
}

#[test]
fn several_disks_and_jobs_at_once() {
    needs!("fio");
    let disks =
        [Loop::new(64, Mode::Buffered), Loop::new(64, Mode::Direct), Loop::new(64, Mode::Buffered)];
    let [a, b, c] = &disks;
    let timed = "--time_based --runtime=1500ms";
    let load = Fio::new()
        .job(a, &format!("--rw=randread --bs=4k --ioengine=io_uring --iodepth=32 {timed}"))
        .job(a, &format!("--rw=randwrite --bs=16k --ioengine=libaio --iodepth=8 {timed}"))
        .job(b, &format!("--rw=rw --bs=64k --ioengine=libaio --iodepth=4 --fsync=8 {timed}"))
        .job(b, &format!("--rw=randread --bs=512 --ioengine=psync {timed}"))
        .job(c, &format!("--rw=randtrim --bs=64k --ioengine=psync {timed}"))
        .job(c, &format!("--rw=randread --bs=4k --ioengine=io_uring --iodepth=4 {timed}"));
    let traces = disks.each_ref().map(|disk| Trace::start(disk, &[EMPTY_FLUSHES]));
    let before = disks.each_ref().map(Loop::stat);
    let daemon = Launch::of(&[a, b, c]).start();
    let report = load.run();
    let after = disks.each_ref().map(Loop::stat);
    let run = daemon.stop().kept();
    let mut all = Vec::new();
    let mut lost = 0;
    for (((disk, trace), before), after) in disks.iter().zip(traces).zip(before).zip(after) {
        let empty = empty_flushes(&trace.stop());
        all.push(assert_equal(&run, disk, after.since(before), empty));
        lost = lost.max(run.lost(&disk.name));
    }
    if lost == 0 {
        let sum = |of: fn(&Totals) -> u64| all.iter().map(of).sum::<u64>();
        assert_eq!(sum(|totals| totals.read.bytes), report.read_bytes);
        assert_eq!(sum(|totals| totals.write.bytes), report.write_bytes);
        assert_eq!(sum(|totals| totals.discard.bytes), report.trim_bytes);
        assert_eq!(sum(|totals| totals.discard.requests), report.trims);
    }
    assert!(all[1].flush.requests > 0 && all[2].discard.requests > 0);
    let mut names: Vec<_> = disks.iter().map(|disk| disk.name.clone()).collect();
    names.sort();
    assert_eq!(run.names(), names);
}

#[test]
fn a_storm_of_fsyncs_on_ext4() {
    needs!("fio", "mkfs.ext4");
    let disk = Loop::new(256, Mode::Buffered);
    run(&["mkfs.ext4", "-q", disk.node()]);
    let trace = Trace::start(&disk, &[REQUESTS[0], REQUESTS[1], EMPTY_FLUSHES]);
    let before = disk.stat();
    let daemon = Launch::of(&[&disk]).start();
    // Not earlier: the kernel begins to write to a file system as soon as it is mounted.
    let mount = Mount::new(&disk);
    let writers =
        "--rw=randwrite --bs=4k --size=1m --fsync=1 --ioengine=psync --time_based --runtime=1";
    let load = (0..8).fold(Fio::new(), |fio, writer| {
        fio.job_on(&mount.path().join(format!("file{writer}")), writers)
    });
    let report = load.run();
    // The end of the file system's own writing.
    drop(mount);
    let after = disk.stat();
    let run = daemon.stop().kept();
    let events = trace.stop();
    let kernel = after.since(before);
    let empty = empty_flushes(&events);
    let ours = assert_equal(&run, &disk, kernel, empty);

    assert!(report.syncs > 0 && empty > 0 && kernel.flushes > 0);
    // What was issued, by the kernel's own trace. Nothing is requeued here.
    let issued = |operation: char| {
        let of = |event: &&Event| {
            event.name == "block_rq_issue"
                && event.rwbs.trim_start_matches('F').starts_with(operation)
        };
        events.iter().filter(of).count() as u64
    };
    let flushes =
        events.iter().filter(|e| e.name == "block_rq_issue" && e.rwbs.starts_with("FF")).count();
    assert_eq!(ours.requeues, 0);
    let lost = run.lost(&disk.name);
    for (counted, issued) in [
        (ours.write.requests, issued('W')),
        (ours.read.requests, issued('R')),
        (ours.flush.requests, flushes as u64),
    ] {
        assert!((issued - lost.min(issued)..=issued).contains(&counted), "{counted} of {issued}");
    }
    // The kernel completed more than it issued: it is those that must not be counted.
    let completed = events.iter().filter(|event| event.name == "block_rq_complete").count() as u64;
    let counted: u64 = ours.all().iter().map(|(_, total)| total.requests).sum();
    assert!(completed >= counted + empty, "{completed} {counted} {empty}");
}

#[test]
fn mkfs_with_discard() {
    needs!("mkfs.ext4", "blkdiscard");
    let disk = Loop::new(256, Mode::Buffered);
    let (_, kernel, totals, ()) = measured(&disk, || {
        run(&["mkfs.ext4", "-q", "-E", "discard,lazy_itable_init=0", disk.node()]);
        run(&["blkdiscard", "--step", "1MiB", disk.node()]);
    });
    assert!(kernel.discards >= 256 && totals.write.requests > 0, "{kernel:?}");
}

#[test]
fn write_zeroes_are_other_and_their_failure_is_an_error() {
    needs!("mkfs.ext4", "blkdiscard");
    // A file system that can zero a range, and one that cannot: tmpfs.
    let outer = Loop::new(128, Mode::Buffered);
    run(&["mkfs.ext4", "-q", outer.node()]);
    let mount = Mount::new(&outer);
    let file = mount.path().join("disk");
    std::fs::File::create(&file).unwrap().set_len(32 << 20).unwrap();
    for (disk, able) in
        [(Loop::over(&file, Mode::Buffered), true), (Loop::new(32, Mode::Buffered), false)]
    {
        let (_, _, totals, ()) = measured(&disk, || {
            run(&["blkdiscard", "--zeroout", disk.node()]);
        });
        assert!(
            totals.other.requests > 0,
            "this kernel's loop driver zeroes no ranges: {totals:?}"
        );
        assert_eq!(totals.other.errors, if able { 0 } else { totals.other.requests }, "{totals:?}");
        // Where it failed, the kernel wrote zeroes instead.
        assert_eq!(totals.write.requests == 0, able, "{totals:?}");
    }
}

#[test]
fn a_read_that_completes_in_parts() {
    needs!("dd");
    let disk = Loop::new(8, Mode::Direct);
    // The file ends inside the third request of 64 KiB; the disk keeps its size.
    std::fs::File::options().write(true).open(&disk.file).unwrap().set_len(160 << 10).unwrap();
    let (_, kernel, totals, ()) = measured(&disk, || {
        let source = format!("if={}", disk.node());
        let words = ["dd", &source, "of=/dev/null", "bs=64k", "count=4", "iflag=direct"];
        let output = crate::fixture::command(words[0]).args(&words[1..]).output().unwrap();
        assert!(!output.status.success(), "the loop driver read beyond the end of its file");
    });
    assert_eq!(totals.read.errors, 1, "{totals:?} {kernel:?}");
    assert_eq!(totals.read.requests, 3, "{totals:?} {kernel:?}");
    assert!(totals.requeues > 0, "{totals:?}");
}
