//! The archive's writer as a whole: its threads, real disks that are full, stuck, broken or without
//! power, processes that are killed, and long runs.

// The lint's exception for tests does not see that helpers here are only used by tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod disks;
mod killed;
mod power;
mod soak;
mod support;
mod writer;
