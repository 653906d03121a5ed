//! Yields a signed envelope around a payload, and the sigstore bundle with the envelope and its log entry.
//!
//! # Shape
//! ```text
//! PAE       "DSSEv1 " length " " payload type " " length " " payload          the signed bytes
//! envelope  {"payload": base64, "payloadType": text, "signatures": [{"sig": base64}]}      one signature
//! bundle    {"dsseEnvelope": envelope, "mediaType": v0.3, "verificationMaterial": {
//!             "publicKey": {"hint": text} or "certificate": {"rawBytes": base64},
//!             "tlogEntries": [entry], "timestampVerificationData": {"rfc3161Timestamps": []}}}
//! ```
//! ECDSA P-256 with SHA-256, signature in DER. The nonce comes from key and message (RFC 6979): equal
//! payloads and keys give equal envelopes, so equal log entries.
//!
//! # Source
//! DSSE 1.0.2 (`protocol.md`); sigstore `protobuf-specs`, bundle v0.3; RFC 6979 §3.2.
//!
//! # Not here
//! Where keys come from: `host::signer`. Verifying bundles: `bundle`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::{Signer, Verifier as _};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::transparency::entry::{Entry, KEY_DETAILS, Verifier};

/// The payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The media type of the bundles written here.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Why an envelope or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The envelope breaks the format, or does not have exactly one signature.
    #[error("malformed envelope: {reason}")]
    Envelope {
        /// What is wrong with it.
        reason: String,
    },
    /// The key did not make the signature.
    #[error("the envelope is not signed by the key")]
    Signature,
    /// The text is not a PKCS #8 P-256 private key in PEM.
    #[error("the key is not an ECDSA P-256 key in PKCS #8 PEM")]
    Private,
    /// The input is not a P-256 public key.
    #[error("the public key is not an ECDSA P-256 key")]
    Public,
}

/// Gives the bytes that are signed for a payload: the pre-authentication encoding.
pub fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// An envelope with one signature, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The payload's type.
    pub kind: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The signature over the PAE.
    pub signature: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    sig: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
}

impl Envelope {
    /// Reads an envelope.
    ///
    /// # Errors
    /// [`Error::Envelope`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Envelope { reason };
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        let [signature] = wire.signatures.as_slice() else {
            return Err(wrong(format!("{} signatures, expected one", wire.signatures.len())));
        };
        let decode = |what: &str, text: &str| {
            STANDARD.decode(text).map_err(|_| wrong(format!("{what} is not base64")))
        };
        Ok(Envelope {
            payload: decode("the payload", &wire.payload)?,
            signature: decode("the signature", &signature.sig)?,
            kind: wire.payload_type,
        })
    }

    fn to_value(&self) -> Value {
        json!({
            "payload": STANDARD.encode(&self.payload),
            "payloadType": self.kind,
            "signatures": [{"sig": STANDARD.encode(&self.signature)}],
        })
    }

    /// Writes the envelope's text, which is deterministic.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_value().to_string().into_bytes()
    }

    /// The signed bytes.
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.kind, &self.payload)
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), Error> {
        key.verify(&self.pae(), &self.signature)
    }

    /// The log entry for the envelope.
    pub fn entry(&self, verifier: Verifier) -> Entry {
        Entry {
            digest: Sha256::digest(self.pae()).into(),
            signature: self.signature.clone(),
            key_details: KEY_DETAILS.to_owned(),
            verifier,
        }
    }

    /// Writes a bundle of the envelope, its log entries in protobuf's JSON form (`TransparencyLogEntry`), and
    /// RFC 3161 time stamps on its signature.
    pub fn bundle(&self, verifier: &Verifier, entries: &[Value], stamps: &[Vec<u8>]) -> String {
        let stamps: Vec<Value> =
            stamps.iter().map(|stamp| json!({"signedTimestamp": STANDARD.encode(stamp)})).collect();
        let mut material = json!({
            "tlogEntries": entries,
            "timestampVerificationData": {"rfc3161Timestamps": stamps},
        });
        if let Some(material) = material.as_object_mut() {
            match verifier {
                Verifier::Key(key) => material
                    .insert("publicKey".to_owned(), json!({"hint": STANDARD.encode(Sha256::digest(key))})),
                Verifier::Certificate(der) => {
                    material.insert("certificate".to_owned(), json!({"rawBytes": STANDARD.encode(der)}))
                }
            };
        }
        let bundle = json!({
            "mediaType": BUNDLE,
            "verificationMaterial": material,
            "dsseEnvelope": self.to_value(),
        });
        format!("{bundle}\n")
    }
}

/// A P-256 public key that verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey(p256::ecdsa::VerifyingKey);

impl VerifyingKey {
    /// Reads DER `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`Error::Public`].
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        p256::ecdsa::VerifyingKey::from_public_key_der(der).map(VerifyingKey).map_err(|_| Error::Public)
    }

    /// Reads PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`Error::Public`].
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        p256::ecdsa::VerifyingKey::from_public_key_pem(text).map(VerifyingKey).map_err(|_| Error::Public)
    }

    /// Checks a DER signature over a message.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| Error::Signature)?;
        self.0.verify(message, &signature).map_err(|_| Error::Signature)
    }

    /// Writes DER `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`Error::Public`]; never for a key that was read.
    pub fn der(&self) -> Result<Vec<u8>, Error> {
        Ok(self.0.to_public_key_der().map_err(|_| Error::Public)?.as_bytes().to_vec())
    }

    /// Writes PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`Error::Public`]; never for a key that was read.
    pub fn pem(&self) -> Result<String, Error> {
        self.0.to_public_key_pem(p256::pkcs8::LineEnding::LF).map_err(|_| Error::Public)
    }
}

/// A P-256 private key that signs.
pub struct SigningKey(p256::ecdsa::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// Reads unencrypted PKCS #8 PEM.
    ///
    /// # Errors
    /// [`Error::Private`], which reveals nothing of the key.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        p256::ecdsa::SigningKey::from_pkcs8_pem(text).map(SigningKey).map_err(|_| Error::Private)
    }

    /// Makes a key from 32 random bytes.
    ///
    /// # Errors
    /// [`Error::Private`] when they are not a scalar of the curve: less than once in 2^32.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, Error> {
        p256::ecdsa::SigningKey::from_slice(seed).map(SigningKey).map_err(|_| Error::Private)
    }

    /// Writes PKCS #8 PEM, which is secret.
    ///
    /// # Errors
    /// [`Error::Private`]; never for a key that was read.
    pub fn to_secret_pem(&self) -> Result<String, Error> {
        use p256::pkcs8::EncodePrivateKey;
        let pem = self.0.to_pkcs8_pem(p256::pkcs8::LineEnding::LF).map_err(|_| Error::Private)?;
        Ok(pem.to_string())
    }

    /// The public key.
    pub fn public(&self) -> VerifyingKey {
        VerifyingKey(*self.0.verifying_key())
    }

    /// Signs a message, with the signature in DER.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: p256::ecdsa::Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[3; 32]).unwrap()
    }

    fn signed() -> Envelope {
        let payload = b"{}".to_vec();
        let signature = key().sign(&pae(IN_TOTO, &payload));
        Envelope { kind: IN_TOTO.to_owned(), payload, signature }
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), expected);
    }

    #[test]
    fn equal_payloads_and_keys_give_equal_envelopes() {
        assert_eq!(signed(), signed());
        let again = Envelope::parse(&signed().to_bytes()).unwrap();
        assert_eq!(again, signed());
        again.verify(&key().public()).unwrap();
        let text = key().to_secret_pem().unwrap();
        assert_eq!(SigningKey::from_pem(&text).unwrap().public(), key().public());
        assert_eq!(VerifyingKey::from_pem(&key().public().pem().unwrap()).unwrap(), key().public());
    }

    #[test]
    fn a_forged_envelope_is_refused() {
        let public = key().public();
        let mut forged = signed();
        forged.payload.push(b' ');
        assert!(matches!(forged.verify(&public), Err(Error::Signature)));
        let mut forged = signed();
        forged.kind.push('x');
        assert!(matches!(forged.verify(&public), Err(Error::Signature)));
        for at in 0..signed().signature.len() {
            let mut forged = signed();
            forged.signature[at] ^= 1;
            assert!(matches!(forged.verify(&public), Err(Error::Signature)), "{at}");
        }
        let other = SigningKey::from_seed(&[4; 32]).unwrap().public();
        assert!(matches!(signed().verify(&other), Err(Error::Signature)));
    }

    #[test]
    fn a_malformed_envelope_or_key_is_refused() {
        let text = String::from_utf8(signed().to_bytes()).unwrap();
        let two = text.replacen("\"signatures\":[", "\"signatures\":[{\"sig\":\"AAAA\"},", 1);
        let none = r#"{"payload":"","payloadType":"x","signatures":[]}"#.to_owned();
        for text in [two, none, text.replacen("\"payload\":\"", "\"payload\":\"!", 1), text[1..].to_owned()] {
            assert!(matches!(Envelope::parse(text.as_bytes()), Err(Error::Envelope { .. })), "{text}");
        }
        assert!(matches!(SigningKey::from_pem("x"), Err(Error::Private)));
        assert!(matches!(SigningKey::from_seed(&[0; 32]), Err(Error::Private)));
        assert!(matches!(VerifyingKey::from_der(&[1]), Err(Error::Public)));
        assert!(!format!("{:?}", key()).contains('3'));
    }

    #[test]
    fn a_log_entry_names_the_digest_of_what_was_signed() {
        let envelope = signed();
        let entry = envelope.entry(Verifier::Key(key().public().der().unwrap()));
        assert_eq!(entry.digest, <[u8; 32]>::from(Sha256::digest(envelope.pae())));
        assert_eq!(Entry::parse(&entry.to_bytes()).unwrap(), entry);
    }
}
