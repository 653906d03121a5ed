//! `dump`: prints the superblock of a hash area.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use dm_verity_tool::{HashOffset, Superblock};

use crate::report::{Header, Style};

/// Print the superblock in HASH
#[derive(clap::Args)]
pub struct Dump {
    /// The file or block device with superblock and tree
    hash: PathBuf,

    /// Where in HASH the superblock is
    #[arg(long, value_name = "BYTES", default_value = "0")]
    hash_offset: HashOffset,

    #[command(flatten)]
    style: Style,
}

impl Dump {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let cannot = || format!("cannot read the superblock in {}", self.hash.display());
        let mut file = File::open(&self.hash).with_context(cannot)?;
        if self.hash_offset != HashOffset::ZERO {
            file.seek(SeekFrom::Start(self.hash_offset.bytes())).with_context(cannot)?;
        }
        let superblock = Superblock::read(file).with_context(cannot)?;
        let header = Header::new(&superblock, None, self.hash_offset);
        header.print(self.style, &self.hash.display().to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}
