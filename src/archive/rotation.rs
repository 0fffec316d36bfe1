//! When the active file is set aside. Pure: times come in as parameters.

use std::time::Duration;

use super::names::Moment;
use crate::config::{Retention, Rotation};

/// The active file, as far as this decision goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// The time of its first record; none when it is empty.
    pub(crate) first: Option<Moment>,
    /// For how long this run has been writing to it, on the monotonic clock.
    pub(crate) held: Duration,
}

/// Whether the file is to be set aside before a batch of `batch` bytes, whose first record is of
/// `next`, is written.
///
/// The size decides first: a file never grows beyond it, unless a single batch is larger. The age
/// is that of the first record on the wall clock, which also counts for a file that an earlier run
/// began, or the time that this run has held the file, whichever is longer: with a clock that was
/// set back the file would otherwise stay open until the clock has caught up.
pub(crate) fn due(candidate: Candidate, batch: u64, next: Moment, limits: &Limits) -> bool {
    let Some(first) = candidate.first else { return false };
    if candidate.size == 0 {
        return false;
    }
    let age = u64::try_from(next.millis().saturating_sub(first.millis())).unwrap_or(0);
    candidate.size.saturating_add(batch) > limits.max_size
        || Duration::from_millis(age).max(candidate.held) >= limits.max_age
}

/// From when on a file is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) max_size: u64,
    /// Age of the first record.
    pub(crate) max_age: Duration,
}

impl Limits {
    /// Rotation's limits. The size is at most a quarter of what retention allows in all, because
    /// only whole files are removed: the active file, the segment being compressed and its archive
    /// must fit together.
    pub(crate) fn new(rotation: &Rotation, retention: &Retention) -> Self {
        Self {
            max_size: rotation.max_size.min(retention.max_total_size / 4).max(1),
            max_age: rotation.max_age,
        }
    }
}

/// The first moment from `first` on for which `taken` is false: names are never used twice, so
/// that nothing is overwritten whatever the clock does.
pub(crate) fn free_name(first: Moment, taken: impl Fn(Moment) -> bool) -> Option<Moment> {
    std::iter::successors(Some(first), |moment| moment.next()).find(|moment| !taken(*moment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const LIMITS: Limits = Limits { max_size: 1000, max_age: Duration::from_secs(3600) };

    fn at(seconds: i64) -> Moment {
        Moment::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    fn file(size: u64, held: u64) -> Candidate {
        Candidate { size, first: Some(at(0)), held: Duration::from_secs(held) }
    }

    #[test]
    fn the_size_is_not_exceeded() {
        assert!(!due(file(900, 0), 100, at(1), &LIMITS));
        assert!(due(file(901, 0), 100, at(1), &LIMITS));
        assert!(due(file(u64::MAX, 0), 100, at(1), &LIMITS));
    }

    #[test]
    fn an_empty_file_is_never_due() {
        let empty = Candidate { size: 0, first: None, held: Duration::from_secs(1 << 30) };
        assert!(!due(empty, 5000, at(1 << 30), &LIMITS));
    }

    #[test]
    fn age_is_that_of_the_first_record() {
        assert!(!due(file(10, 0), 10, at(3599), &LIMITS));
        assert!(due(file(10, 0), 10, at(3600), &LIMITS));
    }

    #[test]
    fn a_clock_set_back_does_not_keep_the_file_open() {
        assert!(!due(file(10, 3599), 10, at(-7200), &LIMITS));
        assert!(due(file(10, 3600), 10, at(-7200), &LIMITS));
    }

    #[test]
    fn the_limit_leaves_room_for_compression() {
        let rotation = Rotation { max_size: 1000, ..Rotation::default() };
        let retention = Retention { max_total_size: 2000, ..Retention::default() };
        assert_eq!(Limits::new(&rotation, &retention).max_size, 500);
    }

    #[test]
    fn names_step_aside() {
        let taken: BTreeSet<Moment> = [at(0), Moment::from_millis(at(0).millis() + 1)].into();
        let free = free_name(at(0), |moment| taken.contains(&moment));
        assert_eq!(free.map(Moment::millis), Some(at(0).millis() + 2));
        assert_eq!(free_name(at(0), |_| false), Some(at(0)));
    }
}
