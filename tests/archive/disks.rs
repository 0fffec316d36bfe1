//! Disks that are full, read-only, stuck or broken.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use blkiolatd::archive::{Start, Writer, WriterHandle};

use super::support::*;

#[test]
fn a_full_disk_that_empties_again() {
    if !is_root("a_full_disk_that_empties_again") {
        return;
    }
    for kind in ["tmpfs", "ext4", "xfs", "btrfs"] {
        let mount = if kind == "tmpfs" { Mount::tmpfs("256k") } else { Mount::disk(kind) };
        let dir = mount.point.join("log");
        fs::create_dir(&dir).unwrap();
        let mut settings = settings(&dir);
        settings.output.flush_every = 3;
        let writer = spawn(&settings);
        (0..10).for_each(|seq| writer.push(record(seq)));
        writer.flush(AGES).unwrap();
        fill(&mount.point.join("filler"));
        // What is left of the last block takes a few more lines.
        let mut seq = 10;
        until("the disk is full", || {
            writer.push(record(seq));
            seq += 1;
            let status = writer.status();
            status.last_error.is_some_and(|error| !error.over && error.message.contains("No space"))
        });
        // Nothing torn is visible meanwhile.
        assert!(records(&dir).len() >= 10);
        (seq..seq + 1000).for_each(|seq| writer.push(record(seq)));
        let status = writer.status();
        assert!(status.dropped >= 280, "{status:?}");
        fs::remove_file(mount.point.join("filler")).unwrap();
        writer.flush(AGES).unwrap();
        assert!(writer.status().last_error.unwrap().over);
        writer.close(AGES).unwrap();
        assert_gaps_are_counted(&records(&dir), seq + 1000);
    }
}

#[test]
fn a_disk_that_is_read_only_for_a_while() {
    if !is_root("a_disk_that_is_read_only_for_a_while") {
        return;
    }
    let mount = Mount::disk("ext4");
    let point = mount.point.to_str().unwrap();
    let dir = mount.point.join("log");
    fs::create_dir(&dir).unwrap();
    command(&["mount", "-o", "remount,ro", point]);
    let error = Writer::spawn(settings(&dir), Start::Strict).unwrap_err();
    assert!(error.to_string().contains("Read-only"), "{error}");
    let writer = Writer::spawn(settings(&dir), Start::Patient).unwrap();
    (0..10).for_each(|seq| writer.push(record(seq)));
    command(&["mount", "-o", "remount,rw", point]);
    writer.flush(AGES).unwrap();
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(&dir), 10);
}

#[test]
fn a_frozen_disk_stops_nobody() {
    if !is_root("a_frozen_disk_stops_nobody") {
        return;
    }
    let mount = Mount::disk("ext4");
    let point = mount.point.to_str().unwrap().to_owned();
    let dir = mount.point.join("log");
    fs::create_dir(&dir).unwrap();
    let writer = spawn(&settings(&dir));
    writer.push(record(0));
    writer.flush(AGES).unwrap();
    command(&["fsfreeze", "--freeze", &point]);
    // Thawed even if an assertion fails: unmounting would hang.
    struct Thaw(String);
    impl Drop for Thaw {
        fn drop(&mut self) {
            let _ = Command::new("fsfreeze").args(["--unfreeze", &self.0]).status();
        }
    }
    let thaw = Thaw(point);
    (1..1500).for_each(|seq| writer.push(record(seq)));
    until("the thread is in the kernel", || writer.status().in_call.is_some());
    let status = writer.status();
    assert!(status.healthy(Instant::now() + AGES, Duration::ZERO), "{status:?}");
    assert!(status.dropped > 0);
    drop(thaw);
    writer.flush(AGES).unwrap();
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(&dir), 1500);
}

#[test]
fn closing_does_not_wait_for_a_frozen_disk() {
    if !is_root("closing_does_not_wait_for_a_frozen_disk") {
        return;
    }
    let mount = Mount::disk("ext4");
    let point = mount.point.to_str().unwrap().to_owned();
    let writer = spawn(&settings(&mount.point));
    writer.push(record(0));
    writer.flush(AGES).unwrap();
    command(&["fsfreeze", "--freeze", &point]);
    writer.push(record(1));
    let result = writer.close(Duration::from_millis(200));
    command(&["fsfreeze", "--unfreeze", &point]);
    let error = result.unwrap_err();
    assert_eq!(error.lost, 1, "{error}");
}

/// Whether the newest failure, which is not over, says `what`.
fn fails_with(writer: &WriterHandle, what: &str) -> bool {
    writer.status().last_error.is_some_and(|error| !error.over && error.message.contains(what))
}

#[test]
fn a_quota_that_is_used_up() {
    if !is_root("a_quota_that_is_used_up") {
        return;
    }
    let mount = Mount::disk("btrfs");
    let point = mount.point.to_str().unwrap();
    let dir = mount.point.join("log");
    command(&["btrfs", "-q", "subvolume", "create", dir.to_str().unwrap()]);
    command(&["btrfs", "quota", "enable", point]);
    command(&["btrfs", "qgroup", "limit", "2M", dir.to_str().unwrap()]);
    let writer = spawn(&settings(&dir));
    (0..10).for_each(|seq| writer.push(record(seq)));
    writer.rotate_now();
    writer.flush(AGES).unwrap();
    until("an archive", || names(&dir).iter().any(|name| name.ends_with(".gz")));
    fill(&dir.join("filler"));
    let mut seq = 10;
    until("the quota is used up", || {
        writer.push(record(seq));
        seq += 1;
        fails_with(&writer, "quota exceeded")
    });
    (seq..seq + 1000).for_each(|seq| writer.push(record(seq)));
    seq += 1000;
    assert!(writer.status().dropped >= 280, "{:?}", writer.status());
    // An archive is not what stands in the way.
    assert!(names(&dir).iter().any(|name| name.ends_with(".gz")));
    fs::remove_file(dir.join("filler")).unwrap();
    // The quota is given back when the file system has noticed.
    command(&["btrfs", "filesystem", "sync", point]);
    writer.flush(AGES).unwrap();
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(&dir), seq);
}

#[test]
fn a_directory_in_which_nothing_can_be_renamed() {
    if !is_root("a_directory_in_which_nothing_can_be_renamed") {
        return;
    }
    let mount = Mount::disk("ext4");
    let dir = mount.point.join("log");
    fs::create_dir(&dir).unwrap();
    let writer = spawn(&settings(&dir));
    writer.push(record(0));
    writer.flush(AGES).unwrap();
    command(&["chattr", "+i", dir.to_str().unwrap()]);
    for seq in 1..20 {
        writer.push(record(seq));
        writer.rotate_now();
    }
    writer.flush(AGES).unwrap();
    // Rotation has to wait; recording does not.
    assert_eq!(names(&dir), [".b.lock", "b.jsonl"]);
    assert_eq!(read(&dir.join("b.jsonl")).len(), 20);
    command(&["chattr", "-i", dir.to_str().unwrap()]);
    writer.push(record(20));
    writer.flush(AGES).unwrap();
    assert!(names(&dir).iter().any(|name| name.starts_with("b-")), "{:?}", names(&dir));
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(&dir), 21);
}

/// A disk whose every request fails, as when it was pulled out; then another with the same content
/// comes into its place.
#[test]
fn a_disk_that_dies_and_is_replaced() {
    if !is_root("a_disk_that_dies_and_is_replaced") {
        return;
    }
    // The disk is a loop device over a file in an outer file system, which can be made to fail.
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = |name: &str| home.path().join(name);
    let (outer, point) = (path("outer"), path("mnt"));
    let mount = |image: &Path, point: &Path| {
        command(&["mount", "-o", "loop", image.to_str().unwrap(), point.to_str().unwrap()]);
    };
    struct Unmount<'a>([&'a Path; 2]);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            self.0.into_iter().for_each(unmount_later);
        }
    }
    fs::create_dir(&outer).unwrap();
    fs::create_dir(&point).unwrap();
    make_file_system("ext4", &path("image"));
    fs::File::options().write(true).open(path("image")).unwrap().set_len(64 << 20).unwrap();
    command(&["mkfs.ext4", "-q", "-F", path("image").to_str().unwrap()]);
    let _unmount = Unmount([&point, &outer]);
    mount(&path("image"), &outer);
    make_file_system("ext4", &outer.join("disk"));
    mount(&outer.join("disk"), &point);
    let dir = point.join("log");
    fs::create_dir(&dir).unwrap();
    let mut settings = settings(&dir);
    settings.output.fsync = true;
    let writer = spawn(&settings);
    (0..10).for_each(|seq| writer.push(record(seq)));
    writer.rotate_now();
    (10..20).for_each(|seq| writer.push(record(seq)));
    writer.flush(AGES).unwrap();

    cut_power(&outer);
    (20..1500).for_each(|seq| writer.push(record(seq)));
    until("the disk fails", || {
        fails_with(&writer, "Input/output error") || fails_with(&writer, "Read-only")
    });
    let status = writer.status();
    assert!(status.dropped > 0 && status.healthy(Instant::now(), AGES), "{status:?}");

    unmount_later(&point);
    unmount_later(&outer);
    // Not the dead file system again, which the writer still has open.
    command(&["cp", path("image").to_str().unwrap(), path("image-2").to_str().unwrap()]);
    mount(&path("image-2"), &outer);
    mount(&outer.join("disk"), &point);
    writer.flush(AGES).unwrap();
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(&dir), 1500);
}
