//! Yields the manifest of an image: what went in, what came out, and what a verifier must know.
//!
//! # Shape
//! `manifest.json` is one JSON document with sorted inputs and no clock, host or path. Digests are SHA-256 in
//! lower-case hexadecimal, sizes are in bytes, addresses on the disk count blocks of 512 bytes.
//!
//! # Not here
//! The registers after a boot of the image (`ovmf-measure`), signatures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recipe::Profile;

/// The manifest format that this program writes.
pub const FORM: &str = "proofmark-manifest/1";

/// What went into an image and what came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORM`].
    pub form: String,
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// Which of the recipe's two images it is; a verifier refuses `debug` unless it is told otherwise.
    pub profile: Profile,
    /// What built it.
    pub tool: Tool,
    /// Digest of the lock.
    pub lock_sha256: String,
    /// The timestamp of all files, in seconds since 1970: the date of the newest Debian archive in the lock.
    pub epoch: u64,
    /// The kernel.
    pub kernel: Kernel,
    /// The measured command line.
    pub command_line: String,
    /// The root file system.
    pub filesystem: Filesystem,
    /// Its hash tree.
    pub verity: Verity,
    /// The partition table.
    pub disk: Disk,
    /// The sections of the UKI, in file order.
    pub uki: Vec<Part>,
    /// Set if the UKI is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<SecureBoot>,
    /// Everything that went in, by kind and name.
    pub inputs: Vec<Input>,
    /// Everything that came out besides this manifest, by file name.
    pub outputs: BTreeMap<String, Output>,
}

/// What built an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// `proofmark`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The compressor and its version.
    pub compressor: String,
}

/// The kernel of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// What `uname -r` says.
    pub release: String,
    /// Modules that the initrd loads, in order.
    pub initrd_modules: Vec<String>,
    /// Number of modules in the root file system.
    pub modules: usize,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// `erofs`.
    pub kind: String,
    /// Its UUID.
    pub uuid: String,
    /// Its size in bytes.
    pub size: u64,
    /// `zstd:LEVEL`, or `none`.
    pub compression: String,
    /// Number of paths.
    pub paths: usize,
}

/// The hash tree of the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// The root hash.
    pub root_hash: String,
    /// The salt.
    pub salt: String,
    /// `sha256`.
    pub algorithm: String,
    /// Size of data and hash blocks, in bytes.
    pub block_size: u32,
    /// Number of data blocks.
    pub data_blocks: u64,
    /// First block of the hash tree in its partition; the superblock comes before it.
    pub hash_start: u64,
    /// UUID of the superblock.
    pub uuid: String,
}

/// The partition table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// GUID of the disk.
    pub guid: String,
    /// Size of the disk in bytes.
    pub size: u64,
    /// The partitions in the order of the table.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// `esp`, `root` or `root-verity`.
    pub name: String,
    /// Its type.
    pub type_guid: String,
    /// Its own GUID.
    pub guid: String,
    /// First block.
    pub first_lba: u64,
    /// Last block.
    pub last_lba: u64,
}

/// A named part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: String,
}

/// How the UKI is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureBoot {
    /// SHA-256 of the certificate's DER.
    pub certificate_sha256: String,
    /// What the signature means for the measurement.
    pub note: String,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// `deb`, `npm`, `guest` or `recipe`.
    pub kind: String,
    /// Name of the package, or path of the recipe's file.
    pub name: String,
    /// Version; empty for files.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: String,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: String,
}

impl Manifest {
    /// Formats the manifest as text that ends with a newline.
    pub fn to_text(&self) -> String {
        // JSON can hold all of it: strings, numbers, lists and maps keyed by string.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
