//! `proofmark schema`: prints the JSON Schema of recipes.

use std::io::Write;
use std::process::ExitCode;

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Prints the schema.
pub fn run(_: &Arguments) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(proofmark::recipe::schema().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
