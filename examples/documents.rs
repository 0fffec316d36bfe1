//! Writes the manual pages and the shells' completions into a directory:
//! `cargo run --example documents DIRECTORY`.
//!
//! Nothing in them is said twice: options come from the definition of the command line, keys from
//! the comments of `config/blkiolatd.toml`, and what is left from `packaging/man/*.roff`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

const CONFIGURATION: &str = include_str!("../config/blkiolatd.toml");
const DAEMON_SECTIONS: &str = include_str!("../packaging/man/blkiolatd.8.roff");
const REPORT_SECTIONS: &str = include_str!("../packaging/man/blkiolat.1.roff");

fn main() -> Result<(), Box<dyn Error>> {
    let target =
        std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: documents DIRECTORY")?;
    let (manual, completions) = (target.join("man"), target.join("completions"));
    fs::create_dir_all(&manual)?;
    fs::create_dir_all(&completions)?;

    for (command, section, sections) in programs() {
        let page = manual.join(format!("{}.{section}", command.get_name()));
        fs::write(page, command_page(&command, section, sections)?)?;
        complete(command, &completions)?;
    }
    fs::write(manual.join("blkiolatd.toml.5"), configuration_page(CONFIGURATION)?)?;
    Ok(())
}

/// The programs with the section of the manual that they belong to and the parts of their pages that
/// are written by hand.
fn programs() -> [(Command, &'static str, &'static str); 2] {
    [
        (blkiolatd::cli::Cli::command(), "8", DAEMON_SECTIONS),
        (blkiolatd::report::cli::Cli::command(), "1", REPORT_SECTIONS),
    ]
}

fn complete(mut command: Command, directory: &Path) -> Result<(), Box<dyn Error>> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, &name, directory)?;
    }
    Ok(())
}

/// The page of a command: its options, its exit codes, and `sections` in roff.
fn command_page(
    command: &Command,
    section: &str,
    sections: &str,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut page = Vec::new();
    let man = Man::new(command.clone())
        .section(section)
        .manual("blkiolatd")
        .source(format!("blkiolatd {}", env!("CARGO_PKG_VERSION")));
    // The subcommand `help` explains itself.
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis(&command).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.has_subcommands() {
        subcommands(&command).to_writer(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    for sub in command.get_subcommands().filter(|sub| has_options_of_its_own(&command, sub)) {
        let mut options = Vec::new();
        Man::new(sub.clone()).render_options_section(&mut options)?;
        let heading = format!(".SH \"OPTIONS OF {}\"", sub.get_name().to_uppercase());
        page.extend(String::from_utf8(options)?.replacen(".SH OPTIONS", &heading, 1).into_bytes());
    }
    if let Some(text) = command.get_after_help() {
        exit_codes(&text.to_string()).to_writer(&mut page)?;
    }
    page.extend_from_slice(sections.as_bytes());
    Ok(page)
}

/// The usage lines of the command and of its subcommands.
fn synopsis(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let mut commands = vec![command.clone()];
    commands.extend(command.get_subcommands().cloned());
    for mut command in commands {
        let usage = command.render_usage().to_string();
        for line in usage.lines().filter(|line| !line.contains("<COMMAND>")) {
            let line = line.trim_start_matches("Usage:").trim();
            roff.text([bold(line)]);
            roff.control("br", []);
        }
    }
    roff
}

/// Commands with what they do.
fn subcommands(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for sub in command.get_subcommands() {
        roff.control("TP", []);
        roff.text([bold(sub.get_name())]);
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        roff.text([roman(format!("{about}."))]);
    }
    roff
}

/// Whether a subcommand has options, and not just those of the main command as the default
/// subcommand has.
fn has_options_of_its_own(command: &Command, sub: &Command) -> bool {
    let own = |command: &Command| -> Vec<String> {
        let ids = command.get_arguments().map(|arg| arg.get_id().to_string());
        ids.filter(|id| !matches!(id.as_str(), "help" | "version")).collect()
    };
    let options = own(sub);
    !options.is_empty() && options != own(command)
}

/// The list of exit codes that stands below `--help`.
fn exit_codes(text: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for line in text.lines() {
        if let Some((code, meaning)) = line.trim().split_once("  ") {
            roff.control("TP", []);
            roff.text([bold(code)]);
            roff.text([roman(format!("{}.", meaning.trim()))]);
        }
    }
    roff
}

/// The page of the configuration file. Its comments are the text: the first paragraphs describe the
/// file, and what stands above a key describes the key.
fn configuration_page(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut roff = Roff::new();
    let source = format!("blkiolatd {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["blkiolatd.toml", "5", "", source.as_str(), "blkiolatd"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("blkiolatd.toml - configuration of the block I/O latency recorder")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([italic("/etc/blkiolatd/blkiolatd.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman("The file is in TOML. Everything in it is checked: an unknown key or an impossible value is an error, and all errors are shown at once with line and column.")]);

    let mut comment: Vec<&str> = Vec::new();
    let mut in_section = false;
    for line in text.lines() {
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            roff.control("SH", [format!("[{name}]").as_str()]);
            in_section = true;
        } else if let Some((key, value)) = line.split_once(" = ") {
            roff.control("TP", []);
            roff.text([bold(key), roman(" = "), roman(value)]);
            paragraphs(&mut roff, &comment);
            comment.clear();
        } else if !in_section {
            // The first line only names the file; the page's NAME does that already.
            roff.control("PP", []);
            paragraphs(&mut roff, comment.get(2..).unwrap_or_default());
            comment.clear();
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("blkiolatd"), roman("(8), "), bold("blkiolat"), roman("(1)")]);
    let mut page = Vec::new();
    roff.to_writer(&mut page)?;
    Ok(page)
}

fn paragraphs(roff: &mut Roff, lines: &[&str]) {
    for (index, paragraph) in lines.split(|line| line.is_empty()).enumerate() {
        if index > 0 {
            // The next paragraph at the same indentation, inside a key or not.
            roff.control("sp", []);
        }
        roff.text([roman(paragraph.join(" ").replace('`', "\""))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_s_page_has_every_key_with_its_default() {
        let page = String::from_utf8(configuration_page(CONFIGURATION).unwrap()).unwrap();
        let mut section = 0;
        for key in blkiolatd::config::key::KEYS {
            let heading = format!(".SH [{}]", key.section());
            section = page.find(&heading).unwrap_or_else(|| panic!("{heading}")).max(section);
            let name = key.short_name().replace('-', "\\-");
            let entry = format!(".TP\n\\fB{name}\\fR = ");
            let start = page[section..].find(&entry).unwrap_or_else(|| panic!("{entry}"));
            let described = page[section + start..].lines().nth(2).unwrap();
            assert!(described.len() > 20, "{}: {described}", key.name);
        }
    }

    #[test]
    fn the_daemon_s_page_has_every_option_and_exit_code() {
        let command = blkiolatd::cli::Cli::command();
        let page = command_page(&command, "8", DAEMON_SECTIONS).unwrap();
        let page = String::from_utf8(page).unwrap().replace("\\-", "-");
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("\\fB--{option}\\fR")), "{option}");
        }
        for heading in
            ["COMMANDS", "OPTIONS", "\"OPTIONS OF CHECK\"", "\"EXIT STATUS\"", "SIGNALS", "FILES"]
        {
            assert!(page.contains(&format!(".SH {heading}\n")), "{heading}");
        }
        assert!(page.contains(".TP\n\\fB77\\fR\nnot permitted"));
    }
}
