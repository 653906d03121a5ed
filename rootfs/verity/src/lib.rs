//! The dm-verity hash tree of an image, and its root hash, from the image's bytes.
//!
//! ```
//! use dm_verity_tool::{HashOffset, Hasher, Parameters};
//!
//! let mut hasher = Hasher::new(&Parameters::default());
//! hasher.update(&[0; 5000]); // in chunks of any length
//! hasher.update(&[0; 3192]);
//! let tree = hasher.finish()?;
//! assert_eq!(tree.data_blocks(), 2);
//!
//! let mut area = Vec::new();
//! tree.write_to(&mut area, HashOffset::ZERO)?;
//! assert_eq!(area.len(), 2 * 4096); // the superblock, padded, and one hash block
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Shape
//!
//! ```text
//! hash offset (bytes, a multiple of 512)
//! |
//! v
//! +------------+---------+-----------+-----+---------+---------+
//! | superblock | padding | top level | ... | level 1 | level 0 |   levels in whole hash blocks
//! |  512 bytes |  zeros  |  1 block  |     |         | (leaves)|
//! +------------+---------+-----------+-----+---------+---------+
//!                        ^ at the next multiple of the hash block size
//!
//! leaf  = SHA-256(salt || data block)              32 bytes, in the order of the data
//! entry = SHA-256(salt || hash block below)        32 bytes, in the order of the level below
//! root  = SHA-256(salt || the top level's block)   of the data block itself if there is only one
//! ```
//!
//! The last block of a level is padded with zeros. The bytes are those of `veritysetup format`: superblock
//! version 1, hash type 1, SHA-256. Two details differ from it, so that the bytes are always determined: the
//! padding is always zeros (it keeps the old bytes of a file), and over a single data block the padding is
//! complete even if a hash block is longer than 4096 bytes (its file ends after 4096, and the kernel refuses
//! a device that short).
//!
//! | module | yields |
//! | --- | --- |
//! | [`parameters`] | what the caller chooses: salt, block sizes, UUID, offset |
//! | [`layout`] | how many blocks each level has, and where they lie |
//! | [`superblock`] | the 512 bytes before the tree, read and written |
//! | [`tree`] | the hash tree and the root hash |
//! | [`verdict`] | which blocks of an image do not match its root hash |
//!
//! # Source
//!
//! Linux, `Documentation/admin-guide/device-mapper/verity.rst`; cryptsetup 2.6.1, `lib/verity/verity.c`
//! (superblock) and `lib/verity/verity_hash.c` (order of the levels). The workspace's tests compare it with
//! `veritysetup` byte for byte.
//!
//! # Not here
//!
//! Forward error correction, signatures of the root hash, trees without a superblock as a file format (but
//! [`HashTree::levels`] returns the levels alone), Chrome OS's hash type 0, other digests than SHA-256. The
//! library opens no files and uses neither the clock, the environment nor the network.

pub mod layout;
pub mod parameters;
pub mod superblock;
pub mod tree;
pub mod verdict;

pub use layout::{Layout, Level};
pub use parameters::{BlockSize, HashOffset, ParameterError, Parameters, Salt, Uuid};
pub use superblock::{Superblock, SuperblockError};
pub use tree::{Digest, HashTree, Hasher, LeafHasher, Leaves, RootHash, TreeError};
pub use verdict::{Corruption, Fault, StoredTree, Verdict, VerifyError, verify};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
