//! `proofmark lock`: resolves a recipe's packages and writes `recipe.lock` beside it, and what that carries.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::amount;
use proofmark::host::carried;
use proofmark::host::fetch::Fetcher;
use proofmark::host::locking::{Locked, Locking};
use proofmark::host::output;
use proofmark::lock::Lock;

use super::Loaded;
use crate::cli::{Format, Session};
use crate::failure;

/// Which recipe, and whether to write.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
    /// Only check that the lock fits the recipe and this program, and has what it carries beside it; exit 4 when it does
    /// not.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    provenance: Provenance,
}

/// Who is believed about packages, and what may be lost from one lock to the next.
#[derive(Debug, clap::Args)]
pub struct Provenance {
    #[command(flatten)]
    registry: super::inputs::RegistryTrust,
    /// An npm package that had attestations and may have none now, or may come from another repository than before; may
    /// be given several times.
    #[arg(long, value_name = "NAME")]
    accept_lost_provenance: Vec<String>,
}

/// Locks, or checks.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
    let loaded = super::load(&arguments.recipe)?;
    if arguments.check {
        return check(&loaded, session);
    }
    let previous = loaded.lock_if_any()?.map(|(_, lock)| lock);
    let locked = make(&loaded, previous.as_ref(), &arguments.provenance, session)?;
    loaded.write_lock(&locked.lock, &session.store)?;
    for remark in &locked.remarks {
        session.progress.note(&format!("remark: {remark}"));
    }
    say(&locked.lock, &loaded, session)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a lock from what the mirrors have now.
pub fn make(
    loaded: &Loaded,
    previous: Option<&Lock>,
    provenance: &Provenance,
    session: &Session,
) -> anyhow::Result<Locked> {
    let fetcher = Fetcher::new(&session.store, &session.mirrors, session.network);
    let registry = provenance.registry.registry()?;
    let locking = Locking {
        registry: &registry,
        fetcher: &fetcher,
        progress: session.progress,
        now: super::now(),
        accept_lost_provenance: &provenance.accept_lost_provenance,
    };
    let mut locked = locking.make(&loaded.recipes, previous)?;
    let mut accepted = Vec::new();
    for (recipe, tree) in loaded.recipes.iter().zip(&locked.trees) {
        accepted.extend(super::validate::accepted(recipe, &locked.lock, tree, session)?);
    }
    accepted.sort();
    accepted.dedup();
    locked.lock.validated = accepted;
    Ok(locked)
}

fn check(loaded: &Loaded, session: &Session) -> anyhow::Result<ExitCode> {
    let whole = || {
        let (_, lock) = loaded.lock()?;
        carried::check(&lock, &carried::folder(&loaded.lock_path))?;
        anyhow::Ok(lock)
    };
    let stale = |error: &anyhow::Error| {
        let differs = matches!(
            error.downcast_ref(),
            Some(carried::Error::Other { .. } | carried::Error::Unnamed { .. })
        );
        differs || error.downcast_ref::<proofmark::lock::Error>().is_some()
    };
    match whole() {
        Ok(lock) => {
            say(&lock, loaded, session)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if stale(&error) => {
            failure::report(&error);
            Ok(ExitCode::from(failure::NO))
        }
        Err(error) => Err(error),
    }
}

fn say(lock: &Lock, loaded: &Loaded, session: &Session) -> io::Result<()> {
    let bytes = lock.blobs(&proofmark::recipe::Profile::ALL).iter().map(|blob| blob.size).sum();
    output::print(&match session.format {
        Format::Text => format!(
            "{}: {} Debian packages, {} npm packages, {}\n",
            loaded.lock_path.display(),
            lock.debs.len(),
            lock.npm.len(),
            amount::bytes(bytes)
        ),
        Format::Json => format!(
            "{}\n",
            serde_json::json!({
                "lock": loaded.lock_path.display().to_string(),
                "debs": lock.debs.len(),
                "npm": lock.npm.len(),
                "bytes": bytes,
            })
        ),
    })
}
