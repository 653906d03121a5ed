//! `proofmark new`: a recipe to start from.

use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::host::{output, starter};
use serde_json::json;

use crate::format::Format;

/// Writes a recipe that builds: one package, one service, with comments. The folder must be absent or empty.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder to write; the image is named after it.
    folder: PathBuf,
}

/// Writes the folder.
pub fn run(arguments: &Arguments, format: Format) -> anyhow::Result<ExitCode> {
    let name = starter::write(&arguments.folder)?;
    let folder = arguments.folder.display();
    output::print(&match format {
        Format::Json => format!("{}\n", json!({"folder": folder.to_string(), "name": name})),
        Format::Text => format!(
            "{folder} has the recipe of {name}. Next:\n  proofmark lock {folder}\n  proofmark build {folder}\n  \
             proofmark run out/{name}-1\n"
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}
