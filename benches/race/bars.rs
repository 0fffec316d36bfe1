//! The bars: what the daemon may cost, and whether it does. Pure.

use crate::results::All;
use crate::rounds::{Cache, of_rates, ratio};
use crate::statistics::Spread;

const MIB: f64 = (1 << 20) as f64;

/// One promise.
#[derive(Clone, Debug)]
pub struct Bar {
    pub what: String,
    pub bound: String,
    pub figure: String,
    /// `None` when it was not measured.
    pub met: Option<bool>,
}

struct Bars(Vec<Bar>);

impl Bars {
    fn at_most(&mut self, what: &str, figure: Option<f64>, limit: f64, unit: &str) {
        self.push(what, format!("≤ {limit}{unit}"), figure.map(|f| (show(f, unit), f <= limit)));
    }

    fn ratio(&mut self, what: &str, figure: Option<Spread>, limit: f64) {
        let figure = figure.map(|spread| (of_spread(spread), spread.median <= limit));
        self.push(what, format!("≤ {limit:.2}"), figure);
    }

    fn at_least(&mut self, what: &str, figure: Option<Spread>, limit: f64) {
        let figure = figure.map(|spread| (of_spread(spread), spread.median >= limit));
        self.push(what, format!("≥ {limit:.2}"), figure);
    }

    fn push(&mut self, what: &str, bound: String, figure: Option<(String, bool)>) {
        let (figure, met) = match figure {
            Some((figure, met)) => (figure, Some(met)),
            None => ("not measured".into(), None),
        };
        self.0.push(Bar { what: what.into(), bound, figure, met });
    }
}

fn show(figure: f64, unit: &str) -> String {
    if figure >= 100.0 { format!("{figure:.0}{unit}") } else { format!("{figure:.2}{unit}") }
}

fn of_spread(spread: Spread) -> String {
    format!("{:.2} [{:.2}–{:.2}]", spread.median, spread.low, spread.high)
}

/// All bars, with what was measured.
pub fn bars(all: &All) -> Vec<Bar> {
    let mut bars = Bars(Vec::new());
    let race = all.race.as_ref();
    let cost = |id: &str, of: &str, cache| race.and_then(|race| ratio(race, id, of, cache));
    let hot = Cache::Hot;
    bars.ratio("per request, hot: btf ÷ biolatency -D", cost("btf", "biolatency", hot), 0.25);
    bars.ratio("per request, hot: btf ÷ original design", cost("btf", "original", hot), 0.20);
    bars.ratio("per request, hot: btf ÷ floor", cost("btf", "floor", hot), 2.0);
    let cold = cost("btf", "biolatency", Cache::Cold);
    bars.ratio("per request, cold: btf ÷ biolatency -D", cold, 0.40);
    let fallback = cost("tracepoint", "original", hot);
    bars.ratio("per request, hot: tracepoint ÷ original design", fallback, 1.0);
    let on_off = race.and_then(|race| of_rates(race, "btf", |[on, off]| on.iops / off.iops));
    bars.at_least("requests per second, on ÷ off, loop device", on_off, 0.97);
    let null_blk = all
        .null_blk
        .as_ref()
        .and_then(|null_blk| Spread::of(null_blk.rounds.iter().map(|[on, off]| on / off)));
    bars.at_least("requests per second, on ÷ off, null_blk (emulated)", null_blk, 0.97);
    let daemon = all.daemon.as_ref();
    let of_daemon = |of: fn(&crate::daemon::UserSpace) -> f64| daemon.map(|d| of(&d.daemon));
    let resident = of_daemon(|d| d.resident_kib as f64 / 1024.0);
    bars.at_most("resident memory, 4 disks", resident, 6.0, " MiB");
    let memory = |of: fn(&crate::daemon::Memory) -> u64| daemon.map(|d| of(&d.memory) as f64 / MIB);
    bars.at_most("maps, formula, 4 CPUs × 8 disks", memory(|m| m.small_formula), 4.0, " MiB");
    bars.at_most("maps, kernel's account, the same", memory(|m| m.small_kernel), 4.0, " MiB");
    bars.at_most("maps, formula, 256 CPUs × 64 disks", memory(|m| m.large_formula), 64.0, " MiB");
    bars.at_most("maps, kernel's account, the same", memory(|m| m.large_kernel), 64.0, " MiB");
    let cpu = of_daemon(|d| d.cpu_ms_per_window);
    bars.at_most("CPU per window, 4 disks, recording", cpu, 0.5, " ms");
    let calls = daemon.map(|d| d.syscalls.values().sum());
    bars.at_most("system calls per window", calls, 10.0, "");
    let micros = |name: &str| {
        let found = all.criterion.iter().find(|(known, _)| known == name);
        found.map(|(_, ns)| ns / 1e3)
    };
    bars.at_most("snapshot of 10 disks × 5 operations", micros("read_10"), 100.0, " us");
    bars.at_most("snapshot of 1,000 disks × 5 operations", micros("read_1000"), 10_000.0, " us");
    let bytes =
        |of: fn(&crate::results::Bytes) -> u64| all.bytes.as_ref().map(|b| of(b) as f64 / MIB);
    bars.at_most("a day of 4 busy disks, fine, gzip", bytes(|b| b.fine.gzipped), 25.0, " MiB");
    bars.at_most("a day of 4 busy disks, log2, gzip", bytes(|b| b.log2.gzipped), 8.0, " MiB");
    let needless = all.binaries.as_ref().map(|binaries| match &binaries.needless[..] {
        [] => ("nothing".to_owned(), true),
        found => (found.join(", "), false),
    });
    bars.push("of blkiolat's alone in the daemon", "nothing".into(), needless);
    bars.0
}
