//! Locks, and files and directories that others move, cut or remove.

use std::fs::{self, OpenOptions};
use std::io::Write;

use super::*;
use crate::archive::disk::Operation;
use crate::archive::faults::Verdict;

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
