//! The command line of `blkiolat`: what can be said, and what it means.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Zoned;
use jiff::tz::TimeZone;

use super::aggregate::OPERATIONS;
use super::failure::{Failure, globs};
use super::heatmap::png::Theme;
use super::heatmap::terminal::Depth;
use super::progress::Progress;
use super::summary::{Shown, SortKey};
use super::table::Format;
use super::times;
use crate::archive::reader::{Outcome, Query, TimeRange, Wanted, Watch};
use crate::record::Operations;
use crate::top::cli::{TailArgs, TopArgs};

/// Ask the archives of blkiolatd what happened: which disk, which operation, when, how bad.
///
/// PATH is any mix of .jsonl and .jsonl.gz files, directories (searched with everything below
/// them) and - for standard input. A window that is found twice counts once.
#[derive(Debug, Parser)]
#[command(name = "blkiolat", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count, rates, percentiles, errors and requests in flight by host, device and operation
    Report(ReportArgs),
    /// Two times, hosts, fleets or archives side by side, the greatest change first
    Diff(DiffArgs),
    /// Latency over time as a heat map: in the terminal, SVG, PNG or one self-contained page
    Heatmap(HeatmapArgs),
    /// The distribution of any range, as the daemon's terminal shows that of a window
    Histogram(HistogramArgs),
    /// The records as Parquet, CSV or OpenMetrics text
    Export(ExportArgs),
    /// A running daemon's windows as lines, as they are recorded
    Tail(TailArgs),
    /// A running daemon's devices on the whole screen, sorted, with keys
    Top(TopArgs),
}

/// What to read.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Files and directories to read; - is standard input
    #[arg(value_name = "PATH", default_value = "/var/log/blkiolatd")]
    pub paths: Vec<PathBuf>,
    /// Which of it
    #[command(flatten)]
    pub filter: FilterArgs,
    /// From this time on: 2026-11-22, "2026-11-22 15:45", 15:45, "2h ago", yesterday ...
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// Which records to read, and how.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only devices whose name matches this glob (repeatable)
    #[arg(short, long, value_name = "GLOB")]
    pub device: Vec<String>,
    /// Only these operations (repeatable, or with commas)
    #[arg(long, value_name = "OP", value_delimiter = ',')]
    pub op: Vec<Operation>,
    /// Only hosts whose name matches this glob (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub host: Vec<String>,
    /// Read and write times as UTC instead of the local time zone
    #[arg(long)]
    pub utc: bool,
    /// Exit with 0 even if some of the input could not be used
    #[arg(long)]
    pub lenient: bool,
    /// Threads that read [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// An operation, or all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Operation {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Cache flushes.
    Flush,
    /// Discards and secure erases.
    Discard,
    /// Everything else.
    Other,
    /// All operations of a device together.
    All,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// What to read
    #[command(flatten)]
    pub source: SourceArgs,
    /// Rows over time of this length: 1m, 1h, 1d or any divisor of a day
    #[arg(long, value_name = "LENGTH")]
    pub by: Option<String>,
    /// Sort the rows, largest first
    #[arg(long, value_name = "KEY", value_enum)]
    pub sort: Option<SortKey>,
    /// Only the first N rows, sorted by p99 unless --sort says otherwise; without the rows of all
    /// operations together unless --op asks for them
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

/// Options of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
A and B are each one of
  a range of time:   yesterday, 2026-11-22, 09:00..10:00, \"2h ago..now\"
  an archive:        any PATH that exists
  a choice of both:  host=GLOB,since=TIME,until=TIME,path=PATH (any of these)

Examples:
  blkiolat diff yesterday today
  blkiolat diff host=db-17 host=db-18 /archives
  blkiolat diff /archives/before /archives/after")]
pub struct DiffArgs {
    /// What to compare with
    #[arg(value_name = "A")]
    pub a: String,
    /// What is compared
    #[arg(value_name = "B")]
    pub b: String,
    /// Files and directories to read where A and B do not say
    #[arg(value_name = "PATH", default_value = "/var/log/blkiolatd")]
    pub paths: Vec<PathBuf>,
    /// Which of it
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Take the hosts of each side together even if the sides have hosts in common
    #[arg(long)]
    pub merge_hosts: bool,
    /// Only the N greatest changes
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

/// Options of `heatmap`.
#[derive(Debug, Args)]
pub struct HeatmapArgs {
    /// What to read
    #[command(flatten)]
    pub source: SourceArgs,
    /// Write to this file: .svg, .png or .html; without it the terminal shows the map
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show only the N busiest of the chosen devices and operations [default: 6; in a page all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub top: Option<u16>,
    /// Colours of a picture [default: SVG and page as the viewer prefers, PNG light]
    #[arg(long, value_enum)]
    pub theme: Option<Theme>,
    /// Colours in the terminal [default: what it can show]
    #[arg(long, value_enum)]
    pub colour: Option<Depth>,
    /// Columns of the terminal [default: as many as it has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(20..=1000))]
    pub width: Option<u16>,
}

/// Options of `histogram`.
#[derive(Debug, Args)]
pub struct HistogramArgs {
    /// What to read
    #[command(flatten)]
    pub source: SourceArgs,
    /// Every recorded bucket (16 per octave) instead of powers of two
    #[arg(long)]
    pub fine: bool,
    /// One histogram per operation
    #[arg(long)]
    pub by_op: bool,
}

/// Options of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What to read
    #[command(flatten)]
    pub source: SourceArgs,
    /// What to write
    #[arg(short, long, value_enum, default_value_t)]
    pub format: ExportFormat,
    /// Write to this file, which appears when it is complete; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// OpenMetrics only: distance of the samples
    #[arg(long, value_name = "LENGTH", default_value = "5m")]
    pub by: String,
}

/// A shape for other programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// CSV, one line per host, window, device, operation and bucket
    #[default]
    Csv,
    /// CSV, one line per host, window, device and operation, with percentiles
    CsvWide,
    /// Parquet, one row per host, window, device, operation and bucket
    Parquet,
    /// Parquet, one row per host, window, device and operation, with percentiles
    ParquetWide,
    /// OpenMetrics text with timestamps, to fill Prometheus with the past
    Openmetrics,
}

impl SourceArgs {
    pub(super) fn query(&self, now: &Zoned) -> Result<Query, Failure> {
        let instant = |text: &Option<String>| {
            let parse = |text: &String| times::parse_instant(text, now);
            text.as_ref().map(parse).transpose().map_err(Failure::Usage)
        };
        let range = TimeRange { since_us: instant(&self.since)?, until_us: instant(&self.until)? };
        if let (Some(since), Some(until)) = (range.since_us, range.until_us)
            && since >= until
        {
            return Err(Failure::Usage("--since is not before --until".into()));
        }
        self.filter.query(&self.paths, range)
    }
}

impl FilterArgs {
    pub(super) fn now(&self) -> Zoned {
        let zone = if self.utc { TimeZone::UTC } else { TimeZone::system() };
        Zoned::now().with_time_zone(zone)
    }

    pub(super) fn threads(&self) -> usize {
        self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from),
            usize::from,
        )
    }

    /// The rows that a report shows.
    pub(super) fn shown(&self) -> Shown {
        let named = |operation| self.op.is_empty() || self.op.contains(&operation);
        Shown { operations: operations(named), all: named(Operation::All) }
    }

    /// What to read of `paths`.
    pub(super) fn query(&self, paths: &[PathBuf], range: TimeRange) -> Result<Query, Failure> {
        // The row of all operations needs each of them.
        let every = self.op.is_empty() || self.op.contains(&Operation::All);
        let some = operations(|operation| self.op.contains(&operation));
        let wanted =
            Wanted { range, devices: globs(&self.device)?, operations: (!every).then_some(some) };
        let watch = Progress::of_terminal().map(|progress| progress as Arc<dyn Watch>);
        Ok(Query { paths: paths.to_vec(), hosts: globs(&self.host)?, wanted, watch })
    }

    /// Whether something could not be used, and the user wants to be told by the exit code.
    pub(super) fn is_incomplete(&self, outcome: &Outcome) -> bool {
        !self.lenient && !outcome.problems.is_empty()
    }

    /// An error when devices or operations were asked for and nothing was `found`.
    pub(super) fn must_match(&self, found: bool) -> Result<(), Failure> {
        if found || (self.device.is_empty() && self.op.is_empty()) {
            return Ok(());
        }
        Err(Failure::Data("no request of the devices and operations asked for".into()))
    }

    pub(super) fn exit_code(&self, outcome: &Outcome) -> ExitCode {
        if self.is_incomplete(outcome) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// What `named` says of each operation, in the record's order.
fn operations(named: impl Fn(Operation) -> bool) -> [bool; OPERATIONS] {
    use Operation::{Discard, Flush, Other, Read, Write};
    const { assert!(Operations::NAMES.len() == 5) };
    [Read, Write, Flush, Discard, Other].map(named)
}
