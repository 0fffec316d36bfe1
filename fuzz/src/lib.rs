//! What is fuzzed: one function for each kind of input that others control. Each takes arbitrary
//! bytes and panics when a promise is broken; `fuzz_targets/` hands them to libFuzzer, and
//! `tests/fuzz_replay.rs` runs them over the kept corpus with any compiler.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is what a fuzzer looks for

#[path = "archive.rs"]
mod archive;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use blkiolatd::archive::reader::{self, Wanted};
use blkiolatd::cli::{self, RunArgs};
use blkiolatd::config::{Config, ConfigFile, FreeSpace, reload};
use blkiolatd::probe::format::Format;
use blkiolatd::report;
use clap::Parser;
use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use archive::archive;

/// Panics if `text` has what a terminal or a journal would act on.
fn assert_clean(text: &str, what: &str) {
    let hostile = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(hostile, None, "{what}: {text:?}");
}

/// What holds of every configuration that is accepted, wherever its values came from.
fn assert_sound(config: &Config) {
    let interval = config.sampling.interval;
    assert!((Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&interval));
    assert!(!config.sampling.include.is_empty());
    assert!(config.output.flush_every >= 1);
    assert!(config.rotation.gzip_level <= 9);
    if let FreeSpace::Percent(percent) = config.retention.min_free_space {
        assert!((0.0..=99.0).contains(&percent), "{percent}");
    }
}

/// A configuration file.
pub fn config(data: &[u8]) {
    let file = ConfigFile { path: "fuzz.toml".into(), text: data.to_vec() };
    match file.parse() {
        Ok(parsed) => {
            assert_sound(&parsed.config);
            let (config, _) = cli::resolve(&RunArgs::default(), Some(&file), false).unwrap();
            assert_eq!(config, parsed.config);
            assert!(config.retention.max_total_size >= config.rotation.max_size);
            assert!(config.retention.max_age >= config.rotation.max_age);
            for change in reload(&Config::default(), config).1 {
                assert_clean(&change.to_string(), "a change");
            }
        }
        Err(problems) => {
            assert!(!problems.list.is_empty());
            let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
            for problem in &problems.list {
                assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem:?}");
            }
            assert_clean(&problems.to_string(), "a complaint");
        }
    }
}

/// A file of records, plain or compressed, through one of `blkiolat`'s commands, which the first
/// byte chooses.
pub fn report(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let mut parser = reader::Parser::default();
    for line in data.split(|byte| *byte == b'\n') {
        if let Err(error) = parser.parse(line, &Wanted::default()) {
            assert!(!error.to_string().is_empty());
        }
    }
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.write_all(data).unwrap();
    let path = file.path().to_str().unwrap();
    let commands: [&[&str]; 8] = [
        &["report", path],
        &["report", path, "--by", "1h", "--format", "json"],
        &["diff", path, path],
        &["histogram", path, "--by-op"],
        &["histogram", path, "--fine"],
        &["heatmap", path, "--colour", "ascii", "--width", "80"],
        &["export", path],
        &["export", path, "--format", "openmetrics"],
    ];
    let command = commands[usize::from(choice) % commands.len()];
    let arguments = ["blkiolat"].iter().chain(command).chain(&["--utc", "--threads", "1"]).copied();
    let cli = report::cli::Cli::try_parse_from(arguments).unwrap();
    let (mut out, mut log) = (Vec::new(), Vec::new());
    let result = report::run::run(&cli.command, &mut out, &mut log);
    assert_clean(&String::from_utf8(log).unwrap(), "a complaint");
    match result {
        Ok(_) => {}
        Err(report::failure::Failure::Data(why)) => assert_clean(&why, "a failure"),
        Err(failure) => panic!("{failure}"),
    }
    let out = String::from_utf8(out).unwrap();
    match command {
        ["report", _, "--by", ..] => {
            for line in out.lines() {
                serde_json::from_str::<serde_json::Value>(line)
                    .or_else(|_| serde_json::from_str(&out))
                    .unwrap();
            }
        }
        // What is in quotation marks may have lines of its own, which CSV allows.
        ["export", ..] => {}
        _ => assert_clean(&out, "the output"),
    }
}

/// A tracepoint's format file, as the kernel or whoever is in its place gives it.
pub fn format(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let format = Format::parse(&text);
    for (name, sizes) in [
        ("dev", 4..=4),
        ("sector", 8..=8),
        ("nr_sector", 4..=4),
        ("error", 4..=4),
        ("rwbs", 4..=64),
    ] {
        match format.offset(name, sizes, "what is needed") {
            Ok(_) => assert!(text.contains(name) && text.contains("offset:"), "{name}"),
            Err(error) => assert!(error.to_string().contains(name)),
        }
    }
}

/// The arguments of both programs, separated by newlines; then each as a time and as a length.
pub fn arguments(data: &[u8]) {
    let words: Vec<OsString> = data
        .split(|byte| *byte == b'\n')
        .map(|word| OsString::from_vec(word.iter().copied().filter(|byte| *byte != 0).collect()))
        .collect();
    let with_name = |name: &str| {
        let mut all = vec![OsString::from(name)];
        all.extend(words.iter().cloned());
        all
    };
    if let Ok(cli) = cli::Cli::try_parse_from(with_name("blkiolatd"))
        && let cli::Command::Run(run) = cli.into_command()
    {
        for terminal in [false, true] {
            let (config, options) = cli::resolve(&run, None, terminal).unwrap();
            assert_sound(&config);
            assert!(!run.no_output || !config.output.enabled);
            assert!(options.count.is_none_or(|count| count > 0));
        }
    }
    // Nothing is run: some of it writes files where it is told to.
    let _ = report::cli::Cli::try_parse_from(with_name("blkiolat"));
    let now = Timestamp::from_second(1_795_362_300).unwrap().to_zoned(TimeZone::UTC);
    for word in words.iter().filter_map(|word| word.to_str()) {
        if let Ok(at) = report::times::parse_instant(word, &now) {
            let _ = report::times::civil(at, &TimeZone::UTC);
        }
        if let Some(Ok(range)) = report::times::parse_range(word, &now) {
            let _ = range.contains(0);
        }
        if let Ok(rows) = report::times::Rows::parse(word, TimeZone::UTC) {
            for at in [i64::MIN, -1, 0, 1_795_362_300_123_456, i64::MAX] {
                assert!(rows.begin_us(at) <= at.max(0), "{word:?} {at}");
            }
        }
    }
}
