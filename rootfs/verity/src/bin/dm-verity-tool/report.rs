//! The output for a tree or a verdict: text like `veritysetup`'s, or JSON.
//!
//! # Shape
//!
//! JSON objects have their keys in a fixed order; numbers are decimal, digests and salt hexadecimal (no salt
//! is an empty string).
//!
//! # Source
//!
//! cryptsetup `lib/verity/verity.c`, `VERITY_dump`.

use std::io::Write as _;

use dm_verity_tool::{Fault, HashOffset, RootHash, Superblock};
use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, clap::Args)]
pub struct Style {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A superblock, and the root hash if it is known.
#[derive(Serialize)]
pub struct Header {
    uuid: String,
    hash_type: u32,
    data_blocks: u64,
    data_block_size: u32,
    hash_blocks: u64,
    hash_block_size: u32,
    hash_algorithm: &'static str,
    salt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_hash: Option<String>,
    hash_offset: u64,
    hash_start_block: u64,
    /// The length of superblock, padding and tree, from the start of the file.
    hash_device_size: u64,
}

impl Header {
    /// Describes a superblock at an offset.
    pub fn new(superblock: &Superblock, root_hash: Option<RootHash>, offset: HashOffset) -> Self {
        let hash_blocks = superblock.layout().hash_blocks();
        let hash_block_size = superblock.hash_block_size().bytes();
        let hash_start_block = superblock.hash_start_block(offset);
        Self {
            uuid: superblock.uuid().to_string(),
            hash_type: 1,
            data_blocks: superblock.data_blocks(),
            data_block_size: superblock.data_block_size().bytes(),
            hash_blocks,
            hash_block_size,
            hash_algorithm: Superblock::ALGORITHM,
            salt: if superblock.salt().as_bytes().is_empty() {
                String::new()
            } else {
                superblock.salt().to_string()
            },
            root_hash: root_hash.map(|root| root.to_string()),
            hash_offset: offset.bytes(),
            hash_start_block,
            hash_device_size: (hash_start_block + hash_blocks).saturating_mul(u64::from(hash_block_size)),
        }
    }

    /// Prints it.
    pub fn print(&self, style: Style, name: &str) -> anyhow::Result<()> {
        if style.json {
            return print_json(self);
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "VERITY header information for {name}")?;
        writeln!(out, "UUID:            \t{}", self.uuid)?;
        writeln!(out, "Hash type:       \t{}", self.hash_type)?;
        writeln!(out, "Data blocks:     \t{}", self.data_blocks)?;
        writeln!(out, "Data block size: \t{}", self.data_block_size)?;
        writeln!(out, "Hash blocks:     \t{}", self.hash_blocks)?;
        writeln!(out, "Hash block size: \t{}", self.hash_block_size)?;
        writeln!(out, "Hash algorithm:  \t{}", self.hash_algorithm)?;
        writeln!(out, "Salt:            \t{}", if self.salt.is_empty() { "-" } else { &self.salt })?;
        if let Some(root_hash) = &self.root_hash {
            writeln!(out, "Root hash:      \t{root_hash}")?;
        }
        writeln!(out, "Hash device size: \t{} [bytes]", self.hash_device_size)?;
        Ok(())
    }
}

/// A verdict.
#[derive(Serialize)]
pub struct Answer {
    /// `intact` or `corrupt`.
    pub verdict: &'static str,
    /// The root hash that was asked for.
    pub root_hash: String,
    /// The number of faults, listed or not.
    pub count: u64,
    /// The first of them.
    pub faults: Vec<Finding>,
}

/// A fault as JSON.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Finding {
    /// See [`Fault::Data`].
    Data { block: u64, expected: String, found: String },
    /// See [`Fault::Tree`].
    Tree {
        level: usize,
        block: u64,
        expected: String,
        found: String,
        first_data_block: u64,
        data_blocks: u64,
    },
    /// See [`Fault::Padding`].
    Padding { level: usize, digests: u64 },
}

impl From<&Fault> for Finding {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Data { block, expected, found } => {
                Self::Data { block: *block, expected: hex::encode(expected), found: hex::encode(found) }
            }
            Fault::Tree { level, block, expected, found, data } => Self::Tree {
                level: *level,
                block: *block,
                expected: hex::encode(expected),
                found: hex::encode(found),
                first_data_block: data.start,
                data_blocks: data.end - data.start,
            },
            Fault::Padding { level, digests } => Self::Padding { level: *level, digests: *digests },
        }
    }
}

impl Style {
    /// Returns whether to print JSON.
    pub const fn is_json(self) -> bool {
        self.json
    }
}

/// Prints a value as one line of JSON.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value)?;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
