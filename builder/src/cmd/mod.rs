//! The verbs of the command line, one a file.

pub mod appraise;
pub mod audit;
pub mod build;
pub mod diff;
pub mod eventlog;
pub mod export;
pub mod fetch;
pub mod inputs;
pub mod key;
pub mod lock;
pub mod log;
pub mod measure;
pub mod publish;
pub mod rebuild;
pub mod run;
pub mod scan;
pub mod schema;
pub mod size;
pub mod update;
pub mod validate;
pub mod vendor;
pub mod verify;
pub mod why;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use proofmark::host::fetch::Fetcher;
use proofmark::host::store::Store;
use proofmark::host::{carried, files, tool};
use proofmark::lock::Lock;
use proofmark::recipe::{self, Profile, Recipe};

use crate::cli::Session;
use crate::failure;

/// How long this machine's npm may take to say which registry it uses.
const NPM_PATIENCE: Duration = Duration::from_secs(20);

/// The registry that this machine's npm is set to, when there is an npm.
pub fn npm_registry_of_this_machine() -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let program =
        std::env::split_paths(&path).map(|folder| folder.join("npm")).find(|file| file.is_file())?;
    let environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let run = tool::Run {
        program,
        arguments: ["config", "get", "registry"].map(OsString::from).to_vec(),
        environment,
        folder: std::env::current_dir().ok()?,
        limit: NPM_PATIENCE,
    };
    let output = tool::run(&run).ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let registry = text.trim();
    registry.contains("://").then(|| registry.to_owned())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A recipe for both profiles, and where its lock lies.
pub struct Loaded {
    pub recipes: Vec<Recipe>,
    pub lock_path: PathBuf,
}

/// Loads the recipe that an argument names.
pub fn load(argument: &Path) -> anyhow::Result<Loaded> {
    let file = recipe::file_of(argument);
    let read = |path: &Path| std::fs::read(path);
    let recipes = Profile::ALL
        .iter()
        .map(|profile| recipe::load(&file, *profile, &read))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Loaded { recipes, lock_path: file.with_extension("lock") })
}

impl Loaded {
    /// A fetcher of what the lock names, which the folder beside it may have.
    pub fn fetcher<'a>(&self, session: &'a Session) -> Fetcher<'a> {
        let fetcher = Fetcher::new(&session.store, &session.mirrors, session.network);
        let folder = carried::folder(&self.lock_path);
        // As folders that were given: what is not whole is taken for a mirror's address.
        fetcher.carrying(std::path::absolute(&folder).unwrap_or(folder))
    }

    /// Writes a lock, and beside it what it carries. Two renames: who is killed between them has the new lock with the old
    /// documents, which the next `lock` replaces.
    pub fn write_lock(&self, lock: &Lock, store: &Store) -> anyhow::Result<()> {
        let folder = carried::folder(&self.lock_path);
        let documents = carried::prepare(lock, &folder, store)?;
        files::write(&self.lock_path, lock.to_text().as_bytes())
            .with_context(|| format!("cannot write {}", self.lock_path.display()))?;
        documents.finish().with_context(|| format!("cannot write {}", folder.display()))
    }

    /// The recipe of one profile.
    pub fn recipe(&self, profile: Profile) -> anyhow::Result<&Recipe> {
        self.recipes.iter().find(|recipe| recipe.profile == profile).context("the recipe has no such profile")
    }

    /// The lock as it lies there, text and meaning; `None` when there is none.
    pub fn lock_if_any(&self) -> anyhow::Result<Option<(String, Lock)>> {
        match std::fs::read_to_string(&self.lock_path) {
            Ok(text) => {
                let lock = Lock::parse(&text, &self.lock_path)?;
                Ok(Some((text, lock)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.lock_path.display())),
        }
    }

    /// The lock, which must be there and fit the recipe.
    pub fn lock(&self) -> anyhow::Result<(String, Lock)> {
        let Some((text, lock)) = self.lock_if_any()? else {
            let message = format!("{} is not there", self.lock_path.display());
            return Err(failure::hinted(
                message,
                "run `proofmark lock` on the recipe, and commit what it writes",
            ));
        };
        lock.fits(&self.lock_path, &recipe::lock_digest(&self.recipes), &proofmark::pipeline::tool())?;
        Ok((text, lock))
    }
}
