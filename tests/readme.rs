//! The examples of the README run as they are written.
//!
//! A fenced block whose first line is ` ```sh test ` is run by `sh -e` in a directory that holds a
//! `tracepoints.jsonl` of several windows; it must succeed and print something. Further words name
//! what the block needs: a program, or `python:MODULE`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

use std::path::Path;
use std::process::{Command, Stdio};

use blkiolatd::record::Record;
use serde_json::json;

/// A block to run, and what it needs.
#[derive(Debug, PartialEq)]
struct Example {
    line: usize,
    needs: Vec<String>,
    script: String,
}

fn examples(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut inside) {
            (Some(info), None) => {
                let mut words = info.split_whitespace();
                let marked = words.next() == Some("sh") && words.next() == Some("test");
                let needs = words.map(str::to_owned).collect();
                inside = Some((marked, Example { line: number + 1, needs, script: String::new() }));
            }
            (Some(_), Some(_)) => {
                examples.extend(inside.take().filter(|(marked, _)| *marked).map(|(_, e)| e));
            }
            (None, Some((_, example))) => {
                example.script.push_str(line);
                example.script.push('\n');
            }
            (None, None) => {}
        }
    }
    assert_eq!(inside, None, "a fenced block has no end");
    examples
}

fn has(need: &str) -> bool {
    let mut command = match need.strip_prefix("python:") {
        Some(module) => {
            let mut command = Command::new("python3");
            command.args(["-c", &format!("import {module}")]);
            command
        }
        None => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("command -v {need}")]);
            command
        }
    };
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Windows of a machine with two disks.
fn records() -> String {
    let mut text = Vec::new();
    for seq in 0..20_u64 {
        let device = |id: u32, name: &str, total: u64| {
            json!({"device_id": id, "device_name": name, "total": total,
                "buckets": [{"slot": 4, "count": total, "bucket_low": 16, "bucket_high": 31}],
                "ops": {"read": {"total": total, "bytes": total * 4096, "sum_us": total as f64 * 20.0,
                    "max_us": 31.25, "errors": 0, "fine": [[70], [total]]}},
                "requeues": 0})
        };
        let record: Record = serde_json::from_value(json!({
            "timestamp": 1_691_397_912.123 + 5.0 * seq as f64,
            "iso_timestamp": format!("2023-08-07T08:{:02}:{:02}.123000+00:00", 45 + (12 + 5 * seq) / 60, (12 + 5 * seq) % 60),
            "interval_s": 5.0,
            "latency_histogram": [device(8 << 20, "sda", 10 + seq), device(259 << 20, "nvme0n1", 84)],
            "inflight": [{"device_id": 259 << 20, "device_name": "nvme0n1", "count": 1, "mean": 0.83,
                "max": 12, "oldest_us": 84.2}],
            "schema": 1, "host": "db-17", "boot_id": "8f0e3a52-97c4-4d2c-9f0b-3a1de1f0c0de",
            "seq": seq, "window_s": 5.0003,
            "audit": {"untracked_completions": 0, "inflight_table_full": 0, "device_table_full": 0,
                "probe_misses": 0, "dropped_snapshots": 0},
        }))
        .unwrap();
        record.write_line(&mut text);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn the_examples_of_the_readme_run() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let ours = Path::new(env!("CARGO_BIN_EXE_blkiolat")).parent().unwrap();
    let path_with_us = format!("{}:{}", ours.display(), std::env::var("PATH").unwrap());
    for example in examples(&text) {
        if let Some(missing) = example.needs.iter().find(|need| !has(need)) {
            assert!(std::env::var_os("CI").is_none(), "line {} needs {missing}", example.line);
            println!("skipped: README.md:{} needs {missing}", example.line);
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tracepoints.jsonl"), records()).unwrap();
        let output = Command::new("sh")
            .args(["-e", "-c", &example.script])
            .current_dir(directory.path())
            .env("PATH", &path_with_us)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "README.md:{}: {errors}", example.line);
        assert!(!output.stdout.is_empty(), "README.md:{} prints nothing", example.line);
    }
}

#[test]
fn only_marked_blocks_are_examples() {
    let text =
        "```sh\nrm -r /\n```\n\n```sh test jq python:pandas\njq .\nls\n```\n```json\n{}\n```\n";
    let expected = Example {
        line: 5,
        needs: vec!["jq".into(), "python:pandas".into()],
        script: "jq .\nls\n".into(),
    };
    assert_eq!(examples(text), [expected]);
}
