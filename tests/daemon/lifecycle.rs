//! From the first message to the exit code.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::able;
use super::disk::{Disk, names};
use super::process::{Daemon, until};
use super::records;

fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// Options that measure one disk and write each window at once.
fn options<'a>(disk: &'a Disk, output: &'a Path) -> Vec<&'a str> {
    let output = output.to_str().unwrap();
    let always = ["--config", "/dev/null", "--interval", "0.2", "--flush-every", "1"];
    [&always[..], &["--device", &disk.name, "--output", output]].concat()
}

#[test]
fn messages_come_in_order() {
    let Some(_turn) = able("messages_come_in_order") else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.jsonl");
    let disk = Disk::new(64);
    let mut daemon = Daemon::start(dir.path(), &options(&disk, &output));

    for phase in ["Looking at the kernel", "Loading the BPF programs", "Opening the output"] {
        let message = daemon.next(phase);
        assert_eq!((message.names(), message.status()), (vec!["STATUS"], phase));
    }
    let ready = daemon.next("READY");
    assert_eq!(ready.names(), ["READY", "STATUS"]);
    assert_eq!(ready.facts(), Some([0; 4]), "{ready:?}");
    let ready_at = Instant::now();
    assert!(output.exists());

    // Attached: not one request is missed from here on.
    let before = disk.counts();
    disk.run_load(500);
    let mut windows = 0;
    let loaded = loop {
        let message = daemon.next("a window");
        assert_eq!(message.names(), ["STATUS"]);
        let facts = message.facts().unwrap_or_else(|| panic!("{message:?}"));
        assert_eq!(facts[0], windows + 1, "{message:?}");
        windows = facts[0];
        assert_eq!(facts[3], 0, "{message:?}");
        if facts[2] > 0 {
            break facts;
        }
    };
    assert_eq!(loaded[1], 1);

    let asked = monotonic_us();
    daemon.signal(Signal::HUP);
    let reloading = daemon.wait("RELOADING", |message| message.says("RELOADING"));
    assert_eq!(reloading.names(), ["RELOADING", "MONOTONIC_USEC", "STATUS"]);
    let told: u64 = reloading.get("MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!((asked..=monotonic_us()).contains(&told), "{asked} {told}");
    // The window that ends with the reload has its status.
    let ended = daemon.next("the end of the window");
    assert!(ended.names() == ["STATUS"] && ended.facts().is_some(), "{ended:?}");
    assert_eq!(daemon.next("READY").names(), ["READY", "STATUS"]);

    let measured = ready_at.elapsed();
    daemon.signal(Signal::TERM);
    let stopping = daemon.wait("STOPPING", |message| message.says("STOPPING"));
    assert_eq!(stopping.names(), ["STOPPING", "EXTEND_TIMEOUT_USEC", "STATUS"]);
    let extension: u64 = stopping.get("EXTEND_TIMEOUT_USEC").unwrap().parse().unwrap();
    assert!(extension >= 1_000_000);
    let status = daemon.exit();
    assert!(status.success(), "{status}: {}", daemon.log());
    while let Some(message) = daemon.already() {
        assert_eq!(message.names(), ["STATUS"], "after STOPPING");
    }

    let records = records::of_dirs(&[dir.path()]);
    records::assert_complete(&records);
    records::assert_all_counted(&records, &disk.name, disk.counts().since(before));
    // The partial window is there: without it this much would be missing.
    assert!(records::seconds(&records) >= measured.as_secs_f64(), "{measured:?}");
}

#[test]
fn the_last_window_is_partial_and_whole() {
    let Some(_turn) = able("the_last_window_is_partial_and_whole") else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.jsonl");
    let disk = Disk::new(64);
    let mut arguments = options(&disk, &output);
    let interval = arguments.iter().position(|a| *a == "0.2").unwrap();
    arguments[interval] = "1h";
    for signal in [Signal::TERM, Signal::INT] {
        let _ = fs::remove_file(&output);
        let mut daemon = Daemon::start(dir.path(), &arguments);
        daemon.ready();
        let before = disk.counts();
        disk.run_load(100);
        daemon.signal(signal);
        let status = daemon.exit();
        assert!(status.success(), "{status}: {}", daemon.log());
        let [record] = &records::of_file(&output)[..] else { panic!("one window") };
        let expected = disk.counts().since(before);
        records::assert_all_counted(std::slice::from_ref(record), &disk.name, expected);
        assert!(record["window_s"].as_f64().unwrap() < record["interval_s"].as_f64().unwrap());
    }
}

#[test]
fn sigusr1_rotates() {
    let Some(_turn) = able("sigusr1_rotates") else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.jsonl");
    let disk = Disk::new(16);
    let mut daemon = Daemon::start(dir.path(), &options(&disk, &output));
    daemon.ready();
    let archives =
        || names(dir.path()).into_iter().filter(|name| name.ends_with(".gz")).collect::<Vec<_>>();
    for number in 1..=3 {
        until("a record", || !records::of_file(&output).is_empty());
        let first = records::of_file(&output)[0].clone();
        daemon.signal(Signal::USR1);
        until("an archive", || archives().len() == number);
        let name = archives().last().unwrap().clone();
        // Named by its first record's time, in UTC with milliseconds.
        let time =
            jiff::Timestamp::from_millisecond((first["timestamp"].as_f64().unwrap() * 1e3) as i64);
        let time = jiff::tz::TimeZone::UTC.to_datetime(time.unwrap());
        assert_eq!(name, format!("out-{}.jsonl.gz", time.strftime("%Y%m%dT%H%M%S.%3fZ")));
        let test = Command::new("gzip").arg("--test").arg(dir.path().join(&name)).status().unwrap();
        assert!(test.success());
        assert_eq!(records::of_file(&dir.path().join(&name))[0], first);
    }
    daemon.stop();
    assert!(names(dir.path()).iter().all(|name| !name.contains("tmp")), "{:?}", names(dir.path()));
    records::assert_complete(&records::of_dirs(&[dir.path()]));
}

#[test]
fn count_ends_by_itself() {
    let Some(_turn) = able("count_ends_by_itself") else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.jsonl");
    let disk = Disk::new(16);
    let mut arguments = options(&disk, &output);
    arguments.extend(["--count", "3"]);
    let mut daemon = Daemon::start(dir.path(), &arguments);
    daemon.wait("STOPPING", |message| message.says("STOPPING"));
    assert!(daemon.exit().success(), "{}", daemon.log());
    let records = records::of_file(&output);
    assert_eq!(records.len(), 3);
    records::assert_complete(&records);
}

#[test]
fn a_second_daemon_on_the_same_output_is_refused() {
    let Some(_turn) = able("a_second_daemon_on_the_same_output_is_refused") else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.jsonl");
    let disk = Disk::new(16);
    let mut first = Daemon::start(dir.path(), &options(&disk, &output));
    first.ready();
    let mut second = Daemon::start(dir.path(), &options(&disk, &output));
    let status = second.exit();
    assert_eq!(status.code(), Some(1), "{}", second.log());
    let log = second.log();
    assert!(log.contains("lock") && log.contains(dir.path().to_str().unwrap()), "{log}");
    first.windows(2);
    first.stop();
    records::assert_complete(&records::of_file(&output));
}

#[test]
fn ready_is_not_said_before_all_is_attached_and_open() {
    let Some(_turn) = able("ready_is_not_said_before_all_is_attached_and_open") else { return };
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(16);
    // A directory in the place of the file: no waiting mends that.
    let mut arguments = options(&disk, dir.path());
    let mut daemon = Daemon::start(dir.path(), &arguments);
    let mut heard = Vec::new();
    loop {
        let message = daemon.next("Opening the output");
        heard.push(message.clone());
        if message.status() == "Opening the output" {
            break;
        }
    }
    assert_eq!(daemon.exit().code(), Some(1), "{}", daemon.log());
    heard.extend(std::iter::from_fn(|| daemon.already()));
    heard.extend(std::iter::from_fn(|| daemon.within(Duration::from_millis(200))));
    assert!(heard.iter().all(|message| !message.says("READY")), "{heard:?}");

    // What cannot be loaded.
    let output = dir.path().join("out.jsonl");
    arguments = options(&disk, &output);
    let daemon = Command::new("setpriv")
        .args(["--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-all"])
        .arg(env!("CARGO_BIN_EXE_blkiolatd"))
        .args(&arguments)
        .output()
        .unwrap();
    assert_eq!(daemon.status.code(), Some(77), "{daemon:?}");
    assert!(!output.exists());
}

#[test]
fn check_has_its_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.toml");
    let check = || -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blkiolatd"));
        command.args(["check", "--config"]).arg(&file).output().unwrap()
    };
    let missing = check();
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains(file.to_str().unwrap()));

    fs::write(&file, "[sampling]\ninterval = \"2s\"\n").unwrap();
    let sound = check();
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(String::from_utf8_lossy(&sound.stdout).contains("no mistakes"));

    fs::write(&file, "[sampling]\ninterval = \"2 moons\"\nwibble = 1\n").unwrap();
    let wrong = check();
    assert_eq!(wrong.status.code(), Some(2));
    let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
    for place in [":2:12: sampling.interval", ":3:1: \"wibble\""] {
        assert!(text.contains(&format!("{}{place}", file.display())), "{text}");
    }
}

/// The manager may be stuck on the same disk.
#[test]
fn a_manager_that_does_not_read_holds_nothing_up() {
    let Some(_turn) = able("a_manager_that_does_not_read_holds_nothing_up") else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.jsonl");
    let disk = Disk::new(16);
    let socket = UnixDatagram::bind(dir.path().join("deaf")).unwrap();
    let backlog = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let backlog: usize = backlog.trim().parse().unwrap();
    let mut arguments = options(&disk, &output);
    let interval = arguments.iter().position(|a| *a == "0.2").unwrap();
    arguments[interval] = "10ms";
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_blkiolatd"))
        .args(["run", "--no-print"])
        .args(arguments)
        .args(["--count", &(backlog + 20).to_string()])
        .env("NOTIFY_SOCKET", dir.path().join("deaf"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the end", || daemon.try_wait().unwrap().is_some());
    assert!(daemon.wait().unwrap().success());
    let records = records::of_file(&output);
    records::assert_complete(&records);
    assert_eq!(records.len(), backlog + 20);
    drop(socket);
}
