//! `blkiolat tail` as a program: in pipes, at ends of files, with options.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::support::{command, gzip, lines, text};
use crate::{append, records};

struct Running {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().map(BufReader::new);
        Self { child, out }
    }

    /// The next line; waits for it.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    /// Closes the pipe; exit code, and what stood on standard error.
    fn close(mut self) -> (Option<i32>, String) {
        self.out = None;
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap().code(), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn follows_and_ends_with_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blkiolat.jsonl");
    let records = records(5);
    append(&path, &lines(&records[..3]));
    // A directory means the daemon's file in it.
    let mut tail = Running::start(command(&["tail", "-n", "1", dir.path().to_str().unwrap()]));
    assert_eq!(tail.line(), "db-17, 2026-11-22\n");
    assert!(tail.line().starts_with("TIME      DEVICE  "));
    assert!(tail.line().starts_with("00:00:15  nvme0n1  "));
    assert!(tail.line().starts_with("00:00:15  sda  "));
    append(&path, &lines(&records[4..]));
    assert_eq!(tail.line(), "00:00:25  MISSED: 1 window missing\n");
    assert!(tail.line().starts_with("00:00:25  nvme0n1  "));
    // Nothing more is written, and it ends all the same.
    assert_eq!(tail.close(), (Some(0), String::new()));
}

#[test]
fn prints_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.jsonl");
    let records = records(5);
    append(&path, &lines(&records));
    let path = path.to_str().unwrap();
    let shown =
        text(command(&["tail", "--no-follow", "-n2", "-d", "sd*", path]).output().unwrap(), 0);
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert!(!shown.contains("nvme"), "{shown}");
    let json =
        command(&["tail", "--no-follow", "-n2", "--format", "jsonl", path]).output().unwrap();
    assert_eq!(text(json, 0).into_bytes(), lines(&records[3..]));
}

#[test]
fn waits_for_a_file_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.jsonl");
    let mut tail = Running::start(command(&["tail", path.to_str().unwrap()]));
    let mut errors = BufReader::new(tail.child.stderr.take().unwrap());
    let mut error = String::new();
    errors.read_line(&mut error).unwrap();
    let name = path.display();
    assert_eq!(error, format!("blkiolat: {name}: waiting for it: there is no such file yet\n"));
    append(&path, &lines(&records(1)));
    assert_eq!(tail.line(), "db-17, 2026-11-22\n");
}

#[test]
fn reads_a_pipe_to_its_end() {
    let mut bytes = lines(&records(3));
    bytes.extend(b"{\"timestamp\":17");
    let mut command = command(&["tail", "-"]);
    command.stdin(Stdio::piped());
    let mut tail = Running::start(command);
    let mut stdin = tail.child.stdin.take().unwrap();
    stdin.write_all(&bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(tail.line(), "db-17, 2026-11-22\n");
    stdin.write_all(&bytes[bytes.len() / 2..]).unwrap();
    drop(stdin);
    let mut rest = String::new();
    tail.out.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest.lines().count(), 1 + 3 * 2, "{rest}");
    let (code, errors) = tail.close();
    assert_eq!(code, Some(0));
    assert!(errors.contains("standard input: line 4 is torn (no newline)"), "{errors}");
}

#[test]
fn replays_copies() {
    let dir = tempfile::tempdir().unwrap();
    let records = records(6);
    let path = dir.path().join("copy.jsonl.gz");
    fs::write(&path, gzip(&lines(&records))).unwrap();
    for arguments in [
        // What is compressed cannot grow.
        &["tail", "--format", "jsonl", "--speed", "max"][..],
        &["tail", "--format", "jsonl", "--speed", "1000", "--replay"],
    ] {
        let output = command(arguments).arg(&path).output().unwrap();
        assert_eq!(text(output, 0).into_bytes(), lines(&records));
    }
    let none = command(&["tail", "--replay", "/nonexistent/x"]).output().unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("/nonexistent/x"));
}

#[test]
fn top_wants_a_terminal() {
    let output = command(&["top", "/nonexistent/x"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("blkiolat tail"), "{errors}");
}
