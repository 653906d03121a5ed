//! Yields signed and logged statements beside an image, step by step; each step is taken once.
//!
//! # Shape
//! ```text
//! OUT/<kind>.dsse.json           the signed envelope; written before it is sent to any log
//! OUT/publish.json               the journal: for each kind, the payload's digest and each log's entry
//! OUT/<kind>.sigstore.json       envelope and log entries, for any sigstore verifier
//! OUT/<kind>.tlog-proof          proof for the first log; <kind>.2.tlog-proof for the second, and so on
//! OUT/trusted_root.json          keys of the logs, in sigstore's format
//! OUT/tlog-policy                logs and witnesses, in C2SP's format
//! OUT/signer.pub                 the signer's public key, if it outlives the run
//! OUT/<kind>.crt                 the certificate of the signing key, if it has one
//! ```
//! Publishing again, after a crash or needlessly, reuses earlier work: an envelope is signed once, an entry
//! is logged once, and a log that already has the entry is asked for its proof.
//!
//! # Not here
//! The order of the steps: `flow::publish`. The content of statements: `claim::provenance::statement`.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::files;
use super::fulcio;
use super::signer::{self, Signer};
use super::stamp;
use super::tlog::web::PATIENCE;
use super::tlog::{self, Submission, TransparencyLog};
use crate::advice::{Advice, Advised};
use crate::claim::provenance::statement::Statement;
use crate::trust::bundle::{self, Artifact, Certificate, PublicKey, Sigstore, Verify};
use crate::trust::envelope::{self, Envelope, IN_TOTO, VerifyingKey};
use crate::trust::image_policy::{add_authorities, log_in_root, trust_root};
use crate::trust::transparency::entry::Verifier;
use crate::trust::transparency::proof::{self, Proof};
use crate::trust::transparency::tlog_policy::Policy;

/// File name of the journal.
pub const JOURNAL: &str = "publish.json";
/// File name of the logs' keys.
pub const TRUST_ROOT: &str = "trusted_root.json";
/// File name of the policy with logs and witnesses.
pub const LOG_POLICY: &str = "tlog-policy";
/// File name of the signer's public key.
pub const SIGNER: &str = "signer.pub";
/// Endings of the file names of statements, signatures and proofs.
const ENDINGS: [&str; 4] = [".dsse.json", ".sigstore.json", ".tlog-proof", ".crt"];

/// Tells whether a publication writes files of this name: they are about the image beside them, and no other.
pub fn is_published(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    [JOURNAL, SIGNER].iter().any(|own| name == own.as_bytes())
        || ENDINGS.iter().any(|ending| name.ends_with(ending.as_bytes()))
}

/// The journal format that this program writes.
const FORM: &str = "proofmark-publish/1";

/// Why a publication fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system operation failed.
    #[error("cannot {deed} {}", path.display())]
    Io {
        /// The operation that failed.
        deed: &'static str,
        /// The path it failed on.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// The journal is malformed.
    #[error("{} is not a proofmark journal", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Signing failed.
    #[error("cannot sign")]
    Signer(#[from] signer::Error),
    /// The signer's public key cannot be used.
    #[error("the signer's public key cannot be used")]
    Key(#[from] envelope::Error),
    /// The signer's certificate does not name an identity.
    #[error("the signer's certificate cannot be used")]
    Certificate(#[source] bundle::Error),
    /// The key of this run was not certified.
    #[error("cannot get a key and certificate for keyless signing")]
    Keyless(#[from] fulcio::Error),
    /// A log did not accept the entry.
    #[error("cannot log at {log}")]
    Log {
        /// The log.
        log: String,
        /// Why.
        source: Box<tlog::Error>,
    },
    /// An entry in the journal is no longer valid.
    #[error("the journal's entry of {log} is invalid: delete {JOURNAL} to log again")]
    Stale {
        /// The log.
        log: String,
        /// Why.
        source: proof::Error,
    },
    /// A verifier would refuse the bundle: none of its files is written.
    #[error("the bundle of {kind} would be refused")]
    Refused {
        /// The statement.
        kind: String,
        /// Why.
        source: bundle::Error,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        let Error::Refused { .. } = self else { return None };
        Some(Advice::failed(
            "no bundle is written: certificate, timestamp and logs must match --trusted-root and --log-policy",
        ))
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Journal {
    form: String,
    /// Progress by kind.
    done: BTreeMap<String, Done>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Done {
    /// SHA-256 of the envelope and of the key or certificate.
    envelope: String,
    /// The time stamp on its signature, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<String>,
    /// Entries by log.
    logs: BTreeMap<String, Step>,
}

/// A log's entry.
#[derive(Debug, Serialize, Deserialize)]
struct Step {
    entry: Value,
    body: String,
    proof: String,
}

/// The signing identity.
#[derive(Debug)]
pub enum Who {
    /// A key without a certificate.
    Key(Signer),
    /// A key and its certificate.
    Certified(Signer, Certificate),
    /// A key for this run only, certified for a token's subject.
    Keyless(Keyless),
}

/// A key that is made and certified only when something is to be signed.
#[derive(Debug)]
pub struct Keyless {
    /// Address of the authority.
    pub address: String,
    /// The identity token: a secret.
    pub token: Token,
    /// The certified key, once issued.
    pub issued: OnceCell<(Signer, Certificate)>,
}

/// A secret that never appears in messages.
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Token(..)")
    }
}

impl Who {
    /// Returns the signer; a key for this run is certified at the first call.
    fn signer(&self) -> Result<(&Signer, Option<&Certificate>), Error> {
        let keyless = match self {
            Who::Key(signer) => return Ok((signer, None)),
            Who::Certified(signer, certificate) => return Ok((signer, Some(certificate))),
            Who::Keyless(keyless) => keyless,
        };
        let (signer, certificate) = match keyless.issued.get() {
            Some(issued) => issued,
            None => {
                let issued = fulcio::issue(&keyless.address, &keyless.token.0, PATIENCE)?;
                keyless.issued.get_or_init(|| issued)
            }
        };
        Ok((signer, Some(certificate)))
    }

    /// Returns the signer's identifier: SHA-256 of the identity in the certificate, or of the key.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Certificate`], [`Error::Keyless`].
    pub fn id(&self) -> Result<String, Error> {
        let (signer, certificate) = self.signer()?;
        let text = match certificate.map(Certificate::signer).transpose().map_err(Error::Certificate)? {
            Some(bundle::Signer::Identity { name, issuer }) => format!("{name}\n{issuer}").into_bytes(),
            Some(bundle::Signer::Key(_)) | None => signer.public().der()?,
        };
        Ok(hex::encode(Sha256::digest(text)))
    }
}

/// A signed payload and its signer's key.
#[derive(Debug)]
pub struct Signed {
    envelope: Envelope,
    public: VerifyingKey,
    verifier: Verifier,
}

impl Signed {
    fn new(
        envelope: Envelope,
        public: VerifyingKey,
        certificate: Option<&Certificate>,
    ) -> Result<Self, Error> {
        let verifier = match certificate {
            Some(certificate) => Verifier::Certificate(certificate.der().to_vec()),
            None => Verifier::Key(public.der()?),
        };
        Ok(Signed { envelope, public, verifier })
    }
}

/// The progress of a statement's publication.
#[derive(Debug)]
pub struct Progress {
    kind: String,
    journal: Journal,
}

impl Progress {
    fn done(&mut self) -> &mut Done {
        self.journal.done.entry(self.kind.clone()).or_default()
    }
}

/// A statement's log entries.
#[derive(Debug, Default)]
pub struct Entries {
    /// Index of each entry, by log.
    pub logs: BTreeMap<String, u64>,
    entries: Vec<Value>,
    proofs: Vec<String>,
}

/// A bundle, and the trust root of its logs and authorities.
#[derive(Debug)]
pub struct Bundle {
    text: String,
    root: String,
}

/// Publishes statements beside an image.
pub struct Publisher<'a> {
    /// The image's folder.
    pub folder: &'a Path,
    /// The signing identity.
    pub who: &'a Who,
    /// The logs to use.
    pub logs: Vec<Box<dyn TransparencyLog + 'a>>,
    /// Address of a time stamp authority for signatures.
    pub stamps: Option<&'a str>,
    /// A trust root with the authorities that issue the certificate and the time stamps.
    pub authorities: Option<&'a Value>,
    /// The policy that the logs must satisfy.
    pub policy: &'a Policy,
    /// The policy's text, for the image's folder.
    pub policy_text: &'a str,
}

impl Publisher<'_> {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.folder.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { deed: "read", path, source }),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        if self.read(name)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        let path = self.folder.join(name);
        files::write(&path, bytes).map_err(|source| Error::Io { deed: "write", path, source })
    }

    fn journal(&self) -> Result<Journal, Error> {
        let Some(bytes) = self.read(JOURNAL)? else { return Ok(Journal::default()) };
        let path = self.folder.join(JOURNAL);
        serde_json::from_slice(&bytes).map_err(|source| Error::Journal { path, source })
    }

    fn keep(&self, journal: &Journal) -> Result<(), Error> {
        let mut text = serde_json::to_vec_pretty(journal)
            .map_err(|source| Error::Journal { path: self.folder.join(JOURNAL), source })?;
        text.push(b'\n');
        self.write(JOURNAL, &text)
    }

    /// Returns the envelope of a payload: the existing one, if this signer made it.
    ///
    /// # Errors
    /// [`Error`] when it cannot be signed or stored.
    pub fn envelope(&self, kind: &str, payload: Vec<u8>) -> Result<Signed, Error> {
        let (name, certified) = (format!("{kind}.dsse.json"), format!("{kind}.crt"));
        let before = self.read(&name)?.and_then(|bytes| Envelope::parse(&bytes).ok());
        let known = match self.who {
            // An earlier run used its own key and left its certificate; the bundle's verifier checks the
            // identity.
            Who::Keyless(_) => self.read(&certified)?.and_then(|bytes| {
                let certificate = Certificate::from_pem(&String::from_utf8_lossy(&bytes)).ok()?;
                Some((certificate.public().ok()?, Some(certificate)))
            }),
            who => {
                let (signer, certificate) = who.signer()?;
                Some((signer.public(), certificate.cloned()))
            }
        };
        if let (Some(envelope), Some((public, certificate))) = (before, known)
            && envelope.kind == IN_TOTO
            && envelope.payload == payload
            && envelope.verify(&public).is_ok()
        {
            return Signed::new(envelope, public, certificate.as_ref());
        }
        let (signer, certificate) = self.who.signer()?;
        let envelope = signer.envelope(IN_TOTO, payload)?;
        if let Some(certificate) = certificate {
            self.write(&certified, certificate.pem().as_bytes())?;
        }
        self.write(&name, &envelope.to_bytes())?;
        Signed::new(envelope, signer.public(), certificate)
    }

    /// Returns earlier progress on a statement, if it has the same envelope by the same signer.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Journal`].
    pub fn done(&self, kind: &str, signed: &Signed) -> Result<Progress, Error> {
        let mut journal = self.journal()?;
        journal.form = FORM.to_owned();
        let (Verifier::Key(who) | Verifier::Certificate(who)) = &signed.verifier;
        let digest = Sha256::new().chain_update(signed.envelope.to_bytes()).chain_update(who).finalize();
        let digest = hex::encode(digest);
        let done = journal.done.entry(kind.to_owned()).or_default();
        if done.envelope != digest {
            *done = Done { envelope: digest, stamp: None, logs: BTreeMap::new() };
        }
        Ok(Progress { kind: kind.to_owned(), journal })
    }

    /// Gets a time stamp on the signature, if an authority is configured and has not stamped it yet.
    ///
    /// # Errors
    /// [`Error::Log`], [`Error::Io`].
    pub fn stamp(&self, progress: &mut Progress, signed: &Signed) -> Result<(), Error> {
        if let (Some(address), None) = (self.stamps, &progress.done().stamp) {
            let stamp = stamp::stamp(address, &signed.envelope.signature, PATIENCE)
                .map_err(|source| Error::Log { log: address.to_owned(), source: Box::new(source) })?;
            progress.done().stamp = Some(hex::encode(stamp));
            self.keep(&progress.journal)?;
        }
        Ok(())
    }

    /// Submits the envelope to each log that does not have it, and returns the logs that were asked.
    ///
    /// # Errors
    /// [`Error::Log`], [`Error::Io`].
    pub fn log(&mut self, progress: &mut Progress, signed: &Signed) -> Result<Vec<String>, Error> {
        let mut asked = Vec::new();
        for at in 0..self.logs.len() {
            let Some(log) = self.logs.get_mut(at) else { continue };
            let name = log.name().to_owned();
            if progress.done().logs.contains_key(&name) {
                continue;
            }
            let recorded = log
                .submit(Submission { envelope: &signed.envelope, verifier: &signed.verifier })
                .map_err(|source| Error::Log { log: name.clone(), source: Box::new(source) })?;
            let step = Step {
                entry: recorded.entry,
                body: hex::encode(&recorded.body),
                proof: recorded.proof.to_string(),
            };
            progress.done().logs.insert(name.clone(), step);
            self.keep(&progress.journal)?;
            asked.push(name);
        }
        Ok(asked)
    }

    /// Returns the journal's entries, each checked again.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn entries(&self, progress: &mut Progress) -> Result<Entries, Error> {
        let mut all = Entries::default();
        for log in &self.logs {
            let name = log.name().to_owned();
            let Some(step) = progress.done().logs.get(&name) else { continue };
            let stale = |source| Error::Stale { log: name.clone(), source };
            let body = hex::decode(&step.body).unwrap_or_default();
            let proof = Proof::parse(step.proof.as_bytes()).map_err(stale)?;
            proof.verify(&body, self.policy).map_err(stale)?;
            all.logs.insert(name.clone(), proof.index);
            all.entries.push(step.entry.clone());
            all.proofs.push(step.proof.clone());
        }
        Ok(all)
    }

    /// Returns the bundle of an envelope, its entries and its stamp, and the trust root to verify it with.
    pub fn bundle(&self, progress: &mut Progress, signed: &Signed, entries: &Entries) -> Bundle {
        let keys: Vec<Value> =
            self.policy.logs().iter().map(|log| log_in_root(&log.key, log.url.as_deref())).collect();
        let mut root = trust_root(&keys);
        if let Some(authorities) = self.authorities {
            add_authorities(&mut root, authorities);
        }
        let stamp = progress.done().stamp.as_deref();
        let stamps: Vec<Vec<u8>> = stamp.and_then(|stamp| hex::decode(stamp).ok()).into_iter().collect();
        Bundle {
            text: signed.envelope.bundle(&signed.verifier, &entries.entries, &stamps),
            root: root.to_string(),
        }
    }

    /// Writes a statement's files, the bundle last.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Key`].
    pub fn finish(
        &self,
        kind: &str,
        signed: &Signed,
        entries: &Entries,
        bundle: &Bundle,
    ) -> Result<(), Error> {
        for (number, proof) in (1..).zip(&entries.proofs) {
            let number = if number == 1 { String::new() } else { format!(".{number}") };
            self.write(&format!("{kind}{number}.tlog-proof"), proof.as_bytes())?;
        }
        self.write(TRUST_ROOT, format!("{}\n", bundle.root).as_bytes())?;
        self.write(LOG_POLICY, self.policy_text.as_bytes())?;
        if !matches!(self.who, Who::Keyless(_)) {
            self.write(SIGNER, signed.public.pem()?.as_bytes())?;
        }
        self.write(&format!("{kind}.sigstore.json"), bundle.text.as_bytes())
    }

    /// Verifies a bundle as a verifier will, before it is published.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn holds(
        &self,
        kind: &str,
        statement: &Statement,
        signed: &Signed,
        bundle: &Bundle,
    ) -> Result<(), Error> {
        let refused = |source| Error::Refused { kind: kind.to_owned(), source };
        let mut digest = [0; 32];
        let subject = statement.subject.first().and_then(|subject| subject.digest.get("sha256"));
        let known = subject.is_some_and(|subject| hex::decode_to_slice(subject, &mut digest).is_ok());
        if !known {
            return Err(refused(bundle::Error::Refused {
                reason: "the statement has no subject".to_owned(),
            }));
        }
        let signer = match &signed.verifier {
            Verifier::Key(der) => PublicKey::from_der(der).map(bundle::Signer::Key),
            Verifier::Certificate(der) => Certificate::from_der(der).signer(),
        };
        let signer = signer.map_err(refused)?;
        let verifier = Sigstore::new(bundle.root.as_bytes()).map_err(refused)?;
        verifier.verify(bundle.text.as_bytes(), Artifact::Sha256(digest), &signer).map(drop).map_err(refused)
    }
}
