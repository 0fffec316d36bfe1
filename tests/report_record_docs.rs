//! The programs in `docs/record.md`, run as they are written.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

mod support;

use std::fs;
use std::process::Command;

use blkiolatd::histogram;
use serde_json::Value;
use support::*;

const DOCS: &str = include_str!("../docs/record.md");

/// The content of the only code block in that language.
fn block(language: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let mut blocks = DOCS.split(&fence).skip(1);
    let block = blocks.next().unwrap().split("```").next().unwrap();
    assert!(blocks.next().is_none());
    block
}

fn python(arguments: &[&str]) -> String {
    let output = Command::new("python3").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_index_and_its_inverse_are_those_of_the_program() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("record.py"), block("python")).unwrap();
    let mut latencies: Vec<u64> = (0..62)
        .flat_map(|bit| {
            let power = 1u64 << bit;
            [power - 1, power, power + power / 3]
        })
        .collect();
    for index in 0..histogram::BUCKETS {
        let (low, high) = histogram::bucket_bounds_ns(index);
        latencies.extend([low, if high == u64::MAX { low } else { high - 1 }]);
    }
    let program = format!(
        "import sys; sys.path.insert(0, {:?})\n\
         from record import index_of, bounds_us\n\
         for ns in {latencies:?}: print(index_of(ns))\n\
         for index in range(529): print(*bounds_us(index))",
        root.path()
    );
    let text = python(&["-c", &program]);
    let mut lines = text.lines();
    for ns in latencies {
        assert_eq!(lines.next().unwrap().parse(), Ok(histogram::bucket_of_ns(ns)), "{ns}");
    }
    for index in 0..histogram::BUCKETS {
        let (low, high) = histogram::bucket_bounds_ns(index);
        let high = if high == u64::MAX { f64::INFINITY } else { high as f64 / 1e3 };
        let bounds: Vec<f64> =
            lines.next().unwrap().split(' ').map(|word| word.parse().unwrap()).collect();
        assert_eq!(bounds, [low as f64 / 1e3, high], "{index}");
    }
    assert_eq!(lines.next(), None);
}

/// The documented programs and `blkiolat report` agree. The one in SQL needs Python's duckdb: it is
/// run where that is installed (`BLKIOLAT_DUCKDB` can name another Python that has it).
#[test]
fn percentiles_are_those_of_the_report() {
    let root = tempfile::tempdir().unwrap();
    let (records, _) = generate(&plan("h", 1, 120));
    let path = root.path().join("blkiolat.jsonl");
    fs::write(&path, lines(&records)).unwrap();
    let script = root.path().join("record.py");
    fs::write(&script, block("python")).unwrap();
    let by_python = python(&[script.to_str().unwrap(), path.to_str().unwrap()]);
    let json = text(blkiolat(&["report", "-f", "json", path.to_str().unwrap()]), 0);
    let report: Value = serde_json::from_str(&json).unwrap();
    let rows: Vec<&Value> =
        report["rows"].as_array().unwrap().iter().filter(|row| row["operation"] != "all").collect();
    assert_eq!(by_python.lines().count(), rows.len());
    let same = |p99: f64, row: &Value| {
        // The report never exceeds the exact maximum.
        let max = row["max_us"].as_f64().unwrap();
        (p99.min(max) - row["p99_us"].as_f64().unwrap()).abs() < 1e-6
    };
    for row in &rows {
        let name = |key: &str| row[key].as_str().unwrap();
        let start = format!("{} {} {} ", name("device"), name("operation"), row["count"]);
        let line = by_python.lines().find(|line| line.starts_with(&start)).unwrap();
        assert!(same(line[start.len()..].parse().unwrap(), row), "{line} {row}");
    }
    let interpreter = std::env::var("BLKIOLAT_DUCKDB").unwrap_or("python3".into());
    let program = format!(
        "import duckdb\nfor row in duckdb.sql({:?}).fetchall(): print(*row)",
        block("sql").replace("blkiolat.jsonl", path.to_str().unwrap())
    );
    let output = Command::new(&interpreter).args(["-c", &program]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("No module named 'duckdb'") {
        return support::skip(&format!("{interpreter} has no duckdb (pip install duckdb)"));
    }
    assert!(output.status.success(), "{errors}");
    let by_sql = String::from_utf8(output.stdout).unwrap();
    let reads: Vec<_> = rows.iter().filter(|row| row["operation"] == "read").collect();
    assert_eq!(by_sql.lines().count(), reads.len());
    for (line, row) in by_sql.lines().zip(reads) {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], row["device"]);
        assert_eq!(words[1], row["count"].to_string());
        assert!(same(words[2].parse().unwrap(), row), "{line} {row}");
    }
}
