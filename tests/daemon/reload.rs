//! SIGHUP: what changes, what does not, and that no count is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::disk::{Disk, FileSystem, names};
use super::process::{Daemon, until};
use super::records::{self, seq};
use super::{able, alone};

/// A configuration file.
struct Settings {
    path: PathBuf,
    values: BTreeMap<&'static str, String>,
}

impl Settings {
    /// Measures `disk` all the time, and writes each window to `output` at once.
    fn new(dir: &Path, output: &Path, disk: &Disk) -> Self {
        let mut settings = Self { path: dir.join("b.toml"), values: BTreeMap::new() };
        settings.set("sampling.interval", "'100ms'");
        settings.set("sampling.include", &format!("['{}']", disk.name));
        settings.set("sampling.exclude", "[]");
        settings.set("output.path", &format!("'{}'", output.display()));
        settings.set("output.flush_every", "1");
        settings
    }

    fn set(&mut self, key: &'static str, value: &str) {
        self.values.insert(key, value.to_owned());
        let lines = self.values.iter().map(|(key, value)| format!("{key} = {value}\n"));
        fs::write(&self.path, lines.collect::<String>()).unwrap();
    }

    fn start(&self, dir: &Path, more: &[&str]) -> Daemon {
        let mut daemon =
            Daemon::start(dir, &[&["--config", self.path.to_str().unwrap()], more].concat());
        daemon.ready();
        daemon
    }
}

/// The record of the first window that begins after this call.
fn fresh(daemon: &mut Daemon, output: &Path) -> Value {
    let [windows, ..] = daemon.windows(2).facts().unwrap();
    let wanted = windows - 1;
    let mut found = None;
    until("a record of a new window", || {
        found = records::of_file(output).into_iter().find(|record| seq(record) >= wanted);
        found.is_some()
    });
    found.unwrap()
}

fn kept(dir: &Path, suffix: &str) -> usize {
    names(dir).iter().filter(|name| name.starts_with("out-") && name.ends_with(suffix)).count()
}

#[test]
fn a_bad_file_leaves_the_old_configuration_in_force() {
    let Some(_turn) = able("a_bad_file_leaves_the_old_configuration_in_force") else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.jsonl");
    let disk = Disk::new(16);
    let mut settings = Settings::new(dir.path(), &output, &disk);
    let mut daemon = settings.start(dir.path(), &[]);

    settings.set("sampling.interval", "'3 moons'");
    let line = settings.values.keys().position(|key| *key == "sampling.interval").unwrap() + 1;
    let message = daemon.reload();
    let place = format!("{}:{line}:", settings.path.display());
    assert!(message.status().contains("old configuration stays in force"), "{message:?}");
    assert!(message.status().contains(&place), "{message:?}");
    assert!(daemon.log().contains(&place));
    // It goes on being said, and measured.
    assert!(daemon.windows(1).status().contains(&place));
    assert_eq!(fresh(&mut daemon, &output)["interval_s"], 0.1);

    // What no parser sees.
    settings.set("sampling.interval", "'50ms'");
    settings.set("sampling.include", "['sd[']");
    assert!(daemon.reload().status().contains("sd["));
    assert_eq!(fresh(&mut daemon, &output)["interval_s"], 0.1);
    fs::remove_file(&settings.path).unwrap();
    assert!(daemon.reload().status().contains("b.toml"));

    settings.set("sampling.include", "['*']");
    let message = daemon.reload();
    assert!(message.facts().is_some() && !message.status().contains("error"), "{message:?}");
    assert_eq!(fresh(&mut daemon, &output)["interval_s"], 0.05);

    // An output that cannot be opened is no reason to stop recording.
    settings.set("output.path", "'/proc/no/such/place.jsonl'");
    daemon.reload();
    daemon.wait("the complaint", |m| m.status().contains("recording goes on at the old path"));
    fresh(&mut daemon, &output);
    daemon.stop();
    records::assert_complete(&records::of_dirs(&[dir.path()]));
}

#[test]
fn every_key_takes_effect() {
    let Some(_turn) = able("every_key_takes_effect") else { return };
    let dir = tempfile::tempdir().unwrap();
    let files = FileSystem::new();
    let (first, second) = (files.point.join("first"), files.point.join("second"));
    fs::create_dir(&first).unwrap();
    fs::create_dir(&second).unwrap();
    let (disk, other) = (Disk::new(64), Disk::new(64));
    let mut output = first.join("out.jsonl");
    let mut settings = Settings::new(dir.path(), &output, &disk);
    let mut daemon = settings.start(dir.path(), &[]);
    assert_eq!(fresh(&mut daemon, &output)["interval_s"], 0.1);

    settings.set("sampling.interval", "'60ms'");
    daemon.reload();
    assert_eq!(fresh(&mut daemon, &output)["interval_s"], 0.06);

    settings.set("output.path", &format!("'{}'", second.join("out.jsonl").display()));
    daemon.reload();
    output = second.join("out.jsonl");
    until("the new file", || output.exists());
    let begun = seq(&fresh(&mut daemon, &output));
    assert!(records::of_file(&first.join("out.jsonl")).iter().all(|record| seq(record) < begun));

    // Not measured, measured, left out.
    for (include, exclude, measured) in [
        (format!("['{}']", disk.name), "[]".to_owned(), false),
        (format!("['{}', '{}']", disk.name, other.name), "[]".to_owned(), true),
        ("['loop*']".to_owned(), format!("['{}']", other.name), false),
    ] {
        settings.set("sampling.include", &include);
        settings.set("sampling.exclude", &exclude);
        daemon.reload();
        let from = seq(&fresh(&mut daemon, &output));
        let before = other.counts();
        other.run_load(200);
        let until_seq = seq(&fresh(&mut daemon, &output)) + 1;
        fresh_after(&mut daemon, &output, until_seq);
        let window = |record: &Value| (from..=until_seq).contains(&seq(record));
        let all: Vec<Value> = records::of_file(&output).into_iter().filter(window).collect();
        let expected = other.counts().since(before);
        assert!(expected.reads > 0);
        if measured {
            records::assert_all_counted(&all, &other.name, expected);
        } else {
            let found = records::counts(&all, &other.name);
            assert_eq!((found.reads, found.writes), (0, 0), "{include} {exclude}");
        }
    }
    settings.set("sampling.exclude", "[]");

    // Each with a request in it, or there is no histogram.
    let detailed = |daemon: &mut Daemon| {
        let from = seq(&fresh(daemon, &output));
        disk.run_load(100);
        let last = seq(&fresh(daemon, &output));
        let all = records::of_file(&output);
        let window = |record: &&Value| (from..=last).contains(&seq(record));
        let latencies =
            all.iter().filter(window).flat_map(|r| r["latency_histogram"].as_array().unwrap());
        let mut reads = latencies.filter_map(|latency| latency["ops"].get("read"));
        reads.next().unwrap().get("fine").is_some()
    };
    assert!(detailed(&mut daemon));
    settings.set("output.detail", "'log2'");
    daemon.reload();
    assert!(!detailed(&mut daemon));

    // Flushes of the disk, as the kernel counts them.
    let flushes = |daemon: &mut Daemon| {
        let before = files.disk.counts();
        daemon.windows(5);
        files.disk.counts().since(before).flushes
    };
    assert_eq!(flushes(&mut daemon), 0);
    settings.set("output.fsync", "true");
    daemon.reload();
    fresh(&mut daemon, &output);
    assert!(flushes(&mut daemon) >= 3);
    settings.set("output.fsync", "false");
    daemon.reload();
    fresh(&mut daemon, &output);
    assert_eq!(flushes(&mut daemon), 0);

    settings.set("output.flush_every", "7");
    daemon.reload();
    let mut sizes = vec![records::of_file(&output).len()];
    until("three batches", || {
        let size = records::of_file(&output).len();
        if sizes.last() != Some(&size) {
            sizes.push(size);
        }
        sizes.len() == 5
    });
    // The first change may be what was collected before the reload.
    assert!(sizes[1..].windows(2).all(|pair| (pair[1] - pair[0]).is_multiple_of(7)), "{sizes:?}");
    settings.set("output.flush_every", "1");

    assert_eq!(kept(&second, ""), 0);
    settings.set("rotation.gzip_level", "0");
    settings.set("rotation.max_size", "'4KiB'");
    daemon.reload();
    until("segments", || kept(&second, ".jsonl") >= 2);
    assert_eq!(kept(&second, ".gz"), 0);
    settings.set("rotation.gzip_level", "9");
    daemon.reload();
    until("archives", || kept(&second, ".gz") >= 2);
    settings.set("rotation.max_size", "'1GiB'");
    settings.set("rotation.max_age", "'1s'");
    daemon.reload();
    let before = kept(&second, ".gz");
    until("archives by age", || kept(&second, ".gz") > before + 1);

    settings.set("retention.max_age", "'2s'");
    daemon.reload();
    let oldest = names(&second).into_iter().find(|name| name.starts_with("out-")).unwrap();
    until("removal by age", || !second.join(&oldest).exists());
    settings.set("retention.max_age", "'30d'");
    settings.set("rotation.max_age", "'24h'");
    settings.set("rotation.max_size", "'4KiB'");
    settings.set("retention.max_total_size", "'16KiB'");
    daemon.reload();
    let total = || -> u64 {
        let size = |name: &String| fs::metadata(second.join(name)).map_or(0, |file| file.len());
        names(&second).iter().map(size).sum()
    };
    let oldest = names(&second).into_iter().find(|name| name.starts_with("out-")).unwrap();
    until("removal by size", || !second.join(&oldest).exists() && total() <= 24 << 10);

    // Room that this file system never has: recording pauses, then nothing is missing.
    settings.set("retention.max_total_size", "'1GiB'");
    settings.set("retention.min_free_space", "'99%'");
    daemon.reload();
    daemon.wait("the pause", |message| message.status().contains("last error"));
    let paused = daemon.windows(5).facts().unwrap()[0];
    assert!(records::of_file(&output).iter().all(|record| seq(record) + 2 < paused));
    settings.set("retention.min_free_space", "0");
    daemon.reload();
    let end = seq(&fresh(&mut daemon, &output));
    let all = records::of_dirs(&[&second]);
    let found: Vec<u64> =
        all.iter().map(seq).filter(|seq| (paused - 5..=end).contains(seq)).collect();
    assert_eq!(found, (paused - 5..=end).collect::<Vec<_>>());

    let lines = |daemon: &Daemon| daemon.log().matches("configuration reloaded").count();
    settings.set("log.level", "'error'");
    let before = lines(&daemon);
    daemon.reload();
    assert_eq!(lines(&daemon), before);
    settings.set("log.level", "'info'");
    daemon.reload();
    assert_eq!(lines(&daemon), before + 1);

    settings.set("sampling.probe", "'tracepoint'");
    settings.set("sampling.interval", "'70ms'");
    daemon.reload();
    assert!(daemon.log().contains("sampling.probe: \"auto\" -> \"tracepoint\" (not until"));
    assert_eq!(fresh(&mut daemon, &output)["interval_s"], 0.07);

    settings.set("output.enabled", "false");
    daemon.reload();
    daemon.windows(2);
    let before = total();
    daemon.windows(3);
    assert_eq!(total(), before);
    daemon.stop();
}

/// Waits until the record `number` is in the file.
fn fresh_after(daemon: &mut Daemon, output: &Path, number: u64) {
    daemon.windows(1);
    until("a record", || records::of_file(output).iter().any(|record| seq(record) >= number));
}

#[test]
fn the_command_line_wins_also_after_a_reload() {
    let Some(_turn) = able("the_command_line_wins_also_after_a_reload") else { return };
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("said.jsonl");
    let (disk, other) = (Disk::new(16), Disk::new(16));
    let mut settings = Settings::new(dir.path(), &dir.path().join("file.jsonl"), &other);
    let said = ["--interval", "0.08", "--output", output.to_str().unwrap(), "--device", &disk.name];
    let mut daemon = settings.start(dir.path(), &said);
    settings.set("sampling.interval", "'50ms'");
    settings.set("output.detail", "'log2'");
    daemon.reload();
    let before = disk.counts();
    disk.run_load(50);
    other.run_load(50);
    assert_eq!(fresh(&mut daemon, &output)["interval_s"], 0.08);
    daemon.stop();
    assert!(!dir.path().join("file.jsonl").exists());
    let all = records::of_file(&output);
    assert_eq!(records::counts(&all, &other.name).reads, 0);
    records::assert_all_counted(&all, &disk.name, disk.counts().since(before));
    // What the command line does not say is the file's.
    let text = fs::read_to_string(&output).unwrap();
    assert!(!text.contains("\"fine\":"), "{text}");
}

#[test]
fn reloads_under_full_load_lose_nothing() {
    let Some(_turn) = alone("reloads_under_full_load_lose_nothing") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    let disk = Disk::new(64);
    let mut settings = Settings::new(dir.path(), &a.join("out.jsonl"), &disk);
    settings.set("rotation.max_size", "'16KiB'");
    let mut daemon = settings.start(dir.path(), &[]);
    let before = disk.counts();
    let mut load = disk.load(400_000);
    let mut reloads = 0;
    while load.try_wait().unwrap().is_none() {
        let output = if reloads % 3 == 0 { &a } else { &b };
        settings.set("output.path", &format!("'{}'", output.join("out.jsonl").display()));
        settings.set("sampling.interval", ["'20ms'", "'50ms'", "'1h'", "'0ms'"][reloads % 4]);
        settings.set("output.flush_every", ["1", "5"][reloads % 2]);
        settings.set("output.detail", ["'fine'", "'log2'"][reloads / 2 % 2]);
        settings.set("sampling.exclude", ["[]", "['sd*']"][reloads / 4 % 2]);
        daemon.reload();
        if reloads.is_multiple_of(5) {
            daemon.signal(rustix::process::Signal::USR1);
        }
        reloads += 1;
    }
    assert!(load.wait().unwrap().success());
    disk.quiet();
    daemon.stop();
    let after = disk.counts().since(before);
    // Otherwise it was not during the load.
    assert!(reloads >= 20, "{reloads} reloads, {after:?}");
    let records = records::of_dirs(&[&a, &b]);
    records::assert_complete(&records);
    records::assert_all_counted(&records, &disk.name, after);
    assert!(after.reads + after.writes >= 400_000);
    let found = records::counts(&records, &disk.name);
    let latencies = records.iter().flat_map(|r| r["latency_histogram"].as_array().unwrap());
    let operations = latencies.flat_map(|latency| latency["ops"].as_object().unwrap().values());
    let bytes: u64 = operations.map(|operation| operation["bytes"].as_u64().unwrap()).sum();
    assert_eq!(bytes, (found.reads + found.writes) * 4096);
}
