//! What a machine does to a process: it stops it, sets its clock, and gives it no more descriptors or
//! memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};

use super::able;
use super::disk::{Disk, FileSystem, names};
use super::process::{Daemon, until};
use super::records::{self, dropped, seq};

/// A configuration with short windows and small files; nothing of it is ever too old.
fn configuration(dir: &Path, include: &str) -> (PathBuf, PathBuf) {
    let (config, logs) = (dir.join("config.toml"), dir.join("logs"));
    fs::create_dir(&logs).unwrap();
    let text = format!(
        "[sampling]\ninterval = \"50ms\"\ninclude = [\"{include}\"]\nexclude = []\n\
         [output]\npath = \"{}\"\nflush_every = 1\n[rotation]\nmax_size = \"4KiB\"\n",
        logs.join("out.jsonl").display()
    );
    fs::write(&config, text).unwrap();
    (config, logs)
}

#[test]
fn the_clock_is_set_by_hours() {
    let Some(_turn) = able("the_clock_is_set_by_hours") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (config, logs) = configuration(dir.path(), "none*");
    let clock = dir.path().join("clock");
    // Not this machine's clock: what the C library tells this one process. The file appears whole.
    let set = |offset: &str| {
        fs::write(dir.path().join("clock-new"), format!("{offset}\n")).unwrap();
        fs::rename(dir.path().join("clock-new"), &clock).unwrap();
    };
    set("+0");
    let script = format!(
        "export LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketimeMT.so.1) FAKETIME_NO_CACHE=1 \
         FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1 FAKETIME_TIMESTAMP_FILE='{}'; exec \"$@\"",
        clock.display()
    );
    let mut daemon =
        Daemon::start_with(dir.path(), &script, &["--config", config.to_str().unwrap()]);
    daemon.ready();
    let steps = ["+5h", "-10h", "+48h", "-72h", "+0"];
    for offset in steps {
        daemon.windows(20);
        set(offset);
    }
    daemon.windows(20);
    daemon.stop();

    let records = records::of_dirs(&[&logs]);
    records::assert_complete(&records);
    // It did see another clock, each time, and the windows are as long as they truly were.
    let times: Vec<f64> = records.iter().map(|r| r["timestamp"].as_f64().unwrap()).collect();
    let leaps = times.windows(2).filter(|pair| (pair[1] - pair[0]).abs() > 3600.0).count();
    assert_eq!(leaps, steps.len());
    assert!(records.iter().all(|r| r["window_s"].as_f64().unwrap() < 60.0));
    assert!(names(&logs).len() > 3, "{:?}", names(&logs));
}

#[test]
fn nothing_is_lost_while_it_is_stopped() {
    let Some(_turn) = able("nothing_is_lost_while_it_is_stopped") else { return };
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(64);
    let (config, logs) = configuration(dir.path(), &disk.name);
    let mut daemon = Daemon::start(dir.path(), &["--config", config.to_str().unwrap()]);
    daemon.ready();
    let before = disk.counts();
    disk.run_load(500);
    daemon.signal(Signal::STOP);
    until("stopped", || daemon.state() == 'T');
    let stopped = std::time::Instant::now();
    // As long as it takes to be far longer than a window, however fast the load is.
    while stopped.elapsed() < Duration::from_secs(3) {
        disk.run_load(500);
    }
    let pause = stopped.elapsed().as_secs_f64();
    daemon.signal(Signal::CONT);
    daemon.windows(3);
    disk.run_load(500);
    daemon.windows(3);
    daemon.stop();
    let records = records::of_dirs(&[&logs]);
    records::assert_complete(&records);
    records::assert_all_counted(&records, &disk.name, disk.counts().since(before));
    let longest = records.iter().map(|r| r["window_s"].as_f64().unwrap()).fold(0.0, f64::max);
    assert!(longest > pause - 1.0, "{longest} s, {pause} s stopped");
}

#[test]
fn out_of_descriptors_and_back() {
    let Some(_turn) = able("out_of_descriptors_and_back") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (config, logs) = configuration(dir.path(), "none*");
    let mut daemon = Daemon::start(dir.path(), &["--config", config.to_str().unwrap()]);
    daemon.ready();
    daemon.windows(3);
    let limit = |soft| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(Some(daemon.pid()), Resource::Nofile, Rlimit { current: soft, maximum }).unwrap()
    };
    // Standard input, output and error only: whatever is open stays open.
    let before = limit(Some(3));
    daemon.signal(Signal::USR1);
    let failing = daemon.wait("EMFILE in STATUS", |m| m.status().contains("Too many open files"));
    daemon.windows(10);
    let pid = Some(daemon.pid());
    prlimit(pid, Resource::Nofile, before).unwrap();
    daemon.wait("recording again", |m| {
        m.facts().is_some() && !m.status().contains("Too many open files")
    });
    daemon.windows(3);
    daemon.stop();
    assert!(failing.status().contains("last error"), "{failing:?}");
    records::assert_complete(&records::of_dirs(&[&logs]));
}

/// A control group with a memory limit, of whichever hierarchy there is.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> Self {
        let name = format!("blkiolatd-test-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (path, file) = if first.exists() {
            (first.join(name), "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup").join(name), "memory.max")
        };
        fs::create_dir(&path).unwrap();
        let group = Self(path);
        fs::write(group.0.join(file), limit.to_string()).unwrap();
        group
    }

    /// Most bytes that were ever used, and how often the limit was hit.
    fn most(&self) -> u64 {
        let files = ["memory.max_usage_in_bytes", "memory.peak"];
        let text = files.iter().find_map(|file| fs::read_to_string(self.0.join(file)).ok());
        text.unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_stuck_disk_does_not_eat_the_memory() {
    let Some(_turn) = able("a_stuck_disk_does_not_eat_the_memory") else { return };
    /// An eighth of what the unit allows.
    const LIMIT: u64 = 32 << 20;
    let dir = tempfile::tempdir().unwrap();
    let files = FileSystem::new();
    let output = files.point.join("out.jsonl");
    let group = Group::new(LIMIT);
    let script = format!("echo $$ >{}/cgroup.procs; exec \"$@\"", group.0.display());
    let output_name = output.to_str().unwrap();
    let options = ["--config=/dev/null", "--device=*", "--interval=10ms", "--output", output_name];
    let mut daemon = Daemon::start_with(dir.path(), &script, &options);
    daemon.ready();
    daemon.windows(20);
    files.freeze();
    daemon.wait("dropped", |message| message.facts().is_some_and(|f| f[3] > 1000));
    files.thaw();
    daemon.windows(3);
    daemon.stop();
    assert!(group.most() < LIMIT, "{} bytes", group.most());
    let records = records::of_file(&output);
    let mut next = 0;
    for record in &records {
        assert_eq!(seq(record), next + dropped(record));
        next = seq(record) + 1;
    }
    println!("at most {} KiB", group.most() >> 10);
}

#[test]
fn a_configuration_that_others_can_change_is_mentioned() {
    use std::os::unix::fs::PermissionsExt;
    let name = "a_configuration_that_others_can_change_is_mentioned";
    let Some(_turn) = able(name) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = configuration(dir.path(), "none*");
    let set = |mode| {
        fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o644);
    let mut daemon = Daemon::start(dir.path(), &["--config", config.to_str().unwrap()]);
    daemon.ready();
    assert!(!daemon.log().contains("can be changed"), "{}", daemon.log());
    set(0o646);
    daemon.reload();
    assert!(daemon.log().contains("can be changed by everybody"), "{}", daemon.log());
    daemon.stop();
}
