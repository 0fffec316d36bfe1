//! Inputs read by several threads: each takes one input after the other, and one for which none is left takes lines
//! of those that others still read. So one large file, too, is read on all cores: decoded by one thread, its lines
//! understood by all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::lines::Event;
use super::problems::{Found, Problem};
use super::view::Parser;
use super::{Input, Query, Seen, Sink, Taker, each_event, lock};

/// Bytes of lines that are handed over at once.
const BLOCK: usize = 512 << 10;

/// Reads `inputs` into sinks made by `make`, one for each of `threads`.
pub(super) fn read_inputs<S: Sink + Send>(
    query: &Query,
    inputs: &[Input],
    threads: usize,
    seen: &Mutex<Seen>,
    make: &(impl Fn() -> S + Sync),
) -> (Vec<S>, Vec<Problem>) {
    let threads = threads.max(1);
    let next = AtomicUsize::new(0);
    let offers = Offers::new(threads);
    let founds: Vec<Mutex<Found>> = inputs.iter().map(|_| Mutex::default()).collect();
    let results = Mutex::new((Vec::new(), Vec::new()));
    let work = || {
        let mut taker = Taker { query, seen, parser: Parser::default(), sink: make() };
        let reading = Reading(&offers);
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(input) = inputs.get(place) else { break };
            let mut block = Block::new(place);
            let read = each_event(query, input, |number, event| match event {
                Event::Damage(what) => lock(&founds[place]).damage(number, what),
                Event::Line { bytes, complete } => {
                    if block.lines.is_empty() && !offers.are_wanted() {
                        take(&mut taker, &founds[place], number, bytes, complete);
                        return;
                    }
                    block.push(number, bytes, complete);
                    if block.bytes.len() >= BLOCK {
                        let whole = std::mem::replace(&mut block, Block::new(place));
                        if let Some(block) = offers.offer(whole) {
                            block.take(&mut taker, &founds);
                        }
                    }
                }
            });
            block.take(&mut taker, &founds);
            lock(&results).1.extend(read.err());
        }
        drop(reading);
        while let Some(block) = offers.next() {
            block.take(&mut taker, &founds);
        }
        lock(&results).0.push(taker.sink);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let (sinks, mut problems) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (input, found) in inputs.iter().zip(founds) {
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        problems.extend(found.problems(&input.name()));
    }
    (sinks, problems)
}

fn take(
    taker: &mut Taker<'_, impl Sink>,
    found: &Mutex<Found>,
    number: u64,
    bytes: &[u8],
    complete: bool,
) {
    if let Err(what) = taker.take(bytes, complete) {
        lock(found).bad_line(number, what);
    }
}

/// Lines of one input that follow each other.
struct Block {
    /// Which input.
    place: usize,
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

struct Line {
    number: u64,
    /// Where it ends in the block's bytes.
    end: usize,
    complete: bool,
}

impl Block {
    const fn new(place: usize) -> Self {
        Self { place, bytes: Vec::new(), lines: Vec::new() }
    }

    fn push(&mut self, number: u64, bytes: &[u8], complete: bool) {
        self.bytes.extend_from_slice(bytes);
        self.lines.push(Line { number, end: self.bytes.len(), complete });
    }

    fn take(&self, taker: &mut Taker<'_, impl Sink>, founds: &[Mutex<Found>]) {
        let mut begin = 0;
        for line in &self.lines {
            let bytes = &self.bytes[begin..line.end];
            take(taker, &founds[self.place], line.number, bytes, line.complete);
            begin = line.end;
        }
    }
}

/// Blocks that wait for a thread without an input; never more than there are such threads.
struct Offers {
    state: Mutex<State>,
    changed: Condvar,
    /// How many blocks there is room for: a look at it takes no lock.
    room: AtomicUsize,
}

struct State {
    blocks: VecDeque<Block>,
    /// Threads that have an input, and may offer.
    readers: usize,
    /// Threads that have none left.
    helpers: usize,
}

impl Offers {
    fn new(threads: usize) -> Self {
        let state = State { blocks: VecDeque::new(), readers: threads, helpers: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), room: AtomicUsize::new(0) }
    }

    fn are_wanted(&self) -> bool {
        self.room.load(Ordering::Relaxed) > 0
    }

    fn note_room(&self, state: &State) {
        self.room.store(state.helpers.saturating_sub(state.blocks.len()), Ordering::Relaxed);
    }

    /// Leaves a block for another thread; gives it back when there is no room.
    fn offer(&self, block: Block) -> Option<Block> {
        let mut state = lock(&self.state);
        if state.blocks.len() >= state.helpers {
            return Some(block);
        }
        state.blocks.push_back(block);
        self.note_room(&state);
        self.changed.notify_one();
        None
    }

    /// A block, as soon as there is one; none when there will be none.
    fn next(&self) -> Option<Block> {
        let mut state = lock(&self.state);
        loop {
            if let Some(block) = state.blocks.pop_front() {
                self.note_room(&state);
                return Some(block);
            }
            if state.readers == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A thread that reads inputs; dropped, also by a panic, it is one that helps.
struct Reading<'a>(&'a Offers);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.readers -= 1;
        state.helpers += 1;
        self.0.note_room(&state);
        self.0.changed.notify_all();
    }
}
