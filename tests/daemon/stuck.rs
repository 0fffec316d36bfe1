//! A disk that answers nothing, and the watchdog.

use std::time::{Duration, Instant};

use blkiolatd::archive::WriterStatus;
use blkiolatd::archive::writer::{InCall, State};
use rustix::process::Signal;

use super::able;
use super::disk::FileSystem;
use super::process::{Daemon, until};
use super::records::{self, dropped, seq};

const WATCHDOG: Duration = Duration::from_millis(500);

fn options(output: &str) -> [&str; 9] {
    // The shortest windows: the queue holds 720.
    [
        "--config",
        "/dev/null",
        "--device",
        "none*",
        "--interval=10ms",
        "--flush-every",
        "1",
        "--output",
        output,
    ]
}

#[test]
fn sampling_and_the_watchdog_outlive_a_stuck_disk() {
    let Some(_turn) = able("sampling_and_the_watchdog_outlive_a_stuck_disk") else { return };
    let dir = tempfile::tempdir().unwrap();
    let files = FileSystem::new();
    let output = files.point.join("out.jsonl");
    let mut daemon =
        Daemon::start_watched(dir.path(), WATCHDOG, &options(output.to_str().unwrap()));
    daemon.ready();
    until("records", || records::of_file(&output).len() > 5);

    files.freeze();
    // For longer than the queue holds, and still alive.
    let full = daemon.wait("dropped", |message| message.facts().is_some_and(|f| f[3] > 0));
    for _ in 0..4 {
        daemon.wait("WATCHDOG", |message| message.says("WATCHDOG"));
    }
    let later = daemon.windows(1);
    assert!(later.facts().unwrap()[0] > full.facts().unwrap()[0] && daemon.state() != 'Z');
    files.thaw();
    let seen = later.facts().unwrap()[0];
    until("recording again", || records::of_file(&output).last().is_some_and(|r| seq(r) > seen));
    daemon.stop();

    // Each gap is as long as the record after it says, and there is one.
    let records = records::of_file(&output);
    let mut next = 0;
    for record in &records {
        assert_eq!(seq(record), next + dropped(record), "{record}");
        next = seq(record) + 1;
    }
    assert_eq!(records.iter().filter(|record| dropped(record) > 0).count(), 1);
}

#[test]
fn a_second_signal_ends_it_at_once_however_stuck_the_disk_is() {
    let Some(_turn) = able("a_second_signal_ends_it_at_once_however_stuck_the_disk_is") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let files = FileSystem::new();
    let output = files.point.join("out.jsonl");
    for patient in [false, true] {
        let mut daemon = Daemon::start(dir.path(), &options(output.to_str().unwrap()));
        daemon.ready();
        files.freeze();
        daemon.windows(3);
        daemon.signal(Signal::TERM);
        daemon.wait("STOPPING", |message| message.says("STOPPING"));
        if !patient {
            daemon.signal(Signal::TERM);
        }
        // The kernel lets the writing thread, and with it the exit code, go only when the disk does.
        until("ended", || daemon.state() == 'Z');
        files.thaw();
        assert_eq!(daemon.exit().code(), Some(1), "{}", daemon.log());
        // It says what is lost only where it had its time to wait.
        let log = daemon.log();
        assert_eq!(log.contains("records were not written"), patient, "{log}");
    }
}

#[test]
fn no_sign_of_life_comes_from_one_that_is_stopped_or_not_asked() {
    let Some(_turn) = able("no_sign_of_life_comes_from_one_that_is_stopped_or_not_asked") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.jsonl");
    let options = [&options(output.to_str().unwrap())[..], &["--interval", "1h"]].concat();
    let options: Vec<&str> = options.into_iter().filter(|o| *o != "--interval=10ms").collect();
    let mut daemon = Daemon::start_watched(dir.path(), WATCHDOG, &options);
    daemon.ready();
    // Also with windows that are longer than the watchdog's patience.
    for _ in 0..3 {
        let alive = daemon.next("WATCHDOG");
        assert_eq!(alive.names(), ["WATCHDOG"]);
    }
    daemon.signal(Signal::STOP);
    until("stopped", || daemon.state() == 'T');
    while daemon.within(Duration::from_millis(50)).is_some() {}
    assert_eq!(daemon.within(2 * WATCHDOG), None);
    daemon.signal(Signal::CONT);
    daemon.wait("WATCHDOG", |message| message.says("WATCHDOG"));
    daemon.stop();

    // Nobody asked.
    let mut daemon = Daemon::start(dir.path(), &options);
    daemon.ready();
    assert_eq!(daemon.within(2 * WATCHDOG), None);
    daemon.stop();
}

/// What the daemon asks before it answers the watchdog; the writer cannot be made to end or spin from
/// outside.
#[test]
fn the_writer_is_healthy_while_it_waits_or_works() {
    let (start, limit) = (Instant::now(), Duration::from_secs(30));
    let status = |state, idle, in_call: bool| WriterStatus {
        state,
        records: 0,
        bytes: 0,
        dropped: 0,
        queued: 0,
        unflushed: 0,
        last_error: None,
        last_progress: start,
        idle,
        in_call: in_call.then_some(InCall { operation: "write", since: start }),
    };
    let soon = start + Duration::from_secs(29);
    let late = start + Duration::from_secs(3600);
    for state in [State::Opening, State::Recording, State::Waiting, State::Off] {
        assert!(status(state, true, false).healthy(late, limit), "{state:?}: nothing to do");
        assert!(status(state, false, true).healthy(late, limit), "{state:?}: the disk is stuck");
        assert!(status(state, false, false).healthy(soon, limit), "{state:?}: at work");
        assert!(!status(state, false, false).healthy(late, limit), "{state:?}: spins");
    }
    for (idle, in_call) in [(false, false), (true, false), (false, true)] {
        assert!(!status(State::Ended, idle, in_call).healthy(start, limit), "ended");
    }
}
