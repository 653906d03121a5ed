//! Yields a text signed by named keys, and verifies or makes such signatures.
//!
//! # Shape
//! ```text
//! text, which ends in a newline
//! <empty line>
//! — <key name> base64(key ID: 4 bytes || signature)       one or more
//!
//! verifier key   <name>+<key ID: 8 hex digits>+base64(type: 1 byte || key)
//! signing key    PRIVATE+KEY+<name>+<key ID>+base64(type || seed: 32 bytes)
//! key ID         first 4 bytes of SHA-256(name || 0x0a || type || key); of SHA-256(key) for type 2
//! type           1 Ed25519 over the text; 2 ECDSA P-256 over the text, key in DER; 4 Ed25519 cosignature
//! ```
//!
//! # Source
//! C2SP `signed-note`; the signing key's text is that of `golang.org/x/mod/sumdb/note`, which Tessera reads.
//!
//! # Not here
//! The message of type 4: `cosignature`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use sha2::{Digest, Sha256};

/// The longest note that is read, in bytes: 100 signatures of the largest kind fit.
pub const MOST_BYTES: usize = 1 << 20;
/// The most signatures in one note.
pub const MOST_SIGNATURES: usize = 100;
/// The start of a signature line: an em dash and a space.
const MARK: &str = "\u{2014} ";

/// Why a note or key cannot be read, or a signature is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The note breaks the format.
    #[error("malformed note: {reason}")]
    Note {
        /// What is wrong with it.
        reason: String,
    },
    /// The key breaks the format.
    #[error("malformed key {name:?}: {reason}")]
    Key {
        /// The text up to the first `+`.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The note has no signature by the key.
    #[error("no signature by {name}+{id}", id = hex::encode(id))]
    Unsigned {
        /// The key's name.
        name: String,
        /// The key's ID.
        id: [u8; 4],
    },
    /// A signature under the key's name and ID was not made by the key.
    #[error("signature of {name}+{id} is invalid", id = hex::encode(id))]
    Invalid {
        /// The key's name.
        name: String,
        /// The key's ID.
        id: [u8; 4],
    },
}

/// One signature of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The claimed signer's name.
    pub name: String,
    /// The claimed key's ID.
    pub id: [u8; 4],
    /// The signature itself, in a format that depends on the key's type.
    pub bytes: Vec<u8>,
}

impl Signature {
    /// Writes the signature's line, with its newline.
    pub fn to_line(&self) -> String {
        let mut bytes = self.id.to_vec();
        bytes.extend_from_slice(&self.bytes);
        format!("{MARK}{} {}\n", self.name, STANDARD.encode(bytes))
    }

    /// Reads a line, without its newline.
    ///
    /// # Errors
    /// [`Error::Note`].
    pub fn from_line(line: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Note { reason: reason.to_owned() };
        let rest = line.strip_prefix(MARK).ok_or_else(|| wrong("a signature line without an em dash"))?;
        let (name, text) =
            rest.split_once(' ').ok_or_else(|| wrong("a signature line without a signature"))?;
        if !is_name(name) {
            return Err(wrong("a signature line without a valid name"));
        }
        let bytes = STANDARD.decode(text).map_err(|_| wrong("a signature that is not base64"))?;
        match bytes.split_first_chunk() {
            Some((id, rest)) if !rest.is_empty() => {
                Ok(Signature { name: name.to_owned(), id: *id, bytes: rest.to_vec() })
            }
            _ => Err(wrong("a signature of less than 5 bytes")),
        }
    }
}

/// Whether a text is a valid key name.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '+')
}

/// A text and its signatures, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// [`Error::Note`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Note { reason };
        if bytes.len() > MOST_BYTES {
            return Err(wrong(format!("{} bytes, expected at most {MOST_BYTES}", bytes.len())));
        }
        let whole = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        if let Some(at) = whole.bytes().position(|byte| byte < 0x20 && byte != b'\n') {
            return Err(wrong(format!("a control character at offset {at}")));
        }
        let split = whole.rfind("\n\n").ok_or_else(|| wrong("no empty line before signatures".to_owned()))?;
        let (text, rest) = (whole.get(..split + 1), whole.get(split + 2..));
        let (Some(text), Some(rest)) = (text, rest) else {
            return Err(wrong("no signatures".to_owned()));
        };
        let rest = rest.strip_suffix('\n').ok_or_else(|| wrong("the last line has no newline".to_owned()))?;
        let mut signatures = Vec::new();
        for line in rest.split('\n') {
            if signatures.len() == MOST_SIGNATURES {
                return Err(wrong(format!("more than {MOST_SIGNATURES} signatures")));
            }
            signatures.push(Signature::from_line(line)?);
        }
        Ok(Note { text: text.to_owned(), signatures })
    }

    /// Creates a note without signatures.
    ///
    /// # Errors
    /// [`Error::Note`] when the text is not valid in a note.
    pub fn new(text: String) -> Result<Self, Error> {
        let fits = text.ends_with('\n') && !text.bytes().any(|byte| byte < 0x20 && byte != b'\n');
        if !fits {
            return Err(Error::Note {
                reason: "a text with control characters or without a final newline".to_owned(),
            });
        }
        Ok(Note { text, signatures: Vec::new() })
    }

    /// The text, with its last newline. Do not trust it before a signature is verified.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, in the note's order.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature, unless the note already has it.
    pub fn add(&mut self, signature: Signature) {
        if !self.signatures.contains(&signature) {
            self.signatures.push(signature);
        }
    }

    /// The signatures under a key's name and ID.
    ///
    /// # Errors
    /// [`Error::Unsigned`] when there is none.
    pub fn by<'a>(&'a self, key: &VerifierKey) -> Result<Vec<&'a Signature>, Error> {
        let found: Vec<_> = self
            .signatures
            .iter()
            .filter(|signature| signature.name == key.name && signature.id == key.id)
            .collect();
        if found.is_empty() {
            return Err(Error::Unsigned { name: key.name.clone(), id: key.id });
        }
        Ok(found)
    }

    /// Checks that a key signed the text. Every signature under its name and ID must be valid.
    ///
    /// # Errors
    /// [`Error::Unsigned`], [`Error::Invalid`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(), Error> {
        for signature in self.by(key)? {
            if !key.signed(self.text.as_bytes(), &signature.bytes) {
                return Err(Error::Invalid { name: key.name.clone(), id: key.id });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| out.write_str(&signature.to_line()))
    }
}

/// A key's algorithm and public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// Ed25519 over the text, for logs.
    Ed25519(ed25519_dalek::VerifyingKey),
    /// ECDSA P-256 with SHA-256 over the text, with the signature in DER, for Rekor v1.
    Ecdsa(p256::ecdsa::VerifyingKey),
    /// Ed25519 over a time and the text, for witnesses.
    Cosignature(ed25519_dalek::VerifyingKey),
}

/// DER of an Ed25519 `SubjectPublicKeyInfo` up to the key (RFC 8410, section 4).
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// A public key that verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    material: Material,
}

fn key_id(name: &str, kind: u8, key: &[u8]) -> [u8; 4] {
    let digest: [u8; 32] = match kind {
        2 => Sha256::digest(key).into(),
        _ => Sha256::new().chain_update(name).chain_update([b'\n', kind]).chain_update(key).finalize().into(),
    };
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

impl VerifierKey {
    /// Reads a verifier key.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parts = text.splitn(3, '+');
        let name = parts.next().unwrap_or_default();
        let wrong = |reason| Error::Key { name: name.to_owned(), reason };
        let (Some(id), Some(key)) = (parts.next(), parts.next()) else {
            return Err(wrong("expected name+id+key"));
        };
        if !is_name(name) {
            return Err(wrong("invalid name"));
        }
        let key = STANDARD.decode(key).map_err(|_| wrong("the key is not base64"))?;
        let Some((&kind, bytes)) = key.split_first() else { return Err(wrong("the key is empty")) };
        let mut said = [0; 4];
        hex::decode_to_slice(id, &mut said).map_err(|_| wrong("the ID is not 8 hexadecimal digits"))?;
        let edwards = || {
            let bytes = bytes.try_into().map_err(|_| wrong("an Ed25519 key that is not 32 bytes"))?;
            ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| wrong("not a point on Ed25519"))
        };
        let material = match kind {
            1 => Material::Ed25519(edwards()?),
            2 => {
                use p256::pkcs8::DecodePublicKey;
                let key = p256::ecdsa::VerifyingKey::from_public_key_der(bytes);
                Material::Ecdsa(key.map_err(|_| wrong("not a P-256 key in DER"))?)
            }
            4 => Material::Cosignature(edwards()?),
            _ => return Err(wrong("a type other than 1, 2 and 4")),
        };
        let id = key_id(name, kind, bytes);
        if id != said {
            return Err(wrong("the ID does not belong to name and key"));
        }
        Ok(VerifierKey { name: name.to_owned(), id, material })
    }

    /// Creates a verifier key.
    ///
    /// # Errors
    /// [`Error::Key`] when the name is invalid.
    pub fn new(name: &str, material: Material) -> Result<Self, Error> {
        if !is_name(name) {
            return Err(Error::Key { name: name.to_owned(), reason: "invalid name" });
        }
        let mut key = VerifierKey { name: name.to_owned(), id: [0; 4], material };
        key.id = key_id(name, key.kind(), &key.bytes());
        Ok(key)
    }

    /// Creates a log's key from DER `SubjectPublicKeyInfo`; `None` when it is neither Ed25519 nor P-256, or the name is invalid.
    pub fn from_der(name: &str, der: &[u8]) -> Option<Self> {
        use p256::pkcs8::DecodePublicKey;
        let edwards = der.strip_prefix(ED25519).and_then(|key| key.try_into().ok());
        let edwards = edwards.and_then(|key| ed25519_dalek::VerifyingKey::from_bytes(key).ok());
        let material = edwards
            .map(Material::Ed25519)
            .or_else(|| p256::ecdsa::VerifyingKey::from_public_key_der(der).ok().map(Material::Ecdsa))?;
        VerifierKey::new(name, material).ok()
    }

    /// The public key as DER `SubjectPublicKeyInfo`.
    pub fn der(&self) -> Vec<u8> {
        match self.material {
            Material::Ecdsa(_) => self.bytes(),
            Material::Ed25519(_) | Material::Cosignature(_) => [ED25519, &self.bytes()].concat(),
        }
    }

    /// The key's name; for a log, its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's ID.
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// The key's algorithm and public key.
    pub fn material(&self) -> &Material {
        &self.material
    }

    fn kind(&self) -> u8 {
        match self.material {
            Material::Ed25519(_) => 1,
            Material::Ecdsa(_) => 2,
            Material::Cosignature(_) => 4,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match &self.material {
            Material::Ed25519(key) | Material::Cosignature(key) => key.as_bytes().to_vec(),
            Material::Ecdsa(key) => {
                use p256::pkcs8::EncodePublicKey;
                key.to_public_key_der().map(|der| der.as_bytes().to_vec()).unwrap_or_default()
            }
        }
    }

    /// The public key's bytes: equal for equal keys, whatever their names.
    pub fn identity(&self) -> Vec<u8> {
        self.bytes()
    }

    /// Whether this key made `signature` over a note's text; `false` for a witness's key, which signs more.
    fn signed(&self, text: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(text, &signature).is_ok()),
            Material::Ecdsa(key) => {
                use p256::ecdsa::signature::Verifier;
                p256::ecdsa::Signature::from_der(signature)
                    .is_ok_and(|signature| key.verify(text, &signature).is_ok())
            }
            Material::Cosignature(_) => false,
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.kind()];
        key.extend_from_slice(&self.bytes());
        write!(out, "{}+{}+{}", self.name, hex::encode(self.id), STANDARD.encode(key))
    }
}

/// The use of a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Signs checkpoints of its own log.
    Log,
    /// Cosigns checkpoints of other logs.
    Witness,
}

/// A private key that signs.
pub struct SigningKey {
    public: VerifierKey,
    role: Role,
    key: ed25519_dalek::SigningKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SigningKey({})", self.public)
    }
}

/// The start of a signing key's text.
const PRIVATE: &str = "PRIVATE+KEY+";

impl SigningKey {
    /// Creates a key from its seed.
    ///
    /// # Errors
    /// [`Error::Key`] when the name is invalid.
    pub fn new(name: &str, role: Role, seed: &[u8; 32]) -> Result<Self, Error> {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let material = match role {
            Role::Log => Material::Ed25519(key.verifying_key()),
            Role::Witness => Material::Cosignature(key.verifying_key()),
        };
        Ok(SigningKey { public: VerifierKey::new(name, material)?, role, key })
    }

    /// Reads a signing key, which may end with a newline.
    ///
    /// # Errors
    /// [`Error::Key`], which reveals nothing of the key except its name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let unnamed = |reason| Error::Key { name: String::new(), reason };
        let rest = text.strip_prefix(PRIVATE).ok_or_else(|| unnamed("expected PRIVATE+KEY+name+id+key"))?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unnamed("expected PRIVATE+KEY+name+id+key"));
        };
        let wrong = |reason| Error::Key { name: name.to_owned(), reason };
        let key = STANDARD.decode(key).map_err(|_| wrong("the key is not base64"))?;
        let (role, seed) = match key.split_first() {
            Some((1, seed)) => (Role::Log, seed),
            Some((4, seed)) => (Role::Witness, seed),
            _ => return Err(wrong("a type other than 1 and 4")),
        };
        let seed = seed.try_into().map_err(|_| wrong("a seed that is not 32 bytes"))?;
        let made = Self::new(name, role, seed)?;
        if hex::encode(made.public.id) != id {
            return Err(wrong("the ID does not belong to name and key"));
        }
        Ok(made)
    }

    /// The key's text, which is secret.
    pub fn to_secret_text(&self) -> String {
        let mut key = vec![self.public.kind()];
        key.extend_from_slice(self.key.as_bytes());
        format!("{PRIVATE}{}+{}+{}\n", self.public.name, hex::encode(self.public.id), STANDARD.encode(key))
    }

    /// The public key.
    pub fn public(&self) -> &VerifierKey {
        &self.public
    }

    /// The key's use.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Signs raw bytes.
    pub(super) fn sign_raw(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// Adds a log's signature to a note.
    ///
    /// # Errors
    /// [`Error::Key`] when the key is a witness's.
    pub fn sign(&self, note: &mut Note) -> Result<(), Error> {
        if self.role != Role::Log {
            return Err(Error::Key { name: self.public.name.clone(), reason: "not a log's key" });
        }
        let bytes = self.sign_raw(note.text.as_bytes()).to_vec();
        note.add(Signature { name: self.public.name.clone(), id: self.public.id, bytes });
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// A folder of recorded cases; if they are not on this machine, prints so and gives `None`.
    pub fn vectors(below: &str) -> Option<PathBuf> {
        let folder = std::env::var_os("PROOFMARK_VECTORS")
            .map_or_else(
                || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
                PathBuf::from,
            )
            .join(below);
        if !folder.is_dir() {
            eprintln!("SKIPPED: {} is not there; set PROOFMARK_VECTORS", folder.display());
            return None;
        }
        Some(folder)
    }

    /// The example in the specification of Go's notes.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your \
                        problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUg\
                        YN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_logs_key_is_read_from_the_der_that_it_writes() {
        let key = SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap();
        let key = key.public();
        assert_eq!(VerifierKey::from_der("log.example", &key.der()).as_ref(), Some(key));
        assert_eq!(VerifierKey::from_der("log.example", &key.der()[1..]), None);
        assert_eq!(VerifierKey::from_der("log example", &key.der()), None);
        let p256 = crate::envelope::SigningKey::from_seed(&[1; 32]).unwrap().public().der().unwrap();
        assert_eq!(VerifierKey::from_der("log.example", &p256).unwrap().der(), p256);
    }

    #[test]
    fn a_note_is_read_verified_and_written_as_it_was() {
        let key = VerifierKey::parse(KEY).unwrap();
        assert_eq!(key.to_string(), KEY);
        let note = Note::parse(NOTE.as_bytes()).unwrap();
        note.verify(&key).unwrap();
        assert_eq!(note.to_string(), NOTE);
        let forged = NOTE.replace("answer", "question");
        let error = Note::parse(forged.as_bytes()).unwrap().verify(&key).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }

    #[test]
    fn a_signed_note_verifies_by_its_own_key_only() {
        let key = SigningKey::new("log.example/a", Role::Log, &[1; 32]).unwrap();
        let again = SigningKey::parse(&key.to_secret_text()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(VerifierKey::parse(&key.public().to_string()).unwrap(), *key.public());
        let mut note = Note::new("a\n\nb\n".to_owned()).unwrap();
        key.sign(&mut note).unwrap();
        key.sign(&mut note).unwrap();
        assert_eq!(note.signatures().len(), 1);
        let note = Note::parse(note.to_string().as_bytes()).unwrap();
        assert_eq!(note.text(), "a\n\nb\n");
        note.verify(key.public()).unwrap();
        for other in [
            SigningKey::new("log.example/a", Role::Log, &[2; 32]).unwrap(),
            SigningKey::new("log.example/b", Role::Log, &[1; 32]).unwrap(),
            SigningKey::new("log.example/a", Role::Witness, &[1; 32]).unwrap(),
        ] {
            assert!(matches!(note.verify(other.public()), Err(Error::Unsigned { .. })));
        }
        let witness = SigningKey::new("log.example/a", Role::Witness, &[1; 32]).unwrap();
        assert!(matches!(witness.sign(&mut note.clone()), Err(Error::Key { .. })));
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_second_wrong_signature_under_a_known_name_is_refused() {
        let key = SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap();
        let mut note = Note::new("text\n".to_owned()).unwrap();
        key.sign(&mut note).unwrap();
        let mut wrong = note.signatures()[0].clone();
        wrong.bytes[0] ^= 1;
        note.add(wrong);
        assert!(matches!(note.verify(key.public()), Err(Error::Invalid { .. })));
    }

    #[test]
    fn a_malformed_note_is_refused() {
        let line = "\u{2014} name AAAAAAA=\n";
        for (text, part) in [
            (String::new(), "empty line"),
            ("text\n".to_owned(), "empty line"),
            (format!("text\n{line}"), "empty line"),
            ("text\n\n".to_owned(), "newline"),
            (format!("text\n\n{}", line.trim_end()), "newline"),
            (format!("text\n\n{line}more\n"), "em dash"),
            ("text\n\n\u{2014} name\n".to_owned(), "without a signature"),
            ("text\n\n\u{2014} na+me AAAAAAA=\n".to_owned(), "valid name"),
            ("text\n\n\u{2014}  AAAAAAA=\n".to_owned(), "valid name"),
            ("text\n\n\u{2014} name AAAA\n".to_owned(), "less than 5"),
            ("text\n\n\u{2014} name ****\n".to_owned(), "base64"),
            (format!("te\rxt\n\n{line}"), "control character at offset 2"),
            (format!("text\n\n{}", line.repeat(101)), "more than 100"),
        ] {
            let error = Note::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        assert!(Note::parse(b"\xff\n\n").is_err());
        assert!(Note::parse(&vec![b'a'; MOST_BYTES + 1]).is_err());
        assert!(Note::new("no newline".to_owned()).is_err());
        assert!(Note::new("tab\t\n".to_owned()).is_err());
    }

    #[test]
    fn a_malformed_key_is_refused() {
        let edwards = KEY.rsplit_once('+').unwrap().1;
        for (text, part) in [
            (String::new(), "expected name+id+key"),
            ("a+b".to_owned(), "expected name+id+key"),
            (format!("+c74f20a3+{edwards}"), "invalid name"),
            (format!("a b+c74f20a3+{edwards}"), "invalid name"),
            (format!("PeterNeumann+c74f20a4+{edwards}"), "does not belong"),
            (format!("PeterNeumann+c74f20+{edwards}"), "8 hexadecimal"),
            ("PeterNeumann+c74f20a3+".to_owned(), "empty"),
            ("PeterNeumann+c74f20a3+?".to_owned(), "base64"),
            ("PeterNeumann+c74f20a3+AQAA".to_owned(), "32 bytes"),
            ("PeterNeumann+c74f20a3+BgAA".to_owned(), "other than"),
            ("PeterNeumann+c74f20a3+AgAA".to_owned(), "P-256"),
        ] {
            let error = VerifierKey::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let secret = SigningKey::new("log", Role::Log, &[1; 32]).unwrap().to_secret_text();
        for text in ["", "PRIVATE+KEY+log", &secret[1..], &secret.replace("log", "lag"), &secret[..30]] {
            let error = SigningKey::parse(text).unwrap_err().to_string();
            assert!(error.contains("malformed key") && !error.contains("AQEB"), "{error}");
        }
    }
}
