//! The fuzzers' entry functions over the kept corpus, and over inputs made from it: what a fuzzer
//! once found stays found, with any compiler. `make fuzz` searches for more (tests/fuzz.mk).

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Inputs made for each target; `BLKIOLATD_FUZZ_CASES` says otherwise.
const CASES: u32 = 1000;

/// The corpus of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{target} has no corpus");
    inputs
}

/// One change to an input; places are shares of its length.
#[derive(Clone, Debug)]
enum Edit {
    Set(u16, u8),
    Flip(u16, u8),
    Insert(u16, Vec<u8>),
    Remove(u16, u8),
    Repeat(u16, u8),
    /// The rest of another input of the corpus from its place on.
    Splice(u16, prop::sample::Index, u16),
    Truncate(u16),
}

fn edit() -> impl Strategy<Value = Edit> {
    // Bytes that mean something in one of the formats, and any.
    let telling = prop::sample::select(b"\n\0\"\\{}[]:,;-=.0912eE\x1b\x7f\xff\x80 ".to_vec());
    let byte = prop_oneof![telling, any::<u8>()];
    let place = any::<u16>;
    prop_oneof![
        (place(), byte.clone()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (place(), 0..8u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (place(), prop::collection::vec(byte, 1..12)).prop_map(|(at, new)| Edit::Insert(at, new)),
        (place(), any::<u8>()).prop_map(|(at, length)| Edit::Remove(at, length)),
        (place(), any::<u8>()).prop_map(|(at, length)| Edit::Repeat(at, length)),
        (place(), any::<prop::sample::Index>(), place())
            .prop_map(|(at, other, from)| Edit::Splice(at, other, from)),
        place().prop_map(Edit::Truncate),
    ]
}

fn apply(input: &mut Vec<u8>, edit: &Edit, others: &[(String, Vec<u8>)]) {
    let place = |at: u16, length: usize| length * usize::from(at) / usize::from(u16::MAX);
    let length = input.len();
    match edit {
        Edit::Set(at, byte) if length > 0 => input[place(*at, length - 1)] = *byte,
        Edit::Flip(at, bit) if length > 0 => input[place(*at, length - 1)] ^= 1 << bit,
        Edit::Set(..) | Edit::Flip(..) => {}
        Edit::Insert(at, new) => {
            let at = place(*at, length);
            input.splice(at..at, new.iter().copied());
        }
        Edit::Remove(at, count) => {
            let at = place(*at, length);
            input.drain(at..(at + usize::from(*count)).min(length));
        }
        Edit::Repeat(at, count) => {
            let at = place(*at, length);
            let piece = input[at..(at + usize::from(*count)).min(length)].to_vec();
            input.splice(at..at, piece);
        }
        Edit::Splice(at, other, from) => {
            let other = &other.get(others).1;
            input.truncate(place(*at, length));
            input.extend_from_slice(&other[place(*from, other.len())..]);
        }
        Edit::Truncate(at) => input.truncate(place(*at, length)),
    }
}

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    for (name, input) in &corpus {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(input)));
        assert!(outcome.is_ok(), "fuzz/corpus/{target}/{name}");
    }
    let cases = std::env::var("BLKIOLATD_FUZZ_CASES").map_or(CASES, |n| n.parse().unwrap());
    // What fails is printed in full, and belongs into the corpus.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let strategy = (any::<prop::sample::Index>(), prop::collection::vec(edit(), 1..8));
    TestRunner::new(config)
        .run(&strategy, |(start, edits)| {
            let mut input = start.get(&corpus).1.clone();
            edits.iter().for_each(|edit| apply(&mut input, edit, &corpus));
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&input)));
            let shown = input.escape_ascii();
            prop_assert!(outcome.is_ok(), "input for {}: b\"{}\"", target, shown);
            Ok(())
        })
        .unwrap();
}

#[test]
fn configuration_files() {
    replay("config", targets::config);
}

#[test]
fn record_files() {
    replay("report", targets::report);
}

#[test]
fn log_directories() {
    replay("archive", targets::archive);
}

#[test]
fn tracepoint_formats() {
    replay("format", targets::format);
}

#[test]
fn command_lines() {
    replay("arguments", targets::arguments);
}
