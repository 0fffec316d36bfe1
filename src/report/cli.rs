//! The command line of `blkiolat`: what was said, turned once into what it means.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use jiff::Zoned;
use jiff::tz::TimeZone;

use super::aggregate::{Aggregate, OPERATIONS, Selection};
use super::diff;
use super::export::{self, CsvExport};
use super::heatmap::png::Theme;
use super::heatmap::terminal::Depth;
use super::heatmap::{self, Collector};
use super::output;
use super::picture;
use super::summary::{self, Shown, SortKey};
use super::table::{self, Format};
use super::times::{self, Rows};
use super::units::printable;
use crate::archive::reader::{self, Outcome, Query, TimeRange};
use crate::record::Operations;
use crate::terminal::Language;

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
    /// The records as CSV or OpenMetrics text
    Export(ExportArgs),
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
    /// OpenMetrics text with timestamps, to fill Prometheus with the past
    Openmetrics,
}

/// Why the program ends early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is nothing to show, or it cannot be shown.
    #[error("{0}")]
    Data(String),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Runs the command line of this process; the exit code is 0, 1 (part of the input could not be
/// used, or failure) or 2 (usage). A closed pipe is no failure.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // --help and --version come here too; a closed pipe is nobody's loss.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = run(&cli.command, &mut out, &mut io::stderr())
        .and_then(|code| out.flush().map(|()| code).map_err(Failure::from));
    match result {
        Ok(code) => code,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "blkiolat: {failure}");
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn run(command: &Command, out: &mut dyn Write, log: &mut dyn Write) -> Result<ExitCode, Failure> {
    match command {
        Command::Report(args) => report(args, out, log),
        Command::Diff(args) => diff(args, out, log),
        Command::Heatmap(args) => heatmap(args, out, log),
        Command::Histogram(args) => histogram(args, out, log),
        Command::Export(args) => export(args, out, log),
    }
}

fn report(
    args: &ReportArgs,
    out: &mut dyn Write,
    log: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let now = args.source.filter.now();
    let zone = now.time_zone();
    let rows = match &args.by {
        Some(by) => Rows::parse(by, zone.clone()).map_err(Failure::Usage)?,
        None => Rows::default(),
    };
    let cut = rows.is_cut();
    let mut shown = args.source.filter.shown();
    if args.top.is_some() && args.source.filter.op.is_empty() {
        shown.all = false;
    }
    let selection = args.source.filter.selection(rows)?;
    let query = args.source.query(&now)?;
    let (aggregate, outcome) = aggregate(&query, &selection, args.source.filter.threads());
    state_problems(&outcome, log);
    if outcome.coverage.is_empty() {
        return Err(nothing(&query, &outcome));
    }
    let mut rows = summary::rows(&aggregate, shown, cut, zone);
    if let Some(key) = args.sort.or(args.top.map(|_| SortKey::P99)) {
        summary::sort(&mut rows, key);
    }
    rows.truncate(args.top.unwrap_or(usize::MAX));
    let hosts = summary::hosts(&aggregate, &outcome.coverage, zone);
    table::write(out, args.format, &hosts, &rows, zone)?;
    Ok(args.source.filter.exit_code(&outcome))
}

fn diff(args: &DiffArgs, out: &mut dyn Write, log: &mut dyn Write) -> Result<ExitCode, Failure> {
    let now = args.filter.now();
    let selection = args.filter.selection(Rows::default())?;
    let mut code = ExitCode::SUCCESS;
    let mut side = |text: &str| {
        let query = side(text, &now, &args.paths, &args.filter.host)?;
        let (sums, outcome) = aggregate(&query, &selection, args.filter.threads());
        state_problems(&outcome, log);
        if outcome.coverage.is_empty() {
            return Err(nothing(&query, &outcome));
        }
        if args.filter.is_incomplete(&outcome) {
            code = ExitCode::FAILURE;
        }
        Ok(sums)
    };
    let (a, b) = (side(&args.a)?, side(&args.b)?);
    let mut changes = diff::compare(&a, &b, args.filter.shown(), args.merge_hosts);
    changes.truncate(args.top.unwrap_or(usize::MAX));
    diff::write(out, args.format, [&args.a, &args.b], &changes)?;
    Ok(code)
}

fn heatmap(
    args: &HeatmapArgs,
    out: &mut dyn Write,
    log: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let now = args.source.filter.now();
    let picture = args.output.as_deref().map(Picture::of).transpose()?;
    let query = args.source.query(&now)?;
    let selection = args.source.filter.selection(Rows::default())?;
    let collector = || Collector::new(selection.clone());
    let (parts, outcome) = reader::read(&query, args.source.filter.threads(), collector);
    state_problems(&outcome, log);
    let mut whole = collector();
    parts.into_iter().for_each(|part| whole.merge(part));
    let terminal = || terminal_size::terminal_size().map_or(100, |(width, _)| width.0);
    let columns = match picture {
        None => heatmap::terminal::columns(args.width.unwrap_or_else(terminal).into()),
        Some(Picture::Page) => heatmap::draw::COLUMNS * 2,
        Some(_) => heatmap::draw::COLUMNS,
    };
    let map = whole.map(columns, args.source.filter.shown(), now.time_zone());
    let mut map = map.ok_or_else(|| nothing(&query, &outcome))?;
    if map.panels.is_empty() {
        return Err(Failure::Data("no request of the devices and operations asked for".into()));
    }
    let all = if picture == Some(Picture::Page) { usize::MAX } else { 6 };
    let most = args.top.map_or(all, usize::from);
    if map.panels.len() > most {
        let _ = writeln!(
            log,
            "blkiolat: {} of {} devices and operations are shown; --top, --device, --op and \
             --host choose others",
            most,
            map.panels.len()
        );
        map.panels.truncate(most);
    }
    match (&args.output, picture) {
        (Some(path), Some(picture)) => {
            let bytes = picture.render(&map, args.theme)?;
            output::replace(path, &bytes).map_err(|error| {
                Failure::Data(format!("cannot write {}: {error}", path.display()))
            })?;
        }
        _ => {
            let variable = |name: &str| std::env::var(name).ok();
            let depth = args
                .colour
                .unwrap_or_else(|| Depth::of_environment(io::stdout().is_terminal(), variable));
            heatmap::terminal::write(out, &map, depth)?;
        }
    }
    Ok(args.source.filter.exit_code(&outcome))
}

fn histogram(
    args: &HistogramArgs,
    out: &mut dyn Write,
    log: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let filter = &args.source.filter;
    let now = filter.now();
    let selection = filter.selection(Rows::default())?;
    let query = args.source.query(&now)?;
    let (aggregate, outcome) = aggregate(&query, &selection, filter.threads());
    state_problems(&outcome, log);
    if outcome.coverage.is_empty() {
        return Err(nothing(&query, &outcome));
    }
    let range = |host: &str| {
        outcome.coverage.get(host).map_or((0, 0), |coverage| (coverage.first_us, coverage.last_us))
    };
    let language = Language::of_environment(|name| std::env::var(name).ok());
    let style = picture::Style { fine: args.fine, by_operation: args.by_op, language };
    picture::write(out, &aggregate, range, filter.shown(), style, now.time_zone())?;
    Ok(filter.exit_code(&outcome))
}

fn export(
    args: &ExportArgs,
    out: &mut dyn Write,
    log: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let Some(path) = &args.output else { return write_export(args, out, log) };
    let failure =
        |error: io::Error| Failure::Data(format!("cannot write {}: {error}", path.display()));
    let mut file = output::Output::create(path).map_err(failure)?;
    let code = write_export(args, &mut file, log).map_err(|error| match error {
        Failure::Output(error) => failure(error),
        other => other,
    })?;
    file.finish().map_err(failure)?;
    Ok(code)
}

fn write_export(
    args: &ExportArgs,
    out: &mut dyn Write,
    log: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let filter = &args.source.filter;
    let now = filter.now();
    let zone = now.time_zone();
    let query = args.source.query(&now)?;
    let outcome = if args.format == ExportFormat::Openmetrics {
        let usage = || Failure::Usage(format!("`{}` is no distance; expected 1m, 5m ...", args.by));
        let by = humantime::parse_duration(&args.by).map_err(|_| usage())?;
        let step_s = i64::try_from(by.as_secs()).ok().filter(|&step| step > 0).ok_or_else(usage)?;
        let selection = filter.selection(Rows::epoch(step_s))?;
        let (aggregate, outcome) = aggregate(&query, &selection, filter.threads());
        export::write_openmetrics(out, &aggregate, filter.shown(), step_s)?;
        outcome
    } else {
        let selection = filter.selection(Rows::default())?;
        let mut csv = if args.format == ExportFormat::Csv {
            CsvExport::long(out, selection, zone.clone())?
        } else {
            CsvExport::wide(out, selection, filter.shown(), zone.clone())
        };
        let outcome = reader::read_in_order(&query, &mut csv);
        csv.finish()?;
        outcome
    };
    state_problems(&outcome, log);
    if outcome.coverage.is_empty() {
        return Err(nothing(&query, &outcome));
    }
    Ok(filter.exit_code(&outcome))
}

/// A kind of file that a heat map can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Picture {
    Svg,
    Png,
    Page,
}

impl Picture {
    fn of(path: &Path) -> Result<Self, Failure> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            Some("html" | "htm") => Ok(Self::Page),
            _ => Err(Failure::Usage(format!(
                "--output {}: expected a name that ends in .svg, .png or .html",
                path.display()
            ))),
        }
    }

    fn render(self, map: &heatmap::Map, theme: Option<Theme>) -> Result<Vec<u8>, Failure> {
        let failure = |error: io::Error| Failure::Data(format!("cannot draw the map: {error}"));
        match self {
            Self::Svg => Ok(heatmap::svg::render(map, theme).into_bytes()),
            Self::Png => heatmap::png::render(map, theme.unwrap_or(Theme::Light)).map_err(failure),
            Self::Page => {
                heatmap::html::render(map, theme).map(String::into_bytes).map_err(failure)
            }
        }
    }
}

/// What one side of a comparison means: an archive that exists, a range of time, or a choice.
fn side(text: &str, now: &Zoned, paths: &[PathBuf], hosts: &[String]) -> Result<Query, Failure> {
    let mut query =
        Query { paths: paths.to_vec(), range: TimeRange::default(), hosts: globs(hosts)? };
    if Path::new(text).exists() {
        query.paths = vec![text.into()];
        return Ok(query);
    }
    if let Some(range) = times::parse_range(text, now) {
        query.range = range.map_err(Failure::Usage)?;
        return Ok(query);
    }
    let mut paths = Vec::new();
    let mut hosts = Vec::new();
    for choice in text.split(',') {
        let instant = |value: &str| times::parse_instant(value, now).map_err(Failure::Usage);
        match choice.split_once('=') {
            Some(("host", value)) => hosts.push(value.to_owned()),
            Some(("path", value)) => paths.push(value.into()),
            Some(("since", value)) => query.range.since_us = Some(instant(value)?),
            Some(("until", value)) => query.range.until_us = Some(instant(value)?),
            _ => {
                return Err(Failure::Usage(format!(
                    "`{text}` is no path that exists, no range of time (yesterday, 2026-11-22, \
                     09:00..10:00) and no choice (host=GLOB,since=TIME,until=TIME,path=PATH)"
                )));
            }
        }
    }
    if !paths.is_empty() {
        query.paths = paths;
    }
    if !hosts.is_empty() {
        query.hosts = globs(&hosts)?;
    }
    Ok(query)
}

/// Reads and adds up everything that `query` and `selection` ask for.
fn aggregate(query: &Query, selection: &Selection, threads: usize) -> (Aggregate, Outcome) {
    let (parts, outcome) = reader::read(query, threads, || Aggregate::new(selection.clone()));
    (Aggregate::merged(parts), outcome)
}

/// Writes what could not be used; if that cannot be written either, there is nobody to tell.
fn state_problems(outcome: &Outcome, log: &mut dyn Write) {
    for problem in &outcome.problems {
        let _ = writeln!(log, "blkiolat: {}", printable(&problem.to_string()));
    }
    if outcome.duplicates > 0 {
        let _ = writeln!(
            log,
            "blkiolat: {} windows were there more than once and are counted once",
            outcome.duplicates
        );
    }
}

/// What to say when no window is left.
fn nothing(query: &Query, outcome: &Outcome) -> Failure {
    let paths: Vec<_> = query.paths.iter().map(|path| path.display().to_string()).collect();
    let read = outcome.inputs + outcome.outside;
    Failure::Data(if read == 0 {
        format!("no .jsonl or .jsonl.gz file in {}", paths.join(", "))
    } else {
        format!(
            "no window in {} ({read} files) is of the time and hosts asked for",
            paths.join(", ")
        )
    })
}

impl SourceArgs {
    fn query(&self, now: &Zoned) -> Result<Query, Failure> {
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
        Ok(Query { paths: self.paths.clone(), range, hosts: globs(&self.filter.host)? })
    }
}

impl FilterArgs {
    fn now(&self) -> Zoned {
        let zone = if self.utc { TimeZone::UTC } else { TimeZone::system() };
        Zoned::now().with_time_zone(zone)
    }

    fn threads(&self) -> usize {
        self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from),
            usize::from,
        )
    }

    /// The rows that a report shows.
    fn shown(&self) -> Shown {
        let named = |operation| self.op.is_empty() || self.op.contains(&operation);
        Shown { operations: operations(named), all: named(Operation::All) }
    }

    fn selection(&self, rows: Rows) -> Result<Selection, Failure> {
        // The row of all operations needs each of them.
        let every = self.op.is_empty() || self.op.contains(&Operation::All);
        let some = operations(|operation| self.op.contains(&operation));
        Ok(Selection { devices: globs(&self.device)?, operations: (!every).then_some(some), rows })
    }

    /// Whether something could not be used, and the user wants to be told by the exit code.
    fn is_incomplete(&self, outcome: &Outcome) -> bool {
        !self.lenient && !outcome.problems.is_empty()
    }

    fn exit_code(&self, outcome: &Outcome) -> ExitCode {
        if self.is_incomplete(outcome) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// What `named` says of each operation, in the record's order.
fn operations(named: impl Fn(Operation) -> bool) -> [bool; OPERATIONS] {
    use Operation::{Discard, Flush, Other, Read, Write};
    const { assert!(Operations::NAMES.len() == 5) };
    [Read, Write, Flush, Discard, Other].map(named)
}

/// One matcher of all globs; none when there are none.
fn globs(patterns: &[String]) -> Result<Option<GlobSet>, Failure> {
    let usage = |error: globset::Error| Failure::Usage(error.to_string());
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).build().map_err(usage)?);
    }
    if patterns.is_empty() { Ok(None) } else { set.build().map(Some).map_err(usage) }
}
