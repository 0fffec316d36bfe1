//! Random lives against a model: what was written is there once, whole and in order.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Records come, five seconds apart, and are flushed in batches.
    Write(u8),
    Flush,
    Rotate,
    Compress,
    /// Both clocks go on.
    Wait(u32),
    /// The wall clock is set, by so many seconds.
    SetClock(i32),
    /// The process is killed; so many bytes of its last, unfinished write are in the file.
    Kill(u16),
    /// A clean stop and start.
    Restart,
    Reconfigure(u8, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..12).prop_map(Step::Write),
        1 => Just(Step::Flush),
        2 => Just(Step::Rotate),
        2 => Just(Step::Compress),
        1 => (0u32..100_000).prop_map(Step::Wait),
        1 => (-10_000i32..10_000).prop_map(Step::SetClock),
        2 => (0u16..700).prop_map(Step::Kill),
        1 => Just(Step::Restart),
        1 => (1u8..6, 300u16..5000).prop_map(|(flush, size)| Step::Reconfigure(flush, size)),
    ]
}

/// A process' life, and what the next one must find.
struct Model {
    rig: Rig,
    settings: Settings,
    /// Records reported as written.
    written: BTreeSet<u64>,
    /// Collected by the process, not written yet.
    pending: Vec<u64>,
    /// Whether the wall clock was ever set back.
    went_back: bool,
}

impl Model {
    fn flush(&mut self) {
        self.rig.recorder.flush().unwrap();
        self.written.extend(self.pending.drain(..));
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Write(count) => {
                for _ in 0..count {
                    self.pending.push(self.rig.seq);
                    self.rig.append();
                    if self.rig.recorder.is_full() {
                        self.flush();
                    }
                }
            }
            Step::Flush => self.flush(),
            Step::Rotate => {
                self.rig.recorder.rotate_next();
                self.flush();
            }
            Step::Compress => assert!(self.rig.compress().is_empty()),
            Step::Wait(seconds) => self.rig.wait(Duration::from_secs(seconds.into())),
            Step::SetClock(seconds) => {
                let now = self.rig.clock.lock().unwrap().0.millis();
                self.went_back |= seconds < 0;
                self.rig.set_wall(now + i64::from(seconds) * 1000);
            }
            Step::Kill(bytes) => {
                let mut unfinished = Vec::new();
                for seq in &self.pending {
                    record(*seq, self.rig.clock.lock().unwrap().0).write_line(&mut unfinished);
                }
                unfinished.truncate(bytes.into());
                let mut file =
                    fs::OpenOptions::new().append(true).open(&self.settings.output.path).unwrap();
                std::io::Write::write_all(&mut file, &unfinished).unwrap();
                // The whole lines of it count as written.
                let whole = unfinished.iter().filter(|byte| **byte == b'\n').count();
                self.written.extend(self.pending.drain(..).take(whole));
                self.start_again();
            }
            Step::Restart => {
                self.flush();
                self.rig.close();
                self.start_again();
            }
            Step::Reconfigure(flush_every, size) => {
                self.settings.output.flush_every = flush_every.into();
                self.settings.rotation.max_size = size.into();
                self.rig.recorder.reconfigure(self.settings.clone()).unwrap();
            }
        }
    }

    fn start_again(&mut self) {
        let (clock, seq) = (*self.rig.clock.lock().unwrap(), self.rig.seq);
        // Gone first, and its lock with it.
        drop(std::mem::replace(&mut self.rig, Rig::new(self.settings.clone(), None)));
        self.rig = Rig::opened(self.settings.clone());
        *self.rig.clock.lock().unwrap() = clock;
        self.rig.seq = seq;
    }

    fn check(&self) {
        let files = read_files(&self.settings.output.path);
        let mut all: Vec<u64> = Vec::new();
        for (name, lines) in &files {
            assert!(lines.is_sorted(), "{name}: {lines:?}");
            all.extend(lines);
        }
        if !self.went_back {
            assert!(all.is_sorted(), "{files:?}");
        }
        all.sort_unstable();
        let written: Vec<u64> = self.written.iter().copied().collect();
        assert_eq!(all, written, "{files:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn nothing_written_is_lost_doubled_or_reordered(
        steps in prop::collection::vec(step(), 1..40), fsync in prop::bool::ANY,
    ) {
        let dir = directory();
        let mut settings = settings(dir.path());
        settings.output.fsync = fsync;
        settings.output.flush_every = 4;
        settings.rotation.max_size = 3000;
        settings.rotation.max_age = Duration::from_secs(50_000);
        settings.retention.max_age = Duration::from_secs(1 << 40);
        let mut model = Model {
            rig: Rig::opened(settings.clone()),
            settings,
            written: BTreeSet::new(),
            pending: Vec::new(),
            went_back: false,
        };
        for step in &steps {
            model.take(step);
            model.check();
        }
        model.take(&Step::Restart);
        model.take(&Step::Compress);
        model.check();
        model.rig.close();
        let names = Names::new(&model.settings.output.path).unwrap();
        for name in list(dir.path()) {
            let archive = matches!(names.parse(&name), Some((_, Kind::Archive)));
            prop_assert!(archive || name == "b.jsonl", "{} is left over", name);
        }
    }
}
