//! Reads a configuration file: all that is wrong with it is found at once, each with its place.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Config;
use super::key::{KEYS, Key};
use super::value::{Value, quote, show_duration, show_size};

/// Largest file that is read, in bytes: far more than any configuration needs, and an end where
/// the path names a device or a log by mistake.
const LARGEST_FILE: u64 = 1 << 20;

/// Least similarity (0 to 1) from which a known name is suggested for an unknown one.
const SIMILAR: f64 = 0.75;

/// The text of a configuration file and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it was read; for messages.
    pub path: PathBuf,
    /// What stands in it.
    pub text: Vec<u8>,
}

/// What a configuration file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The file's values over the built-in defaults.
    pub config: Config,
    /// Names of the keys that the file sets, for example `output.path`.
    pub given: Vec<&'static str>,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}{hint}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What to do, or nothing.
        hint: &'static str,
    },
    /// The file has mistakes.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

/// Everything that is wrong with a file, in the order of the text; one line each when displayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file.
    pub path: PathBuf,
    /// At least one problem.
    pub list: Vec<Problem>,
}

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key that is concerned and what is wrong with it.
    pub message: String,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let Problem { line, column, message } = problem;
            write!(f, "{}:{line}:{column}: {message}", self.path.display())?;
        }
        Ok(())
    }
}

impl ConfigFile {
    /// Reads the file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let unreadable = |source: io::Error| {
            let hint = match source.kind() {
                io::ErrorKind::PermissionDenied => "; it must be readable by the daemon's user",
                _ => "",
            };
            ConfigError::Unreadable { path: path.to_owned(), source, hint }
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut text = Vec::new();
        file.take(LARGEST_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() as u64 > LARGEST_FILE {
            return Err(unreadable(io::Error::other("it is larger than 1 MiB")));
        }
        Ok(Some(Self { path: path.to_owned(), text }))
    }

    /// Reads the file, which has to be there because the user named it.
    pub fn read_named(path: &Path) -> Result<Self, ConfigError> {
        Self::read(path)?.ok_or_else(|| ConfigError::Unreadable {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "no such file"),
            hint: "; name another with --config, or leave the option out to use the defaults",
        })
    }

    /// What the file says, or everything that is wrong with it.
    pub fn parse(&self) -> Result<Parsed, Problems> {
        parse(&self.text).map_err(|list| Problems { path: self.path.clone(), list })
    }
}

/// Who besides root and this user may change the file at `path`, for a warning; `None` where nobody
/// may, or there is no file. Whoever may decides what is recorded, and where.
#[must_use]
pub fn other_writers(path: &Path) -> Option<&'static str> {
    let ours = rustix::process::geteuid().as_raw();
    let of = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        writers(metadata.mode(), metadata.uid(), metadata.gid(), ours, metadata.is_dir())
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    of(path).or_else(|| {
        of(directory.unwrap_or(Path::new("."))).map(|who| match who {
            GROUP => "the group of its directory",
            OTHERS => "everybody, through its directory",
            _ => "the owner of its directory",
        })
    })
}

const OWNER: &str = "its owner, who is neither root nor this user";
const GROUP: &str = "its group";
const OTHERS: &str = "everybody";

fn writers(mode: u32, uid: u32, gid: u32, ours: u32, is_directory: bool) -> Option<&'static str> {
    // In a directory with the sticky bit nobody can replace the files of others.
    let shared = !(is_directory && mode & 0o1000 != 0);
    if mode & 0o002 != 0 && shared {
        Some(OTHERS)
    } else if mode & 0o020 != 0 && gid != 0 && shared {
        Some(GROUP)
    } else if uid != 0 && uid != ours {
        Some(OWNER)
    } else {
        None
    }
}

fn parse(text: &[u8]) -> Result<Parsed, Vec<Problem>> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let good = String::from_utf8_lossy(&text[..error.valid_up_to()]);
            return Err(vec![problem(&good, good.len(), "expected UTF-8; the bytes here are not")]);
        }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(syntax_problems(text, &errors));
    }
    let mut reader = Reader::new(text);
    reader.document(table.get_ref());
    reader.finish()
}

/// The parser goes on after a mistake, and one mistake often makes it stumble again in the same
/// line: the first of each line is reported.
fn syntax_problems(text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let at = |error: &toml::de::Error| {
        let start = error.span().map_or(text.len(), |span| span.start);
        problem(text, start, format!("not valid TOML: {}", error.message()))
    };
    let mut list: Vec<Problem> = errors.iter().map(at).collect();
    list.sort_by_key(|problem| (problem.line, problem.column));
    list.dedup_by_key(|problem| problem.line);
    list
}

fn problem(text: &str, offset: usize, message: impl Into<String>) -> Problem {
    // The parser may point past the end, and nothing promises a character's boundary.
    let boundary = (0..=offset.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    let before = &text[..boundary.unwrap_or(0)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Problem {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: message.into(),
    }
}

/// Collects values and problems while it goes through a document.
struct Reader<'t> {
    text: &'t str,
    config: Config,
    given: Vec<(&'static str, Range<usize>)>,
    problems: Vec<(usize, String)>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, config: Config::default(), given: Vec::new(), problems: Vec::new() }
    }

    fn document(&mut self, document: &DeTable<'_>) {
        for (name, value) in document {
            let section = name.get_ref().as_ref();
            if !KEYS.iter().any(|key| key.section() == section) {
                self.problems.push((name.span().start, unknown_section(section)));
                continue;
            }
            match value.get_ref() {
                DeValue::Table(keys) => self.section(section, keys),
                _ => self.problems.push((
                    value.span().start,
                    format!("{section}: expected a section, [{section}] on a line of its own"),
                )),
            }
        }
    }

    fn section(&mut self, section: &str, keys: &DeTable<'_>) {
        for (name, value) in keys {
            let full = format!("{section}.{}", name.get_ref());
            match KEYS.iter().find(|key| key.name == full) {
                Some(key) => self.key(key, value),
                None => self
                    .problems
                    .push((name.span().start, unknown_key(section, name.get_ref().as_ref()))),
            }
        }
    }

    fn key(&mut self, key: &Key, value: &Value<'_>) {
        match key.read(&mut self.config, value) {
            Ok(()) => self.given.push((key.name, value.span())),
            Err(fault) => self.problems.push((
                fault.span.start,
                format!("{}: expected {}; found {}", key.name, key.expects, fault.found),
            )),
        }
    }

    /// Values that are possible alone but not together. Checked where at least one of the two is
    /// in the file and both are sound.
    fn check_together(&mut self) {
        let (rotation, retention) = (&self.config.rotation, &self.config.retention);
        let mut problems = Vec::new();
        if retention.max_total_size < rotation.max_size {
            problems.push((
                ["retention.max_total_size", "rotation.max_size"],
                show_size(retention.max_total_size),
                show_size(rotation.max_size),
                "the active file alone would exceed it",
            ));
        }
        if retention.max_age < rotation.max_age {
            problems.push((
                ["retention.max_age", "rotation.max_age"],
                show_duration(retention.max_age),
                show_duration(rotation.max_age),
                "a file would be removed as soon as it is rotated",
            ));
        }
        for ([kept, rotated], kept_value, rotated_value, why) in problems {
            let place = |name| self.given.iter().find(|(key, _)| *key == name);
            if let Some((_, span)) = place(kept).or_else(|| place(rotated)) {
                let message = format!(
                    "{kept}: expected at least {rotated}, which is {rotated_value}, because \
                     otherwise {why}; found {kept_value}"
                );
                self.problems.push((span.start, message));
            }
        }
    }

    fn finish(mut self) -> Result<Parsed, Vec<Problem>> {
        if self.problems.is_empty() {
            self.check_together();
        }
        if self.problems.is_empty() {
            let given = self.given.into_iter().map(|(name, _)| name).collect();
            return Ok(Parsed { config: self.config, given });
        }
        self.problems.sort();
        let place = |(offset, message)| problem(self.text, offset, message);
        Err(self.problems.into_iter().map(place).collect())
    }
}

fn unknown_section(name: &str) -> String {
    let mut sections: Vec<&str> = KEYS.iter().map(Key::section).collect();
    sections.dedup();
    // A key that stands above the first section, or in none.
    if let Some(key) = KEYS.iter().find(|key| key.short_name() == name) {
        return format!("{}: unknown here; it belongs under [{}]", quote(name), key.section());
    }
    let advice = match nearest(name, sections.iter().copied()) {
        Some(section) => format!("did you mean [{section}]?"),
        None => format!("the sections are [{}]", sections.join("], [")),
    };
    format!("{}: unknown section; {advice}", quote(name))
}

fn unknown_key(section: &str, name: &str) -> String {
    let known = || KEYS.iter().filter(|key| key.section() == section).map(Key::short_name);
    let advice = if let Some(near) = nearest(name, known()) {
        format!("did you mean {near}?")
    } else if let Some(key) = KEYS.iter().find(|key| key.short_name() == name) {
        format!("it belongs under [{}]", key.section())
    } else {
        format!("the keys of [{section}] are {}", known().collect::<Vec<_>>().join(", "))
    };
    format!("{}: unknown key in [{section}]; {advice}", quote(name))
}

fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // The measure costs the product of the lengths; no typing mistake is this long.
    if name.len() > 64 {
        return None;
    }
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write() {
        let file = |mode, uid, gid| writers(mode, uid, gid, 990, false);
        assert_eq!(file(0o100644, 0, 0), None);
        assert_eq!(file(0o100664, 0, 0), None, "root's group");
        assert_eq!(file(0o100640, 990, 990), None, "this user");
        assert_eq!(file(0o100664, 0, 990), Some(GROUP));
        assert_eq!(file(0o100666, 0, 0), Some(OTHERS));
        assert_eq!(file(0o100644, 1000, 0), Some(OWNER));
        // /tmp, and a directory like it without the sticky bit.
        assert_eq!(writers(0o041777, 0, 0, 990, true), None);
        assert_eq!(writers(0o040777, 0, 0, 990, true), Some(OTHERS));
    }

    #[test]
    fn who_may_write_a_real_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.toml");
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert_eq!(other_writers(&path), None, "no file, and the directory is ours");
        std::fs::write(&path, "").unwrap();
        set(&path, 0o644);
        assert_eq!(other_writers(&path), None);
        set(&path, 0o646);
        assert_eq!(other_writers(&path), Some(OTHERS));
        set(&path, 0o644);
        set(dir.path(), 0o777);
        assert_eq!(other_writers(&path), Some("everybody, through its directory"));
    }
}
