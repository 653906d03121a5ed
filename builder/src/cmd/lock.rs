//! `proofmark lock`: resolves a recipe's packages, and writes `recipe.lock` and what it carries beside it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::amount;
use proofmark::flow::lock::{self, Request};
use proofmark::host::recipe_folder::{self, RecipeFolder};
use proofmark::host::{clock, output};
use proofmark::lock::Lock;
use proofmark::session::Session;

use crate::failure;
use crate::format::Format;
use crate::options::registry::Provenance;

/// Which recipe, and whether to write.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
    /// Only check that the lock fits the recipe and this program, and that what it carries is beside it; exits with 4
    /// if not.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    provenance: Provenance,
}

/// Writes or checks the lock.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let folder = RecipeFolder::open(&arguments.recipe)?;
    if arguments.check {
        return check(&folder, format);
    }
    let previous = folder.lock_if_any()?.map(|(_, lock)| lock);
    let request = Request {
        recipes: &folder.recipes,
        previous: previous.as_ref(),
        registry: &arguments.provenance.registry.registry()?,
        accept_lost_provenance: &arguments.provenance.accept_lost_provenance,
        now: clock::now(),
    };
    let locked = lock::lock(&request, session)?;
    folder.write_lock(&locked.lock, &session.store)?;
    for remark in &locked.remarks {
        session.progress.note(&format!("remark: {remark}"));
    }
    say(&locked.lock, &folder, format)?;
    Ok(ExitCode::SUCCESS)
}

fn check(folder: &RecipeFolder, format: Format) -> anyhow::Result<ExitCode> {
    match folder.whole_lock() {
        Ok(lock) => {
            say(&lock, folder, format)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if recipe_folder::is_stale(&error) => {
            failure::report(&error.into());
            Ok(ExitCode::from(failure::NO))
        }
        Err(error) => Err(error.into()),
    }
}

fn say(lock: &Lock, folder: &RecipeFolder, format: Format) -> io::Result<()> {
    let bytes = lock.blobs(&proofmark::recipe::Profile::ALL).iter().map(|blob| blob.size).sum();
    output::print(&match format {
        Format::Text => format!(
            "{}: {} Debian packages, {} npm packages, {}\n",
            folder.lock_path.display(),
            lock.debs.len(),
            lock.npm.len(),
            amount::bytes(bytes)
        ),
        Format::Json => format!(
            "{}\n",
            serde_json::json!({
                "lock": folder.lock_path.display().to_string(),
                "debs": lock.debs.len(),
                "npm": lock.npm.len(),
                "bytes": bytes,
            })
        ),
    })
}
