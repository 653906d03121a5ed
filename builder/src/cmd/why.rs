//! `proofmark why`.

use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::claim::explain;
use proofmark::host::built::Built;
use proofmark::host::output;

use crate::failure::hinted;
use crate::format::Format;

/// Shows which package, recipe line or fix-up brought a path into an image, and why that package is there. Follows
/// links to folders on the way; for a link itself, shows its target. Exits with 1 when the image has no such path.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of an image that `proofmark build` wrote.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Path in the image.
    #[arg(value_name = "PATH")]
    path: String,
    /// The lock that it was built from [default: recipe.lock in IMAGE].
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

/// Prints where the path comes from.
pub fn run(arguments: &Arguments, format: Format) -> anyhow::Result<ExitCode> {
    let built = Built::open(&arguments.image)?;
    let lock = built.lock(arguments.lock.as_deref())?;
    let told = explain::why(&built.contents, lock.as_ref(), &arguments.path)
        .map_err(|absence| hinted(absence.message(), absence.hint()))?;
    match format {
        Format::Text => output::print(&told.to_text())?,
        Format::Json => output::print(&format!("{}\n", serde_json::to_string_pretty(&told)?))?,
    }
    Ok(ExitCode::SUCCESS)
}
