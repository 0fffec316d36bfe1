//! What each subcommand of `blkiolat` does.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use jiff::Zoned;

use super::aggregate::Aggregate;
use super::cells::{Cells, Part};
use super::cli::{
    Cli, Command, DiffArgs, ExportArgs, ExportFormat, HeatmapArgs, HistogramArgs, ReportArgs,
};
use super::export::CsvMaker;
use super::failure::{Failure, globs};
use super::heatmap::png::Theme;
use super::heatmap::terminal::Depth;
use super::heatmap::{self, Collector};
use super::parquet::{ParquetFile, ParquetMaker, Schema};
use super::summary::{self, Row, SortKey};
use super::times::{self, Rows};
use super::units::printable;
use super::{diff, openmetrics, output, picture, table};
use crate::archive::reader::{self, Outcome, Query, Source, TimeRange};
use crate::terminal::Language;
use crate::top;

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
    let mut out = io::BufWriter::new(io::stdout());
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

/// Runs one command: its result goes to `out`, what could not be used to `log`. The exit code is 0, or
/// 1 when part of the input could not be used.
///
/// # Errors
/// When there is nothing to show, or it cannot be written.
pub fn run(
    command: &Command,
    out: &mut (dyn Write + Send),
    log: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    match command {
        Command::Report(args) => report(args, out, log),
        Command::Diff(args) => diff(args, out, log),
        Command::Heatmap(args) => heatmap(args, out, log),
        Command::Histogram(args) => histogram(args, out, log),
        Command::Export(args) => export(args, out, log),
        Command::Tail(args) => top::run::tail(args, out, log),
        Command::Top(args) => top::run::top(args),
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
    let query = args.source.query(&now)?;
    let (cells, outcome) = sums(&query, rows, args.source.filter.threads())?;
    state_problems(&outcome, log);
    if outcome.coverage.is_empty() {
        return Err(nothing(&query, &outcome));
    }
    let hosts = summary::hosts(&cells.sums, &outcome.coverage, zone);
    let none = Cell::new(true);
    let all = |each: &mut dyn FnMut(Row) -> io::Result<()>| {
        summary::for_each_row(&cells, shown, cut, zone, &mut |row| {
            none.set(false);
            each(row)
        })
    };
    match args.sort.or(args.top.map(|_| SortKey::P99)) {
        None => table::write(out, args.format, &hosts, &all, zone)?,
        Some(key) => {
            let rows = summary::first(&all, key, args.top)?;
            let some = |each: &mut dyn FnMut(Row) -> io::Result<()>| {
                rows.iter().try_for_each(|row| each(row.clone()))
            };
            table::write(out, args.format, &hosts, &some, zone)?;
        }
    }
    args.source.filter.must_match(!none.get())?;
    Ok(args.source.filter.exit_code(&outcome))
}

fn diff(args: &DiffArgs, out: &mut dyn Write, log: &mut dyn Write) -> Result<ExitCode, Failure> {
    let now = args.filter.now();
    let mut code = ExitCode::SUCCESS;
    let mut side = |text: &str| {
        let query = side(text, &now, args)?;
        let (sums, outcome) = aggregate(&query, args.filter.threads());
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
    args.filter.must_match(!changes.is_empty())?;
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
    let (parts, outcome) = reader::read(&query, args.source.filter.threads(), Collector::default);
    state_problems(&outcome, log);
    let mut whole = Collector::default();
    parts.into_iter().for_each(|part| whole.merge(part));
    let terminal = || terminal_size::terminal_size().map_or(100, |(width, _)| width.0);
    let columns = match picture {
        None => heatmap::terminal::columns(args.width.unwrap_or_else(terminal).into()),
        Some(Picture::Page) => heatmap::draw::COLUMNS * 2,
        Some(_) => heatmap::draw::COLUMNS,
    };
    let map = whole.map(columns, args.source.filter.shown(), now.time_zone());
    let mut map = map.ok_or_else(|| nothing(&query, &outcome))?;
    args.source.filter.must_match(!map.panels.is_empty())?;
    if map.panels.is_empty() {
        return Err(Failure::Data("no request was completed in that time".into()));
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
            heatmap::terminal::write(out, &map, depth, columns)?;
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
    let query = args.source.query(&now)?;
    let (aggregate, outcome) = aggregate(&query, filter.threads());
    state_problems(&outcome, log);
    if outcome.coverage.is_empty() {
        return Err(nothing(&query, &outcome));
    }
    let range = |source: &Source| {
        outcome
            .coverage
            .get(source)
            .map_or((0, 0), |coverage| (coverage.first_us, coverage.last_us))
    };
    let language = Language::of_environment(|name| std::env::var(name).ok());
    let style = picture::Style { fine: args.fine, by_operation: args.by_op, language };
    let pictures = picture::write(out, &aggregate, range, filter.shown(), style, now.time_zone())?;
    filter.must_match(pictures > 0)?;
    Ok(filter.exit_code(&outcome))
}

fn export(
    args: &ExportArgs,
    out: &mut (dyn Write + Send),
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
    out: &mut (dyn Write + Send),
    log: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let filter = &args.source.filter;
    let now = filter.now();
    let zone = now.time_zone();
    let query = args.source.query(&now)?;
    let mut none = true;
    let outcome = match args.format {
        ExportFormat::Openmetrics => {
            let usage =
                || Failure::Usage(format!("`{}` is no distance; expected 1m, 5m ...", args.by));
            let by = humantime::parse_duration(&args.by).map_err(|_| usage())?;
            let step_s = i64::try_from(by.as_secs()).ok().filter(|&step| step > 0);
            let step_s = step_s.ok_or_else(usage)?;
            let (cells, outcome) = sums(&query, Rows::epoch(step_s), filter.threads())?;
            cells.for_each(|key, _| {
                none &= key.device.is_empty();
                Ok(())
            })?;
            openmetrics::write(out, &cells, filter.shown(), step_s)?;
            outcome
        }
        ExportFormat::Csv | ExportFormat::CsvWide => {
            let wide = (args.format == ExportFormat::CsvWide).then(|| filter.shown());
            out.write_all(&CsvMaker::header(wide.is_some())?)?;
            let make = || CsvMaker::new(wide, zone.clone());
            let mut result = Ok(());
            let outcome = reader::read_pieces(&query, filter.threads(), make, |piece| {
                none = false;
                until_error(&mut result, || out.write_all(&piece?))
            });
            result?;
            outcome
        }
        ExportFormat::Parquet | ExportFormat::ParquetWide => {
            let wide = (args.format == ExportFormat::ParquetWide).then(|| filter.shown());
            let schema = Schema::new(wide.is_some())?;
            let mut file = ParquetFile::new(out, &schema)?;
            let make = || ParquetMaker::new(wide, &schema);
            let mut result = Ok(());
            let outcome = reader::read_pieces(&query, filter.threads(), make, |piece| {
                none = false;
                until_error(&mut result, || file.append(piece?))
            });
            result?;
            file.finish()?;
            outcome
        }
    };
    state_problems(&outcome, log);
    if outcome.coverage.is_empty() {
        return Err(nothing(&query, &outcome));
    }
    filter.must_match(!none)?;
    Ok(filter.exit_code(&outcome))
}

/// Writes unless that failed before; says whether to go on.
fn until_error(result: &mut io::Result<()>, write: impl FnOnce() -> io::Result<()>) -> bool {
    if result.is_ok() {
        *result = write();
    }
    result.is_ok()
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
fn side(text: &str, now: &Zoned, args: &DiffArgs) -> Result<Query, Failure> {
    let mut query = args.filter.query(&args.paths, TimeRange::default())?;
    if Path::new(text).exists() {
        query.paths = vec![text.into()];
        return Ok(query);
    }
    if let Some(range) = times::parse_range(text, now) {
        query.wanted.range = range.map_err(Failure::Usage)?;
        return Ok(query);
    }
    let mut paths = Vec::new();
    let mut hosts = Vec::new();
    for choice in text.split(',') {
        let instant = |value: &str| times::parse_instant(value, now).map_err(Failure::Usage);
        match choice.split_once('=') {
            Some(("host", value)) => hosts.push(value.to_owned()),
            Some(("path", value)) => paths.push(value.into()),
            Some(("since", value)) => query.wanted.range.since_us = Some(instant(value)?),
            Some(("until", value)) => query.wanted.range.until_us = Some(instant(value)?),
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

/// Reads and adds up everything that `query` asks for, in memory.
fn aggregate(query: &Query, threads: usize) -> (Aggregate, Outcome) {
    let (parts, outcome) = reader::read(query, threads, || Aggregate::new(Rows::default()));
    (Aggregate::merged(parts), outcome)
}

/// The same by rows of time, of which there may be more than memory holds.
fn sums(query: &Query, rows: Rows, threads: usize) -> Result<(Cells, Outcome), Failure> {
    let mut cells = Cells::new(rows, threads);
    let (parts, outcome) = reader::read(query, threads, || cells.part());
    let parts = parts.into_iter().map(Part::into_aggregate).collect();
    cells.finish(parts).map_err(|error| Failure::Data(error.to_string()))?;
    Ok((cells, outcome))
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
