//! The writer's threads and its handle.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use blkiolatd::archive::writer::State;
use blkiolatd::archive::{OpenError, Start, Writer};

use super::support::*;

#[test]
fn what_is_pushed_is_written_and_the_rest_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.output.flush_every = 7;
    let writer = spawn(&settings);
    (0..100).for_each(|seq| writer.push(record(seq)));
    writer.flush(AGES).unwrap();
    assert_eq!(writer.status().records, 100);
    assert_eq!(writer.status().state, State::Recording);
    (100..103).for_each(|seq| writer.push(record(seq)));
    writer.close(AGES).unwrap();
    let records = records(dir.path());
    assert_gaps_are_counted(&records, 103);
    assert!(records.iter().all(|record| record.audit.dropped_snapshots == 0));
    assert_eq!(names(dir.path()), ["b.jsonl"]);
}

#[test]
fn segments_are_compressed_behind_the_scenes() {
    let dir = tempfile::tempdir().unwrap();
    let writer = spawn(&settings(dir.path()));
    for round in 0..5 {
        (0..10).for_each(|seq| writer.push(record(round * 10 + seq)));
        writer.rotate_now();
    }
    writer.flush(AGES).unwrap();
    until("five archives", || {
        let names = names(dir.path());
        names.iter().filter(|name| name.ends_with(".gz")).count() == 5 && names.len() == 7
    });
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(dir.path()), 50);
    for name in names(dir.path()).iter().filter(|name| name.ends_with(".gz")) {
        let status = Command::new("gzip").arg("-t").arg(dir.path().join(name)).status().unwrap();
        assert!(status.success(), "{name}");
    }
}

#[test]
fn a_strict_start_reports_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let good = settings(dir.path());
    let writer = spawn(&good);
    for start in [Start::Strict, Start::Patient] {
        let error = Writer::spawn(good.clone(), start).unwrap_err();
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    }
    writer.close(AGES).unwrap();
    spawn(&good).close(AGES).unwrap();
    let error = Writer::spawn(settings(&dir.path().join("none")), Start::Strict).unwrap_err();
    assert!(error.may_pass() && error.to_string().contains("make the directory"), "{error}");
}

#[test]
fn the_queue_overflows_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let writer = Writer::spawn(settings(&home), Start::Patient).unwrap();
    (0..1000).for_each(|seq| writer.push(record(seq)));
    let status = writer.status();
    assert_eq!(status.state, State::Waiting);
    assert_eq!(status.dropped, 280, "720 wait, as nothing is taken out while recording fails");
    let error = status.last_error.unwrap();
    assert!(!error.over && error.message.contains("make the directory"), "{error:?}");
    // Between two attempts; in one of them it may take the time of one.
    until("it rests", || writer.status().healthy(Instant::now() + AGES, Duration::ZERO));
    fs::create_dir(&home).unwrap();
    until("it records", || writer.status().records == 720);
    assert!(writer.status().last_error.unwrap().over);
    writer.push(record(1000));
    writer.close(AGES).unwrap();
    let records = records(&home);
    assert_eq!((records[0].seq, records[0].audit.dropped_snapshots), (280, 280));
    assert_gaps_are_counted(&records, 1001);
}

#[test]
fn what_is_lost_at_the_end_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::spawn(settings(&dir.path().join("none")), Start::Patient).unwrap();
    (0..5).for_each(|seq| writer.push(record(seq)));
    let error = writer.close(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.lost, 5);
    assert!(error.reason.contains("No such file"), "{error}");
}

#[test]
fn settings_take_effect_between_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.output.flush_every = 100;
    let writer = spawn(&settings);
    (0..5).for_each(|seq| writer.push(record(seq)));
    settings.output.path = dir.path().join("c.jsonl");
    let answer = writer.reconfigure(settings.clone());
    (5..8).for_each(|seq| writer.push(record(seq)));
    answer.blocking_recv().unwrap().unwrap();
    settings.output.path = dir.path().join("none/d.jsonl");
    let refused = writer.reconfigure(settings.clone());
    (8..9).for_each(|seq| writer.push(record(seq)));
    assert!(refused.blocking_recv().unwrap().is_err());
    writer.close(AGES).unwrap();
    let sequence = |name| -> Vec<u64> {
        read(&dir.path().join(name)).iter().map(|record| record.seq).collect()
    };
    assert_eq!(sequence("b.jsonl"), [0, 1, 2, 3, 4]);
    assert_eq!(sequence("c.jsonl"), [5, 6, 7, 8]);
}

#[test]
fn a_new_path_mends_what_fails() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::spawn(settings(&dir.path().join("none")), Start::Patient).unwrap();
    (0..3).for_each(|seq| writer.push(record(seq)));
    let answer = writer.reconfigure(settings(dir.path()));
    answer.blocking_recv().unwrap().unwrap();
    writer.close(AGES).unwrap();
    assert_gaps_are_counted(&records(dir.path()), 3);
}

#[test]
fn off_and_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.output.enabled = false;
    let writer = spawn(&settings);
    writer.push(record(0));
    writer.flush(AGES).unwrap();
    assert_eq!(writer.status().state, State::Off);
    assert!(names(dir.path()).is_empty());
    settings.output.enabled = true;
    let _answer = writer.reconfigure(settings);
    writer.push(record(1));
    writer.close(AGES).unwrap();
    assert_eq!(records(dir.path()).len(), 1);
}

#[test]
fn compression_gives_way_and_writing_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let writer = spawn(&settings(dir.path()));
    // Threads of other tests bear these names too, and may end while we look.
    let priorities = |name: &str| -> Vec<i32> {
        let tasks = fs::read_dir("/proc/self/task").unwrap().map_while(Result::ok);
        let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
        stats
            .filter(|stat| stat.contains(&format!("({name})")))
            .filter_map(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok())
            .collect()
    };
    until("a thread at the lowest priority", || priorities("blkiolatd-gzip").contains(&19));
    let ours = rustix::process::getpriority_process(None).unwrap();
    let writers = priorities("blkiolatd-write");
    assert!(writers.iter().all(|priority| *priority == ours), "{writers:?}");
    assert!(!writers.is_empty());
    writer.close(AGES).unwrap();
}

#[test]
fn a_dropped_handle_ends_the_threads_and_frees_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    drop(spawn(&settings(dir.path())));
    until("the lock is free", || Writer::spawn(settings(dir.path()), Start::Strict).is_ok());
}
