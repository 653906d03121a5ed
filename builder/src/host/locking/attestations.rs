//! Yields the registries' attestations of npm packages, verified; a package that lost them is an alarm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use rootfs::npm::integrity::Integrity;

use super::super::fetch::{self, Optional};
use super::{Error, Locking};
use crate::lock::{ArchiveKind, Lock, Npm};
use crate::trust::attestation;

impl Locking<'_> {
    /// Asks the registries for the attestations of each package, and refuses packages that lost theirs.
    ///
    /// # Errors
    /// [`Error`] of the first problem.
    pub fn attestations(
        &self,
        npm: &mut [Npm],
        previous: Option<&Lock>,
        remarks: &mut Vec<String>,
    ) -> Result<(), Error> {
        if npm.is_empty() {
            return Ok(());
        }
        let stage = self.progress.stage("ask for attestations", 0);
        let before = Before::of(previous);
        let mut paths: BTreeMap<(String, String), String> = BTreeMap::new();
        for one in npm.iter() {
            paths.insert((one.name.clone(), one.version.clone()), one.attestations_path());
        }
        let paths: Vec<((String, String), String)> = paths.into_iter().collect();
        let silent = Mutex::new(BTreeSet::new());
        let ask = |(key, path): &((String, String), String)| {
            (key.clone(), self.fetcher.optional(ArchiveKind::Npm, path, attestation::MOST_BYTES, &silent))
        };
        let answers: BTreeMap<(String, String), Optional> = fetch::at_once(&paths, ask);
        let mut found = 0;
        let mut unknown = 0;
        for one in npm.iter_mut() {
            let label = format!("{}@{}", one.name, one.version);
            match answers.get(&(one.name.clone(), one.version.clone())) {
                Some(Optional::Found((sha256, size))) => {
                    let bytes = self.fetcher.store().read(sha256, &label)?;
                    let integrity: Integrity = one
                        .integrity
                        .parse()
                        .map_err(|error| Error::Integrity { label: label.clone(), source: error })?;
                    let judged = self.registry.judge(&bytes, &one.name, &one.version, &integrity.0);
                    let attested = judged.map_err(|source| Error::Attestation { label, source })?;
                    one.source = attested.source();
                    one.attestations = sha256.to_string();
                    one.attestations_size = *size;
                    found += 1;
                }
                Some(Optional::Unknown(attempts))
                    if before.lost(one).is_some() && !self.accepts_loss(&one.name) =>
                {
                    return Err(Error::UnknownProvenance { label, attempts: attempts.clone() });
                }
                Some(Optional::Unknown(_)) => unknown += 1,
                _ => {}
            }
        }
        let mut lost: Vec<String> = npm
            .iter()
            .filter(|one| !self.accepts_loss(&one.name))
            .filter_map(|one| Some(format!("{}@{} {}", one.name, one.version, before.lost(one)?)))
            .collect();
        lost.sort();
        lost.dedup();
        if !lost.is_empty() {
            return Err(Error::LostProvenance { packages: lost });
        }
        if unknown > 0 {
            remarks.push(format!("{unknown} npm packages: no registry could be asked for attestations"));
        }
        stage.done(&format!("{found} of {} packages have some", npm.len()));
        Ok(())
    }

    fn accepts_loss(&self, name: &str) -> bool {
        self.accept_lost_provenance.iter().any(|accepted| accepted == name)
    }
}

/// The packages of the earlier lock with their attestations, by name and version.
struct Before<'a>(BTreeMap<(&'a str, &'a str), &'a Npm>);

impl<'a> Before<'a> {
    fn of(previous: Option<&'a Lock>) -> Self {
        let all = previous.iter().flat_map(|lock| &lock.npm);
        Before(all.map(|npm| ((npm.name.as_str(), npm.version.as_str()), npm)).collect())
    }

    /// Returns what a package lost since the same version, or, if its version is new, since any earlier one.
    fn lost(&self, npm: &Npm) -> Option<String> {
        let earlier: Vec<&Npm> = match self.0.get(&(npm.name.as_str(), npm.version.as_str())) {
            Some(same) => vec![same],
            None => self.0.values().filter(|earlier| earlier.name == npm.name).copied().collect(),
        };
        if npm.attestations.is_empty() && earlier.iter().any(|earlier| !earlier.attestations.is_empty()) {
            return Some("no longer has attestations".to_owned());
        }
        let sources: BTreeSet<&str> = earlier
            .iter()
            .map(|earlier| earlier.source.as_str())
            .filter(|source| !source.is_empty())
            .collect();
        if sources.is_empty() || sources.contains(npm.source.as_str()) {
            return None;
        }
        let now = if npm.source.is_empty() { "nothing says where" } else { &npm.source };
        Some(format!("was built in {}, now {now}", sources.into_iter().collect::<Vec<_>>().join(" or ")))
    }
}

#[cfg(test)]
mod tests;
