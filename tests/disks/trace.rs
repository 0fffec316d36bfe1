//! The kernel's own trace of block events, as a second witness: a private tracefs instance, which
//! records one disk and disturbs nobody else's tracing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::fixture::{Loop, run};

const TRACEFS: &str = "/sys/kernel/tracing";
/// Room per CPU for events of some 60 bytes each; allocated while a test traces.
const BUFFER_KIB: &str = "32768";

/// Which events to record of a disk: name, and a filter besides the disk.
pub type Wanted<'a> = (&'a str, &'a str);

/// Requests as they are issued, and every completion.
pub const REQUESTS: [Wanted<'_>; 2] = [("block_rq_issue", ""), ("block_rq_complete", "")];
/// Empty flush requests as they are submitted: writes of no sectors with a preflush. The kernel
/// counts each as a write (trap 16), but never issues one.
pub const EMPTY_FLUSHES: Wanted<'_> = ("block_bio_queue", "&& nr_sector == 0");

/// A trace that is being recorded; ends and vanishes when dropped.
pub struct Trace {
    directory: PathBuf,
}

/// One line of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    /// Operation and flags, as the kernel prints them: `WS`, `FF`, `R`.
    pub rwbs: String,
    pub sectors: u64,
}

/// Where the classic tracepoints, too, are found.
pub fn mount_tracefs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !Path::new(TRACEFS).join("instances").exists() {
            run(&["mount", "-t", "tracefs", "tracefs", TRACEFS]);
        }
    });
}

impl Trace {
    /// Begins to record `wanted` events of `disk`.
    pub fn start(disk: &Loop, wanted: &[Wanted<'_>]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        mount_tracefs();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("blkiolatd-test-{}-{number}", std::process::id());
        let trace = Self { directory: Path::new(TRACEFS).join("instances").join(name) };
        fs::create_dir(&trace.directory).unwrap();
        trace.write("buffer_size_kb", BUFFER_KIB);
        for (event, filter) in wanted {
            let filter = format!("dev == {} {filter}", disk.device_id());
            trace.write(&format!("events/block/{event}/filter"), &filter);
            trace.write(&format!("events/block/{event}/enable"), "1");
        }
        trace
    }

    fn write(&self, file: &str, value: &str) {
        let path = self.directory.join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Ends the trace, which must be whole.
    pub fn stop(self) -> Vec<Event> {
        self.write("tracing_on", "0");
        for cpu in fs::read_dir(self.directory.join("per_cpu")).unwrap() {
            let stats = fs::read_to_string(cpu.unwrap().path().join("stats")).unwrap();
            for loss in ["overrun: 0", "commit overrun: 0", "dropped events: 0"] {
                assert!(stats.lines().any(|line| line == loss), "the trace lost events: {stats}");
            }
        }
        let text = fs::read_to_string(self.directory.join("trace")).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).filter_map(Event::parse).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("cannot remove {}: {error}", self.directory.display());
        }
    }
}

impl Event {
    /// `TASK [CPU] FLAGS TIME: block_rq_issue: 7,0 W 4096 () 8 + 8 none,0,0 [fio]`; only the issue
    /// has the bytes, a bio has no brackets.
    fn parse(line: &str) -> Option<Self> {
        let (_, line) = line.split_once(": block_")?;
        let (name, rest) = line.split_once(": ")?;
        let rwbs = rest.split_whitespace().nth(1)?;
        let (_, sectors) = rest.split_once(" + ")?;
        let sectors = sectors.split_whitespace().next()?.parse().ok()?;
        Some(Self { name: format!("block_{name}"), rwbs: rwbs.into(), sectors })
    }
}

/// Empty flush requests in a trace of [`EMPTY_FLUSHES`].
pub fn empty_flushes(events: &[Event]) -> u64 {
    let empty = |event: &&Event| {
        event.name == "block_bio_queue" && event.rwbs.starts_with("FW") && event.sectors == 0
    };
    events.iter().filter(empty).count() as u64
}

#[test]
fn lines_of_the_trace_are_understood() {
    let event = |line| Event::parse(line).map(|e| (e.name, e.rwbs, e.sectors)).unwrap();
    let issue =
        "  fio: x-7 [001] ..... 1.000002: block_rq_issue: 7,0 WS 4096 () 16 + 8 none,0,0 [fio: x]";
    assert_eq!(event(issue), ("block_rq_issue".into(), "WS".into(), 8));
    let end = " kworker-9 [000] ..s1. 2.5: block_rq_complete: 7,0 FF () 18446744073709551615 + 0 none,0,0 [0]";
    assert_eq!(event(end), ("block_rq_complete".into(), "FF".into(), 0));
    let bio = " jbd2-3 [000] ..... 2.5: block_bio_queue: 7,0 FWS 0 + 0 [jbd2]";
    assert_eq!(event(bio), ("block_bio_queue".into(), "FWS".into(), 0));
    assert_eq!(Event::parse("# tracer: nop"), None);
}
