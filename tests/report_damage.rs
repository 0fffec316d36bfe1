//! Damaged input is named, and the rest still used; the exit codes are those of the contract.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use serde_json::Value;
use support::*;

/// Windows reported, exit code, standard error.
fn report(arguments: &[&str]) -> (u64, i32, String) {
    let mut all = vec!["report", "-f", "json"];
    all.extend(arguments);
    let output = blkiolat(&all);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let windows = document["hosts"][0]["windows"].as_u64().unwrap_or(0);
    let errors = String::from_utf8(output.stderr).unwrap();
    (windows, output.status.code().unwrap(), errors)
}

#[test]
fn every_kind_of_damage_is_named_by_file_and_line() {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("h", 1, 100));
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let chunk = |at: usize| lines(&records[at * 20..at * 20 + 20]);

    let mut torn = chunk(0);
    torn.truncate(torn.len() - 100);
    fs::write(path("torn.jsonl"), &torn).unwrap();

    let mut foreign = chunk(1);
    foreign.extend(b"not json\n\n{\"schema\":1}\n");
    fs::write(path("foreign.jsonl"), &foreign).unwrap();

    let future = String::from_utf8(chunk(2)).unwrap().replacen("\"schema\":1", "\"schema\":2", 1);
    fs::write(path("future.jsonl"), future).unwrap();

    let mut corrupt = gzip(&chunk(3));
    let place = corrupt.len() / 2;
    corrupt[place..place + 40].fill(0xff);
    corrupt.extend(gzip(&chunk(4)));
    fs::write(path("corrupt.jsonl.gz"), corrupt).unwrap();

    let (windows, code, errors) = report(&[&path("torn.jsonl")]);
    assert_eq!((windows, code), (19, 1));
    assert!(errors.starts_with(&format!("blkiolat: {}: line 20 is torn", path("torn.jsonl"))));

    let (windows, code, errors) = report(&[&path("foreign.jsonl")]);
    assert_eq!((windows, code), (20, 1));
    let lines: Vec<_> = errors.lines().collect();
    assert!(lines[0].contains("foreign.jsonl: line 21 is no record of version 1: "), "{errors}");
    assert!(lines[1].contains("foreign.jsonl: line 23 is no record of version 1: missing field"));
    assert_eq!(lines.len(), 2);

    let (windows, code, errors) = report(&[&path("future.jsonl")]);
    assert_eq!((windows, code), (19, 1));
    assert!(errors.contains("future.jsonl: line 1 is a record of schema version 2"), "{errors}");

    let (windows, code, errors) = report(&[&path("corrupt.jsonl.gz")]);
    assert_eq!(code, 1);
    assert!((20..40).contains(&windows), "{windows}");
    assert!(errors.contains("corrupt.jsonl.gz: line "), "{errors}");
    assert!(errors.contains("the gzip data is corrupt"), "{errors}");

    // All of it at once; --lenient changes the exit code and nothing else.
    let (all, code, errors) = report(&[&path("")]);
    assert_eq!((all, code), (19 + 20 + 19 + windows, 1));
    assert!(errors.lines().count() >= 5);
    assert_eq!(report(&["--lenient", &path("")]), (all, 0, errors));
}

#[test]
fn much_damage_is_counted_instead_of_listed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("x.jsonl");
    let (records, _) = generate(&plan("h", 1, 2));
    let mut bytes = b"?\n".repeat(1000);
    bytes.extend(lines(&records));
    fs::write(&path, bytes).unwrap();
    let (windows, code, errors) = report(&[path.to_str().unwrap()]);
    assert_eq!((windows, code), (2, 1));
    assert_eq!(errors.lines().count(), 6);
    assert!(errors.contains("x.jsonl: 995 more lines of no use"), "{errors}");
}

#[test]
fn a_line_that_contradicts_itself_is_not_used() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("x.jsonl");
    let (mut records, _) = generate(&plan("h", 1, 3));
    records[1].latency_histogram[0].total += 1;
    fs::write(&path, lines(&records)).unwrap();
    let (windows, code, errors) = report(&[path.to_str().unwrap()]);
    assert_eq!((windows, code), (2, 1));
    assert!(errors.contains("line 2 is no record of version 1: nvme0n1: `total` is"), "{errors}");
}

#[test]
fn nothing_to_read() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().to_str().unwrap();
    let (_, code, errors) = report(&[directory]);
    assert_eq!(code, 1);
    assert_eq!(errors, format!("blkiolat: no .jsonl or .jsonl.gz file in {directory}\n"));
    let (_, code, errors) = report(&["/nonexistent"]);
    assert_eq!(code, 1);
    assert!(errors.starts_with("blkiolat: /nonexistent: cannot be read: No such file"), "{errors}");
    fs::write(root.path().join("x.jsonl"), "").unwrap();
    let (_, code, errors) = report(&[directory]);
    assert_eq!(code, 1);
    assert!(errors.contains("no window in"), "{errors}");
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["report", "--since", "never"][..],
        &["report", "--since", "now", "--until", "yesterday"],
        &["report", "--by", "7m"],
        &["report", "--device", "[", "/tmp"],
        &["report", "--op", "erase"],
        &["report", "--nonsense"],
        &["reprot"],
        &[],
    ] {
        let output = blkiolat(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(blkiolat(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("h", 1, 720));
    fs::write(root.path().join("x.jsonl"), lines(&records)).unwrap();
    // More than a pipe holds, so that the reader's end comes while there is more to write.
    let arguments = ["report", "-f", "jsonl", "--by", "1s", root.path().to_str().unwrap()];
    assert!(blkiolat(&arguments).stdout.len() > 200_000);
    let mut child =
        command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(errors, "");
}
