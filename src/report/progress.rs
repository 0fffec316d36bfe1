//! A bar on standard error while much is read.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::archive::reader::Watch;

/// Work that takes less shows no bar, bytes.
const WORTH_A_BAR: u64 = 8 << 20;
/// How often the bar is drawn, times a second.
const FRAMES: u8 = 10;

/// A bar that appears once it is known that there is much to read, and goes when it is dropped.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// The bar, when standard error is a terminal and is not meant for anything else.
    #[must_use]
    pub fn of_terminal() -> Option<Arc<Self>> {
        std::io::stderr().is_terminal().then(|| Arc::new(Self::hidden()))
    }

    fn hidden() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        const TEMPLATE: &str =
            "reading {wide_bar} {percent:>3}% of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Self { bar }
    }
}

impl Watch for Progress {
    fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
        if self.bar.is_hidden() && self.bar.length().is_some_and(|length| length > WORTH_A_BAR) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES));
            self.bar.enable_steady_tick(Duration::from_millis(500));
        }
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_read() {
        let progress = Progress::hidden();
        progress.expect(100);
        progress.advance(60);
        assert_eq!((progress.bar.length(), progress.bar.position()), (Some(100), 60));
        progress.expect(100);
        assert_eq!(progress.bar.length(), Some(200));
        progress.end();
        assert!(progress.bar.is_finished());
    }
}
