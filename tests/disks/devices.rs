//! Disks that come, go, are left out, or are asked for by another name.

use std::fs::File;
use std::path::Path;

use crate::counts::assert_equal;
use crate::daemon::Launch;
use crate::fio::Fio;
use crate::fixture::{Loop, Mode, memory, needs, run, wait_until};

/// Reads `requests` times 4 KiB.
fn read(node: &str, requests: u64) {
    let (source, count) = (format!("if={node}"), format!("count={requests}"));
    run(&["dd", &source, "of=/dev/null", "bs=4k", &count, "iflag=direct"]);
}

#[test]
fn files_that_change_behind_one_number_lose_nothing() {
    needs!("dd");
    let directory = memory();
    let file = directory.path().join("disk");
    File::create(&file).unwrap().set_len(8 << 20).unwrap();
    let disk = Loop::over(&file, Mode::Buffered);
    let (name, node) = (disk.name.clone(), disk.node().to_owned());
    let path = file.to_str().unwrap();
    // The glob, not the name: the name stands for a disk that is not always there.
    let mut daemon = Launch::new().arguments(&["--device", &name]).start();
    let mut seqs = vec![disk.read("diskseq")];
    let mut expected = 0;
    for round in 1..=10 {
        read(&node, round);
        expected += round;
        if round % 3 == 0 {
            daemon.wait_windows(1);
        }
        run(&["losetup", "--detach", &node]);
        run(&["losetup", &node, path]);
        seqs.push(disk.read("diskseq"));
    }
    let run = daemon.stop().kept();
    seqs.dedup();
    assert_eq!(seqs.len(), 11, "the number stands for another disk each time");
    let totals = run.totals(&name);
    assert_eq!((totals.read.requests, totals.read.bytes), (expected, expected * 4096));
    assert_eq!(run.names(), [name]);
}

#[test]
fn a_disk_that_comes_later_is_measured_and_an_excluded_one_never() {
    needs!("dd");
    let excluded = Loop::new(8, Mode::Buffered);
    let configuration =
        format!("[sampling]\ninclude = [\"loop*\"]\nexclude = [\"{}\"]\n", excluded.name);
    let mut daemon = Launch::new().configuration(&configuration).start();
    read(excluded.node(), 10);
    daemon.wait_windows(1);
    let later = Loop::new(8, Mode::Buffered);
    read(later.node(), 20);
    read(excluded.node(), 10);
    let name = later.name.clone();
    later.detach();
    daemon.wait_windows(1);
    let run = daemon.stop();
    assert_eq!(run.totals(&name).read.requests, 20, "{:?}", run.names());
    assert!(!run.names().contains(&excluded.name), "{:?}", run.names());
}

#[test]
fn a_path_and_a_partition_stand_for_the_disk() {
    needs!("dd", "addpart");
    let disk = Loop::new(16, Mode::Buffered);
    run(&["losetup", "--detach", disk.node()]);
    run(&["losetup", "--partscan", disk.node(), disk.file.to_str().unwrap()]);
    // Told, because a kernel need not read partition tables: 4 MiB, 1 MiB into the disk.
    run(&["addpart", disk.node(), "1", "2048", "8192"]);
    let partition = format!("{}p1", disk.node());
    wait_until("the partition is there", || Path::new(&partition).exists());
    for asked in [disk.node(), &partition] {
        let before = disk.stat();
        let daemon = Launch::new().arguments(&["--device", asked]).start();
        read(&partition, 7);
        let kernel = disk.stat().since(before);
        let run = daemon.stop().kept();
        assert_eq!(assert_equal(&run, &disk, kernel, 0).read.requests, 7);
        assert_eq!(run.names(), std::slice::from_ref(&disk.name));
        let id = run.windows_of(&disk.name)[0].device_id;
        assert_eq!(id, disk.device_id());
    }
}

#[test]
fn a_reload_under_load_loses_and_splits_nothing() {
    needs!("fio");
    let [kept, other] = [(); 2].map(|()| Loop::new(64, Mode::Buffered));
    let include = |names: &[&str]| format!("[sampling]\ninclude = {names:?}\nexclude = []\n");
    let (one, both) = (include(&[&kept.name]), include(&[&kept.name, &other.name]));
    let before = [&kept, &other].map(Loop::stat);
    let mut daemon = Launch::new().configuration(&both).start();
    let load = "--rw=randread --bs=4k --ioengine=libaio --iodepth=16 --time_based --runtime=1h";
    let load = Fio::new().job(&kept, load).job(&other, load).start();
    for configuration in [&one, &both, &one, &both, &one] {
        let [kept_reads, other_reads] = [&kept, &other].map(|disk| disk.stat().reads);
        wait_until("both disks are read", || {
            kept.stat().reads > kept_reads && other.stat().reads > other_reads
        });
        daemon.wait_windows(3);
        daemon.reload(configuration);
    }
    // A wrong one changes nothing.
    daemon.reload("[sampling]\ninclude = 7\n");
    // Its requests in flight complete before it is gone.
    drop(load);
    let [kernel, other_kernel] =
        [(&kept, before[0]), (&other, before[1])].map(|(disk, before)| disk.stat().since(before));
    let run = daemon.stop().kept();
    assert!(run.stderr.contains("the old configuration stays in force"), "{}", run.stderr);
    assert_equal(&run, &kept, kernel, 0);
    let reads = run.totals(&other.name).read.requests;
    assert!(reads > 0 && reads < other_kernel.reads, "{reads} of {}", other_kernel.reads);
}
