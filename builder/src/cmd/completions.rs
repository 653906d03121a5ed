//! `proofmark completions`: scripts by which a shell completes commands.

use std::process::ExitCode;

use anyhow::Context;
use clap_complete::Shell;
use proofmark::host::output;

/// Prints the completions of a shell. For bash: `proofmark completions bash > ~/.local/share/bash-completion/completions/proofmark`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Choice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    Bash,
    Zsh,
    Fish,
}

/// Prints the completions; `program` is the whole command line.
pub fn run(arguments: &Arguments, mut program: clap::Command) -> anyhow::Result<ExitCode> {
    let shell = match arguments.shell {
        Choice::Bash => Shell::Bash,
        Choice::Zsh => Shell::Zsh,
        Choice::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, "proofmark", &mut script);
    output::print(&String::from_utf8(script).context("the completions are not text")?)?;
    Ok(ExitCode::SUCCESS)
}
