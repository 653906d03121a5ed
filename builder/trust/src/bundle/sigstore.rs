//! Yields judgements on bundles through the crates `sigstore-*`, which only this folder uses.
//!
//! # Not here
//! The algorithms: `algorithms`.

use serde_json::Value;
use sigstore_trust_root::{SIGSTORE_PRODUCTION_TRUSTED_ROOT, TrustedRoot};
use sigstore_types::{
    ArtifactDigest, Bundle, DerPublicKey, HashAlgorithm, KindVersion, Sha256Hash, Sha512Hash,
    SignatureContent, TransparencyLogEntry,
};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, VerificationResult, Verifier};

use super::{Artifact, Checked, Error, LogEntry, MOST_BYTES, Payload, Signer, Verify, algorithms};
use crate::Verified;
use crate::transparency::checkpoint::Checkpoint;
use crate::transparency::note::{Note, VerifierKey};

/// Whether a certificate needs a signed timestamp (SCT) from a certificate transparency log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CertificateStamps {
    /// The trust root names such logs, so a timestamp is demanded.
    Demanded,
    /// The trust root names no such log.
    PassedOver,
}

/// A verifier with one trust root.
pub struct Sigstore {
    verifier: Verifier,
    stamps: CertificateStamps,
    logs: Vec<Log>,
}

/// A log of the trust root.
struct Log {
    /// Its identifier, as bundles write it.
    id: Vec<u8>,
    /// DER `SubjectPublicKeyInfo`.
    key: Vec<u8>,
}

/// Checks what a log entry says beside the proof that [`Verifier`] checked: that the log it names signed the checkpoint, and
/// that root, tree size and index, where they are stated again, are those of the proof.
///
/// # Errors
/// What contradicts the checkpoint.
fn consistent(logs: &[Log], entry: &TransparencyLogEntry, stated_index: Option<u64>) -> Result<(), String> {
    let id = entry.log_id.key_id.as_bytes();
    let log = logs.iter().find(|log| log.id == id);
    let log = log.ok_or_else(|| format!("log ID {} is not in the trust root", entry.log_id.key_id))?;
    let Some(proof) = entry.inclusion_proof.as_ref() else { return Ok(()) };
    if matches!(entry.kind_version, KindVersion::HashedRekordV002)
        && let Some(stated) = stated_index.filter(|stated| *stated != entry.log_index.get())
    {
        let expected = entry.log_index.get();
        return Err(format!("the inclusion proof's index is {stated}, expected the entry's, {expected}"));
    }
    let note = Note::parse(proof.checkpoint.envelope().as_bytes()).map_err(|error| error.to_string())?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
    if proof.root_hash.as_bytes() != &checkpoint.root().0 {
        return Err("the inclusion proof's root is not the checkpoint's".to_owned());
    }
    if proof.tree_size != checkpoint.size() {
        let (found, expected) = (proof.tree_size, checkpoint.size());
        return Err(format!(
            "the inclusion proof's tree size is {found}, expected the checkpoint's, {expected}"
        ));
    }
    // Rekor v1 writes its tree ID after the name: `rekor.example - 123`.
    let name = checkpoint.origin().split(" - ").next().unwrap_or_default();
    let by = |error: String| format!("log ID {} is not that of the checkpoint: {error}", entry.log_id.key_id);
    match VerifierKey::from_der(name, &log.key) {
        Some(key) => Checkpoint::verified(&note, &key).map(|_| ()).map_err(|error| by(error.to_string())),
        // The ID begins with the key's ID in the note (C2SP signed-note).
        None => match note.signatures().iter().any(|line| line.name == name && id.starts_with(&line.id)) {
            true => Ok(()),
            false => Err(by("it has no signature with this ID".to_owned())),
        },
    }
}

impl Sigstore {
    /// Creates a verifier that trusts what a trust root names.
    ///
    /// # Errors
    /// [`Error::TrustRoot`].
    pub fn new(trust_root: &[u8]) -> Result<Self, Error> {
        algorithms::install();
        let wrong = |reason: String| Error::TrustRoot { reason };
        let text = std::str::from_utf8(trust_root).map_err(|error| wrong(error.to_string()))?;
        let root = TrustedRoot::from_json(text).map_err(|error| wrong(error.to_string()))?;
        let verifier = Verifier::new(&root).map_err(|error| wrong(error.to_string()))?;
        let stamps = match root.ctlogs.is_empty() {
            true => CertificateStamps::PassedOver,
            false => CertificateStamps::Demanded,
        };
        let logs = root.tlogs.iter().map(|log| Log {
            id: log.log_id.key_id.as_bytes().to_vec(),
            key: log.public_key.raw_bytes.as_bytes().to_vec(),
        });
        Ok(Sigstore { verifier, stamps, logs: logs.collect() })
    }

    /// Creates a verifier that trusts Sigstore's public instance as of the release of `sigstore-trust-root`.
    ///
    /// # Errors
    /// [`Error::TrustRoot`]; never with the pinned version.
    pub fn public() -> Result<Self, Error> {
        Self::new(SIGSTORE_PRODUCTION_TRUSTED_ROOT.as_bytes())
    }

    fn judge(
        &self,
        bundle: &Bundle,
        artifact: Artifact<'_>,
        signer: &Signer,
    ) -> Result<VerificationResult, sigstore_verify::Error> {
        let (key, certificate);
        let policy: &dyn sigstore_verify::Policy = match signer {
            Signer::Key(public) => {
                key = PublicKeyVerificationPolicy::new(DerPublicKey::from_bytes(public.der()));
                &key
            }
            Signer::Identity { name, issuer } => {
                let policy = VerificationPolicy::new(name.as_str(), issuer.as_str());
                certificate = match self.stamps {
                    CertificateStamps::Demanded => policy,
                    CertificateStamps::PassedOver => policy.skip_sct(),
                };
                &certificate
            }
        };
        match artifact {
            Artifact::Bytes(bytes) => self.verifier.verify(bytes, bundle, policy),
            Artifact::Stream(stream) => self.verifier.verify_reader(stream, bundle, policy),
            Artifact::Sha256(digest) => self.verifier.verify(Sha256Hash::new(digest), bundle, policy),
            Artifact::Sha512(digest) => {
                let digest = ArtifactDigest::new(HashAlgorithm::Sha2512, Sha512Hash::new(digest))?;
                self.verifier.verify(digest, bundle, policy)
            }
        }
    }
}

impl Verify for Sigstore {
    fn verify(
        &self,
        bundle: &[u8],
        artifact: Artifact<'_>,
        signer: &Signer,
    ) -> Result<Verified<Checked>, Error> {
        let unreadable = |reason: String| Error::Bundle { reason };
        if bundle.len() > MOST_BYTES {
            return Err(unreadable(format!("{} bytes, expected at most {MOST_BYTES}", bundle.len())));
        }
        let text = std::str::from_utf8(bundle).map_err(|error| unreadable(error.to_string()))?;
        let bundle = Bundle::from_json(text).map_err(|error| unreadable(error.to_string()))?;
        let result = self.judge(&bundle, artifact, signer).map_err(|error| match error {
            sigstore_verify::Error::ArtifactRead(source) => Error::Artifact(source),
            error => Error::Refused { reason: error.to_string() },
        })?;
        // The crates leave it to their caller to check that any log entry was proven at all.
        let material = &bundle.verification_material;
        if !result.tlog_verified() || material.tlog_entries.is_empty() {
            return Err(Error::Refused { reason: "the bundle has no log entry".to_owned() });
        }
        // Whether a member is stated at all shows only in the text.
        let stated: Value = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        let mut entries = Vec::with_capacity(material.tlog_entries.len());
        for (number, entry) in material.tlog_entries.iter().enumerate() {
            let index = format!("/verificationMaterial/tlogEntries/{number}/inclusionProof/logIndex");
            let stated_index = stated.pointer(&index).map(|_| entry.inclusion_proof.as_ref());
            let stated_index = stated_index.flatten().map(|proof| proof.log_index.get());
            consistent(&self.logs, entry, stated_index).map_err(|reason| Error::Refused {
                reason: format!("log entry {}: {reason}", entry.log_index.get()),
            })?;
            if entry.inclusion_proof.is_none() && entry.inclusion_promise.is_none() {
                let reason =
                    format!("log entry {} has neither inclusion proof nor promise", entry.log_index.get());
                return Err(Error::Refused { reason });
            }
            let proof = entry.inclusion_proof.as_ref();
            // A Rekor v2 has one tree and states the index twice; only the outer one is used.
            let index_in_tree = match (entry.kind_version, proof) {
                (KindVersion::HashedRekordV002, _) | (_, None) => entry.log_index.get(),
                (_, Some(proof)) => proof.log_index.get(),
            };
            entries.push(LogEntry {
                index: entry.log_index.get(),
                index_in_tree,
                kind: format!("{} {}", entry.kind_version.kind(), entry.kind_version.version()),
                log: entry.log_id.key_id.as_bytes().to_vec(),
                body: entry.canonicalized_body.as_bytes().to_vec(),
                proof: proof.map(|proof| proof.hashes.iter().map(|hash| *hash.as_bytes()).collect()),
                checkpoint: proof.map(|proof| proof.checkpoint.envelope().to_owned()),
            });
        }
        let payload = match &bundle.content {
            SignatureContent::DsseEnvelope(envelope) => Some(Payload {
                kind: envelope.payload_type.clone(),
                bytes: envelope.payload.as_bytes().to_vec(),
            }),
            _ => None,
        };
        let times = result.verified_timestamps().iter().map(|time| time.as_second()).collect();
        Ok(Verified::by_its_judge(Checked { signer: signer.clone(), payload, entries, times }))
    }
}
