//! `proofmark why`.

use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::claim::explain;
use proofmark::host::built::Built;
use proofmark::host::output;

use crate::failure::hinted;
use crate::format::Format;

/// Says what is known of a path of an image: which package, recipe line or fix-up brought it, and why that package is
/// there. Links to folders on the way are followed, a link itself says where it leads. Exits with 1 when nothing is
/// there.
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

/// Says it.
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
