//! Where log lines go: to the journal with their fields when systemd connects it, else to standard
//! error for people.

use std::env;
use std::io::{self, IsTerminal, stderr};

use anyhow::{Result, anyhow};
use libbpf_rs::PrintLevel;
use tracing::Level;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// As syslog has them; the crate's own are one more urgent each, so that `info` would be a notice.
const PRIORITIES: PriorityMappings = PriorityMappings {
    error: Priority::Error,
    warn: Priority::Warning,
    info: Priority::Informational,
    debug: Priority::Debug,
    trace: Priority::Debug,
};

/// Changes the level of a running program.
#[derive(Debug)]
pub struct Logging(reload::Handle<LevelFilter, Registry>);

impl Logging {
    /// Begins to log at `level` and takes in libbpf's messages.
    ///
    /// # Errors
    /// When something logs already.
    pub fn start(level: Level) -> Result<Self> {
        let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
        let registry = tracing_subscriber::registry().with(filter);
        let journal = if stderr_is_the_journal() { tracing_journald::layer().ok() } else { None };
        let started = match journal {
            Some(journal) => {
                let journal = journal.with_field_prefix(None).with_priority_mappings(PRIORITIES);
                registry.with(journal).try_init()
            }
            None => {
                let colour =
                    stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
                let lines = fmt::layer()
                    .with_writer(io::stderr)
                    .with_ansi(colour)
                    .with_target(false)
                    .without_time();
                registry.with(lines).try_init()
            }
        };
        started.map_err(|error| anyhow!("cannot start logging: {error}"))?;
        libbpf_rs::set_print(Some((PrintLevel::Debug, log_libbpf)));
        Ok(Self(handle))
    }

    /// Logs at `level` from now on.
    pub fn set_level(&self, level: Level) {
        if let Err(error) = self.0.reload(LevelFilter::from_level(level)) {
            tracing::warn!(%error, "cannot change the log level");
        }
    }
}

/// Whether standard error is the stream that systemd opened to the journal (`man 5 systemd.exec`,
/// `$JOURNAL_STREAM`).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The verifier's log is long: a failure is reported with its cause, and the rest is for debugging.
fn log_libbpf(level: PrintLevel, message: String) {
    for line in message.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        match level {
            PrintLevel::Warn => tracing::debug!(target: "libbpf", libbpf = "warning", "{line}"),
            PrintLevel::Info => tracing::debug!(target: "libbpf", "{line}"),
            PrintLevel::Debug => tracing::trace!(target: "libbpf", "{line}"),
        }
    }
}
