//! `proofmark fetch`: brings everything that a lock names into the store.

use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::amount;
use proofmark::host::fetch::Fetcher;
use proofmark::host::output;
use proofmark::recipe::Profile;

use crate::cli::{Format, Session};

/// Which recipe.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
}

/// Fetches.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
    let loaded = super::load(&arguments.recipe)?;
    let (_, lock) = loaded.lock()?;
    let blobs = lock.blobs(&Profile::ALL);
    let fetcher = Fetcher::new(&session.store, &session.mirrors, session.network);
    let (files, bytes) = fetcher.ensure(&blobs, session.progress)?;
    output::print(&match session.format {
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
