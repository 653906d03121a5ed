//! Yields the bill of materials of an image: its packages, their places in what is measured, the loose files.
//!
//! # Shape
//! ```text
//! lock, tree, control stanzas ─ inventory ─> Bom ─┬─ cyclonedx ─> sbom.cdx.json   packages, relations, every file
//!                                                 └─ spdx ──────> sbom.spdx.json  packages, relations, files of no package
//!
//! image ── layer root            verity data blocks, hashed into the root hash on the command line
//!      └── layer uki             the file that firmware measures
//!            ├── layer uki:stub, uki:.linux, uki:.initrd, …   its sections
//! ```
//! Each file has its place: `root:12,340-341` names blocks of 4096 bytes in the root partition that hold its
//! inode and its data (small files share blocks); `uki:.linux` is a section. Hard links have the place of
//! their file. Symbolic links, directories and devices are in `contents.json` only.
//!
//! It uses no clock: its time is that of the newest archive in the lock, its serial number a UUIDv5 of
//! digests.
//!
//! # Source
//! CycloneDX 1.6 (ECMA-424), SPDX 2.3, NTIA "The Minimum Elements For a Software Bill of Materials" (2021).
//! SPDX demands a SHA-1 of each file, which would mean decompressing and hashing 20,000 files again, so
//! `sbom.spdx.json` lists only files that belong to no package.
//!
//! # Not here
//! Vulnerabilities (`claim::scan`), signatures.

pub mod cyclonedx;
mod inventory;
mod licence;
pub mod spdx;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

pub use inventory::{Error, Given};
pub use licence::Extracted;

/// Everything in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bom {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Which of the recipe's two images it is.
    pub profile: &'static str,
    /// The time of the document: seconds since 1970.
    pub epoch: u64,
    /// UUID derived from the lock, the root hash and the UKI.
    pub serial: Uuid,
    /// What made the image and the document.
    pub tool: Tool,
    /// Other facts about the image.
    pub facts: Vec<Fact>,
    /// The measured parts.
    pub layers: Vec<Layer>,
    /// The packages in it, by [`Package::reference`].
    pub packages: Vec<Package>,
    /// Files that belong to no package, by path.
    pub loose: Vec<LooseFile>,
    /// The licences without an SPDX name, by id.
    pub extracted: BTreeMap<String, Extracted>,
}

/// What made an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// `proofmark`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The compressor and its version.
    pub compressor: String,
}

/// A property name of ours, or of a registered taxonomy, and its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// The name, as `proofmark:layer`.
    pub name: &'static str,
    /// The value.
    pub value: String,
}

/// A part of the image that is measured as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// `root`, `uki`, `uki:stub`, `uki:.linux`, …
    pub id: String,
    /// What it is.
    pub description: String,
    /// Size in bytes.
    pub size: u64,
    /// Its digest; the root partition has a root hash instead.
    pub sha256: Option<String>,
    /// Other facts about it.
    pub facts: Vec<Fact>,
}

impl Layer {
    /// Returns the layer that contains it.
    pub fn parent(&self) -> Option<&str> {
        self.id.split_once(':').map(|(parent, _)| parent)
    }
}

/// The algorithm of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// The kind of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A program that runs on its own.
    Application,
    /// Firmware, which runs before the image and is not part of it.
    Firmware,
    /// Anything else.
    Library,
}

/// Who supplies a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supplier {
    /// An organization.
    Organization(String),
    /// A person.
    Person(String),
}

impl Supplier {
    /// The name alone.
    pub fn name(&self) -> &str {
        match self {
            Supplier::Organization(name) | Supplier::Person(name) => name,
        }
    }
}

/// The source package that a Debian package was built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its package URL.
    pub purl: String,
}

/// One package in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name in this document: the origin as in `contents.json`, or a name of the same form.
    pub reference: String,
    /// Its kind.
    pub role: Role,
    /// Name, with npm's scope.
    pub name: String,
    /// Version.
    pub version: String,
    /// Package URL.
    pub purl: String,
    /// Its name (CPE) in NIST's vulnerability database, if known.
    pub cpe: Option<String>,
    /// What it was built from.
    pub source: Option<Source>,
    /// Digests of its archive, in hexadecimal.
    pub hashes: Vec<(Algorithm, String)>,
    /// Where its archive is published.
    pub download: Option<String>,
    /// Who supplies it.
    pub supplier: Supplier,
    /// Its maintainer, if different from the supplier.
    pub maintainer: Option<String>,
    /// A valid SPDX expression.
    pub licence: Option<String>,
    /// Its licence statement, if that is not a valid expression.
    pub licence_text: Option<String>,
    /// Its homepage.
    pub homepage: Option<String>,
    /// A one-line description.
    pub description: Option<String>,
    /// Other facts about it.
    pub facts: Vec<Fact>,
    /// The layers that contain its files.
    pub layers: BTreeSet<String>,
    /// Its files, by path.
    pub files: Vec<File>,
    /// Numbers of the packages that it needs.
    pub needs: BTreeSet<usize>,
    /// Number of the package whose archive contains it.
    pub within: Option<usize>,
    /// Whether the recipe names it, or every image has it.
    pub direct: bool,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path in the image, or its layer and path.
    pub path: String,
    /// Its digest.
    pub sha256: String,
    /// Its place: the layer, and the blocks of the root partition.
    pub place: String,
}

/// A file that belongs to no package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LooseFile {
    /// The file.
    pub file: File,
    /// Size in bytes.
    pub size: u64,
    /// Its SHA-1, which SPDX demands.
    pub sha1: String,
    /// Its origin: a line of a recipe, or a fix-up.
    pub origin: String,
}

impl Bom {
    /// Lists the numbers of the packages that the recipe names.
    pub fn roots(&self) -> impl Iterator<Item = usize> + '_ {
        self.packages.iter().enumerate().filter(|(_, package)| package.direct).map(|(number, _)| number)
    }

    /// Returns the time of the document, as `2026-09-12T07:55:41Z`.
    pub fn created(&self) -> String {
        time(self.epoch)
    }
}

/// Formats seconds since 1970 as RFC 3339.
pub fn time(seconds: u64) -> String {
    let moment = crate::lock::moment(seconds);
    let part = |range| moment.get(range).unwrap_or_default();
    let (date, clock) = ([part(0..4), part(4..6), part(6..8)], [part(9..11), part(11..13), part(13..15)]);
    format!("{}T{}Z", date.join("-"), clock.join(":"))
}

/// Formats one line of JSON: strings, numbers, lists and structures, which JSON can hold.
fn row(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Appends `"name":[`, one row per line, and `]`.
fn rows<T: serde::Serialize>(text: &mut String, name: &str, list: impl Iterator<Item = T>) {
    text.push_str(&format!("\"{name}\":[\n"));
    for (number, item) in list.enumerate() {
        text.push_str(if number == 0 { "" } else { ",\n" });
        text.push_str(&row(&item));
    }
    text.push_str("\n]");
}

#[cfg(test)]
mod tests;
