//! Requests in flight, against the kernel's own counts.

use blkiolatd::record::Record;
use jiff::Timestamp;

use crate::daemon::Launch;
use crate::fio::Fio;
use crate::fixture::{Frozen, Loop, Mode, Mount, needs, run, wait_until};

#[test]
fn requests_that_hang_are_seen_while_they_hang_and_counted_once() {
    needs!("fio", "fsfreeze", "mkfs.ext4", "mount");
    const DEPTH: u64 = 16;
    let outer = Loop::new(256, Mode::Buffered);
    run(&["mkfs.ext4", "-q", outer.node()]);
    let mount = Mount::new(&outer);
    let file = mount.path().join("disk");
    std::fs::write(&file, vec![0; 32 << 20]).unwrap();
    let disk = Loop::over(&file, Mode::Buffered);
    let before = disk.stat();
    let mut daemon = Launch::of(&[&disk]).start();

    let load;
    let frozen = Frozen::new(&mount);
    let job = format!(
        "--rw=randwrite --bs=4k --ioengine=libaio --iodepth={DEPTH} --size=16m --number_ios={DEPTH}"
    );
    load = Fio::new().job(&disk, &job).start();
    wait_until("all writes hang", || disk.inflight() == [0, DEPTH]);
    let held_from = Timestamp::now();
    daemon.wait_windows(15);
    assert_eq!(disk.inflight(), [0, DEPTH]);
    let held_until = Timestamp::now();
    drop(frozen);
    load.wait();
    let kernel = disk.stat().since(before);
    let run = daemon.stop().kept();

    // Windows that lie in that time altogether. A window ends a moment after its timestamp was
    // taken, so the last of them may end too late.
    let unix = |time: Timestamp| time.as_microsecond() as f64 / 1e6;
    let mut held: Vec<&Record> = run.records.iter().collect();
    held.retain(|r| r.timestamp - r.window_s > unix(held_from) && r.timestamp < unix(held_until));
    held.pop();
    assert!(held.len() >= 10);
    let mut oldest_us = 0.0;
    for record in &held {
        assert_eq!(record.latency_histogram, [], "nothing completes");
        let [inflight] = record.inflight.as_slice() else { panic!("{record:?}") };
        assert_eq!(inflight.device_name, disk.name);
        assert_eq!((inflight.count, inflight.max), (DEPTH, DEPTH), "{record:?}");
        assert!((inflight.mean - DEPTH as f64).abs() <= 1e-3 * DEPTH as f64, "{record:?}");
        if oldest_us > 0.0 {
            // Both are read by the same clock at the same time; the window is rounded to 1 us.
            let grown = inflight.oldest_us - oldest_us;
            assert!((grown - record.window_s * 1e6).abs() < 1.0, "{grown} {record:?}");
        }
        oldest_us = inflight.oldest_us;
    }
    let totals = run.totals(&disk.name);
    assert_eq!((totals.write.requests, kernel.writes), (DEPTH, DEPTH));
    assert!(totals.write.max_us > oldest_us, "{totals:?}");
    // All of them hung in all of these windows.
    let span: f64 = held.iter().map(|record| record.window_s * 1e6).sum();
    assert!(totals.write.sum_us > span * DEPTH as f64, "{totals:?}");
    assert_eq!(run.records.last().unwrap().inflight, [], "nothing stays behind");
}

/// More than one system call reads, and in a table that is so small that they end anywhere.
#[test]
fn all_of_very_many_requests_are_seen() {
    needs!("fio", "fsfreeze", "mkfs.ext4", "mount");
    const DISKS: usize = 20;
    const DEPTH: u64 = 120;
    let outer = Loop::new(256, Mode::Buffered);
    run(&["mkfs.ext4", "-q", outer.node()]);
    let mount = Mount::new(&outer);
    let disks: Vec<Loop> = (0..DISKS)
        .map(|number| {
            let file = mount.path().join(format!("disk{number}"));
            std::fs::write(&file, vec![0; 4 << 20]).unwrap();
            Loop::over(&file, Mode::Buffered)
        })
        .collect();
    let all: Vec<&Loop> = disks.iter().collect();
    let mut daemon = Launch::of(&all)
        .arguments(&["--probe", "tracepoint"])
        .tables(&format!("pending={}", DISKS as u64 * DEPTH * 5 / 4))
        .start();
    let load;
    let frozen = Frozen::new(&mount);
    let job = format!(
        "--rw=randwrite --bs=4k --ioengine=libaio --iodepth={DEPTH} --size=4m --number_ios={DEPTH}"
    );
    load = disks.iter().fold(Fio::new(), |fio, disk| fio.job(disk, &job)).start();
    wait_until("all writes hang", || disks.iter().all(|disk| disk.inflight() == [0, DEPTH]));
    daemon.wait_windows(5);
    assert!(disks.iter().all(|disk| disk.inflight() == [0, DEPTH]));
    drop(frozen);
    load.wait();
    let run = daemon.stop().kept();
    let in_flight = |record: &Record| record.inflight.iter().map(|disk| disk.count).sum::<u64>();
    let most = run.records.iter().map(in_flight).max().unwrap();
    let missed: u64 = run.records.iter().map(|record| record.audit.probe_misses).sum();
    let expected = DISKS as u64 * DEPTH;
    assert!(
        (expected - missed..=expected).contains(&most),
        "{most} of {expected}, {missed} missed"
    );
}

#[test]
fn the_mean_obeys_littles_law() {
    needs!("fio");
    let disk = Loop::new(256, Mode::Buffered);
    disk.set("queue/scheduler", "none");
    // Long requests, fewer than the queue holds: next to no time passes before the issue.
    let mut judged = 0;
    for depth in [8, 32].into_iter().cycle().take(8) {
        if judged == 2 {
            break;
        }
        let before = disk.stat();
        let daemon = Launch::of(&[&disk]).start();
        let job = format!(
            "--rw=read --bs=256k --ioengine=libaio --iodepth={depth} --time_based --runtime=1"
        );
        Fio::new().job(&disk, &job).run();
        let kernel = disk.stat().since(before);
        let run = daemon.stop().kept();
        if run.lost(&disk.name) > 0 {
            println!("again: the kernel skipped programs");
            continue;
        }
        // Idle at both ends: the time that requests spent in flight is that of those completed.
        let ours = run.inflight_seconds(&disk.name);
        let totals = run.totals(&disk.name);
        let latencies = totals.read.sum_us / 1e6;
        let windows = run.records.iter().filter(|record| !record.inflight.is_empty()).count();
        // Means are rounded to 1e-4 of a request, over windows of some 50 ms; requests may
        // complete while the window's end is read.
        assert!(
            (ours - latencies).abs() <= 0.002 * latencies + windows as f64 * 1e-4,
            "{ours} s in flight, {latencies} s of latencies"
        );
        let truth = kernel.queue_ms as f64 / 1e3;
        println!("depth {depth}: {ours} s in flight, the kernel says {truth}");
        assert!(ours <= truth + 0.002, "{ours} s in flight, the kernel says {truth}");
        assert!(ours >= 0.9 * truth, "{ours} s in flight, the kernel says {truth}");
        assert_eq!(run.inflight_max(&disk.name), depth);
        judged += 1;
    }
    assert_eq!(judged, 2, "requests were lost again and again");
}
