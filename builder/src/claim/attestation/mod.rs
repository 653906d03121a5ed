//! Yields what a registry attests of an npm package, from the document that it serves beside the package.
//!
//! # Shape
//! ```text
//! {"attestations": [{"predicateType", "bundle"}, …]}
//! bundle.dsseEnvelope.payload (base64) = in-toto statement: subject [{name: pkg:npm/NAME@VERSION, digest: {sha512}}]
//! ```
//! Every attestation must be about the package: its name, its version, the digest of its tarball. What is read here is
//! bound to the package, and not yet believed: the signatures are judged by whoever has the keys.
//!
//! # Source
//! npm registry, `GET /-/npm/v1/attestations/NAME@VERSION`; in-toto Statement v0.1 and v1; Sigstore bundle v0.1 to v0.3.
//!
//! # Not here
//! Signatures and logs: `claim::bundle`.

use std::collections::BTreeMap;

use base64::Engine;
use serde::Deserialize;
use serde_json::Value;

/// The longest document that is read, in bytes; real ones have 20 to 60 KiB.
pub const MOST_BYTES: u64 = 8 << 20;

/// Why a document does not attest a package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no such document.
    #[error("not a document of attestations")]
    Json(#[source] serde_json::Error),
    /// It holds none.
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
        /// What it names.
        found: String,
    },
}

/// One attestation of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// What is attested, as `https://slsa.dev/provenance/v1`.
    pub predicate_type: String,
    /// The Sigstore bundle: the JSON that was served, its fields in the order of their names.
    pub bundle: String,
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
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

#[derive(Deserialize)]
struct Statement {
    #[serde(default)]
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

/// Reads what is attested of a package; `sha512` is the digest of its tarball, in hexadecimal.
///
/// # Errors
/// [`Error`] when a part cannot be read, or is about something else.
pub fn read(document: &[u8], name: &str, version: &str, sha512: &str) -> Result<Vec<Attestation>, Error> {
    let document: Document = serde_json::from_slice(document).map_err(Error::Json)?;
    if document.attestations.is_empty() {
        return Err(Error::Empty);
    }
    let purl = crate::claim::sbom::npm_purl(name, version);
    let mut all = Vec::new();
    for (number, entry) in (1..).zip(document.attestations) {
        let wrong = |what| Error::Payload { number, what };
        let bundle = Bundle::deserialize(&entry.bundle).map_err(|_| wrong("the bundle"))?;
        let payload = base64::engine::general_purpose::STANDARD
            .decode(&bundle.dsse_envelope.payload)
            .map_err(|_| wrong("the payload's base64"))?;
        let statement: Statement = serde_json::from_slice(&payload).map_err(|_| wrong("the statement"))?;
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
        all.push(Attestation { predicate_type: entry.predicate_type, bundle: entry.bundle.to_string() });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, sha512: &str) -> String {
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"{name}","digest":{{"sha512":"{sha512}"}}}}]}}"#
        );
        let payload = base64::engine::general_purpose::STANDARD.encode(statement);
        format!(
            r#"{{"attestations":[{{"predicateType":"https://slsa.dev/provenance/v1",
               "bundle":{{"mediaType":"x","dsseEnvelope":{{"payload":"{payload}","signatures":[]}}}}}}]}}"#
        )
    }

    #[test]
    fn what_is_attested_is_bound_to_name_version_and_digest() {
        let text = document("pkg:npm/%40s/d@1.0.0", "ABCD");
        let read_as = |name, version, digest| read(text.as_bytes(), name, version, digest);
        let all = read_as("@s/d", "1.0.0", "abcd").unwrap();
        assert_eq!(all[0].predicate_type, "https://slsa.dev/provenance/v1");
        assert!(all[0].bundle.ends_with(r#""mediaType":"x"}"#));
        for (name, version, digest) in
            [("@s/e", "1.0.0", "abcd"), ("@s/d", "1.0.1", "abcd"), ("@s/d", "1.0.0", "abce")]
        {
            assert!(matches!(read_as(name, version, digest), Err(Error::OtherSubject { number: 1, .. })));
        }
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let refused = |text: &str| read(text.as_bytes(), "a", "1", "00").unwrap_err();
        assert!(matches!(refused(""), Error::Json(_)));
        assert!(matches!(refused("{}"), Error::Json(_)));
        assert!(matches!(refused(r#"{"attestations":[]}"#), Error::Empty));
        let with = |bundle: &str| {
            refused(&format!(r#"{{"attestations":[{{"predicateType":"x","bundle":{bundle}}}]}}"#))
        };
        assert!(matches!(with("{}"), Error::Payload { what: "the bundle", .. }));
        assert!(matches!(
            with(r#"{"dsseEnvelope":{"payload":"!"}}"#),
            Error::Payload { what: "the payload's base64", .. }
        ));
        assert!(matches!(
            with(r#"{"dsseEnvelope":{"payload":"AAAA"}}"#),
            Error::Payload { what: "the statement", .. }
        ));
        assert!(matches!(with(r#"{"dsseEnvelope":{"payload":"e30="}}"#), Error::OtherSubject { .. }));
    }
}
