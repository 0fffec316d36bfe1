//! `blkiolatd`, the daemon. Thin: parses, calls, and turns failures into exit codes.

use std::io::{self, Write};
use std::process::ExitCode;

use blkiolatd::cli::{self, CheckError, Cli, Command, exit};
use blkiolatd::daemon::{self, Failure};
use blkiolatd::doctor;
use clap::Parser;

fn main() -> ExitCode {
    let code = match Cli::parse().into_command() {
        Command::Run(args) => match daemon::run(args) {
            Ok(()) => exit::SUCCESS,
            Err(failure) => {
                let code = match failure {
                    Failure::Config(_) => exit::USAGE,
                    Failure::NotPermitted(_) => exit::NOT_PERMITTED,
                    Failure::Other(_) => exit::FAILURE,
                };
                complain(&failure, code)
            }
        },
        Command::Check(args) => match cli::check(&args, &mut io::stdout()) {
            Ok(()) => exit::SUCCESS,
            Err(CheckError::Output(error)) => closed_pipe(&error),
            Err(error) => complain(&error, exit::USAGE),
        },
        Command::Doctor => match doctor::examine(&mut io::stdout()) {
            Ok(verdict) => verdict.exit_code(),
            Err(error) => closed_pipe(&error),
        },
    };
    ExitCode::from(code)
}

fn closed_pipe(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return exit::SUCCESS;
    }
    complain(&format!("cannot write to standard output: {error}"), exit::FAILURE)
}

fn complain(error: &dyn std::fmt::Display, code: u8) -> u8 {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "blkiolatd: {error}");
    code
}
