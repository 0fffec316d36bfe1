//! Why `blkiolat` ends early, and what its options have in common.

use std::io;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Why the program ends early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is nothing to show, or it cannot be shown.
    #[error("{0}")]
    Data(String),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// One matcher of all globs; none when there are none.
pub(crate) fn globs(patterns: &[String]) -> Result<Option<GlobSet>, Failure> {
    let usage = |error: globset::Error| Failure::Usage(error.to_string());
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).build().map_err(usage)?);
    }
    if patterns.is_empty() { Ok(None) } else { set.build().map(Some).map_err(usage) }
}
