//! The daemon's command line, and what it means together with the configuration file.
//!
//! [`RunArgs`] is what was said; [`resolve`] turns it once into what it means, a [`Config`] and
//! [`RunOptions`], and is called again with the same arguments when the daemon reloads, so that an
//! option keeps its precedence over the file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use tracing::Level;

use crate::config::value::{LEVELS, parse_glob, parse_interval, parse_output_path};
use crate::config::{Config, ConfigError, ConfigFile, DEFAULT_PATH, Detail, ProbeChoice};

/// Exit codes of `blkiolatd` and `blkiolat`; a closed pipe counts as success.
pub mod exit {
    /// All went well.
    pub const SUCCESS: u8 = 0;
    /// Something failed while running.
    pub const FAILURE: u8 = 1;
    /// A wrong command line or configuration. clap uses the same number.
    pub const USAGE: u8 = 2;
    /// Root or a capability is missing.
    pub const NOT_PERMITTED: u8 = 77;
}

/// The active file of a run in a terminal, in the working directory.
const TERMINAL_OUTPUT: &str = "tracepoints.jsonl";

const EXIT_CODES: &str = "\
Exit codes:
  0   success; also when standard output is closed early
  1   failure while running
  2   wrong usage or configuration
  77  not permitted: root or capabilities are missing";

/// Measure the latency of block I/O in the kernel and record a histogram of every disk
#[derive(Debug, Parser)]
#[command(
    name = "blkiolatd",
    version,
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

/// What `blkiolatd` is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure and record (the default)
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Say whether a configuration file is sound, and everything that is wrong with it
    #[command(after_help = EXIT_CODES)]
    Check(CheckArgs),
    /// Say what this kernel and this user support, what would fail and how to mend it
    #[command(after_help = EXIT_CODES)]
    Doctor,
}

impl Cli {
    /// The command, which is `run` where none is named.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

/// Options of `run` as they were given. An option wins over the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct RunArgs {
    /// Configuration file; it has to exist if it is named
    /// [default: /etc/blkiolatd/blkiolatd.toml if there is one]
    #[arg(short, long, value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// Length of a window, 10ms to 1h: a number of seconds or for example 500ms [default: 5]
    #[arg(long, value_name = "SECONDS", value_parser = parse_interval)]
    pub interval: Option<Duration>,

    /// File that records are appended to
    /// [default in a terminal: tracepoints.jsonl in the working directory, otherwise the
    /// configuration's]
    #[arg(long, value_name = "PATH", value_parser = parse_output_path)]
    pub output: Option<PathBuf>,

    /// Write no file
    #[arg(long, conflicts_with = "output")]
    pub no_output: bool,

    /// Records that are collected before they are written [default: 12]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub flush_every: Option<u32>,

    /// Make every write durable with fdatasync
    #[arg(long)]
    pub fsync: bool,

    /// How much of a histogram is written [default: fine]
    #[arg(long, value_name = "DETAIL")]
    pub detail: Option<Detail>,

    /// Measure only devices whose name matches, for example 'nvme*'; can be repeated, and wins over
    /// the configuration's include and exclude
    #[arg(long, value_name = "GLOB", value_parser = parse_glob)]
    pub device: Vec<String>,

    /// Which BPF programs measure [default: auto]
    #[arg(long, value_name = "PROBE")]
    pub probe: Option<ProbeChoice>,

    /// Measure disks without request queues, too: device mapper, md, zram, brd, NVMe multipath
    #[arg(long)]
    pub bio: bool,

    /// Print one histogram per operation (read, write, flush, discard, other)
    #[arg(long)]
    pub by_op: bool,

    /// Print histograms to standard output [default: if it is a terminal]
    #[arg(long, overrides_with = "no_print")]
    pub print: bool,

    /// Print no histograms
    #[arg(long, overrides_with = "print")]
    pub no_print: bool,

    /// Stop after N windows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Least important messages that are logged [default: info]
    #[arg(
        long,
        value_name = "LEVEL",
        value_parser = PossibleValuesParser::new(LEVELS).try_map(|level| level.parse::<Level>())
    )]
    pub log_level: Option<Level>,
}

/// Options of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// File to check; it has to exist if it is named
    /// [default: /etc/blkiolatd/blkiolatd.toml if there is one]
    #[arg(short, long, value_name = "PATH")]
    pub config: Option<PathBuf>,
}

/// How to run, beyond what a configuration file can say. It stays the same when the daemon reloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Whether histograms are printed to standard output.
    pub print: bool,
    /// Whether one histogram per operation is printed.
    pub by_op: bool,
    /// Number of windows after which the run ends, at least 1.
    pub count: Option<u64>,
}

/// Reads the configuration file that `named` or the default path names; `None` if there is none at
/// the default path.
pub fn read_config(named: Option<&Path>) -> Result<Option<ConfigFile>, ConfigError> {
    match named {
        Some(path) => ConfigFile::read_named(path).map(Some),
        None => ConfigFile::read(Path::new(DEFAULT_PATH)),
    }
}

/// Reads the configuration file and lays the arguments over it: for the start and for each reload.
pub fn load(args: &RunArgs, stdout_is_terminal: bool) -> Result<(Config, RunOptions), ConfigError> {
    let file = read_config(args.config.as_deref())?;
    resolve(args, file.as_ref(), stdout_is_terminal)
}

/// What the arguments mean over a configuration file, or over the built-in defaults where there is
/// none.
///
/// - A value comes from the command line, else from the file, else from the defaults.
/// - `--device` replaces both `include` and `exclude`; `--output` turns writing on.
/// - A run is interactive where standard output is a terminal or `--print` is given. Its output is
///   `tracepoints.jsonl` in the working directory, unless `--output` names another, or `--config`
///   names a file that sets `output.path`. The path in the default configuration file is the
///   service's own: a second run cannot write there.
pub fn resolve(
    args: &RunArgs,
    file: Option<&ConfigFile>,
    stdout_is_terminal: bool,
) -> Result<(Config, RunOptions), ConfigError> {
    let parsed = file.map(ConfigFile::parse).transpose()?;
    let (mut config, given) = match parsed {
        Some(parsed) => (parsed.config, parsed.given),
        None => (Config::default(), Vec::new()),
    };
    let print = args.print || (stdout_is_terminal && !args.no_print);
    let interactive = stdout_is_terminal || args.print;

    let Config { sampling, output, log, .. } = &mut config;
    set(&mut sampling.interval, args.interval);
    set(&mut sampling.probe, args.probe);
    sampling.bio |= args.bio;
    if !args.device.is_empty() {
        sampling.include.clone_from(&args.device);
        sampling.exclude.clear();
    }
    let path_was_chosen = args.config.is_some() && given.contains(&"output.path");
    if let Some(path) = &args.output {
        output.path.clone_from(path);
        output.enabled = true;
    } else if interactive && !path_was_chosen {
        output.path = TERMINAL_OUTPUT.into();
    }
    if args.no_output {
        output.enabled = false;
    }
    set(&mut output.flush_every, args.flush_every);
    output.fsync |= args.fsync;
    set(&mut output.detail, args.detail);
    set(&mut log.level, args.log_level);

    Ok((config, RunOptions { print, by_op: args.by_op, count: args.count }))
}

fn set<T>(value: &mut T, option: Option<T>) {
    if let Some(given) = option {
        *value = given;
    }
}

/// Runs `check`: says on `out` what was checked and that it is sound.
///
/// # Errors
/// Everything that is wrong with the file; exit code [`exit::USAGE`].
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<(), CheckError> {
    match read_config(args.config.as_deref())? {
        Some(file) => {
            file.parse().map_err(ConfigError::from)?;
            writeln!(out, "{}: no mistakes", file.path.display())?;
        }
        None => writeln!(out, "{DEFAULT_PATH}: no such file; the built-in defaults apply")?,
    }
    Ok(())
}

/// Why `check` failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The verdict could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}
