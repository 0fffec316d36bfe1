//! The bounded queue between sampling and writing.
//!
//! A window is one record, or one for each layer that is measured; they are queued, written and dropped
//! together. Sampling must never wait for a disk, so [`Queue::push`] takes a place at once: when the queue
//! is full, its oldest window is dropped. How many were dropped is kept at the place where they
//! would have been, so that the next records that are written say exactly how many are missing
//! right before them, also when their predecessors carried a count and were dropped in turn.
//!
//! Commands (a new configuration, "rotate now") travel in the same queue and are never dropped:
//! they take effect between the records they were given between.

use std::collections::VecDeque;

use crate::record::Record;

/// Most windows that wait. At the default window of 5 s that is an hour of a disk that does not
/// answer.
pub const MAX_WINDOWS: usize = 720;

/// Most bytes (as estimated by [`encoded_size`]) that wait. A host with hundreds of busy disks has
/// records of tens of kilobytes; this keeps the daemon small there, at the price of a shorter wait.
pub const MAX_BYTES: usize = 8 << 20;

/// What the consumer takes from the queue.
#[derive(Debug, PartialEq)]
pub enum Item<C> {
    /// The records of a window, with `audit.dropped_snapshots` of each set to the number of windows
    /// dropped right before it.
    Window(Vec<Record>),
    /// A command.
    Command(C),
}

/// Windows and commands in order, bounded in number and in bytes. No locks: the owner brings one.
#[derive(Debug)]
pub struct Queue<C> {
    entries: VecDeque<Entry<C>>,
    max_windows: usize,
    max_bytes: usize,
    windows: usize,
    records: usize,
    bytes: usize,
    dropped: u64,
}

#[derive(Debug)]
enum Entry<C> {
    Window {
        records: Vec<Record>,
        bytes: usize,
        /// Windows that were dropped between this one and its predecessor.
        dropped_before: u64,
    },
    Command(C),
}

/// Commands of which only the last matters when no window lies between two of them.
pub trait Command {
    /// Whether `self` makes `earlier`, given right before it, superfluous.
    fn supersedes(&self, earlier: &Self) -> bool;
}

impl<C: Command> Queue<C> {
    /// An empty queue for at most `max_windows` (at least 1) and about `max_bytes`.
    pub fn new(max_windows: usize, max_bytes: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            max_windows: max_windows.max(1),
            max_bytes,
            windows: 0,
            records: 0,
            bytes: 0,
            dropped: 0,
        }
    }

    /// Appends the records of a window; drops the oldest windows while that is needed to stay within
    /// bounds. The newest window is always kept, whatever its size.
    pub fn push(&mut self, records: Vec<Record>) {
        let bytes = records.iter().map(encoded_size).sum();
        // A record may come in with a count of its own, from a queue before this one.
        let dropped_before =
            records.iter().map(|record| record.audit.dropped_snapshots).max().unwrap_or(0);
        self.windows += 1;
        self.records += records.len();
        self.bytes += bytes;
        self.entries.push_back(Entry::Window { records, bytes, dropped_before });
        while self.windows > 1 && (self.windows > self.max_windows || self.bytes > self.max_bytes) {
            self.drop_oldest();
        }
    }

    /// Appends a command. It replaces those at the end of the queue that it supersedes.
    pub fn push_command(&mut self, command: C) {
        while let Some(Entry::Command(last)) = self.entries.back()
            && command.supersedes(last)
        {
            self.entries.pop_back();
        }
        self.entries.push_back(Entry::Command(command));
    }

    /// Takes the oldest entry.
    pub fn pop(&mut self) -> Option<Item<C>> {
        match self.entries.pop_front()? {
            Entry::Command(command) => Some(Item::Command(command)),
            Entry::Window { mut records, bytes, dropped_before } => {
                self.windows -= 1;
                self.records -= records.len();
                self.bytes -= bytes;
                for record in &mut records {
                    record.audit.dropped_snapshots = dropped_before;
                }
                Some(Item::Window(records))
            }
        }
    }

    /// Takes the first command that `wanted` accepts, past the windows before it. For a writer
    /// that cannot write those and is told what would let it.
    pub fn take_command(&mut self, wanted: impl Fn(&C) -> bool) -> Option<C> {
        let index = self
            .entries
            .iter()
            .position(|entry| matches!(entry, Entry::Command(command) if wanted(command)))?;
        match self.entries.remove(index) {
            Some(Entry::Command(command)) => Some(command),
            _ => None,
        }
    }

    /// Windows that wait.
    pub fn len(&self) -> usize {
        self.windows
    }

    /// Records that wait: the lines of all windows.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Whether neither a window nor a command waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Estimated bytes of what waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Windows dropped since the queue was made.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_oldest(&mut self) {
        let Some(index) =
            self.entries.iter().position(|entry| matches!(entry, Entry::Window { .. }))
        else {
            return;
        };
        let Some(Entry::Window { records, bytes, dropped_before }) = self.entries.remove(index)
        else {
            return;
        };
        self.windows -= 1;
        self.records -= records.len();
        self.bytes -= bytes;
        self.dropped += 1;
        for entry in self.entries.iter_mut().skip(index) {
            if let Entry::Window { dropped_before: next, .. } = entry {
                *next += dropped_before + 1;
                break;
            }
        }
        // Commands that this brought together must not pile up while the disk is stuck.
        if let Some(before) = index.checked_sub(1)
            && let (Some(Entry::Command(earlier)), Some(Entry::Command(later))) =
                (self.entries.get(before), self.entries.get(index))
            && later.supersedes(earlier)
        {
            self.entries.remove(before);
        }
    }
}

/// About how many bytes `record` takes as a line of JSON, which is also about what it takes in
/// memory. Cheap: it looks at lengths only.
pub fn encoded_size(record: &Record) -> usize {
    const RECORD: usize = 512;
    const DEVICE: usize = 128;
    const SLOT: usize = 64;
    const OPERATION: usize = 96;
    const PAIR: usize = 10;
    let latency: usize = record
        .latency_histogram
        .iter()
        .map(|device| {
            let operations: usize = device
                .ops
                .iter()
                .map(|(_, stats)| {
                    let pairs = stats.fine.as_ref().map_or(0, Vec::len)
                        + stats.slots.as_ref().map_or(0, Vec::len);
                    OPERATION + pairs * PAIR
                })
                .sum();
            DEVICE + device.device_name.len() + device.buckets.len() * SLOT + operations
        })
        .sum();
    let inflight: usize =
        record.inflight.iter().map(|device| DEVICE + device.device_name.len()).sum();
    RECORD + record.host.len() + latency + inflight
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Told {
        Last(u32),
        Each(u32),
    }

    impl Command for Told {
        fn supersedes(&self, earlier: &Self) -> bool {
            matches!((self, earlier), (Told::Last(_), Told::Last(_)))
        }
    }

    fn record(seq: u64) -> Vec<Record> {
        vec![Record { seq, ..Record::default() }]
    }

    fn drain(queue: &mut Queue<Told>) -> Vec<Item<Told>> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_the_next_one_says_so() {
        let mut queue = Queue::<Told>::new(2, usize::MAX);
        (0..5).for_each(|seq| queue.push(record(seq)));
        assert_eq!(queue.dropped(), 3);
        let Some(Item::Window(first)) = queue.pop() else { panic!("no window") };
        assert_eq!((first[0].seq, first[0].audit.dropped_snapshots), (3, 3));
        let Some(Item::Window(second)) = queue.pop() else { panic!("no window") };
        assert_eq!((second[0].seq, second[0].audit.dropped_snapshots), (4, 0));
        assert!(queue.is_empty());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn the_layers_of_a_window_go_and_stay_together() {
        let mut queue = Queue::<Told>::new(2, usize::MAX);
        (0..5).for_each(|seq| queue.push([record(seq), record(seq)].concat()));
        assert_eq!((queue.len(), queue.records(), queue.dropped()), (2, 4, 3));
        let Some(Item::Window(first)) = queue.pop() else { panic!("no window") };
        let said: Vec<_> = first.iter().map(|r| (r.seq, r.audit.dropped_snapshots)).collect();
        assert_eq!(said, [(3, 3), (3, 3)]);
        assert_eq!((queue.len(), queue.records()), (1, 2));
    }

    #[test]
    fn bytes_are_bounded_too_but_the_newest_record_stays() {
        let one = encoded_size(&record(0)[0]);
        let mut queue = Queue::<Told>::new(100, 3 * one);
        (0..10).for_each(|seq| queue.push(record(seq)));
        assert_eq!((queue.len(), queue.dropped()), (3, 7));
        let mut tiny = Queue::<Told>::new(100, 1);
        tiny.push(record(7));
        assert_eq!(tiny.len(), 1);
    }

    #[test]
    fn commands_survive_and_do_not_pile_up() {
        let mut queue = Queue::new(1, usize::MAX);
        for round in 0..1000 {
            queue.push_command(Told::Last(round));
            queue.push(record(u64::from(round)));
        }
        let items = drain(&mut queue);
        let Some(Item::Window(last)) = items.last() else { panic!("the record is last") };
        assert_eq!((last[0].seq, last[0].audit.dropped_snapshots), (999, 999));
        assert_eq!(items[..items.len() - 1], [Item::Command(Told::Last(999))]);
    }

    #[test]
    fn a_command_can_be_taken_past_records() {
        let mut queue = Queue::new(9, usize::MAX);
        queue.push(record(0));
        queue.push_command(Told::Each(1));
        queue.push_command(Told::Last(2));
        assert_eq!(queue.take_command(|c| matches!(c, Told::Last(_))), Some(Told::Last(2)));
        assert_eq!(queue.take_command(|c| matches!(c, Told::Last(_))), None);
        assert_eq!(drain(&mut queue).len(), 2);
    }

    proptest! {
        /// Whatever is pushed and popped: every record is either popped, in order, or counted in
        /// the next one that is; commands that supersede nothing are all there.
        #[test]
        fn every_gap_is_counted(
            steps in prop::collection::vec(0u8..4, 1..200), capacity in 1usize..6,
        ) {
            let mut queue = Queue::new(capacity, usize::MAX);
            let (mut seq, mut next, mut told, mut heard) = (0, 0, 0, 0);
            for step in steps.into_iter().chain([3; 300]) {
                match step {
                    0 | 1 => {
                        queue.push(record(seq));
                        seq += 1;
                    }
                    2 => {
                        queue.push_command(Told::Each(told));
                        told += 1;
                    }
                    _ => match queue.pop() {
                        Some(Item::Window(records)) => {
                            let record = &records[0];
                            prop_assert_eq!(record.seq, next + record.audit.dropped_snapshots);
                            next = record.seq + 1;
                        }
                        Some(Item::Command(command)) => {
                            prop_assert_eq!(command, Told::Each(heard));
                            heard += 1;
                        }
                        None => {}
                    },
                }
                prop_assert!(queue.len() <= capacity);
            }
            prop_assert_eq!((next, heard), (seq, told));
        }
    }
}
