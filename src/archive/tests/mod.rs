//! Tests of the parts together, on a real directory and with a clock of their own.

mod disturbed;
mod every_fault;
mod foreign;
mod model;
mod operations;
mod outputs;
mod segments;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::compress::{self, Pass, Problem};
use super::disk::{Disk, Progress};
use super::error::{OpenError, WriteError};
use super::faults::Fault;
use super::names::{Kind, Moment, Names};
use super::recorder::Recorder;
use super::settings::Settings;
use crate::config::FreeSpace;
use crate::record::Record;

/// A directory for a test; in memory where possible, because these tests sync a lot.
pub(super) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Settings under which nothing happens that a test did not ask for.
pub(super) fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.output.path = dir.join("b.jsonl");
    settings.output.flush_every = 1;
    settings.rotation.gzip_level = 1;
    settings.retention.min_free_space = FreeSpace::Bytes(0);
    settings
}

pub(super) fn record(seq: u64, at: Moment) -> Record {
    Record {
        seq,
        timestamp: at.millis() as f64 / 1000.0,
        schema: crate::record::SCHEMA_VERSION,
        host: "test".into(),
        ..Record::default()
    }
}

/// A recorder with everything around it under the test's control.
pub(super) struct Rig {
    pub(super) recorder: Recorder,
    pub(super) disk: Disk,
    pub(super) clock: Arc<Mutex<(Moment, Instant)>>,
    pub(super) passes: Arc<Mutex<Vec<Pass>>>,
    pub(super) seq: u64,
}

impl Rig {
    pub(super) fn new(settings: Settings, fault: Option<Arc<dyn Fault>>) -> Self {
        let mut disk = Disk::new(Arc::new(Progress::new()));
        disk.fault = fault;
        let start = (Moment::from_millis(1_795_362_300_123), Instant::now());
        let clock = Arc::new(Mutex::new(start));
        let passes = Arc::new(Mutex::new(Vec::new()));
        let (its_clock, its_passes) = (clock.clone(), passes.clone());
        let recorder = Recorder::new(
            disk.clone(),
            settings,
            Box::new(move || *its_clock.lock().unwrap()),
            Box::new(move |pass| its_passes.lock().unwrap().push(pass)),
        );
        Self { recorder, disk, clock, passes, seq: 0 }
    }

    /// Opened without faults. Another test may be starting a process right now, which for a moment
    /// holds copies of all our files, locks released since included: then it waits for that.
    pub(super) fn opened(settings: Settings) -> Self {
        let mut rig = Self::new(settings, None);
        let start = Instant::now();
        loop {
            match rig.recorder.open() {
                Ok(()) => return rig,
                Err(OpenError::Locked { .. }) if start.elapsed() < Duration::from_secs(20) => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Moves both clocks on.
    pub(super) fn wait(&self, time: Duration) {
        let mut clock = self.clock.lock().unwrap();
        let millis = clock.0.millis() + i64::try_from(time.as_millis()).unwrap();
        *clock = (Moment::from_millis(millis), clock.1 + time);
    }

    /// Sets the wall clock.
    pub(super) fn set_wall(&self, millis: i64) {
        self.clock.lock().unwrap().0 = Moment::from_millis(millis);
    }

    /// The next window's record, five seconds later.
    pub(super) fn append(&mut self) {
        self.wait(Duration::from_secs(5));
        let at = self.clock.lock().unwrap().0;
        self.recorder.append(&record(self.seq, at));
        self.seq += 1;
    }

    /// Appends and flushes so many records.
    pub(super) fn write(&mut self, count: u64) -> Result<(), WriteError> {
        for _ in 0..count {
            self.append();
            self.recorder.flush()?;
        }
        Ok(())
    }

    pub(super) fn rotate(&mut self) -> Result<(), WriteError> {
        self.recorder.rotate_next();
        self.recorder.flush()
    }

    /// Does what the compression thread was given to do.
    pub(super) fn compress(&mut self) -> Vec<(String, Problem)> {
        let passes = std::mem::take(&mut *self.passes.lock().unwrap());
        let last = passes.last().cloned();
        drop(passes);
        match last {
            Some(pass) => compress::run(&self.disk, &pass, &AtomicBool::new(false)),
            None => Vec::new(),
        }
    }

    /// Leaves in peace, with nothing being compressed.
    pub(super) fn close(&mut self) {
        self.passes.lock().unwrap().clear();
        self.recorder.close();
    }

    pub(super) fn open(&mut self) -> Result<(), OpenError> {
        self.recorder.open()
    }
}

/// The names in a directory, sorted.
pub(super) fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Sequence numbers of each file's lines, files in the order of their time and the active one
/// last. Every line must be a whole record, every archive a whole gzip file. A segment whose
/// archive exists is not looked at: it is about to be removed.
pub(super) fn read_files(active: &Path) -> Vec<(String, Vec<u64>)> {
    let names = Names::new(active).unwrap();
    let dir = active.parent().unwrap();
    let mut files = BTreeMap::<Moment, (Kind, PathBuf)>::new();
    for name in list(dir) {
        match names.parse(&name) {
            Some((_, Kind::Partial)) | None => {}
            Some((moment, kind)) => {
                let newer = (kind, dir.join(name));
                let entry = files.entry(moment).or_insert_with(|| newer.clone());
                *entry = entry.clone().max(newer);
            }
        }
    }
    let mut paths: Vec<PathBuf> = files.into_values().map(|(_, path)| path).collect();
    if active.exists() {
        paths.push(active.to_owned());
    }
    paths.iter().map(|path| (file_name(path), sequence(path))).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The sequence numbers of one file's lines.
pub(super) fn sequence(path: &Path) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap();
    let mut text = Vec::new();
    if path.extension().unwrap() == "gz" {
        flate2::bufread::GzDecoder::new(&*bytes).read_to_end(&mut text).unwrap();
    } else {
        text = bytes;
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{path:?} ends in a torn line");
    text.lines()
        .map(|line| {
            let record: Record = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{path:?}: {error}: {line:?}"));
            record.seq
        })
        .collect()
}

/// All sequence numbers, in the order of [`read_files`].
pub(super) fn read_all(active: &Path) -> Vec<u64> {
    read_files(active).into_iter().flat_map(|(_, lines)| lines).collect()
}
