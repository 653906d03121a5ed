//! The `proofmark` command.

mod cli;
mod cmd;
mod failure;
mod format;
mod options;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match cli::run(&arguments) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}
