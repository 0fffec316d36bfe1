//! What a request costs with the daemon, beside its peers. `make bench` runs it as root.
//!
//! Each stage leaves its results in `target/bench`; `report` makes `docs/benchmarks.md` of all.

mod attached;
mod bars;
mod binary;
mod bracket;
mod daemon;
mod load;
mod machine;
mod plot;
mod report;
mod results;
mod rounds;
mod scaling;
mod statistics;
mod subject;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use load::{Disk, Shape};
use results::Store;
use rounds::{Cache, Lengths, Results, net, race, ratio};
use statistics::Spread;
use subject::{Stage, Subject};

/// Size of the disk under load, in MiB.
const DISK_MIB: usize = 256;
/// Rounds of a comparison; each of the many points of the scaling plots gets a fifth.
const ROUNDS: usize = 15;

fn main() -> ExitCode {
    match begin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("race: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `ROUNDS` of the environment, for trying the race itself out, or what figures need.
fn rounds() -> Result<usize> {
    match std::env::var("ROUNDS") {
        Ok(text) => text.parse().with_context(|| format!("ROUNDS={text}: expected a number")),
        Err(_) => Ok(ROUNDS),
    }
}

fn begin() -> Result<()> {
    // cargo adds --bench.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [command, programs, daemon, ref others @ ..] = words[..] else {
        bail!(
            "usage: race quick|request|scaling|daemon|binaries|report BPF_OBJECT DAEMON [OTHER-DAEMON...]; \
             `make bench` and `make bench-quick` call it so"
        );
    };
    let (programs, daemon) = (Path::new(programs), PathBuf::from(daemon));
    let store = Store(programs.parent().context("BPF_OBJECT needs a directory")?.to_owned());
    match command {
        "binaries" => return store.save("binaries", &binary::examine(&daemon)?),
        "report" => {
            let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
            return report::write(&store.load_all()?, &docs);
        }
        _ => {}
    }
    ensure!(rustix::process::geteuid().is_root(), "must be run as root");
    machine::catch_signals()?;
    libbpf_rs::set_print(None);
    for (pid, hooks) in attached::strangers(&[]) {
        eprintln!("warning: process {pid} has programs on the block tracepoints: {hooks:?}");
    }
    let stage = Stage::new(programs, daemon)?;
    match command {
        "quick" => quick(&stage, others),
        "request" => {
            let results = request(&stage)?;
            print_costs(&results);
            store.save("race", &results)
        }
        "scaling" => store.save("scaling", &scaling::measure(&stage, rounds()?.div_ceil(5))?),
        "daemon" => store.save("daemon", &daemon::measure(&stage)?),
        _ => bail!("{command}: no such stage"),
    }
}

/// Everybody, on every count.
fn request(stage: &Stage) -> Result<Results> {
    let subjects = [
        subject::NOTHING,
        subject::EMPTY,
        subject::FLOOR,
        subject::BTF,
        subject::TRACEPOINT,
        subject::BIOLATENCY,
        subject::BIOLATENCY_FLAGS,
        subject::BCC,
        subject::BPFTRACE,
        subject::EMPTY_CLASSIC,
        subject::ORIGINAL,
    ];
    let lengths = Lengths {
        rounds: rounds()?,
        hot: Duration::from_millis(300),
        cold: Duration::from_millis(400),
        rate: Duration::from_millis(500),
    };
    race(stage, &subjects, &[Disk::new(DISK_MIB)?], Shape::HOT, lengths)
}

/// The daemon and what it is compared with, per request only; other builds of it, too.
fn quick(stage: &Stage, others: &[&str]) -> Result<()> {
    let mut subjects = vec![
        subject::NOTHING,
        subject::EMPTY,
        subject::FLOOR,
        subject::BTF,
        subject::TRACEPOINT,
        subject::BIOLATENCY,
        subject::ORIGINAL,
    ];
    for path in others {
        subjects.extend(["btf", "tracepoint"].map(|probe| Subject::other(path, probe)));
    }
    let lengths = Lengths {
        rounds: rounds()?,
        hot: Duration::from_millis(250),
        cold: Duration::from_millis(250),
        rate: Duration::ZERO,
    };
    print_costs(&race(stage, &subjects, &[Disk::new(DISK_MIB)?], Shape::HOT, lengths)?);
    Ok(())
}

fn print_costs(results: &Results) {
    println!("ns per request, issue + completion, less the empty bracket: median [quartiles]");
    println!(
        "{:<62}{:>20}{:>14}{:>12}{:>9}{:>22}{:>14}",
        "", "hot", "x biolatency", "x original", "x floor", "cold", "x biolatency"
    );
    for result in &results.entries {
        let (id, name) = (&result.id, result.name.replace(['*', '`'], ""));
        if let Some(reason) = &result.absent {
            println!("{name:<62}does not run here: {reason}");
            continue;
        }
        let part = |of: &str, cache| {
            ratio(results, id, of, cache).map_or_else(String::new, |s| format!("{:.2}", s.median))
        };
        println!(
            "{name:<62}{:>20}{:>14}{:>12}{:>9}{:>22}{:>14}",
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
