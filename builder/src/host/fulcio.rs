//! Yields a certificate for a key that lives as long as this process: keyless, from an identity token.
//!
//! # Shape
//! ```text
//! token   <header>.<claims>.<signature>, base64url; the key signs the claim `email`, else `sub`
//! POST <address>/api/v2/signingCert
//!         {"credentials": {"oidcIdentityToken"},
//!          "publicKeyRequest": {"publicKey": {"algorithm", "content": PEM}, "proofOfPossession": base64 of the signature}}
//! 200     {"signedCertificateEmbeddedSct": {"chain": {"certificates": [PEM of the key's, …]}}}
//! ```
//!
//! # Source
//! `sigstore/fulcio`, `fulcio.proto` (v2, `CreateSigningCertificate`) and `docs/certificate-issuing.md`.
//!
//! # Not here
//! Where the token comes from: CI systems give one to their jobs. Whether the certificate is valid:
//! `trust::bundle` verifies it with its bundle, against a trust root.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::signer::{self, Signer};
use super::tlog as log;
use super::tlog::web::Server;
use crate::trust::bundle::{self, Certificate};
use crate::trust::envelope::{self, SigningKey};

const PATH: &str = "api/v2/signingCert";

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token does not name its subject.
    #[error("the identity token cannot be used: {reason}")]
    Token {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The authority does not answer, or refuses.
    #[error("cannot get a certificate from the authority")]
    Authority(#[from] log::Error),
    /// The answer is not a certificate.
    #[error("the authority's answer holds no usable certificate")]
    Certificate(#[from] bundle::Error),
    /// The certificate is for another key.
    #[error("the authority's certificate is for another key")]
    OtherKey,
    /// A key cannot be made.
    #[error("cannot make a key")]
    Random(#[from] signer::Error),
    /// The key cannot be used.
    #[error("cannot make a key")]
    Key(#[from] envelope::Error),
}

/// Returns a token's subject, over which the authority wants a signature.
fn subject(token: &str) -> Result<String, Error> {
    let wrong = |reason| Error::Token { reason };
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong("expected three parts with dots between them"));
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| wrong("its claims are not base64url"))?;
    let claims: Value = serde_json::from_slice(&claims).map_err(|_| wrong("its claims are not JSON"))?;
    let claim = |name| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let found = claim("email").or_else(|| claim("sub"));
    Ok(found.ok_or(wrong("it has neither an email nor a sub claim"))?.to_owned())
}

/// Makes a key, and has the authority at an address certify it for the token's subject.
///
/// # Errors
/// [`Error`].
pub fn issue(address: &str, token: &str, patience: Duration) -> Result<(Signer, Certificate), Error> {
    let token = token.trim();
    let subject = subject(token)?;
    let key = SigningKey::from_seed(&signer::random()?)?;
    let request = json!({
        "credentials": {"oidcIdentityToken": token},
        "publicKeyRequest": {
            "publicKey": {"algorithm": "ECDSA", "content": key.public().pem()?},
            "proofOfPossession": STANDARD.encode(key.sign(subject.as_bytes())),
        },
    });
    let server = Server::new(address, patience);
    let answer = server.post(PATH, "application/json", request.to_string().as_bytes())?;
    if !matches!(answer.status, 200 | 201) {
        return Err(server.refused(PATH, &answer).into());
    }
    let malformed = |reason: String| log::Error::Malformed { url: server.url(PATH), reason };
    let value: Value = serde_json::from_slice(&answer.body).map_err(|error| malformed(error.to_string()))?;
    // The other form has a detached certificate timestamp, for which bundles have no place.
    let first = value.pointer("/signedCertificateEmbeddedSct/chain/certificates/0").and_then(Value::as_str);
    let first = first.ok_or_else(|| malformed("no certificate with an embedded timestamp".to_owned()))?;
    let certificate = Certificate::from_pem(first)?;
    if certificate.public()? != key.public() {
        return Err(Error::OtherKey);
    }
    Ok((Signer::Key(key), certificate))
}

#[cfg(test)]
mod tests {
    use super::super::tlog::serve::Response;
    use super::super::tlog::serve::tests::served;
    use super::*;

    /// A certificate of a discarded key.
    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBxTCCAWugAwIBAgIUFphCz5h0Ma6e/qQ9VlLPm9RPxhQwCgYIKoZIzj0EAwIw\n\
DDEKMAgGA1UEAwwBeDAgFw0yNjExMjMwOTA4MDRaGA8yMTI2MTAzMDA5MDgwNFow\n\
DDEKMAgGA1UEAwwBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDg07dZL1ThZ\n\
JO4Mt7QJnj3JYaqjMa2uLPouwl9WJVCX/JXEWtujo6hRSTfW167CZXXFdou8u5T7\n\
F+DrJ+vocDSjgagwgaUwHQYDVR0OBBYEFHeoGdb8Ak35dmr+sGhGoNzV4G7PMB8G\n\
A1UdIwQYMBaAFHeoGdb8Ak35dmr+sGhGoNzV4G7PMA8GA1UdEwEB/wQFMAMBAf8w\n\
KgYDVR0RBCMwIYYfaHR0cHM6Ly9idWlsZGVyLmV4YW1wbGUub3JnL29uZTAmBgor\n\
BgEEAYO/MAEIBBgMFmh0dHBzOi8vaWQuZXhhbXBsZS5vcmcwCgYIKoZIzj0EAwID\n\
SAAwRQIhAKgf6RwDHA7mKoMKggCklFecB3nKsFxfVBviaF4tuTfZAiAf9wo4HE4f\n\
e8WQ7YEEf3c/7QtK3elx2sUEB79r1J1+Mg==\n\
-----END CERTIFICATE-----\n";

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_is_about_a_mail_address_or_else_a_subject() {
        assert_eq!(subject(&token(r#"{"sub":"s","email":"a@b.example"}"#)).unwrap(), "a@b.example");
        assert_eq!(subject(&token(r#"{"sub":"repo:a/b","email":""}"#)).unwrap(), "repo:a/b");
        for wrong in ["", "e30", "e30.e30", "e30.e30.e30.e30", "e30.!.e30", "e30.bm8.e30", &token("{}")] {
            assert!(matches!(subject(wrong), Err(Error::Token { .. })), "{wrong}");
        }
    }

    /// Returns the error for an authority that gives this answer.
    fn refused(status: u16, body: &str) -> Error {
        let body = body.as_bytes().to_vec();
        let address = served(move |_| Response { status, kind: "application/json", body: body.clone() });
        issue(&address, &token(r#"{"sub":"s"}"#), Duration::from_secs(5)).unwrap_err()
    }

    #[test]
    fn what_is_no_certificate_of_the_key_is_refused() {
        let denied = refused(401, r#"{"code":16,"message":"expired"}"#);
        assert!(matches!(&denied, Error::Authority(log::Error::Status { status: 401, message, .. })
            if message.contains("expired")));
        let detached = r#"{"signedCertificateDetachedSct":{"chain":{"certificates":["x"]}}}"#;
        for body in ["no", "{}", detached] {
            assert!(matches!(refused(200, body), Error::Authority(log::Error::Malformed { .. })), "{body}");
        }
        let answer = |pem: &str| {
            json!({"signedCertificateEmbeddedSct": {"chain": {"certificates": [pem]}}}).to_string()
        };
        assert!(matches!(refused(200, &answer("x")), Error::Certificate(_)));
        assert!(matches!(refused(200, &answer(CERTIFICATE)), Error::OtherKey));
    }

    #[test]
    fn the_authority_is_given_the_token_and_a_proof_that_the_key_is_here() {
        let address = served(move |asked| {
            let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
            let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let key = envelope::VerifyingKey::from_pem(text("/publicKeyRequest/publicKey/content"));
            let proof = STANDARD.decode(text("/publicKeyRequest/proofOfPossession")).unwrap_or_default();
            let right = asked.path == format!("/{PATH}")
                && text("/credentials/oidcIdentityToken") == token(r#"{"sub":"s"}"#)
                && text("/publicKeyRequest/publicKey/algorithm") == "ECDSA"
                && key.is_ok_and(|key| key.verify(b"s", &proof).is_ok());
            let status = if right { 418 } else { 400 };
            Response { status, kind: "application/json", body: Vec::new() }
        });
        let error = issue(&address, &format!("{}\n", token(r#"{"sub":"s"}"#)), Duration::from_secs(5));
        assert!(
            matches!(error, Err(Error::Authority(log::Error::Status { status: 418, .. }))),
            "the request was not as it should be"
        );
    }
}
