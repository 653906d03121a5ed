//! `verify`: checks an image against its hash area and a root hash.

use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use dm_verity_tool::{Corruption, HashOffset, RootHash, StoredTree, Verdict};

use crate::image::Image;
use crate::report::{Answer, Finding, Style, print_json};

/// Check DATA and the tree in HASH against a root hash; exits with 4 if they do not match
#[derive(clap::Args)]
pub struct Verify {
    /// The image: a file, a block device or a pipe
    data: PathBuf,

    /// The file or block device with superblock and tree
    hash: PathBuf,

    /// The root hash, 64 hexadecimal digits
    #[arg(value_name = "ROOT")]
    root_hash: RootHash,

    /// Where in HASH the superblock is
    #[arg(long, value_name = "BYTES", default_value = "0")]
    hash_offset: HashOffset,

    /// List at most this many faults
    #[arg(long, value_name = "N", default_value = "100")]
    limit: usize,

    #[command(flatten)]
    style: Style,
}

impl Verify {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let stored = self.stored()?;
        let superblock = stored.superblock();
        let hasher = Image::open(&self.data)?.hash(
            stored.hasher(),
            superblock.data_block_size(),
            Some(superblock.data_blocks()),
        )?;
        let verdict = stored.judge(hasher, self.root_hash, self.limit)?;
        self.answer(&verdict)?;
        Ok(match verdict {
            Verdict::Intact => ExitCode::SUCCESS,
            Verdict::Corrupt(_) => ExitCode::from(4),
        })
    }

    fn stored(&self) -> anyhow::Result<StoredTree> {
        let cannot = || format!("cannot read the hash tree in {}", self.hash.display());
        let mut file = File::open(&self.hash).with_context(cannot)?;
        if self.hash_offset != HashOffset::ZERO {
            file.seek(SeekFrom::Start(self.hash_offset.bytes())).with_context(cannot)?;
        }
        StoredTree::read(BufReader::new(file), self.hash_offset).with_context(cannot)
    }

    fn answer(&self, verdict: &Verdict) -> anyhow::Result<()> {
        let none = Corruption { faults: Vec::new(), count: 0 };
        let (word, corruption) = match verdict {
            Verdict::Intact => ("intact", &none),
            Verdict::Corrupt(corruption) => ("corrupt", corruption),
        };
        if self.style.is_json() {
            return print_json(&Answer {
                verdict: word,
                root_hash: self.root_hash.to_string(),
                count: corruption.count,
                faults: corruption.faults.iter().map(Finding::from).collect(),
            });
        }
        let mut out = std::io::stdout().lock();
        for fault in &corruption.faults {
            writeln!(out, "{fault}")?;
        }
        match corruption.count {
            0 => writeln!(out, "intact: {}", self.root_hash)?,
            count => {
                writeln!(out, "corrupt: {count} faults, {} of them listed", corruption.faults.len())?;
            }
        }
        Ok(())
    }
}
