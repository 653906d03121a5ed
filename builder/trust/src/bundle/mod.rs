//! Yields who signed an artifact and what a log says about it, from a sigstore bundle and roots of trust.
//!
//! # Shape
//! ```text
//! bundle       JSON, media types v0.1, v0.2 and v0.3; a message signature or a DSSE envelope with one signature
//! signer       a public key, or an identity (SAN) and its issuer in a certificate
//! trust root   JSON: log keys, certificate and time stamp authorities, certificate transparency logs
//!   -> Checked { signer, payload, entries, times }
//! ```
//! Everything in the bundle is checked: an inclusion proof, a checkpoint, a promise (SET) or a time stamp
//! must be valid even if the signer could be believed without it. At least one log entry must be proven. A
//! signed certificate timestamp is demanded when the trust root names certificate transparency logs.
//!
//! # Source
//! `sigstore/protobuf-specs` (bundle, trust root, Rekor), the Sigstore client specification of 2025-06; the
//! Rekor v2 client specification. The crates `sigstore-*` 0.15.1 do the work behind [`Verify`]. Only they
//! read the machine's clock here, to refuse log entries and log keys from the future.
//!
//! # Not here
//! Witness cosignatures, quorums, ages, versions: `transparency` and `image_policy`. Roots from TUF.

mod algorithms;
mod sigstore;

use std::io::Read;

pub use sigstore::Sigstore;

use crate::Verified;
use crate::envelope::VerifyingKey;

/// The longest bundle that is read, in bytes. Real ones have 10 to 100 KiB.
pub const MOST_BYTES: usize = 32 << 20;

/// Why a bundle was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a bundle of a known version.
    #[error("cannot read the bundle: {reason}")]
    Bundle {
        /// What is wrong with it.
        reason: String,
    },
    /// The trust root is not valid text, or its contents cannot serve as trusted roots.
    #[error("cannot read the trust root: {reason}")]
    TrustRoot {
        /// What is wrong with it.
        reason: String,
    },
    /// The public key or certificate is malformed or of an unknown kind.
    #[error("cannot read the public key: {reason}")]
    Key {
        /// What is wrong with it.
        reason: String,
    },
    /// The artifact cannot be read.
    #[error("cannot read the artifact")]
    Artifact(#[source] std::io::Error),
    /// Everything was read, and the answer is no.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Whether the bundle was read and judged and the answer is no.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Refused { .. })
    }
}

/// What was signed.
pub enum Artifact<'a> {
    /// Its bytes.
    Bytes(&'a [u8]),
    /// Its bytes, read once. Signatures that need all bytes at once (Ed25519) cannot be judged this way.
    Stream(&'a mut dyn Read),
    /// Its SHA-256.
    Sha256([u8; 32]),
    /// Its SHA-512: only for envelopes whose statement names it.
    Sha512([u8; 64]),
}

/// Who must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The holder of this key's private half.
    Key(PublicKey),
    /// The holder of a certificate with this name from this issuer.
    Identity {
        /// The certificate's subject alternative name.
        name: String,
        /// The OIDC issuer that vouched for it, extension 1.3.6.1.4.1.57264.1.8 or .1.
        issuer: String,
    },
}

/// The X.509 certificate of a signer's key.
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

    /// The DER encoding.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// The PEM encoding.
    pub fn pem(&self) -> String {
        sigstore_types::DerCertificate::from_bytes(&self.0).to_pem()
    }

    fn read(&self) -> Result<sigstore_crypto::CertificateInfo, Error> {
        let certificate = sigstore_types::DerCertificate::from_bytes(&self.0);
        let read = sigstore_crypto::parse_certificate_info(&certificate);
        read.map_err(|error| Error::Key { reason: error.to_string() })
    }

    /// The certified key.
    ///
    /// # Errors
    /// [`Error::Key`] when the certificate is malformed, or its key is not of our kind.
    pub fn public(&self) -> Result<VerifyingKey, Error> {
        let read = VerifyingKey::from_der(self.read()?.public_key.as_bytes());
        read.map_err(|error| Error::Key { reason: error.to_string() })
    }

    /// The URL of the repository whose build received the certificate (extension 1.3.6.1.4.1.57264.1.12);
    /// `None` if it was not issued to a build.
    ///
    /// # Errors
    /// [`Error::Key`] when the certificate is malformed.
    pub fn source(&self) -> Result<Option<String>, Error> {
        Ok(self.read()?.ci_claims.source_repository_uri)
    }

    /// The identity that the certificate names.
    ///
    /// # Errors
    /// [`Error::Key`] when the certificate is malformed, or lacks a subject name or an OIDC issuer.
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

/// A public key with a validity period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedKey {
    key: PublicKey,
    /// Seconds since 1970, both included.
    from: i64,
    until: Option<i64>,
}

impl DatedKey {
    /// Reads a `PublicKey` of sigstore's `protobuf-specs`, which must say when its validity starts.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn from_json(value: serde_json::Value) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Key { reason };
        let key: sigstore_trust_root::trusted_root::PublicKey =
            serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        let valid =
            key.valid_for.ok_or_else(|| wrong("it does not say when its validity starts".to_owned()))?;
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

    /// Whether the key is valid at a time, in seconds since 1970.
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
    /// The index in the log.
    pub index: u64,
    /// The index in the checkpoint's tree. It differs from `index` when a Rekor v1 has had several trees.
    pub index_in_tree: u64,
    /// Kind and version, as `hashedrekord 0.0.2`.
    pub kind: String,
    /// The log's key identifier.
    pub log: Vec<u8>,
    /// The leaf's bytes.
    pub body: Vec<u8>,
    /// The inclusion proof's hashes, from the leaf up; `None` when the entry has only a promise.
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
    /// The signer, as demanded.
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

    /// The signed times from logs (Rekor v1) and time stamp authorities, in seconds since 1970.
    pub fn times(&self) -> &[i64] {
        &self.times
    }
}

/// Judges bundles.
pub trait Verify {
    /// Checks that `signer` signed `artifact`, and everything else that the bundle says.
    ///
    /// # Errors
    /// [`Error::Bundle`] and [`Error::Artifact`] when something cannot be read, [`Error::Refused`] when the
    /// answer is no.
    fn verify(
        &self,
        bundle: &[u8],
        artifact: Artifact<'_>,
        signer: &Signer,
    ) -> Result<Verified<Checked>, Error>;
}

#[cfg(test)]
pub(crate) mod tests;
