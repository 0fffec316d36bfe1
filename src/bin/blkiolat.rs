//! The archive reader's entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    blkiolatd::report::run::main()
}
