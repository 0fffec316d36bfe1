//! The kernel's half of the histogram against Rust's: `bpf/histogram.h`, compiled for this host.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, thread};

use blkiolatd::histogram::{BUCKETS, OVERFLOW_BUCKET, UNIT_NS, bucket_bounds_ns, bucket_of_ns};

const MAIN: &str = r#"
#include "histogram.h"
#include <stdio.h>

int main(void)
{
	unsigned long long ns;

	printf("%llu %d\n", UNIT_NS, BUCKETS);
	while (fread(&ns, sizeof(ns), 1, stdin) == 1)
		printf("%u\n", bucket_of_ns(ns));
	return 0;
}
"#;

/// Prints the header's index of each of `latencies`, after its unit and number of buckets.
fn kernels_half(latencies: &[u64]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let (source, program) = (directory.path().join("main.c"), directory.path().join("main"));
    fs::write(&source, MAIN).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    // clang builds the BPF object: where that worked, it is here.
    let compiled = Command::new("clang")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-I"])
        .args([&include, &source])
        .arg("-o")
        .arg(&program)
        .status()
        .expect("clang");
    assert!(compiled.success());
    let mut child =
        Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes: Vec<u8> = latencies.iter().flat_map(|ns| ns.to_ne_bytes()).collect();
    // Another thread: the answers would fill the pipe meanwhile.
    let writer = thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn both_halves_put_every_latency_into_the_same_bucket() {
    let mut latencies = vec![0, u64::MAX];
    for index in 0..BUCKETS {
        let (low, high) = bucket_bounds_ns(index);
        for edge in [low, high] {
            latencies.extend([edge.saturating_sub(1), edge, edge.saturating_add(1)]);
        }
    }
    // Where the header divides in another way.
    latencies.extend([(1 << 31) - 1, 1 << 31, (1 << 31) + 1]);
    let mut state = 1_u64;
    let mut random = || {
        // SplitMix64: the same numbers each time.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    // Evenly over the orders of magnitude, not only the largest.
    latencies.extend((0..100_000).map(|_| random() >> (random() % 64)));

    let answers = kernels_half(&latencies);
    let mut lines = answers.lines();
    assert_eq!(lines.next(), Some(format!("{UNIT_NS} {BUCKETS}").as_str()));
    let theirs: Vec<usize> = lines.map(|line| line.parse().unwrap()).collect();
    assert_eq!(theirs.len(), latencies.len());
    for (&ns, theirs) in latencies.iter().zip(theirs) {
        assert_eq!(theirs, bucket_of_ns(ns), "{ns} ns");
    }
    assert_eq!(bucket_of_ns(u64::MAX), OVERFLOW_BUCKET);
}
