//! A fault at every single operation.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use rustix::io::Errno;

use super::*;
use crate::archive::disk::Operation;
use crate::archive::faults::Verdict;

/// What happens at the operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// It fails without having done anything.
    Fails(Errno),
    /// It does its work and then reports a failure.
    FailsLate(Errno),
    /// Writes write half; the next write goes on.
    Short,
    /// A write writes half, and the next operations fail.
    Torn(Errno),
    /// The process is killed before it.
    Killed,
    /// The process is killed in it, when it had done half of a write or all of something else.
    KilledIn,
}

#[derive(Debug)]
struct Scheduled {
    kind: Kind,
    /// The first operation that is hit, counted from 0, and how many are.
    first: u64,
    length: u64,
    state: Mutex<Progressed>,
}

#[derive(Debug, Default)]
struct Progressed {
    count: u64,
    shorten: bool,
    seen: Vec<Operation>,
}

impl Scheduled {
    fn new(kind: Kind, first: u64, length: u64) -> Arc<Self> {
        Arc::new(Self { kind, first, length, state: Mutex::default() })
    }
}

impl Fault for Scheduled {
    fn verdict(&self, operation: Operation) -> Verdict {
        let mut state = self.state.lock().unwrap();
        let number = state.count;
        state.count += 1;
        state.seen.push(operation);
        state.shorten = false;
        let Some(past) = number.checked_sub(self.first) else { return Verdict::Go };
        let within = past < self.length;
        let fail = |error: Errno| Verdict::Fail(error.into());
        match self.kind {
            Kind::Fails(error) if within => fail(error),
            Kind::FailsLate(error) if within => match operation {
                // These give something back; there is no failing after that.
                Operation::Open | Operation::Create | Operation::OpenDirectory => fail(error),
                Operation::Write => fail(error),
                _ => Verdict::FailAfter(error.into()),
            },
            Kind::Short if within => {
                state.shorten = operation == Operation::Write;
                Verdict::Go
            }
            Kind::Torn(error) if within => {
                if past == 0 && operation == Operation::Write {
                    state.shorten = true;
                    Verdict::Short
                } else {
                    fail(error)
                }
            }
            Kind::Killed => Verdict::Fail(io::Error::other("killed")),
            Kind::KilledIn if past == 0 => {
                state.shorten = operation == Operation::Write;
                match operation {
                    Operation::Write => Verdict::Short,
                    Operation::Open | Operation::Create | Operation::OpenDirectory => Verdict::Go,
                    _ => Verdict::FailAfter(io::Error::other("killed")),
                }
            }
            Kind::KilledIn => Verdict::Fail(io::Error::other("killed")),
            _ => Verdict::Go,
        }
    }

    fn shorten<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if self.state.lock().unwrap().shorten { &bytes[..bytes.len().div_ceil(2)] } else { bytes }
    }
}

/// Records that the scenario writes.
const RECORDS: u64 = 11;

/// A short life: two rotations by size, one asked for, compression in between. `attempts` is how
/// often what fails is tried again. Returns the number of records that were reported as written.
fn live(rig: &mut Rig, attempts: u32) -> u64 {
    let persist = |action: &mut dyn FnMut() -> bool| (0..attempts).any(|_| action());
    persist(&mut || rig.open().is_ok());
    for number in 0..RECORDS {
        rig.append();
        if rig.recorder.is_full() {
            persist(&mut || rig.recorder.flush().is_ok());
        }
        if number == 5 {
            rig.recorder.rotate_next();
            persist(&mut || rig.recorder.flush().is_ok());
        }
        if number % 3 == 0 {
            persist(&mut || rig.compress().is_empty());
        }
    }
    persist(&mut || rig.recorder.flush().is_ok());
    rig.recorder.totals().records
}

fn faulty_settings(dir: &Path, fsync: bool) -> Settings {
    let mut settings = settings(dir);
    settings.output.flush_every = 2;
    settings.output.fsync = fsync;
    let line = {
        let mut line = Vec::new();
        record(0, Moment::from_millis(1_795_362_300_123)).write_line(&mut line);
        line.len() as u64
    };
    settings.rotation.max_size = line * 5;
    settings
}

/// Starts anew in the directory without faults, writes two more records and leaves in peace.
fn recover(settings: &Settings) {
    let mut rig = Rig::opened(settings.clone());
    rig.wait(Duration::from_secs(1000));
    rig.seq = 1000;
    rig.write(2).unwrap();
    rig.recorder.rotate_next();
    rig.recorder.flush().unwrap();
    let problems = rig.compress();
    assert!(problems.is_empty(), "{problems:?}");
    rig.close();
}

fn run(kind: Kind, first: u64, length: u64, fsync: bool) {
    let context = format!("{kind:?} from operation {first} for {length}, fsync {fsync}");
    let dir = directory();
    let settings = faulty_settings(dir.path(), fsync);
    let path = settings.output.path.clone();
    let killed = matches!(kind, Kind::Killed | Kind::KilledIn);
    let fault = Scheduled::new(kind, first, length);
    let mut rig = Rig::new(settings.clone(), Some(fault));
    let written = live(&mut rig, if killed { 1 } else { 40 });
    if !killed {
        assert_eq!(written, RECORDS, "{context}");
        assert_eq!(read_all(&path), (0..RECORDS).collect::<Vec<_>>(), "{context}");
    }
    drop(rig);
    recover(&settings);

    let mut lines = read_all(&path);
    let after = lines.split_off(lines.len() - 2);
    assert_eq!(after, [1000, 1001], "{context}");
    let expected: Vec<u64> = (0..lines.len() as u64).collect();
    assert_eq!(lines, expected, "{context}: lost, twice or out of order");
    // Lines of the batch in the making may be there or not.
    assert!((written..=RECORDS).contains(&(lines.len() as u64)), "{context}: {lines:?}");
    let names = Names::new(&path).unwrap();
    for name in list(dir.path()) {
        let ours = matches!(names.parse(&name), Some((_, super::Kind::Archive)));
        assert!(ours || name == "b.jsonl", "{context}: {name} is left over");
    }
}

/// How many operations the scenario has without faults, and that it has all kinds of them.
fn operations(fsync: bool) -> u64 {
    let dir = directory();
    let fault = Scheduled::new(Kind::Short, u64::MAX, 0);
    let mut rig = Rig::new(faulty_settings(dir.path(), fsync), Some(fault.clone()));
    assert_eq!(live(&mut rig, 1), RECORDS);
    let archives = list(dir.path()).iter().filter(|name| name.ends_with(".gz")).count();
    assert!(archives >= 2, "{:?}", list(dir.path()));
    let (count, seen) = {
        let state = fault.state.lock().unwrap();
        (state.count, state.seen.clone())
    };
    for operation in Operation::ALL {
        // Nothing is cut off as long as nothing fails; the tests below do that.
        let expected = operation != Operation::Truncate;
        assert_eq!(seen.contains(&operation), expected, "{operation:?}");
    }
    let stated = if fsync { 129 } else { 119 };
    assert_eq!(count, stated, "docs/durability.md states how many there are");
    count
}

fn at_every_operation(kinds: &[Kind], fsync: bool) {
    for first in 0..operations(fsync) {
        for kind in kinds {
            run(*kind, first, 1, fsync);
        }
    }
}

const ERRORS: [Errno; 7] =
    [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::INTR, Errno::DQUOT, Errno::MFILE, Errno::ACCESS];

#[test]
fn it_fails() {
    at_every_operation(&ERRORS.map(Kind::Fails), true);
}

#[test]
fn it_is_done_but_reported_as_failed() {
    at_every_operation(&[Kind::FailsLate(Errno::IO), Kind::FailsLate(Errno::NOSPC)], true);
}

#[test]
fn writes_are_short() {
    at_every_operation(&[Kind::Short], false);
}

#[test]
fn it_fails_for_a_while() {
    for first in 0..operations(true) {
        for length in [2, 3, 5, 12] {
            run(Kind::Fails(Errno::IO), first, length, true);
            run(Kind::Torn(Errno::NOSPC), first, length, true);
        }
    }
}

#[test]
fn the_process_is_killed() {
    at_every_operation(&[Kind::Killed, Kind::KilledIn], true);
    at_every_operation(&[Kind::Killed, Kind::KilledIn], false);
}
