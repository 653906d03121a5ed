//! `proofmark update`: shows what a new lock would change, package by package.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::flow::lock::{self, Request};
use proofmark::host::recipe_folder::RecipeFolder;
use proofmark::host::{clock, output};
use proofmark::lock::Lock;
use proofmark::session::Session;

use crate::format::Format;
use crate::options::registry::Provenance;

/// Which recipe, and whether to write its new lock.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
    /// Write the new lock.
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    provenance: Provenance,
}

/// One package that changes.
#[derive(Debug, serde::Serialize, PartialEq, Eq)]
struct Change {
    kind: &'static str,
    name: String,
    old: Option<String>,
    new: Option<String>,
}

/// Shows the changes.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let loaded = RecipeFolder::open(&arguments.recipe)?;
    let previous = loaded.lock_if_any()?.map(|(_, lock)| lock);
    let request = Request {
        recipes: &loaded.recipes,
        previous: previous.as_ref(),
        registry: &arguments.provenance.registry.registry()?,
        accept_lost_provenance: &arguments.provenance.accept_lost_provenance,
        now: clock::now(),
    };
    let locked = lock::lock(&request, session)?;
    let changes = changes(previous.as_ref(), &locked.lock);
    match format {
        Format::Json => output::print(&format!("{}\n", serde_json::to_string_pretty(&changes)?))?,
        Format::Text if changes.is_empty() => output::print("no package changes\n")?,
        Format::Text => {
            let mut text = String::new();
            for change in &changes {
                let (old, new) = (change.old.as_deref(), change.new.as_deref());
                let (sign, versions) = match (old, new) {
                    (None, new) => ('+', new.unwrap_or("").to_owned()),
                    (old, None) => ('-', old.unwrap_or("").to_owned()),
                    (Some(old), Some(new)) => ('~', format!("{old} -> {new}")),
                };
                text.push_str(&format!("{sign} {} {} {versions}\n", change.kind, change.name));
            }
            output::print(&text)?;
        }
    }
    if arguments.write {
        loaded.write_lock(&locked.lock, &session.store)?;
        session.progress.note(&format!("wrote {}", loaded.lock_path.display()));
    } else if !changes.is_empty() {
        session.progress.note("nothing is written; `proofmark update --write` writes the new lock");
    }
    Ok(ExitCode::SUCCESS)
}

/// Every package by kind and name, with its versions.
fn packages(lock: &Lock) -> BTreeMap<(&'static str, String), BTreeSet<String>> {
    let debs = lock.debs.iter().map(|deb| (("deb", deb.name.clone()), deb.version.clone()));
    let npm = lock.npm.iter().map(|npm| (("npm", npm.name.clone()), npm.version.clone()));
    let mut all: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for (key, version) in debs.chain(npm) {
        all.entry(key).or_default().insert(version);
    }
    all
}

fn changes(old: Option<&Lock>, new: &Lock) -> Vec<Change> {
    let old = old.map(packages).unwrap_or_default();
    let new = packages(new);
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    let text = |versions: Option<&BTreeSet<String>>| {
        versions.map(|versions| versions.iter().cloned().collect::<Vec<_>>().join(", "))
    };
    keys.into_iter()
        .map(|key| Change { kind: key.0, old: text(old.get(&key)), new: text(new.get(&key)), name: key.1 })
        .filter(|change| change.old != change.new)
        .collect()
}
