//! `proofmark size`.

use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::claim::explain;
use proofmark::host::built::Built;
use proofmark::host::output;

use crate::format::Format;

/// Shows where the bytes of an image are: by package and by folder, largest first. Sizes of files are those before
/// compression; a folder counts with everything below it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of an image that `proofmark build` wrote.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// How many packages and how many folders to list.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// How deep the listed folders may lie.
    #[arg(long, value_name = "N", default_value_t = 4)]
    depth: usize,
}

/// Prints the sizes.
pub fn run(arguments: &Arguments, format: Format) -> anyhow::Result<ExitCode> {
    let built = Built::open(&arguments.image)?;
    let sizes = explain::sizes(&built.contents, &built.manifest, arguments.depth);
    match format {
        Format::Text => output::print(&sizes.to_text(arguments.top))?,
        Format::Json => {
            let sizes = sizes.top(arguments.top);
            output::print(&format!("{}\n", serde_json::to_string_pretty(&sizes)?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
