//! Yields what a registry attests about an npm package, from the document that it serves with the package.
//!
//! # Shape
//! ```text
//! {"attestations": [{"predicateType", "bundle"}, …]}
//! bundle.dsseEnvelope.payload (base64) = in-toto statement: subject [{name: pkg:npm/NAME@VERSION, digest: {sha512}}]
//! ```
//! Every attestation must match the package's name, version and tarball digest. Two kinds are known, and each
//! has its required signer:
//!
//! | kind | signed by | what it says |
//! | --- | --- | --- |
//! | publish | a registry key, valid when it was logged | the registry took this tarball as this version |
//! | provenance | a key that an authority certified for a build | the build's repository, as certified |
//!
//! An attestation of another kind must be signed by either signer, and has no effect. A document without a
//! publish attestation is refused: anyone's build can attest someone else's tarball.
//!
//! # Source
//! npm registry, `GET /-/npm/v1/attestations/NAME@VERSION`; in-toto Statement v0.1 and v1; Sigstore bundle
//! v0.1 to v0.3; Fulcio, `docs/oid-info.md`. `keys/npm/README.md` says where the registry's keys come from.
//!
//! # Not here
//! Signatures and logs: `bundle`. The provenance's own content: the build wrote it, not the authority.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use serde::Deserialize;
use serde_json::Value;

use super::bundle::{self, Artifact, Certificate, DatedKey, Signer, Sigstore, Verify};
use crate::Verified;

/// The longest document that is read, in bytes; real ones have 20 to 60 KiB.
pub const MOST_BYTES: u64 = 8 << 20;

/// The predicate with which a registry states that it published a package.
const PUBLISH: &str = "https://github.com/npm/attestation/tree/main/specs/publish/";
/// The predicate with which a build states how it made a package.
const PROVENANCE: &str = "https://slsa.dev/provenance/";
/// The keys of npm's registry; see `keys/npm/README.md`.
const NPM_KEYS: &[u8] = include_bytes!("../../keys/npm/registry.npmjs.org.json");
/// The usage of a registry key that signs attestations.
const USAGE: &str = "npm:attestations";

/// Why a document does not attest a package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not such a document.
    #[error("not an attestation document")]
    Json(#[source] serde_json::Error),
    /// The document holds no attestation.
    #[error("the document holds no attestation")]
    Empty,
    /// A payload cannot be read.
    #[error("attestation {number}: {what} cannot be read")]
    Payload {
        /// The attestation, from 1.
        number: usize,
        /// Which part.
        what: &'static str,
    },
    /// An attestation is about something else.
    #[error("attestation {number} is about {found}, expected {expected}")]
    OtherSubject {
        /// The attestation, from 1.
        number: usize,
        /// Package URL and digest.
        expected: String,
        /// What the attestation names.
        found: String,
    },
    /// The document and the statement name different kinds.
    #[error("attestation {number} has kind {found}, but the document says {stated}")]
    OtherKind {
        /// The attestation, from 1.
        number: usize,
        /// What the document says.
        stated: String,
        /// What is signed.
        found: String,
    },
    /// The signer is not the one that its kind requires.
    #[error("attestation {number} ({kind}) is not signed by {expected}")]
    OtherSigner {
        /// The attestation, from 1.
        number: usize,
        /// Its kind.
        kind: String,
        /// Who should have signed.
        expected: &'static str,
    },
    /// An unknown key signed it.
    #[error("attestation {number} names an unknown registry key: {key}")]
    UnknownKey {
        /// The attestation, from 1.
        number: usize,
        /// The key's identifier.
        key: String,
    },
    /// The key was not valid when the attestation was logged.
    #[error("attestation {number} was not logged while the key {key} was valid")]
    Outdated {
        /// The attestation, from 1.
        number: usize,
        /// The key's identifier.
        key: String,
    },
    /// The certificate names no repository, so it was not issued to a build.
    #[error("attestation {number} is certified for {signer}, which is not a repository build")]
    NoBuild {
        /// The attestation, from 1.
        number: usize,
        /// The identity in the certificate.
        signer: String,
    },
    /// The signature or its log entry is invalid.
    #[error("attestation {number} cannot be trusted")]
    Signature {
        /// The attestation, from 1.
        number: usize,
        /// Why.
        source: bundle::Error,
    },
    /// The registry does not state that it published the package.
    #[error("the document has no publish attestation signed by the registry")]
    Unpublished,
    /// The keys of a registry cannot be read.
    #[error("not a list of registry keys")]
    Keys(#[source] serde_json::Error),
    /// A key or a root of trust cannot be used.
    #[error("cannot use the keys or roots of trust for attestations")]
    Trust(#[source] bundle::Error),
}

/// What is proven about a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// The identifier of the registry key that signed the publish attestation.
    pub published: String,
    /// The URLs of the certified repositories whose builds made the package. More than one is unusual.
    pub sources: BTreeSet<String>,
}

impl Attested {
    /// The repositories, separated by spaces.
    pub fn source(&self) -> String {
        self.sources.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Deserialize)]
struct Document {
    attestations: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    predicate_type: String,
    bundle: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    #[serde(default)]
    verification_material: Material,
    dsse_envelope: Envelope,
    /// The alternative to an envelope. With both, it would be unclear which one is verified.
    message_signature: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<Hint>,
    x509_certificate_chain: Option<Chain>,
    certificate: Option<Raw>,
}

#[derive(Deserialize)]
struct Hint {
    hint: String,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    raw_bytes: String,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(default)]
    subject: Vec<Subject>,
    #[serde(default)]
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<RegistryKey>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RegistryKey {
    key_id: String,
    key_usage: String,
    public_key: Value,
}

/// Judges the attestations of a registry's packages.
pub struct Registry {
    verifier: Sigstore,
    keys: Vec<(String, DatedKey)>,
}

/// Who must have signed an attestation.
enum Voucher<'a> {
    Registry { id: &'a str, key: &'a DatedKey },
    Build { signer: Signer, source: String },
}

impl Registry {
    /// Creates a judge that trusts the pinned keys of npm's registry.
    ///
    /// # Errors
    /// [`Error::Keys`], [`Error::Trust`]; never with the pinned keys.
    pub fn npm(verifier: Sigstore) -> Result<Self, Error> {
        Self::new(NPM_KEYS, verifier)
    }

    /// Creates a judge that trusts another registry's keys, and the authorities and logs of `verifier`.
    ///
    /// `keys` is JSON: `{"keys": [{"keyId", "keyUsage", "publicKey": {"rawBytes", "keyDetails", "validFor"}},
    /// …]}`. Only keys whose usage is `npm:attestations` count.
    ///
    /// # Errors
    /// [`Error::Keys`], [`Error::Trust`].
    pub fn new(keys: &[u8], verifier: Sigstore) -> Result<Self, Error> {
        let keys: Keys = serde_json::from_slice(keys).map_err(Error::Keys)?;
        let counts = keys.keys.into_iter().filter(|key| key.key_usage == USAGE);
        let read = |key: RegistryKey| {
            let dated = DatedKey::from_json(key.public_key).map_err(Error::Trust)?;
            Ok((key.key_id, dated))
        };
        Ok(Registry { verifier, keys: counts.map(read).collect::<Result<_, Error>>()? })
    }

    /// Judges a package's attestations; `sha512` is the digest of its tarball.
    ///
    /// # Errors
    /// [`Error`] when a part cannot be read, is about something else, or has the wrong signer.
    pub fn judge(
        &self,
        document: &[u8],
        name: &str,
        version: &str,
        sha512: &[u8; 64],
    ) -> Result<Verified<Attested>, Error> {
        let document: Document = serde_json::from_slice(document).map_err(Error::Json)?;
        if document.attestations.is_empty() {
            return Err(Error::Empty);
        }
        let purl = crate::purl::npm(name, version);
        let sha512_hex = hex::encode(sha512);
        let (mut published, mut sources) = (None, BTreeSet::new());
        for (number, Entry { predicate_type: kind, bundle }) in (1..).zip(document.attestations) {
            let material = bound(number, &kind, &bundle, &purl, &sha512_hex)?;
            let text = bundle.to_string();
            let verify = |signer: &Signer| {
                let artifact = Artifact::Sha512(*sha512);
                let checked = self.verifier.verify(text.as_bytes(), artifact, signer);
                checked.map_err(|source| Error::Signature { number, source })
            };
            match self.voucher(number, &kind, &material)? {
                Voucher::Registry { id, key } => {
                    let checked = verify(&Signer::Key(key.key().clone()))?;
                    let times = checked.times();
                    if times.is_empty() || !times.iter().all(|time| key.is_valid_at(*time)) {
                        return Err(Error::Outdated { number, key: id.to_owned() });
                    }
                    if kind.starts_with(PUBLISH) {
                        published = Some(id.to_owned());
                    }
                }
                Voucher::Build { signer, source } => {
                    verify(&signer)?;
                    if kind.starts_with(PROVENANCE) {
                        sources.insert(source);
                    }
                }
            }
        }
        // The registry serves this statement with all others; without it, anyone could have made the rest.
        Ok(Verified::by_its_judge(Attested { published: published.ok_or(Error::Unpublished)?, sources }))
    }

    /// Who must have signed, according to the bundle.
    fn voucher(&self, number: usize, kind: &str, material: &Material) -> Result<Voucher<'_>, Error> {
        let other = |expected| Error::OtherSigner { number, kind: kind.to_owned(), expected };
        let certificate = match (&material.certificate, &material.x509_certificate_chain) {
            (Some(_), Some(_)) => return Err(other("one key or one certificate")),
            (Some(certificate), None) => Some(certificate),
            (None, Some(chain)) => chain.certificates.first(),
            (None, None) => None,
        };
        match (&material.public_key, certificate) {
            (Some(_), None) if kind.starts_with(PROVENANCE) => Err(other("a certified build")),
            (None, Some(_)) if kind.starts_with(PUBLISH) => Err(other("a registry key")),
            (Some(Hint { hint }), None) => match self.keys.iter().find(|(id, _)| id == hint) {
                Some((id, key)) => Ok(Voucher::Registry { id, key }),
                None => Err(Error::UnknownKey { number, key: hint.clone() }),
            },
            (None, Some(Raw { raw_bytes })) => {
                let der = base64::engine::general_purpose::STANDARD
                    .decode(raw_bytes)
                    .map_err(|_| Error::Payload { number, what: "the certificate's base64" })?;
                let certificate = Certificate::from_der(&der);
                let unusable = |source| Error::Signature { number, source };
                let signer = certificate.signer().map_err(unusable)?;
                match (certificate.source().map_err(unusable)?, &signer) {
                    (Some(source), _) => Ok(Voucher::Build { signer, source }),
                    (None, Signer::Identity { name, .. }) => {
                        Err(Error::NoBuild { number, signer: name.clone() })
                    }
                    (None, Signer::Key(_)) => Err(other("a certified build")),
                }
            }
            _ => Err(other("one key or one certificate")),
        }
    }
}

/// The signer that a bundle names, if its statement has the right kind and is about the right package.
fn bound(number: usize, kind: &str, bundle: &Value, purl: &str, sha512: &str) -> Result<Material, Error> {
    let wrong = |what| Error::Payload { number, what };
    let bundle = Bundle::deserialize(bundle).map_err(|_| wrong("the bundle"))?;
    if bundle.message_signature.is_some() {
        return Err(wrong("which of two things is signed"));
    }
    let payload = base64::engine::general_purpose::STANDARD
        .decode(&bundle.dsse_envelope.payload)
        .map_err(|_| wrong("the payload's base64"))?;
    let statement: Statement = serde_json::from_slice(&payload).map_err(|_| wrong("the statement"))?;
    if statement.predicate_type != kind {
        let (stated, found) = (kind.to_owned(), statement.predicate_type);
        return Err(Error::OtherKind { number, stated, found });
    }
    let fits = |subject: &Subject| {
        let digest = subject.digest.get("sha512");
        subject.name == purl && digest.is_some_and(|digest| digest.eq_ignore_ascii_case(sha512))
    };
    if !statement.subject.iter().any(fits) {
        let named = |subject: &Subject| {
            let digest = subject.digest.get("sha512").map_or("no SHA-512", String::as_str);
            format!("{} ({digest})", subject.name)
        };
        let found: Vec<String> = statement.subject.iter().map(named).collect();
        let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
        return Err(Error::OtherSubject { number, expected: format!("{purl} ({sha512})"), found });
    }
    Ok(bundle.verification_material)
}

#[cfg(test)]
pub(crate) mod tests;
