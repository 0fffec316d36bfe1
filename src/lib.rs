//! Block I/O latency of every disk, measured in the kernel and recorded for good.
//!
//! Data flows one way: `probe → snapshot → record → archive`, and later
//! `archive → record → report`. Only [`daemon`] wires the first chain together; `report` never
//! touches `probe`, and `probe` knows nothing of files. `ARCHITECTURE.md` has the picture.

pub mod archive;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod device;
pub mod doctor;
mod heap;
pub mod histogram;
pub mod logging;
pub mod permission;
pub mod probe;
pub mod record;
pub mod report;
pub mod snapshot;
pub mod terminal;
pub mod top;
