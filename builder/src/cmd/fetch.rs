//! `proofmark fetch`: brings everything that a lock names into the store.

use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::amount;
use proofmark::host::output;
use proofmark::host::recipe_folder::RecipeFolder;
use proofmark::recipe::Profile;
use proofmark::session::Session;

use crate::format::Format;

/// Which recipe.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
}

/// Fetches the files of a lock.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let loaded = RecipeFolder::open(&arguments.recipe)?;
    let (_, lock) = loaded.lock()?;
    let blobs = lock.blobs(&Profile::ALL);
    let fetcher = session.fetcher();
    let (files, bytes) = fetcher.ensure(&blobs, session.progress)?;
    output::print(&match format {
        Format::Json => {
            format!("{}\n", serde_json::json!({"files": blobs.len(), "fetched": files, "bytes": bytes}))
        }
        Format::Text => format!(
            "{} files are in {}; {files} were fetched ({})\n",
            blobs.len(),
            session.store.root().display(),
            amount::bytes(bytes)
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}
