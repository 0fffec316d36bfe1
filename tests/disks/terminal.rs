//! What is printed, compared with the records of the same run.

use blkiolatd::record::Record;

use crate::daemon::{Launch, Run};
use crate::fio::Fio;
use crate::fixture::{Loop, Mode, needs, wait_until};

/// One window as it was printed.
#[derive(Debug, Default, PartialEq)]
struct Printed {
    heading: String,
    unit: String,
    inflight_heading: String,
    /// Title, and the counts of each slot from 0 on.
    histograms: Vec<(String, Vec<u64>)>,
    inflight: Vec<(String, u64)>,
    not_measured: String,
}

/// Reads the layout of the contract, and checks the bars.
fn parse(text: &str) -> Vec<Printed> {
    let mut all: Vec<Printed> = Vec::new();
    let mut in_flight = false;
    for line in text.lines() {
        if let Some((time, heading)) = line.split_once(" - ") {
            assert!(time.len() == 8 && time.split(':').count() == 3, "{line}");
            all.push(Printed { heading: heading.into(), ..Printed::default() });
            in_flight = false;
            continue;
        }
        let window = all.last_mut().expect("text before the first window");
        if let Some(title) = line.strip_prefix("disk = ") {
            window.histograms.push((title.into(), Vec::new()));
        } else if line.contains(" : count     distribution") {
            window.unit = line.trim_start().split(' ').next().unwrap().into();
            assert_eq!(line.find(" : "), Some(24), "{line}");
        } else if let Some((range, rest)) = line.split_once(" : ") {
            let counts = &mut window.histograms.last_mut().unwrap().1;
            let slot = counts.len();
            let low = if slot == 0 { 0 } else { 1_u64 << slot };
            assert_eq!(range, format!("{low:>10} -> {:<10}", (2_u64 << slot) - 1));
            let (count, bar) = rest.split_once('|').unwrap();
            assert_eq!((count.len(), bar.len()), (9, 41), "{line}");
            counts.push(count.trim().parse().unwrap());
        } else if line.ends_with("(requests):") {
            window.inflight_heading = line.into();
            in_flight = true;
        } else if let Some((name, count)) = line.split_once(" -> ") {
            assert!(in_flight && name.len() >= 14, "{line}");
            window.inflight.push((name.trim_start().into(), count.parse().unwrap()));
        } else if let Some((_, losses)) =
            line.split_once("Not measured: ").or_else(|| line.split_once("No medido: "))
        {
            // Bold and yellow on a terminal.
            window.not_measured = losses.trim_end_matches("\x1b[0m").into();
        } else {
            assert_eq!(line, "");
        }
    }
    for line in text.lines().filter(|line| line.contains('|')) {
        let stars = line.matches('*').count();
        assert!(stars <= 40, "{line}");
    }
    all
}

/// What the contract says a record looks like.
fn expected(record: &Record, by_operation: bool, spanish: bool) -> Printed {
    let mut printed = Printed {
        heading: if spanish { "Latencia I/O por dispositivo:" } else { "I/O latency by device:" }
            .into(),
        inflight_heading: if spanish {
            "Cola I/O en vuelo (requests):"
        } else {
            "In-flight I/O (requests):"
        }
        .into(),
        ..Printed::default()
    };
    let from_zero = |pairs: &[(u32, u64)]| {
        let mut counts = vec![0; pairs.last().map_or(0, |pair| pair.0 as usize + 1)];
        for &(slot, count) in pairs {
            counts[slot as usize] = count;
        }
        counts
    };
    for device in &record.latency_histogram {
        printed.unit = if spanish { "microsegundos" } else { "usecs" }.into();
        if by_operation {
            for (operation, stats) in device.ops.iter() {
                let mut pairs: Vec<(u32, u64)> = Vec::new();
                for &(slot, count) in stats.slots.as_deref().unwrap() {
                    pairs.push((slot.into(), count));
                }
                let title = format!("{}, operation = {operation}", device.device_name);
                printed.histograms.push((title, from_zero(&pairs)));
            }
        } else {
            let pairs: Vec<_> = device.buckets.iter().map(|b| (b.slot, b.count)).collect();
            printed.histograms.push((device.device_name.clone(), from_zero(&pairs)));
        }
    }
    for device in record.inflight.iter().filter(|device| device.count > 0) {
        printed.inflight.push((device.device_name.clone(), device.count));
    }
    let audit = serde_json::to_value(record.audit).unwrap();
    let losses = ["untracked_completions", "probe_misses"].map(|name| (name, &audit[name]));
    let losses = losses.iter().filter(|(_, count)| **count != 0);
    let losses: Vec<_> = losses.map(|(name, count)| format!("{name} {count}")).collect();
    printed.not_measured = losses.join(", ");
    printed
}

/// A run of some windows under load.
fn under_load(launch: Launch, disk: &Loop) -> Run {
    let before = disk.stat();
    let load = "--rw=randrw --bs=4k --ioengine=libaio --iodepth=8 --time_based --runtime=60";
    let _until_the_end = Fio::new().job(disk, load).start();
    wait_until("fio reads", || disk.counts().reads > before.reads);
    launch.run()
}

fn assert_printed(run: &Run, windows: usize, by_operation: bool, spanish: bool) {
    let printed = parse(&run.stdout);
    assert_eq!((run.records.len(), printed.len()), (windows, windows), "{}", run.stdout);
    for (printed, record) in printed.iter().zip(&run.records) {
        assert_eq!(*printed, expected(record, by_operation, spanish));
    }
    assert!(printed.iter().any(|window| !window.histograms.is_empty()), "{}", run.stdout);
}

#[test]
fn what_is_printed_is_what_is_recorded() {
    needs!("fio");
    let disk = Loop::new(64, Mode::Buffered);
    let windows = ["--print", "--count", "8"];
    let launch = || Launch::of(&[&disk]).interval("0.1").arguments(&windows);
    let run = under_load(launch(), &disk);
    assert_printed(&run, 8, false, false);
    assert!(!run.stdout.contains('\x1b'), "an escape sequence goes to a pipe");
    let spanish = launch().environment("LC_ALL", "es_ES.UTF-8");
    assert_printed(&under_load(spanish, &disk), 8, false, true);
    let by_operation = launch().arguments(&["--by-op", "--detail", "log2"]);
    let run = under_load(by_operation, &disk);
    assert_printed(&run, 8, true, false);
    assert!(run.stdout.contains("operation = read") && run.stdout.contains("operation = write"));
}

#[test]
fn a_terminal_gets_histograms_by_default() {
    needs!("fio", "script");
    let disk = Loop::new(64, Mode::Buffered);
    for colour in ["", "1"] {
        let launch = Launch::of(&[&disk])
            .through(&["script", "--quiet", "--return", "/dev/null", "--command"])
            .by_default()
            .interval("0.1")
            .environment("NO_COLOR", colour)
            .arguments(&["--count", "8"]);
        let mut run = under_load(launch, &disk);
        // A terminal turns the line's end into two characters; the log goes there, too.
        run.stdout = run.stdout.replace("\r\n", "\n");
        let begin = run.stdout.find(" - I/O latency").unwrap() - 8;
        let log = run.stdout[..begin].to_owned();
        assert_eq!(log.contains('\x1b'), colour.is_empty(), "{log:?}");
        run.stdout = run.stdout[begin..].to_owned();
        assert_printed(&run, 8, false, false);
    }
}

#[test]
fn a_closed_pipe_ends_the_run_well() {
    needs!("sh", "head");
    let disk = Loop::new(8, Mode::Buffered);
    // The shell ends with the code of the daemon, of which head reads one line.
    let script = "{ \"$@\"; echo $? > code; } | head --lines=1";
    let run =
        Launch::of(&[&disk]).through(&["sh", "-c", script, "sh"]).arguments(&["--print"]).run();
    let code = std::fs::read_to_string(run.directory.path().join("code")).unwrap();
    assert_eq!(code, "0\n", "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 1);
    assert!(!run.records.is_empty());
    assert!(!run.stderr.contains("ERROR"), "{}", run.stderr);
}

#[test]
fn without_output_nothing_is_written() {
    needs!("true");
    let disk = Loop::new(8, Mode::Buffered);
    let run = Launch::of(&[&disk])
        .without_output()
        .arguments(&["--no-output", "--print", "--count", "2"])
        .run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(parse(&run.stdout).len(), 2);
    let mut names: Vec<_> = std::fs::read_dir(run.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    // Ours: the configuration, the log, the socket.
    assert_eq!(names, ["blkiolatd.toml", "notify", "stderr"]);
}
