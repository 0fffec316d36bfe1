//! The two probes on the same load.

use crate::counts::assert_equal;
use crate::daemon::{Launch, Total, Totals};
use crate::fio::Fio;
use crate::fixture::{Loop, Mode, needs, run};
use crate::trace::{EMPTY_FLUSHES, Trace, empty_flushes};

#[test]
fn both_probes_agree() {
    needs!("fio", "blkdiscard");
    let disk = Loop::new(64, Mode::Buffered);
    let trace = Trace::start(&disk, &[EMPTY_FLUSHES]);
    let before = disk.stat();
    let probes = ["btf", "tracepoint"];
    let daemons = probes.map(|probe| Launch::of(&[&disk]).arguments(&["--probe", probe]).start());
    let timed = "--time_based --runtime=1";
    let reads = "--rw=read --bs=4k --ioengine=libaio --iodepth=32 --iodepth_batch_submit=16";
    let writes = "--rw=write --bs=16k --ioengine=libaio --iodepth=16 --fsync=32";
    let fio = Fio::new().job(&disk, &format!("{reads} {timed}"));
    fio.job(&disk, &format!("{writes} {timed}")).run();
    run(&["blkdiscard", "--step", "4MiB", disk.node()]);
    run(&["blkdiscard", "--zeroout", disk.node()]);
    let kernel = disk.stat().since(before);
    let runs = daemons.map(|daemon| daemon.stop().kept());
    let empty = empty_flushes(&trace.stop());
    let [btf, classic] = runs.each_ref().map(|run| assert_equal(run, &disk, kernel, empty));
    assert!(btf.flush.requests > 0 && btf.discard.requests > 0);
    // The kernel lets a classic program interrupt no other: that probe loses some, and says so.
    let lost = runs.map(|run| run.lost(&disk.name));
    println!("lost by {probes:?}: {lost:?}");
    agree(&btf, &classic, lost[0] + lost[1]);
}

fn agree(btf: &Totals, classic: &Totals, lost: u64) {
    for ((name, ours), (_, theirs)) in btf.all().into_iter().zip(classic.all()) {
        assert!(ours.requests.abs_diff(theirs.requests) <= lost, "{name}: {ours:?} {theirs:?}");
        if lost == 0 {
            assert_eq!((ours.bytes, ours.errors), (theirs.bytes, theirs.errors), "{name}");
        }
        if ours.requests < 1000 {
            continue;
        }
        // The programs run one after the other, so each sees a latency that differs by the time of
        // the other: about a microsecond of these tens to hundreds.
        let mean = |total: &Total| total.sum_us / total.requests as f64;
        let difference = (mean(ours) / mean(theirs) - 1.0).abs();
        let [ours_slots, theirs_slots] = [ours, theirs].map(slots);
        let moved: u64 = (0..40).map(|slot| ours_slots[slot].abs_diff(theirs_slots[slot])).sum();
        let moved = moved.saturating_sub(lost) as f64 / 2.0 / ours.requests as f64;
        println!(
            "{name}: means differ by {:.2} %, {:.2} % of the requests lie in another slot",
            difference * 100.0,
            moved * 100.0
        );
        assert!(difference < 0.05, "{name}: {ours:?} {theirs:?}");
        assert!(moved < 0.1, "{name}: {ours_slots:?} {theirs_slots:?}");
    }
}

fn slots(total: &Total) -> [u64; 40] {
    let mut slots = [0; 40];
    for (&bucket, &count) in &total.fine {
        slots[blkiolatd::histogram::slot_of_bucket(bucket.into())] += count;
    }
    slots
}
