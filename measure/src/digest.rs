//! Digests, and how a register is extended with one.
//!
//! # Shape
//!
//! ```text
//! register' = H(register ‖ digest)        both as long as H's output, 32 or 48 bytes
//! ```
//!
//! # Source
//!
//! TCG PC Client Platform Firmware Profile 1.06, 2.3.2 (extend); Intel TDX Module Base Specification, 12.2
//! (TDG.MR.RTMR.EXTEND, SHA-384).

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// Names the hash algorithm of a TPM bank; TDX has SHA-384 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// 32 bytes; TPM_ALG_SHA256, 0x000b.
    Sha256,
    /// 48 bytes; TPM_ALG_SHA384, 0x000c.
    Sha384,
}

impl Algorithm {
    /// Returns the size of a digest in bytes.
    pub const fn size(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
        }
    }

    /// Hashes the concatenation of `pieces`.
    pub fn of_pieces<'a>(self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        match self {
            Algorithm::Sha256 => {
                let mut hasher = sha2::Sha256::new();
                pieces.into_iter().for_each(|piece| hasher.update(piece));
                Digest::Sha256(hasher.finalize().into())
            }
            Algorithm::Sha384 => {
                let mut hasher = sha2::Sha384::new();
                pieces.into_iter().for_each(|piece| hasher.update(piece));
                Digest::Sha384(hasher.finalize().into())
            }
        }
    }

    /// Hashes `bytes`.
    pub fn of(self, bytes: &[u8]) -> Digest {
        self.of_pieces([bytes])
    }

    /// Returns a register's value at power on: zeros.
    pub const fn zero(self) -> Digest {
        match self {
            Algorithm::Sha256 => Digest::Sha256([0; 32]),
            Algorithm::Sha384 => Digest::Sha384([0; 48]),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
        })
    }
}

/// A digest, or a register's value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-384.
    Sha384([u8; 48]),
}

impl Digest {
    /// Returns the algorithm that made it.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha384(_) => Algorithm::Sha384,
        }
    }

    /// Returns its bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha384(bytes) => bytes,
        }
    }

    /// Makes a digest of 32 or 48 bytes; `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Digest> {
        match bytes.len() {
            32 => bytes.try_into().ok().map(Digest::Sha256),
            48 => bytes.try_into().ok().map(Digest::Sha384),
            _ => None,
        }
    }

    /// Returns the register's value after an extend with `digest`, using the register's own algorithm.
    #[must_use]
    pub fn extended(&self, digest: &Digest) -> Digest {
        self.algorithm().of_pieces([self.as_bytes(), digest.as_bytes()])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 or 96 hexadecimal digits, found {found:?}")]
pub struct NotADigest {
    /// The text.
    pub found: String,
}

impl core::str::FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        hex::decode(text)
            .ok()
            .and_then(|bytes| Digest::from_bytes(&bytes))
            .ok_or_else(|| NotADigest { found: text.into() })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
