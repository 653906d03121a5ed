//! `proofmark schema`.

use std::process::ExitCode;

use proofmark::host::output;
use proofmark::recipe;

/// Prints the JSON Schema of recipes: editors complete by it when a recipe names it in its `#:schema` line.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Prints the schema.
pub fn run(_: &Arguments) -> anyhow::Result<ExitCode> {
    output::print(&recipe::schema())?;
    Ok(ExitCode::SUCCESS)
}
