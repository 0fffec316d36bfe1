//! What happens to files, and what does not happen to the files of others.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use super::*;
use crate::archive::disk::Operation;
use crate::archive::faults::Verdict;

fn gzip_agrees(path: &Path) {
    let status = Command::new("gzip").arg("-t").arg(path).status().unwrap();
    assert!(status.success(), "gzip -t {path:?}");
}

fn mkfifo(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
}

#[test]
fn a_segment_is_named_by_its_first_record_and_becomes_an_archive() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(3).unwrap();
    rig.rotate().unwrap();
    rig.write(2).unwrap();
    assert_eq!(list(dir.path()), [".b.lock", "b-20261122T154505.123Z.jsonl", "b.jsonl"]);
    assert!(rig.compress().is_empty());
    assert_eq!(list(dir.path()), [".b.lock", "b-20261122T154505.123Z.jsonl.gz", "b.jsonl"]);
    gzip_agrees(&dir.path().join("b-20261122T154505.123Z.jsonl.gz"));
    assert_eq!(read_all(&dir.path().join("b.jsonl")), [0, 1, 2, 3, 4]);
    rig.close();
    assert_eq!(list(dir.path()), ["b-20261122T154505.123Z.jsonl.gz", "b.jsonl"]);
    for name in list(dir.path()) {
        let mode = fs::metadata(dir.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{name}");
    }
}

#[test]
fn only_whole_batches_reach_the_file() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.output.flush_every = 3;
    let mut rig = Rig::opened(settings.clone());
    for expected in [0, 0, 3, 3, 3, 6] {
        rig.append();
        if rig.recorder.is_full() {
            rig.recorder.flush().unwrap();
        }
        assert_eq!(read_all(&settings.output.path).len(), expected);
    }
}

#[test]
fn lines_are_valid_records() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    let line = fs::read_to_string(dir.path().join("b.jsonl")).unwrap();
    let parsed: Record = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed, record(0, Moment::from_millis(1_795_362_305_123)));
}

#[test]
fn rotation_by_size_and_by_age() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.rotation.max_age = Duration::from_secs(20);
    let path = settings.output.path.clone();
    let mut rig = Rig::opened(settings.clone());
    rig.write(6).unwrap();
    let lines: Vec<_> = read_files(&path).into_iter().map(|(_, lines)| lines).collect();
    assert_eq!(lines, [vec![0, 1, 2, 3], vec![4, 5]]);

    settings.rotation.max_age = Duration::from_secs(1 << 30);
    settings.rotation.max_size = fs::metadata(&path).unwrap().len() + 10;
    rig.recorder.reconfigure(settings).unwrap();
    rig.write(3).unwrap();
    let lines: Vec<_> = read_files(&path).into_iter().map(|(_, lines)| lines).collect();
    assert_eq!(lines, [vec![0, 1, 2, 3], vec![4, 5], vec![6, 7], vec![8]]);
}

#[test]
fn the_age_survives_a_restart() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.rotation.max_age = Duration::from_secs(20);
    let mut rig = Rig::opened(settings.clone());
    rig.write(3).unwrap();
    rig.close();
    let clock = *rig.clock.lock().unwrap();
    let mut rig = Rig::opened(settings.clone());
    rig.set_wall(clock.0.millis() + 5000);
    rig.seq = 3;
    rig.write(1).unwrap();
    let lines: Vec<_> =
        read_files(&settings.output.path).into_iter().map(|(_, lines)| lines).collect();
    assert_eq!(lines, [vec![0, 1, 2], vec![3]]);
}

#[test]
fn a_clock_that_jumps_overwrites_nothing() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    let start = rig.clock.lock().unwrap().0.millis();
    for jump in [0, 0, -7_200_000, 0, 7_200_000, 0, -5, i64::MIN / 2, i64::MAX / 2] {
        // The same times again and again.
        rig.set_wall(start.saturating_add(jump));
        rig.write(2).unwrap();
        rig.rotate().unwrap();
        assert!(rig.compress().is_empty());
    }
    let files = read_files(&dir.path().join("b.jsonl"));
    let mut all: Vec<u64> = files.iter().flat_map(|(_, lines)| lines.clone()).collect();
    assert_eq!(files.len(), 10, "{files:?}");
    all.sort_unstable();
    assert_eq!(all, (0..18).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_continued() {
    let dir = directory();
    let settings = settings(dir.path());
    let path = &settings.output.path;
    let mut rig = Rig::opened(settings.clone());
    rig.write(3).unwrap();
    rig.close();
    let whole = fs::read(path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last..whole.len() {
        fs::write(path, &whole[..cut]).unwrap();
        let mut rig = Rig::opened(settings.clone());
        rig.seq = 7;
        rig.write(1).unwrap();
        rig.close();
        assert_eq!(read_all(path), [0, 1, 7], "cut at {cut}");
    }
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = directory();
    let settings = settings(dir.path());
    let path = &settings.output.path;
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let refused = |what: &str| {
        let error = Rig::new(settings.clone(), None).open().unwrap_err();
        assert!(!error.may_pass(), "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    };
    symlink(&victim, path).unwrap();
    refused("a symbolic link");
    assert!(fs::symlink_metadata(path).unwrap().is_symlink());
    fs::remove_file(path).unwrap();

    fs::hard_link(&victim, path).unwrap();
    refused("hard links");
    fs::remove_file(path).unwrap();

    mkfifo(path);
    refused("a FIFO");
    fs::remove_file(path).unwrap();

    fs::create_dir(path).unwrap();
    refused("a directory");
    fs::remove_dir(path).unwrap();

    fs::write(path, "my notes").unwrap();
    refused("did not write");
    assert_eq!(fs::read_to_string(path).unwrap(), "my notes");
    fs::remove_file(path).unwrap();

    let lock = dir.path().join(".b.lock");
    symlink(&victim, &lock).unwrap();
    refused("a symbolic link");
    fs::remove_file(&lock).unwrap();
    mkfifo(&lock);
    refused("a FIFO");
    fs::remove_file(&lock).unwrap();

    Rig::opened(settings.clone()).write(1).unwrap();
    assert_eq!(read_all(path), [0]);
}

#[test]
fn a_dangling_link_is_not_followed_either() {
    let dir = directory();
    let settings = settings(dir.path());
    symlink(dir.path().join("elsewhere"), &settings.output.path).unwrap();
    assert!(Rig::new(settings, None).open().is_err());
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn a_link_put_in_the_place_of_the_active_file_is_not_followed() {
    let dir = directory();
    let path = dir.path().join("b.jsonl");
    let victim = dir.path().join("victim");
    fs::write(&victim, "{\"timestamp\":1}\n").unwrap();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    symlink(&victim, &path).unwrap();
    let error = rig.write(1).unwrap_err();
    assert!(error.to_string().contains("a symbolic link"), "{error}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "{\"timestamp\":1}\n");
    fs::remove_file(&path).unwrap();
    rig.recorder.flush().unwrap();
    assert_eq!(read_all(&path), [1]);
}

#[test]
fn foreign_files_under_our_names_are_neither_compressed_nor_removed() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.retention.max_age = Duration::from_secs(1);
    let path = |name: &str| dir.path().join(name);
    fs::write(path("victim"), "precious").unwrap();
    symlink(path("victim"), path("b-20000101T000000.000Z.jsonl")).unwrap();
    mkfifo(&path("b-20000101T000001.000Z.jsonl"));
    fs::create_dir(path("b-20000101T000002.000Z.jsonl")).unwrap();
    symlink(path("victim"), path("b-20000101T000003.000Z.jsonl.gz")).unwrap();
    fs::create_dir(path("b-20000101T000004.000Z.jsonl.gz.tmp")).unwrap();
    symlink(path("victim"), path("b-20000101T000005.000Z.jsonl.gz.tmp")).unwrap();
    fs::write(path("b-20000101T000006.000Z.jsonl.bak"), "keep").unwrap();
    fs::write(path("a-20000101T000006.000Z.jsonl"), "keep").unwrap();
    let before = list(dir.path());
    let mut rig = Rig::opened(settings);
    rig.write(2).unwrap();
    rig.compress();
    rig.close();
    let after: Vec<_> = list(dir.path()).into_iter().filter(|name| name != "b.jsonl").collect();
    assert_eq!(after, before);
    assert_eq!(fs::read_to_string(path("victim")).unwrap(), "precious");
}

/// Found by fuzzing: where an archive could not be begun, what stood in its way was removed.
#[test]
fn what_is_in_the_way_of_an_archive_stays() {
    for kind in ["link", "fifo", "directory"] {
        let dir = directory();
        let partial = dir.path().join("b-20261122T154505.123Z.jsonl.gz.tmp");
        fs::write(dir.path().join("victim"), "precious").unwrap();
        match kind {
            "link" => symlink(dir.path().join("victim"), &partial).unwrap(),
            "fifo" => mkfifo(&partial),
            _ => fs::create_dir(&partial).unwrap(),
        }
        let mut rig = Rig::opened(settings(dir.path()));
        rig.write(1).unwrap();
        // The name's moment is taken, as by any other file of ours: this steps aside.
        rig.rotate().unwrap();
        assert!(dir.path().join("b-20261122T154505.124Z.jsonl").exists(), "{kind}");
        fs::rename(
            dir.path().join("b-20261122T154505.124Z.jsonl"),
            dir.path().join("b-20261122T154505.123Z.jsonl"),
        )
        .unwrap();
        let problems = rig.compress();
        assert!(matches!(problems[..], [(_, Problem::Io(_))]), "{kind}: {problems:?}");
        assert!(fs::symlink_metadata(&partial).is_ok(), "{kind}");
        assert_eq!(fs::read_to_string(dir.path().join("victim")).unwrap(), "precious");
    }
}

#[test]
fn a_link_swapped_in_for_a_segment_is_not_read() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    rig.rotate().unwrap();
    let segment = dir.path().join("b-20261122T154505.123Z.jsonl");
    fs::write(dir.path().join("secret"), "x".repeat(5000)).unwrap();
    fs::remove_file(&segment).unwrap();
    fs::hard_link(dir.path().join("secret"), &segment).unwrap();
    let problems = rig.compress();
    assert!(matches!(problems[..], [(_, Problem::Foreign)]), "{problems:?}");
    assert!(segment.exists());
}

#[test]
fn one_daemon_per_path() {
    let dir = directory();
    let mut settings = settings(dir.path());
    let mut rig = Rig::opened(settings.clone());
    let error = Rig::new(settings.clone(), None).open().unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    rig.write(1).unwrap();
    rig.rotate().unwrap();
    rig.write(1).unwrap();
    assert!(matches!(Rig::new(settings.clone(), None).open(), Err(OpenError::Locked { .. })));
    // Another output in the same directory is no conflict, also if its name begins alike.
    let path = std::mem::replace(&mut settings.output.path, dir.path().join("b-2.jsonl"));
    let mut other = Rig::opened(settings.clone());
    other.write(1).unwrap();
    settings.output.path = path;
    rig.close();
    Rig::opened(settings);
}

#[test]
fn a_lock_file_left_behind_is_no_obstacle() {
    let dir = directory();
    fs::write(dir.path().join(".b.lock"), "").unwrap();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    rig.close();
    assert_eq!(list(dir.path()), ["b.jsonl"]);
}

/// Lets the first daemon go, right when the second one takes the lock.
#[derive(Debug)]
struct GoesAtLock(Mutex<Option<GoesAway>>);

struct GoesAway(Rig);

impl std::fmt::Debug for GoesAway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GoesAway")
    }
}

impl Fault for GoesAtLock {
    fn verdict(&self, operation: Operation) -> Verdict {
        if operation == Operation::Lock
            && let Some(mut other) = self.0.lock().unwrap().take()
        {
            other.0.close();
        }
        Verdict::Go
    }

    fn shorten<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
    }
}

#[test]
fn the_lock_of_a_file_that_has_just_been_removed_is_not_enough() {
    let dir = directory();
    let first = Rig::opened(settings(dir.path()));
    let fault = Arc::new(GoesAtLock(Mutex::new(Some(GoesAway(first)))));
    let mut second = Rig::new(settings(dir.path()), Some(fault));
    second.open().unwrap();
    assert_eq!(list(dir.path()), [".b.lock", "b.jsonl"]);
    assert!(matches!(Rig::new(settings(dir.path()), None).open(), Err(OpenError::Locked { .. })));
}

#[test]
fn moved_away_by_logrotate() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(2).unwrap();
    fs::rename(dir.path().join("b.jsonl"), dir.path().join("b.jsonl.1")).unwrap();
    rig.write(2).unwrap();
    fs::rename(dir.path().join("b.jsonl"), dir.path().join("b.jsonl.2")).unwrap();
    // "create" of logrotate.
    fs::write(dir.path().join("b.jsonl"), "").unwrap();
    rig.write(2).unwrap();
    fs::remove_file(dir.path().join("b.jsonl")).unwrap();
    rig.write(1).unwrap();
    let lines = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap().lines().count();
    assert_eq!((lines("b.jsonl.1"), lines("b.jsonl.2")), (2, 2));
    assert_eq!(read_all(&dir.path().join("b.jsonl")), [6]);
}

#[test]
fn truncated_by_somebody() {
    let dir = directory();
    let settings = settings(dir.path());
    let path = &settings.output.path;
    let mut rig = Rig::opened(settings.clone());
    rig.write(4).unwrap();
    let cut = |size| OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
    cut(0);
    rig.write(2).unwrap();
    assert_eq!(read_all(path), [4, 5], "no hole of zeros");
    cut(fs::metadata(path).unwrap().len() - 5);
    rig.write(1).unwrap();
    assert_eq!(read_all(path), [4, 6], "no torn line");
    cut(1 << 20);
    rig.write(1).unwrap();
    assert_eq!(read_all(path), [4, 6, 7], "no zeros");
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"a note").unwrap();
    rig.write(1).unwrap();
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().filter(|line| *line == "a note").count(), 1);
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn the_directory_is_replaced_or_removed() {
    let dir = directory();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let mut rig = Rig::opened(settings(&home));
    rig.write(2).unwrap();
    fs::rename(&home, dir.path().join("old")).unwrap();
    let error = rig.write(1).unwrap_err().to_string();
    assert!(error.contains("make the directory"), "{error}");
    fs::write(&home, "a file").unwrap();
    assert!(rig.recorder.flush().is_err());
    fs::remove_file(&home).unwrap();
    fs::create_dir(&home).unwrap();
    rig.recorder.flush().unwrap();
    rig.write(1).unwrap();
    assert_eq!(read_all(&dir.path().join("old/b.jsonl")), [0, 1]);
    assert_eq!(read_all(&home.join("b.jsonl")), [2, 3]);
    assert!(matches!(Rig::new(settings(&home), None).open(), Err(OpenError::Locked { .. })));
}

#[test]
fn the_lock_file_is_removed() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    fs::remove_file(dir.path().join(".b.lock")).unwrap();
    rig.write(1).unwrap();
    assert!(matches!(Rig::new(settings(dir.path()), None).open(), Err(OpenError::Locked { .. })));
    assert_eq!(read_all(&dir.path().join("b.jsonl")), [0, 1]);
}

#[test]
fn the_total_size_holds_at_every_moment() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.retention.max_total_size = 200_000;
    settings.rotation.max_size = 20_000;
    let path = settings.output.path.clone();
    let mut rig = Rig::opened(settings);
    for round in 0..2000u32 {
        rig.write(1).unwrap();
        let used: u64 =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(used <= 200_000, "{used} bytes in round {round}");
        if round % 100 < 20 {
            rig.compress();
        }
    }
    let lines = read_all(&path);
    assert!(lines.len() > 200, "it keeps what fits: {}", lines.len());
    assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1), "the newest without a gap");
    assert_eq!(lines.last(), Some(&1999));
}

#[test]
fn old_archives_go_whole() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.retention.max_age = Duration::from_secs(100);
    let path = settings.output.path.clone();
    let mut rig = Rig::opened(settings);
    for _ in 0..10 {
        rig.write(4).unwrap();
        rig.rotate().unwrap();
    }
    let lines = read_all(&path);
    assert_eq!(lines, (20..40).collect::<Vec<_>>(), "those of the last 100 s");
}

#[test]
fn below_the_free_space_recording_pauses_and_resumes() {
    let dir = directory();
    let mut settings = settings(dir.path());
    let mut rig = Rig::opened(settings.clone());
    rig.write(2).unwrap();
    rig.rotate().unwrap();
    settings.retention.min_free_space = FreeSpace::Percent(100.0);
    rig.recorder.reconfigure(settings.clone()).unwrap();
    let error = rig.write(1).unwrap_err();
    assert!(matches!(error, WriteError::NoSpace { .. }), "{error}");
    assert_eq!(list(dir.path()), [".b.lock", "b.jsonl"], "the archives went first");
    rig.append();
    assert!(rig.recorder.flush().is_err());
    settings.retention.min_free_space = FreeSpace::Bytes(0);
    rig.recorder.reconfigure(settings.clone()).unwrap();
    rig.recorder.flush().unwrap();
    assert_eq!(read_all(&settings.output.path), [2, 3]);
}

#[test]
fn without_room_a_segment_stays_uncompressed() {
    let dir = directory();
    let mut settings = settings(dir.path());
    let mut rig = Rig::opened(settings.clone());
    rig.write(1).unwrap();
    rig.rotate().unwrap();
    settings.retention.max_total_size = 40_000;
    rig.recorder.reconfigure(settings).unwrap();
    let problems = rig.compress();
    assert!(matches!(problems[..], [(_, Problem::NoRoom)]), "{problems:?}");
    assert_eq!(read_all(&dir.path().join("b.jsonl")), [0]);
}

#[test]
fn a_segment_goes_only_if_its_archive_holds_the_same() {
    let dir = directory();
    let settings = settings(dir.path());
    let mut rig = Rig::opened(settings.clone());
    rig.write(3).unwrap();
    rig.rotate().unwrap();
    let segment = dir.path().join("b-20261122T154505.123Z.jsonl");
    let archive = dir.path().join("b-20261122T154505.123Z.jsonl.gz");
    let content = fs::read(&segment).unwrap();
    assert!(rig.compress().is_empty());
    let packed = fs::read(&archive).unwrap();
    let again = |rig: &mut Rig| {
        rig.recorder.reconfigure(settings.clone()).unwrap();
        rig.compress()
    };

    // gzip -dk by somebody, or cut short before the last step.
    fs::write(&segment, &content).unwrap();
    assert!(again(&mut rig).is_empty());
    assert!(!segment.exists());

    let different = [
        content[..content.len() - 10].to_vec(),
        [&content[..], b"{}\n"].concat(),
        content.iter().map(|byte| byte ^ 1).collect(),
    ];
    for other in different {
        fs::write(&segment, &other).unwrap();
        let problems = again(&mut rig);
        assert!(matches!(problems[..], [(_, Problem::Different)]), "{problems:?}");
        assert_eq!(fs::read(&segment).unwrap(), other);
    }
    fs::write(&segment, &content).unwrap();
    fs::write(&archive, &packed[..packed.len() - 4]).unwrap();
    assert!(matches!(again(&mut rig)[..], [(_, Problem::Different)]), "no trailer");
    assert!(segment.exists());
}

#[test]
fn partial_archives_are_removed_and_made_again() {
    let dir = directory();
    let settings = settings(dir.path());
    let mut rig = Rig::opened(settings.clone());
    rig.write(3).unwrap();
    rig.rotate().unwrap();
    fs::write(dir.path().join("b-20261122T154505.123Z.jsonl.gz.tmp"), "half").unwrap();
    fs::write(dir.path().join("b-20200101T000000.000Z.jsonl.gz.tmp"), "old").unwrap();
    assert!(rig.compress().is_empty());
    let names = [".b.lock", "b-20261122T154505.123Z.jsonl.gz", "b.jsonl"];
    assert_eq!(list(dir.path()), names);
}

#[test]
fn compression_stops_when_told() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(3).unwrap();
    rig.rotate().unwrap();
    let pass = rig.passes.lock().unwrap().last().cloned().unwrap();
    let problems = compress::run(&rig.disk, &pass, &AtomicBool::new(true));
    assert!(matches!(problems[..], [(_, Problem::Stopped)]), "{problems:?}");
    assert_eq!(read_all(&dir.path().join("b.jsonl")), [0, 1, 2]);
}

#[test]
fn a_new_path_a_wrong_path_and_off() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.output.flush_every = 10;
    let first = settings.output.path.clone();
    let second = dir.path().join("c.jsonl");
    let mut rig = Rig::opened(settings.clone());
    rig.append();
    settings.output.path = second.clone();
    rig.recorder.reconfigure(settings.clone()).unwrap();
    rig.append();
    settings.output.path = dir.path().join("missing/d.jsonl");
    let error = rig.recorder.reconfigure(settings.clone()).unwrap_err();
    assert!(error.may_pass(), "{error}");
    rig.append();
    rig.recorder.flush().unwrap();
    assert_eq!((read_all(&first), read_all(&second)), (vec![0], vec![1, 2]));

    settings.output.enabled = false;
    rig.append();
    rig.recorder.reconfigure(settings.clone()).unwrap();
    rig.append();
    rig.recorder.flush().unwrap();
    rig.passes.lock().unwrap().clear();
    assert_eq!(list(dir.path()), ["b.jsonl", "c.jsonl"], "no lock is held");
    settings.output =
        crate::config::Output { path: first.clone(), enabled: true, ..settings.output };
    rig.recorder.reconfigure(settings).unwrap();
    rig.append();
    rig.recorder.flush().unwrap();
    assert_eq!((read_all(&first), read_all(&second)), (vec![0, 5], vec![1, 2, 3]));
}

#[test]
fn back_to_a_directory_in_which_something_is_still_compressed() {
    let dir = directory();
    let mut settings = settings(dir.path());
    let (first, second) = (settings.output.path.clone(), dir.path().join("c.jsonl"));
    let mut rig = Rig::opened(settings.clone());
    assert!(!rig.passes.lock().unwrap().is_empty(), "a pass holds the first directory");
    settings.output.path = second;
    rig.recorder.reconfigure(settings.clone()).unwrap();
    settings.output.path = first.clone();
    rig.recorder.reconfigure(settings).unwrap();
    rig.write(1).unwrap();
    assert_eq!(read_all(&first), [0]);
}

#[test]
fn lines_that_the_old_output_cannot_take_go_to_the_new_one() {
    let dir = directory();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let mut settings = settings(&home);
    let mut rig = Rig::opened(settings.clone());
    rig.write(1).unwrap();
    fs::rename(&home, dir.path().join("gone")).unwrap();
    assert!(rig.write(2).is_err());
    settings.output.path = dir.path().join("new.jsonl");
    rig.recorder.reconfigure(settings.clone()).unwrap();
    rig.recorder.flush().unwrap();
    assert_eq!(read_all(&settings.output.path), [1]);
}

#[test]
fn a_directory_for_everybody_is_still_usable() {
    let dir = directory();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    Rig::opened(settings(dir.path())).write(1).unwrap();
}

#[test]
fn the_active_file_is_the_same_inode_until_it_is_rotated() {
    let dir = directory();
    let path = dir.path().join("b.jsonl");
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    rig.write(1).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    rig.rotate().unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
}

/// Only notes what is done.
#[derive(Debug, Default)]
struct Trace(Mutex<Vec<Operation>>);

impl Fault for Trace {
    fn verdict(&self, operation: Operation) -> Verdict {
        self.0.lock().unwrap().push(operation);
        Verdict::Go
    }

    fn shorten<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
    }
}

impl Trace {
    /// The operations that change something, since the last call.
    fn changes(&self) -> Vec<Operation> {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap());
        all.retain(|operation| {
            !matches!(
                operation,
                Operation::Stat
                    | Operation::List
                    | Operation::Space
                    | Operation::Read
                    | Operation::Open
                    | Operation::OpenDirectory
            )
        });
        all
    }
}

/// `docs/durability.md` gives the reasons.
#[test]
fn the_order_of_operations() {
    use Operation::*;
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.output.fsync = true;
    let trace = Arc::new(Trace::default());
    let mut rig = Rig::new(settings.clone(), Some(trace.clone()));
    rig.open().unwrap();
    assert_eq!(trace.changes(), [Lock, Create]);
    rig.write(1).unwrap();
    assert_eq!(trace.changes(), [SyncDirectory, Write, SyncData]);
    rig.write(1).unwrap();
    assert_eq!(trace.changes(), [Write, SyncData]);
    rig.rotate().unwrap();
    assert_eq!(trace.changes(), [Rename, Create]);
    rig.write(1).unwrap();
    assert_eq!(trace.changes(), [SyncDirectory, Write, SyncData]);
    assert!(rig.compress().is_empty());
    let archive = trace.changes();
    let steps = [Create, Write, SyncData, Rename, SyncDirectory, Remove];
    let mut squeezed = archive.clone();
    squeezed.dedup();
    assert_eq!(squeezed, steps, "{archive:?}");

    settings.output.fsync = false;
    rig.recorder.reconfigure(settings).unwrap();
    rig.write(1).unwrap();
    assert_eq!(trace.changes(), [Write]);
}

#[test]
fn few_system_calls_per_flush() {
    let dir = directory();
    let trace = Arc::new(Trace::default());
    let mut rig = Rig::new(settings(dir.path()), Some(trace.clone()));
    rig.open().unwrap();
    rig.write(1).unwrap();
    trace.changes();
    rig.write(1).unwrap();
    let calls = trace.0.lock().unwrap().len();
    assert!(calls <= 6, "{:?}", trace.0.lock().unwrap());
}

#[test]
fn arbitrary_names_in_the_directory_do_no_harm() {
    use std::os::unix::ffi::OsStrExt;
    let dir = directory();
    for name in
        [&b"b-\xff\xfe.jsonl"[..], b"b-", b"b-\n.jsonl.gz", b"b-20261122T154505.123Z.jsonl "]
    {
        fs::write(dir.path().join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(2).unwrap();
    rig.rotate().unwrap();
    assert!(rig.compress().is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 7);
}

proptest::proptest! {
    /// Whatever is found at the output's path: it is either refused and untouched, or continued
    /// with everything in it that is not a torn line of ours.
    #[test]
    fn arbitrary_content_is_refused_or_continued(
        pieces in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::prelude::Just(b"{\"timestamp\":1.5}\n".to_vec()),
                proptest::prelude::Just(b"{\"timestamp\":2.".to_vec()),
                proptest::prelude::Just(vec![0; 30]),
                proptest::prelude::Just(b"\n".to_vec()),
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20),
            ],
            0..8,
        ),
    ) {
        let dir = directory();
        let settings = settings(dir.path());
        let path = &settings.output.path;
        let before = pieces.concat();
        fs::write(path, &before).unwrap();
        let mut rig = Rig::new(settings.clone(), None);
        if rig.open().is_err() {
            proptest::prop_assert_eq!(fs::read(path).unwrap(), before);
            return Ok(());
        }
        rig.write(1).unwrap();
        let after = fs::read(path).unwrap();
        proptest::prop_assert!(after.ends_with(b"\n"));
        let kept = after[..after.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let kept = &after[..kept];
        if before.starts_with(kept) {
            // Cut: only a torn line of ours, or zeros.
            let cut = &before[kept.len()..];
            let harmless = cut.is_empty() || cut.contains(&0) || cut.starts_with(b"{");
            proptest::prop_assert!(harmless, "{:?} was cut off", cut);
        } else {
            proptest::prop_assert_eq!(kept, [&before[..], b"\n"].concat());
        }
    }
}
