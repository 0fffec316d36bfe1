//! Reads records from any mix of active files, segments, archives, directories and pipes: in
//! bounded memory, on all cores, past damage, each window once.

pub mod files;
pub(crate) mod lines;
mod seen;
mod view;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use globset::GlobSet;

pub use files::Input;
use lines::Event;
pub use seen::{Coverage, Gap, Seen, Source};
pub use view::{
    DeviceView, InflightView, Layer, LineError, OperationView, Parser, RecordView, Wanted,
};

/// Problems of a kind that are kept for each file; the rest are only counted.
const PROBLEMS_PER_FILE: usize = 5;
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

/// Something in the input that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The input's name.
    pub input: String,
    /// Number of the line, from 1; none when it is not about a line.
    pub line: Option<u64>,
    /// What is wrong, as the end of a sentence that begins with the place.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}: line {line} {}", self.input, self.what),
            None => write!(f, "{}: {}", self.input, self.what),
        }
    }
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

/// Reads everything that `query` asks for into sinks made by `make`, one per thread, in no
/// particular order. `threads` is limited to the number of inputs and at least 1.
pub fn read<S: Sink + Send>(
    query: &Query,
    threads: usize,
    make: impl Fn() -> S + Sync,
) -> (Vec<S>, Outcome) {
    let mut sinks = Vec::new();
    let outcome = in_rounds(query, |inputs, seen, problems| {
        let (more, found) = read_inputs(query, inputs, threads, seen, &make);
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

fn read_inputs<S: Sink + Send>(
    query: &Query,
    inputs: &[Input],
    threads: usize,
    seen: &Mutex<Seen>,
    make: &(impl Fn() -> S + Sync),
) -> (Vec<S>, Vec<Problem>) {
    let next = AtomicUsize::new(0);
    let results = Mutex::new((Vec::new(), Vec::new()));
    let work = || {
        let mut sink = make();
        let mut problems = Vec::new();
        while let Some(input) = inputs.get(next.fetch_add(1, Ordering::Relaxed)) {
            read_input(query, input, seen, &mut sink, &mut problems);
        }
        let mut results = lock(&results);
        results.0.push(sink);
        results.1.extend(problems);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(inputs.len()) {
            scope.spawn(work);
        }
        work();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn read_input(
    query: &Query,
    input: &Input,
    seen: &Mutex<Seen>,
    sink: &mut impl Sink,
    problems: &mut Vec<Problem>,
) {
    let name = input.name();
    let opened: io::Result<Box<dyn Read>> = match (input, &query.watch) {
        (Input::Stdin, _) => Ok(Box::new(io::stdin().lock())),
        (Input::File(path), None) => open(path).map(|file| Box::new(file) as _),
        (Input::File(path), Some(watch)) => {
            open(path).map(|file| Box::new(Watched { file, watch: &**watch }) as _)
        }
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            let what = format!("cannot be opened: {error}");
            return problems.push(Problem { input: name, line: None, what });
        }
    };
    // Damage is the cause and bad lines its many effects: these must not crowd out that.
    let (mut damages, mut bad_lines) = (0, 0);
    let mut parser = Parser::default();
    lines::for_each_line(stream, |number, event| {
        let Err(what) = take_event(query, &event, &mut parser, seen, sink) else { return };
        let found = match event {
            Event::Damage(_) => &mut damages,
            Event::Line { .. } => &mut bad_lines,
        };
        *found += 1;
        if *found <= PROBLEMS_PER_FILE {
            problems.push(Problem { input: name.clone(), line: Some(number), what });
        }
    });
    for (found, what) in [(damages, "more damaged places"), (bad_lines, "more lines of no use")] {
        if found > PROBLEMS_PER_FILE {
            let what = format!("{} {what}", found - PROBLEMS_PER_FILE);
            problems.push(Problem { input: name.clone(), line: None, what });
        }
    }
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

fn take_event(
    query: &Query,
    event: &Event<'_>,
    parser: &mut Parser,
    seen: &Mutex<Seen>,
    sink: &mut impl Sink,
) -> Result<(), String> {
    let (bytes, complete) = match event {
        Event::Line { bytes, complete } => (bytes, complete),
        Event::Damage(what) => return Err(what.clone()),
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let record = parser.parse(bytes, &query.wanted).map_err(|error| {
        if *complete { error.to_string() } else { format!("is torn (no newline): {error}") }
    })?;
    if let Some(record) = record
        && query.wanted.range.contains(record.middle_us())
        && query.hosts.as_ref().is_none_or(|hosts| hosts.is_match(&*record.host))
        && lock(seen).insert(&record)
    {
        sink.take(&record);
    }
    Ok(())
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
