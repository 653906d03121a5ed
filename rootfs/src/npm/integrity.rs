//! Yields the SHA-512 digest of npm's integrity string, and checks tarballs against it.
//!
//! # Shape
//! `sha512-` and 88 characters of base64: 64 bytes.
//!
//! # Source
//! W3C Subresource Integrity §3.5: digests are separated by white space; the strongest known one decides.
//!
//! # Not here
//! Weaker digests: a lock that has only those is refused.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha512};

/// Why an integrity string or a tarball is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It has no SHA-512 digest.
    #[error("integrity {0:?} has no sha512 digest")]
    NoSha512(String),
    /// It is not the base64 encoding of 64 bytes.
    #[error("integrity {0:?} is not the base64 encoding of 64 bytes")]
    Malformed(String),
    /// The tarball has another digest.
    #[error("tarball does not match its integrity: expected {expected}, found {found}")]
    Mismatch {
        /// What the lock says.
        expected: Integrity,
        /// The digest of the bytes.
        found: Integrity,
    },
}

/// A SHA-512 digest in npm's spelling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Integrity(pub [u8; 64]);

impl Integrity {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Integrity(Sha512::digest(bytes).into())
    }

    /// Checks that `bytes` have this digest.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        let found = Integrity::of(bytes);
        if found == *self { Ok(()) } else { Err(Error::Mismatch { expected: *self, found }) }
    }
}

impl FromStr for Integrity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digest = text
            .split_ascii_whitespace()
            .find_map(|one| one.strip_prefix("sha512-"))
            .ok_or_else(|| Error::NoSha512(text.to_owned()))?;
        // An option may follow the digest: `sha512-…?foo`.
        let digest = digest.split('?').next().unwrap_or(digest);
        let bytes = STANDARD.decode(digest).map_err(|_| Error::Malformed(text.to_owned()))?;
        bytes.try_into().map(Integrity).map_err(|_| Error::Malformed(text.to_owned()))
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha512-{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-512 of nothing (FIPS 180-4 example).
    const EMPTY: &str =
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==";

    #[test]
    fn an_integrity_reads_back_as_it_was_written() {
        let integrity: Integrity = EMPTY.parse().unwrap();
        assert_eq!(integrity, Integrity::of(b""));
        assert_eq!(integrity.to_string(), EMPTY);
    }

    #[test]
    fn sha512_is_found_among_weaker_digests_and_options() {
        for text in [format!("sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk= {EMPTY}"), format!(" {EMPTY}?opt ")] {
            assert_eq!(text.parse::<Integrity>(), Ok(Integrity::of(b"")), "{text}");
        }
    }

    #[test]
    fn weak_and_malformed_integrities_are_refused() {
        let refused = |text: &str| text.parse::<Integrity>().unwrap_err();
        assert!(matches!(refused(""), Error::NoSha512(_)));
        assert!(matches!(refused("sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="), Error::NoSha512(_)));
        assert!(matches!(refused("sha512-"), Error::Malformed(_)));
        assert!(matches!(refused("sha512-z4Ph"), Error::Malformed(_)));
        assert!(matches!(refused("sha512-!!!!"), Error::Malformed(_)));
    }

    #[test]
    fn other_bytes_are_refused_and_both_digests_named() {
        let integrity: Integrity = EMPTY.parse().unwrap();
        assert_eq!(integrity.check(b""), Ok(()));
        let error = integrity.check(b"x").unwrap_err().to_string();
        assert!(
            error.starts_with("tarball does not match its integrity: expected sha512-z4Ph")
                && error.contains("found sha512-"),
            "{error}"
        );
    }
}
