//! The reader while the files change under it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use blkiolatd::archive::reader::{Query, RecordView, Sink, read, read_in_order};
use blkiolatd::record::Record;
use support::*;

/// Counts windows and, at the first one, does what a daemon does in the meantime.
struct Meanwhile<F: FnMut()> {
    windows: Vec<u64>,
    change: Option<F>,
}

impl<F: FnMut()> Sink for Meanwhile<F> {
    fn take(&mut self, record: &RecordView<'_>) {
        self.windows.push(record.seq);
        if let Some(mut change) = self.change.take() {
            change();
        }
    }
}

/// Archive, archive, segment, active file; returns the directory and what is in it.
fn output() -> (tempfile::TempDir, Vec<Record>, Vec<PathBuf>) {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("h", 1, 80));
    let paths = write_archive(root.path(), &records, 20);
    (root, records, paths)
}

fn query(path: &Path) -> Query {
    Query { paths: vec![path.to_owned()], ..Default::default() }
}

/// Every window once, whatever was changed after the first had been read.
fn reads_all(root: &Path, change: impl FnMut()) {
    let mut sink = Meanwhile { windows: Vec::new(), change: Some(change) };
    let outcome = read_in_order(&query(root), &mut sink);
    assert_eq!(outcome.problems, []);
    sink.windows.sort_unstable();
    assert_eq!(sink.windows, (0..80).collect::<Vec<_>>());
    assert_eq!(outcome.coverage.len(), 1);
    assert!(outcome.coverage.values().all(|coverage| coverage.gaps.is_empty()));
}

#[test]
fn the_active_file_is_rotated_while_others_are_read() {
    let (root, records, paths) = output();
    reads_all(root.path(), || {
        fs::rename(&paths[3], root.path().join(segment_name(&records[60]))).unwrap();
        fs::write(&paths[3], "").unwrap();
    });
}

#[test]
fn a_segment_is_compressed_while_others_are_read() {
    let (root, _, paths) = output();
    reads_all(root.path(), || {
        let archive = format!("{}.gz", paths[2].display());
        fs::write(archive, gzip(&fs::read(&paths[2]).unwrap())).unwrap();
        fs::remove_file(&paths[2]).unwrap();
    });
}

#[test]
fn both_at_once() {
    let (root, records, paths) = output();
    reads_all(root.path(), || {
        let archive = root.path().join(format!("{}.gz", segment_name(&records[60])));
        fs::write(archive, gzip(&fs::read(&paths[3]).unwrap())).unwrap();
        fs::write(&paths[3], "").unwrap();
        fs::remove_file(&paths[2]).unwrap();
        fs::write(format!("{}.gz", paths[2].display()), gzip(&lines(&records[40..60]))).unwrap();
    });
}

/// Several threads, each with its own sink, share one memory of what has been read.
#[test]
fn copies_on_several_threads_count_once() {
    let (root, records, _) = output();
    for copy in 0..6 {
        fs::write(root.path().join(format!("copy{copy}.jsonl")), lines(&records)).unwrap();
    }
    let (sinks, outcome) =
        read(&query(root.path()), 4, || Meanwhile { windows: Vec::new(), change: None::<fn()> });
    let mut windows: Vec<_> = sinks.into_iter().flat_map(|sink| sink.windows).collect();
    windows.sort_unstable();
    assert_eq!(windows, (0..80).collect::<Vec<_>>());
    assert_eq!(outcome.duplicates, 6 * 80);
    assert!(outcome.coverage.values().all(|coverage| coverage.overlaps == 0));
}

/// Takes its time, so that one thread cannot have read a file before another has begun.
#[derive(Default)]
struct Slow(Vec<u64>);

impl Sink for Slow {
    fn take(&mut self, record: &RecordView<'_>) {
        self.0.push(record.seq);
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
}

#[test]
fn one_file_is_read_by_all_threads() {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("h", 1, 700));
    let mut bytes = gzip(
        &[lines(&records[..300]), b"no record\n".to_vec(), lines(&records[300..500])].concat(),
    );
    let mut damaged = gzip(&lines(&records[..10]));
    let checksum = damaged.len() - 8;
    damaged[checksum] ^= 1;
    bytes.extend(damaged);
    bytes.extend(gzip(&lines(&records[500..])));
    let path = root.path().join("one.jsonl.gz");
    fs::write(&path, bytes).unwrap();

    let (alone, outcome) = read(&query(&path), 1, Slow::default);
    assert_eq!(outcome.problems.len(), 2, "{:?}", outcome.problems);
    let (sinks, shared) = read(&query(&path), 3, Slow::default);
    let busy = sinks.iter().filter(|sink| !sink.0.is_empty()).count();
    assert!(busy > 1, "{busy} of 3 threads did something");
    let sorted = |sinks: Vec<Slow>| {
        let mut windows: Vec<_> = sinks.into_iter().flat_map(|sink| sink.0).collect();
        windows.sort_unstable();
        windows
    };
    let windows = sorted(sinks);
    assert_eq!(windows, sorted(alone));
    assert_eq!(windows, (0..700).collect::<Vec<_>>());
    assert_eq!((shared.problems, shared.coverage), (outcome.problems, outcome.coverage));
}
