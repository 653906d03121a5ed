//! `proofmark vendor`: writes everything that a lock names to a folder that serves as a mirror.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use proofmark::amount;
use proofmark::host::files;
use proofmark::host::output;
use proofmark::host::recipe_folder::RecipeFolder;
use proofmark::recipe::Profile;
use proofmark::session::Session;

use crate::format::Format;

/// Which recipe, and where to write.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder to write: `debian/`, `debian-security/` and `npm/` below it are laid out like the archives.
    folder: PathBuf,
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
}

/// Writes the folder.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let loaded = RecipeFolder::open(&arguments.recipe)?;
    let (text, lock) = loaded.lock()?;
    let mut blobs = lock.blobs(&Profile::ALL);
    // Include signed releases and indices, for an auditor who resolves again: a mirror may have replaced them.
    let fetcher = loaded.carrying(session.fetcher());
    fetcher.ensure(&blobs, session.progress)?;
    for blob in lock.blobs_to_carry().into_iter().chain(lock.blobs_of_indices()) {
        match fetcher.ensure(std::slice::from_ref(&blob), session.progress) {
            Ok(_) => blobs.push(blob),
            Err(error) => session.progress.note(&format!("left out: {} ({error})", blob.label)),
        }
    }
    let stage = session.progress.stage("vendor", blobs.iter().map(|blob| blob.size).sum());
    for blob in &blobs {
        let target = arguments.folder.join(blob.archive.name()).join(&blob.path);
        if !same(&target, blob.size, &blob.sha256.to_string()) {
            let bytes = session.store.read(&blob.sha256, &blob.label)?;
            files::write(&target, &bytes).with_context(|| format!("cannot write {}", target.display()))?;
        }
        stage.advance(blob.size);
    }
    let copy = arguments.folder.join("recipe.lock");
    files::write(&copy, text.as_bytes()).with_context(|| format!("cannot write {}", copy.display()))?;
    let bytes = blobs.iter().map(|blob| blob.size).sum();
    stage.done(&amount::bytes(bytes));
    output::print(&match format {
        Format::Json => format!("{}\n", serde_json::json!({"files": blobs.len(), "bytes": bytes})),
        Format::Text => format!(
            "{} files, {} in {}; build from it with --vendor {} --offline\n",
            blobs.len(),
            amount::bytes(bytes),
            arguments.folder.display(),
            arguments.folder.display()
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the file already exists, byte for byte.
fn same(path: &Path, size: u64, sha256: &str) -> bool {
    let right_size = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == size);
    let digest = || std::fs::read(path).map(|bytes| rootfs::content::Sha256Digest::of(&bytes).to_string());
    right_size && digest().is_ok_and(|digest| digest == sha256)
}
