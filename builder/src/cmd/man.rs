//! `proofmark man`: the manual.

use std::process::ExitCode;

use anyhow::Context;
use proofmark::host::output;

use crate::failure::hinted;

/// Prints a manual page, for `man`: `proofmark man build | man -l -`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The command that the page describes [default: the whole program].
    #[arg(value_name = "COMMAND")]
    verb: Option<String>,
}

/// Prints the page; `program` is the whole command line.
pub fn run(arguments: &Arguments, mut program: clap::Command) -> anyhow::Result<ExitCode> {
    program.build();
    let page = match &arguments.verb {
        None => program,
        Some(verb) => program
            .find_subcommand(verb)
            .cloned()
            .ok_or_else(|| hinted(format!("there is no command {verb:?}"), "see `proofmark --help`"))?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    output::print(&String::from_utf8(text).context("the page is not text")?)?;
    Ok(ExitCode::SUCCESS)
}
