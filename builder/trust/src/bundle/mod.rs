//! Yields who signed an artifact and what a log says of it, from a sigstore bundle and roots of trust.
//!
//! # Shape
//! ```text
//! bundle       JSON, media types v0.1, v0.2 and v0.3; a message signature or a DSSE envelope with one signature
//! signer       a public key, or an identity (SAN) and its issuer in a certificate
//! trust root   JSON: keys of logs, authorities of certificates and of time stamps, certificate transparency logs
//!   -> Checked { signer, payload, entries, times }
//! ```
//! What is in the bundle is all checked: an inclusion proof, a checkpoint, a promise (SET), a time stamp that is there
//! must be right even when the signer could be believed without it. At least one log entry must be proven. A signed
//! certificate timestamp is demanded when the trust root names certificate transparency logs.
//!
//! # Source
//! `sigstore/protobuf-specs` (bundle, trust root, Rekor), the Sigstore client specification of 2025-06; the Rekor v2
//! client specification. The crates `sigstore-*` 0.15.1 do the work behind [`Verify`]; they alone read the machine's
//! clock here, to refuse log entries and log keys from the future.
//!
//! # Not here
//! Cosignatures of witnesses, quorums, ages, versions: `transparency` and `image_policy`. Roots by TUF.

mod algorithms;
mod sigstore;

use std::io::Read;

pub use sigstore::Sigstore;

use crate::Verified;
use crate::envelope::VerifyingKey;

/// Longest bundle that is read, in bytes. Real ones have 10 to 100 KiB.
pub const MOST_BYTES: usize = 32 << 20;

/// Why a bundle was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle's text is no bundle of a known version.
    #[error("cannot read the bundle: {reason}")]
    Bundle {
        /// What is wrong with it.
        reason: String,
    },
    /// The trust root's text is none, or what it holds cannot be trusted roots.
    #[error("cannot read the trust root: {reason}")]
    TrustRoot {
        /// What is wrong with it.
        reason: String,
    },
    /// The public key is no PEM of a known kind.
    #[error("cannot read the public key: {reason}")]
    Key {
        /// What is wrong with it.
        reason: String,
    },
    /// The artifact cannot be read.
    #[error("cannot read the artifact")]
    Artifact(#[source] std::io::Error),
    /// All could be read, and the answer is no.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Whether the bundle was read and judged, and the answer is no.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Refused { .. })
    }
}

/// What was signed.
pub enum Artifact<'a> {
    /// Its bytes.
    Bytes(&'a [u8]),
    /// Its bytes, to be read once. Signatures that need all bytes at once (Ed25519) cannot be judged so.
    Stream(&'a mut dyn Read),
    /// Its SHA-256.
    Sha256([u8; 32]),
    /// Its SHA-512: for envelopes alone, whose statement names it.
    Sha512([u8; 64]),
}

/// Who must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// Who holds the private half of this key.
    Key(PublicKey),
    /// Who had a certificate with this name from this issuer.
    Identity {
        /// The certificate's subject alternative name.
        name: String,
        /// The OIDC issuer that vouched for it, extension 1.3.6.1.4.1.57264.1.8 or .1.
        issuer: String,
    },
}

/// The certificate of a signer's key: X.509.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate(Vec<u8>);

impl Certificate {
    /// Takes DER.
    pub fn from_der(der: &[u8]) -> Self {
        Certificate(der.to_vec())
    }

    /// Reads a PEM `CERTIFICATE`.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let read = sigstore_types::DerCertificate::from_pem(text);
        Ok(Certificate(read.map_err(|error| Error::Key { reason: error.to_string() })?.as_bytes().to_vec()))
    }

    /// DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// PEM.
    pub fn pem(&self) -> String {
        sigstore_types::DerCertificate::from_bytes(&self.0).to_pem()
    }

    fn read(&self) -> Result<sigstore_crypto::CertificateInfo, Error> {
        let certificate = sigstore_types::DerCertificate::from_bytes(&self.0);
        let read = sigstore_crypto::parse_certificate_info(&certificate);
        read.map_err(|error| Error::Key { reason: error.to_string() })
    }

    /// The key that it certifies.
    ///
    /// # Errors
    /// [`Error::Key`] when it is malformed, or its key is of another kind than ours.
    pub fn public(&self) -> Result<VerifyingKey, Error> {
        let read = VerifyingKey::from_der(self.read()?.public_key.as_bytes());
        read.map_err(|error| Error::Key { reason: error.to_string() })
    }

    /// The repository that a build was of to which it was given: URL, extension 1.3.6.1.4.1.57264.1.12; `None` when it was
    /// given to somebody else.
    ///
    /// # Errors
    /// [`Error::Key`] when it is malformed.
    pub fn source(&self) -> Result<Option<String>, Error> {
        Ok(self.read()?.ci_claims.source_repository_uri)
    }

    /// The identity that it names.
    ///
    /// # Errors
    /// [`Error::Key`] when it is malformed, or names no subject or no issuer of the sort.
    pub fn signer(&self) -> Result<Signer, Error> {
        let known = self.read()?;
        match (known.identity, known.issuer) {
            (Some(name), Some(issuer)) => Ok(Signer::Identity { name: name.as_str().to_owned(), issuer }),
            _ => Err(Error::Key {
                reason: "the certificate has no subject alternative name, or no issuer extension".to_owned(),
            }),
        }
    }
}

/// A public key of a kind that can be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Reads a PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Key { reason };
        let key = sigstore_types::DerPublicKey::from_pem(text).map_err(|error| wrong(error.to_string()))?;
        Self::from_der(key.as_bytes())
    }

    /// Reads a DER `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let key = sigstore_types::DerPublicKey::from_bytes(der);
        sigstore_crypto::KeyAlgorithm::from_spki(&key)
            .map_err(|error| Error::Key { reason: error.to_string() })?;
        Ok(PublicKey(der.to_vec()))
    }

    /// DER `SubjectPublicKeyInfo`.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

/// A public key that counts for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedKey {
    key: PublicKey,
    /// Seconds since 1970, both included.
    from: i64,
    until: Option<i64>,
}

impl DatedKey {
    /// Reads a `PublicKey` of sigstore's `protobuf-specs`, which must say from when it counts.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn from_json(value: serde_json::Value) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Key { reason };
        let key: sigstore_trust_root::trusted_root::PublicKey =
            serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        let valid = key.valid_for.ok_or_else(|| wrong("it does not say from when it counts".to_owned()))?;
        Ok(DatedKey {
            key: PublicKey::from_der(key.raw_bytes.as_bytes())?,
            from: valid.start.as_second(),
            until: valid.end.map(|end| end.as_second()),
        })
    }

    /// The key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether it counts at a time, in seconds since 1970.
    pub fn is_valid_at(&self, time: i64) -> bool {
        self.from <= time && self.until.is_none_or(|until| time <= until)
    }
}

/// What a DSSE envelope holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Its media type.
    pub kind: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A log entry that was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Place in the log.
    pub index: u64,
    /// Place in the tree of the checkpoint: another number when a Rekor v1 has had several trees.
    pub index_in_tree: u64,
    /// Kind and version, as `hashedrekord 0.0.2`.
    pub kind: String,
    /// The log's key identifier.
    pub log: Vec<u8>,
    /// The leaf's bytes.
    pub body: Vec<u8>,
    /// The inclusion proof's hashes, from the leaf up; none when only a promise was there.
    pub proof: Option<Vec<[u8; 32]>>,
    /// The signed checkpoint that the proof leads to.
    pub checkpoint: Option<String>,
}

/// What a bundle proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    signer: Signer,
    payload: Option<Payload>,
    entries: Vec<LogEntry>,
    times: Vec<i64>,
}

impl Checked {
    /// Who signed: what was demanded.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// What the envelope holds; `None` for a message signature.
    pub fn payload(&self) -> Option<&Payload> {
        self.payload.as_ref()
    }

    /// The proven log entries.
    pub fn entries(&self) -> &[LogEntry] {
        &self.entries
    }

    /// Signed times, seconds since 1970, of logs (Rekor v1) and of time stamp authorities.
    pub fn times(&self) -> &[i64] {
        &self.times
    }
}

/// Judges bundles.
pub trait Verify {
    /// Checks that `signer` signed `artifact`, and all that the bundle says besides.
    ///
    /// # Errors
    /// [`Error::Bundle`] and [`Error::Artifact`] when something cannot be read, [`Error::Refused`] when the answer is
    /// no.
    fn verify(
        &self,
        bundle: &[u8],
        artifact: Artifact<'_>,
        signer: &Signer,
    ) -> Result<Verified<Checked>, Error>;
}

#[cfg(test)]
pub(crate) mod tests;
