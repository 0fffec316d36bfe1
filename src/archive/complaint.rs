//! When a fault that repeats is worth a line in the log.

use std::time::{Duration, Instant};

/// A fault that goes on is logged again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// Remembers what was said about a fault.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    /// Kind of the fault that was logged last, and when.
    logged: Option<(Kind, Instant)>,
    /// Whether the log's last word is that there is a fault.
    open: bool,
}

/// What makes two faults the same: the operation and the error number.
pub(crate) type Kind = (&'static str, i32);

impl Complaint {
    /// A fault: whether to log it. The first of its kind is, then one a minute. One that comes
    /// and goes quickly is not logged each time either.
    pub(crate) fn raise(&mut self, kind: Kind, now: Instant) -> bool {
        let log = self
            .logged
            .is_none_or(|(last, at)| last != kind || now.saturating_duration_since(at) >= AGAIN);
        if log {
            self.logged = Some((kind, now));
            self.open = true;
        }
        log
    }

    /// The fault is over: whether to log that.
    pub(crate) fn resolved(&mut self) -> bool {
        std::mem::take(&mut self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_change_and_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut complaint = Complaint::default();
        assert!(!complaint.resolved());
        assert!(complaint.raise(("write", 28), at(0)));
        assert!(!complaint.raise(("write", 28), at(1)));
        assert!(complaint.raise(("write", 5), at(2)));
        assert!(!complaint.raise(("write", 5), at(61)));
        assert!(complaint.raise(("write", 5), at(62)));
        assert!(complaint.resolved());
        assert!(!complaint.resolved());
        assert!(!complaint.raise(("write", 5), at(65)));
        assert!(!complaint.resolved(), "what was not announced does not end");
    }
}
