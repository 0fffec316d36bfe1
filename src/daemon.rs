//! The daemon: wires probe, devices, records, terminal and archive together, and nothing else does.
//!
//! One task samples on the monotonic clock; the archive's thread writes. The task never waits for
//! a disk.

mod layer;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use jiff::{Timestamp, Zoned};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::archive::{OpenError, Settings, Start, Writer, WriterHandle};
use crate::cli::{self, RunArgs, RunOptions};
use crate::config::{self, Config, ConfigError, DEFAULT_PATH};
use crate::control::{self, Manager, Request, Signals};
use crate::device::{Change, Filter, Sysfs, Uevents};
use crate::heap;
use crate::logging::Logging;
use crate::permission;
use crate::probe::Storage;
use crate::probe::facts::Facts;
use crate::probe::plan::{Plan, TestTables};
use crate::record::{self, Context, Record};
use crate::terminal::{self, Language, Style};
use layer::Layer;

/// How long the end of the daemon waits for a disk to take what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the daemon could not run; each has an exit code of its own.
#[derive(Debug, Error)]
pub enum Failure {
    /// The configuration or the command line is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Root or a capability is missing, or the kernel is locked down.
    #[error("{0}")]
    NotPermitted(String),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Runs until somebody asks it to stop, the number of windows is reached or standard output closes.
///
/// # Errors
/// When it cannot start, or could not write what it had measured.
pub fn run(args: RunArgs) -> Result<(), Failure> {
    let (config, options) = cli::load(&args, io::stdout().is_terminal())?;
    let logging = Logging::start(config.log.level)?;
    warn_of_writers(&args);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let signals = Signals::take_over().context("cannot take over the signals")?;
        let mut manager = Manager::default();
        let mut storage = [Storage::default(), Storage::default()];
        let measured = start_layers(&config, &mut manager, &mut storage)?;
        let mut daemon = Daemon::start(args, config, options, logging, manager, measured)?;
        daemon.sample(&signals).await?;
        daemon.stop()
    })
}

/// Says who else may decide what is recorded, and where.
fn warn_of_writers(args: &RunArgs) {
    let path = args.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
    if path.is_file()
        && let Some(who) = config::other_writers(path)
    {
        tracing::warn!("{path:?} can be changed by {who}: only root should be able to");
    }
}

/// The layers that are measured, that of requests first.
struct Measured<'obj> {
    layers: Vec<Layer<'obj>>,
    /// Why the bio layer, which was asked for, is not among them.
    bio_missing: Option<String>,
}

/// Loads and attaches the programs, and gives up the capabilities that this took.
fn start_layers<'obj>(
    config: &Config,
    manager: &mut Manager,
    [requests, bios]: &'obj mut [Storage; 2],
) -> Result<Measured<'obj>, Failure> {
    permitted()?;
    manager.status("Looking at the kernel");
    let facts = Facts::read();
    let tables = test_tables()?;
    let plan = Plan::new(&facts, config.sampling.probe).map_err(|reason| {
        anyhow!("no probe works on this kernel ({}): {reason}", facts.kernel_release)
    })?;
    manager.status("Loading the BPF programs");
    let start = |layer, plan: Plan, storage| -> Result<Layer<'obj>> {
        Layer::start(layer, plan.shrunk(&tables), &facts, filter(config)?, storage)
    };
    let mut layers = vec![start(record::Layer::Request, plan, requests)?];
    let mut bio_missing = None;
    if config.sampling.bio {
        let started = Plan::bio(&facts)
            .map_err(anyhow::Error::msg)
            .and_then(|plan| start(record::Layer::Bio, plan, bios));
        match started {
            Ok(layer) => layers.push(layer),
            // One configuration serves hosts of all kinds: requests are measured all the same.
            Err(error) => {
                let missing = format!("bios are not measured: {error:#}");
                tracing::error!("{missing}");
                bio_missing = Some(missing);
            }
        }
    }
    match permission::give_up(|| layers.iter().all(Layer::is_usable)) {
        Ok(held) => tracing::debug!(?held, "capabilities given up"),
        Err(error) => tracing::warn!(%error, "cannot give up capabilities"),
    }
    heap::trim();
    Ok(Measured { layers, bio_missing })
}

/// What tests want of the tables: nothing, unless `BLKIOLATD_TEST_TABLES` says so.
fn test_tables() -> Result<TestTables> {
    const NAME: &str = "BLKIOLATD_TEST_TABLES";
    let Some(text) = std::env::var_os(NAME) else { return Ok(TestTables::default()) };
    let tables = text
        .to_str()
        .ok_or_else(|| "not UTF-8".to_owned())
        .and_then(str::parse)
        .map_err(|reason| anyhow!("{NAME}={}: {reason}", text.to_string_lossy()))?;
    tracing::warn!("{NAME} makes the tables small: for tests only");
    Ok(tables)
}

/// Whether this process may load BPF programs that read kernel memory.
///
/// # Errors
/// [`Failure::NotPermitted`] with what is missing and what to do.
fn permitted() -> Result<(), Failure> {
    let missing = permission::missing();
    if !missing.is_empty() {
        return Err(Failure::NotPermitted(format!(
            "not permitted: {} missing; run as root (sudo blkiolatd), or as a service with \
             AmbientCapabilities=CAP_BPF CAP_PERFMON",
            missing.join(" and ")
        )));
    }
    if let Some(mode) = permission::lockdown() {
        return Err(Failure::NotPermitted(format!(
            "not permitted: the kernel is locked down ({mode}), which forbids BPF programs to read \
             kernel memory; boot without lockdown=confidentiality"
        )));
    }
    Ok(())
}

struct Daemon<'obj> {
    args: RunArgs,
    options: RunOptions,
    config: Config,
    logging: Logging,
    manager: Manager,
    measured: Measured<'obj>,
    uevents: Option<Uevents>,
    writer: WriterHandle,
    /// The writer's answer to new settings.
    reconfigured: Option<oneshot::Receiver<Result<(), OpenError>>>,
    /// Whether that answer was an error: the same settings may work after the next reload.
    output_refused: bool,
    context: Context,
    style: Style,
    seq: u64,
    /// What the last reload complained of.
    complaint: Option<String>,
    /// Why the last reading failed.
    unreadable: Option<String>,
    /// When the last reading succeeded.
    sampled: Instant,
    facts: LiveFacts,
}

/// What the status line says of the last window.
#[derive(Default)]
struct LiveFacts {
    devices: usize,
    per_second: f64,
}

impl LiveFacts {
    fn new(records: &[Record]) -> Self {
        let total = |record: &Record| record.latency_histogram.iter().map(|d| d.total).sum::<u64>();
        Self {
            devices: records.iter().map(|record| record.latency_histogram.len()).sum(),
            // Bios become requests: those of one layer count once.
            per_second: records
                .first()
                .map_or(0.0, |record| total(record) as f64 / record.window_s.max(1e-9)),
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl<'obj> Daemon<'obj> {
    fn start(
        args: RunArgs,
        config: Config,
        options: RunOptions,
        logging: Logging,
        mut manager: Manager,
        measured: Measured<'obj>,
    ) -> Result<Self, Failure> {
        let uevents = Uevents::open()
            .inspect_err(|error| {
                tracing::warn!(%error, "the kernel's uevents cannot be had; disks are looked for every window");
            })
            .ok();
        for pattern in measured.layers.first().map(Layer::unmatched).unwrap_or_default() {
            tracing::warn!(pattern, "no disk matches now; one that comes later is measured");
        }
        manager.status("Opening the output");
        let interactive = io::stdout().is_terminal();
        let start = if interactive { Start::Strict } else { Start::Patient };
        let writer = Writer::spawn(Settings::from(&config), start).map_err(anyhow::Error::from)?;
        let colour =
            interactive && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let style = Style {
            language: Language::of_environment(|name| std::env::var(name).ok()),
            by_operation: options.by_op,
            colour,
        };
        Ok(Self {
            context: context(&config)?,
            args,
            options,
            config,
            logging,
            manager,
            measured,
            uevents,
            writer,
            reconfigured: None,
            output_refused: false,
            style,
            seq: 0,
            complaint: None,
            unreadable: None,
            sampled: Instant::now(),
            facts: LiveFacts::default(),
        })
    }

    /// Takes windows until it is time to end.
    async fn sample(&mut self, signals: &Signals) -> Result<(), Failure> {
        let mut windows = ticks(self.config.sampling.interval);
        let watchdog = control::watchdog().map(|timeout| timeout / 2);
        let mut alive = watchdog.map(ticks);
        let status = self.status();
        self.manager.ready(&status);
        loop {
            tokio::select! {
                biased;
                // Before what ends a window, which has to name the disks that it counted.
                change = next_change(self.uevents.as_ref()) => self.disks_changed(&change),
                request = signals.next() => match request.context("cannot wait for signals")? {
                    Request::Stop => return Ok(()),
                    Request::Rotate => self.writer.rotate_now(),
                    Request::Reload => {
                        if self.reload()? == Next::End {
                            return Ok(());
                        }
                        windows = ticks(self.config.sampling.interval);
                    }
                },
                answer = next_answer(&mut self.reconfigured) => self.reconfigured(answer),
                _ = windows.tick() => {
                    if self.window()? == Next::End {
                        return Ok(());
                    }
                }
                () = next_tick(alive.as_mut()) => self.sign_of_life(watchdog),
            }
        }
    }

    /// Ends a window: reads, records, prints.
    fn window(&mut self) -> Result<Next, Failure> {
        let end = Timestamp::now();
        if let Err(error) = self.measured.layers.iter_mut().try_for_each(Layer::read) {
            // Nothing is lost: the next window is longer.
            let unreadable = format!("cannot read what was measured: {error:#}");
            if self.unreadable.as_ref() != Some(&unreadable) {
                tracing::error!("{unreadable}");
            }
            self.unreadable = Some(unreadable);
            let status = self.status();
            self.manager.status(&status);
            return Ok(Next::GoOn);
        }
        self.sampled = Instant::now();
        if self.unreadable.take().is_some() {
            tracing::info!("what was measured can be read again");
        }
        if self.uevents.is_none() {
            self.disks_changed(&Change::Unknown);
        }
        let (seq, context) = (self.seq, &self.context);
        let layers = self.measured.layers.iter_mut();
        let records: Vec<Record> = layers.map(|layer| layer.window(end, seq, context)).collect();
        self.seq += 1;
        self.facts = LiveFacts::new(&records);
        let printed = self.print(&records);
        self.writer.push_window(records);
        let status = self.status();
        self.manager.status(&status);
        match printed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Next::End),
            Err(error) => return Err(anyhow!(error).context("cannot print").into()),
            Ok(()) => {}
        }
        Ok(if self.options.count.is_some_and(|count| self.seq >= count) {
            Next::End
        } else {
            Next::GoOn
        })
    }

    fn print(&self, records: &[Record]) -> io::Result<()> {
        if !self.options.print {
            return Ok(());
        }
        let mut text = Vec::new();
        let time = Zoned::now().strftime("%H:%M:%S").to_string();
        for record in records {
            terminal::print_record(&mut text, record, &time, &self.style)?;
        }
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    }

    fn disks_changed(&mut self, change: &Change) {
        self.measured.layers.iter_mut().for_each(|layer| layer.disks_changed(change));
    }

    /// Reads the configuration again and, if it is sound, ends the window and puts it in force.
    fn reload(&mut self) -> Result<Next, Failure> {
        self.manager.reloading();
        let mut next = Next::GoOn;
        match self.read_again() {
            Err(reason) => {
                self.complain(format!("the old configuration stays in force: {reason}"));
            }
            Ok((wanted, filter)) => {
                let (config, changes) = config::reload(&self.config, wanted);
                next = self.window()?;
                for change in &changes {
                    if change.reloadable {
                        tracing::info!("{change}");
                    } else {
                        tracing::warn!("{change}");
                    }
                }
                self.complaint = None;
                self.logging.set_level(config.log.level);
                for layer in &mut self.measured.layers {
                    layer.set_filter(filter.clone());
                }
                self.context = context(&config)?;
                let settings = Settings::from(&config);
                if self.output_refused || settings != Settings::from(&self.config) {
                    self.output_refused = false;
                    self.reconfigured = Some(self.writer.reconfigure(settings));
                }
                self.config = config;
                tracing::info!(changes = changes.len(), "configuration reloaded");
            }
        }
        let status = self.status();
        self.manager.ready(&status);
        Ok(next)
    }

    fn read_again(&self) -> Result<(Config, Filter), String> {
        let interactive = io::stdout().is_terminal();
        let (config, _) = cli::load(&self.args, interactive).map_err(|error| error.to_string())?;
        warn_of_writers(&self.args);
        let filter = filter(&config).map_err(|error| error.to_string())?;
        Ok((config, filter))
    }

    fn reconfigured(&mut self, answer: Result<(), OpenError>) {
        if let Err(error) = answer {
            self.output_refused = true;
            self.complain(format!("recording goes on at the old path: {error}"));
            let status = self.status();
            self.manager.status(&status);
        }
    }

    /// Told only while readings succeed and the writer, too, does what is up to it: it may wait for
    /// a disk, however long, but it must not have ended or spin.
    fn sign_of_life(&mut self, watchdog: Option<Duration>) {
        let Some(limit) = watchdog else { return };
        if self.sampled.elapsed() > self.config.sampling.interval + limit {
            tracing::error!("no window was read in time; the watchdog is not answered");
        } else if !self.writer.status().healthy(Instant::now(), limit) {
            tracing::error!("the writer makes no progress; the watchdog is not answered");
        } else {
            self.manager.alive();
        }
    }

    fn complain(&mut self, complaint: String) {
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::error!("{complaint}");
        }
        self.complaint = Some(complaint);
    }

    fn status(&self) -> String {
        let writer = self.writer.status();
        let mut status = format!(
            "{} windows, {} devices, {:.0} I/O per second, {} dropped",
            self.seq, self.facts.devices, self.facts.per_second, writer.dropped
        );
        let trouble = writer.last_error.filter(|error| !error.over).map(|error| error.message);
        let errors = [&self.unreadable, &self.complaint, &trouble, &self.measured.bio_missing];
        if let Some(error) = errors.into_iter().flatten().next() {
            status.push_str(", last error: ");
            status.extend(error.lines().next());
        }
        status
    }

    /// Writes the last, partial window and everything that waits.
    fn stop(mut self) -> Result<(), Failure> {
        self.manager.stopping(CLOSE_TIMEOUT);
        let ended = match self.options.count {
            // All windows that were asked for are written; there is no partial one.
            Some(count) if self.seq >= count => Ok(Next::End),
            _ => self.window(),
        };
        self.writer.close(CLOSE_TIMEOUT).map_err(anyhow::Error::from)?;
        ended.map(|_| ())
    }
}

fn filter(config: &Config) -> Result<Filter> {
    let sysfs = Sysfs::new(PathBuf::from("/"));
    Ok(Filter::new(&config.sampling.include, &config.sampling.exclude, &sysfs)?)
}

fn context(config: &Config) -> Result<Context> {
    let path = "/proc/sys/kernel/random/boot_id";
    let boot_id = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    Ok(Context {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        boot_id: boot_id.trim().to_owned(),
        interval_s: config.sampling.interval.as_secs_f64(),
        detail: config.output.detail,
    })
}

/// Ticks at multiples of `period` from now on, on the monotonic clock. Late ticks are left out, so
/// that a late window is longer and the next one ends on time.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

async fn next_tick(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn next_change(uevents: Option<&Uevents>) -> Change {
    let Some(uevents) = uevents else { return std::future::pending().await };
    match uevents.next().await {
        Ok(change) => change,
        Err(error) => {
            tracing::warn!(%error, "cannot hear the kernel's uevents");
            std::future::pending().await
        }
    }
}

async fn next_answer(
    answer: &mut Option<oneshot::Receiver<Result<(), OpenError>>>,
) -> Result<(), OpenError> {
    let Some(receiver) = answer else { return std::future::pending().await };
    let result = receiver.await;
    *answer = None;
    match result {
        Ok(result) => result,
        // Later settings overtook these, and have an answer of their own.
        Err(_) => std::future::pending().await,
    }
}
