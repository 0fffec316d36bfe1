//! Which files to read: directories searched, names read for the time that they promise.
//!
//! A rotated file is named by the time of its first record, so what it holds ends where the next
//! file of the same output begins, and a file outside of the time asked for need not be opened.

use crate::archive::names::Moment;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::TimeRange;

/// Half of the longest window (1 h): so much earlier than its end can the middle of a window lie.
pub(super) const HALF_WINDOW_MS: i64 = 1_800_000;

/// One input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file, plain or compressed.
    File(PathBuf),
}

impl Input {
    /// How the input is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".into(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Bytes to read, as far as known.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Stdin => 0,
            Self::File(path) => fs::metadata(path).map_or(0, |metadata| metadata.len()),
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Inputs to read, those of one output in order of time.
    pub inputs: Vec<Input>,
    /// Files that the range leaves out.
    pub outside: usize,
    /// Paths that cannot be read, and why.
    pub errors: Vec<(String, String)>,
}

/// Files of one output: one directory, one stem.
#[derive(Default)]
struct Output {
    /// By the time in the name: whether the plain segment and its archive are there.
    rotated: BTreeMap<i64, PathBuf>,
    /// Without a time in the name; the active file is one.
    others: BTreeSet<PathBuf>,
}

/// Finds the inputs that `paths` name: files as they are, directories with every `.jsonl` and
/// `.jsonl.gz` in and below them, `-` for standard input.
///
/// A segment that is there both plain and compressed is taken once, plain: that one is whole.
#[must_use]
pub fn find(paths: &[PathBuf], range: &TimeRange) -> Found {
    let mut found = Found::default();
    let mut outputs: BTreeMap<(PathBuf, String), Output> = BTreeMap::new();
    let mut visited = HashSet::new();
    let mut stdin = false;
    for path in paths {
        if path.as_os_str() == "-" {
            stdin = true;
        } else {
            walk(path, true, &mut visited, &mut outputs, &mut found.errors);
        }
    }
    for output in outputs.into_values() {
        select(output, range, &mut found);
    }
    if stdin {
        found.inputs.push(Input::Stdin);
    }
    found
}

fn walk(
    path: &Path,
    named: bool,
    visited: &mut HashSet<(u64, u64)>,
    outputs: &mut BTreeMap<(PathBuf, String), Output>,
    errors: &mut Vec<(String, String)>,
) {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        // Found in a directory and gone since: rotated or retired, which is no error.
        Err(error) if !named && error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return errors.push((path.display().to_string(), error.to_string())),
    };
    if metadata.is_dir() {
        // The same directory through two paths, or a loop of symbolic links.
        if !visited.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return errors.push((path.display().to_string(), error.to_string())),
        };
        let mut children: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        children.sort();
        for child in children {
            if wanted(&child) {
                walk(&child, false, visited, outputs, errors);
            }
        }
    } else if named || metadata.is_file() {
        // A pipe (`<(zcat ...)`) is read when it was named; its identity says nothing.
        if metadata.is_file() && !visited.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        add(path, outputs);
    }
}

/// Whether something in a directory is looked at: archives, and directories (which have no dot in
/// front and whose kind is only known later).
fn wanted(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return path.is_dir() };
    !name.starts_with('.')
        && (name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") || path.is_dir())
}

fn add(path: &Path, outputs: &mut BTreeMap<(PathBuf, String), Output>) {
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    match parse_name(name) {
        Some((stem, millis)) => {
            let output = outputs.entry((directory, stem.to_owned())).or_default();
            let plain = name.ends_with(".jsonl");
            if plain || !output.rotated.contains_key(&millis) {
                output.rotated.insert(millis, path.to_owned());
            }
        }
        None => {
            let stem = name.strip_suffix(".gz").unwrap_or(name);
            let stem = stem.strip_suffix(".jsonl").unwrap_or(stem).to_owned();
            outputs.entry((directory, stem)).or_default().others.insert(path.to_owned());
        }
    }
}

fn select(output: Output, range: &TimeRange, found: &mut Found) {
    let begins: Vec<i64> = output.rotated.keys().copied().collect();
    for (place, path) in output.rotated.into_values().enumerate() {
        let end = begins.get(place + 1).copied();
        if may_overlap(Some(begins[place]), end, range) {
            found.inputs.push(Input::File(path));
        } else {
            found.outside += 1;
        }
    }
    for path in output.others {
        // What follows the last rotated file is not older than that one's first record.
        if may_overlap(begins.last().copied(), None, range) {
            found.inputs.push(Input::File(path));
        } else {
            found.outside += 1;
        }
    }
}

/// Whether windows whose ends lie in `begin..=end` (ms, none: unknown) can lie in `range`. A name
/// has its record's time cut to the millisecond, hence the extra one.
fn may_overlap(begin: Option<i64>, end: Option<i64>, range: &TimeRange) -> bool {
    let too_late = match (begin, range.until_us) {
        (Some(begin), Some(until)) => begin > until.div_euclid(1000) + HALF_WINDOW_MS,
        _ => false,
    };
    let too_early = match (end, range.since_us) {
        (Some(end), Some(since)) => end + 1 < since.div_euclid(1000),
        _ => false,
    };
    !too_late && !too_early
}

/// The stem and the time (Unix milliseconds) of a rotated file's name,
/// `STEM-20261122T154500.123Z.jsonl` with or without `.gz`; `None` for any other name.
#[must_use]
pub fn parse_name(name: &str) -> Option<(&str, i64)> {
    let name = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".jsonl")?;
    let (stem, time) = name.rsplit_once('-')?;
    Some((stem, Moment::parse(time)?.millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    const ALL: TimeRange = TimeRange { since_us: None, until_us: None };

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap();
        }
        root
    }

    fn names(root: &Path, found: &Found) -> Vec<String> {
        found
            .inputs
            .iter()
            .map(|input| match input {
                Input::Stdin => "-".into(),
                Input::File(path) => path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
            })
            .collect()
    }

    #[test]
    fn names_of_rotated_files() {
        let time = 1_795_362_300_123;
        for name in
            ["blkiolat-20261122T154500.123Z.jsonl", "blkiolat-20261122T154500.123Z.jsonl.gz"]
        {
            assert_eq!(parse_name(name), Some(("blkiolat", time)), "{name}");
        }
        assert_eq!(parse_name("a-b-20261122T154500.123Z.jsonl"), Some(("a-b", time)));
        for name in [
            "blkiolat.jsonl",
            "blkiolat-20261122T154500.123Z.jsonl.gz.tmp",
            "blkiolat-20261322T154500.123Z.jsonl",
            "blkiolat-20261122T154500.123.jsonl",
            "blkiolat-2026112\u{e9}T154500.12Z.jsonl",
            "20261122T154500.123Z.jsonl",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn directories_of_many_hosts() {
        let root = tree(&[
            "db1/blkiolat.jsonl",
            "db1/blkiolat-20261122T154500.123Z.jsonl.gz",
            "db1/blkiolat-20261121T154500.123Z.jsonl.gz",
            "db1/blkiolat-20261123T154500.123Z.jsonl.gz.tmp",
            "db1/.hidden.jsonl",
            "db1/notes.txt",
            "db2/deep/er/tracepoints.jsonl",
        ]);
        symlink(root.path(), root.path().join("db1/loop")).unwrap();
        let found = find(&[root.path().to_owned()], &ALL);
        assert_eq!(found.errors, []);
        assert_eq!(
            names(root.path(), &found),
            [
                "db1/blkiolat-20261121T154500.123Z.jsonl.gz",
                "db1/blkiolat-20261122T154500.123Z.jsonl.gz",
                "db1/blkiolat.jsonl",
                "db2/deep/er/tracepoints.jsonl",
            ]
        );
    }

    #[test]
    fn a_segment_and_its_archive_are_one() {
        let root = tree(&[
            "blkiolat-20261122T154500.123Z.jsonl",
            "blkiolat-20261122T154500.123Z.jsonl.gz",
        ]);
        let plain = root.path().join("blkiolat-20261122T154500.123Z.jsonl");
        let archive = root.path().join("blkiolat-20261122T154500.123Z.jsonl.gz");
        for paths in [
            vec![root.path().to_owned()],
            vec![archive.clone(), plain.clone()],
            vec![plain.clone(), archive, root.path().to_owned()],
        ] {
            assert_eq!(find(&paths, &ALL).inputs, [Input::File(plain.clone())]);
        }
    }

    #[test]
    fn files_outside_of_the_range_are_left_out() {
        let root = tree(&[
            "blkiolat-20261120T000000.000Z.jsonl.gz",
            "blkiolat-20261121T000000.000Z.jsonl.gz",
            "blkiolat-20261122T000000.000Z.jsonl",
            "blkiolat.jsonl",
        ]);
        let at = |text: &str| Some(text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
        let select = |since: Option<&str>, until: Option<&str>| {
            let range = TimeRange { since_us: since.and_then(at), until_us: until.and_then(at) };
            let found = find(&[root.path().to_owned()], &range);
            assert_eq!(found.outside + found.inputs.len(), 4);
            let kept = names(root.path(), &found);
            kept.iter()
                .map(|name| name[8..].split('T').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let day = |day: &str| format!("-202611{day}");
        assert_eq!(select(None, None).len(), 4);
        assert_eq!(select(Some("2026-11-21T12:00:00Z"), Some("2026-11-21T13:00:00Z")), [day("21")]);
        assert_eq!(select(None, Some("2026-11-20T01:00:00Z")), [day("20")]);
        assert_eq!(
            select(Some("2026-11-22T00:00:00.002Z"), None),
            [day("22"), ".jsonl".to_owned()]
        );
        // A window of an hour that ends in the file of the 21st has its middle before midnight.
        assert_eq!(
            select(Some("2026-11-20T23:30:00Z"), Some("2026-11-20T23:40:00Z")),
            [day("20"), day("21")]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let found = find(&["/nonexistent/x".into(), "-".into()], &ALL);
        assert_eq!(found.inputs, [Input::Stdin]);
        assert_eq!(found.errors[0].0, "/nonexistent/x");
    }
}
