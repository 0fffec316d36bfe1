//! How many completions were missed, from two counts that overlap.

/// Completions that the kernel skipped, and those whose records were found left behind. A skipped one is in the first
/// count at once, and in the second only when its record is found; others are in the second alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Misses {
    skipped: u64,
    found: u64,
    /// Of the skipped, those whose records may still be found.
    outstanding: u64,
    total: u64,
}

impl Misses {
    /// All that were missed so far, given the two counts so far. `found` must have been read before `skipped`.
    pub(super) fn update(&mut self, skipped: u64, found: u64) -> u64 {
        let newly_skipped = skipped.saturating_sub(self.skipped);
        let newly_found = found.saturating_sub(self.found);
        (self.skipped, self.found) = (skipped, found);
        self.outstanding += newly_skipped;
        let known = newly_found.min(self.outstanding);
        self.outstanding -= known;
        self.total += newly_skipped + (newly_found - known);
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_completion_is_counted_once_and_at_once() {
        let mut misses = Misses::default();
        assert_eq!(misses.update(3, 0), 3);
        assert_eq!(misses.update(3, 2), 3, "two of the three");
        assert_eq!(misses.update(4, 4), 4, "the third, and one more");
        assert_eq!(misses.update(4, 5), 5, "one that the kernel did not count");
    }

    #[test]
    fn what_was_found_before_hides_nothing() {
        let mut misses = Misses::default();
        assert_eq!(misses.update(0, 2047), 2047);
        assert_eq!(misses.update(3, 2047), 2050);
        assert_eq!(misses.update(3, 2050), 2050);
    }
}
