//! `proofmark schema`.

use std::process::ExitCode;

use proofmark::host::output;
use proofmark::recipe;

/// Prints the JSON Schema of recipes; editors complete a recipe with it when its `#:schema` line names it.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Prints the schema.
pub fn run(_: &Arguments) -> anyhow::Result<ExitCode> {
    output::print(&recipe::schema())?;
    Ok(ExitCode::SUCCESS)
}
