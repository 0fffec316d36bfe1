//! The command line, alone and over a configuration file.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use blkiolatd::cli::{self, CheckArgs, Cli, Command, RunArgs, RunOptions, exit};
use blkiolatd::config::{Config, ConfigFile, Detail, ProbeChoice};
use clap::{CommandFactory as _, Parser as _};

const SERVICE_PATH: &str = "/srv/service.jsonl";

fn parse(line: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("blkiolatd").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(Cli::into_command)
}

fn run(line: &str) -> RunArgs {
    match parse(line).unwrap() {
        Command::Run(args) => args,
        other => panic!("{line} is {other:?}"),
    }
}

fn file(text: &str) -> ConfigFile {
    ConfigFile { path: "b.toml".into(), text: text.into() }
}

fn resolve(line: &str, text: Option<&str>, terminal: bool) -> (Config, RunOptions) {
    cli::resolve(&run(line), text.map(file).as_ref(), terminal).unwrap()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn run_is_the_default_command() {
    assert_eq!(run(""), run("run"));
    let options = "-c x.toml --interval 2 --device sda --device nvme* --by-op --count 3";
    assert_eq!(run(options), run(&format!("run {options}")));
    assert!(matches!(parse("doctor"), Ok(Command::Doctor)));
    assert!(matches!(parse("check"), Ok(Command::Check(CheckArgs { config: None }))));
    let Ok(Command::Check(args)) = parse("check -c x.toml") else { panic!() };
    assert_eq!(args.config, Some(PathBuf::from("x.toml")));
}

#[test]
fn wrong_usage_has_its_exit_code_and_help_has_the_other() {
    for line in [
        "--interval 0",
        "--interval 5parsecs",
        "--interval 2h",
        "--flush-every 0",
        "--count 0",
        "--probe kprobe",
        "--detail coarse",
        "--device sd[a",
        "--device",
        "--output x --no-output",
        "--output /",
        "--output -",
        "--log-level loud",
        "--interval 1 check",
        "--interval 1 run",
        "walk",
        "check --interval 1",
        "--no-such-option",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), i32::from(exit::USAGE), "{line}");
    }
    for line in ["--help", "--version", "run --help", "check -h", "doctor --help"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), i32::from(exit::SUCCESS), "{line}");
    }
}

#[test]
fn help_names_the_exit_codes() {
    for line in ["--help", "run --help", "check --help", "doctor --help"] {
        let help = parse(line).unwrap_err().to_string();
        assert!(help.contains("77  not permitted"), "{help}");
    }
}

#[test]
fn with_nothing_said_the_daemon_has_the_defaults() {
    let (config, options) = resolve("", None, false);
    assert_eq!(config, Config::default());
    assert_eq!(options, RunOptions { print: false, by_op: false, count: None });
}

#[test]
fn in_a_terminal_it_prints_and_writes_to_the_working_directory() {
    let (config, options) = resolve("", None, true);
    let mut expected = Config::default();
    expected.output.path = "tracepoints.jsonl".into();
    assert_eq!(config, expected);
    assert!(options.print);
}

#[test]
fn print_and_no_print_win_over_the_terminal_and_the_last_one_counts() {
    for (line, terminal, print) in [
        ("--no-print", true, false),
        ("--print", false, true),
        ("--print --no-print", true, false),
        ("--no-print --print", false, true),
    ] {
        assert_eq!(resolve(line, None, terminal).1.print, print, "{line}");
    }
}

/// Each option over a file that sets the same thing otherwise.
#[test]
fn every_option_wins_over_the_file() {
    let text = r#"
        [sampling]
        interval = "1m"
        probe = "btf"
        include = ["sd*"]
        exclude = ["nvme*"]
        [output]
        enabled = false
        path = "/srv/service.jsonl"
        flush_every = 3
        detail = "fine"
        [log]
        level = "warn"
    "#;
    let line = "--interval 500ms --probe tracepoint --device nvme0n1 --device /dev/vd? \
                --output out.jsonl --flush-every 7 --fsync --detail log2 --log-level trace \
                --by-op --count 9 --bio";
    let (config, options) = resolve(line, Some(text), false);
    assert_eq!(config.sampling.interval, Duration::from_millis(500));
    assert_eq!(config.sampling.probe, ProbeChoice::Tracepoint);
    assert!(config.sampling.bio);
    assert_eq!(config.sampling.include, ["nvme0n1", "/dev/vd?"]);
    assert_eq!(config.sampling.exclude, [""; 0]);
    assert!(config.output.enabled && config.output.fsync);
    assert_eq!(config.output.path, PathBuf::from("out.jsonl"));
    assert_eq!((config.output.flush_every, config.output.detail), (7, Detail::Log2));
    assert_eq!(config.log.level, tracing::Level::TRACE);
    assert_eq!(options, RunOptions { print: false, by_op: true, count: Some(9) });

    let (config, _) = resolve("--no-output", Some("output.enabled = true"), false);
    assert!(!config.output.enabled);
}

#[test]
fn without_options_the_file_counts() {
    let text = "[sampling]\ninterval = 60\nexclude = [\"sdz\"]\n[output]\nfsync = true\n";
    let (config, _) = resolve("--by-op", Some(text), false);
    assert_eq!(config.sampling.interval, Duration::from_secs(60));
    assert_eq!(config.sampling.exclude, ["sdz"]);
    assert!(config.output.fsync);
}

/// The same arguments with another text: what was said on the command line stays.
#[test]
fn after_a_reload_an_option_still_wins() {
    let args = run("--interval 2");
    let load = |text| cli::resolve(&args, Some(&file(text)), false).unwrap().0;
    let before = load("sampling.interval = 5\noutput.flush_every = 1");
    let after = load("sampling.interval = 9\noutput.flush_every = 2");
    assert_eq!(before.sampling.interval, Duration::from_secs(2));
    assert_eq!(after.sampling.interval, Duration::from_secs(2));
    assert_eq!((before.output.flush_every, after.output.flush_every), (1, 2));
}

/// A run by hand must not fight with the service for its file.
#[test]
fn the_output_of_an_interactive_run_is_the_service_s_only_when_asked_for() {
    let text = format!("output.path = \"{SERVICE_PATH}\"");
    for (line, text, terminal, path) in [
        ("", text.as_str(), false, SERVICE_PATH),
        ("--no-print", &text, false, SERVICE_PATH),
        ("", &text, true, "tracepoints.jsonl"),
        ("--no-print", &text, true, "tracepoints.jsonl"),
        ("--print", &text, false, "tracepoints.jsonl"),
        ("-c b.toml", &text, true, SERVICE_PATH),
        ("-c b.toml", "", true, "tracepoints.jsonl"),
        ("-c b.toml", "", false, "/var/log/blkiolatd/blkiolat.jsonl"),
        ("-c b.toml --output x", &text, true, "x"),
    ] {
        let (config, _) = resolve(line, Some(text), terminal);
        assert_eq!(config.output.path, PathBuf::from(path), "{line:?} over {text:?}, {terminal}");
    }
}

#[test]
fn a_wrong_file_is_an_error_whatever_the_options() {
    let wrong = file("sampling.interval = true\n");
    let error = cli::resolve(&run("--interval 5"), Some(&wrong), false).unwrap_err();
    assert!(error.to_string().starts_with("b.toml:1:21: sampling.interval: "), "{error}");
}

#[test]
fn check_says_what_it_has_checked_or_all_that_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b.toml");
    let args = CheckArgs { config: Some(path.clone()) };
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        cli::check(&args, &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    assert_eq!(check("").unwrap(), format!("{}: no mistakes\n", path.display()));
    let error = check("a = 1\nb = 2\n").unwrap_err().to_string();
    assert_eq!(error.lines().count(), 2, "{error}");

    std::fs::remove_file(&path).unwrap();
    let error = cli::check(&args, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("b.toml: cannot read the configuration: no such file"), "{error}");
}

/// The program itself: what scripts see.
#[test]
fn the_exit_codes_of_the_program_are_those_of_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good.toml"), directory.path().join("bad.toml"));
    std::fs::write(&good, "log.level = \"warn\"\n").unwrap();
    std::fs::write(&bad, "a = 1\nb = 2\n").unwrap();
    let missing = directory.path().join("missing.toml");
    for (command, path, code, on_stderr) in [
        ("check", &good, exit::SUCCESS, ""),
        ("check", &bad, exit::USAGE, "bad.toml:2:1: \"b\": unknown section"),
        ("check", &missing, exit::USAGE, "missing.toml: cannot read"),
        ("run", &bad, exit::USAGE, "bad.toml:2:1: \"b\": unknown section"),
        ("run", &missing, exit::USAGE, "missing.toml: cannot read"),
    ] {
        let output = Process::new(env!("CARGO_BIN_EXE_blkiolatd"))
            .args([command, "-c"])
            .arg(path)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(code)), "{command}: {errors}");
        assert!(errors.contains(on_stderr), "{command}: {errors}");
        assert_eq!(errors.is_empty(), on_stderr.is_empty(), "{command}: {errors}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let check = |out: Stdio| {
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/blkiolatd.toml");
        let mut check = Process::new(env!("CARGO_BIN_EXE_blkiolatd"));
        check.args(["check", "-c", config]).stdout(out).output().unwrap()
    };
    let output = check(writer.into());
    assert_eq!(output.status.code(), Some(i32::from(exit::SUCCESS)), "{output:?}");
    // A full disk is one.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = check(full.into());
    assert_eq!(output.status.code(), Some(i32::from(exit::FAILURE)), "{output:?}");
}
