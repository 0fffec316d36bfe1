//! What a request costs with the daemon, beside its peers. `make bench` runs it as root.
//!
//! `quick` prints the cost per request; `all` measures everything and writes `docs/benchmarks.md`.

mod attached;
mod bracket;
mod load;
mod machine;
mod rounds;
mod statistics;
mod subject;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use load::{Disk, Shape};
use rounds::{Cache, Lengths, Results, net, race, ratio};
use statistics::Spread;
use subject::Stage;

/// Size of the disk under load, in MiB.
const DISK_MIB: usize = 256;

fn main() -> ExitCode {
    match begin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("race: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin() -> Result<()> {
    // cargo adds --bench.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [command, programs, daemon] = words[..] else {
        bail!(
            "usage: race quick|all BPF_OBJECT DAEMON; `make bench` and `make bench-quick` call it so"
        );
    };
    ensure!(rustix::process::geteuid().is_root(), "must be run as root");
    machine::catch_signals()?;
    libbpf_rs::set_print(None);
    for (pid, hooks) in attached::strangers(&[]) {
        eprintln!("warning: process {pid} has programs on the block tracepoints: {hooks:?}");
    }
    let stage = Stage::new(Path::new(programs), PathBuf::from(daemon))?;
    match command {
        "quick" => quick(&stage),
        _ => bail!("{command}: no such race"),
    }
}

fn quick(stage: &Stage) -> Result<()> {
    let disks = [Disk::new(DISK_MIB)?];
    let subjects = [
        subject::NOTHING,
        subject::EMPTY,
        subject::FLOOR,
        subject::BTF,
        subject::TRACEPOINT,
        subject::BIOLATENCY,
        subject::ORIGINAL,
    ];
    let lengths = Lengths {
        rounds: 15,
        hot: Duration::from_millis(250),
        cold: Duration::from_millis(250),
        rate: Duration::ZERO,
    };
    let results = race(stage, &subjects, &disks, Shape::HOT, lengths)?;
    print_costs(&results);
    Ok(())
}

fn print_costs(results: &Results) {
    println!("ns per request, issue + completion, less the empty bracket: median [quartiles]");
    println!(
        "{:<62}{:>20}{:>14}{:>12}{:>9}{:>22}{:>14}",
        "", "hot", "x biolatency", "x original", "x floor", "cold", "x biolatency"
    );
    for result in &results.entries {
        let id = &result.id;
        if let Some(reason) = &result.absent {
            println!("{:<62}does not run here: {reason}", result.name);
            continue;
        }
        let part = |of: &str, cache| {
            ratio(results, id, of, cache).map_or_else(String::new, |s| format!("{:.2}", s.median))
        };
        println!(
            "{:<62}{:>20}{:>14}{:>12}{:>9}{:>22}{:>14}",
            result.name.replace('*', ""),
            show(net(results, id, Cache::Hot)),
            part("biolatency", Cache::Hot),
            part("original", Cache::Hot),
            part("floor", Cache::Hot),
            show(net(results, id, Cache::Cold)),
            part("biolatency", Cache::Cold),
        );
    }
    if results.statistics_were_on {
        println!(
            "The kernel kept statistics of programs meanwhile (kernel.bpf_stats_enabled): all cost more."
        );
    }
}

fn show(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "-".into(), |s| format!("{:.0} [{:.0}-{:.0}]", s.median, s.low, s.high))
}
