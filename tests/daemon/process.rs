//! The daemon as a process, and a notify socket in the place of systemd's.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What is waited for comes long before this; when it does not, the test fails with all it knows.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `holds`.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// One datagram: assignments in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Message(Vec<(String, String)>);

impl Message {
    fn parse(text: &str) -> Self {
        let assignment = |line: &str| {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{text:?}"));
            (name.to_owned(), value.to_owned())
        };
        Self(text.lines().map(assignment).collect())
    }

    /// The value assigned to `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether it says `name=1`.
    pub fn says(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }

    /// Names of all that is assigned.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn status(&self) -> &str {
        self.get("STATUS").unwrap_or_default()
    }

    /// The live facts of the status line: windows, devices, I/O per second, dropped.
    pub fn facts(&self) -> Option<[u64; 4]> {
        let facts = self.status().split(", last error").next()?;
        let mut words =
            facts.split(", ").zip([" windows", " devices", " I/O per second", " dropped"]);
        let mut fact = || {
            let (text, unit) = words.next()?;
            text.strip_suffix(unit)?.parse().ok()
        };
        Some([fact()?, fact()?, fact()?, fact()?])
    }
}

/// A running daemon, killed at the end of the test.
pub struct Daemon {
    child: Child,
    messages: Receiver<Message>,
    /// The last messages, for the failure of a test.
    heard: VecDeque<Message>,
    log: PathBuf,
}

impl Daemon {
    /// Starts `blkiolatd run` with its log and its notify socket in `dir`.
    pub fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::start_with(dir, "exec \"$@\"", arguments)
    }

    /// With the variables that systemd sets for a service with `WatchdogSec=`.
    pub fn start_watched(dir: &Path, timeout: Duration, arguments: &[&str]) -> Self {
        let micros = timeout.as_micros();
        let script = format!("export WATCHDOG_USEC={micros} WATCHDOG_PID=$$; exec \"$@\"");
        Self::start_with(dir, &script, arguments)
    }

    /// Through a shell `script`, whose last command is `exec "$@"`.
    pub fn start_with(dir: &Path, script: &str, arguments: &[&str]) -> Self {
        let mut number = 0;
        let socket = loop {
            let path = dir.join(format!("notify-{number}"));
            match UnixDatagram::bind(&path) {
                Ok(socket) => break (socket, path),
                Err(_) => number += 1,
            }
            assert!(number < 100);
        };
        let log = dir.join(format!("log-{number}"));
        // A test run that is killed leaves no daemon behind.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "sh"])
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_blkiolatd"), "run", "--no-print"])
            .args(arguments)
            .env("NOTIFY_SOCKET", &socket.1)
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let (sender, messages) = channel();
        // The socket's queue is short, and a service manager reads all the time.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.0.recv(&mut buffer) {
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                if sender.send(Message::parse(text)).is_err() {
                    break;
                }
            }
        });
        Self { child, messages, heard: VecDeque::new(), log }
    }

    /// The next message.
    pub fn next(&mut self, waiting_for: &str) -> Message {
        match self.messages.recv_timeout(DEADLINE) {
            Ok(message) => self.remember(message),
            Err(error) => {
                panic!("{waiting_for}: {error}; heard {:#?}\nlog:\n{}", self.heard, self.log())
            }
        }
    }

    /// A message that is there already.
    pub fn already(&mut self) -> Option<Message> {
        let message = self.messages.try_recv().ok()?;
        Some(self.remember(message))
    }

    /// A message within `time`, where there should be none.
    pub fn within(&mut self, time: Duration) -> Option<Message> {
        let message = self.messages.recv_timeout(time).ok()?;
        Some(self.remember(message))
    }

    fn remember(&mut self, message: Message) -> Message {
        self.heard.push_back(message.clone());
        if self.heard.len() > 50 {
            self.heard.pop_front();
        }
        message
    }

    /// Passes over messages until one that is `wanted`.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let message = self.next(what);
            if wanted(&message) {
                return message;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: not within {DEADLINE:?}; heard {:#?}\nlog:\n{}",
                self.heard,
                self.log()
            );
        }
    }

    pub fn ready(&mut self) -> Message {
        self.wait("READY", |message| message.says("READY"))
    }

    /// Waits for so many more windows.
    pub fn windows(&mut self, count: u64) -> Message {
        while self.already().is_some() {}
        let mut target = None;
        loop {
            let message = self.next("another window");
            if let Some([windows, ..]) = message.facts() {
                let target = *target.get_or_insert(windows + count);
                if windows >= target {
                    return message;
                }
            }
        }
    }

    /// Has the configuration read again; the message that ends it.
    pub fn reload(&mut self) -> Message {
        self.signal(Signal::HUP);
        self.wait("RELOADING", |message| message.says("RELOADING"));
        self.ready()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The letter of its main thread's state in `/proc`.
    pub fn state(&self) -> char {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for its end.
    pub fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end; log:\n{}", self.log());
            // A full socket would keep it from ending.
            while self.already().is_some() {}
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and a good end.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        self.wait("STOPPING", |message| message.says("STOPPING"));
        let status = self.exit();
        assert!(status.success(), "{status}; log:\n{}", self.log());
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // It has ended, or the test has failed: then it may be in a call on a disk that is thawed only after this.
        let mut looks = 1000;
        while looks > 0 && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
            looks -= 1;
        }
    }
}
