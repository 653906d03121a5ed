//! Yields the OpenPGP keys that may sign Debian's archive and the rules for their use, from pinned
//! certificates.
//!
//! # Shape
//! A certificate is a primary key with subkeys. A primary key or subkey may sign if its newest valid
//! self-signature allows it, and if it is neither revoked nor expired at the given time.
//!
//! # Source
//! `keys/debian/README.md` says where each certificate comes from. RFC 9580: 5.2.1 (signature types),
//! 5.2.3.13 (key expiration), 10.1.5 (signing subkeys need a back signature).
//!
//! # Not here
//! Revocation by designated third parties, and the web of trust: trust comes from pinning.

use std::fmt;
use std::io::Cursor;

use pgp::composed::{Deserializable, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, Tag};

/// How far a date may lie ahead of the given time, in seconds, since clocks differ.
pub const MAX_AHEAD: u64 = 600;

/// Certificates that cannot be used as a keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A certificate that is not OpenPGP.
    #[error("certificate {index} cannot be read: {reason}")]
    Unreadable {
        /// Its index among those given, from 0.
        index: usize,
        /// What the parser says.
        reason: String,
    },
    /// A certificate whose primary key is not of version 4, so its fingerprint is not 20 bytes long.
    #[error("certificate {index} is not of version 4")]
    NotVersion4 {
        /// Its index among those given, from 0.
        index: usize,
    },
    /// No certificate was given.
    #[error("the keyring is empty")]
    Empty,
}

/// The fingerprint of a version 4 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 20]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A point in time, in seconds since 1970-01-01T00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub u64);

/// Why a pinned key may not have signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The key revoked itself.
    #[error("is revoked")]
    Revoked,
    /// The key has expired.
    #[error("expired at {}", .0.0)]
    Expired(UnixTime),
    /// The key was created in the future.
    #[error("is valid only from {}", .0.0)]
    NotYet(UnixTime),
    /// No valid self-signature allows it to sign.
    #[error("has no valid self-signature that lets it sign")]
    MayNotSign,
}

/// The pinned certificates.
#[derive(Debug, Clone)]
pub struct Keyring {
    certificates: Vec<(Fingerprint, SignedPublicKey)>,
}

/// The archive, security and release keys of Debian 12 and 13.
const DEBIAN: [&[u8]; 6] = [
    include_bytes!("../../keys/debian/debian-archive-bookworm-automatic.asc"),
    include_bytes!("../../keys/debian/debian-archive-bookworm-security-automatic.asc"),
    include_bytes!("../../keys/debian/debian-archive-bookworm-stable.asc"),
    include_bytes!("../../keys/debian/debian-archive-trixie-automatic.asc"),
    include_bytes!("../../keys/debian/debian-archive-trixie-security-automatic.asc"),
    include_bytes!("../../keys/debian/debian-archive-trixie-stable.asc"),
];

impl Keyring {
    /// Reads the Debian keys that ship with the project.
    pub fn debian() -> Result<Self, KeyringError> {
        Keyring::read(&DEBIAN)
    }

    /// Reads ASCII-armored certificates, one per input.
    pub fn read(armored: &[&[u8]]) -> Result<Self, KeyringError> {
        if armored.is_empty() {
            return Err(KeyringError::Empty);
        }
        let mut certificates = Vec::with_capacity(armored.len());
        for (index, bytes) in armored.iter().enumerate() {
            let (certificate, _) = SignedPublicKey::from_armor_single(Cursor::new(*bytes))
                .map_err(|error| KeyringError::Unreadable { index, reason: error.to_string() })?;
            let fingerprint =
                fingerprint(&certificate.primary_key).ok_or(KeyringError::NotVersion4 { index })?;
            certificates.push((fingerprint, certificate));
        }
        Ok(Keyring { certificates })
    }

    /// Yields the fingerprints of the primary keys, in the order given.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        self.certificates.iter().map(|(fingerprint, _)| *fingerprint)
    }

    /// Checks one signature over canonical text; gives `None` if it claims no pinned key.
    ///
    /// The outcome names the certificate's primary key, whichever of its keys signed.
    pub(super) fn check(&self, signature: &Signature, text: &[u8], now: UnixTime) -> Option<Checked> {
        self.certificates.iter().find_map(|(primary, certificate)| {
            let own = claims(signature, &certificate.primary_key).then(|| {
                let usable = primary_fault(certificate, now);
                (usable, signature.verify(&certificate.primary_key, text).is_ok())
            });
            let sub = || {
                let subkey =
                    certificate.public_subkeys.iter().find(|subkey| claims(signature, &subkey.key))?;
                let usable = primary_self_signature(certificate, now)
                    .map(|_| ())
                    .and_then(|()| subkey_fault(certificate, subkey, now));
                Some((usable, signature.verify(&subkey.key, text).is_ok()))
            };
            let (usable, genuine) = own.or_else(sub)?;
            Some(Checked { primary: *primary, usable, genuine })
        })
    }
}

/// The outcome of checking one signature.
pub(super) struct Checked {
    /// The primary key of the certificate that the signature claims.
    pub primary: Fingerprint,
    /// Whether the key may sign at the given time.
    pub usable: Result<(), KeyFault>,
    /// Whether the signature matches the text.
    pub genuine: bool,
}

/// Whether a digest algorithm still resists collisions.
pub(super) fn is_strong(hash: Option<HashAlgorithm>) -> bool {
    matches!(
        hash,
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    )
}

/// Whether a signature is not from the future, not expired, and has no unknown critical subpacket.
pub(super) fn is_current(signature: &Signature, now: UnixTime) -> bool {
    let Some(created) = signature.created() else { return false };
    let created = u64::from(created.as_secs());
    let lifetime = signature.signature_expiration_time().map_or(0, |duration| u64::from(duration.as_secs()));
    let understood = signature.config().is_some_and(|config| {
        config.hashed_subpackets().filter(|subpacket| subpacket.is_critical).all(|subpacket| {
            !matches!(
                subpacket.data,
                SubpacketData::Other(..) | SubpacketData::Experimental(..) | SubpacketData::Notation(_)
            )
        })
    });
    created <= now.0.saturating_add(MAX_AHEAD)
        && (lifetime == 0 || now.0 < created.saturating_add(lifetime))
        && understood
}

fn fingerprint(key: &impl KeyDetails) -> Option<Fingerprint> {
    Some(Fingerprint(key.fingerprint().as_bytes().try_into().ok()?))
}

/// Whether a signature claims to be by this key; cryptography decides later.
fn claims(signature: &Signature, key: &impl KeyDetails) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if fingerprints.is_empty() {
        let id = key.legacy_key_id();
        return signature.issuer_key_id().into_iter().any(|claimed| *claimed == id);
    }
    let own = key.fingerprint();
    fingerprints.into_iter().any(|claimed| *claimed == own)
}

/// The newest valid self-signature of a certificate that is neither revoked nor expired.
fn primary_self_signature(certificate: &SignedPublicKey, now: UnixTime) -> Result<&Signature, KeyFault> {
    let key = &certificate.primary_key;
    let details = &certificate.details;
    let revoked = details.revocation_signatures.iter().any(|signature| {
        signature.typ() == Some(SignatureType::KeyRevocation) && signature.verify_key(key).is_ok()
    });
    if revoked {
        return Err(KeyFault::Revoked);
    }
    let mut valid: Vec<&Signature> = Vec::new();
    for user in &details.users {
        let own = user.signatures.iter().filter(|signature| {
            is_strong(signature.hash_alg())
                && signature.verify_certification(key, Tag::UserId, &user.id).is_ok()
        });
        let own: Vec<&Signature> = own.collect();
        if !own.iter().any(|signature| signature.typ() == Some(SignatureType::CertRevocation)) {
            valid.extend(own);
        }
    }
    valid.extend(details.direct_signatures.iter().filter(|signature| {
        signature.typ() == Some(SignatureType::Key)
            && is_strong(signature.hash_alg())
            && signature.verify_key(key).is_ok()
    }));
    let newest = valid.into_iter().filter(|signature| is_current(signature, now)).max_by_key(|s| s.created());
    let newest = newest.ok_or(KeyFault::MayNotSign)?;
    in_lifetime(key, newest, now)?;
    Ok(newest)
}

fn primary_fault(certificate: &SignedPublicKey, now: UnixTime) -> Result<(), KeyFault> {
    let signature = primary_self_signature(certificate, now)?;
    if signature.key_flags().sign() { Ok(()) } else { Err(KeyFault::MayNotSign) }
}

fn subkey_fault(
    certificate: &SignedPublicKey,
    subkey: &pgp::composed::SignedPublicSubKey,
    now: UnixTime,
) -> Result<(), KeyFault> {
    let primary = &certificate.primary_key;
    let valid: Vec<&Signature> = subkey
        .signatures
        .iter()
        .filter(|signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok())
        .collect();
    if valid.iter().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Err(KeyFault::Revoked);
    }
    let strong =
        valid.into_iter().filter(|signature| is_strong(signature.hash_alg()) && is_current(signature, now));
    let newest = strong.max_by_key(|signature| signature.created()).ok_or(KeyFault::MayNotSign)?;
    let bound_back = newest.embedded_signature().is_some_and(|back| {
        is_strong(back.hash_alg()) && back.verify_primary_key_binding(&subkey.key, primary).is_ok()
    });
    if !newest.key_flags().sign() || !bound_back {
        return Err(KeyFault::MayNotSign);
    }
    in_lifetime(&subkey.key, newest, now)
}

fn in_lifetime(key: &impl KeyDetails, signature: &Signature, now: UnixTime) -> Result<(), KeyFault> {
    let created = u64::from(key.created_at().as_secs());
    if created > now.0.saturating_add(MAX_AHEAD) {
        return Err(KeyFault::NotYet(UnixTime(created)));
    }
    match signature.key_expiration_time().map_or(0, |duration| u64::from(duration.as_secs())) {
        0 => Ok(()),
        lifetime if now.0 < created.saturating_add(lifetime) => Ok(()),
        lifetime => Err(KeyFault::Expired(UnixTime(created.saturating_add(lifetime)))),
    }
}
