//! The archive's start in a directory that somebody else has filled.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use blkiolatd::archive::names::Names;
use blkiolatd::archive::{Settings, Start, Writer};
use blkiolatd::config::FreeSpace;
use blkiolatd::record::{Record, SCHEMA_VERSION};

/// Far longer than a start takes: who waits so long is stuck.
const AGES: Duration = Duration::from_secs(20);
/// Sequence numbers of the records that are written, which no input names by chance.
const FIRST: u64 = 7_340_519_826_451;
const RECORDS: u64 = 4;
/// What others own and nobody may change.
const OUTSIDE: &[u8] = b"not yours\n";

/// Names that matter. The time is that of the second record, so that names collide.
const NAMES: [&str; 12] = [
    "b.jsonl",
    ".b.lock",
    "b-20261122T154500.123Z.jsonl",
    "b-20261122T154500.123Z.jsonl.gz",
    "b-20261122T154500.123Z.jsonl.gz.tmp",
    "b-20261122T154505.123Z.jsonl",
    "b-20261122T154505.123Z.jsonl.gz",
    "b-20261122T154505.123Z.jsonl.gz.tmp",
    "b-99991230T215959.999Z.jsonl",
    "b-00000101T000000.000Z.jsonl.gz",
    "b-20261122T154505.124Z.jsonl.tmp",
    "c.jsonl",
];

/// A file that the input describes: a kind, a name, a length (two bytes) and so many bytes.
struct Entry<'a> {
    kind: u8,
    name: &'a OsStr,
    content: &'a [u8],
}

fn next<'a>(data: &mut &'a [u8]) -> Option<Entry<'a>> {
    let (&[kind, name, high, low], rest) = data.split_first_chunk::<4>()?;
    let (name, rest) = match NAMES.get(usize::from(name)) {
        Some(known) => (OsStr::new(*known), rest),
        None => {
            let (name, rest) = rest.split_at_checked(usize::from(name))?;
            (OsStr::from_bytes(name), rest)
        }
    };
    let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
    let (content, rest) = rest.split_at(length);
    *data = rest;
    Some(Entry { kind, name, content })
}

/// Puts it there, if a file system lets it.
fn make(home: &Path, dir: &Path, entry: &Entry<'_>) {
    let path = dir.join(entry.name);
    if path.parent() != Some(dir) || entry.name.as_bytes().contains(&0) {
        return;
    }
    let outside = home.join("outside");
    // Whatever cannot be made, or was there before, is left out.
    let _ = match entry.kind % 8 {
        0..=3 => fs::File::create_new(&path).and_then(|mut file| file.write_all(entry.content)),
        4 => symlink(outside, &path),
        5 => fs::hard_link(outside, &path),
        6 => fs::create_dir(&path),
        _ => rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).map_err(Into::into),
    };
}

/// Everything in the directory that is not the daemon's by its name, with what is in it.
fn foreign(dir: &Path, names: &Names) -> BTreeMap<std::ffi::OsString, (fs::FileType, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| {
            name == "b.jsonl" || name == names.lock() || names.parse(name).is_some()
        });
        let kind = entry.file_type().unwrap();
        // What is under one of our names and is no plain file is not ours either.
        if !ours || !kind.is_file() {
            let content = if kind.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            found.insert(name, (kind, content));
        }
    }
    found
}

fn record(seq: u64) -> Record {
    Record {
        seq: FIRST + seq,
        timestamp: 1_795_362_300.123 + 5.0 * seq as f64,
        schema: SCHEMA_VERSION,
        host: "fuzz".into(),
        ..Record::default()
    }
}

/// How often each record stands in the files. A segment beside its archive is about to go.
fn count(dir: &Path, names: &Names) -> Vec<usize> {
    let mut counts = vec![0; RECORDS as usize];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().unwrap().to_str() else { continue };
        let ours = name == "b.jsonl" || names.parse(name).is_some();
        let archived = dir.join(format!("{name}.gz")).exists();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if !ours || archived || !kind.is_file() || name.ends_with(".tmp") {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let mut text = Vec::new();
        if name.ends_with(".gz") {
            // An archive of the input's need not be one.
            let _ = gunzip(&bytes, &mut text);
        } else {
            text = bytes;
        }
        for line in text.split(|byte| *byte == b'\n') {
            if let Ok(record) = serde_json::from_slice::<Record>(line)
                && let Some(count) =
                    record.seq.checked_sub(FIRST).and_then(|seq| counts.get_mut(seq as usize))
            {
                *count += 1;
            }
        }
    }
    counts
}

fn gunzip(bytes: &[u8], text: &mut Vec<u8>) -> std::io::Result<usize> {
    flate2::bufread::MultiGzDecoder::new(bytes).read_to_end(text)
}

/// A log directory with arbitrary names, kinds and bytes: the writer refuses it or records there,
/// loses nothing of what it was given, and touches nothing that is not its own.
pub fn archive(mut data: &[u8]) {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = home.path().join("log");
    fs::create_dir(&dir).unwrap();
    fs::write(home.path().join("outside"), OUTSIDE).unwrap();
    for _ in 0..16 {
        let Some(entry) = next(&mut data) else { break };
        make(home.path(), &dir, &entry);
    }

    let mut settings = Settings::default();
    settings.output.path = dir.join("b.jsonl");
    settings.output.flush_every = 2;
    settings.rotation.gzip_level = 1;
    settings.retention.min_free_space = FreeSpace::Bytes(0);
    // Nothing is too old: what was there stays, so that it can be compared.
    settings.retention.max_age = Duration::from_secs(u32::MAX.into()) * 100;
    let names = Names::new(&settings.output.path).unwrap();
    let before = foreign(&dir, &names);
    if let Ok(writer) = Writer::spawn(settings, Start::Strict) {
        for seq in 0..RECORDS {
            writer.push(record(seq));
            if seq == 1 {
                writer.rotate_now();
            }
        }
        writer.flush(AGES).expect("written");
        writer.close(AGES).expect("closed");
        assert!(fs::read(dir.join("b.jsonl")).unwrap().ends_with(b"\n"));
        assert_eq!(count(&dir, &names), [1; RECORDS as usize]);
    }
    assert_eq!(foreign(&dir, &names), before);
    assert_eq!(fs::read(home.path().join("outside")).unwrap(), OUTSIDE);
}
