//! Yields the Debian packages of a lock: resolved from verified indexes and fetched, their scripts reviewed.

use std::collections::{BTreeMap, BTreeSet};

use rootfs::deb;

use super::{ARCHITECTURE, Error, Locking, Release};
use crate::lock::{Deb, Lock};
use crate::recipe::{Profile, Recipe};
use crate::resolve::packages;
use crate::resolve::scripts::{self, Judgement, Script, ScriptKind, Table};
use crate::resolve::solve::{self, Essential, Request, Suite, Universe, Why};

/// The lock's entry of a package that every profile has and whose scripts are not reviewed yet.
fn entry(package: &packages::Package<'_>, archive: String, suite: &str, wanted_by: String) -> Deb {
    Deb {
        name: package.name.to_owned(),
        version: package.version.as_str().to_owned(),
        architecture: package.architecture.to_owned(),
        archive,
        suite: suite.to_owned(),
        path: package.filename.to_owned(),
        size: package.size,
        sha256: hex::encode(package.sha256),
        wanted_by,
        profiles: Vec::new(),
        scripts: Vec::new(),
    }
}

impl Locking<'_> {
    /// Resolves the packages of every profile, from the packages that its recipe names.
    ///
    /// # Errors
    /// [`Error`] of the first problem.
    pub fn debs(
        &self,
        recipes: &[Recipe],
        releases: &[Release],
        remarks: &mut Vec<String>,
    ) -> Result<Vec<Deb>, Error> {
        let stage = self.progress.stage("resolve packages", 0);
        let suites: Vec<Suite<'_>> = releases
            .iter()
            .map(|release| {
                let packages = packages::read(&release.index, ARCHITECTURE);
                let packages = packages
                    .map_err(|source| Error::Packages { suite: release.archive.suite.clone(), source })?;
                Ok(Suite { name: release.archive.suite.as_str(), packages })
            })
            .collect::<Result<_, Error>>()?;
        let wrong = |profile: Profile| move |source| Error::Solve { profile: profile.name(), source };
        let universe = Universe::merge(suites).map_err(wrong(Profile::Release))?;
        let mut all: BTreeMap<String, Deb> = BTreeMap::new();
        for recipe in recipes {
            let mut roots: Vec<&str> = recipe.debian.packages.keys().map(String::as_str).collect();
            roots.extend([recipe.kernel.package.as_str(), recipe.kernel.stub_package.as_str()]);
            let exclude: Vec<&str> = recipe.debian.exclude.keys().map(String::as_str).collect();
            let request = Request { roots: &roots, essential: Essential::OnlyIfNeeded, exclude: &exclude };
            let solution = solve::solve(&universe, &request).map_err(wrong(recipe.profile))?;
            for unused in &solution.unused_excludes {
                remarks.push(format!("nothing would pull in the excluded package {unused}"));
            }
            for chosen in &solution.chosen {
                let package = chosen.package;
                let archive = releases.iter().find(|release| release.archive.suite == chosen.suite);
                let wanted_by = match &chosen.why {
                    Why::Root => "recipe".to_owned(),
                    Why::Essential => "essential".to_owned(),
                    Why::Needed { by, .. } => (*by).to_owned(),
                };
                let deb = all.entry(package.name.to_owned()).or_insert_with(|| {
                    let archive = archive.map_or(String::new(), |release| release.archive.name.clone());
                    entry(package, archive, chosen.suite, wanted_by)
                });
                deb.profiles.push(recipe.profile);
            }
        }
        for deb in all.values_mut() {
            if deb.profiles.len() == recipes.len() {
                deb.profiles.clear();
            }
        }
        stage.done(&format!("{} packages", all.len()));
        Ok(all.into_values().collect())
    }

    /// Finds the firmware's package alone: it is not installed, so it needs no dependencies.
    ///
    /// # Errors
    /// [`Error`] of the first problem.
    pub fn firmware(&self, recipe: &Recipe, releases: &[Release]) -> Result<Option<Deb>, Error> {
        let Some((name, place)) = &recipe.measure.firmware else { return Ok(None) };
        let mut best: Option<(&Release, packages::Package<'_>)> = None;
        for release in releases {
            let listed = packages::read(&release.index, ARCHITECTURE);
            let listed =
                listed.map_err(|source| Error::Packages { suite: release.archive.suite.clone(), source })?;
            for package in listed.into_iter().filter(|package| package.name == name.as_str()) {
                if best.as_ref().is_none_or(|(_, best)| package.version > best.version) {
                    best = Some((release, package));
                }
            }
        }
        let missing = || Error::Firmware { name: name.clone(), place: place.clone() };
        let (release, package) = best.ok_or_else(missing)?;
        let archive = release.archive.name.clone();
        Ok(Some(entry(&package, archive, &release.archive.suite, "recipe".to_owned())))
    }

    /// Fetches every package, and reviews its maintainer scripts.
    ///
    /// # Errors
    /// [`Error`] of the first problem.
    pub fn review(
        &self,
        recipes: &[Recipe],
        lock: &mut Lock,
        remarks: &mut Vec<String>,
    ) -> Result<(), Error> {
        self.fetcher.ensure(&lock.blobs(&Profile::ALL), self.progress)?;
        let stage = self.progress.stage("review maintainer scripts", 0);
        let mut texts: Vec<(String, ScriptKind, Vec<u8>)> = Vec::new();
        for deb in &lock.debs {
            let Some(blob) = lock.blob_of_deb(deb) else { continue };
            let bytes = self.fetcher.store().read(&blob.sha256, &blob.label)?;
            let control =
                deb::control(&bytes).map_err(|source| Error::Deb { label: blob.label.clone(), source })?;
            for (name, text) in control {
                if let Some(kind) = ScriptKind::from_member(&name) {
                    texts.push((deb.name.clone(), kind, text));
                }
            }
        }
        let overrides: BTreeMap<String, String> = recipes
            .iter()
            .flat_map(|recipe| &recipe.debian.scripts)
            .map(|(package, rule)| (package.clone(), rule.reason.clone()))
            .collect();
        let scripts = texts.iter().map(|(package, kind, bytes)| Script { package, kind: *kind, bytes });
        let review = scripts::review(scripts, &Table::shipped()?, &overrides)?;
        for unused in &review.unused_overrides {
            remarks.push(format!("the scripts of {unused} are reviewed: the recipe need not ignore them"));
        }
        let count = review.judged.len();
        for judged in review.judged {
            let what = match judged.judgement {
                Judgement::Inert => "inert".to_owned(),
                Judgement::Handled { by, .. } => {
                    let names: BTreeSet<String> = by
                        .iter()
                        .filter_map(|fix_up| serde_json::to_value(fix_up).ok()?.as_str().map(str::to_owned))
                        .collect();
                    format!("handled by {}", names.into_iter().collect::<Vec<_>>().join(", "))
                }
                Judgement::Ignored { reason } => format!("ignored: {reason}"),
            };
            if let Some(deb) = lock.debs.iter_mut().find(|deb| deb.name == judged.package) {
                deb.scripts.push(format!("{} {} {what}", judged.kind, hex::encode(judged.sha256)));
            }
        }
        for deb in &mut lock.debs {
            deb.scripts.sort();
        }
        stage.done(&format!("{count} scripts"));
        Ok(())
    }
}
