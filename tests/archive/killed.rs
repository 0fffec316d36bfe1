//! Processes that are killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use blkiolatd::archive::Settings;

use super::support::*;

const KILLED_DIR: &str = "BLKIOLATD_TEST_KILLED_DIR";
const KILLED_FROM: &str = "BLKIOLATD_TEST_KILLED_FROM";

fn killed_settings(dir: &Path) -> Settings {
    let mut settings = settings(dir);
    settings.output.flush_every = 3;
    settings.rotation.max_size = 8000;
    settings
}

/// Not a test of its own: the process that `nothing_flushed_is_lost_by_sigkill` kills.
#[test]
#[ignore = "run by nothing_flushed_is_lost_by_sigkill"]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(KILLED_DIR) else { return };
    let from: u64 = std::env::var(KILLED_FROM).unwrap().parse().unwrap();
    let writer = spawn(&killed_settings(Path::new(&dir)));
    for seq in from..from + 1_000_000 {
        writer.push(record(seq));
        if seq % 3 == 0 {
            writer.flush(AGES).unwrap();
            println!("flushed {seq}");
            std::io::stdout().flush().unwrap();
        }
    }
}

#[test]
fn nothing_flushed_is_lost_by_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let rounds = 60;
    let (mut next, mut flushed) = (0, Vec::new());
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["killed::writes_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(KILLED_DIR, dir.path())
            .env(KILLED_FROM, u64::to_string(&next))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // 1 to 60 flushes: up to some rotations and compressions.
        let flushes = 1 + (round * 37) % 60;
        let reported = |line: String| line.strip_prefix("flushed ")?.parse::<u64>().ok();
        let mut last = None;
        lines
            .by_ref()
            .map(Result::unwrap)
            .filter_map(reported)
            .take(flushes)
            .for_each(|seq| last = Some(seq));
        child.kill().unwrap();
        // What it said before it died counts too.
        last = lines.map_while(Result::ok).filter_map(reported).last().or(last);
        child.wait().unwrap();
        let last = last.expect("the child wrote something");
        flushed.extend(next..=last);
        // Beyond what was reported at most a batch can be there: leave a gap.
        next = last + 1000;
    }
    let writer = spawn(&killed_settings(dir.path()));
    until("everything is compressed", || {
        names(dir.path()).iter().all(|name| !name.starts_with("b-") || name.ends_with(".gz"))
    });
    writer.close(AGES).unwrap();
    let found: Vec<u64> = records(dir.path()).iter().map(|record| record.seq).collect();
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "twice or out of order");
    let missing: Vec<_> = flushed.iter().filter(|seq| found.binary_search(seq).is_err()).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    assert!(!names(dir.path()).iter().any(|name| name.contains("tmp") || name.contains("lock")));
    for name in names(dir.path()).iter().filter(|name| name.ends_with(".gz")) {
        let status = Command::new("gzip").arg("-t").arg(dir.path().join(name)).status().unwrap();
        assert!(status.success(), "{name}");
    }
}
