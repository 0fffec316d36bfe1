//! What the stages measured, kept as JSON in `target/bench`, so that one of them can be run again
//! without the others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::binary::Binaries;
use crate::daemon::Daemon;
use crate::rounds::Results;
use crate::scaling::Scaling;

/// Everything that was measured so far.
#[derive(Debug)]
pub struct All {
    pub race: Option<Results>,
    pub scaling: Option<Scaling>,
    pub daemon: Option<Daemon>,
    pub binaries: Option<Binaries>,
    /// Written by `benches/user_space.rs`.
    pub bytes: Option<Bytes>,
    /// Written by `benches/bench.mk`.
    pub build: Option<Build>,
    /// Written by `benches/null_blk`.
    pub null_blk: Option<NullBlk>,
    /// What `make bench-report` measured of `blkiolat`, as Markdown: `target/bench/report.md`.
    pub reading: Option<String>,
    /// Nanoseconds, by name, as Criterion left them.
    pub criterion: Vec<(String, f64)>,
}

/// Bytes of a day's lines.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Bytes {
    pub fine: Day,
    pub log2: Day,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Day {
    pub raw: u64,
    pub gzipped: u64,
    pub requests: u64,
    pub disks: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Build {
    pub cold_seconds: f64,
    pub rustc: String,
}

/// Requests per second on null_blk in an emulated machine, with and without the daemon, by round.
#[derive(Clone, Debug, Deserialize)]
pub struct NullBlk {
    pub kernel: String,
    pub rounds: Vec<[f64; 2]>,
}

/// Where stages leave what they measured.
#[derive(Clone, Debug)]
pub struct Store(pub PathBuf);

impl Store {
    /// # Errors
    /// When it cannot be written.
    pub fn save<T: Serialize>(&self, stage: &str, results: &T) -> Result<()> {
        let path = self.path(stage);
        fs::write(&path, serde_json::to_vec(results)?).with_context(|| path.display().to_string())
    }

    fn path(&self, stage: &str) -> PathBuf {
        self.0.join(format!("{stage}.json"))
    }

    /// What a stage left; `None` if it has not been run.
    fn load<T: DeserializeOwned>(&self, stage: &str) -> Result<Option<T>> {
        let path = self.path(stage);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| path.display().to_string())?,
        };
        let results = serde_json::from_slice(&text);
        results.map(Some).with_context(|| {
            format!("{}: of another version? Remove it and run make bench", path.display())
        })
    }

    /// # Errors
    /// When something cannot be read.
    pub fn load_all(&self) -> Result<All> {
        Ok(All {
            race: self.load("race")?,
            scaling: self.load("scaling")?,
            daemon: self.load("daemon")?,
            binaries: self.load("binaries")?,
            bytes: self.load("bytes")?,
            build: self.load("build")?,
            null_blk: self.load("null_blk")?,
            reading: fs::read_to_string(self.0.join("report.md")).ok(),
            criterion: criterion(&self.0.with_file_name("criterion")),
        })
    }
}

/// Medians of Criterion's benches.
fn criterion(directory: &Path) -> Vec<(String, f64)> {
    let mut found: Vec<(String, f64)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let text = fs::read(entry.path().join("new/estimates.json")).ok()?;
            let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((name, json["median"]["point_estimate"].as_f64()?))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}
