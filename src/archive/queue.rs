//! The bounded queue between sampling and writing.
//!
//! Sampling must never wait for a disk, so [`Queue::push`] takes a place at once: when the queue
//! is full, its oldest record is dropped. How many were dropped is kept at the place where they
//! would have been, so that the next record that is written says exactly how many are missing
//! right before it, also when that record's predecessor carried a count and was dropped in turn.
//!
//! Commands (a new configuration, "rotate now") travel in the same queue and are never dropped:
//! they take effect between the records they were given between.

use std::collections::VecDeque;

use crate::record::Record;

/// Most records that wait. At the default window of 5 s that is an hour of a disk that does not
/// answer.
pub const MAX_RECORDS: usize = 720;

/// Most bytes (as estimated by [`encoded_size`]) that wait. A host with hundreds of busy disks has
/// records of tens of kilobytes; this keeps the daemon small there, at the price of a shorter wait.
pub const MAX_BYTES: usize = 8 << 20;

/// What the consumer takes from the queue.
#[derive(Debug, PartialEq)]
pub enum Item<C> {
    /// A record, with `audit.dropped_snapshots` set to the number of records dropped right
    /// before it.
    Record(Box<Record>),
    /// A command.
    Command(C),
}

/// Records and commands in order, bounded in number and in bytes. No locks: the owner brings one.
#[derive(Debug)]
pub struct Queue<C> {
    entries: VecDeque<Entry<C>>,
    max_records: usize,
    max_bytes: usize,
    records: usize,
    bytes: usize,
    dropped: u64,
}

#[derive(Debug)]
enum Entry<C> {
    Record {
        record: Box<Record>,
        bytes: usize,
        /// Records that were dropped between this one and its predecessor.
        dropped_before: u64,
    },
    Command(C),
}

/// Commands of which only the last matters when no record lies between two of them.
pub trait Command {
    /// Whether `self` makes `earlier`, given right before it, superfluous.
    fn supersedes(&self, earlier: &Self) -> bool;
}

impl<C: Command> Queue<C> {
    /// An empty queue for at most `max_records` (at least 1) and about `max_bytes`.
    pub fn new(max_records: usize, max_bytes: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            max_records: max_records.max(1),
            max_bytes,
            records: 0,
            bytes: 0,
            dropped: 0,
        }
    }

    /// Appends a record; drops the oldest ones while that is needed to stay within bounds. The
    /// newest record is always kept, whatever its size.
    pub fn push(&mut self, record: Box<Record>) {
        let bytes = encoded_size(&record);
        // A record may come in with a count of its own, from a queue before this one.
        let dropped_before = record.audit.dropped_snapshots;
        self.records += 1;
        self.bytes += bytes;
        self.entries.push_back(Entry::Record { record, bytes, dropped_before });
        while self.records > 1 && (self.records > self.max_records || self.bytes > self.max_bytes) {
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
            Entry::Record { mut record, bytes, dropped_before } => {
                self.records -= 1;
                self.bytes -= bytes;
                record.audit.dropped_snapshots = dropped_before;
                Some(Item::Record(record))
            }
        }
    }

    /// Takes the first command that `wanted` accepts, past the records before it. For a writer
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

    /// Records that wait.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether neither a record nor a command waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Estimated bytes of the records that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records dropped since the queue was made.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_oldest(&mut self) {
        let Some(index) =
            self.entries.iter().position(|entry| matches!(entry, Entry::Record { .. }))
        else {
            return;
        };
        let Some(Entry::Record { bytes, dropped_before, .. }) = self.entries.remove(index) else {
            return;
        };
        self.records -= 1;
        self.bytes -= bytes;
        self.dropped += 1;
        for entry in self.entries.iter_mut().skip(index) {
            if let Entry::Record { dropped_before: next, .. } = entry {
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

    fn record(seq: u64) -> Box<Record> {
        Box::new(Record { seq, ..Record::default() })
    }

    fn drain(queue: &mut Queue<Told>) -> Vec<Item<Told>> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_the_next_one_says_so() {
        let mut queue = Queue::<Told>::new(2, usize::MAX);
        (0..5).for_each(|seq| queue.push(record(seq)));
        assert_eq!(queue.dropped(), 3);
        let Some(Item::Record(first)) = queue.pop() else { panic!("no record") };
        assert_eq!((first.seq, first.audit.dropped_snapshots), (3, 3));
        let Some(Item::Record(second)) = queue.pop() else { panic!("no record") };
        assert_eq!((second.seq, second.audit.dropped_snapshots), (4, 0));
        assert!(queue.is_empty());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn bytes_are_bounded_too_but_the_newest_record_stays() {
        let one = encoded_size(&record(0));
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
        let Some(Item::Record(last)) = items.last() else { panic!("the record is last") };
        assert_eq!((last.seq, last.audit.dropped_snapshots), (999, 999));
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
                        Some(Item::Record(record)) => {
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
