//! `format`: writes the hash area of an image to a file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dm_verity_tool::{BlockSize, HashOffset, Hasher, Parameters, Salt, Uuid};

use crate::failure::Hint;
use crate::image::Image;
use crate::output;
use crate::report::{Header, Style};

/// Write the hash tree of DATA to HASH, and print the root hash
///
/// Equal input gives equal bytes: without --salt there is no salt; without --uuid the UUID is derived from
/// the root hash.
#[derive(clap::Args)]
pub struct Format {
    /// The image: a file, a block device or a pipe
    data: PathBuf,

    /// The file or block device for superblock and tree
    hash: PathBuf,

    /// The salt, in hexadecimal, at most 256 bytes; `-` for none
    #[arg(long, value_name = "HEX", default_value = "-")]
    salt: Salt,

    /// The superblock's UUID
    #[arg(long)]
    uuid: Option<Uuid>,

    /// The size of a data block in bytes: a power of two from 512 to 524288
    #[arg(long, value_name = "BYTES", default_value = "4096")]
    data_block_size: BlockSize,

    /// The size of a hash block in bytes: a power of two from 512 to 524288
    #[arg(long, value_name = "BYTES", default_value = "4096")]
    hash_block_size: BlockSize,

    /// Cover only the first blocks of DATA, this many
    #[arg(long, value_name = "N")]
    data_blocks: Option<u64>,

    /// Where in HASH the superblock goes: a multiple of 512; bytes before and after it are kept
    #[arg(long, value_name = "BYTES", default_value = "0")]
    hash_offset: HashOffset,

    #[command(flatten)]
    style: Style,
}

impl Format {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let image = Image::open(&self.data)?;
        if same_file(&self.data, &self.hash) {
            let block = u64::from(self.data_block_size.bytes());
            let end = self.data_blocks.map(|blocks| blocks.saturating_mul(block)).or(image.length());
            if end.is_none_or(|end| end > self.hash_offset.bytes()) {
                return Err(Hint::error(
                    format!("the data overlaps the hash area at offset {}", self.hash_offset),
                    "give --hash-offset BYTES behind the data and --data-blocks N",
                ));
            }
        }
        let parameters = Parameters {
            salt: self.salt,
            data_block_size: self.data_block_size,
            hash_block_size: self.hash_block_size,
            uuid: self.uuid,
        };
        let hasher = image.hash(Hasher::new(&parameters), self.data_block_size, self.data_blocks)?;
        let tree = hasher.finish()?;
        output::write(&self.hash, &tree, self.hash_offset)?;
        let header = Header::new(tree.superblock(), Some(tree.root_hash()), self.hash_offset);
        header.print(self.style, &self.hash.display().to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}
