//! Reads records from any mix of active files, segments, archives, directories and pipes: in
//! bounded memory, on all cores, past damage, each window once.

pub mod files;
pub(crate) mod lines;
mod problems;
mod seen;
mod shared;
mod view;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use globset::GlobSet;

pub use files::Input;
use lines::Event;
use problems::Found;
pub use problems::Problem;
pub use seen::{Coverage, Gap, Seen, Source};
pub use view::{
    DeviceView, InflightView, Layer, LineError, OperationView, Parser, RecordView, Wanted,
};

/// Files may be rotated while they are read; so many times the directories are looked at again.
const ROUNDS: usize = 3;

/// A range of time, µs since the Unix epoch; what is not given is open. A window belongs to the
/// range that its middle lies in, so that neighbouring ranges share none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// First instant of the range.
    pub since_us: Option<i64>,
    /// First instant behind the range.
    pub until_us: Option<i64>,
}

impl TimeRange {
    /// Whether `at_us` lies in the range.
    #[must_use]
    pub fn contains(&self, at_us: i64) -> bool {
        self.since_us.is_none_or(|since| at_us >= since)
            && self.until_us.is_none_or(|until| at_us < until)
    }
}

/// Which records to read.
#[derive(Clone, Default)]
pub struct Query {
    /// Files and directories; `-` is standard input.
    pub paths: Vec<PathBuf>,
    /// Windows of these hosts; none: of all.
    pub hosts: Option<GlobSet>,
    /// What of the records.
    pub wanted: Wanted,
    /// Is told how far the reading is.
    pub watch: Option<Arc<dyn Watch>>,
}

/// Watches the progress of reading.
pub trait Watch: Send + Sync {
    /// So many bytes more are to be read than was known before.
    fn expect(&self, bytes: u64);
    /// So many bytes more have been read.
    fn advance(&self, bytes: u64);
    /// Nothing more will be read.
    fn end(&self);
}

/// How the reading went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What could not be used, by input and line; at most a few for each input and then a count.
    pub problems: Vec<Problem>,
    /// Inputs that were read.
    pub inputs: usize,
    /// Files that were not opened because the range leaves them out.
    pub outside: usize,
    /// Windows that were met again and not counted again.
    pub duplicates: u64,
    /// What was read of each host and layer.
    pub coverage: BTreeMap<Source, Coverage>,
}

/// Takes the records that a [`Query`] asks for.
pub trait Sink {
    /// Takes one record.
    fn take(&mut self, record: &RecordView<'_>);
}

impl<S: Sink> Sink for &mut S {
    fn take(&mut self, record: &RecordView<'_>) {
        S::take(self, record);
    }
}

/// Reads everything that `query` asks for into sinks made by `make`, one per thread, in no
/// particular order. `threads` is at least 1; those for which no input is left take lines of the others'.
pub fn read<S: Sink + Send>(
    query: &Query,
    threads: usize,
    make: impl Fn() -> S + Sync,
) -> (Vec<S>, Outcome) {
    let mut sinks = Vec::new();
    let outcome = in_rounds(query, |inputs, seen, problems| {
        let (more, found) = shared::read_inputs(query, inputs, threads, seen, &make);
        sinks.extend(more);
        problems.extend(found);
    });
    (sinks, outcome)
}

/// Reads everything that `query` asks for into one sink: hosts' directories and outputs one after
/// the other, the records of each in order of time.
pub fn read_in_order(query: &Query, sink: &mut impl Sink) -> Outcome {
    in_rounds(query, |inputs, seen, problems| {
        for input in inputs {
            read_input(query, input, seen, sink, problems);
        }
    })
}

/// Makes something of records on one thread, to be handed on piece by piece.
pub trait Maker: Sink {
    /// What is handed on.
    type Piece: Send;

    /// What is ready; at the `end` of an input, all that is left.
    fn piece(&mut self, end: bool) -> Option<Self::Piece>;
}

/// Pieces of one input that wait to be taken.
const PIECES: usize = 2;

/// Reads everything that `query` asks for on `threads` threads with a maker each, and gives the
/// pieces in the order of [`read_in_order`]. When `give` returns false, no further input is begun.
pub fn read_pieces<M: Maker>(
    query: &Query,
    threads: usize,
    make: impl Fn() -> M + Sync,
    mut give: impl FnMut(M::Piece) -> bool,
) -> Outcome {
    let stop = AtomicBool::new(false);
    in_rounds(query, |inputs, seen, problems| {
        let (senders, receivers): (Vec<_>, Vec<_>) = inputs
            .iter()
            .map(|_| mpsc::sync_channel(PIECES))
            .map(|(sender, receiver)| (Mutex::new(Some(sender)), receiver))
            .unzip();
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        // Threads take the inputs in order, so the one whose pieces are waited for is being read.
        let work = || {
            let mut mine = Vec::new();
            let mut maker = make();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(input) = inputs.get(place) else { break };
                let Some(sender) = lock(&senders[place]).take() else { break };
                if stop.load(Ordering::Relaxed) {
                    continue;
                }
                let mut sink = Handing { maker: &mut maker, sender };
                read_input(query, input, seen, &mut sink, &mut mine);
                sink.hand(true);
            }
            lock(&found).extend(mine);
        };
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, inputs.len()) {
                scope.spawn(work);
            }
            for piece in receivers.into_iter().flatten() {
                if !give(piece) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
        problems.extend(found.into_inner().unwrap_or_else(PoisonError::into_inner));
    })
}

/// Passes records to a maker, and on what it made of them.
struct Handing<'m, M: Maker> {
    maker: &'m mut M,
    sender: mpsc::SyncSender<M::Piece>,
}

impl<M: Maker> Handing<'_, M> {
    fn hand(&mut self, end: bool) {
        if let Some(piece) = self.maker.piece(end) {
            // Nobody who takes it: the other side panicked, and says so itself.
            let _ = self.sender.send(piece);
        }
    }
}

impl<M: Maker> Sink for Handing<'_, M> {
    fn take(&mut self, record: &RecordView<'_>) {
        self.maker.take(record);
        self.hand(false);
    }
}

/// Looks for inputs, has them read, and looks again: a file that was rotated in between is found
/// the second time, and what of it was read already does not count again.
fn in_rounds(
    query: &Query,
    mut read: impl FnMut(&[Input], &Mutex<Seen>, &mut Vec<Problem>),
) -> Outcome {
    let mut outcome = Outcome::default();
    let seen = Mutex::new(Seen::default());
    let mut done = HashSet::new();
    for round in 0..ROUNDS {
        let mut found = files::find(&query.paths, &query.wanted.range);
        found.inputs.retain(|input| done.insert(without_gz(input)));
        if let Some(watch) = &query.watch {
            watch.expect(found.inputs.iter().map(Input::size).sum());
        }
        if round == 0 {
            outcome.outside = found.outside;
            outcome.problems.extend(found.errors.into_iter().map(|(input, error)| Problem {
                input,
                line: None,
                what: format!("cannot be read: {error}"),
            }));
        }
        if found.inputs.is_empty() {
            break;
        }
        read(&found.inputs, &seen, &mut outcome.problems);
        outcome.inputs += found.inputs.len();
    }
    if let Some(watch) = &query.watch {
        watch.end();
    }
    let seen = lock(&seen);
    outcome.problems.sort_by(|a, b| {
        let key = |p: &Problem| (p.line.is_none(), p.line);
        a.input.cmp(&b.input).then_with(|| key(a).cmp(&key(b)))
    });
    outcome.duplicates = seen.duplicates;
    outcome.coverage = seen.coverage();
    outcome
}

/// A segment and its archive have the same content; other files with and without `.gz` need not.
fn without_gz(input: &Input) -> Input {
    let Input::File(path) = input else { return input.clone() };
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if name.ends_with(".gz") && files::parse_name(name).is_some() {
        Input::File(path.with_extension(""))
    } else {
        input.clone()
    }
}

fn read_input(
    query: &Query,
    input: &Input,
    seen: &Mutex<Seen>,
    sink: &mut impl Sink,
    problems: &mut Vec<Problem>,
) {
    let mut found = Found::default();
    let mut taker = Taker { query, seen, parser: Parser::default(), sink };
    let opened = each_event(query, input, |number, event| match event {
        Event::Damage(what) => found.damage(number, what),
        Event::Line { bytes, complete } => {
            if let Err(what) = taker.take(bytes, complete) {
                found.bad_line(number, what);
            }
        }
    });
    problems.extend(opened.err());
    problems.extend(found.problems(&input.name()));
}

/// Calls `each` with the number and content of every line of `input`.
fn each_event(
    query: &Query,
    input: &Input,
    each: impl FnMut(u64, Event<'_>),
) -> Result<(), Problem> {
    let opened: io::Result<Box<dyn Read>> = match (input, &query.watch) {
        (Input::Stdin, _) => Ok(Box::new(io::stdin().lock())),
        (Input::File(path), None) => open(path).map(|file| Box::new(file) as _),
        (Input::File(path), Some(watch)) => {
            open(path).map(|file| Box::new(Watched { file, watch: &**watch }) as _)
        }
    };
    let stream = opened.map_err(|error| Problem {
        input: input.name(),
        line: None,
        what: format!("cannot be opened: {error}"),
    })?;
    lines::for_each_line(stream, each);
    Ok(())
}

/// Opens a file, or its archive when it was compressed since it was found.
fn open(path: &PathBuf) -> io::Result<File> {
    File::open(path).or_else(|error| {
        let mut archive = path.clone().into_os_string();
        archive.push(".gz");
        if error.kind() == io::ErrorKind::NotFound {
            File::open(archive).map_err(|_| error)
        } else {
            Err(error)
        }
    })
}

/// Makes records of lines, and gives those that are asked for to a sink.
struct Taker<'a, S> {
    query: &'a Query,
    seen: &'a Mutex<Seen>,
    parser: Parser,
    sink: S,
}

impl<S: Sink> Taker<'_, S> {
    /// Takes one line, which is not `complete` when no newline ended it.
    ///
    /// # Errors
    /// When it is no record: what is wrong with it.
    fn take(&mut self, bytes: &[u8], complete: bool) -> Result<(), String> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let query = self.query;
        let record = self.parser.parse(bytes, &query.wanted).map_err(|error| {
            if complete { error.to_string() } else { format!("is torn (no newline): {error}") }
        })?;
        if let Some(record) = record
            && query.wanted.range.contains(record.middle_us())
            && query.hosts.as_ref().is_none_or(|hosts| hosts.is_match(&*record.host))
            && lock(self.seen).insert(&record)
        {
            self.sink.take(&record);
        }
        Ok(())
    }
}

/// A file that says how much of it has been read.
struct Watched<'a> {
    file: File,
    watch: &'a dyn Watch,
}

impl Read for Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(out)?;
        self.watch.advance(length as u64);
        Ok(length)
    }
}

/// A thread that panicked while it held the lock leaves nothing half done that matters here: the
/// panic itself is passed on when its thread is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
