//! Yields a whole recipe for one profile, from a `recipe.toml` and the recipes that it extends.
//!
//! # Shape
//! ```text
//! recipe.toml ─┬─ extends ─> documents, the most basic first ─┐
//!              └─ profiles.<profile> ─────────────────────────┴─> Recipe
//! ```
//! Lists add up, single values are overridden, and every value is checked here as far as it can be on its
//! own. A [`Recipe`] therefore has no path that escapes, no invalid name and no duplicate path.
//!
//! # Not here
//! Reading files: the caller passes a function that does. What the packages bring: `pipeline`.

pub mod document;
mod laid;
mod parsed;
pub mod promise;

pub use laid::{is_plain_name, too_long};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ovmf_measure::shape::{Name, Shape};
use rootfs::path::TreePath;
use rootfs::tree::Origin;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::advice::{Advice, Advised, FAILED};
use document::Document;

/// What is wrong with a recipe, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A recipe file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has an error.
    #[error("{place}: {message}")]
    Wrong {
        /// Where it is.
        place: Place,
        /// What is wrong.
        message: String,
        /// How to fix it.
        hint: Option<String>,
    },
    /// The recipe lacks something required.
    #[error("{}: no {what}", path.display())]
    Missing {
        /// The recipe.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Wrong { hint, .. } => Some(Advice { hint: hint.clone(), exit_code: FAILED }),
            Error::Read { .. } => {
                Some(Advice::failed("name a recipe's folder, for example `proofmark build recipes/minimal`"))
            }
            Error::Missing { .. } => None,
        }
    }
}

/// A place in a recipe file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn by_path<S: Serializer>(entries: &BTreeMap<TreePath, Entry>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(entries.iter().map(|(path, entry)| (path.to_string(), entry)))
}

fn in_words<S: Serializer>(machines: &[(Name, Shape)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(machines.iter().map(|(name, shape)| (name.as_str(), shape.words(*name))))
}

/// Selects one of the two images of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// For production.
    Release,
    /// For development, with a login. A verifier refuses it unless it is told otherwise.
    Debug,
}

impl Profile {
    /// Both.
    pub const ALL: [Profile; 2] = [Profile::Release, Profile::Debug];

    /// Returns its name, as in os-release and in every manifest.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Release => "release",
            Profile::Debug => "debug",
        }
    }
}

/// A recipe for one profile.
#[derive(Debug, Clone, Serialize)]
pub struct Recipe {
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// Which profile this is.
    pub profile: Profile,
    /// Host name of the machine.
    pub hostname: String,
    /// Debian packages.
    pub debian: Debian,
    /// The kernel.
    pub kernel: Kernel,
    /// Node.js.
    pub node: Option<document::Node>,
    /// Applications from the npm registry, by name.
    pub npm: Vec<document::NpmApplication>,
    /// The recipe's own files, links and directories, by path.
    #[serde(serialize_with = "by_path")]
    pub entries: BTreeMap<TreePath, Entry>,
    /// System users.
    pub users: Vec<document::User>,
    /// System groups.
    pub groups: Vec<document::Group>,
    /// Units to enable, to mask, and the default target.
    pub systemd: Systemd,
    /// Debian alternatives.
    pub alternatives: BTreeMap<String, String>,
    /// The zstd level; `None` means uncompressed.
    pub compression: Option<i32>,
    /// Size of the whole disk in bytes, if the recipe states it.
    pub disk_size: Option<u64>,
    /// The machines whose reference values are computed.
    pub measure: Measure,
    /// Libraries that may be absent, with the reason.
    pub absent_libraries: BTreeMap<String, String>,
}

/// The machines whose reference values are computed.
#[derive(Debug, Clone, Serialize)]
pub struct Measure {
    /// Debian package of QEMU's firmware, and its place in the recipe.
    pub firmware: Option<(String, Place)>,
    /// Each machine, in the order of the recipe.
    #[serde(serialize_with = "in_words")]
    pub machines: Vec<(Name, Shape)>,
}

/// Debian packages of a recipe.
#[derive(Debug, Clone, Serialize)]
pub struct Debian {
    /// Code name of the release.
    pub suite: String,
    /// Time of the archive snapshot, `YYYYMMDDTHHMMSSZ`.
    pub snapshot: Option<String>,
    /// Packages to install, sorted, each with its place.
    pub packages: BTreeMap<String, Place>,
    /// Packages that must not be installed.
    pub exclude: BTreeMap<String, Place>,
    /// Files to leave out.
    pub omit: Vec<document::Omit>,
    /// How to treat unknown maintainer scripts.
    pub scripts: BTreeMap<String, document::ScriptRule>,
}

/// The kernel of a recipe.
#[derive(Debug, Clone, Serialize)]
pub struct Kernel {
    /// Debian package of the kernel.
    pub package: String,
    /// Debian package of the UEFI stub.
    pub stub_package: String,
    /// Modules of the root file system.
    pub modules: Vec<String>,
    /// Modules that the initrd loads.
    pub initrd_modules: Vec<String>,
    /// Words of the command line.
    pub command_line: Vec<String>,
    /// Where each word is.
    #[serde(skip)]
    pub command_line_places: Vec<Place>,
}

/// Units of a recipe.
#[derive(Debug, Clone, Serialize)]
pub struct Systemd {
    /// Units to enable.
    pub enable: Vec<String>,
    /// Units to mask.
    pub mask: Vec<String>,
    /// The target that the machine boots to.
    pub default_target: String,
}

/// One of the recipe's own paths.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Its place in the recipe.
    pub place: Place,
    /// Whether it replaces a package's file.
    pub replace: bool,
}

/// What one of the recipe's own paths is.
#[derive(Debug, Clone, Serialize)]
pub enum EntryKind {
    /// A file.
    File {
        /// Its content.
        content: Source,
        /// Permissions and owner.
        access: Access,
    },
    /// A symbolic link to a target, as written.
    Link(String),
    /// A directory.
    Directory(Access),
}

/// Permissions and owner of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    /// The low 12 bits of `st_mode`.
    pub mode: u16,
    /// Name of the owner.
    pub owner: String,
    /// Name of the group.
    pub group: String,
}

/// Where the content of a file comes from.
#[derive(Debug, Clone, Serialize)]
pub enum Source {
    /// A file in the recipe's folder.
    Path(PathBuf),
    /// Text in the recipe itself.
    Text(String),
}

impl Entry {
    /// Returns the origin of the path.
    pub fn origin(&self) -> Origin {
        Origin::Recipe { file: Arc::clone(&self.place.file), line: self.place.line }
    }
}

/// Reads a file: the only effect that loading a recipe needs.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;
/// Returns the recipe file that `argument` names: a `recipe.toml`, or the folder that holds one.
pub fn file_of(argument: &Path) -> PathBuf {
    if argument.extension().is_some_and(|extension| extension == "toml") {
        argument.to_owned()
    } else {
        argument.join("recipe.toml")
    }
}

/// Loads the recipe at `path` and everything that it extends, for one profile.
///
/// # Errors
/// [`Error`], with file, line and column, and the nearest valid name if there is one.
pub fn load(path: &Path, profile: Profile, read: ReadFile<'_>) -> Result<Recipe, Error> {
    let mut chain = Vec::new();
    parsed::parse_chain(path, path, read, &mut chain, 0)?;
    laid::lay(path, profile, &chain)
}

/// Returns the candidate nearest to `word`, if one is near enough.
pub fn near_miss<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().div_ceil(3).max(1);
    candidates
        .map(|candidate| (strsim::levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns the digest of everything in a recipe that decides what a lock holds, over both profiles.
pub fn lock_digest(recipes: &[Recipe]) -> String {
    #[derive(Serialize)]
    struct Inputs<'a> {
        profile: &'a str,
        suite: &'a str,
        snapshot: &'a Option<String>,
        packages: Vec<&'a String>,
        exclude: Vec<&'a String>,
        scripts: Vec<&'a String>,
        kernel: (&'a str, &'a str),
        #[serde(skip_serializing_if = "Option::is_none")]
        firmware: Option<&'a str>,
        node: Option<(&'a str, &'a str)>,
        npm: Vec<(&'a str, &'a str, &'a str)>,
        accounts: Vec<(&'a str, &'a str, Option<u32>)>,
    }
    let mut hasher = Sha256::new();
    for recipe in recipes {
        let users = recipe.users.iter().map(|user| ("user", &*user.name, user.id));
        let groups = recipe.groups.iter().map(|group| ("group", &*group.name, group.id));
        let inputs = Inputs {
            profile: recipe.profile.name(),
            suite: &recipe.debian.suite,
            snapshot: &recipe.debian.snapshot,
            packages: recipe.debian.packages.keys().collect(),
            exclude: recipe.debian.exclude.keys().collect(),
            scripts: recipe.debian.scripts.keys().collect(),
            kernel: (&recipe.kernel.package, &recipe.kernel.stub_package),
            firmware: recipe.measure.firmware.as_ref().map(|(name, _)| name.as_str()),
            node: recipe.node.as_ref().map(|node| (&*node.version, &*node.npm_client)),
            npm: recipe.npm.iter().map(|app| (&*app.name, &*app.version, &*app.target)).collect(),
            accounts: users.chain(groups).collect(),
        };
        // The value has only strings, numbers and lists, so JSON can hold it.
        hasher.update(serde_json::to_vec(&inputs).unwrap_or_default());
        hasher.update([0]);
    }
    hex::encode(hasher.finalize())
}

/// Returns the JSON Schema of a recipe, as text that ends with a newline.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Document);
    // A schema is JSON by construction.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
