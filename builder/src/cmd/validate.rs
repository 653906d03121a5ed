//! Lets an application check its own configuration, with the pinned Node.js, before an image holds it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use proofmark::host::tool;
use proofmark::lock::{Lock, NpmRole, Validated};
use proofmark::recipe::Recipe;
use proofmark::recipe::document::{NpmApplication, Validate};
use rootfs::content::Sha256Digest;
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Tree};

use crate::cli::Session;
use crate::failure;

/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Checks the configuration of every application that says how. A check that passed is not repeated for the same
/// application, Node.js and configuration: the lock says so, or the store, for one that changed since.
pub fn configurations(recipe: &Recipe, lock: &Lock, tree: &Tree, session: &Session) -> anyhow::Result<()> {
    for application in &recipe.npm {
        let Some(validate) = &application.validate else { continue };
        let key = key(application, validate, lock, tree)?;
        let known = lock.validated.iter().any(|known| known.key == key.to_string());
        if known || session.store.derived("validated", &key).is_some() {
            continue;
        }
        let stage = session.progress.stage(&format!("check {}", validate.config), 0);
        check(recipe, application, validate, tree)?;
        session.store.keep_derived("validated", &key, b"");
        stage.done("accepted by the application");
    }
    Ok(())
}

/// Lets every application check its configuration, and gives what they accepted, for the lock.
pub fn accepted(
    recipe: &Recipe,
    lock: &Lock,
    tree: &Tree,
    session: &Session,
) -> anyhow::Result<Vec<Validated>> {
    configurations(recipe, lock, tree, session)?;
    recipe
        .npm
        .iter()
        .filter_map(|application| Some((application, application.validate.as_ref()?)))
        .map(|(application, validate)| {
            let key = key(application, validate, lock, tree)?.to_string();
            Ok(Validated { application: application.name.clone(), key })
        })
        .collect()
}

/// What a check depends on.
pub fn key(
    application: &NpmApplication,
    validate: &Validate,
    lock: &Lock,
    tree: &Tree,
) -> anyhow::Result<Sha256Digest> {
    let config = tree.content(&TreePath::new(&validate.config)?).with_context(|| {
        format!("{} names a configuration that is not in the image: {}", application.name, validate.config)
    })?;
    let mut text = format!("validated/1\n{}\n{application:?}\n", config.sha256());
    for npm in &lock.npm {
        if npm.role == NpmRole::Node
            || (npm.role == NpmRole::Application && npm.application == application.name)
        {
            text.push_str(&format!("{} {}\n", npm.location, npm.sha256));
        }
    }
    Ok(Sha256Digest::of(text.as_bytes()))
}

fn check(
    recipe: &Recipe,
    application: &NpmApplication,
    validate: &Validate,
    tree: &Tree,
) -> anyhow::Result<()> {
    let node = recipe.node.as_ref().context("no [node]")?;
    let folder = tempfile::Builder::new().prefix("proofmark-check-").tempdir()?;
    let root = folder.path();
    for part in [node.target.as_str(), &application.target, &validate.config] {
        copy(tree, &TreePath::new(part)?, root).with_context(|| format!("cannot unpack {part}"))?;
    }
    let home = root.join("home");
    fs::create_dir_all(&home)?;
    let inside = |path: &str| -> PathBuf { root.join(path.trim_start_matches('/')) };
    let program = inside(&application.target).join(&validate.program);
    let mut arguments = vec![program.into_os_string()];
    arguments.extend(validate.arguments.iter().map(OsString::from));
    let environment = BTreeMap::from([
        (OsString::from("HOME"), home.clone().into_os_string()),
        (OsString::from("NODE_DISABLE_COMPILE_CACHE"), OsString::from("1")),
        (OsString::from("PATH"), OsString::new()),
        (OsString::from(&validate.variable), inside(&validate.config).into_os_string()),
    ]);
    let run = tool::Run {
        program: inside(&node.target).join("bin/node"),
        arguments,
        environment,
        folder: home,
        limit: PATIENCE,
    };
    tool::run(&run).map_err(|error| {
        let why = proofmark::host::chain(&error);
        let message = format!("{} refuses the configuration {}: {why}", application.name, validate.config);
        failure::hinted(message, "mend the file that the recipe puts there")
    })?;
    Ok(())
}

/// Writes what lies at and below `path` under `root`.
fn copy(tree: &Tree, path: &TreePath, root: &Path) -> anyhow::Result<()> {
    let own = tree.get(path).map(|node| (path, node));
    for (path, node) in own.into_iter().chain(tree.below(path)) {
        let target = root.join(path.as_str());
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        match &node.kind {
            Kind::Directory => fs::create_dir_all(&target)?,
            Kind::Symlink(link) => std::os::unix::fs::symlink(&**link, &target)?,
            Kind::File(content) => {
                fs::write(&target, content.read()?)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(u32::from(node.mode) | 0o400))?;
            }
            Kind::HardLink(_) => fs::write(&target, tree.read(path)?)?,
            _ => {}
        }
    }
    Ok(())
}
