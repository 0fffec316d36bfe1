//! The configuration file: what is accepted, and what is said about what is not.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

use std::path::{Path, PathBuf};
use std::time::Duration;

use blkiolatd::config::key::KEYS;
use blkiolatd::config::{
    Config, ConfigError, ConfigFile, Detail, FreeSpace, Parsed, ProbeChoice, Problems,
};
use proptest::prelude::*;

fn file(text: impl AsRef<[u8]>) -> ConfigFile {
    ConfigFile { path: "b.toml".into(), text: text.as_ref().to_vec() }
}

fn accepted(text: &str) -> Parsed {
    file(text).parse().unwrap()
}

fn refused(text: impl AsRef<[u8]>) -> Problems {
    file(text).parse().unwrap_err()
}

fn shipped() -> ConfigFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/blkiolatd.toml");
    ConfigFile::read_named(&path).unwrap()
}

#[test]
fn the_shipped_file_sets_every_key_to_its_default() {
    let parsed = shipped().parse().unwrap();
    assert_eq!(parsed.config, Config::default());
    let mut given = parsed.given;
    let mut keys: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    given.sort_unstable();
    keys.sort_unstable();
    assert_eq!(given, keys);
}

/// The manual page is made of these comments.
#[test]
fn the_shipped_file_explains_every_key_in_the_table_s_order() {
    let text = String::from_utf8(shipped().text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut section = "";
    let mut seen = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            assert!(lines[index - 1].starts_with("# "), "{section}.{name} is not explained");
            seen.push(format!("{section}.{name}"));
        }
    }
    assert_eq!(seen, KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
}

#[test]
fn an_empty_file_is_the_default() {
    for text in ["", "\n# nothing\n", "[output]\n[log]\n"] {
        let parsed = accepted(text);
        assert_eq!(parsed.config, Config::default());
        assert_eq!(parsed.given, [""; 0]);
    }
}

#[test]
fn every_form_of_a_value_is_read() {
    let parsed = accepted(
        r#"
        sampling.interval = 0.25
        sampling.include = ["/dev/nvme*n1", "sd?"]
        sampling.exclude = []
        sampling.probe = "tracepoint"
        output = { enabled = false, path = "/srv/x y.jsonl", flush_every = 0x10, fsync = true }
        [rotation]
        max_size = 1_048_576
        max_age = 3600
        gzip_level = 0
        [retention]
        max_age = "1h 30m"
        max_total_size = "1.5 GB"
        min_free_space = "2.5 %"
        [log]
        level = "debug"
        "#,
    );
    let Config { sampling, output, rotation, retention, log } = parsed.config;
    assert_eq!(sampling.interval, Duration::from_millis(250));
    assert_eq!(sampling.include, ["/dev/nvme*n1", "sd?"]);
    assert_eq!(sampling.exclude, [""; 0]);
    assert_eq!(sampling.probe, ProbeChoice::Tracepoint);
    assert!(!output.enabled && output.fsync);
    assert_eq!(output.path, PathBuf::from("/srv/x y.jsonl"));
    assert_eq!((output.flush_every, output.detail), (16, Detail::Fine));
    assert_eq!((rotation.max_size, rotation.gzip_level), (1 << 20, 0));
    assert_eq!(rotation.max_age, Duration::from_secs(3600));
    assert_eq!(retention.max_age, Duration::from_secs(5400));
    assert_eq!(retention.max_total_size, 1_500_000_000);
    assert_eq!(retention.min_free_space, FreeSpace::Percent(2.5));
    assert_eq!(log.level, tracing::Level::DEBUG);
}

#[test]
fn all_mistakes_are_shown_at_once_in_the_order_of_the_text() {
    let text = r#"[sampling]
interval = "5 apples"
exclude = ["loop*", "sd[a"]
probes = "btf"

[retention]
    max_size = "1GiB"
min_free_space = "105%"

[output]
path = "log/x.jsonl"
"#;
    assert_eq!(
        refused(text).to_string(),
        r#"b.toml:2:12: sampling.interval: expected a length of time from 10ms to 1h such as "5s", or a number of seconds; found "5 apples" (unknown time unit "apples", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations))
b.toml:3:21: sampling.exclude: expected a list of globs of device names, such as ["loop*"]; found "sd[a" (unclosed character class; missing ']')
b.toml:4:1: "probes": unknown key in [sampling]; did you mean probe?
b.toml:7:5: "max_size": unknown key in [retention]; did you mean max_total_size?
b.toml:8:18: retention.min_free_space: expected a share of the file system from "0%" to "99%", or a size such as "1GiB"; found "105%" (more than 99%)
b.toml:11:8: output.path: expected the absolute path of a file, such as "/var/log/blkiolatd/blkiolat.jsonl"; found "log/x.jsonl" (it is relative)"#
    );
}

/// Each value stands alone in a file; the message has to name its key and say why.
#[test]
fn impossible_values_are_refused() {
    let cases = [
        ("sampling.interval = \"9ms\"", "(less than 10ms)"),
        ("sampling.interval = 0", "(less than 10ms)"),
        ("sampling.interval = 3601", "(more than 1h)"),
        ("sampling.interval = -5", "(less than nothing)"),
        ("sampling.interval = nan", "(not a finite number)"),
        ("sampling.interval = inf", "(not a finite number)"),
        ("sampling.interval = true", "found true"),
        ("sampling.interval = [5]", "found a list"),
        ("sampling.interval = 2026-11-22", "found a date or time"),
        ("sampling.include = []", "found an empty list"),
        ("sampling.include = \"sda\"", "found \"sda\""),
        ("sampling.include = [3]", "found 3 in the list"),
        ("sampling.include = [\"\"]", "found \"\" (empty)"),
        ("sampling.probe = \"BTF\"", "found \"BTF\""),
        ("output.enabled = \"yes\"", "found \"yes\""),
        ("output.path = \"/var/log/\"", "(it names no file)"),
        ("output.path = \"/a\\u0000b\"", "NUL"),
        ("output.flush_every = 0", "found 0"),
        ("output.flush_every = 100001", "found 100001"),
        ("output.flush_every = -1", "found -1"),
        ("output.flush_every = 1.5", "found 1.5"),
        ("output.fsync = 1", "found 1"),
        ("output.detail = \"coarse\"", "found \"coarse\""),
        ("rotation.max_size = \"4095B\"", "(less than 4KiB)"),
        ("rotation.max_size = \"2TiB\"", "(more than 1024GiB)"),
        ("rotation.max_size = -1", "(not a number of bytes)"),
        ("rotation.max_age = 0", "(less than 1s)"),
        ("rotation.gzip_level = 10", "found 10"),
        ("retention.max_age = \"101years\"", "(more than"),
        ("retention.max_total_size = \"64 pages\"", "MiB"),
        ("retention.min_free_space = \"-1%\"", "(less than 0%)"),
        ("retention.min_free_space = \"NaN%\"", "(not a number)"),
        ("retention.min_free_space = \"five%\"", "(invalid float literal)"),
        ("log.level = \"loud\"", "found \"loud\""),
        ("log.level = 3", "found 3"),
    ];
    for (text, why) in cases {
        let problems = refused(text);
        let message = &problems.list[0].message;
        let key = text.split(' ').next().unwrap();
        assert!(message.starts_with(&format!("{key}: expected ")), "{text}: {message}");
        assert!(message.contains(why), "{text}: {message}");
        assert_eq!((problems.list.len(), problems.list[0].line), (1, 1), "{text}");
    }
}

#[test]
fn unknown_names_come_with_advice() {
    for (text, message) in [
        ("[samplings]", "\"samplings\": unknown section; did you mean [sampling]?"),
        (
            "[x]",
            "\"x\": unknown section; the sections are [sampling], [output], [rotation], \
             [retention], [log]",
        ),
        ("interval = 5", "\"interval\": unknown here; it belongs under [sampling]"),
        (
            "sampling.fsync = true",
            "\"fsync\": unknown key in [sampling]; it belongs under [output]",
        ),
        ("log.x = 1", "\"x\": unknown key in [log]; the keys of [log] are level"),
        ("sampling = 5", "sampling: expected a section, [sampling] on a line of its own"),
    ] {
        assert_eq!(refused(text).list[0].message, message);
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let problems = refused("[retention]\nmax_age = \"12h\"\nmax_total_size = \"1MiB\"\n");
    assert_eq!(
        problems.to_string(),
        "b.toml:2:11: retention.max_age: expected at least rotation.max_age, which is 1day, \
         because otherwise a file would be removed as soon as it is rotated; found 12h\n\
         b.toml:3:18: retention.max_total_size: expected at least rotation.max_size, which is \
         64MiB, because otherwise the active file alone would exceed it; found 1MiB"
    );
    // Where only the other of the two is in the file, it is the one to look at.
    let problems = refused("[rotation]\nmax_size = \"4GiB\"\n");
    assert_eq!((problems.list[0].line, problems.list[0].column), (2, 12));
}

#[test]
fn mistakes_in_the_syntax_have_their_place() {
    let problems = refused("[sampling]\ninterval 5\n\n[output\nfsync = true\n");
    let lines: Vec<usize> = problems.list.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [2, 4], "{problems}");
    assert!(problems.to_string().contains("not valid TOML"), "{problems}");

    let problems = refused("[log]\nlevel = \"info\"\nlevel = \"warn\"\n");
    assert_eq!((problems.list.len(), problems.list[0].line), (1, 3), "{problems}");

    let problems = refused(b"# caf\xc3\xa9\n# caf\xe9\n");
    assert_eq!(problems.to_string(), "b.toml:2:6: expected UTF-8; the bytes here are not");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_one_that_is_not_there_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    assert_eq!(ConfigFile::read(&missing).unwrap(), None);
    let error = ConfigFile::read_named(&missing).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: ", missing.display())), "{error}");
    assert!(matches!(
        ConfigFile::read(directory.path()).unwrap_err(),
        ConfigError::Unreadable { .. }
    ));
    // An endless file must not fill the memory.
    let error = ConfigFile::read(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(error.contains("larger than 1 MiB"), "{error}");
}

fn fragments() -> impl Strategy<Value = String> {
    let names = KEYS.iter().map(|key| key.short_name().to_owned());
    let sections = KEYS.iter().map(|key| format!("[{}]\n", key.section()));
    let others = [
        " = ",
        "\n",
        "\"",
        "5s",
        "64MiB",
        "5%",
        "-",
        "0x",
        "1e9",
        "[",
        "]",
        "{",
        "}",
        ".",
        "é",
        "\"\"\"",
        "true",
        "9999999999999999999999",
        "'",
        "#",
    ];
    let all: Vec<String> = names.chain(sections).chain(others.map(String::from)).collect();
    prop::collection::vec(prop::sample::select(all), 0..20).prop_map(|parts| parts.concat())
}

proptest! {
    /// Whatever the bytes, the answer is a configuration or a list of places in the text.
    #[test]
    fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_answer(&bytes)?;
    }

    #[test]
    fn pieces_of_configuration_are_refused_or_read(text in fragments()) {
        check_answer(text.as_bytes())?;
    }
}

fn check_answer(text: &[u8]) -> Result<(), TestCaseError> {
    if let Err(problems) = file(text).parse() {
        prop_assert!(!problems.list.is_empty());
        let lines = text.split(|&byte| byte == b'\n').count();
        for problem in problems.list {
            prop_assert!((1..=lines).contains(&problem.line));
            prop_assert!(problem.column >= 1 && problem.column <= text.len() + 1);
        }
    }
    Ok(())
}
