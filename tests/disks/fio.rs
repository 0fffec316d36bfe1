//! Load from fio, and what fio says it did.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{Loop, command};

/// One run of fio with one or more jobs.
pub struct Fio {
    words: Vec<String>,
    directory: TempDir,
}

/// A run that is under way; killed when dropped.
pub struct Running {
    child: Child,
    directory: TempDir,
}

/// What a run did, all jobs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub write_bytes: u64,
    pub trims: u64,
    pub trim_bytes: u64,
    pub syncs: u64,
}

impl Fio {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("report.json");
        let words = vec![
            "--output-format=json".to_owned(),
            format!("--output={}", report.display()),
            "--thread".to_owned(),
        ];
        Self { words, directory }
    }

    /// Adds a job that works on the disk itself, with O_DIRECT.
    pub fn job(self, disk: &Loop, options: &str) -> Self {
        let path = disk.node.clone();
        self.job_on(&path, &format!("--direct=1 {options}"))
    }

    /// Adds a job on a file.
    pub fn job_on(mut self, path: &Path, options: &str) -> Self {
        let number = self.words.len();
        self.words.push(format!("--name=job{number}"));
        self.words.push(format!("--filename={}", path.display()));
        self.words.extend(options.split_whitespace().map(str::to_owned));
        self
    }

    pub fn start(self) -> Running {
        let child = command("fio")
            .args(&self.words)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Running { child, directory: self.directory }
    }

    pub fn run(self) -> Report {
        self.start().wait()
    }
}

impl Running {
    pub fn wait(mut self) -> Report {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "fio: {status}");
        let text = fs::read_to_string(self.directory.path().join("report.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let mut report = Report::default();
        for job in json["jobs"].as_array().unwrap() {
            let number = |side: &str, key: &str| job[side][key].as_u64().unwrap();
            report.reads += number("read", "total_ios");
            report.read_bytes += number("read", "io_bytes");
            report.writes += number("write", "total_ios");
            report.write_bytes += number("write", "io_bytes");
            report.trims += number("trim", "total_ios");
            report.trim_bytes += number("trim", "io_bytes");
            report.syncs += number("sync", "total_ios");
        }
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, or the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
