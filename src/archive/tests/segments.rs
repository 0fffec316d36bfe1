//! What becomes of the active file: batches, segments, archives, and room for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::mpsc;

use super::*;
use crate::archive::disk::Operation;
use crate::archive::faults::Verdict;

fn gzip_agrees(path: &Path) {
    let status = Command::new("gzip").arg("-t").arg(path).status().unwrap();
    assert!(status.success(), "gzip -t {path:?}");
}

#[test]
fn a_segment_is_named_by_its_first_record_and_becomes_an_archive() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(3).unwrap();
    rig.rotate().unwrap();
    rig.write(2).unwrap();
    assert_eq!(list(dir.path()), [".b.lock", "b-20261122T154505.123Z.jsonl", "b.jsonl"]);
    assert!(rig.compress().is_empty());
    assert_eq!(list(dir.path()), [".b.lock", "b-20261122T154505.123Z.jsonl.gz", "b.jsonl"]);
    gzip_agrees(&dir.path().join("b-20261122T154505.123Z.jsonl.gz"));
    assert_eq!(read_all(&dir.path().join("b.jsonl")), [0, 1, 2, 3, 4]);
    rig.close();
    assert_eq!(list(dir.path()), ["b-20261122T154505.123Z.jsonl.gz", "b.jsonl"]);
    for name in list(dir.path()) {
        let mode = fs::metadata(dir.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{name}");
    }
}

#[test]
fn only_whole_batches_reach_the_file() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.output.flush_every = 3;
    let mut rig = Rig::opened(settings.clone());
    for expected in [0, 0, 3, 3, 3, 6] {
        rig.append();
        if rig.recorder.is_full() {
            rig.recorder.flush().unwrap();
        }
        assert_eq!(read_all(&settings.output.path).len(), expected);
    }
}

#[test]
fn lines_are_valid_records() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(1).unwrap();
    let line = fs::read_to_string(dir.path().join("b.jsonl")).unwrap();
    let parsed: Record = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed, record(0, Moment::from_millis(1_795_362_305_123)));
}

#[test]
fn rotation_by_size_and_by_age() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.rotation.max_age = Duration::from_secs(20);
    let path = settings.output.path.clone();
    let mut rig = Rig::opened(settings.clone());
    rig.write(6).unwrap();
    let lines: Vec<_> = read_files(&path).into_iter().map(|(_, lines)| lines).collect();
    assert_eq!(lines, [vec![0, 1, 2, 3], vec![4, 5]]);

    settings.rotation.max_age = Duration::from_secs(1 << 30);
    settings.rotation.max_size = fs::metadata(&path).unwrap().len() + 10;
    rig.recorder.reconfigure(settings).unwrap();
    rig.write(3).unwrap();
    let lines: Vec<_> = read_files(&path).into_iter().map(|(_, lines)| lines).collect();
    assert_eq!(lines, [vec![0, 1, 2, 3], vec![4, 5], vec![6, 7], vec![8]]);
}

#[test]
fn the_age_survives_a_restart() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.rotation.max_age = Duration::from_secs(20);
    let mut rig = Rig::opened(settings.clone());
    rig.write(3).unwrap();
    rig.close();
    let clock = *rig.clock.lock().unwrap();
    let mut rig = Rig::opened(settings.clone());
    rig.set_wall(clock.0.millis() + 5000);
    rig.seq = 3;
    rig.write(1).unwrap();
    let lines: Vec<_> =
        read_files(&settings.output.path).into_iter().map(|(_, lines)| lines).collect();
    assert_eq!(lines, [vec![0, 1, 2], vec![3]]);
}

#[test]
fn a_clock_that_jumps_overwrites_nothing() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    let start = rig.clock.lock().unwrap().0.millis();
    for jump in [0, 0, -7_200_000, 0, 7_200_000, 0, -5, i64::MIN / 2, i64::MAX / 2] {
        // The same times again and again.
        rig.set_wall(start.saturating_add(jump));
        rig.write(2).unwrap();
        rig.rotate().unwrap();
        assert!(rig.compress().is_empty());
    }
    let files = read_files(&dir.path().join("b.jsonl"));
    let mut all: Vec<u64> = files.iter().flat_map(|(_, lines)| lines.clone()).collect();
    assert_eq!(files.len(), 10, "{files:?}");
    all.sort_unstable();
    assert_eq!(all, (0..18).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_continued() {
    let dir = directory();
    let settings = settings(dir.path());
    let path = &settings.output.path;
    let mut rig = Rig::opened(settings.clone());
    rig.write(3).unwrap();
    rig.close();
    let whole = fs::read(path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last..whole.len() {
        fs::write(path, &whole[..cut]).unwrap();
        let mut rig = Rig::opened(settings.clone());
        rig.seq = 7;
        rig.write(1).unwrap();
        rig.close();
        assert_eq!(read_all(path), [0, 1, 7], "cut at {cut}");
    }
}

#[test]
fn the_total_size_holds_at_every_moment() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.retention.max_total_size = 200_000;
    settings.rotation.max_size = 20_000;
    let path = settings.output.path.clone();
    let mut rig = Rig::opened(settings);
    for round in 0..2000u32 {
        rig.write(1).unwrap();
        let used: u64 =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(used <= 200_000, "{used} bytes in round {round}");
        if round % 100 < 20 {
            rig.compress();
        }
    }
    let lines = read_all(&path);
    assert!(lines.len() > 200, "it keeps what fits: {}", lines.len());
    assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1), "the newest without a gap");
    assert_eq!(lines.last(), Some(&1999));
}

#[test]
fn old_archives_go_whole() {
    let dir = directory();
    let mut settings = settings(dir.path());
    settings.retention.max_age = Duration::from_secs(100);
    let path = settings.output.path.clone();
    let mut rig = Rig::opened(settings);
    for _ in 0..10 {
        rig.write(4).unwrap();
        rig.rotate().unwrap();
    }
    let lines = read_all(&path);
    assert_eq!(lines, (20..40).collect::<Vec<_>>(), "those of the last 100 s");
}

#[test]
fn below_the_free_space_recording_pauses_and_resumes() {
    let dir = directory();
    let mut settings = settings(dir.path());
    let mut rig = Rig::opened(settings.clone());
    rig.write(2).unwrap();
    rig.rotate().unwrap();
    settings.retention.min_free_space = FreeSpace::Percent(100.0);
    rig.recorder.reconfigure(settings.clone()).unwrap();
    let error = rig.write(1).unwrap_err();
    assert!(matches!(error, WriteError::NoSpace { .. }), "{error}");
    assert_eq!(list(dir.path()), [".b.lock", "b.jsonl"], "the archives went first");
    rig.append();
    assert!(rig.recorder.flush().is_err());
    settings.retention.min_free_space = FreeSpace::Bytes(0);
    rig.recorder.reconfigure(settings.clone()).unwrap();
    rig.recorder.flush().unwrap();
    assert_eq!(read_all(&settings.output.path), [2, 3]);
}

#[test]
fn without_room_a_segment_stays_uncompressed() {
    let dir = directory();
    let mut settings = settings(dir.path());
    let mut rig = Rig::opened(settings.clone());
    rig.write(1).unwrap();
    rig.rotate().unwrap();
    settings.retention.max_total_size = 40_000;
    rig.recorder.reconfigure(settings).unwrap();
    let problems = rig.compress();
    assert!(matches!(problems[..], [(_, Problem::NoRoom)]), "{problems:?}");
    assert_eq!(read_all(&dir.path().join("b.jsonl")), [0]);
}

#[test]
fn a_segment_goes_only_if_its_archive_holds_the_same() {
    let dir = directory();
    let settings = settings(dir.path());
    let mut rig = Rig::opened(settings.clone());
    rig.write(3).unwrap();
    rig.rotate().unwrap();
    let segment = dir.path().join("b-20261122T154505.123Z.jsonl");
    let archive = dir.path().join("b-20261122T154505.123Z.jsonl.gz");
    let content = fs::read(&segment).unwrap();
    assert!(rig.compress().is_empty());
    let packed = fs::read(&archive).unwrap();
    let again = |rig: &mut Rig| {
        rig.recorder.reconfigure(settings.clone()).unwrap();
        rig.compress()
    };

    // gzip -dk by somebody, or cut short before the last step.
    fs::write(&segment, &content).unwrap();
    assert!(again(&mut rig).is_empty());
    assert!(!segment.exists());

    let different = [
        content[..content.len() - 10].to_vec(),
        [&content[..], b"{}\n"].concat(),
        content.iter().map(|byte| byte ^ 1).collect(),
    ];
    for other in different {
        fs::write(&segment, &other).unwrap();
        let problems = again(&mut rig);
        assert!(matches!(problems[..], [(_, Problem::Different)]), "{problems:?}");
        assert_eq!(fs::read(&segment).unwrap(), other);
    }
    fs::write(&segment, &content).unwrap();
    fs::write(&archive, &packed[..packed.len() - 4]).unwrap();
    assert!(matches!(again(&mut rig)[..], [(_, Problem::Different)]), "no trailer");
    assert!(segment.exists());
}

#[test]
fn partial_archives_are_removed_and_made_again() {
    let dir = directory();
    let settings = settings(dir.path());
    let mut rig = Rig::opened(settings.clone());
    rig.write(3).unwrap();
    rig.rotate().unwrap();
    fs::write(dir.path().join("b-20261122T154505.123Z.jsonl.gz.tmp"), "half").unwrap();
    fs::write(dir.path().join("b-20200101T000000.000Z.jsonl.gz.tmp"), "old").unwrap();
    assert!(rig.compress().is_empty());
    let names = [".b.lock", "b-20261122T154505.123Z.jsonl.gz", "b.jsonl"];
    assert_eq!(list(dir.path()), names);
}

#[test]
fn compression_stops_when_told() {
    let dir = directory();
    let mut rig = Rig::opened(settings(dir.path()));
    rig.write(3).unwrap();
    rig.rotate().unwrap();
    let pass = rig.passes.lock().unwrap().last().cloned().unwrap();
    let problems = compress::run(&rig.disk, &pass, &AtomicBool::new(true));
    assert!(matches!(problems[..], [(_, Problem::Stopped)]), "{problems:?}");
    assert_eq!(read_all(&dir.path().join("b.jsonl")), [0, 1, 2]);
}

type Action = Box<dyn FnOnce() + Send>;

/// Does something right before the first operation of a kind.
struct Before(Operation, Mutex<Option<Action>>);

impl std::fmt::Debug for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "before {:?}", self.0)
    }
}

impl Fault for Before {
    fn verdict(&self, operation: Operation) -> Verdict {
        if operation == self.0 {
            let action = self.1.lock().unwrap().take();
            action.into_iter().for_each(|action| action());
        }
        Verdict::Go
    }

    fn shorten<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
    }
}

impl Before {
    fn fault(operation: Operation, action: impl FnOnce() + Send + 'static) -> Arc<dyn Fault> {
        Arc::new(Self(operation, Mutex::new(Some(Box::new(action)))))
    }

    fn disk(operation: Operation, action: impl FnOnce() + Send + 'static) -> Disk {
        let mut disk = Disk::new(Arc::new(Progress::new()));
        disk.fault = Some(Self::fault(operation, action));
        disk
    }
}

/// Compression on a thread of its own that stands before an operation.
struct HeldUp {
    thread: std::thread::JoinHandle<Vec<(String, Problem)>>,
    go_on: mpsc::Sender<()>,
}

impl HeldUp {
    fn before(operation: Operation, pass: Pass) -> Self {
        let (arrives, arrived) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let disk = Before::disk(operation, move || {
                arrives.send(()).unwrap();
                goes_on.recv().unwrap();
            });
            compress::run(&disk, &pass, &AtomicBool::new(false))
        });
        arrived.recv().unwrap();
        Self { thread, go_on }
    }

    /// Lets it end; its problems.
    fn go_on(self) -> Vec<(String, Problem)> {
        self.go_on.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

/// A recorder with two segments, of records 0 to 5, that has yet to compress them, and its settings. What it does next
/// removes both of them for their age.
fn two_old_segments(settings: &Settings, fault: Option<Arc<dyn Fault>>) -> (Rig, Pass) {
    let mut rig = Rig::new(settings.clone(), fault);
    rig.open().unwrap();
    for _ in 0..2 {
        rig.write(3).unwrap();
        rig.rotate().unwrap();
    }
    let pass = rig.passes.lock().unwrap().last().cloned().unwrap();
    rig.wait(Duration::from_secs(2000));
    (rig, pass)
}

fn kept_for_1000_s(dir: &Path) -> Settings {
    let mut settings = settings(dir);
    settings.retention.max_age = Duration::from_secs(1000);
    settings
}

/// An archive of the first segment beside the third would look as if the second had been lost.
#[test]
fn what_retention_is_removing_does_not_become_an_archive() {
    let dir = directory();
    let settings = kept_for_1000_s(dir.path());
    let (start, started) = mpsc::channel::<Pass>();
    let (renames, renamed) = mpsc::channel();
    let compression = std::thread::spawn(move || {
        let pass = started.recv().unwrap();
        let disk = Before::disk(Operation::Rename, move || renames.send(()).unwrap());
        compress::run(&disk, &pass, &AtomicBool::new(false))
    });
    let next = Arc::new(Mutex::new(None));
    let its_next = next.clone();
    // The first segment is about to go: compression has the time to give its archive a name, but may not.
    let fault = Before::fault(Operation::Remove, move || {
        start.send(its_next.lock().unwrap().take().unwrap()).unwrap();
        let _ = renamed.recv_timeout(Duration::from_millis(500));
    });
    let (mut rig, pass) = two_old_segments(&settings, Some(fault));
    *next.lock().unwrap() = Some(pass);
    rig.write(1).unwrap();
    let problems = compression.join().unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(read_all(&settings.output.path), [6]);
    assert_eq!(list(dir.path()), [".b.lock", "b.jsonl"]);
}

#[test]
fn what_retention_removed_does_not_come_back_as_an_archive() {
    let dir = directory();
    let settings = kept_for_1000_s(dir.path());
    let (mut rig, pass) = two_old_segments(&settings, None);
    let compression = HeldUp::before(Operation::SyncData, pass);
    rig.write(1).unwrap();
    let problems = compression.go_on();
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(read_all(&settings.output.path), [6]);
    assert_eq!(list(dir.path()), [".b.lock", "b.jsonl"]);
}

/// A disk that holds compression up in a rename, and the writer behind it, must not look like a writer that hangs.
#[test]
fn waiting_for_compression_shows_as_a_call() {
    let dir = directory();
    let (mut rig, pass) = two_old_segments(&settings(dir.path()), None);
    let progress = Arc::new(Progress::new());
    let compression = HeldUp::before(Operation::Rename, pass);
    let place = rig.passes.lock().unwrap().last().cloned().unwrap().place;
    let disk = Disk::new(progress.clone());
    let writer = std::thread::spawn(move || drop(place.hold_names(&disk)));
    while progress.current().is_none() {
        assert!(!writer.is_finished(), "it did not wait");
        std::thread::yield_now();
    }
    assert_eq!(progress.current().unwrap().0, Operation::Rename);
    assert!(compression.go_on().is_empty());
    writer.join().unwrap();
    assert_eq!(progress.current(), None);
    rig.close();
}
