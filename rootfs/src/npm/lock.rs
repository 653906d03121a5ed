//! Yields the packages of an application from npm's `package-lock.json`, and selects those for a platform.
//!
//! # Shape
//! ```text
//! { "lockfileVersion": 3,
//!   "packages": { "": { root }, "node_modules/a": { … }, "node_modules/a/node_modules/@s/b": { … } } }
//! ```
//! A location is a chain of `node_modules/NAME`; for an alias the last name differs from the package's own name
//! (`name`). Entries are sorted by location.
//!
//! # Source
//! npm's documentation "package-lock.json", lockfileVersion 3; the fields are those that `@npmcli/arborist`
//! (`lib/shrinkwrap.js`) writes. Which entries are installed: its `lib/optional-set.js`, and `npm-install-checks`.
//!
//! # Not here
//! `resolved`: a tarball is found by name and version on any registry, and identified by its integrity.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nodejs_semver::Version;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::integrity::{self, Integrity};

/// The largest accepted document, in bytes; real ones have some hundred kilobytes.
const MAX_DOCUMENT: usize = 64 << 20;

/// The deepest accepted chain of `node_modules`.
const MAX_DEPTH: usize = 64;

/// Why a package-lock is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The document is too large.
    #[error("package-lock has {found} bytes, more than {MAX_DOCUMENT}")]
    TooLarge {
        /// Its length.
        found: usize,
    },
    /// The document is not the JSON that npm writes.
    #[error("package-lock cannot be read: {0}")]
    Json(String),
    /// The npm that wrote it is too old or too new.
    #[error("package-lock has lockfileVersion {found}, expected 3")]
    Version {
        /// Its version.
        found: u64,
    },
    /// The entry of the application itself is missing.
    #[error("package-lock has no entry \"\" for the application itself")]
    NoRoot,
    /// A location that npm would not write, or that escapes its root.
    #[error("invalid package location {0:?}")]
    Location(String),
    /// A package below a package that is missing from the lock.
    #[error("{location} lies in {parent}, which is missing from the package-lock")]
    Orphan {
        /// Its location.
        location: String,
        /// The missing package.
        parent: String,
    },
    /// A name that npm does not accept.
    #[error("{location}: invalid package name {name:?}")]
    Name {
        /// Its location.
        location: String,
        /// The name.
        name: String,
    },
    /// A package whose version is missing or not valid.
    #[error("{location}: invalid version {found:?}")]
    PackageVersion {
        /// Its location.
        location: String,
        /// What was found.
        found: String,
    },
    /// A package without a digest, such as a Git or file dependency.
    #[error("{location} has no integrity, so it does not come from a registry")]
    NoIntegrity {
        /// Its location.
        location: String,
    },
    /// A digest that is not accepted.
    #[error("{location}: invalid integrity")]
    Integrity {
        /// Its location.
        location: String,
        /// Why.
        source: integrity::Error,
    },
    /// A link to a folder, such as a workspace or a `file:` dependency.
    #[error("{location} is a link to a folder; only packages from a registry can be installed")]
    Link {
        /// Its location.
        location: String,
    },
    /// A package bundled in the tarball of another one.
    #[error("{location} is bundled in another package's tarball, which is not supported")]
    Bundled {
        /// Its location.
        location: String,
    },
    /// A required package that does not support the platform.
    #[error("{location} is required, but supports {wants}, not {platform}")]
    Platform {
        /// Its location.
        location: String,
        /// What it supports.
        wants: String,
        /// The platform of the image.
        platform: Platform,
    },
}

/// A platform in npm's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// `process.platform`.
    pub os: &'static str,
    /// `process.arch`.
    pub cpu: &'static str,
    /// The family of the C library.
    pub libc: &'static str,
}

/// The platform of the images: Debian on x86-64.
pub const LINUX_X64_GLIBC: Platform = Platform { os: "linux", cpu: "x64", libc: "glibc" };

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.os, self.cpu, self.libc)
    }
}

/// Which installations include a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    Always,
    /// All of them, except on platforms that it does not support.
    IfItFits,
    /// Only those for developing the application itself.
    ForDevelopment,
}

/// How a package depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It requires it.
    Required,
    /// It works without it.
    Optional,
}

/// One package of the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its location, such as `node_modules/a/node_modules/@s/b`.
    pub location: Box<str>,
    /// Its name in the registry, such as `@s/b`.
    pub name: Box<str>,
    /// Its exact version.
    pub version: Box<str>,
    /// The digest of its tarball.
    pub integrity: Integrity,
    /// Its programs: name of the command, and file in the package.
    pub bin: BTreeMap<Box<str>, Box<str>>,
    /// Operating systems that it supports, with `!` those that it does not; empty: all.
    pub os: Vec<Box<str>>,
    /// The same for processors.
    pub cpu: Vec<Box<str>>,
    /// The same for C libraries.
    pub libc: Vec<Box<str>>,
    /// Which installations include it.
    pub wanted: Wanted,
    /// Whether npm would run a script after unpacking; an image never does.
    pub has_install_script: bool,
    /// The range of Node.js versions that it runs on.
    pub engines: Option<Box<str>>,
    /// Its licence, ideally an SPDX expression.
    pub license: Option<Box<str>>,
    /// Its dependencies, by the name under which it requires them.
    pub needs: BTreeMap<Box<str>, Need>,
}

impl Entry {
    /// The number of `node_modules` in its location: 1 for what the application itself can see.
    pub fn depth(&self) -> usize {
        self.location.split('/').filter(|part| *part == "node_modules").count()
    }

    /// Path of its tarball on a registry: `@s/b/-/b-1.0.0.tgz`.
    pub fn tarball_path(&self) -> String {
        tarball_path(&self.name, &self.version)
    }

    /// Whether it supports the platform.
    pub fn fits(&self, platform: &Platform) -> bool {
        admits(&self.os, platform.os) && admits(&self.cpu, platform.cpu) && admits(&self.libc, platform.libc)
    }
}

/// Path of a package's tarball relative to a registry: `@s/b/-/b-1.0.0.tgz`.
pub fn tarball_path(name: &str, version: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    format!("{name}/-/{file}-{version}.tgz")
}

/// `npm-install-checks` `checkList`: the value is not negated, and is one of the plain values, if there are any.
fn admits(list: &[Box<str>], value: &str) -> bool {
    if list.is_empty() || matches!(list, [any] if &**any == "any") {
        return true;
    }
    if list.iter().any(|one| one.strip_prefix('!') == Some(value)) {
        return false;
    }
    list.iter().all(|one| one.starts_with('!')) || list.iter().any(|one| &**one == value)
}

/// A parsed package-lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageLock {
    /// The dependencies of the application: name and version.
    pub applications: BTreeMap<Box<str>, Box<str>>,
    /// All packages, by location.
    entries: BTreeMap<Box<str>, Entry>,
}

impl PackageLock {
    /// Reads the bytes of a `package-lock.json`.
    ///
    /// # Errors
    /// [`Error`] for the first thing that is refused.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_DOCUMENT {
            return Err(Error::TooLarge { found: json.len() });
        }
        let unreadable = |error: serde_json::Error| Error::Json(error.to_string());
        // Another version has other fields, so the version is checked first.
        let head: Head = serde_json::from_slice(json).map_err(unreadable)?;
        if head.lockfile_version != 3 {
            return Err(Error::Version { found: head.lockfile_version });
        }
        let document: Document = serde_json::from_slice(json).map_err(unreadable)?;
        let mut applications = None;
        let mut entries: BTreeMap<Box<str>, Entry> = BTreeMap::new();
        for (location, raw) in document.packages.0 {
            if location.is_empty() {
                let Unique(wanted) = raw.dependencies;
                applications =
                    Some(wanted.into_iter().map(|(name, range)| (name.into(), range.into())).collect());
            } else {
                let entry = entry(&location, raw)?;
                entries.insert(location.into(), entry);
            }
        }
        for location in entries.keys() {
            let parent = location.rfind("/node_modules/").and_then(|end| location.get(..end));
            if let Some(parent) = parent.filter(|parent| !entries.contains_key(*parent)) {
                return Err(Error::Orphan { location: location.to_string(), parent: parent.to_owned() });
            }
        }
        Ok(PackageLock { applications: applications.ok_or(Error::NoRoot)?, entries })
    }

    /// All packages in the order of their locations.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.values()
    }

    /// The packages that are installed on `platform`, in the order of their locations: without those for development,
    /// optional ones that do not support the platform, and dependencies of only those.
    ///
    /// # Errors
    /// [`Error::Platform`] if a required package does not support the platform.
    pub fn select(&self, platform: &Platform) -> Result<Vec<&Entry>, Error> {
        let mut failed = BTreeSet::new();
        for entry in self.entries.values().filter(|entry| !entry.fits(platform)) {
            match entry.wanted {
                Wanted::ForDevelopment => continue,
                Wanted::IfItFits => failed.insert(&*entry.location),
                Wanted::Always => {
                    let list = [&entry.os, &entry.cpu, &entry.libc].map(|list| list.join("|"));
                    let [os, cpu, libc] =
                        list.map(|list| if list.is_empty() { "any".to_owned() } else { list });
                    return Err(Error::Platform {
                        location: entry.location.to_string(),
                        wants: format!("{os}/{cpu}/{libc}"),
                        platform: *platform,
                    });
                }
            };
        }
        self.fail_dependents(&mut failed);
        let reached = self.reachable(&failed);
        let installed = |entry: &&Entry| match entry.wanted {
            Wanted::Always => true,
            Wanted::IfItFits => !failed.contains(&*entry.location) && reached.contains(&*entry.location),
            Wanted::ForDevelopment => false,
        };
        Ok(self.entries.values().filter(installed).collect())
    }

    /// An optional package that requires a failed one fails too.
    fn fail_dependents<'a>(&'a self, failed: &mut BTreeSet<&'a str>) {
        loop {
            let before = failed.len();
            for entry in self.entries.values().filter(|entry| entry.wanted == Wanted::IfItFits) {
                let broken = entry.needs.iter().any(|(name, need)| {
                    *need == Need::Required
                        && self
                            .find(&entry.location, name)
                            .is_some_and(|target| failed.contains(&*target.location))
                });
                if broken {
                    failed.insert(&entry.location);
                }
            }
            if failed.len() == before {
                return;
            }
        }
    }

    /// Locations reachable by dependencies from the application, or from a package that is always included, without
    /// passing through a failed one.
    fn reachable<'a>(&'a self, failed: &BTreeSet<&str>) -> BTreeSet<&'a str> {
        let asked = self.applications.keys().filter_map(|name| self.find("", name));
        let always = self.entries.values().filter(|entry| entry.wanted == Wanted::Always);
        let mut todo: Vec<&Entry> = asked.chain(always).collect();
        let mut reached = BTreeSet::new();
        while let Some(entry) = todo.pop() {
            if !failed.contains(&*entry.location) && reached.insert(&*entry.location) {
                todo.extend(entry.needs.keys().filter_map(|name| self.find(&entry.location, name)));
            }
        }
        reached
    }

    /// The package that `from` gets for `name`: Node.js looks in every `node_modules` on the way up.
    fn find(&self, from: &str, name: &str) -> Option<&Entry> {
        let mut place = from;
        loop {
            let candidate = if place.is_empty() {
                format!("node_modules/{name}")
            } else {
                format!("{place}/node_modules/{name}")
            };
            if let Some(entry) = self.entries.get(candidate.as_str()) {
                return Some(entry);
            }
            if place.is_empty() {
                return None;
            }
            place = place.rfind("/node_modules/").and_then(|end| place.get(..end)).unwrap_or("");
        }
    }
}

fn entry(location: &str, raw: Raw) -> Result<Entry, Error> {
    let place = place(location)?;
    let at = || location.to_owned();
    if raw.link {
        return Err(Error::Link { location: at() });
    }
    if raw.in_bundle {
        return Err(Error::Bundled { location: at() });
    }
    let name = raw.name.as_deref().unwrap_or(place);
    if !is_name(name) {
        return Err(Error::Name { location: at(), name: name.to_owned() });
    }
    let version = raw.version.as_deref().unwrap_or_default();
    let canonical = Version::parse(version).is_ok_and(|parsed| parsed.to_string() == version);
    if !canonical {
        return Err(Error::PackageVersion { location: at(), found: version.to_owned() });
    }
    let integrity = raw.integrity.ok_or_else(|| Error::NoIntegrity { location: at() })?;
    let integrity = integrity.parse().map_err(|source| Error::Integrity { location: at(), source })?;
    let wanted = match (raw.dev, raw.optional || raw.dev_optional) {
        (true, _) => Wanted::ForDevelopment,
        (false, true) => Wanted::IfItFits,
        (false, false) => Wanted::Always,
    };
    let mut needs = BTreeMap::new();
    for (peer, _) in raw.peer_dependencies.0 {
        let optional = raw.peer_dependencies_meta.0.get(&peer).is_some_and(|meta| meta.optional);
        needs.insert(peer.into(), if optional { Need::Optional } else { Need::Required });
    }
    needs.extend(raw.dependencies.0.into_keys().map(|name| (name.into(), Need::Required)));
    needs.extend(raw.optional_dependencies.0.into_keys().map(|name| (name.into(), Need::Optional)));
    Ok(Entry {
        location: location.into(),
        name: name.into(),
        version: version.into(),
        integrity,
        bin: raw.bin.map_or_else(BTreeMap::new, |bin| bin.normalise(name)),
        os: raw.os.into_list(),
        cpu: raw.cpu.into_list(),
        libc: raw.libc.into_list(),
        wanted,
        has_install_script: raw.has_install_script,
        engines: raw.engines.and_then(|engines| text(engines.get("node")?)),
        license: raw.license.and_then(|license| text(license.get("type").unwrap_or(&license))),
        needs,
    })
}

/// The name in a location: what follows its last `node_modules/`.
fn place(location: &str) -> Result<&str, Error> {
    let wrong = || Error::Location(location.to_owned());
    let mut rest = location;
    for _ in 0..MAX_DEPTH {
        let after = rest.strip_prefix("node_modules/").ok_or_else(wrong)?;
        let (name, below) = match after.find("/node_modules/") {
            Some(end) => (after.get(..end), after.get(end + 1..)),
            None => (Some(after), None),
        };
        let name = name.filter(|name| is_name(name)).ok_or_else(wrong)?;
        match below {
            Some(below) => rest = below,
            None => return Ok(name),
        }
    }
    Err(wrong())
}

/// Whether npm accepts `name` (validate-npm-package-name, old names included): URL-safe, one scope at most.
fn is_name(name: &str) -> bool {
    let plain = |part: &str| {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!'()*".contains(&byte);
        !part.is_empty() && !part.starts_with('.') && part != "node_modules" && part.bytes().all(safe)
    };
    // Neither a scope nor a name may begin with a full stop.
    name.len() <= 214
        && match name.strip_prefix('@') {
            Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| plain(scope) && plain(name)),
            None => plain(name),
        }
}

/// A string; old packages have lists and objects in its place, which npm ignores too.
fn text(value: &Value) -> Option<Box<str>> {
    value.as_str().map(Box::from)
}

/// The last component of a path, as Node's `path.basename`.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or("")
}

/// A path that stays below its root, as by `path.join("/", path)`.
fn rooted(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    lockfile_version: u64,
}

/// The document, without the fields that do not affect the tree; unknown fields are refused, since they might.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct Document {
    name: Option<IgnoredAny>,
    version: Option<IgnoredAny>,
    lockfile_version: IgnoredAny,
    requires: Option<IgnoredAny>,
    packages: Unique<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code)]
struct Raw {
    name: Option<String>,
    version: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    link: bool,
    #[serde(default)]
    in_bundle: bool,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    dev_optional: bool,
    #[serde(default)]
    has_install_script: bool,
    #[serde(default)]
    dependencies: Unique<String>,
    #[serde(default)]
    optional_dependencies: Unique<String>,
    #[serde(default)]
    peer_dependencies: Unique<String>,
    #[serde(default)]
    peer_dependencies_meta: Unique<PeerMeta>,
    bin: Option<Bin>,
    #[serde(default)]
    os: List,
    #[serde(default)]
    cpu: List,
    #[serde(default)]
    libc: List,
    engines: Option<Value>,
    license: Option<Value>,
    // The following fields do not affect the files of a production tree.
    resolved: Option<IgnoredAny>,
    peer: Option<IgnoredAny>,
    extraneous: Option<IgnoredAny>,
    has_shrinkwrap: Option<IgnoredAny>,
    dev_dependencies: Option<IgnoredAny>,
    bundle_dependencies: Option<IgnoredAny>,
    accept_dependencies: Option<IgnoredAny>,
    workspaces: Option<IgnoredAny>,
    funding: Option<IgnoredAny>,
    deprecated: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct PeerMeta {
    #[serde(default)]
    optional: bool,
}

/// `bin` in the three forms in which packages write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Bin {
    One(String),
    Several(Vec<String>),
    Named(BTreeMap<String, Value>),
}

impl Bin {
    /// `npm-normalize-package-bin`: the last component of the command's name, and a file that stays in the package.
    fn normalise(self, name: &str) -> BTreeMap<Box<str>, Box<str>> {
        let named = match self {
            Bin::One(file) => vec![(name.to_owned(), file)],
            Bin::Several(files) => {
                files.into_iter().map(|file| (base_name(&file).to_owned(), file)).collect()
            }
            Bin::Named(files) => {
                let texts = files
                    .into_iter()
                    .filter_map(|(command, file)| file.as_str().map(|file| (command, file.to_owned())));
                texts.collect()
            }
        };
        let clean = named.into_iter().filter_map(|(command, file)| {
            let command = rooted(base_name(&command.replace(['\\', ':'], "/")));
            let file = rooted(&file.replace('\\', "/"));
            let usable =
                !command.is_empty() && !file.is_empty() && !command.contains('\0') && !file.contains('\0');
            usable.then(|| (command.into(), file.into()))
        });
        clean.collect()
    }
}

/// A list, or a single value.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum List {
    #[default]
    None,
    One(Box<str>),
    Several(Vec<Box<str>>),
}

impl List {
    fn into_list(self) -> Vec<Box<str>> {
        match self {
            List::None => Vec::new(),
            List::One(one) => vec![one],
            List::Several(several) => several,
        }
    }
}

/// A JSON object without duplicate keys.
struct Unique<V>(BTreeMap<String, V>);

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Unique(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once<V>(std::marker::PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Once<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if entries.contains_key(&key) {
                        return Err(serde::de::Error::custom(format_args!("duplicate key {key:?}")));
                    }
                    entries.insert(key, value);
                }
                Ok(Unique(entries))
            }
        }

        deserializer.deserialize_map(Once(std::marker::PhantomData))
    }
}

#[cfg(test)]
pub(crate) mod tests;
