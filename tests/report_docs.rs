//! Every command in `docs/blkiolat.md` is one that the program understands.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, where a panic is the failure

use blkiolatd::report::cli::Cli;
use clap::Parser;

/// The words of a shell command, as far as the document needs: quotes, comments, redirections and
/// what stands before a pipe.
fn words(command: &str) -> Vec<String> {
    let command = command.rsplit(" | ").next().unwrap();
    let command = command.split(" #").next().unwrap().split(" > ").next().unwrap();
    let mut words = Vec::new();
    for (place, part) in command.split('"').enumerate() {
        if place % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn documented_commands_are_understood() {
    let docs = include_str!("../docs/blkiolat.md");
    let commands: Vec<_> =
        docs.lines().filter_map(|line| line.strip_prefix("$ ")).map(words).collect();
    assert!(commands.len() >= 15);
    for command in commands {
        assert_eq!(command[0], "blkiolat");
        let parsed = Cli::try_parse_from(&command);
        assert!(parsed.is_ok(), "{command:?}: {}", parsed.unwrap_err());
    }
}

/// The report that the document shows is one that the program made: line by line, up to the dots.
#[test]
fn documented_output_is_the_programs() {
    let golden = include_str!("golden/report.txt");
    let docs = include_str!("../docs/blkiolat.md");
    let shown = docs.split("$ blkiolat report --since \"2h ago\"\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();
    assert!(shown.lines().count() > 10);
    for line in shown.lines().filter(|line| *line != "...") {
        assert!(golden.lines().any(|actual| actual == line), "{line}");
    }
}

/// The screen that the documents show is one that the program drew.
#[test]
fn documented_screen_is_the_programs() {
    let golden = include_str!("golden/top_missed.txt");
    for docs in [include_str!("../docs/blkiolat.md"), include_str!("../README.md")] {
        let shown = docs.split("```text\nblkiolat top").nth(1).unwrap();
        let shown = format!("blkiolat top{}", shown.split("\n```").next().unwrap());
        assert!(shown.lines().count() > 6);
        for line in shown.lines().filter(|line| *line != "...") {
            assert!(golden.lines().any(|actual| actual == line), "{line}");
        }
    }
}
