//! Files of records: written so that a line is whole or absent, whatever happens.
//!
//! `docs/durability.md` states what is promised and why each step comes where it does. The parts:
//! [`queue`] takes records from sampling without ever waiting, [`writer`] runs the thread that
//! empties it, and the rest are its tools: decisions as pure functions ([`names`], `rotation`,
//! `retention`, `tail`), system calls in `disk`.

mod active;
mod complaint;
mod compress;
mod compressor;
mod disk;
mod error;
#[cfg(test)]
mod faults;
pub mod names;
mod place;
pub mod queue;
pub mod reader;
mod recorder;
mod retention;
mod rotation;
mod settings;
mod status;
mod tail;
#[cfg(test)]
mod tests;
pub mod writer;

pub(crate) use tail::moment as first_moment;

pub use error::{OpenError, WriteError};
pub use settings::Settings;
pub use writer::{Start, Writer, WriterHandle, WriterStatus};
