//! Yields the layers of an image: every archive of the profile, unpacked now or taken from the cache.

use std::collections::BTreeMap;

use rayon::prelude::*;
use rootfs::content::{Packing, Sha256Digest};
use rootfs::deb;
use rootfs::layer::Layer;
use rootfs::npm::lock::Entry as NpmEntry;
use rootfs::npm::{engines, layout, tarball};
use rootfs::omit::{self, Omit, Rule, Tally};
use rootfs::path::TreePath;
use rootfs::tree::Origin;

use super::{Error, Source, packing};
use crate::lock::{Blob, Deb, Lock, Npm, NpmRole};
use crate::recipe::Recipe;
use crate::recipe::document::NpmApplication;

/// Part of every cache key; it changes whenever the same archive unpacks to another layer.
const LAYER_FORM: &str = "layer/2";

/// One archive to unpack.
enum Task<'a> {
    Deb(&'a Deb),
    Node(&'a Npm, TreePath),
    Application(&'a Npm, Box<layout::Package>, usize),
}

/// An application with its rules compiled.
struct Application<'a> {
    recipe: &'a NpmApplication,
    root: TreePath,
    omit: Omit,
    /// The rules as text, for cache keys.
    rules: String,
}

pub(super) type Tallies = Vec<(String, Vec<String>, Tally)>;

/// Unpacks every archive of the profile, the largest first; returns the layers sorted by name.
pub(super) fn unpack(
    recipe: &Recipe,
    lock: &Lock,
    source: &dyn Source,
) -> Result<(Vec<(Origin, Layer)>, Tallies), Error> {
    let packing = packing(recipe);
    let debian = DebianRules::new(recipe)?;
    let applications = applications(recipe)?;
    let tasks = tasks(recipe, lock, &applications)?;
    // The first layer that has a directory sets its mode: base-files first, the others by name.
    let mut order: Vec<usize> = (0..tasks.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(tasks.get(*index).map_or(0, |(_, blob)| blob.size)));
    let unpack_one = |index: &usize| -> Result<(usize, Origin, Layer), Error> {
        let (task, blob) = tasks.get(*index).ok_or_else(|| Error::Lock("nothing".to_owned()))?;
        let origin = origin_of(task);
        if let Some(omitted) = omitted_whole(task, &applications) {
            source.unpacked(blob.size);
            return Ok((*index, origin, Layer { omitted, ..Layer::default() }));
        }
        let rules = match task {
            Task::Deb(_) => debian.text.clone(),
            Task::Node(_, target) => target.to_string(),
            Task::Application(_, package, number) => {
                let application = applications.get(*number);
                let (root, rules) =
                    application.map_or(("", ""), |app| (app.root.as_str(), app.rules.as_str()));
                format!(
                    "{root}\n{}\n{:?}\n{:?}\n{rules}",
                    package.entry.location, package.entry.bin, package.links
                )
            }
        };
        let key = format!("{LAYER_FORM}\n{}\n{packing:?}\n{origin}\n{rules}", blob.sha256);
        let key = Sha256Digest::of(key.as_bytes());
        let kept = source.derived(&key).and_then(|file| Layer::from_blob(&file, &origin).ok());
        let layer = match kept {
            Some(layer) => layer,
            None => {
                let bytes = source.blob(blob).map_err(Error::Blob)?;
                let layer = decode(task, &bytes, &origin, &debian, &applications, packing, blob)?;
                source.keep(&key, &layer);
                layer
            }
        };
        source.unpacked(blob.size);
        Ok((*index, origin, layer))
    };
    let mut layers: Vec<(usize, Origin, Layer)> =
        order.par_iter().with_max_len(1).map(unpack_one).collect::<Result<_, _>>()?;
    layers.sort_by_key(|(index, _, _)| *index);
    let all = tallies(&tasks, &layers, &debian, &applications);
    let is_base = |origin: &Origin| matches!(origin, Origin::Debian { name, .. } if &**name == "base-files");
    let mut layers: Vec<(Origin, Layer)> =
        layers.into_iter().map(|(_, origin, layer)| (origin, layer)).collect();
    layers.sort_by_key(|(origin, _)| !is_base(origin));
    Ok((layers, all))
}

/// Lists every archive of the profile with its file.
fn tasks<'a>(
    recipe: &'a Recipe,
    lock: &'a Lock,
    applications: &[Application<'a>],
) -> Result<Vec<(Task<'a>, Blob)>, Error> {
    let mut tasks: Vec<(Task<'a>, Blob)> = Vec::new();
    for deb in lock.debs_of(recipe.profile) {
        let blob = lock.blob_of_deb(deb).ok_or_else(|| Error::Lock(deb.name.clone()))?;
        tasks.push((Task::Deb(deb), blob));
    }
    for npm in lock.npm.iter().filter(|npm| npm.role == NpmRole::Node) {
        if let Some(node) = &recipe.node {
            let target = TreePath::new(&node.target)?.join("bin/node")?;
            tasks.push((Task::Node(npm, target), blob_of(npm)?));
        }
    }
    for (number, application) in applications.iter().enumerate() {
        for (package, npm) in packages_of(lock, &application.recipe.name, recipe)? {
            tasks.push((Task::Application(npm, Box::new(package), number), blob_of(npm)?));
        }
    }
    Ok(tasks)
}

/// Counts what each set of omit rules left out.
fn tallies(
    tasks: &[(Task<'_>, Blob)],
    layers: &[(usize, Origin, Layer)],
    debian: &DebianRules,
    applications: &[Application<'_>],
) -> Tallies {
    let mut debian_tally = Tally::new(debian.omit.len());
    let mut tallies: Vec<Tally> = applications.iter().map(|app| Tally::new(app.omit.len())).collect();
    for (index, _, layer) in layers {
        match tasks.get(*index) {
            Some((Task::Deb(_), _)) => debian_tally.add(&layer.omitted),
            Some((Task::Application(_, _, number), _)) => {
                if let Some(tally) = tallies.get_mut(*number) {
                    tally.add(&layer.omitted);
                }
            }
            _ => {}
        }
    }
    let mut all = vec![("the Debian packages".to_owned(), debian.globs.clone(), debian_tally)];
    for (application, tally) in applications.iter().zip(tallies) {
        let globs = application.recipe.omit.iter().map(|rule| rule.paths.join(", ")).collect();
        all.push((application.recipe.name.clone(), globs, tally));
    }
    all
}

/// The tally of a package that a rule omits entirely: there is nothing to unpack.
fn omitted_whole(task: &Task<'_>, applications: &[Application<'_>]) -> Option<Tally> {
    let Task::Application(npm, package, number) = task else { return None };
    let omit = &applications.get(*number)?.omit;
    let rule = omit.whole(&package.entry.location)?;
    let mut tally = Tally::new(omit.len());
    tally.count(rule, npm.size);
    Some(tally)
}

fn blob_of(npm: &Npm) -> Result<Blob, Error> {
    npm.blob().ok_or_else(|| Error::Lock(npm.name.clone()))
}

fn origin_of(task: &Task<'_>) -> Origin {
    match task {
        Task::Deb(deb) => Origin::debian(&deb.name, &deb.version),
        Task::Node(npm, _) | Task::Application(npm, _, _) => Origin::Npm {
            name: npm.name.as_str().into(),
            version: npm.version.as_str().into(),
            location: npm.location.as_str().into(),
        },
    }
}

fn decode(
    task: &Task<'_>,
    bytes: &[u8],
    origin: &Origin,
    debian: &DebianRules,
    applications: &[Application<'_>],
    packing: Packing,
    blob: &Blob,
) -> Result<Layer, Error> {
    let label = || blob.label.clone();
    match task {
        Task::Deb(_) => {
            let unpacked = deb::unpack(bytes, origin, &|path| debian.rule(path), packing);
            Ok(unpacked.map_err(|source| Error::Deb { label: label(), source })?.layer)
        }
        Task::Node(_, target) => {
            let wanted = BTreeMap::from([("bin/node", target.clone())]);
            tarball::pick(bytes, &wanted, origin, packing)
                .map_err(|source| Error::Npm { label: label(), source })
        }
        Task::Application(_, package, number) => {
            let application = applications.get(*number).ok_or_else(|| Error::Lock(label()))?;
            let destination =
                tarball::Destination { root: &application.root, omit: &application.omit, packing };
            let unpacked = tarball::unpack(bytes, package, &destination);
            let unpacked = unpacked.map_err(|source| Error::Npm { label: label(), source })?;
            Ok(Layer { omitted: unpacked.omitted, ..unpacked.layer })
        }
    }
}

/// Lays out the packages of an application as npm does, and checks them against the pinned Node.js.
fn packages_of<'a>(
    lock: &'a Lock,
    application: &str,
    recipe: &Recipe,
) -> Result<Vec<(layout::Package, &'a Npm)>, Error> {
    let rows: Vec<&Npm> = lock
        .npm
        .iter()
        .filter(|npm| npm.role == NpmRole::Application && npm.application == application)
        .collect();
    let entries: Vec<NpmEntry> =
        rows.iter().map(|npm| crate::resolve::npm::entry(npm)).collect::<Result<_, _>>()?;
    if let Some(node) = &recipe.node {
        engines::check(&entries, &node.version)?;
    }
    Ok(layout::lay_out(&entries).into_iter().zip(rows).collect())
}

fn applications(recipe: &Recipe) -> Result<Vec<Application<'_>>, Error> {
    recipe
        .npm
        .iter()
        .map(|application| {
            let rules: Vec<Rule> = application.omit.iter().map(Rule::from).collect();
            Ok(Application {
                recipe: application,
                root: TreePath::new(&application.target)?,
                omit: Omit::new(&rules)?,
                rules: format!("{rules:?}"),
            })
        })
        .collect()
}

/// The compiled omit rules of Debian packages; each glob is a rule, so that each can be reported stale.
struct DebianRules {
    omit: Omit,
    globs: Vec<String>,
    /// The rules as text, for cache keys.
    text: String,
}

impl DebianRules {
    fn new(recipe: &Recipe) -> Result<Self, omit::Error> {
        let rules: Vec<Rule> = recipe.debian.omit.iter().map(Rule::from).collect();
        let each = rules.iter().flat_map(|rule| rule.paths.iter().map(move |glob| (glob, &rule.keep)));
        let single: Vec<Rule> =
            each.map(|(glob, keep)| Rule { paths: vec![glob.clone()], keep: keep.clone() }).collect();
        Ok(DebianRules {
            omit: Omit::new(&single)?,
            globs: single.iter().flat_map(|rule| rule.paths.clone()).collect(),
            text: format!("{single:?}"),
        })
    }

    /// Returns the rule that omits `path`, matched at its place after the /usr merge.
    fn rule(&self, path: &TreePath) -> Option<usize> {
        let aliased =
            ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|alias| path.as_str().starts_with(alias));
        let merged = if aliased { format!("usr/{}", path.as_str()) } else { path.as_str().to_owned() };
        self.omit.rule(&merged)
    }
}
