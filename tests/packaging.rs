//! What is packaged fits to the programs: the unit's command lines, paths and exposure.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use blkiolatd::cli::{self, Cli, Command, exit};
use blkiolatd::config::{Config, ConfigFile, DEFAULT_PATH};
use clap::Parser as _;

const UNIT: &str = include_str!("../packaging/blkiolatd.service");
const DROP_IN: &str = include_str!("../packaging/blkiolatd-tracepoint.conf");

/// Values of a setting in the unit, in its order.
fn values(name: &str) -> Vec<&'static str> {
    let value = |line: &'static str| line.strip_prefix(name)?.strip_prefix('=');
    UNIT.lines().filter_map(value).collect()
}

fn command(line: &str) -> Command {
    Cli::try_parse_from(line.split_whitespace()).unwrap().into_command()
}

#[test]
fn the_service_s_command_means_the_shipped_configuration() {
    let [start] = values("ExecStart")[..] else { panic!("one ExecStart") };
    let Command::Run(args) = command(start) else { panic!("{start}") };
    assert_eq!(args.config, Some(PathBuf::from(DEFAULT_PATH)));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/blkiolatd.toml");
    let file = ConfigFile::read_named(&shipped).unwrap();
    let (config, options) = cli::resolve(&args, Some(&file), false).unwrap();
    assert_eq!(config, Config::default());
    assert!(!options.print);
}

#[test]
fn a_reload_checks_the_file_that_the_service_reads_before_it_signals() {
    let [check, signal] = values("ExecReload")[..] else { panic!("two ExecReload") };
    let Command::Check(args) = command(check) else { panic!("{check}") };
    assert_eq!(args.config, Some(PathBuf::from(DEFAULT_PATH)));
    assert_eq!(signal, "/bin/kill -HUP $MAINPID");
}

#[test]
fn the_unit_s_directories_are_those_of_the_defaults() {
    let [logs] = values("LogsDirectory")[..] else { panic!("one LogsDirectory") };
    let output = Config::default().output.path;
    assert_eq!(output.parent().unwrap(), Path::new("/var/log").join(logs));
    let [configuration] = values("ConfigurationDirectory")[..] else { panic!("one of them") };
    assert_eq!(Path::new(DEFAULT_PATH).parent().unwrap(), Path::new("/etc").join(configuration));
}

#[test]
fn what_trying_again_cannot_mend_is_not_tried_again() {
    let expected = format!("{} {}", exit::USAGE, exit::NOT_PERMITTED);
    assert_eq!(values("RestartPreventExitStatus"), [expected.as_str()]);
}

/// The limit is part of the project's promise; systemd's own tool is the judge.
#[test]
fn the_unit_s_exposure_is_at_most_1_0() {
    let help = Process::new("systemd-analyze").arg("--help").output();
    let offline =
        |help: std::process::Output| String::from_utf8_lossy(&help.stdout).contains("--offline");
    if !help.is_ok_and(offline) {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI may not skip: needs systemd-analyze from systemd 250 or newer"
        );
        eprintln!("skipped: needs systemd-analyze from systemd 250 or newer");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let with_drop_in = format!("{UNIT}\n{DROP_IN}");
    for (name, text) in [("plain.service", UNIT), ("drop-in.service", &with_drop_in)] {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let verdict = Process::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=10"])
            .arg(&path)
            .output()
            .unwrap();
        let table = String::from_utf8_lossy(&verdict.stdout);
        assert!(table.contains("Overall exposure level"), "{verdict:?}");
        assert!(verdict.status.success(), "{table}");
    }
}
