//! Yields the bytes that a log holds for a signed envelope: digest, signature, and key or certificate.
//!
//! # Shape
//! ```json
//! {"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{
//!   "data":{"algorithm":"SHA2_256","digest":"<SHA-256 of what was signed, base64>"},
//!   "signature":{"content":"<signature, base64>","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256",
//!     "publicKey":{"rawBytes":"<DER, base64>"}  or  "x509Certificate":{"rawBytes":"<DER, base64>"}}}}}}
//! ```
//! in canonical JSON: names sorted, no white space. For a DSSE envelope, what was signed is its PAE.
//!
//! # Source
//! Rekor v2 (`rekor-tiles`), `hashedrekord` 0.0.2; RFC 8785. Byte for byte what a real Rekor v2 wrote.
//!
//! # Not here
//! The entry kinds of Rekor v1, which `bundle` judges.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The longest entry that is read, in bytes: the most that an entry bundle can hold.
pub const MOST_BYTES: usize = 65535;
/// The only kind of key that is written: ECDSA P-256 with SHA-256.
pub const KEY_DETAILS: &str = "PKIX_ECDSA_P256_SHA_256";

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not JSON of this shape.
    #[error("the entry is not a hashedrekord 0.0.2")]
    Shape(#[source] serde_json::Error),
    /// A member has an unexpected value.
    #[error("the entry's {field} is {found:?}, expected {expected:?}")]
    Field {
        /// Which member.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A member is not base64 of the right length, or the entry does not have exactly one key or certificate.
    #[error("the entry's {field} is malformed")]
    Malformed {
        /// Which member.
        field: &'static str,
    },
    /// The text is not canonical, so the leaf hash would differ.
    #[error("the entry is not in canonical JSON")]
    NotCanonical,
}

/// What verifies a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verifier {
    /// A public key, DER.
    Key(Vec<u8>),
    /// A certificate, DER.
    Certificate(Vec<u8>),
}

/// What a log holds for a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// SHA-256 of what was signed.
    pub digest: [u8; 32],
    /// The signature, DER for ECDSA.
    pub signature: Vec<u8>,
    /// The kind of key, as protobuf-specs names it.
    pub key_details: String,
    /// What verifies the signature.
    pub verifier: Verifier,
}

// Members are in canonical order: sorted by name.

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    api_version: String,
    kind: String,
    spec: Spec,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(rename = "hashedRekordV002")]
    record: Record,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    data: Data,
    signature: Signed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    algorithm: String,
    digest: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    content: String,
    verifier: Who,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Who {
    key_details: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<Raw>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x509_certificate: Option<Raw>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    raw_bytes: String,
}

const ALGORITHM: &str = "SHA2_256";
const VERSION: &str = "0.0.2";
const KIND: &str = "hashedrekord";

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// Why the bytes are not an entry.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let body: Body = serde_json::from_slice(bytes).map_err(Error::Shape)?;
        let must = |field, found: &str, expected| {
            if found == expected {
                Ok(())
            } else {
                Err(Error::Field { field, found: found.to_owned(), expected })
            }
        };
        must("apiVersion", &body.api_version, VERSION)?;
        must("kind", &body.kind, KIND)?;
        let Record { data, signature } = body.spec.record;
        must("data.algorithm", &data.algorithm, ALGORITHM)?;
        let decode = |field, text: &str| STANDARD.decode(text).map_err(|_| Error::Malformed { field });
        let digest = decode("data.digest", &data.digest)?;
        let verifier = match (signature.verifier.public_key, signature.verifier.x509_certificate) {
            (Some(key), None) => Verifier::Key(decode("publicKey", &key.raw_bytes)?),
            (None, Some(certificate)) => {
                Verifier::Certificate(decode("x509Certificate", &certificate.raw_bytes)?)
            }
            _ => return Err(Error::Malformed { field: "verifier" }),
        };
        let entry = Entry {
            digest: digest.try_into().map_err(|_| Error::Malformed { field: "data.digest" })?,
            signature: decode("signature.content", &signature.content)?,
            key_details: signature.verifier.key_details,
            verifier,
        };
        if entry.to_bytes() == bytes { Ok(entry) } else { Err(Error::NotCanonical) }
    }

    /// The canonical text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let raw = |bytes: &[u8]| Some(Raw { raw_bytes: STANDARD.encode(bytes) });
        let (public_key, x509_certificate) = match &self.verifier {
            Verifier::Key(key) => (raw(key), None),
            Verifier::Certificate(certificate) => (None, raw(certificate)),
        };
        let body = Body {
            api_version: VERSION.to_owned(),
            kind: KIND.to_owned(),
            spec: Spec {
                record: Record {
                    data: Data { algorithm: ALGORITHM.to_owned(), digest: STANDARD.encode(self.digest) },
                    signature: Signed {
                        content: STANDARD.encode(&self.signature),
                        verifier: Who { key_details: self.key_details.clone(), public_key, x509_certificate },
                    },
                },
            },
        };
        // The body holds only strings, so serialization cannot fail.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::tests::vectors;
    use super::super::tile::{Kind, Name, Source, tests::Folder};
    use super::*;

    fn entry() -> Entry {
        Entry {
            digest: [7; 32],
            signature: vec![1, 2, 3],
            key_details: KEY_DETAILS.to_owned(),
            verifier: Verifier::Key(vec![4, 5]),
        }
    }

    #[test]
    fn an_entry_is_written_and_read() {
        let mut entry = entry();
        for verifier in [Verifier::Key(vec![4, 5]), Verifier::Certificate(vec![6])] {
            entry.verifier = verifier;
            assert_eq!(Entry::parse(&entry.to_bytes()).unwrap(), entry);
        }
    }

    #[test]
    fn the_entries_of_a_real_rekor_are_read_and_written_byte_for_byte() {
        let Some(folder) = vectors("sigstore/recorded-local/rekor-v2/store") else { return };
        let name = Name::in_tree(Kind::Entries, 0, 31).unwrap();
        let bundle = Folder(folder).tile(&name).unwrap();
        for bytes in name.entries(&bundle).unwrap() {
            assert_eq!(Entry::parse(bytes).unwrap().to_bytes(), bytes);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let text = String::from_utf8(entry().to_bytes()).unwrap();
        for (from, to) in [
            ("0.0.2", "0.0.1"),
            ("hashedrekord\"", "dsse\""),
            ("SHA2_256\"", "SHA2_512\""),
            ("{\"apiVersion\"", "{ \"apiVersion\""),
            ("\"publicKey\":{\"rawBytes\":\"BAU=\"}", "\"publicKey\":null"),
            ("\"publicKey\":", "\"x509Certificate\":{\"rawBytes\":\"BAU=\"},\"publicKey\":"),
            ("BwcH", "!!!!"),
            ("\"digest\":\"BwcH", "\"digest\":\""),
            ("AQID", "AQI!"),
            ("\"content\"", "\"more\":1,\"content\""),
        ] {
            let forged = text.replacen(from, to, 1);
            assert_ne!(forged, text, "{from}");
            assert!(Entry::parse(forged.as_bytes()).is_err(), "{forged}");
        }
        for length in 0..text.len() {
            assert!(Entry::parse(&text.as_bytes()[..length]).is_err());
        }
    }
}
