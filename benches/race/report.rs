//! `docs/benchmarks.md` and its pictures, from what was measured.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::bars::{Bar, bars};
use crate::daemon::{ARCHIVES, DISKS, Daemon, RATE, UserSpace};
use crate::machine::{field, online_cpus, run, text_of};
use crate::plot;
use crate::results::{All, Bytes, NullBlk};
use crate::rounds::{Cache, Results, TRIMMED, net, of_rates, ratio};
use crate::scaling::Scaling;
use crate::statistics::Spread;

const MIB: f64 = (1 << 20) as f64;

/// Writes everything under `docs`, and the bars to standard output.
///
/// # Errors
/// When something cannot be written.
pub fn write(all: &All, docs: &Path) -> Result<()> {
    let bars = bars(all);
    let mut text = String::from(
        "# Benchmarks\n\nWritten by `make bench`, what archives cost by `make bench-report`; not by hand, but for the notes at the end.\n\n",
    );
    machine(&mut text)?;
    text.push_str("\n## Bars\n\n");
    show_bars(&mut text, &bars)?;
    if let Some(race) = &all.race {
        per_request(&mut text, race, docs)?;
        full_rate(&mut text, race, all.null_blk.as_ref())?;
    }
    if let Some(scaling) = &all.scaling {
        show_scaling(&mut text, scaling, docs)?;
    }
    if let Some(daemon) = &all.daemon {
        user_space(&mut text, daemon)?;
    }
    recorded(&mut text, all.daemon.as_ref(), all.bytes.as_ref())?;
    criterion(&mut text, all)?;
    built(&mut text, all)?;
    match &all.reading {
        Some(reading) => write!(text, "\n{}", reading.trim_end())?,
        None => {
            text.push_str("\nHow fast archives are read was not measured (`make bench-report`).\n")
        }
    }
    let notes = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/notes.md");
    text.push_str("\n## Notes\n\n");
    text.push_str(&text_of(notes)?);
    text.push('\n');
    let path = docs.join("benchmarks.md");
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    for bar in &bars {
        println!("{:<10}{:<56}{:<12}{}", met(bar), bar.what, bar.bound, bar.figure);
    }
    println!("\nwritten: {}", path.display());
    Ok(())
}

fn met(bar: &Bar) -> &'static str {
    match bar.met {
        Some(true) => "met",
        Some(false) => "NOT met",
        None => "-",
    }
}

fn machine(text: &mut String) -> Result<()> {
    let cpu = text_of("/proc/cpuinfo")?;
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = field(&text_of("/proc/meminfo")?, "MemTotal:") / (1 << 20);
    let uname = rustix::system::uname();
    let clock = text_of("/sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    let packages = run(&[
        "dpkg-query",
        "--show",
        "--showformat=${Package} ${Version}\n",
        "libbpf-tools",
        "bpfcc-tools",
        "bpftrace",
        "fio",
    ]);
    writeln!(text, "| | |\n|---|---|")?;
    writeln!(text, "| date | {} |", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"))?;
    writeln!(text, "| CPUs | {} × {} |", online_cpus(), cpu.trim_start_matches([' ', '\t', ':']))?;
    writeln!(text, "| memory | {memory} GiB |")?;
    writeln!(text, "| kernel | {} |", uname.release().to_string_lossy())?;
    writeln!(text, "| clock | {clock} |")?;
    // What makes calls and returns dear.
    for name in ["spectre_v2", "spec_rstack_overflow", "retbleed"] {
        let path = Path::new("/sys/devices/system/cpu/vulnerabilities").join(name);
        writeln!(text, "| {name} | {} |", text_of(path).unwrap_or_else(|_| "unknown".into()))?;
    }
    writeln!(text, "| peers | {} |", packages?.trim().replace('\n', ", "))?;
    Ok(())
}

fn show_bars(text: &mut String, bars: &[Bar]) -> Result<()> {
    writeln!(text, "Medians [quartiles]; ratios are taken within a round.\n")?;
    writeln!(text, "| what | bar | measured | |\n|---|---|---|---|")?;
    for bar in bars {
        let met = met(bar).replace("NOT", "**not**");
        writeln!(text, "| {} | {} | {} | {met} |", bar.what, bar.bound, bar.figure)?;
    }
    Ok(())
}

fn spread(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(
        || "–".into(),
        |s| format!("{:.digits$} [{:.digits$}–{:.digits$}]", s.median, s.low, s.high),
    )
}

fn per_request(text: &mut String, race: &Results, docs: &Path) -> Result<()> {
    let rounds = race.entries.iter().map(|entry| entry.samples.len()).max().unwrap_or(0);
    writeln!(
        text,
        "\n## A request\n\n\
         Nanoseconds per request, issue and completion together. Two small programs stand before and after \
         the subject on each tracepoint, and the time from one to the other, less that of the empty bracket \
         in the same round, is the subject's, with what the kernel does to call it. {rounds} rounds, in each of which every \
         subject has its turn; of each turn's events the longest {:.0} % are left out, because an interrupt lay in \
         between. Hot: fio, 4 KiB random reads and writes, libaio, depth 64 in batches of 8, on a loop \
         device over memory. Cold: one request every 500 us.\n",
        TRIMMED * 100.0
    )?;
    writeln!(text, "![cost per request](bench-request.svg)\n")?;
    writeln!(
        text,
        "| subject | hot | ÷ biolatency -D | ÷ original | ÷ floor | cold | ÷ biolatency -D |\n\
         |---|---|---|---|---|---|---|"
    )?;
    for entry in &race.entries {
        let (id, name) = (&entry.id, &entry.name);
        if let Some(reason) = &entry.absent {
            let reason = reason.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ");
            writeln!(text, "| {name} | does not run here: {reason} | | | | | |")?;
            continue;
        }
        if id == "nothing" {
            continue;
        }
        let part = |of, cache| spread(ratio(race, id, of, cache), 2);
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} |",
            spread(net(race, id, Cache::Hot), 0),
            part("biolatency", Cache::Hot),
            part("original", Cache::Hot),
            part("floor", Cache::Hot),
            spread(net(race, id, Cache::Cold), 0),
            part("biolatency", Cache::Cold),
        )?;
    }
    let lost: usize =
        race.entries.iter().map(|entry| entry.samples.iter().filter(|s| s.is_none()).count()).sum();
    if lost > 0 {
        writeln!(text, "\n{lost} samples were left out: other programs came or went meanwhile.")?;
    }
    if race.statistics_were_on {
        writeln!(
            text,
            "\nThe kernel kept statistics of programs meanwhile (kernel.bpf_stats_enabled): every program \
             cost more than it does without."
        )?;
    }
    let costs: Vec<(String, Spread)> = race
        .entries
        .iter()
        .filter(|entry| entry.id != "nothing")
        .filter_map(|entry| Some((entry.name.clone(), net(race, &entry.id, Cache::Hot)?)))
        .collect();
    plot::bars(&docs.join("bench-request.svg"), &costs)
}

fn full_rate(text: &mut String, race: &Results, null_blk: Option<&NullBlk>) -> Result<()> {
    writeln!(
        text,
        "\n## At full rate\n\n\
         The same hot load as fast as it goes, with the subject and right after without it. CPU is all that \
         all CPUs did (`/proc/stat`, whose unit is 10 ms), fio and the neighbours included.\n\n\
         | subject | requests per second, on ÷ off | CPU seconds added per million requests |\n|---|---|---|"
    )?;
    for entry in race.entries.iter().filter(|entry| entry.absent.is_none()) {
        let on_off = of_rates(race, &entry.id, |[on, off]| on.iops / off.iops);
        let added = of_rates(race, &entry.id, |[on, off]| on.busy - off.busy);
        writeln!(text, "| {} | {} | {} |", entry.name, spread(on_off, 3), spread(added, 2))?;
    }
    let off = of_rates(race, "nothing", |[_, off]| off.iops / 1000.0);
    writeln!(text, "\nWithout any: {} thousand requests per second.", spread(off, 0))?;
    if let Some(null_blk) = null_blk {
        let rate = |of: fn(&[f64; 2]) -> f64| Spread::of(null_blk.rounds.iter().map(of));
        writeln!(
            text,
            "\nnull_blk, which completes a request at once, on kernel {} in an emulated machine (qemu's TCG, \
             where a clock read or an atomic operation costs far more beside other instructions than on a \
             processor): on ÷ off {}; {} thousand requests per second without.",
            null_blk.kernel,
            spread(rate(|[on, off]| on / off), 3),
            spread(rate(|[_, off]| off / 1000.0), 1)
        )?;
    }
    Ok(())
}

fn show_scaling(text: &mut String, scaling: &Scaling, docs: &Path) -> Result<()> {
    writeln!(
        text,
        "\n## Scaling\n\n\
         The hot load spread over loop devices (64 requests in flight in all); with more and more requests in flight \
         (a loop device takes 128, so further devices join from there on); and with fio and the loop devices' workers \
         on one CPU.\n"
    )?;
    for (name, points) in
        [("disks", &scaling.disks), ("requests in flight", &scaling.depth), ("CPUs", &scaling.cpus)]
    {
        let file = format!("bench-{}.svg", name.replace(' ', "-").to_lowercase());
        plot::lines(&docs.join(&file), name, points)?;
        writeln!(text, "![cost per request against {name}]({file})\n")?;
        let Some(fullest) = points.iter().max_by_key(|point| point.costs.len()) else { continue };
        write!(text, "| {name} |")?;
        points.iter().try_for_each(|point| write!(text, " {} |", point.x))?;
        writeln!(text, "\n|---|{}", "---|".repeat(points.len()))?;
        for (subject, _) in &fullest.costs {
            write!(text, "| {subject} |")?;
            for point in points {
                let cost = point.costs.iter().find(|(name, _)| name == subject);
                write!(text, " {} |", spread(cost.map(|(_, cost)| *cost), 0))?;
            }
            text.push('\n');
        }
        text.push('\n');
    }
    plot::bars(&docs.join("bench-detail.svg"), &scaling.detail)?;
    writeln!(
        text,
        "The kernel counts in fine buckets whatever `detail` says; it only decides what is written:\n\n\
         ![cost per request by detail](bench-detail.svg)"
    )?;
    Ok(())
}

fn user_space(text: &mut String, daemon: &Daemon) -> Result<()> {
    writeln!(
        text,
        "\n## The process\n\n\
         Windows of one second, {DISKS} disks with {} requests per second each; the daemon records and has made {ARCHIVES} archives, its peers \
         print to nowhere. Going to sleep is what follows waking up.\n\n\
         | | CPU until attached | CPU per window | sleeps per window | resident | of it anonymous | peak | threads |\n\
         |---|---|---|---|---|---|---|---|",
        2 * RATE
    )?;
    let mut row = |name: &str, usage: &UserSpace| {
        let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
        writeln!(
            text,
            "| {name} | {:.0} ms | {:.2} ms | {:.1} | {} | {} | {} | {} |",
            usage.start_cpu_ms,
            usage.cpu_ms_per_window,
            usage.sleeps_per_window,
            mib(usage.resident_kib),
            mib(usage.anonymous_kib),
            mib(usage.peak_kib),
            usage.threads
        )
    };
    row("**blkiolatd**", &daemon.daemon)?;
    for (name, usage) in &daemon.peers {
        if let Ok(usage) = usage {
            row(name, usage)?;
        }
    }
    for (name, usage) in &daemon.peers {
        if let Err(reason) = usage {
            let reason = reason.replace('<', "&lt;");
            writeln!(text, "\n{name} does not run here: {reason}")?;
        }
    }
    let calls: Vec<String> =
        daemon.syscalls.iter().map(|(name, calls)| format!("{name} {calls:.1}")).collect();
    writeln!(
        text,
        "\nSystem calls per window: {:.1} ({}). Resident memory grew by {} KiB in the windows that were watched.",
        daemon.syscalls.values().sum::<f64>(),
        calls.join(", "),
        daemon.daemon.grown_kib
    )?;
    let memory = &daemon.memory;
    let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
    writeln!(
        text,
        "\nKernel memory of the maps, by the formula of `src/probe/plan.rs` and by the kernel's own account \
         (`memlock` in fdinfo); the other machines' maps were created here.\n\n\
         | | formula | kernel |\n|---|---|---|\n\
         | this machine | {} | {} |\n| 4 CPUs, 8 disks × 256 requests | {} | {} |\n\
         | 256 CPUs, 64 disks × 64 queues × 1,023 requests | {} | {} |",
        kib(memory.here_formula),
        kib(memory.here_kernel),
        kib(memory.small_formula),
        kib(memory.small_kernel),
        kib(memory.large_formula),
        kib(memory.large_kernel)
    )?;
    Ok(())
}

fn recorded(text: &mut String, daemon: Option<&Daemon>, bytes: Option<&Bytes>) -> Result<()> {
    writeln!(
        text,
        "\n## On disk\n\n\
         A day in windows of 5 s. Made-up disks: a load that rises and falls, log-normal latencies with a small second \
         mode, four operations. Measured: lines of a real run whose windows hold as many requests, times the \
         windows of a day.\n\n\
         | | disks | requests per disk and window | raw per disk and day | gzip -6 per disk and day | gzip -6, all |\n\
         |---|---|---|---|---|---|"
    )?;
    let mut row = |name: &str, disks: u64, requests: u64, raw: f64, gzipped: f64| {
        let each = disks.max(1) as f64 * MIB;
        writeln!(
            text,
            "| {name} | {disks} | {requests} | {:.1} MiB | {:.2} MiB | {:.2} MiB |",
            raw / each,
            gzipped / each,
            gzipped / MIB
        )
    };
    const WINDOWS: u64 = 86_400 / 5;
    if let Some(Bytes { fine, log2 }) = bytes {
        for (name, day) in [("made up, fine", fine), ("made up, log2", log2)] {
            let requests = day.requests / day.disks.max(1) / WINDOWS;
            row(name, day.disks, requests, day.raw as f64, day.gzipped as f64)?;
        }
    }
    if let Some(daemon) = daemon {
        let kinds = [("measured, fine", daemon.recorded), ("measured, log2", daemon.recorded_log2)];
        for (name, recorded) in kinds {
            let day = WINDOWS as f64 / recorded.lines.max(1) as f64;
            let (raw, gzipped) = (recorded.raw as f64 * day, recorded.gzipped as f64 * day);
            row(name, DISKS as u64, u64::from(2 * RATE), raw, gzipped)?;
        }
    }
    Ok(())
}

fn criterion(text: &mut String, all: &All) -> Result<()> {
    if all.criterion.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "\n## A window in user space\n\n\
         Criterion's medians. Disks with five operations each, of which 60 buckets changed. `read` is from the \
         kernel's maps to the window, `decode` the difference of two readings alone, `encode` from the window \
         to the line.\n\n| | us |\n|---|---|"
    )?;
    for (name, ns) in &all.criterion {
        writeln!(text, "| {name} | {:.1} |", ns / 1e3)?;
    }
    Ok(())
}

fn built(text: &mut String, all: &All) -> Result<()> {
    let Some(binaries) = &all.binaries else { return Ok(()) };
    writeln!(
        text,
        "\n## The build\n\nStripped, with link-time optimisation: blkiolatd {:.2} MiB, blkiolat {:.2} MiB.",
        binaries.daemon_bytes as f64 / MIB,
        binaries.reader_bytes as f64 / MIB
    )?;
    if let Some(build) = &all.build {
        writeln!(
            text,
            "From nothing, all dependencies included: {:.0} s on {} CPUs ({}).",
            build.cold_seconds,
            online_cpus(),
            build.rustc
        )?;
    }
    Ok(())
}
