//! Yields what firmware and kernel read from a raw disk file: partition table, boot program, root hash.
//!
//! # Shape
//! ```text
//! | table | root (data blocks, hashed again) | root-verity (compared) | ESP: \EFI\BOOT\BOOTX64.EFI | table |
//! ```
//! One pass over the file, in pieces of 8 MiB, gives both its digest and the root hash.
//!
//! # Not here
//! Whether the values are right: `flow::audit`, `claim::reference`.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dm_verity_tool::{BlockSize, HashOffset, Hasher, Parameters, Salt};
use ovmf_measure::esp::{self, Sectors};
use ovmf_measure::gpt::{self, ESP, Gpt, Partition, SECTOR, TABLE};
use proofmark_guest::init::cmdline::Boot;
use rayon::prelude::*;
use rootfs::content::Sha256Digest;
use sha2::{Digest, Sha256};

use super::pages::Pages;

/// Size of a piece, in bytes.
const PIECE: usize = 8 << 20;
/// Size of the part of a program that one thread reads at once, in bytes.
const PART: usize = 1 << 20;
/// The largest system partition that is read, in bytes: a UKI is far smaller.
const MOST_ESP: u64 = 4 << 30;

/// Why a disk cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has no partition table that firmware accepts.
    #[error("{} has no partition table to boot from", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        source: gpt::Error,
    },
    /// The boot program cannot be found.
    #[error("{} has no program to boot", path.display())]
    Program {
        /// The file.
        path: PathBuf,
        /// Why.
        source: esp::Error,
    },
    /// A partition is missing or misplaced.
    #[error("{}, {what}: expected {expected}, found {found}", path.display())]
    Place {
        /// The file.
        path: PathBuf,
        /// Which partition.
        what: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// The value found.
        found: String,
    },
}

/// A raw disk whose partition table has been read.
#[derive(Debug)]
pub struct RawDisk {
    path: PathBuf,
    head: Vec<u8>,
    bytes: u64,
    partitions: Vec<Partition>,
}

/// The result of one pass over a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// SHA-256 of the whole file.
    pub sha256: Sha256Digest,
    /// The root hash computed from the data blocks.
    pub root_hash: [u8; 32],
    /// Whether the stored hash tree matches these blocks.
    pub tree: StoredTree,
}

/// Whether a stored hash tree matches the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredTree {
    /// They match byte for byte.
    Equal,
    /// They differ from this byte of the hash partition on.
    Differs(u64),
}

/// A partition of the file.
struct Part {
    file: File,
    start: u64,
    length: u64,
    /// The error of a failed read.
    failure: RefCell<Option<io::Error>>,
}

impl Part {
    fn fill(&self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= self.length);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start.saturating_add(offset)))?;
        let read = if inside { file.take(length as u64).read_to_end(bytes)? } else { 0 };
        if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Sectors for Part {
    fn length(&self) -> u64 {
        self.length
    }

    fn append(&self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> Option<()> {
        self.fill(offset, length, bytes).map_err(|error| self.failure.replace(Some(error))).ok()
    }
}

impl RawDisk {
    /// Opens a disk and reads its partition table.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let mut head = Vec::new();
        file.take(TABLE as u64).read_to_end(&mut head).map_err(failed)?;
        let table = Gpt::read(&head).map_err(|source| Error::Table { path: path.to_owned(), source })?;
        let partitions = table.partitions().collect();
        Ok(RawDisk { path: path.to_owned(), head, bytes, partitions })
    }

    /// Returns the first sectors, with the partition table.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Returns the length of the file, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn place(&self, what: &'static str, is: impl Fn(&Partition) -> bool) -> Result<(u64, u64), Error> {
        let place = |expected, found| Error::Place { path: self.path.clone(), what, expected, found };
        let mut all = self.partitions.iter().filter(|partition| is(partition));
        let (Some(partition), None) = (all.next(), all.next()) else {
            return Err(place("one such partition", "none, or several".to_owned()));
        };
        let start = partition.first.checked_mul(SECTOR as u64);
        let end = partition.last.checked_add(1).and_then(|end| end.checked_mul(SECTOR as u64));
        match (start, end) {
            (Some(start), Some(end)) if start < end && end <= self.bytes => Ok((start, end)),
            _ => {
                let found = format!("sectors {} to {}", partition.first, partition.last);
                Err(place("sectors inside the file", found))
            }
        }
    }

    /// Reads the boot program.
    ///
    /// # Errors
    /// [`Error`].
    pub fn boot_program(&self) -> Result<Pages, Error> {
        let (start, end) = self.place("the EFI system partition", |partition| partition.kind == ESP)?;
        let failed = |source| Error::Read { path: self.path.clone(), source };
        if end - start > MOST_ESP {
            let found = format!("{} bytes", end - start);
            let (what, expected) = ("the EFI system partition", "at most 4 GiB");
            return Err(Error::Place { path: self.path.clone(), what, expected, found });
        }
        let file = File::open(&self.path).map_err(failed)?;
        let partition = Part { file, start, length: end - start, failure: RefCell::default() };
        let found = esp::boot_program(&partition);
        if let Some(source) = partition.failure.take() {
            return Err(failed(source));
        }
        let pieces = found.map_err(|source| Error::Program { path: self.path.clone(), source })?;
        // At most the length in its directory entry, and the file lies in the partition.
        let length: u64 = pieces.iter().map(|(_, length)| length).sum();
        let mut program = Pages::zeroed(usize::try_from(length).unwrap_or(usize::MAX)).map_err(failed)?;
        let mut rest = &mut *program;
        let mut parts = Vec::new();
        for (mut offset, length) in pieces {
            let piece = rest.split_off_mut(..usize::try_from(length).unwrap_or(usize::MAX));
            for part in piece.unwrap_or_default().chunks_mut(PART) {
                let length = part.len() as u64;
                parts.push((start.saturating_add(offset), part));
                offset = offset.saturating_add(length);
            }
        }
        let read = parts.into_par_iter().try_for_each(|(at, part)| partition.file.read_exact_at(part, at));
        read.map_err(failed)?;
        Ok(program)
    }

    /// Reads the whole disk once; `told` gets the length of each piece.
    ///
    /// # Errors
    /// [`Error`].
    pub fn pass(&self, boot: &Boot, told: &dyn Fn(u64)) -> Result<Pass, Error> {
        let failed = |source| Error::Read { path: self.path.clone(), source };
        let place =
            |what, expected, found: String| Error::Place { path: self.path.clone(), what, expected, found };
        let (root, root_end) = self.place("the root partition", |partition| partition.guid == boot.root.0)?;
        let (tree, tree_end) =
            self.place("the hash partition", |partition| partition.guid == boot.verity.0)?;
        let geometry = &boot.geometry;
        let data = geometry.sectors().saturating_mul(SECTOR as u64);
        if data > root_end - root {
            let found = format!("{} of {} bytes", root_end - root, data);
            return Err(place("the root partition", "all data blocks", found));
        }
        let block = BlockSize::new(geometry.block_size());
        let block = block
            .map_err(|_| place("the block size", "a power of two", geometry.block_size().to_string()))?;
        let salt = Salt::new(boot.salt.as_bytes()).map_err(|_| place("the salt", "a salt", String::new()))?;
        let parameters = Parameters { salt, data_block_size: block, hash_block_size: block, uuid: None };
        let mut leaves = Hasher::new(&parameters);
        let mut whole = Sha256::new();
        let mut stored = Vec::new();
        let mut file = File::open(&self.path).map_err(failed)?;
        let mut piece = Pages::zeroed(PIECE).map_err(failed)?;
        let mut next = Pages::zeroed(PIECE).map_err(failed)?;
        let mut at = 0u64;
        let mut length = fill(&mut file, &mut piece).map_err(failed)?;
        while length > 0 {
            let bytes = piece.get(..length).unwrap_or_default();
            // Returns the part of this piece that lies in a range of the disk.
            let inside = |from: u64, to: u64| {
                let start = from.clamp(at, at + length as u64) - at;
                let end = to.clamp(at, at + length as u64) - at;
                bytes.get(start as usize..end as usize).unwrap_or_default()
            };
            let (data, hashes) = (inside(root, root + data), inside(tree, tree_end));
            stored.extend_from_slice(hashes);
            // The digest of the whole disk takes longest; meanwhile the blocks are hashed and the next piece
            // is read.
            let (_, read) = rayon::join(
                || whole.update(bytes),
                || {
                    let read = fill(&mut file, &mut next);
                    leaves.update(data);
                    read
                },
            );
            at += length as u64;
            told(length as u64);
            length = read.map_err(failed)?;
            std::mem::swap(&mut piece, &mut next);
        }
        let hashes = leaves.finish();
        let hashes =
            hashes.map_err(|error| place("the root partition", "whole blocks", error.to_string()))?;
        let mut computed = Vec::new();
        hashes.write_to(&mut computed, HashOffset::ZERO).map_err(failed)?;
        // The superblock in front has a UUID, which no measurement covers; the command line says where the
        // tree begins.
        let from = geometry.hash_start().saturating_mul(geometry.block_size().into());
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        let own = computed.get(geometry.block_size() as usize..).unwrap_or_default();
        let there = stored.get(skip..).unwrap_or_default();
        let first = (0..own.len()).find(|index| own.get(*index) != there.get(*index));
        let tree =
            first.map_or(StoredTree::Equal, |index| StoredTree::Differs(from.saturating_add(index as u64)));
        Ok(Pass { sha256: Sha256Digest(whole.finalize().into()), root_hash: hashes.root_hash().0, tree })
    }
}

/// Fills a buffer as far as the file goes.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
