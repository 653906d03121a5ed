//! Reads the needed parts of files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ovmf_measure::esp::{self, Sectors};
use ovmf_measure::gpt::{ESP, Gpt, SECTOR, TABLE};

/// The maximum size of a system partition in bytes.
const MOST_ESP: u64 = 2 << 30;

/// The maximum size of a firmware file in bytes: more does not fit below 4 GiB beside the devices.
pub const MOST_FIRMWARE: u64 = 64 << 20;
/// The maximum size of a UKI in bytes.
pub const MOST_UKI: u64 = 2 << 30;

/// Reads a whole file of at most `most` bytes.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().with_context(|| path.display().to_string())?;
    if bytes.len() as u64 > most {
        bail!("{}: expected at most {} MiB", path.display(), most >> 20);
    }
    Ok(bytes)
}

/// Parses a size such as 512M or 4G.
pub fn memory(text: &str) -> Result<u64, String> {
    ovmf_measure::shape::bytes(text)
        .ok_or_else(|| format!("expected a size such as 512M or 4G, found {text:?}"))
}

/// A disk and its partition table.
pub struct Disk {
    path: PathBuf,
    table: Vec<u8>,
}

impl Disk {
    /// Reads a disk's partition table.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || {
            let mut table = Vec::new();
            File::open(path)?.take(TABLE as u64).read_to_end(&mut table)?;
            std::io::Result::Ok(table)
        };
        let table = read().with_context(|| path.display().to_string())?;
        Ok(Disk { path: path.to_owned(), table })
    }

    /// Returns the first sectors.
    pub fn table(&self) -> &[u8] {
        &self.table
    }

    /// Reads the program that firmware starts from the system partition.
    pub fn boot_program(&self) -> Result<Vec<u8>> {
        let gpt = Gpt::read(&self.table)?;
        let partition = gpt.partitions().find(|partition| partition.kind == ESP);
        let partition = partition.context("the disk has no EFI system partition")?;
        let sectors = partition.last.checked_sub(partition.first).and_then(|count| count.checked_add(1));
        let length =
            sectors.and_then(|count| count.checked_mul(SECTOR as u64)).filter(|length| *length <= MOST_ESP);
        let (Some(length), Some(start)) = (length, partition.first.checked_mul(SECTOR as u64)) else {
            bail!(
                "system partition from sector {} to {}: expected at most 2 GiB",
                partition.first,
                partition.last
            );
        };
        let file = File::open(&self.path).with_context(|| self.path.display().to_string())?;
        let partition = Part { file, start, length };
        esp::read_boot_program(&partition).with_context(|| self.path.display().to_string())
    }
}

/// A partition of a file.
struct Part {
    file: File,
    start: u64,
    length: u64,
}

impl Sectors for Part {
    fn length(&self) -> u64 {
        self.length
    }

    fn append(&self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> Option<()> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.length)?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start.checked_add(offset)?)).ok()?;
        let read = file.take(end.checked_sub(offset)?).read_to_end(bytes).ok()?;
        (read == length).then_some(())
    }
}
