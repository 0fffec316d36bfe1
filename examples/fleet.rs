//! Writes the archives of a made-up fleet, the same for the same seed on every machine:
//! `cargo run --release --example fleet -- DIRECTORY --hosts 100 --days 10`.
//!
//! Most hosts have NVMe disks, some SATA ones; load rises and falls over the day. One host in 16 has
//! a disk that is 16 times as slow for two hours of each day, and one in 25 lost an hour of it.

use std::io;
use std::path::PathBuf;

use blkiolatd::report::synthetic::fleet::Fleet;
use clap::Parser;

/// Write the archives of a made-up fleet.
#[derive(Debug, Parser)]
struct Options {
    /// Where the hosts' directories are made
    directory: PathBuf,
    /// Number of hosts
    #[arg(long, default_value_t = 4)]
    hosts: u64,
    /// Days of each
    #[arg(long, default_value_t = 1)]
    days: u64,
    /// Disks of each
    #[arg(long, default_value_t = 2)]
    disks: u64,
    /// Length of a window, s; it should divide a day
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    window: u64,
    /// Requests per disk and window at the busiest time of the day
    #[arg(long, default_value_t = 200)]
    requests: u64,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> io::Result<()> {
    let Options { directory, hosts, days, disks, window, requests, seed } = Options::parse();
    Fleet { hosts, days, disks, window_s: window, requests, seed }.write(&directory)
}
