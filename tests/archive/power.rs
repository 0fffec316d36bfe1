//! Power failures, as file systems see them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::*;

#[test]
fn nothing_flushed_is_lost_by_power_failures_on_ext4() {
    if is_root("nothing_flushed_is_lost_by_power_failures_on_ext4") {
        power_fails("ext4", 30);
    }
}

#[test]
fn nothing_flushed_is_lost_by_power_failures_on_xfs() {
    if is_root("nothing_flushed_is_lost_by_power_failures_on_xfs") {
        power_fails("xfs", 10);
    }
}

/// Lives that end with the power, with `fsync`; then everything that was reported as flushed is there.
fn power_fails(kind: &str, rounds: u64) {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let (image, point) = (home.path().join("image"), home.path().join("mnt"));
    let after = home.path().join("image-after-power-failure");
    fs::create_dir(&point).unwrap();
    make_file_system(kind, &image);
    let mount =
        || command(&["mount", "-o", "loop", image.to_str().unwrap(), point.to_str().unwrap()]);
    let unmount = || {
        until("unmounted", || {
            Command::new("umount").arg(&point).stderr(Stdio::null()).status().unwrap().success()
        });
    };
    // For a test that fails half-way; otherwise there is nothing left to unmount.
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            unmount_later(&self.0);
        }
    }
    let _unmount = Unmount(point.clone());
    let dir = point.join("log");
    let mut settings = settings(&dir);
    settings.output.flush_every = 3;
    settings.output.fsync = true;
    settings.rotation.max_size = 8000;
    mount();
    fs::create_dir(&dir).unwrap();
    command(&["sync", "-f", point.to_str().unwrap()]);
    let (mut next, mut flushed) = (0, Vec::new());
    for round in 0..rounds {
        let writer = spawn(&settings);
        let count = 3 + (round * 37) % 90;
        (next..next + count).for_each(|seq| writer.push(record(seq)));
        writer.flush(AGES).unwrap();
        flushed.extend(next..next + count);
        // These may or may not get there.
        (next + count..next + count + 20).for_each(|seq| writer.push(record(seq)));
        next += 1000;
        cut_power(&point);
        // It cannot write the rest, and says so; how much that is depends on its speed.
        let _ = writer.close(Duration::from_millis(20));
        unmount();
        // A container that was started meanwhile may still have the dead file system mounted; the
        // same image would then be that one again.
        command(&["cp", "--sparse=always", image.to_str().unwrap(), after.to_str().unwrap()]);
        fs::remove_file(&image).unwrap();
        fs::rename(&after, &image).unwrap();
        mount();
    }
    let writer = spawn(&settings);
    until("everything is compressed", || {
        names(&dir).iter().all(|name| !name.starts_with("b-") || name.ends_with(".gz"))
    });
    writer.close(AGES).unwrap();
    let found: Vec<u64> = records(&dir).iter().map(|record| record.seq).collect();
    let leftovers = names(&dir);
    unmount();
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "twice or out of order");
    let missing: Vec<_> = flushed.iter().filter(|seq| found.binary_search(seq).is_err()).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    assert!(!leftovers.iter().any(|name| name.contains("tmp") || name.contains("lock")));
}
