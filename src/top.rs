//! `blkiolat tail` and `blkiolat top`: what a running daemon records, as it records it, and the
//! same again from a copy.
//!
//! ```text
//! follow / replay ─► player ─► window (intake) ─► history ─► state ─► view     top
//!                                      └────────────────────────────► lines    tail
//! ```
//!
//! [`window`], [`history`], [`state`], [`view`], [`look`], [`keys`], [`pace`] and [`lines`] are pure;
//! [`follow`] and [`player`] read files, `screen` owns the terminal. `run` wires them.

pub mod cli;
pub mod details;
pub mod follow;
pub mod history;
pub mod keys;
pub mod lines;
pub mod look;
pub mod pace;
pub mod player;
pub mod run;
mod screen;
pub mod state;
mod tail;
pub mod view;
pub mod window;
