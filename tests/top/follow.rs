//! Following the files of the real writer: rotated, compressed and removed under the reader's eyes.

use std::fs;
use std::path::Path;
use std::time::Instant;

use blkiolatd::archive::{OpenError, Settings, Start, Writer, WriterHandle};
use blkiolatd::config::FreeSpace;
use blkiolatd::record::{Record, SCHEMA_VERSION};
use blkiolatd::top::player::{Player, Source, Update};
use blkiolatd::top::window::Intake;

use crate::{AGES, append, until};

fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.output.path = dir.join("b.jsonl");
    settings.output.flush_every = 1;
    settings.rotation.gzip_level = 1;
    settings.retention.min_free_space = FreeSpace::Bytes(0);
    settings
}

/// Another test may be starting a process right now, which for a moment holds copies of all our
/// files, locks released since included: then this waits for that.
fn writer(settings: &Settings) -> WriterHandle {
    let start = Instant::now();
    loop {
        match Writer::spawn(settings.clone(), Start::Strict) {
            Ok(writer) => return writer,
            Err(OpenError::Locked { .. }) if start.elapsed() < AGES => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn record(seq: u64) -> Record {
    Record {
        seq,
        timestamp: 1_795_362_300.0 + seq as f64,
        schema: SCHEMA_VERSION,
        host: "test".into(),
        window_s: 1.0,
        ..Record::default()
    }
}

fn player(dir: &Path, history: usize) -> Player {
    let source = Source::Follow(dir.join("b.jsonl"), history);
    Player::new(source, Intake::default()).unwrap()
}

/// What the player has: numbers of windows, and the rest as text.
#[derive(Default)]
struct Heard {
    seqs: Vec<u64>,
    missing: u64,
    rest: Vec<String>,
}

impl Heard {
    fn listen(&mut self, player: &mut Player) {
        for update in player.advance(Instant::now(), false) {
            match update {
                Update::Window(window, _) => {
                    self.seqs.push(window.seq);
                    self.missing += window.before.missing;
                }
                Update::Damaged(what) | Update::Note(what) => self.rest.push(what),
                Update::End => panic!("a file that is followed has no end"),
            }
        }
    }

    fn expect(&self, seqs: std::ops::Range<u64>) {
        assert_eq!(self.seqs, seqs.collect::<Vec<_>>(), "{:?}", self.rest);
        assert_eq!(self.missing, 0);
        assert!(self.rest.iter().all(|what| what.contains("rotated")), "{:?}", self.rest);
    }
}

/// However seldom it looks, and whatever was renamed and compressed meanwhile.
#[test]
fn every_window_once_through_rotation_and_compression() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(&settings(dir.path()));
    let mut heard = Heard::default();
    let mut seqs = 0..;
    let mut push = |count| {
        seqs.by_ref().take(count).for_each(|seq| writer.push(record(seq)));
    };
    push(3);
    writer.flush(AGES).unwrap();
    let mut player = player(dir.path(), 10);
    for rotations in [0, 1, 2, 0, 5, 1, 9] {
        for _ in 0..rotations {
            push(4);
            writer.rotate_now();
        }
        push(2);
        writer.flush(AGES).unwrap();
        heard.listen(&mut player);
        heard.listen(&mut player);
    }
    writer.close(AGES).unwrap();
    heard.expect(0..3 + 18 * 4 + 7 * 2);
    assert!(heard.rest.iter().any(|what| what.contains("8 more segments")), "{:?}", heard.rest);
}

/// The same while both run at once.
#[test]
fn every_window_once_while_the_writer_runs() {
    const ALL: u64 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.rotation.max_size = 64 << 10;
    let writer = writer(&settings);
    let mut player = player(dir.path(), 10);
    let mut heard = Heard::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 0..ALL {
                writer.push(record(seq));
                if seq % 17 == 0 {
                    writer.flush(AGES).unwrap();
                }
                if seq % 101 == 0 {
                    writer.rotate_now();
                }
            }
            writer.flush(AGES).unwrap();
        });
        until("all windows", || {
            heard.listen(&mut player);
            let count = heard.seqs.len();
            if count < ALL as usize { Err(format!("{count} windows")) } else { Ok(()) }
        });
    });
    // The file may not have been there at first.
    heard.rest.retain(|what| !what.contains("waiting") && !what.contains("there now"));
    heard.expect(0..ALL);
    writer.close(AGES).unwrap();
}

#[test]
fn the_past_is_in_segments_and_archives() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(&settings(dir.path()));
    for seq in 0..30 {
        writer.push(record(seq));
        if seq % 10 == 9 {
            writer.rotate_now();
        }
    }
    (30..33).for_each(|seq| writer.push(record(seq)));
    writer.flush(AGES).unwrap();
    until("compression", || {
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        let archives = names.iter().filter(|name| name.to_string_lossy().ends_with(".gz"));
        if archives.count() == 3 { Ok(()) } else { Err(format!("{names:?}")) }
    });
    for (history, first) in [(0, 33), (2, 31), (3, 30), (5, 28), (23, 10), (100, 0)] {
        let mut heard = Heard::default();
        heard.listen(&mut player(dir.path(), history));
        heard.expect(first..33);
    }
    writer.close(AGES).unwrap();
}

/// A daemon that is killed leaves a torn line; the next one cuts it off and goes on.
#[test]
fn a_torn_line_that_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let first = writer(&settings(dir.path()));
    (0..2).for_each(|seq| first.push(record(seq)));
    first.close(AGES).unwrap();
    let mut player = player(dir.path(), 10);
    let mut heard = Heard::default();
    append(&dir.path().join("b.jsonl"), b"{\"timestamp\":1795362302.0,\"iso");
    heard.listen(&mut player);
    let second = writer(&settings(dir.path()));
    (2..4).for_each(|seq| second.push(record(seq)));
    second.close(AGES).unwrap();
    heard.listen(&mut player);
    heard.expect(0..4);
    assert_eq!(heard.rest, [""; 0]);
}

#[test]
fn damage_is_told_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.jsonl");
    let mut player = player(dir.path(), 10);
    let mut heard = Heard::default();
    let mut line = Vec::new();
    record(0).write_line(&mut line);
    line.extend(b"\xff\xfe no record\n\n");
    record(1).write_line(&mut line);
    append(&path, &line);
    heard.listen(&mut player);
    // The same again after somebody truncated it: nothing twice.
    fs::write(&path, &line[..line.len() / 2]).unwrap();
    heard.listen(&mut player);
    fs::remove_file(&path).unwrap();
    heard.listen(&mut player);
    assert_eq!(heard.seqs, [0, 1]);
    let rest = heard.rest.join("\n");
    for expected in
        ["no such file yet", "it is there now", "a line is no record", "truncated", "removed"]
    {
        assert!(rest.contains(expected), "{expected}: {rest}");
    }
}
