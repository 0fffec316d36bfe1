//! The daemon on real disks, against witnesses that know nothing of it: the kernel's own counts in
//! sysfs, the kernel's trace, and fio.
//!
//! The disks are loop devices over files in `/dev/shm`, private to each test. Root is needed; a
//! machine where a test cannot run skips it and says what it needs, but where `CI` is set it fails.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod audit;
mod bio;
mod counts;
mod daemon;
mod devices;
mod errors;
mod fio;
mod fixture;
mod inflight;
mod memory;
mod probes;
mod stale;
mod terminal;
mod trace;
