//! What the daemon was told to do: the meaning of the configuration file and of the command line.
//!
//! This file has the types and the built-in defaults. [`key`] is the table of the file's keys,
//! [`value`] reads one value, [`file`] turns a file into a [`Config`] or into everything that is
//! wrong with it. The command line is laid over it in [`crate::cli`].

pub mod file;
pub mod key;
pub mod value;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

pub use file::{ConfigError, ConfigFile, Parsed, Problem, Problems, other_writers};
pub use key::{Change, reload};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/blkiolatd/blkiolatd.toml";

/// A complete, checked configuration.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// What is measured, and how often.
    pub sampling: Sampling,
    /// Where records go.
    pub output: Output,
    /// When the active file is set aside.
    pub rotation: Rotation,
    /// When archives are removed.
    pub retention: Retention,
    /// What is logged.
    pub log: Log,
}

/// Section `[sampling]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Length of a window; 10 ms to 1 h.
    pub interval: Duration,
    /// Which probe to load.
    pub probe: ProbeChoice,
    /// Whether bios of disks without request queues are measured, too.
    pub bio: bool,
    /// Globs of device names to measure; at least one.
    pub include: Vec<String>,
    /// Globs of device names to leave out; wins over `include`.
    pub exclude: Vec<String>,
}

/// Which BPF programs measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProbeChoice {
    /// The best that this kernel supports
    #[default]
    Auto,
    /// BTF-typed tracepoints
    Btf,
    /// Classic tracepoints, which need no BTF
    Tracepoint,
}

/// Section `[output]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Whether records are written at all.
    pub enabled: bool,
    /// The active file; rotated segments and archives are its siblings.
    pub path: PathBuf,
    /// Lines that are collected before they are handed to the kernel; at least 1.
    pub flush_every: u32,
    /// Whether each flush is followed by `fdatasync`.
    pub fsync: bool,
    /// How much of a histogram a record keeps.
    pub detail: Detail,
}

/// How much of a histogram a record keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Detail {
    /// 16 buckets per octave
    #[default]
    Fine,
    /// One bucket per octave
    Log2,
}

/// Section `[rotation]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Size of the active file, in bytes, from which it is rotated.
    pub max_size: u64,
    /// Age of the active file's first record from which it is rotated.
    pub max_age: Duration,
    /// gzip level, 1 to 9; 0 leaves rotated segments uncompressed.
    pub gzip_level: u32,
}

/// Section `[retention]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// Archives older than this are removed.
    pub max_age: Duration,
    /// Bytes of the active file, segments and archives together.
    pub max_total_size: u64,
    /// Space that is left free on the file system.
    pub min_free_space: FreeSpace,
}

/// An amount of free space on a file system.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FreeSpace {
    /// So many bytes.
    Bytes(u64),
    /// This share of the file system's size; 0 to 99.
    Percent(f64),
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Least important level that is logged.
    pub level: tracing::Level,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            probe: ProbeChoice::Auto,
            bio: false,
            include: vec!["*".into()],
            exclude: vec!["loop*".into(), "ram*".into(), "zram*".into()],
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/var/log/blkiolatd/blkiolat.jsonl".into(),
            flush_every: 12,
            fsync: false,
            detail: Detail::Fine,
        }
    }
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_size: 64 << 20, max_age: Duration::from_secs(24 * 3600), gzip_level: 6 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(30 * 24 * 3600),
            max_total_size: 2 << 30,
            min_free_space: FreeSpace::Percent(5.0),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: tracing::Level::INFO }
    }
}
