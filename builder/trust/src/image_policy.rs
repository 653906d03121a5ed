//! Yields the rules for trusting an image, from a policy file and the files that it names.
//!
//! # Shape
//! ```toml
//! format = 1
//! image = "minimal"                     # the recipe's name
//! profiles = ["release"]                # default
//! minimum_version = "1.2.0"             # compared as Debian versions; an older image is refused
//! maximum_age_days = 90                 # since the earliest trusted time of the signature
//! times = ["witness", "stamp"]          # which times are trusted; needed with maximum_age_days
//! builders = ["https://example.org/b"]  # allowed `runDetails.builder.id`
//! rebuilders = 2                        # how many distinct identities must agree; default 1
//! logs = 1                              # how many distinct logs must hold each signature; default 1
//! log_policy = "tlog-policy"            # which logs and witnesses: C2SP's tlog-policy
//! trusted_root = "trusted_root.json"    # certificate and time stamp authorities, if any are needed
//! reference_values = "required"         # default: recomputed from the image; or "not-demanded"
//! [[identities]]
//! name = "builder-1"
//! key = "builder-1.pub"                 # PEM; or: certificate = "NAME", issuer = "URL"
//! [deny]
//! images = []  statements = []  keys = []    # SHA-256 of disk, payload, DER key
//! versions = []
//! ```
//! Unknown members are refused: a misspelt rule must not be silently ignored.
//!
//! # Not here
//! What a statement says about an image: the builder's `claim::provenance`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Verified;
use crate::bundle::{Artifact, Checked, PublicKey, Signer, Verify};
use crate::envelope::IN_TOTO;
use crate::transparency::merkle::Hash;
use crate::transparency::note::Note;
use crate::transparency::note::{Material, VerifierKey};
use crate::transparency::proof::Proof;
use crate::transparency::tlog_policy as logs;

/// Why a policy is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not TOML of this shape.
    #[error("malformed policy")]
    Shape(#[source] toml::de::Error),
    /// A member has an invalid value.
    #[error("the policy's {field} {reason}")]
    Field {
        /// Which member.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that the policy names cannot be read.
    #[error("cannot read {name:?}, which the policy names")]
    File {
        /// As the policy names it.
        name: String,
        /// What the file system says.
        source: std::io::Error,
    },
    /// The log policy is malformed.
    #[error("{name:?}, which the policy names, is not a log policy")]
    Logs {
        /// As the policy names it.
        name: String,
        /// Why.
        source: logs::Error,
    },
    /// A key is malformed.
    #[error("{name:?}, which the policy names, is not a public key")]
    Key {
        /// As the policy names it.
        name: String,
        /// Why.
        source: crate::bundle::Error,
    },
}

/// A time that may be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Time {
    /// A witness's cosignature on the checkpoint.
    Witness,
    /// A signed time in the bundle: from a Rekor v1, or an RFC 3161 time stamp.
    Stamp,
}

/// Whether reference values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum References {
    /// They must be signed, and match those recomputed from the image.
    #[default]
    Required,
    /// They are not compared.
    NotDemanded,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    image: String,
    #[serde(default)]
    profiles: Option<Vec<String>>,
    #[serde(default)]
    minimum_version: Option<String>,
    #[serde(default)]
    maximum_age_days: Option<u32>,
    #[serde(default)]
    times: Vec<Time>,
    builders: Vec<String>,
    #[serde(default = "one")]
    rebuilders: usize,
    #[serde(default = "one")]
    logs: usize,
    log_policy: String,
    #[serde(default)]
    trusted_root: Option<String>,
    #[serde(default)]
    reference_values: References,
    identities: Vec<IdentityDocument>,
    #[serde(default)]
    deny: Deny,
}

fn one() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityDocument {
    name: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default)]
    issuer: Option<String>,
}

/// What is always refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deny {
    /// SHA-256 digests of disks.
    pub images: BTreeSet<String>,
    /// SHA-256 digests of payloads.
    pub statements: BTreeSet<String>,
    /// SHA-256 digests of public keys in DER.
    pub keys: BTreeSet<String>,
    /// Versions.
    pub versions: BTreeSet<String>,
}

/// A trusted signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name in the policy.
    pub name: String,
    /// How they sign.
    pub signer: Signer,
}

/// The rules for trusting an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Name of the image.
    pub image: String,
    /// Profiles that are allowed.
    pub profiles: BTreeSet<String>,
    /// The oldest version that is allowed.
    pub minimum_version: Option<String>,
    /// The greatest age of a signature, in seconds.
    pub maximum_age: Option<u64>,
    /// Times that are trusted.
    pub times: BTreeSet<Time>,
    /// Builders that are allowed.
    pub builders: BTreeSet<String>,
    /// How many identities must agree.
    pub rebuilders: usize,
    /// How many logs must hold a signature.
    pub logs: usize,
    /// Logs and witnesses.
    pub log_policy: logs::Policy,
    /// Whether reference values are compared.
    pub reference_values: References,
    /// The trusted signers.
    pub identities: Vec<Identity>,
    /// What is refused.
    pub deny: Deny,
    /// The authorities, and the logs of `log_policy`, as a sigstore trust root.
    pub trust_root: Value,
}

/// A log's identifier, as trust roots and bundles write it.
pub fn log_id(key: &VerifierKey) -> [u8; 32] {
    match key.material() {
        Material::Ecdsa(_) => Sha256::digest(key.identity()).into(),
        // The identifier of a Rekor v2: the note's key ID, not truncated.
        Material::Ed25519(_) | Material::Cosignature(_) => Sha256::new()
            .chain_update(key.name())
            .chain_update(b"\n\x01")
            .chain_update(key.identity())
            .finalize()
            .into(),
    }
}

/// A log's key as trust roots write it: DER key, its kind, and its identifier.
pub fn log_in_root(key: &VerifierKey, url: Option<&str>) -> Value {
    // RFC 8410 §4: SubjectPublicKeyInfo of an Ed25519 key.
    const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
    let bytes = key.identity();
    let (der, details) = match key.material() {
        Material::Ecdsa(_) => (bytes, "PKIX_ECDSA_P256_SHA_256"),
        Material::Ed25519(_) | Material::Cosignature(_) => ([ED25519, &bytes].concat(), "PKIX_ED25519"),
    };
    json!({
        "baseUrl": url.map_or_else(|| format!("https://{}", key.name()), str::to_owned),
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": STANDARD.encode(der),
            "keyDetails": details,
            "validFor": {"start": "1970-01-01T00:00:00Z"},
        },
        "logId": {"keyId": STANDARD.encode(log_id(key))},
    })
}

/// A sigstore trust root that holds only logs.
pub fn trust_root(logs: &[Value]) -> Value {
    json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": logs,
        "certificateAuthorities": [],
        "ctlogs": [],
        "timestampAuthorities": [],
    })
}

/// Copies the certificate and time stamp authorities of `given` into a trust root, but not its logs.
pub fn add_authorities(root: &mut Value, given: &Value) {
    for member in ["certificateAuthorities", "ctlogs", "timestampAuthorities"] {
        if let (Some(list), Some(root)) = (given.get(member), root.as_object_mut()) {
            root.insert(member.to_owned(), list.clone());
        }
    }
}

impl Policy {
    /// Reads a policy, and the files that it names through `read`.
    ///
    /// # Errors
    /// The reason for refusal.
    pub fn parse(text: &str, read: &dyn Fn(&str) -> std::io::Result<Vec<u8>>) -> Result<Self, Error> {
        let document: Document = toml::from_str(text).map_err(Error::Shape)?;
        let wrong = |field, reason: &str| Error::Field { field, reason: reason.to_owned() };
        if document.format != 1 {
            return Err(wrong("format", "is not 1"));
        }
        let file = |name: &str| {
            let bytes = read(name).map_err(|source| Error::File { name: name.to_owned(), source })?;
            String::from_utf8(bytes).map_err(|_| Error::File {
                name: name.to_owned(),
                source: std::io::Error::new(std::io::ErrorKind::InvalidData, "not UTF-8"),
            })
        };
        let log_policy = logs::Policy::parse(&file(&document.log_policy)?)
            .map_err(|source| Error::Logs { name: document.log_policy.clone(), source })?;
        if log_policy.logs().is_empty() {
            return Err(wrong("log_policy", "names no log"));
        }
        if document.logs == 0 || document.logs > log_policy.logs().len() {
            return Err(wrong("logs", "is 0, or more than the logs that log_policy names"));
        }
        let mut identities: Vec<Identity> = Vec::new();
        for identity in document.identities {
            let signer = match (identity.key, identity.certificate, identity.issuer) {
                (Some(name), None, None) => {
                    let key = PublicKey::from_pem(&file(&name)?);
                    Signer::Key(key.map_err(|source| Error::Key { name, source })?)
                }
                (None, Some(name), Some(issuer)) => Signer::Identity { name, issuer },
                _ => return Err(wrong("identities", "need a key, or certificate and issuer")),
            };
            // An identity that is named twice would count twice.
            if identities.iter().any(|known| known.name == identity.name || known.signer == signer) {
                return Err(wrong("identities", "list the same name or signer twice"));
            }
            identities.push(Identity { name: identity.name, signer });
        }
        if document.rebuilders == 0 || document.rebuilders > identities.len() {
            return Err(wrong("rebuilders", "is 0, or more than the identities"));
        }
        if document.builders.is_empty() {
            return Err(wrong("builders", "is empty: nothing could be accepted"));
        }
        let times: BTreeSet<Time> = document.times.into_iter().collect();
        if document.maximum_age_days.is_some() && times.is_empty() {
            return Err(wrong("maximum_age_days", "needs at least one entry in `times`"));
        }
        let of_logs: Vec<Value> =
            log_policy.logs().iter().map(|log| log_in_root(&log.key, log.url.as_deref())).collect();
        let mut root = trust_root(&of_logs);
        if let Some(name) = &document.trusted_root {
            let given: Value = serde_json::from_str(&file(name)?).map_err(|error| Error::Field {
                field: "trusted_root",
                reason: format!("is not JSON: {error}"),
            })?;
            add_authorities(&mut root, &given);
        }
        let profiles = document.profiles.unwrap_or_else(|| vec!["release".to_owned()]).into_iter().collect();
        Ok(Policy {
            image: document.image,
            profiles,
            minimum_version: document.minimum_version,
            maximum_age: document.maximum_age_days.map(|days| u64::from(days) * 86_400),
            times,
            builders: document.builders.into_iter().collect(),
            rebuilders: document.rebuilders,
            logs: document.logs,
            log_policy,
            reference_values: document.reference_values,
            identities,
            deny: document.deny,
            trust_root: root,
        })
    }
}

/// A statement that a policy's identity signed and the policy's logs hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The in-toto statement's bytes.
    pub payload: Vec<u8>,
    /// The logs that hold it, and its index in each.
    pub logs: BTreeMap<String, u64>,
    /// The earliest trusted time of the signature, in seconds since 1970.
    pub time: Option<u64>,
}

impl Policy {
    /// Judges a bundle: an in-toto statement about `disk` (SHA-256), signed by `identity`, in as many logs as
    /// the policy demands.
    ///
    /// # Errors
    /// The reason for refusal, as a message for the user.
    pub fn signed(
        &self,
        verifier: &dyn Verify,
        bundle: &[u8],
        disk: [u8; 32],
        identity: &Identity,
    ) -> Result<Verified<Signed>, String> {
        let checked = verifier.verify(bundle, Artifact::Sha256(disk), &identity.signer);
        let checked = checked.map_err(|error| error.to_string())?;
        let payload = checked.payload().filter(|payload| payload.kind == IN_TOTO);
        let payload = payload.ok_or_else(|| "the bundle has no in-toto statement".to_owned())?.bytes.clone();
        let (logs, time) = self.logged(&checked)?;
        Ok(Verified::by_its_judge(Signed { payload, logs, time }))
    }

    /// The policy's logs that hold the bundle's entry, and the earliest trusted time.
    fn logged(&self, checked: &Verified<Checked>) -> Result<(BTreeMap<String, u64>, Option<u64>), String> {
        let mut logs = BTreeMap::new();
        let mut times: Vec<u64> = Vec::new();
        let mut reasons = Vec::new();
        for entry in checked.entries() {
            let (Some(hashes), Some(checkpoint)) = (&entry.proof, &entry.checkpoint) else {
                reasons.push(format!("entry {} has no inclusion proof", entry.index));
                continue;
            };
            let note = match Note::parse(checkpoint.as_bytes()) {
                Ok(note) => note,
                Err(error) => {
                    reasons.push(error.to_string());
                    continue;
                }
            };
            let hashes = hashes.iter().map(|hash| Hash(*hash)).collect();
            let proof = Proof { extra: None, index: entry.index_in_tree, hashes, checkpoint: note };
            match proof.verify(&entry.body, &self.log_policy) {
                Ok(accepted) => {
                    logs.insert(accepted.log().name().to_owned(), entry.index);
                    if self.times.contains(&Time::Witness) {
                        times.extend(accepted.cosigned().values());
                    }
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        if logs.len() < self.logs {
            let found = logs.len();
            return Err(format!(
                "logged in {found} of the policy's logs, expected {}: {}",
                self.logs,
                if reasons.is_empty() { "no more entries".to_owned() } else { reasons.join("; ") }
            ));
        }
        if self.times.contains(&Time::Stamp) {
            times.extend(checked.times().iter().filter_map(|time| u64::try_from(*time).ok()));
        }
        Ok((logs, times.into_iter().min()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope;
    use crate::transparency::note::{Role, SigningKey};

    const GOOD: &str = r#"
format = 1
image = "minimal"
builders = ["https://example.org/b"]
log_policy = "logs"
maximum_age_days = 2
times = ["witness"]
[[identities]]
name = "one"
key = "one.pub"
[[identities]]
name = "two"
certificate = "https://example.org/two"
issuer = "https://id.example.org"
"#;

    fn read(name: &str) -> std::io::Result<Vec<u8>> {
        let log = SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap();
        match name {
            "logs" => Ok(format!("log {}\nquorum none\n", log.public()).into_bytes()),
            "none" => Ok(b"quorum none\n".to_vec()),
            "one.pub" => {
                let key = envelope::SigningKey::from_seed(&[1; 32]).unwrap().public();
                Ok(key.pem().unwrap().into_bytes())
            }
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    #[test]
    fn a_policy_is_read_with_the_files_that_it_names() {
        let policy = Policy::parse(GOOD, &read).unwrap();
        assert_eq!(policy.identities.len(), 2);
        assert_eq!(policy.maximum_age, Some(172_800));
        assert_eq!(policy.reference_values, References::Required);
        assert_eq!(policy.profiles, BTreeSet::from(["release".to_owned()]));
        crate::bundle::Sigstore::new(policy.trust_root.to_string().as_bytes()).unwrap();
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        for (from, to, part) in [
            ("format = 1", "format = 2", "format is not 1"),
            ("image = ", "imagine = ", "malformed"),
            ("\"logs\"", "\"nothing\"", "cannot read \"nothing\""),
            ("\"logs\"", "\"one.pub\"", "is not a log policy"),
            ("\"logs\"", "\"none\"", "names no log"),
            ("\"one.pub\"", "\"logs\"", "is not a public key"),
            ("key = \"one.pub\"\n", "", "need a key"),
            ("key = \"one.pub\"\n", "key = \"one.pub\"\nissuer = \"x\"\n", "need a key"),
            ("name = \"two\"", "name = \"one\"", "twice"),
            ("[\"https://example.org/b\"]", "[]", "builders is empty"),
            ("times = [\"witness\"]", "", "needs at least one entry"),
            ("times = [\"witness\"]", "times = [\"sundial\"]", "malformed"),
            ("image =", "rebuilders = 3\nimage =", "rebuilders is 0, or more"),
            ("image =", "rebuilders = 0\nimage =", "rebuilders is 0, or more"),
            ("image =", "logs = 2\nimage =", "logs is 0, or more"),
            ("image =", "trusted_root = \"logs\"\nimage =", "is not JSON"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let error = Policy::parse(&text, &read).unwrap_err().to_string();
            assert!(error.contains(part), "{from} to {to}: {error}");
        }
    }
}
