//! What every stage needs of the machine: waiting that Ctrl-C ends, children that never outlive the
//! race, and the kernel's own counts.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Lets Ctrl-C and SIGTERM end the race in order: everything that was set up is taken down.
pub fn catch_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, flag.clone()).context("cannot catch signals")?;
    }
    Ok(())
}

/// # Errors
/// After Ctrl-C.
pub fn check_interrupted() -> Result<()> {
    let interrupted = INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed));
    ensure!(!interrupted, "interrupted");
    Ok(())
}

/// Sleeps.
///
/// # Errors
/// After Ctrl-C.
pub fn pause(length: Duration) -> Result<()> {
    let end = Instant::now() + length;
    loop {
        check_interrupted()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Polls until `condition` holds.
///
/// # Errors
/// After a minute, after Ctrl-C, and those of `condition`.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition()? {
        ensure!(Instant::now() < end, "waited a minute in vain until {what}");
        check_interrupted()?;
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A command that finds administrators' programs and speaks English.
pub fn command(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command
}

/// Runs a program that has to succeed; its standard output.
///
/// # Errors
/// When it fails, with what it said.
pub fn run(words: &[&str]) -> Result<String> {
    let line = words.join(" ");
    let output = command(words[0]).args(&words[1..]).output().with_context(|| line.clone())?;
    if !output.status.success() {
        bail!("{line}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program in the background; killed when dropped, and by the kernel if the race is killed.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    /// Starts it. Must be called on the main thread, with which the kernel lets it die.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        // SAFETY: between fork and exec only async-signal-safe code may run: this is one system call.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            });
        }
        // A group of its own: Ctrl-C reaches the race alone, which ends it in order.
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        Ok(Self(child.with_context(|| command.get_program().to_string_lossy().into_owned())?))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub fn wait(&mut self) -> Result<()> {
        wait_until("a program has ended", || Ok(self.0.try_wait()?.is_some()))
    }

    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal)
            .context("cannot signal a child")
    }

    /// # Errors
    /// When it has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("it ended by itself ({status})");
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has used since it began, all threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on a CPU, in ns.
    pub cpu_ns: u64,
    /// How often a thread went to sleep.
    pub sleeps: u64,
    /// Resident memory, in KiB.
    pub resident_kib: u64,
    /// Its largest value.
    pub peak_kib: u64,
    /// The part that is the process's own, without what is mapped from files.
    pub anonymous_kib: u64,
    pub threads: u64,
}

/// # Errors
/// When the process is gone.
pub fn usage(pid: u32) -> Result<Usage> {
    let process = Path::new("/proc").join(pid.to_string());
    let status = text_of(process.join("status"))?;
    let mut usage = Usage {
        resident_kib: field(&status, "VmRSS:"),
        peak_kib: field(&status, "VmHWM:"),
        anonymous_kib: field(&status, "RssAnon:"),
        ..Usage::default()
    };
    for task in fs::read_dir(process.join("task"))?.flatten() {
        // Time on a CPU, time waiting for one, times it got one (Documentation/scheduler/sched-stats.rst).
        let times = text_of(task.path().join("schedstat"))?;
        usage.cpu_ns += times.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let status = text_of(task.path().join("status"))?;
        usage.sleeps += field(&status, "voluntary_ctxt_switches:");
        usage.threads += 1;
    }
    Ok(usage)
}

/// The number after `key` at the beginning of a line, 0 without.
pub fn field(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes of kernel memory that a process's BPF maps take, by the kernel's own account.
///
/// # Errors
/// When the process is gone.
pub fn map_bytes(pid: u32) -> Result<u64> {
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fdinfo"))?.flatten() {
        // Descriptors come and go, and several may be of one map.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        if text.contains("map_id:") {
            maps.insert(field(&text, "map_id:"), field(&text, "memlock:"));
        }
    }
    Ok(maps.values().sum())
}

/// Seconds that all CPUs together were busy since boot.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub fn busy_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let field: Vec<f64> =
        line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    ensure!(field.len() >= 7, "/proc/stat begins with {line:?}");
    // user, nice, system, irq, softirq; not idle, iowait, steal
    Ok((field[0] + field[1] + field[2] + field[5] + field[6])
        / rustix::param::clock_ticks_per_second() as f64)
}

/// A file's trimmed text.
///
/// # Errors
/// Those of the file.
pub fn text_of(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    Ok(fs::read_to_string(path).with_context(|| path.display().to_string())?.trim().to_owned())
}

/// Number of CPUs that are online.
pub fn online_cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
