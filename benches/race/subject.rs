//! What is raced: the daemon, its peers, and programs that bound what any of them can cost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow};
use libbpf_rs::Link;
use tempfile::TempDir;

use crate::attached::{Hooks, hooks_of};
use crate::bracket::Programs;
use crate::machine::{Background, command, wait_until};

/// A contestant.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub id: &'static str,
    /// As the tables call it.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing at all: the empty bracket.
    Nothing,
    /// Programs of `benches/bpf/race.bpf.c`.
    Own(&'static str),
    /// The daemon, with these options.
    Daemon(&'static [&'static str]),
    /// Another build of the daemon, with these options.
    Other(&'static str, &'static [&'static str]),
    /// A program of the distribution.
    Peer(&'static [&'static str]),
}

/// The empty bracket, which is subtracted from all others.
pub const NOTHING: Subject =
    Subject { id: "nothing", name: "the empty bracket", kind: Kind::Nothing };
pub const EMPTY: Subject =
    Subject { id: "empty", name: "an empty program, tp_btf", kind: Kind::Own("empty") };
pub const EMPTY_CLASSIC: Subject = Subject {
    id: "empty_classic",
    name: "an empty program, classic tracepoint",
    kind: Kind::Own("empty_classic"),
};
pub const FLOOR: Subject = Subject {
    id: "floor",
    name: "the floor: tp_btf and one clock read per hook",
    kind: Kind::Own("floor"),
};
pub const ORIGINAL: Subject = Subject {
    id: "original",
    name: "the original script's design: classic tracepoints, two hashes",
    kind: Kind::Own("original"),
};
pub const BTF: Subject =
    Subject { id: "btf", name: "**blkiolatd**, probe btf", kind: Kind::Daemon(&["--probe=btf"]) };
pub const TRACEPOINT: Subject = Subject {
    id: "tracepoint",
    name: "**blkiolatd**, probe tracepoint",
    kind: Kind::Daemon(&["--probe=tracepoint"]),
};
pub const BTF_LOG2: Subject = Subject {
    id: "btf_log2",
    name: "**blkiolatd**, probe btf, `detail = \"log2\"`",
    kind: Kind::Daemon(&["--probe=btf", "--detail=log2"]),
};
pub const BIOLATENCY: Subject = Subject {
    id: "biolatency",
    name: "libbpf-tools `biolatency -D`",
    kind: Kind::Peer(&["biolatency", "-D", "1"]),
};
pub const BIOLATENCY_FLAGS: Subject = Subject {
    id: "biolatency_flags",
    name: "libbpf-tools `biolatency -D -F`",
    kind: Kind::Peer(&["biolatency", "-D", "-F", "1"]),
};
pub const BCC: Subject = Subject {
    id: "bcc",
    name: "bcc `biolatency -Q -D`",
    kind: Kind::Peer(&["biolatency-bpfcc", "-Q", "-D", "1"]),
};
pub const BPFTRACE: Subject = Subject {
    id: "bpftrace",
    name: "bpftrace one-liner",
    kind: Kind::Peer(&[
        "bpftrace",
        "-e",
        "tracepoint:block:block_rq_issue { @start[args->dev, args->sector] = nsecs; } \
         tracepoint:block:block_rq_complete /@start[args->dev, args->sector]/ { \
         @usecs[args->dev] = hist((nsecs - @start[args->dev, args->sector]) / 1000); \
         delete(@start[args->dev, args->sector]); } \
         interval:s:1 { print(@usecs); clear(@usecs); }",
    ]),
};

/// What subjects are started with.
#[derive(Debug)]
pub struct Stage {
    pub programs: Programs,
    /// The daemon's binary.
    pub daemon: PathBuf,
    /// Where the daemon finds an empty configuration and subjects leave what they say.
    directory: TempDir,
}

impl Stage {
    /// # Errors
    /// When the race's own programs cannot be loaded.
    pub fn new(programs: &Path, daemon: PathBuf) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("blkiolatd-bench-").tempdir()?;
        fs::write(directory.path().join("empty.toml"), "")?;
        Ok(Self { programs: Programs::load(programs)?, daemon, directory })
    }

    /// The daemon on loop devices.
    pub fn daemon(&self, options: &[&str]) -> Command {
        self.build(&self.daemon, options)
    }

    fn build(&self, path: &Path, options: &[&str]) -> Command {
        let mut daemon = command(&path.to_string_lossy());
        daemon
            .arg("run")
            .arg("--config")
            .arg(self.directory.path().join("empty.toml"))
            .args(["--device=loop*", "--no-print"])
            .args(options);
        daemon
    }

    /// A build of the daemon, with windows of one second, like all others.
    fn start_daemon(&self, path: &Path, options: &[&str]) -> Result<Attached> {
        let mut daemon = self.build(path, &["--no-output", "--interval=1"]);
        self.start_process(daemon.args(options)).map(Attached::from)
    }

    /// A place for files that goes away with the race.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a program and waits until it has programs on both tracepoints.
    ///
    /// # Errors
    /// When it does not get there, with the last that it said.
    pub fn start_process(&self, command: &mut Command) -> Result<Background> {
        let said = self.directory.path().join("stderr");
        command.stdout(Stdio::null()).stderr(File::create(&said)?);
        let mut process = Background::start(command)?;
        let pid = process.pid();
        let mut last = Hooks::default();
        let attached = wait_until("it is attached", || {
            process.check_alive()?;
            let hooks = hooks_of(pid);
            // Twice the same: it attaches nothing more.
            let settled = hooks.issue > 0 && hooks.complete > 0 && hooks == last;
            last = hooks;
            Ok(settled)
        });
        if let Err(error) = attached {
            let said = fs::read_to_string(&said).unwrap_or_default();
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            return Err(anyhow!("{error}: {}", last.trim()));
        }
        Ok(process)
    }
}

/// A subject that is attached; no more when dropped.
#[derive(Debug)]
pub struct Attached {
    _links: Vec<Link>,
    process: Option<Background>,
}

impl Attached {
    /// # Errors
    /// When it has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Background::check_alive)
    }
}

impl Subject {
    /// Another build of the daemon, at `path`, with a probe.
    pub fn other(path: &str, probe: &str) -> Self {
        // As long as the race, like all subjects.
        let path: &'static str = path.to_owned().leak();
        let option: &'static str = format!("--probe={probe}").leak();
        let name = format!("{path}, probe {probe}").leak();
        Self { id: name, name, kind: Kind::Other(path, vec![option].leak()) }
    }

    /// The command line of a peer; nothing of others.
    pub fn words(&self) -> &'static [&'static str] {
        if let Kind::Peer(words) = self.kind { words } else { &[] }
    }

    /// Attaches it.
    ///
    /// # Errors
    /// When it does not run on this machine, with why.
    pub fn start(&self, stage: &Stage) -> Result<Attached> {
        match self.kind {
            Kind::Nothing => Ok(Attached { _links: Vec::new(), process: None }),
            Kind::Own(name) => {
                stage.programs.attach(name).map(|links| Attached { _links: links, process: None })
            }
            Kind::Daemon(options) => stage.start_daemon(&stage.daemon, options),
            Kind::Other(path, options) => stage.start_daemon(Path::new(path), options),
            Kind::Peer(words) => {
                stage.start_process(command(words[0]).args(&words[1..])).map(Attached::from)
            }
        }
    }
}

impl From<Background> for Attached {
    fn from(process: Background) -> Self {
        Self { _links: Vec::new(), process: Some(process) }
    }
}
