//! What the daemon itself needs beside its programs in the kernel: memory, CPU, system calls; and
//! what its peers need for the same.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use blkiolatd::config::ProbeChoice;
use blkiolatd::probe::facts::{Facts, Machine};
use blkiolatd::probe::plan::Plan;
use blkiolatd::probe::{Probe, Storage};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::load::{Disk, Hot, Shape};
use crate::machine::{Background, Usage, command, map_bytes, pause, usage};
use crate::subject::{BCC, BIOLATENCY, BPFTRACE, Stage};

/// Disks that are busy meanwhile.
pub const DISKS: usize = 4;
/// Reads, and as many writes, per second and disk.
pub const RATE: u32 = 5_000;
const WINDOWS: u32 = 30;
const PEER_WINDOWS: u32 = 10;
const TRACED_WINDOWS: u32 = 20;
/// Made before memory is looked at.
pub const ARCHIVES: usize = 5;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Daemon {
    pub daemon: UserSpace,
    pub peers: Vec<(String, Result<UserSpace, String>)>,
    /// Calls per window, by name.
    pub syscalls: BTreeMap<String, f64>,
    pub memory: Memory,
    /// Lines that it wrote while it was measured, and their bytes, raw and with gzip -6.
    pub recorded: Recorded,
    pub recorded_log2: Recorded,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct UserSpace {
    /// Until it was attached, in ms of CPU.
    pub start_cpu_ms: f64,
    pub cpu_ms_per_window: f64,
    pub sleeps_per_window: f64,
    pub resident_kib: u64,
    pub anonymous_kib: u64,
    pub peak_kib: u64,
    /// By how much resident memory grew over the windows.
    pub grown_kib: i64,
    pub threads: u64,
}

/// Kernel memory of the maps, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// By the formula, on this machine.
    pub here_formula: u64,
    /// By the kernel's account.
    pub here_kernel: u64,
    /// By the formula, 4 CPUs and 8 disks of 256 requests.
    pub small_formula: u64,
    pub small_kernel: u64,
    /// 256 CPUs and 64 disks of 64 queues of 1,023 requests.
    pub large_formula: u64,
    pub large_kernel: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Recorded {
    pub lines: usize,
    pub raw: u64,
    pub gzipped: u64,
}

/// # Errors
/// When the daemon does not run, or after Ctrl-C.
pub fn measure(stage: &Stage) -> Result<Daemon> {
    let disks: Vec<Disk> = (0..DISKS).map(|_| Disk::new(16)).collect::<Result<_>>()?;
    let _load = Hot::start(&disks, Shape { depth: 8, batch: 1, rate: Some(RATE), ..Shape::HOT })?;
    let output = stage.directory().join("fine.jsonl");
    let option = format!("--output={}", output.display());
    let mut command = stage.daemon(&[&option, "--interval=1"]);
    let process = stage.start_process(&mut command)?;
    let start_cpu_ms = usage(process.pid())?.cpu_ns as f64 / 1e6;
    make_archives(&process, stage.directory())?;
    let daemon = watch(&process, start_cpu_ms, WINDOWS)?;
    let memory = memory(map_bytes(process.pid())?)?;
    let syscalls = syscalls(&process)?;
    let recorded = recorded(process, &output)?;
    let output = stage.directory().join("log2.jsonl");
    let option = format!("--output={}", output.display());
    let mut command = stage.daemon(&[&option, "--interval=1", "--detail=log2"]);
    let process = stage.start_process(&mut command)?;
    pause(Duration::from_secs(u64::from(PEER_WINDOWS)))?;
    let recorded_log2 = self::recorded(process, &output)?;
    let mut peers = Vec::new();
    for peer in [BIOLATENCY, BCC, BPFTRACE] {
        let words = peer.words();
        let mut command = crate::machine::command(words[0]);
        let result = user_space(stage, command.args(&words[1..]), PEER_WINDOWS);
        crate::machine::check_interrupted()?;
        let result = result.map(|(usage, _)| usage).map_err(|error| format!("{error:#}"));
        peers.push((peer.name.to_owned(), result));
    }
    Ok(Daemon { daemon, peers, syscalls, memory, recorded, recorded_log2 })
}

/// Starts a program that works in windows of a second and watches it for some of them.
fn user_space(
    stage: &Stage,
    command: &mut std::process::Command,
    windows: u32,
) -> Result<(UserSpace, Background)> {
    let process = stage.start_process(command)?;
    let start_cpu_ms = usage(process.pid())?.cpu_ns as f64 / 1e6;
    Ok((watch(&process, start_cpu_ms, windows)?, process))
}

/// Has the daemon set its file aside and compress it, some times: what that needed may stay resident.
fn make_archives(process: &Background, directory: &std::path::Path) -> Result<()> {
    let archives = || -> Result<usize> {
        let mut found = 0;
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            found += usize::from(name.to_string_lossy().ends_with(".jsonl.gz"));
        }
        Ok(found)
    };
    for expected in 1..=ARCHIVES {
        // A segment has at least one line: a window is a second long.
        pause(Duration::from_secs(2))?;
        process.signal(Signal::USR1)?;
        let asked = Instant::now();
        while archives()? < expected {
            if asked.elapsed() > Duration::from_secs(60) {
                return Err(anyhow!(
                    "the daemon made {} archives, expected {expected}",
                    archives()?
                ));
            }
            pause(Duration::from_millis(100))?;
        }
    }
    Ok(())
}

/// Watches a program for so many windows of a second.
fn watch(process: &Background, start_cpu_ms: f64, windows: u32) -> Result<UserSpace> {
    // What is done once is over after two windows.
    pause(Duration::from_secs(2))?;
    let (before, began) = (usage(process.pid())?, Instant::now());
    pause(Duration::from_secs(windows.into()))?;
    let (after, windows) = (usage(process.pid())?, began.elapsed().as_secs_f64());
    let per_window = |of: fn(&Usage) -> u64| (of(&after) - of(&before)) as f64 / windows;
    Ok(UserSpace {
        start_cpu_ms,
        cpu_ms_per_window: per_window(|usage| usage.cpu_ns) / 1e6,
        sleeps_per_window: per_window(|usage| usage.sleeps),
        resident_kib: after.resident_kib,
        anonymous_kib: after.anonymous_kib,
        peak_kib: after.peak_kib,
        grown_kib: after.resident_kib.cast_signed() - before.resident_kib.cast_signed(),
        threads: after.threads,
    })
}

/// Counts the daemon's system calls with strace.
fn syscalls(daemon: &Background) -> Result<BTreeMap<String, f64>> {
    let summary = tempfile::NamedTempFile::new()?;
    let mut strace = command("strace");
    strace.args(["-f", "-c", "-U", "calls,name", "-p", &daemon.pid().to_string(), "-o"]);
    strace.arg(summary.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut strace = Background::start(&mut strace)?;
    let began = Instant::now();
    pause(Duration::from_secs(TRACED_WINDOWS.into()))?;
    strace.signal(Signal::INT)?;
    let windows = began.elapsed().as_secs_f64();
    strace.wait()?;
    let text = fs::read_to_string(summary.path())?;
    let calls: BTreeMap<String, f64> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (calls, name) = (words.next()?.parse::<f64>().ok()?, words.next()?);
            (name != "total").then(|| (name.to_owned(), calls / windows))
        })
        .collect();
    if calls.is_empty() { Err(anyhow!("strace saw nothing: {text}")) } else { Ok(calls) }
}

/// Ends the daemon in order and looks at what it wrote.
fn recorded(mut daemon: Background, output: &std::path::Path) -> Result<Recorded> {
    daemon.signal(Signal::TERM)?;
    daemon.wait()?;
    let text = fs::read(output).with_context(|| output.display().to_string())?;
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    // The first window is that of the start, the last is cut short.
    let all = lines.clone().count();
    let whole: Vec<u8> = lines.take(all.saturating_sub(1)).skip(1).flatten().copied().collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    std::io::Write::write_all(&mut gzip, &whole)?;
    Ok(Recorded {
        lines: all.saturating_sub(2),
        raw: whole.len() as u64,
        gzipped: gzip.finish()?.len() as u64,
    })
}

/// The maps' memory here, and what it would be elsewhere: by the formula, and by loading them.
fn memory(here_kernel: u64) -> Result<Memory> {
    let facts = Facts::read();
    let machine = |cpus, disks, request_capacity| Machine {
        possible_cpus: cpus,
        online_cpus: cpus,
        disks,
        request_capacity,
    };
    let here = facts.machine;
    let (here_formula, _) = maps_of(&facts, here, false)?;
    let (small_formula, small_kernel) = maps_of(&facts, machine(4, 8, 8 * 256), true)?;
    let (large_formula, large_kernel) = maps_of(&facts, machine(256, 64, 64 * 64 * 1023), true)?;
    Ok(Memory {
        here_formula,
        here_kernel,
        small_formula,
        small_kernel,
        large_formula,
        large_kernel,
    })
}

fn maps_of(facts: &Facts, machine: Machine, load: bool) -> Result<(u64, u64)> {
    let facts = Facts { machine, ..facts.clone() };
    let plan = Plan::new(&facts, ProbeChoice::Btf).map_err(|reason| anyhow!(reason))?;
    let formula = plan.memory().iter().map(|&(_, bytes)| bytes).sum();
    if !load {
        return Ok((formula, 0));
    }
    let before = map_bytes(std::process::id())?;
    let mut storage = Storage::default();
    let _probe = Probe::load(plan, &facts, &mut storage)?;
    Ok((formula, map_bytes(std::process::id())?.saturating_sub(before)))
}
