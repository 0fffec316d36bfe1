//! What is removed, and when recording pauses. Pure: files, space and time come in as parameters.

use std::time::{Duration, Instant};

use super::disk::Space;
use super::names::{Kind, Moment};
use crate::config::{FreeSpace, Retention};

/// A segment or an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stored {
    /// The moment in its name.
    pub(crate) first: Moment,
    /// What it is; never [`Kind::Partial`].
    pub(crate) kind: Kind,
    /// Bytes.
    pub(crate) size: u64,
}

/// What stays within which bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) max_age: Duration,
    pub(crate) max_total_size: u64,
    pub(crate) min_free_space: FreeSpace,
    /// Whether segments are compressed, which takes room while both are there.
    pub(crate) compress: bool,
}

impl Limits {
    pub(crate) fn new(retention: &Retention, gzip_level: u32) -> Self {
        Self {
            max_age: retention.max_age,
            max_total_size: retention.max_total_size,
            min_free_space: retention.min_free_space,
            compress: gzip_level > 0,
        }
    }

    /// Bytes that stay free on a file system of this size.
    pub(crate) fn floor(&self, space: Space) -> u64 {
        match self.min_free_space {
            FreeSpace::Bytes(bytes) => bytes,
            // The cast saturates, and takes NaN to 0.
            FreeSpace::Percent(percent) => (space.total as f64 * (percent / 100.0)) as u64,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// So many of the oldest files are to be removed.
    pub(crate) remove: usize,
    /// Even then there is no room: nothing may be written.
    pub(crate) pause: bool,
}

/// Bytes that compressing a segment of `size` bytes may take while the segment is still there.
/// Lines of JSON shrink to a tenth; compression that does worse than this is given up.
pub(crate) fn reserve(size: u64) -> u64 {
    size / 2 + (64 << 10)
}

/// Decides before `growth` bytes are appended to the active file of `active` bytes. `files` are in
/// order, oldest first; `now` is the time that their age is measured against.
pub(crate) fn plan(
    files: &[Stored],
    active: u64,
    growth: u64,
    space: Space,
    now: Moment,
    limits: &Limits,
) -> Plan {
    let floor = limits.floor(space);
    let needed = floor.saturating_add(growth);
    let active = active.saturating_add(growth);
    let mut total = files.iter().fold(active, |sum, file| sum.saturating_add(file.size));
    let mut free = space.free;
    // Removal is in order, so what is left is always the end of `files`: the room that
    // compressing its largest segment takes.
    let mut reserves = vec![0; files.len() + 1];
    for (index, file) in files.iter().enumerate().rev() {
        let own = match file.kind {
            Kind::Segment if limits.compress => reserve(file.size),
            _ => 0,
        };
        reserves[index] = own.max(reserves[index + 1]);
    }
    let mut remove = 0;
    for (file, reserve) in files.iter().zip(&reserves) {
        let old = age(file.first, now) > limits.max_age;
        let large = total.saturating_add(*reserve) > limits.max_total_size;
        let tight = free < needed.saturating_add(*reserve);
        if !(old || large || tight) {
            break;
        }
        remove += 1;
        total = total.saturating_sub(file.size);
        free = free.saturating_add(file.size);
    }
    // Without a floor the kernel says best when a file system is full: a line may still fit into
    // the last block.
    Plan { remove, pause: floor > 0 && free < needed }
}

fn age(first: Moment, now: Moment) -> Duration {
    let millis = now.millis().saturating_sub(first.millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A clock that leaps forward is believed after this time.
const BELIEVED_AFTER: Duration = Duration::from_secs(3600);
/// A leap of less than this is none.
const TOLERANCE: Duration = Duration::from_secs(60);

/// The time that ages are measured against: the wall clock, except right after it leapt forward.
/// A clock that is months ahead for some minutes would otherwise have every archive removed for
/// its age.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calendar {
    trusted: Option<(Moment, Instant)>,
    doubted_since: Option<Instant>,
}

impl Calendar {
    /// The time to measure against when the clocks show `wall` and `monotonic`.
    pub(crate) fn now(&mut self, wall: Moment, monotonic: Instant) -> Moment {
        if let Some((moment, at)) = self.trusted {
            let expected = later(moment, monotonic.saturating_duration_since(at));
            if wall > later(expected, TOLERANCE) {
                let since = *self.doubted_since.get_or_insert(monotonic);
                if monotonic.saturating_duration_since(since) < BELIEVED_AFTER {
                    return expected;
                }
            }
        }
        self.doubted_since = None;
        self.trusted = Some((wall, monotonic));
        wall
    }
}

fn later(moment: Moment, by: Duration) -> Moment {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Moment::from_millis(moment.millis().saturating_add(by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOMY: Space = Space { free: 1 << 40, total: 1 << 41 };
    const LIMITS: Limits = Limits {
        max_age: Duration::from_secs(1000),
        max_total_size: 10_000,
        min_free_space: FreeSpace::Bytes(100),
        compress: false,
    };

    fn at(seconds: i64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    fn archives(sizes: &[u64]) -> Vec<Stored> {
        let kind = Kind::Archive;
        (0..).zip(sizes).map(|(i, size)| Stored { first: at(i * 10), kind, size: *size }).collect()
    }

    #[test]
    fn nothing_is_removed_without_a_reason() {
        let files = archives(&[1000, 1000]);
        let expected = Plan { remove: 0, pause: false };
        assert_eq!(plan(&files, 500, 10, ROOMY, at(20), &LIMITS), expected);
        assert_eq!(plan(&[], 50_000, 10, ROOMY, at(20), &LIMITS), expected);
    }

    #[test]
    fn old_ones_go() {
        let files = archives(&[1, 1, 1]);
        assert_eq!(plan(&files, 0, 0, ROOMY, at(1000), &LIMITS).remove, 0);
        assert_eq!(plan(&files, 0, 0, ROOMY, at(1001), &LIMITS).remove, 1);
        assert_eq!(plan(&files, 0, 0, ROOMY, at(1011), &LIMITS).remove, 2);
        assert_eq!(plan(&files, 0, 0, ROOMY, at(-5000), &LIMITS).remove, 0, "clock set back");
    }

    #[test]
    fn the_total_counts_the_active_file_and_what_it_will_grow_by() {
        let files = archives(&[3000, 3000, 3000]);
        assert_eq!(plan(&files, 1000, 0, ROOMY, at(0), &LIMITS).remove, 0);
        assert_eq!(plan(&files, 1000, 1, ROOMY, at(0), &LIMITS).remove, 1);
        assert_eq!(plan(&files, 6000, 0, ROOMY, at(0), &LIMITS).remove, 2);
    }

    #[test]
    fn compression_has_its_room_reserved() {
        let mut files = archives(&[30_000, 30_000, 30_000]);
        files[2].kind = Kind::Segment;
        let limits = Limits { max_total_size: 180_000, compress: true, ..LIMITS };
        // 90,000 and 15,000 + 65,536 for the archive.
        assert_eq!(plan(&files, 9464, 0, ROOMY, at(0), &limits).remove, 0);
        assert_eq!(plan(&files, 9465, 0, ROOMY, at(0), &limits).remove, 1);
        let raw = Limits { compress: false, ..limits };
        assert_eq!(plan(&files, 9465, 0, ROOMY, at(0), &raw).remove, 0);
    }

    #[test]
    fn space_is_made_and_then_recording_pauses() {
        let files = archives(&[50, 50]);
        let free = |free| Space { free, total: 1000 };
        let decide = |space| plan(&files, 0, 10, space, at(0), &LIMITS);
        assert_eq!(decide(free(110)), Plan { remove: 0, pause: false });
        assert_eq!(decide(free(109)), Plan { remove: 1, pause: false });
        assert_eq!(decide(free(59)), Plan { remove: 2, pause: false });
        assert_eq!(decide(free(10)), Plan { remove: 2, pause: false });
        assert_eq!(decide(free(9)), Plan { remove: 2, pause: true });
    }

    #[test]
    fn a_share_of_the_file_system() {
        let limits = Limits { min_free_space: FreeSpace::Percent(5.0), ..LIMITS };
        assert_eq!(limits.floor(Space { free: 0, total: 1000 }), 50);
        let none = Limits { min_free_space: FreeSpace::Percent(0.0), ..LIMITS };
        assert_eq!(none.floor(Space { free: 0, total: u64::MAX }), 0);
    }

    #[test]
    fn a_leap_of_the_clock_is_not_believed_at_once() {
        let start = Instant::now();
        let mut calendar = Calendar::default();
        let mut now = |wall, seconds| {
            calendar.now(at(wall), start + Duration::from_secs(seconds)).millis() / 1000
        };
        assert_eq!(now(1000, 0), 1000);
        assert_eq!(now(1050, 5), 1050, "a small step");
        assert_eq!(now(99_000, 10), 1055, "months ahead");
        assert_eq!(now(99_005, 15), 1060);
        assert_eq!(now(1065, 20), 1065, "put right");
        assert_eq!(now(500, 25), 500, "set back");
        assert_eq!(now(99_000, 30), 505);
        assert_eq!(now(102_599, 3629), 4104);
        assert_eq!(now(102_600, 3630), 102_600, "it means it");
    }

    proptest! {
        /// The smallest number of the oldest files that makes the limits hold.
        #[test]
        fn no_more_than_needed(
            sizes in prop::collection::vec((0u64..5000, prop::bool::ANY), 0..20),
            active in 0u64..5000, growth in 0u64..500, free in 0u64..20_000,
            now in 0i64..1500, compress in prop::bool::ANY, max_total_size in 0u64..200_000,
        ) {
            let files: Vec<Stored> = (0..).zip(&sizes).map(|(i, (size, raw))| Stored {
                first: at(i * 10),
                kind: if *raw { Kind::Segment } else { Kind::Archive },
                size: *size,
            }).collect();
            let limits = Limits { compress, max_total_size, ..LIMITS };
            let space = Space { free, total: 30_000 };
            let holds = |from: usize| {
                let left = &files[from..];
                let spare = left.iter().filter(|f| compress && f.kind == Kind::Segment)
                    .map(|f| reserve(f.size)).max().unwrap_or(0);
                let gone: u64 = files[..from].iter().map(|f| f.size).sum();
                left.iter().all(|f| now * 1000 - f.first.millis() <= 1_000_000)
                    && left.iter().map(|f| f.size).sum::<u64>() + active + growth + spare
                        <= max_total_size
                    && free + gone >= 100 + growth + spare
            };
            let plan = plan(&files, active, growth, space, at(now), &limits);
            let expected = (0..files.len()).find(|from| holds(*from)).unwrap_or(files.len());
            prop_assert_eq!(plan.remove, expected);
        }
    }
}
