//! The command lines of `blkiolat tail` and `blkiolat top`.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;

use super::pace::Speed;
use super::player::Source;
use super::state::Sort;
use super::window::Intake;
use crate::archive::reader::{Input, Wanted};
use crate::config::{self, ConfigFile};
use crate::report::failure::{Failure, globs};

/// What to follow, or to replay.
#[derive(Debug, Args)]
pub struct LiveArgs {
    /// The active file to follow, or the directory that it is in; - is standard input. With
    /// --replay, files and directories of records [default: the file that the daemon's
    /// configuration names, or /var/log/blkiolatd/blkiolat.jsonl]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Show what was recorded as if it happened now, instead of following the file
    #[arg(long)]
    pub replay: bool,
    /// How fast to replay: a factor, or max
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    pub speed: Speed,
    /// Only devices whose name matches this glob (repeatable)
    #[arg(short, long, value_name = "GLOB")]
    pub device: Vec<String>,
    /// Only hosts whose name matches this glob (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub host: Vec<String>,
    /// Show times as UTC instead of in the local time zone
    #[arg(long)]
    pub utc: bool,
}

/// Options of `tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// What to follow
    #[command(flatten)]
    pub live: LiveArgs,
    /// Begin with the last N windows that are recorded already
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10)]
    pub lines: u32,
    /// Print these and end
    #[arg(long)]
    pub no_follow: bool,
    /// How to print a window
    #[arg(short, long, value_enum, default_value_t)]
    pub format: TailFormat,
}

/// How `tail` prints a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TailFormat {
    /// An aligned line per device
    #[default]
    Table,
    /// The record as it stands in the file (of all its devices)
    Jsonl,
}

/// Options of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// What to follow
    #[command(flatten)]
    pub live: LiveArgs,
    /// Sort devices by this at first
    #[arg(long, value_enum, default_value_t)]
    pub sort: Sort,
}

impl LiveArgs {
    /// Where to read, with so many windows that are there already, and how to call that.
    ///
    /// # Errors
    /// When the paths cannot be followed.
    pub fn source(&self, history: usize) -> Result<(Source, String), Failure> {
        let several = || self.paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        let usage = |what: String| Err(Failure::Usage(what));
        let path = match &self.paths[..] {
            [] => configured_path(),
            [path] => path.clone(),
            _ if self.replay => {
                return Ok((Source::Replay(self.paths.clone(), self.speed), several().join(" ")));
            }
            _ => return usage("only one file can be followed; --replay takes several".into()),
        };
        let name = path.display().to_string();
        let compressed = path.extension().is_some_and(|extension| extension == "gz");
        if self.replay || compressed {
            let paths = if self.paths.is_empty() { siblings(path) } else { vec![path] };
            return Ok((Source::Replay(paths, self.speed), name));
        }
        if path.as_os_str() == "-" {
            return Ok((Source::Stream(Input::Stdin), "standard input".into()));
        }
        match fs::metadata(&path).map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_dir() => {
                let active = config::Output::default().path;
                let active = path.join(active.file_name().unwrap_or_default());
                Ok((Source::Follow(active.clone(), history), active.display().to_string()))
            }
            Ok(kind) if kind.is_fifo() || kind.is_char_device() || kind.is_socket() => {
                Ok((Source::Stream(Input::File(path)), name))
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Failure::Data(format!(
                    "cannot open {name}: {error}; members of the group blkiolatd may read the \
                     service's records"
                )))
            }
            _ => Ok((Source::Follow(path, history), name)),
        }
    }

    /// What is taken of it.
    ///
    /// # Errors
    /// When a glob is none.
    pub fn intake(&self) -> Result<Intake, Failure> {
        let wanted = Wanted { devices: globs(&self.device)?, ..Wanted::default() };
        Ok(Intake::new(wanted, globs(&self.host)?))
    }

    /// The zone in which times are shown.
    #[must_use]
    pub fn zone(&self) -> TimeZone {
        if self.utc { TimeZone::UTC } else { TimeZone::system() }
    }
}

/// The directory of the daemon's files, which holds the past too.
fn siblings(path: PathBuf) -> Vec<PathBuf> {
    vec![path.parent().map(PathBuf::from).unwrap_or(path)]
}

/// Where the service of this host writes; the default where its configuration does not say, or
/// cannot be read.
fn configured_path() -> PathBuf {
    let file = ConfigFile::read(config::DEFAULT_PATH.as_ref()).ok().flatten();
    let parsed = file.and_then(|file| file.parse().ok());
    parsed.map_or_else(|| config::Output::default().path, |parsed| parsed.config.output.path)
}
