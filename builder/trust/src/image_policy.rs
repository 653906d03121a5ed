//! Yields the rules for trusting an image, from a policy file and the files that it names.
//!
//! # Shape
//! ```toml
//! format = 1
//! image = "minimal"                     # the recipe's name
//! profiles = ["release"]                # default
//! minimum_version = "1.2.0"             # compared as Debian versions; an older image is refused
//! maximum_age_days = 90                 # since the earliest trusted time of the signature, which must have a stamp
//! times = ["witness", "stamp"]          # which times are trusted; maximum_age_days needs "stamp"
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
//! images = []  statements = []  keys = []    # SHA-256 of disk, payload, DER key, as 64 hexadecimal digits
//! versions = []                              # "1" denies "1-0" too
//! ```
//! Unknown members and values that are not of their type are refused, with their line: a misspelt rule must not be silently
//! ignored.
//!
//! A cosignature says that an entry existed before its time. It can be renewed by anyone who proves the old entry in a new
//! checkpoint, so it can only make a signature older: an age needs the time at which the log took the entry, or a time stamp.
//!
//! # Not here
//! What a statement says about an image: the builder's `claim::provenance`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ovmf_measure::reference::Profile;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use toml::Spanned;

use crate::Verified;
use crate::bundle::{Artifact, Checked, PublicKey, Signer, Verify};
use crate::debian::version::Version;
use crate::envelope::IN_TOTO;
use crate::transparency::checkpoint::Checkpoint;
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
    #[error("line {line}: the policy's {field} {reason}")]
    Field {
        /// The line of its value, counted from 1.
        line: usize,
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
    format: Spanned<u32>,
    image: Text,
    #[serde(default)]
    profiles: Option<Vec<Profile>>,
    #[serde(default)]
    minimum_version: Option<DebianVersion>,
    #[serde(default)]
    maximum_age_days: Option<Spanned<u32>>,
    #[serde(default)]
    times: Vec<Time>,
    builders: Spanned<Vec<Uri>>,
    #[serde(default)]
    rebuilders: Option<Spanned<usize>>,
    #[serde(default)]
    logs: Option<Spanned<usize>>,
    log_policy: Spanned<Text>,
    #[serde(default)]
    trusted_root: Option<Spanned<Text>>,
    #[serde(default)]
    reference_values: References,
    identities: Vec<Spanned<IdentityDocument>>,
    #[serde(default)]
    deny: Option<Spanned<Deny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityDocument {
    name: Text,
    #[serde(default)]
    key: Option<Text>,
    #[serde(default)]
    certificate: Option<Text>,
    #[serde(default)]
    issuer: Option<Uri>,
}

/// Text that is not empty, without blanks around it and without control characters.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Text(String);

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control) {
            true => Ok(Text(text)),
            false => Err("expected text that is not empty, without blanks around it or control characters"),
        }
    }
}

/// A URI: a scheme, a colon, and something without blanks (RFC 3986, section 3).
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Uri(String);

impl TryFrom<String> for Uri {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fit = text.split_once(':').is_some_and(|(scheme, rest)| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(plain)
                && !rest.is_empty()
                && rest.bytes().all(|byte| byte.is_ascii_graphic())
        });
        if fit { Ok(Uri(text)) } else { Err("expected a URI such as https://example.org/builder") }
    }
}

/// A version that [`Version`] can read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DebianVersion(String);

impl DebianVersion {
    /// Returns it as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Orders a version against this one, as Debian does; `None` when it is malformed.
    pub fn compare(&self, found: &str) -> Option<Ordering> {
        Some(Version::read(found).ok()?.cmp(&Version::read(&self.0).ok()?))
    }
}

impl TryFrom<String> for DebianVersion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Version::read(&text).map_err(|error| error.to_string())?;
        Ok(DebianVersion(text))
    }
}

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Sha256Digest([u8; 32]);

impl TryFrom<String> for Sha256Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&text, &mut digest)
            .map_err(|_| format!("expected a SHA-256 digest of 64 hexadecimal digits, found {text:?}"))?;
        Ok(Sha256Digest(digest))
    }
}

/// What is always refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deny {
    images: BTreeSet<Sha256Digest>,
    statements: BTreeSet<Sha256Digest>,
    keys: BTreeSet<Sha256Digest>,
    versions: Vec<DebianVersion>,
}

impl Deny {
    /// Tells whether a file of an image is denied, by its SHA-256 in hexadecimal. A malformed digest is.
    pub fn image(&self, sha256: &str) -> bool {
        !self.images.is_empty()
            && Sha256Digest::try_from(sha256.to_owned()).map_or(true, |digest| self.images.contains(&digest))
    }

    /// Tells whether a statement is denied, by its payload.
    pub fn statement(&self, payload: &[u8]) -> bool {
        self.statements.contains(&Sha256Digest(Sha256::digest(payload).into()))
    }

    /// Tells whether a signer is denied. A signer without a key of its own is not.
    pub fn signer(&self, signer: &Signer) -> bool {
        match signer {
            Signer::Key(key) => self.keys.contains(&Sha256Digest(Sha256::digest(key.der()).into())),
            Signer::Identity { .. } => false,
        }
    }

    /// Tells whether a version is denied. A malformed version is, if any is.
    pub fn version(&self, found: &str) -> bool {
        self.versions.iter().any(|denied| denied.compare(found).is_none_or(Ordering::is_eq))
    }
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
    pub profiles: BTreeSet<Profile>,
    /// The oldest version that is allowed.
    pub minimum_version: Option<DebianVersion>,
    /// The greatest age of a signature, in seconds. The signature needs a stamp.
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
    let details = match key.material() {
        Material::Ecdsa(_) => "PKIX_ECDSA_P256_SHA_256",
        Material::Ed25519(_) | Material::Cosignature(_) => "PKIX_ED25519",
    };
    json!({
        "baseUrl": url.map_or_else(|| format!("https://{}", key.name()), str::to_owned),
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": STANDARD.encode(key.der()),
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

/// A policy's text, and where the files are that it names.
struct Source<'a> {
    text: &'a str,
    read: &'a dyn Fn(&str) -> std::io::Result<Vec<u8>>,
}

impl Source<'_> {
    fn wrong(&self, span: Range<usize>, field: &'static str, reason: &str) -> Error {
        let line = 1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
        Error::Field { line, field, reason: reason.to_owned() }
    }

    fn file(&self, name: &str) -> Result<String, Error> {
        let bytes = (self.read)(name).map_err(|source| Error::File { name: name.to_owned(), source })?;
        String::from_utf8(bytes).map_err(|_| Error::File {
            name: name.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, "not UTF-8"),
        })
    }

    fn identities(&self, documents: Vec<Spanned<IdentityDocument>>) -> Result<Vec<Identity>, Error> {
        let mut identities: Vec<Identity> = Vec::new();
        for identity in documents {
            let span = identity.span();
            let identity = identity.into_inner();
            let signer = match (identity.key, identity.certificate, identity.issuer) {
                (Some(Text(name)), None, None) => {
                    let key = PublicKey::from_pem(&self.file(&name)?);
                    Signer::Key(key.map_err(|source| Error::Key { name, source })?)
                }
                (None, Some(Text(name)), Some(Uri(issuer))) => Signer::Identity { name, issuer },
                _ => return Err(self.wrong(span, "identities", "need a key, or certificate and issuer")),
            };
            // An identity that is named twice would count twice.
            if identities.iter().any(|known| known.name == identity.name.0 || known.signer == signer) {
                return Err(self.wrong(span, "identities", "list the same name or signer twice"));
            }
            identities.push(Identity { name: identity.name.0, signer });
        }
        Ok(identities)
    }
}

impl Policy {
    /// Reads a policy, and the files that it names through `read`.
    ///
    /// # Errors
    /// The reason for refusal.
    pub fn parse(text: &str, read: &dyn Fn(&str) -> std::io::Result<Vec<u8>>) -> Result<Self, Error> {
        let document: Document = toml::from_str(text).map_err(Error::Shape)?;
        let source = Source { text, read };
        let wrong = |span, field, reason: &str| source.wrong(span, field, reason);
        if *document.format.get_ref() != 1 {
            return Err(wrong(document.format.span(), "format", "is not 1"));
        }
        // serde also takes a list for a table, in the order of the members: rules are given by name.
        let table: toml::Table = text.parse().map_err(Error::Shape)?;
        if let Some(deny) = &document.deny
            && !table.get("deny").is_some_and(toml::Value::is_table)
        {
            return Err(wrong(deny.span(), "deny", "is not a table"));
        }
        let listed = table.get("identities").and_then(toml::Value::as_array).into_iter().flatten();
        if let Some((identity, _)) =
            document.identities.iter().zip(listed).find(|(_, listed)| !listed.is_table())
        {
            return Err(wrong(identity.span(), "identities", "are not tables"));
        }
        let names_logs = document.log_policy.span();
        let name = document.log_policy.into_inner().0;
        let log_policy = logs::Policy::parse(&source.file(&name)?)
            .map_err(|source| Error::Logs { name: name.clone(), source })?;
        if log_policy.logs().is_empty() {
            return Err(wrong(names_logs, "log_policy", "names no log"));
        }
        let logs = document.logs.as_ref().map_or(1, |logs| *logs.get_ref());
        if logs == 0 || logs > log_policy.logs().len() {
            let span = document.logs.map_or(names_logs, |logs| logs.span());
            return Err(wrong(span, "logs", "is 0, or more than the logs that log_policy names"));
        }
        let identities = source.identities(document.identities)?;
        let rebuilders = document.rebuilders.as_ref().map_or(1, |rebuilders| *rebuilders.get_ref());
        if rebuilders == 0 || rebuilders > identities.len() {
            let span = document.rebuilders.map_or(0..0, |rebuilders| rebuilders.span());
            return Err(wrong(span, "rebuilders", "is 0, or more than the identities"));
        }
        if document.builders.get_ref().is_empty() {
            return Err(wrong(document.builders.span(), "builders", "is empty: nothing could be accepted"));
        }
        let times: BTreeSet<Time> = document.times.into_iter().collect();
        if let Some(days) = document.maximum_age_days.as_ref().filter(|_| !times.contains(&Time::Stamp)) {
            let reason =
                "needs \"stamp\" in `times`: a cosignature proves that an entry is old, never that it is new";
            return Err(wrong(days.span(), "maximum_age_days", reason));
        }
        let of_logs: Vec<Value> =
            log_policy.logs().iter().map(|log| log_in_root(&log.key, log.url.as_deref())).collect();
        let mut root = trust_root(&of_logs);
        if let Some(name) = &document.trusted_root {
            let given: Value = serde_json::from_str(&source.file(&name.get_ref().0)?)
                .map_err(|error| wrong(name.span(), "trusted_root", &format!("is not JSON: {error}")))?;
            add_authorities(&mut root, &given);
        }
        let profiles = document.profiles.unwrap_or_else(|| vec![Profile::Release]).into_iter().collect();
        Ok(Policy {
            image: document.image.0,
            profiles,
            minimum_version: document.minimum_version,
            maximum_age: document.maximum_age_days.map(|days| u64::from(days.into_inner()) * 86_400),
            times,
            builders: document.builders.into_inner().into_iter().map(|builder| builder.0).collect(),
            rebuilders,
            logs,
            log_policy,
            reference_values: document.reference_values,
            identities,
            deny: document.deny.map(Spanned::into_inner).unwrap_or_default(),
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
    /// Whether a trusted stamp says when it was made: the time at which a log took it, or a time stamp.
    pub stamped: bool,
    /// The checkpoints that prove its entries.
    pub checkpoints: Vec<Checkpoint>,
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
        self.logged(&checked, payload).map(Verified::by_its_judge)
    }

    /// The policy's logs that hold the bundle's entry, and when it was signed.
    fn logged(&self, checked: &Verified<Checked>, payload: Vec<u8>) -> Result<Signed, String> {
        let mut logs = BTreeMap::new();
        let mut checkpoints = Vec::new();
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
                    checkpoints.push(accepted.checkpoint().clone());
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
        let stamps: Vec<u64> = match self.times.contains(&Time::Stamp) {
            true => checked.times().iter().filter_map(|time| u64::try_from(*time).ok()).collect(),
            false => Vec::new(),
        };
        let stamped = !stamps.is_empty();
        Ok(Signed { payload, logs, time: times.into_iter().chain(stamps).min(), stamped, checkpoints })
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
times = ["witness", "stamp"]
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
        assert_eq!(policy.profiles, BTreeSet::from([Profile::Release]));
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
            ("key = \"one.pub\"\n", "key = \"one.pub\"\nissuer = \"urn:x\"\n", "need a key"),
            ("name = \"two\"", "name = \"one\"", "twice"),
            ("[\"https://example.org/b\"]", "[]", "builders is empty"),
            ("times = [\"witness\", \"stamp\"]", "", "line 6: the policy's maximum_age_days needs \"stamp\""),
            ("\"stamp\"]", "]", "line 6: the policy's maximum_age_days needs \"stamp\""),
            ("\"stamp\"]", "\"sundial\"]", "malformed"),
            ("\"minimal\"", "\"\"", "malformed"),
            ("\"minimal\"", "\" minimal\"", "malformed"),
            ("https://example.org/b", "example.org/b", "malformed"),
            ("https://id.example.org", "id", "malformed"),
            ("image =", "profiles = [\"Release\"]\nimage =", "malformed"),
            ("image =", "minimum_version = \"one two\"\nimage =", "malformed"),
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

    #[test]
    fn what_a_policy_denies_is_of_its_type_or_refused() {
        let digest = "ab".repeat(32);
        for kind in ["images", "statements", "keys"] {
            for value in
                [format!("sha256:{digest}"), digest[1..].to_owned(), format!("{digest} "), "x".repeat(64)]
            {
                let error =
                    Policy::parse(&format!("{GOOD}[deny]\n{kind} = [\"{value}\"]\n"), &read).unwrap_err();
                let Error::Shape(error) = error else { panic!("{error}") };
                let text = error.to_string();
                assert!(text.contains("line 16") && text.contains("64 hexadecimal digits"), "{text}");
            }
        }
        for deny in ["[deny]\nversions = [\"\"]", "[deny]\nversions = [\"1 2\"]", "[deny]\nimage = []"] {
            assert!(
                matches!(Policy::parse(&format!("{GOOD}{deny}\n"), &read), Err(Error::Shape(_))),
                "{deny}"
            );
        }
        let deny = format!("{GOOD}[deny]\nimages = [\"{}\"]\nversions = [\"1-0\"]\n", digest.to_uppercase());
        let deny = Policy::parse(&deny, &read).unwrap().deny;
        assert!(deny.image(&digest) && deny.image("nonsense") && !deny.image(&"0".repeat(64)));
        assert!(deny.version("1") && deny.version("0:1-00") && deny.version("not a version"));
        assert!(!deny.version("1.0"));
        assert!(!Deny::default().image("nonsense") && !Deny::default().version("not a version"));
    }

    #[test]
    fn a_list_instead_of_a_table_is_refused() {
        for (from, to, part) in [
            (
                "format = 1",
                "deny = [[], [], [], [\"1\"]]\nformat = 1",
                "line 2: the policy's deny is not a table",
            ),
            (
                &GOOD[GOOD.find("[[").unwrap()..],
                "identities = [[\"one\", \"one.pub\"]]",
                "line 8: the policy's identities are not",
            ),
            (
                &GOOD[GOOD.find("[[").unwrap()..],
                "identities = [\n  [\"two\", \"one.pub\", \"x\", \"urn:x\"]]",
                "line 9: the policy's identities are not tables",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let error = Policy::parse(&text, &read).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
