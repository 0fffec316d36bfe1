//! One window as the live views need it, and what is missing between it and the one before. Pure.

use std::collections::HashMap;

use globset::GlobSet;

use crate::archive::reader::{Layer, LineError, Parser, Seen, Sink, Wanted};
use crate::record::Audit;
use crate::report::aggregate::{Aggregate, Device};
use crate::report::summary::{self, ALL};
use crate::report::times::Rows;
use crate::report::units::counted;

/// The layer of the block I/O stack that a record is about when it does not say.
pub const REQUEST_LAYER: &str = "request";

/// One record, with what the views show already computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// Host and layer that it belongs to.
    pub stream: Stream,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Number of the window in its run of the daemon.
    pub seq: u64,
    /// End of the window, µs since the Unix epoch.
    pub end_us: i64,
    /// True length, µs.
    pub length_us: u64,
    /// What could not be measured in it.
    pub audit: Audit,
    /// Devices that have something to say, by name.
    pub devices: Vec<DeviceWindow>,
    /// What is missing between it and the window before of its stream.
    pub before: Before,
}

/// Whose windows follow each other: each has numbers of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// Host name.
    pub host: String,
    /// Layer of the block I/O stack: [`REQUEST_LAYER`], or for example `bio`.
    pub layer: String,
}

/// One device in one window.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceWindow {
    /// Kernel name as the file has it: not to be trusted on a terminal.
    pub name: String,
    /// What the tables show.
    pub figures: Figures,
    /// Everything that was counted.
    pub device: Device,
}

/// What a table shows of a device in one window. Latencies are in µs and `None` when nothing was
/// completed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Requests completed per second.
    pub iops: f64,
    /// Millions of bytes per second.
    pub mb_per_s: f64,
    /// Median latency.
    pub p50_us: Option<f64>,
    /// 99th percentile.
    pub p99_us: Option<f64>,
    /// Largest latency.
    pub max_us: Option<f64>,
    /// Percentiles come from log2 slots and are coarse.
    pub coarse: bool,
    /// Requests in flight when the window ended.
    pub in_flight: u64,
    /// Most in flight at one time in the window.
    pub in_flight_max: u64,
    /// Age of the oldest request in flight when the window ended; 0 when none.
    pub oldest_us: f64,
    /// Requests that completed with an error.
    pub errors: u64,
    /// Requests that the driver gave back.
    pub requeues: u64,
}

/// What lies between a window and the one before of its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Windows that are missing.
    pub missing: u64,
    /// The daemon, or the host, was started anew.
    pub restarted: bool,
}

impl Window {
    /// Reads one line, with the devices that are `wanted`; `None` when the window is not.
    ///
    /// # Errors
    /// When the line is no record that can be used.
    pub fn parse(
        parser: &mut Parser,
        line: &[u8],
        wanted: &Wanted,
    ) -> Result<Option<Self>, LineError> {
        let Some(record) = parser.parse(line, wanted)? else { return Ok(None) };
        let mut sums = Aggregate::new(Rows::default());
        sums.take(&record);
        let rows = sums.sources.into_values().next().unwrap_or_default();
        let row = rows.into_values().next().unwrap_or_default();
        let devices = row.devices.into_iter().map(|(name, device)| {
            let now = record.inflight().filter(|inflight| *inflight.name == name);
            let in_flight = now.map(|inflight| inflight.count).sum();
            let figures = Figures::of(&device, in_flight, record.length_us());
            DeviceWindow { name, figures, device }
        });
        Ok(Some(Self {
            stream: Stream {
                host: record.host.clone().into_owned(),
                layer: record.layer.name().into(),
            },
            boot_id: record.boot_id.clone().into_owned(),
            seq: record.seq,
            end_us: record.end_us(),
            length_us: record.length_us(),
            audit: record.audit,
            devices: devices.collect(),
            before: Before::default(),
        }))
    }

    /// What was missed in this window and just before it.
    #[must_use]
    pub fn losses(&self) -> Losses {
        let restarts = u64::from(self.before.restarted);
        Losses { missing: self.before.missing, restarts, damaged: 0, audit: self.audit }
    }
}

impl Figures {
    fn of(device: &Device, in_flight: u64, length_us: u64) -> Self {
        let row =
            summary::row(("", "", Layer::default()), ALL, &device.all(), Some(device), length_us);
        Self {
            iops: row.iops,
            mb_per_s: row.mb_per_s,
            p50_us: row.p50_us,
            p99_us: row.p99_us,
            max_us: row.max_us,
            coarse: row.resolution != "fine",
            in_flight,
            in_flight_max: device.inflight_max,
            oldest_us: row.oldest_us.unwrap_or(0.0),
            errors: row.errors,
            requeues: device.requeues,
        }
    }
}

/// What was missed: all zero when nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Windows whose numbers are missing.
    pub missing: u64,
    /// Starts of the daemon, before which there is time without windows.
    pub restarts: u64,
    /// Lines that are no records.
    pub damaged: u64,
    /// What the records say themselves.
    pub audit: Audit,
}

impl Losses {
    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        let (audit, more) = (&mut self.audit, &other.audit);
        for (sum, more) in [
            (&mut self.missing, other.missing),
            (&mut self.restarts, other.restarts),
            (&mut self.damaged, other.damaged),
            (&mut audit.untracked_completions, more.untracked_completions),
            (&mut audit.inflight_table_full, more.inflight_table_full),
            (&mut audit.device_table_full, more.device_table_full),
            (&mut audit.probe_misses, more.probe_misses),
            (&mut audit.dropped_snapshots, more.dropped_snapshots),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    /// What was missed in words, the gravest first; empty when nothing was.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let audit = &self.audit;
        let not_measured = audit.inflight_table_full.saturating_add(audit.device_table_full);
        let mut words = Vec::new();
        let mut say = |count: u64, words_of: &dyn Fn() -> String| {
            if count > 0 {
                words.push(words_of());
            }
        };
        say(self.missing, &|| format!("{} missing", counted(self.missing, "window")));
        say(audit.dropped_snapshots, &|| {
            format!("{} dropped by the writer", counted(audit.dropped_snapshots, "window"))
        });
        say(not_measured, &|| {
            format!("{} not measured (tables full)", counted(not_measured, "request"))
        });
        say(audit.untracked_completions, &|| {
            let count = audit.untracked_completions;
            format!("{} without a start record", counted(count, "completion"))
        });
        say(audit.probe_misses, &|| {
            format!("{} skipped by the kernel", counted(audit.probe_misses, "probe run"))
        });
        say(self.damaged, &|| format!("{} not used", counted(self.damaged, "damaged line")));
        say(self.restarts, &|| {
            format!(
                "the daemon was started anew{}",
                match self.restarts {
                    1 => String::new(),
                    times => format!(" {times} times"),
                }
            )
        });
        words
    }
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// It is a window that was not there yet.
    Window(Box<Window>),
    /// It is blank, of another host, or was read before.
    Nothing,
    /// It cannot be used; why, as the end of a sentence that begins with the line.
    Damaged(String),
}

/// Takes lines: each window once, with what is missing before it.
#[derive(Debug, Default)]
pub struct Intake {
    wanted: Wanted,
    hosts: Option<GlobSet>,
    parser: Parser,
    seen: Seen,
    last: HashMap<Stream, (String, u64)>,
}

impl Intake {
    /// Takes windows of these hosts (none: of all) with the devices of `wanted`.
    #[must_use]
    pub fn new(wanted: Wanted, hosts: Option<GlobSet>) -> Self {
        Self { wanted, hosts, ..Self::default() }
    }

    /// Takes one line, without its newline. A line that is not `complete` is only reported as torn
    /// if it cannot be used.
    pub fn take(&mut self, line: &[u8], complete: bool) -> Taken {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Taken::Nothing;
        }
        let mut window = match Window::parse(&mut self.parser, line, &self.wanted) {
            Ok(Some(window)) => window,
            Ok(None) => return Taken::Nothing,
            Err(error) if complete => return Taken::Damaged(error.to_string()),
            Err(error) => return Taken::Damaged(format!("is torn (no newline): {error}")),
        };
        let stream = &window.stream;
        if self.hosts.as_ref().is_some_and(|hosts| !hosts.is_match(&stream.host)) {
            return Taken::Nothing;
        }
        // Each layer has numbers of its own, which nothing else that is seen may cover.
        let run = format!("{}/{}", window.boot_id, stream.layer);
        let key = (&*stream.host, Layer::default(), &*run);
        if !self.seen.note(key, window.seq, window.end_us, window.length_us) {
            return Taken::Nothing;
        }
        if let Some((boot_id, seq)) = self.last.get(stream) {
            let restarted = *boot_id != window.boot_id || window.seq <= *seq;
            let missing = if restarted { 0 } else { window.seq - seq - 1 };
            window.before = Before { missing, restarted };
        }
        self.last.insert(stream.clone(), (window.boot_id.clone(), window.seq));
        Taken::Window(Box::new(window))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::{DeviceInflight, DeviceLatency, OperationStats, Operations, Record};

    /// A window of 2 s with reads of `us` on each of `devices` (name, µs).
    pub(crate) fn record(seq: u64, devices: &[(&str, u64)]) -> Record {
        let latency = |&(name, us): &(&str, u64)| {
            let index = crate::histogram::bucket_of_ns(us * 1000) as u16;
            let read = OperationStats {
                total: 20,
                bytes: 20 * 4096,
                sum_us: 20.0 * us as f64,
                max_us: us as f64,
                errors: 0,
                fine: Some(vec![(index, 20)]),
                slots: None,
            };
            DeviceLatency {
                device_name: name.into(),
                total: 20,
                ops: Operations { read: Some(read), ..Operations::default() },
                ..DeviceLatency::default()
            }
        };
        let inflight = |&(name, us): &(&str, u64)| DeviceInflight {
            device_name: name.into(),
            count: 1,
            mean: 0.5,
            max: 4,
            oldest_us: us as f64 / 2.0,
            ..DeviceInflight::default()
        };
        Record {
            timestamp: 1_795_305_600.0 + 2.0 * seq as f64,
            schema: 1,
            host: "db-17".into(),
            boot_id: "b".into(),
            seq,
            interval_s: 2.0,
            window_s: 2.0,
            latency_histogram: devices.iter().map(latency).collect(),
            inflight: devices.iter().map(inflight).collect(),
            ..Record::default()
        }
    }

    pub(crate) fn line(record: &Record) -> Vec<u8> {
        let mut line = Vec::new();
        record.write_line(&mut line);
        line.pop();
        line
    }

    /// The same record as a line about bios.
    pub(crate) fn bio(record: &Record) -> Vec<u8> {
        let text = String::from_utf8(line(record)).unwrap();
        text.replacen("\"schema\":1", "\"schema\":1,\"layer\":\"bio\"", 1).into_bytes()
    }

    pub(crate) fn window(intake: &mut Intake, line: &[u8]) -> Window {
        match intake.take(line, true) {
            Taken::Window(window) => *window,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn figures_of_a_window() {
        let window = window(&mut Intake::default(), &line(&record(7, &[("sda", 1000)])));
        assert_eq!((window.seq, window.length_us), (7, 2_000_000));
        assert_eq!(window.stream, Stream { host: "db-17".into(), layer: "request".into() });
        let device = &window.devices[0];
        assert_eq!(device.name, "sda");
        let figures = device.figures;
        assert_eq!((figures.iops, figures.mb_per_s), (10.0, 0.04096));
        // 1000 µs are 8000 units, in the bucket from 7936 to 8192; its middle is above the maximum.
        assert_eq!((figures.p50_us, figures.p99_us), (Some(1000.0), Some(1000.0)));
        assert_eq!((figures.in_flight, figures.in_flight_max), (1, 4));
        assert_eq!((figures.oldest_us, figures.errors, figures.requeues), (500.0, 0, 0));
    }

    #[test]
    fn gaps_restarts_and_repetitions() {
        let mut intake = Intake::default();
        let mut before = |seq, boot_id: &str, at: f64| {
            let mut record = record(seq, &[]);
            (record.boot_id, record.timestamp) = (boot_id.into(), at);
            match intake.take(&line(&record), true) {
                Taken::Window(window) => Some((window.before.missing, window.before.restarted)),
                _ => None,
            }
        };
        assert_eq!(before(5, "a", 100.0), Some((0, false)));
        assert_eq!(before(6, "a", 102.0), Some((0, false)));
        assert_eq!(before(6, "a", 102.0), None);
        assert_eq!(before(9, "a", 108.0), Some((2, false)));
        assert_eq!(before(0, "a", 200.0), Some((0, true)));
        assert_eq!(before(1, "b", 300.0), Some((0, true)));
    }

    #[test]
    fn layers_have_numbers_of_their_own() {
        let mut intake = Intake::default();
        for seq in 0..3 {
            let record = record(seq, &[("dm-0", 10)]);
            let request = window(&mut intake, &line(&record));
            let bio = window(&mut intake, &bio(&record));
            assert_eq!((request.before, bio.before), (Before::default(), Before::default()));
            assert_eq!((&*request.stream.layer, &*bio.stream.layer), ("request", "bio"));
        }
    }

    #[test]
    fn damage_is_named() {
        let mut intake = Intake::default();
        let Taken::Damaged(what) = intake.take(b"{\"timestamp\":1.5,\"lat", false) else {
            panic!()
        };
        assert!(what.starts_with("is torn (no newline): is no record of version 1"), "{what}");
        let Taken::Damaged(what) = intake.take(b"{\"schema\":9}", true) else { panic!() };
        assert!(what.contains("schema version 9"), "{what}");
        assert_eq!(intake.take(b" \r", true), Taken::Nothing);
        let text = String::from_utf8(line(&record(1, &[]))).unwrap();
        let text = text.replacen("\"schema\":1", "\"schema\":1,\"layer\":3", 1);
        assert!(matches!(intake.take(text.as_bytes(), true), Taken::Damaged(_)));
    }

    #[test]
    fn only_the_hosts_and_devices_asked_for() {
        let globs = |glob| crate::report::failure::globs(&[String::from(glob)]).unwrap();
        let mut intake = Intake::new(Wanted::default(), globs("web-*"));
        assert_eq!(intake.take(&line(&record(0, &[])), true), Taken::Nothing);
        let wanted = Wanted { devices: globs("sd*"), ..Wanted::default() };
        let mut intake = Intake::new(wanted, None);
        let window = window(&mut intake, &line(&record(0, &[("sda", 1), ("nvme0n1", 1)])));
        assert_eq!(window.devices.iter().map(|d| &*d.name).collect::<Vec<_>>(), ["sda"]);
    }

    #[test]
    fn words_of_losses() {
        assert_eq!(Losses::default().words(), [""; 0]);
        let audit = Audit {
            untracked_completions: 1,
            inflight_table_full: 2,
            device_table_full: 3,
            probe_misses: 4,
            dropped_snapshots: 5,
        };
        let mut losses = Losses { missing: 6, restarts: 1, damaged: 7, audit };
        assert_eq!(
            losses.words(),
            [
                "6 windows missing",
                "5 windows dropped by the writer",
                "5 requests not measured (tables full)",
                "1 completion without a start record",
                "4 probe runs skipped by the kernel",
                "7 damaged lines not used",
                "the daemon was started anew"
            ]
        );
        losses.add(&losses.clone());
        assert_eq!((losses.missing, losses.audit.probe_misses), (12, 8));
        assert_eq!(losses.words()[6], "the daemon was started anew 2 times");
    }
}
