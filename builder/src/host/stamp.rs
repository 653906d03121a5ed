//! Yields an authority's time stamp on a signature.
//!
//! # Shape
//! ```text
//! POST <address>   TimeStampReq ::= SEQUENCE { version 1, messageImprint { SHA-256, digest of the signature }, certReq TRUE }
//! answer           TimeStampResp, as sigstore bundles carry it
//! ```
//! There is no nonce: an older stamp on the same signature proves more, not less.
//!
//! # Source
//! RFC 3161 §2.4.1, §3.4.
//!
//! # Not here
//! Whether the stamp is valid: `trust::bundle` verifies it with its bundle.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::tlog::Error;
use super::tlog::web::Server;

/// DER before the digest: the sequence, version 1, SHA-256 with a NULL parameter.
const BEFORE: &[u8] =
    b"\x30\x39\x02\x01\x01\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
/// DER after the digest: asks for the authority's certificate in the answer.
const AFTER: &[u8] = b"\x01\x01\xff";

/// Returns the request for a stamp on a signature.
fn request(signature: &[u8]) -> Vec<u8> {
    [BEFORE, &Sha256::digest(signature), AFTER].concat()
}

/// Asks an authority for a stamp on a signature.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::Status`], [`Error::Malformed`].
pub fn stamp(address: &str, signature: &[u8], patience: Duration) -> Result<Vec<u8>, Error> {
    let server = Server::new(address, patience);
    let answer = server.post("", "application/timestamp-query", &request(signature))?;
    match answer.status {
        200 | 201 if answer.body.first() == Some(&0x30) => Ok(answer.body),
        200 | 201 => Err(Error::Malformed { url: server.url(""), reason: "no DER".to_owned() }),
        _ => Err(server.refused("", &answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tlog::serve::Response;
    use super::super::tlog::serve::tests::served;
    use super::*;

    #[test]
    fn a_request_is_der_of_the_length_that_it_says() {
        let request = request(b"signature");
        assert_eq!(request.len(), 2 + usize::from(request[1]));
        assert_eq!(request[6] as usize, 13 + 2 + 2 + 32);
    }

    #[test]
    fn an_authority_is_asked_and_a_refusal_told() {
        let expected = request(b"signature");
        let address = served(move |asked| {
            assert_eq!((asked.method.as_str(), asked.body), ("POST", expected.clone()));
            Response { status: 200, kind: "application/timestamp-reply", body: b"\x30\x00".to_vec() }
        });
        assert_eq!(stamp(&address, b"signature", Duration::from_secs(5)).unwrap(), b"\x30\x00");
        for (status, body) in [(400, b"\x30\x00".to_vec()), (200, b"no".to_vec())] {
            let address = served(move |_| Response { status, kind: "text/plain", body: body.clone() });
            assert!(stamp(&address, b"signature", Duration::from_secs(5)).is_err());
        }
    }
}
