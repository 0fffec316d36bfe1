//! Which windows have been read: so that none is counted twice, and none that is missing goes
//! unnoticed.
//!
//! The same window can be met twice: after a crash between compression and removal a segment and
//! its archive are both there, and people copy files. A window is known by host, boot, `seq` and
//! time: `seq` alone begins at 0 again whenever the daemon starts. To keep a set of all windows
//! would cost memory that grows with the archives, so runs of consecutive windows are kept as
//! [`Piece`]s, which predict the time of each of their windows to a quarter of its length.
//!
//! Each layer has a line per window of its own, numbered by itself.

use std::collections::{BTreeMap, HashMap};

use super::view::{Layer, RecordView};

/// Most windows in one piece: bounds the drift within it, and the search for it.
const PIECE_WINDOWS: u64 = 4096;

/// Who records: a host, and where in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Host name.
    pub host: String,
    /// Where the requests were measured.
    pub layer: Layer,
}

/// What has been read of all hosts.
#[derive(Debug, Default)]
pub struct Seen {
    hosts: HashMap<String, [HashMap<String, Boot>; Layer::ALL.len()]>,
    /// Windows that were met again.
    pub duplicates: u64,
}

#[derive(Debug, Default)]
struct Boot {
    /// By time of the first window, then its number.
    pieces: BTreeMap<(i64, u64), Piece>,
    /// Where the last window was found or put: the next one most likely follows it.
    recent: Option<(i64, u64)>,
    longest_us: i64,
    longest_step_us: i64,
}

/// Consecutive windows `first_seq..=last_seq`, each within a quarter of `step_us` of
/// `first_us + (seq - first_seq) * step_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    first_seq: u64,
    last_seq: u64,
    first_us: i64,
    last_us: i64,
    step_us: i64,
}

/// Windows of one host that should be there and are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// End of the last window before the gap, µs since the Unix epoch.
    pub after_us: i64,
    /// Begin of the first window after the gap.
    pub until_us: i64,
    /// Numbers that are missing.
    pub windows: u64,
}

/// How completely one layer of one host is covered by what was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Begin of the first window, µs since the Unix epoch.
    pub first_us: i64,
    /// End of the last window.
    pub last_us: i64,
    /// Different windows.
    pub windows: u64,
    /// Runs of the daemon: `seq` began again, or the host did.
    pub runs: u64,
    /// Gaps in `seq`, in order of time.
    pub gaps: Vec<Gap>,
    /// Pieces that overlap another in time: two daemons recorded the host at once, or the wall
    /// clock was set back.
    pub overlaps: u64,
}

impl Piece {
    fn predicts(&self, seq: u64, end_us: i64) -> bool {
        let Ok(steps) = i64::try_from(seq - self.first_seq) else { return false };
        let predicted = self.step_us.saturating_mul(steps).saturating_add(self.first_us);
        end_us.abs_diff(predicted) <= self.step_us.unsigned_abs() / 4
    }

    fn has(&self, seq: u64, end_us: i64) -> bool {
        (self.first_seq..=self.last_seq).contains(&seq) && self.predicts(seq, end_us)
    }

    fn continues_with(&self, seq: u64, end_us: i64) -> bool {
        self.last_seq.checked_add(1) == Some(seq)
            && seq - self.first_seq < PIECE_WINDOWS
            && self.predicts(seq, end_us)
    }
}

impl Boot {
    /// Keys of the pieces that can have anything to do with a window that ends at `end_us`.
    fn near(&self, end_us: i64) -> impl Iterator<Item = (&(i64, u64), &Piece)> {
        let slack = self.longest_step_us.saturating_mul(2);
        let from = end_us.saturating_sub(self.longest_us).saturating_sub(slack);
        self.pieces.range((from, 0)..=(end_us.saturating_add(slack), u64::MAX))
    }

    fn insert(&mut self, seq: u64, end_us: i64, length_us: i64) -> bool {
        let recent = self.recent.and_then(|key| Some((key, *self.pieces.get(&key)?)));
        if let Some((_, piece)) = recent
            && piece.has(seq, end_us)
        {
            return false;
        }
        let known =
            self.near(end_us).find(|(_, piece)| piece.has(seq, end_us)).map(|(&key, _)| key);
        if known.is_some() {
            self.recent = known;
            return false;
        }
        let follows = |piece: &Piece| piece.continues_with(seq, end_us);
        let key = match recent {
            Some((key, piece)) if follows(&piece) => Some(key),
            _ => self.near(end_us).find(|(_, piece)| follows(piece)).map(|(&key, _)| key),
        };
        if let Some(piece) = key.and_then(|key| self.pieces.get_mut(&key)) {
            piece.last_seq = seq;
            piece.last_us = end_us;
            self.longest_us = self.longest_us.max(end_us.saturating_sub(piece.first_us));
            self.recent = key;
        } else {
            let step_us = length_us.max(1);
            let piece =
                Piece { first_seq: seq, last_seq: seq, first_us: end_us, last_us: end_us, step_us };
            self.pieces.insert((end_us, seq), piece);
            self.longest_step_us = self.longest_step_us.max(step_us);
            self.recent = Some((end_us, seq));
        }
        true
    }
}

impl Seen {
    /// Notes the window of `record`. False when it has been seen before, and must not be counted
    /// again.
    pub fn insert(&mut self, record: &RecordView<'_>) -> bool {
        let RecordView { host, boot_id, layer, seq, .. } = record;
        self.note((host, *layer, boot_id), *seq, record.end_us(), record.length_us())
    }

    /// Notes window `seq` of a host, layer and boot, which ends at `end_us` and is `length_us`
    /// long.
    pub fn note(
        &mut self,
        (host, layer, boot_id): (&str, Layer, &str),
        seq: u64,
        end_us: i64,
        length_us: u64,
    ) -> bool {
        if !self.hosts.contains_key(host) {
            self.hosts.insert(host.to_owned(), Default::default());
        }
        let Some(layers) = self.hosts.get_mut(host) else { return true };
        let boots = &mut layers[layer as usize];
        if !boots.contains_key(boot_id) {
            boots.insert(boot_id.to_owned(), Boot::default());
        }
        let Some(boot) = boots.get_mut(boot_id) else { return true };
        let length_us = i64::try_from(length_us).unwrap_or(i64::MAX);
        let new = boot.insert(seq, end_us, length_us);
        self.duplicates += u64::from(!new);
        new
    }

    /// The coverage of everything that was seen. It does not depend on the order in which the
    /// windows came.
    #[must_use]
    pub fn coverage(&self) -> BTreeMap<Source, Coverage> {
        let mut all = BTreeMap::new();
        for (host, layers) in &self.hosts {
            for (layer, boots) in Layer::ALL.into_iter().zip(layers) {
                if !boots.is_empty() {
                    all.insert(Source { host: host.clone(), layer }, coverage(boots));
                }
            }
        }
        all
    }
}

fn coverage(boots: &HashMap<String, Boot>) -> Coverage {
    let mut pieces: Vec<(&str, Piece)> = boots
        .iter()
        .flat_map(|(id, boot)| boot.pieces.values().map(|&piece| (id.as_str(), piece)))
        .collect();
    pieces.sort_unstable_by_key(|&(id, piece)| (piece.first_us, piece.first_seq, id));
    let mut coverage = Coverage { first_us: i64::MAX, last_us: i64::MIN, ..Default::default() };
    let mut previous: Option<(&str, Piece)> = None;
    for (id, piece) in pieces {
        let begin_us = piece.first_us.saturating_sub(piece.step_us);
        coverage.windows += piece.last_seq - piece.first_seq + 1;
        coverage.first_us = coverage.first_us.min(begin_us);
        if let Some((previous_id, before)) = previous {
            let same_run = previous_id == id && piece.first_seq > before.last_seq;
            coverage.runs += u64::from(!same_run);
            // Whoever starts at 0 has lost nothing before.
            let expected = if same_run { before.last_seq + 1 } else { 0 };
            if piece.first_seq > expected {
                coverage.gaps.push(Gap {
                    after_us: before.last_us,
                    until_us: begin_us,
                    windows: piece.first_seq - expected,
                });
            }
            let slack = piece.step_us / 2;
            if begin_us.saturating_add(slack) < coverage.last_us {
                coverage.overlaps += 1;
            }
        } else {
            coverage.runs = 1;
        }
        coverage.last_us = coverage.last_us.max(piece.last_us);
        previous = Some((id, piece));
    }
    coverage
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const STEP: i64 = 5_000_000;
    const KEY: (&str, Layer, &str) = ("h", Layer::Request, "b");

    fn window(seq: u64) -> (u64, i64) {
        (seq, 1_000_000_000_000 + seq as i64 * STEP)
    }

    fn insert(seen: &mut Seen, (seq, end_us): (u64, i64)) -> bool {
        seen.note(KEY, seq, end_us, STEP as u64)
    }

    fn of_host(seen: &Seen) -> Coverage {
        seen.coverage()[&Source { host: "h".into(), layer: Layer::Request }].clone()
    }

    #[test]
    fn a_window_counts_once_in_whatever_order() {
        let mut seen = Seen::default();
        for seq in (0..1000).chain(2000..3000) {
            assert!(insert(&mut seen, window(seq)), "{seq}");
        }
        for seq in (500..1000).chain(0..500).chain(2000..3000) {
            assert!(!insert(&mut seen, window(seq)), "{seq}");
        }
        assert!(insert(&mut seen, window(1000)));
        assert_eq!(seen.duplicates, 2000);
        let coverage = &of_host(&seen);
        assert_eq!(coverage.windows, 2001);
        assert_eq!(coverage.runs, 1);
        assert_eq!(coverage.overlaps, 0);
        let gap = Gap { after_us: window(1000).1, until_us: window(1999).1, windows: 999 };
        assert_eq!(coverage.gaps, [gap]);
    }

    #[test]
    fn two_readers_in_turn_count_each_window_once() {
        let mut seen = Seen::default();
        let mut new = 0;
        for seq in 0..5000u64 {
            new += u64::from(insert(&mut seen, window(seq)));
            new += u64::from(insert(&mut seen, window(seq.saturating_sub(3))));
        }
        assert_eq!((new, seen.duplicates), (5000, 5000));
    }

    #[test]
    fn a_restart_begins_at_0_and_is_no_duplicate() {
        let mut seen = Seen::default();
        for seq in 0..100 {
            assert!(insert(&mut seen, window(seq)));
        }
        let later = |seq| (seq, window(200 + seq).1);
        for seq in 0..100 {
            assert!(insert(&mut seen, later(seq)));
        }
        assert!(seen.note(("h", Layer::Request, "other boot"), 0, window(400).1, STEP as u64));
        assert!(seen.note(("other host", Layer::Request, "b"), 0, window(0).1, STEP as u64));
        let coverage = &of_host(&seen);
        assert_eq!((coverage.runs, coverage.windows), (3, 201));
        assert_eq!(coverage.gaps, []);
    }

    #[test]
    fn windows_lost_at_the_begin_of_a_run_are_missing() {
        let mut seen = Seen::default();
        insert(&mut seen, window(7));
        let (seq, end_us) = (3, window(20).1);
        insert(&mut seen, (seq, end_us));
        let coverage = &of_host(&seen);
        assert_eq!(coverage.gaps.len(), 1);
        assert_eq!(coverage.gaps[0].windows, 3);
    }

    #[test]
    fn late_ticks_short_windows_and_a_new_interval() {
        let mut seen = Seen::default();
        let mut end_us = 0;
        let lengths = (0..3000).map(|i| match i % 50 {
            0 => 17_000_000,
            1 => 40,
            _ if i > 2000 => 100_000,
            _ => STEP + i % 1000,
        });
        let windows: Vec<_> = lengths
            .enumerate()
            .map(|(seq, length)| {
                end_us += length;
                (seq as u64, end_us, length as u64)
            })
            .collect();
        for &(seq, end_us, length) in &windows {
            assert!(seen.note(KEY, seq, end_us, length), "{seq}");
        }
        for &(seq, end_us, length) in windows.iter().rev() {
            assert!(!seen.note(KEY, seq, end_us, length), "{seq}");
        }
        let coverage = &of_host(&seen);
        assert_eq!((coverage.windows, coverage.gaps.len(), coverage.overlaps), (3000, 0, 0));
        assert!(seen.hosts["h"][0]["b"].pieces.len() < 400);
    }

    #[test]
    fn a_month_takes_few_pieces() {
        let mut seen = Seen::default();
        for seq in 0..518_400 {
            insert(&mut seen, window(seq));
        }
        assert!(seen.hosts["h"][0]["b"].pieces.len() <= 518_400 / PIECE_WINDOWS as usize + 1);
    }

    #[test]
    fn each_layer_is_numbered_by_itself() {
        let mut seen = Seen::default();
        for seq in 0..100 {
            assert!(insert(&mut seen, window(seq)));
            if !(20..30).contains(&seq) {
                assert!(seen.note(("h", Layer::Bio, "b"), seq, window(seq).1, STEP as u64));
            }
        }
        let coverage = seen.coverage();
        let gaps = |layer| {
            let coverage = &coverage[&Source { host: "h".into(), layer }];
            (coverage.windows, coverage.gaps.len(), coverage.overlaps)
        };
        assert_eq!(gaps(Layer::Request), (100, 0, 0));
        assert_eq!(gaps(Layer::Bio), (90, 1, 0));
    }

    #[test]
    fn two_daemons_at_once_are_noticed() {
        let mut seen = Seen::default();
        for seq in 0..100 {
            insert(&mut seen, window(seq));
            assert!(insert(&mut seen, (seq + 1000, window(seq).1)));
        }
        assert!(of_host(&seen).overlaps > 0);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let mut seen = Seen::default();
        assert!(seen.note(KEY, u64::MAX, i64::MAX, u64::MAX));
        assert!(seen.note(KEY, 0, 0, 0));
        assert!(!seen.note(KEY, 0, 0, 0));
        assert!(seen.note(KEY, u64::MAX - 1, i64::MAX, u64::MAX));
        assert_eq!(of_host(&seen).windows, 3);
    }

    proptest! {
        /// Compared with a plain set, for windows in any order, with repeats.
        #[test]
        fn agrees_with_a_set(seqs in prop::collection::vec(0u64..600, 1..800), jitter in 0i64..1_000_000) {
            let mut seen = Seen::default();
            let mut set = HashSet::new();
            for seq in seqs {
                let (seq, end_us) = window(seq);
                let end_us = end_us + (seq as i64 * 7919) % (jitter + 1);
                prop_assert_eq!(seen.note(KEY, seq, end_us, STEP as u64), set.insert(seq));
            }
            let last = set.iter().max().unwrap() - set.iter().min().unwrap() + 1;
            let coverage = &of_host(&seen);
            prop_assert_eq!(coverage.windows, set.len() as u64);
            let missing: u64 = coverage.gaps.iter().map(|gap| gap.windows).sum();
            prop_assert_eq!(missing, last - set.len() as u64);
        }
    }
}
