//! Runs of the daemon, and what every record of every run has to satisfy.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use blkiolatd::histogram;
use blkiolatd::record::{Audit, DeviceLatency, Layer, OperationStats, Record};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{Loop, PATIENCE, command};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_blkiolatd");

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/record.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
});

/// How to start the daemon. By default it prints nothing, writes each window of 50 ms at once to a
/// file of its own, and knows neither this machine's configuration nor its language.
pub struct Launch {
    wrapper: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    configuration: String,
    interval: &'static str,
    recorded: bool,
    silent: bool,
    directory: TempDir,
}

impl Launch {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            wrapper: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            configuration: String::new(),
            interval: "0.05",
            recorded: true,
            silent: true,
            directory,
        }
    }

    pub fn of(disks: &[&Loop]) -> Self {
        disks.iter().fold(Self::new(), |launch, disk| launch.arguments(&["--device", &disk.name]))
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&word| word.to_owned()));
        self
    }

    /// The length of a window, in seconds.
    pub fn interval(mut self, interval: &'static str) -> Self {
        self.interval = interval;
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Makes the kernel's tables small (`BLKIOLATD_TEST_TABLES`, ARCHITECTURE.md).
    pub fn tables(self, tables: &str) -> Self {
        self.environment("BLKIOLATD_TEST_TABLES", tables)
    }

    /// The text of the configuration file.
    pub fn configuration(mut self, text: &str) -> Self {
        self.configuration = text.into();
        self
    }

    /// Gives the daemon's command line as further words to this command.
    pub fn through(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Says nothing of the output on the command line.
    pub fn without_output(mut self) -> Self {
        self.recorded = false;
        self
    }

    /// Leaves it to the daemon whether it prints.
    pub fn by_default(mut self) -> Self {
        self.silent = false;
        self
    }

    /// The directory in which the daemon runs and writes.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn words(&self) -> Vec<String> {
        let path = |name: &str| self.directory().join(name).to_str().unwrap().to_owned();
        let mut words = vec![PROGRAM.to_owned(), "--config".to_owned(), path("blkiolatd.toml")];
        words.extend(["--flush-every", "1", "--interval", self.interval].map(str::to_owned));
        if self.silent {
            words.push("--no-print".to_owned());
        }
        if self.recorded {
            words.extend(["--output".to_owned(), path("records.jsonl")]);
        }
        words.extend(self.arguments.iter().cloned());
        words
    }

    fn command(&self) -> Command {
        fs::write(self.directory().join("blkiolatd.toml"), &self.configuration).unwrap();
        // A test run that is killed leaves no daemon behind.
        let mut words = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec();
        words.extend(self.wrapper.iter().cloned());
        match self.wrapper.last().map(String::as_str) {
            // `script -c` takes one word, for the shell; none of ours needs quoting.
            Some("--command") => words.push(self.words().join(" ")),
            _ => words.extend(self.words()),
        }
        let mut command = command(&words[0]);
        command
            .args(&words[1..])
            .current_dir(self.directory())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("NOTIFY_SOCKET", self.directory().join("notify"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.directory().join("stderr")).unwrap());
        for name in ["NO_COLOR", "WATCHDOG_USEC", "JOURNAL_STREAM"] {
            if !self.environment.iter().any(|(given, _)| given == name) {
                command.env_remove(name);
            }
        }
        command
    }

    /// Starts it, and waits until it measures.
    pub fn start(self) -> Daemon {
        crate::trace::mount_tracefs();
        let notices = Notices::listen(&self.directory().join("notify"));
        let (before, wall_before) = (Instant::now(), SystemTime::now());
        let mut child = self.command().spawn().unwrap();
        let stdout = read_all(child.stdout.take().unwrap());
        let mut daemon = Daemon {
            child,
            stdout: Some(stdout),
            notices,
            directory: self.directory,
            before,
            wall_before,
            after: before,
        };
        daemon.wait_for("it measures", |told| told.ready > 0);
        daemon.after = Instant::now();
        daemon
    }

    /// Runs it to its end, which it has to find by itself.
    pub fn run(self) -> Run {
        let _notices = Notices::listen(&self.directory().join("notify"));
        let (before, wall_before) = (Instant::now(), SystemTime::now());
        let mut child = self.command().spawn().unwrap();
        let stdout = read_all(child.stdout.take().unwrap());
        wait_for_end(&mut child);
        let code = child.wait().unwrap().code();
        let stdout = stdout.join().unwrap();
        Run::new(self.directory, code, stdout, (wall_before, before))
    }
}

fn read_all(mut stdout: ChildStdout) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    })
}

/// Waits for the end of a process, but not for ever.
fn wait_for_end(child: &mut Child) {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the daemon did not end");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// What the daemon has told its service manager.
#[derive(Debug, Default)]
struct Told {
    ready: u64,
    windows: u64,
}

/// The service manager's end of `NOTIFY_SOCKET`.
struct Notices {
    told: Arc<(Mutex<Told>, Condvar)>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Notices {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let told = Arc::new((Mutex::new(Told::default()), Condvar::new()));
        let shared = Arc::clone(&told);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                if text == "END" {
                    return;
                }
                let mut told = shared.0.lock().unwrap();
                for line in text.lines() {
                    if line == "READY=1" {
                        told.ready += 1;
                    } else if let Some((windows, _)) =
                        line.strip_prefix("STATUS=").and_then(|line| line.split_once(" windows"))
                    {
                        told.windows = windows.parse().unwrap();
                    }
                }
                shared.1.notify_all();
            }
        });
        Self { told, path: path.into(), thread: Some(thread) }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"END", &self.path));
        if let (Ok(_), Some(thread)) = (sent, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// A daemon that runs; killed when dropped.
pub struct Daemon {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    notices: Notices,
    directory: TempDir,
    before: Instant,
    wall_before: SystemTime,
    after: Instant,
}

impl Daemon {
    fn wait_for(&mut self, what: &str, condition: impl Fn(&Told) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The process first: what it said before its end has then been heard.
            let ended = self.child.try_wait().unwrap();
            let (told, changed) = &*self.notices.told;
            let told = told.lock().unwrap();
            let (told, _) = changed
                .wait_timeout_while(told, Duration::from_millis(100), |told| !condition(told))
                .unwrap();
            if condition(&told) {
                return;
            }
            let errors = fs::read_to_string(self.directory.path().join("stderr")).unwrap();
            assert!(ended.is_none(), "the daemon ended before {what}: {ended:?}\n{errors}");
            assert!(Instant::now() < deadline, "waited in vain until {what}\n{errors}");
        }
    }

    /// Waits until `count` more windows have ended than the daemon has told of, which can be one
    /// or two behind.
    pub fn wait_windows(&mut self, count: u64) {
        let wanted = self.notices.told.0.lock().unwrap().windows + count;
        self.wait_for("windows end", |told| told.windows >= wanted);
    }

    /// Lets it read its configuration again, and waits until it has.
    pub fn reload(&mut self, configuration: &str) {
        fs::write(self.directory.path().join("blkiolatd.toml"), configuration).unwrap();
        let wanted = self.notices.told.0.lock().unwrap().ready + 1;
        self.signal(Signal::HUP);
        self.wait_for("it has reloaded", |told| told.ready >= wanted);
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its process, once it measures: the wrappers have become it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it to stop; it has to end well.
    pub fn stop(self) -> Run {
        let asked = Instant::now();
        self.signal(Signal::TERM);
        self.finish(asked)
    }

    fn finish(mut self, earliest_end: Instant) -> Run {
        wait_for_end(&mut self.child);
        let code = self.child.wait().unwrap().code();
        let stdout = self.stdout.take().unwrap().join().unwrap();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        // Measured at least while the test was told so, at most while the process lived.
        let least = earliest_end - self.after;
        let run = Run::new(directory, code, stdout, (self.wall_before, self.before));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let windows: f64 = run.records.iter().map(|record| record.window_s).sum();
        // Each window is rounded to a microsecond.
        let rounding = run.records.len() as f64 * 1e-6;
        assert!(windows >= least.as_secs_f64() - rounding, "{windows} s of {least:?}");
        run
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended, or the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run that has ended.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub records: Vec<Record>,
    /// The records of the bio layer: as many, or none.
    pub bios: Vec<Record>,
    /// Where it ran.
    pub directory: TempDir,
}

impl Run {
    /// Reads what a run left, and checks all that every record has to satisfy but [`Self::whole`].
    fn new(
        directory: TempDir,
        code: Option<i32>,
        stdout: String,
        (wall_before, before): (SystemTime, Instant),
    ) -> Self {
        let lived = before.elapsed();
        let wall_after = SystemTime::now();
        let stderr = fs::read_to_string(directory.path().join("stderr")).unwrap();
        let text = fs::read_to_string(directory.path().join("records.jsonl")).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'), "the last line is torn");
        let all: Vec<Record> = text.lines().map(parse).collect();
        let (records, bios): (Vec<_>, Vec<_>) =
            all.iter().cloned().partition(|record| record.layer.is_request());
        assert!(bios.is_empty() || bios.len() == records.len(), "a layer lacks windows");
        for layer in [&records, &bios] {
            for (number, record) in layer.iter().enumerate() {
                assert_eq!(record.seq, number as u64, "a window is missing");
                check_record(record);
            }
            for pair in layer.windows(2) {
                assert!(pair[0].timestamp < pair[1].timestamp, "{pair:?}");
            }
        }
        // The lines of a window follow each other, requests first.
        for pair in all.chunks(2).filter(|_| !bios.is_empty()) {
            let lines = pair.iter().map(|record| (record.timestamp, record.layer));
            let expected = [Layer::Request, Layer::Bio].map(|layer| (pair[0].timestamp, layer));
            assert!(lines.eq(expected), "{pair:?}");
        }
        // The windows lie in the process's life: on the monotonic clock and on the wall clock.
        let windows: f64 = records.iter().map(|record| record.window_s).sum();
        assert!(windows <= lived.as_secs_f64(), "{windows} s of {lived:?}");
        let unix = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        for record in &records {
            assert!(record.timestamp >= unix(wall_before).as_secs_f64() - 1e-6, "{record:?}");
            assert!(record.timestamp <= unix(wall_after).as_secs_f64(), "{record:?}");
        }
        Self { code, stdout, stderr, records, bios, directory }
    }

    /// The same run, with the records of the bio layer in place of those of requests.
    pub fn of_bios(self) -> Self {
        Self { records: self.bios, bios: Vec::new(), ..self }
    }

    /// Asserts that the daemon's tables held, and its writer kept up.
    pub fn kept(self) -> Self {
        for record in &self.records {
            let Audit { inflight_table_full, device_table_full, dropped_snapshots, .. } =
                record.audit;
            let lost = [inflight_table_full, device_table_full, dropped_snapshots];
            assert_eq!(lost, [0; 3], "window {}: {}", record.seq, self.stderr);
        }
        self
    }

    /// Requests of a disk that were not counted, as far as the run itself says so: the kernel skips
    /// a program that interrupts another at a bad moment. What was in flight on any disk when the
    /// daemon attached (other tests run beside this one) completes in the first window.
    pub fn lost(&self, name: &str) -> u64 {
        let lost = |record: &Record| {
            let untracked = if record.seq == 0 { 0 } else { record.audit.untracked_completions };
            untracked + record.audit.probe_misses
        };
        let left = self.records.last().into_iter().flat_map(|record| &record.inflight);
        let left: u64 = left.filter(|device| device.device_name == name).map(|d| d.count).sum();
        left + self.records.iter().map(lost).sum::<u64>()
    }

    /// Everything that the run recorded of a disk.
    pub fn totals(&self, name: &str) -> Totals {
        let mut totals = Totals::default();
        for device in self.windows_of(name) {
            totals.requeues += device.requeues;
            for (operation, stats) in device.ops.iter() {
                totals.operation(operation).add(stats);
            }
        }
        totals
    }

    /// The windows in which requests of a disk completed.
    pub fn windows_of(&self, name: &str) -> Vec<&DeviceLatency> {
        let all = self.records.iter().flat_map(|record| &record.latency_histogram);
        all.filter(|device| device.device_name == name).collect()
    }

    /// All names that occur.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for record in &self.records {
            names.extend(record.latency_histogram.iter().map(|d| d.device_name.clone()));
            names.extend(record.inflight.iter().map(|d| d.device_name.clone()));
        }
        names.sort();
        names.dedup();
        names
    }

    /// Integral of the requests in flight of a disk over time, in seconds.
    pub fn inflight_seconds(&self, name: &str) -> f64 {
        let of = |record: &Record| -> f64 {
            let devices = record.inflight.iter().filter(|device| device.device_name == name);
            devices.map(|device| device.mean * record.window_s).sum()
        };
        self.records.iter().map(of).sum()
    }

    /// The largest number in flight of a disk.
    pub fn inflight_max(&self, name: &str) -> u64 {
        let all = self.records.iter().flat_map(|record| &record.inflight);
        all.filter(|device| device.device_name == name).map(|d| d.max).max().unwrap_or(0)
    }
}

/// What a run recorded of one disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    pub read: Total,
    pub write: Total,
    pub flush: Total,
    pub discard: Total,
    pub other: Total,
    pub requeues: u64,
}

impl Totals {
    fn operation(&mut self, name: &str) -> &mut Total {
        match name {
            "read" => &mut self.read,
            "write" => &mut self.write,
            "flush" => &mut self.flush,
            "discard" => &mut self.discard,
            "other" => &mut self.other,
            _ => panic!("{name}"),
        }
    }

    pub fn all(&self) -> [(&'static str, &Total); 5] {
        [
            ("read", &self.read),
            ("write", &self.write),
            ("flush", &self.flush),
            ("discard", &self.discard),
            ("other", &self.other),
        ]
    }
}

/// What a run recorded of one operation of one disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Total {
    pub requests: u64,
    pub bytes: u64,
    pub errors: u64,
    pub sum_us: f64,
    pub max_us: f64,
    /// Counts by bucket.
    pub fine: BTreeMap<u16, u64>,
}

impl Total {
    fn add(&mut self, stats: &OperationStats) {
        self.requests += stats.total;
        self.bytes += stats.bytes;
        self.errors += stats.errors;
        self.sum_us += stats.sum_us;
        self.max_us = self.max_us.max(stats.max_us);
        for &(bucket, count) in stats.fine.iter().flatten() {
            *self.fine.entry(bucket).or_default() += count;
        }
    }
}

/// Parses a line, which has to satisfy the schema.
fn parse(line: &str) -> Record {
    let value: Value = serde_json::from_str(line).unwrap();
    let errors: Vec<String> = SCHEMA.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{line}");
    serde_json::from_value(value).unwrap()
}

/// What the schema cannot say.
fn check_record(record: &Record) {
    let instant: jiff::Timestamp = record.iso_timestamp.parse().unwrap();
    let microseconds = (record.timestamp * 1e6).round() as i64;
    assert_eq!(instant.as_microsecond(), microseconds, "{record:?}");
    let ids: Vec<_> =
        record.latency_histogram.iter().map(|d| (d.device_id, &d.device_name)).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "one entry per disk, ascending: {ids:?}");
    let ids: Vec<_> = record.inflight.iter().map(|d| (d.device_id, &d.device_name)).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "one entry per disk, ascending: {ids:?}");
    for device in &record.latency_histogram {
        check_device(device);
    }
    for device in &record.inflight {
        assert!(device.count <= device.max && device.max > 0, "{device:?}");
        assert!(device.mean <= device.max as f64, "{device:?}");
        assert!(device.count > 0 || device.oldest_us == 0.0, "{device:?}");
    }
}

/// The totals, the histograms and their bounds agree.
fn check_device(device: &DeviceLatency) {
    let mut slots: BTreeMap<u32, u64> = BTreeMap::new();
    let mut total = 0;
    for (_, stats) in device.ops.iter() {
        total += stats.total;
        assert!(stats.errors <= stats.total, "{device:?}");
        // `--detail log2` keeps the slots alone.
        let Some(fine) = stats.fine.as_deref() else {
            for &(slot, count) in stats.slots.iter().flatten() {
                *slots.entry(slot.into()).or_default() += count;
            }
            continue;
        };
        assert!(fine.is_sorted_by(|a, b| a.0 < b.0), "{device:?}");
        assert_eq!(fine.iter().map(|pair| pair.1).sum::<u64>(), stats.total, "{device:?}");
        for &(bucket, count) in fine {
            // Every bucket lies within one slot; found here by its lower bound, in microseconds.
            let (low, _) = histogram::bucket_bounds_ns(bucket.into());
            *slots.entry((low / 1000).max(1).ilog2()).or_default() += count;
        }
        let (low, high) = histogram::bucket_bounds_ns(fine.last().unwrap().0.into());
        let max_ns = stats.max_us * 1e3;
        assert!(max_ns >= low as f64 - 0.5 && max_ns < high as f64, "{device:?}");
    }
    assert_eq!(device.total, total, "{device:?}");
    let buckets: BTreeMap<u32, u64> = device.buckets.iter().map(|b| (b.slot, b.count)).collect();
    assert_eq!(buckets, slots, "{device:?}");
    for bucket in &device.buckets {
        let low = if bucket.slot == 0 { 0 } else { 1 << bucket.slot };
        let high = (2 << bucket.slot) - 1;
        assert_eq!((bucket.bucket_low, bucket.bucket_high), (low, high), "{device:?}");
    }
}
