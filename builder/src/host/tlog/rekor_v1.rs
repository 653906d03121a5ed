//! Yields entries of a Rekor v1, proven and with its signed time, from envelopes.
//!
//! # Shape
//! ```text
//! POST /api/v1/log/entries      {"kind": "dsse", "apiVersion": "0.0.1", "spec": {"proposedContent": {envelope, verifiers}}}
//!   201  {uuid: {body, integratedTime, logID, logIndex, verification: {inclusionProof, signedEntryTimestamp}}}
//!   409  Location: where the entry is
//! GET  /api/v1/log              {signedTreeHead, treeID, treeSize, rootHash}
//! GET  /api/v1/log/proof?firstSize&lastSize&treeID      {hashes, rootHash}
//! ```
//!
//! # Source
//! Rekor 1.5 (`openapi.yaml`), `dsse` 0.0.1. Confirmed with recorded answers of a real server.
//!
//! # Not here
//! The search index: it also answers with other people's entries, and finds no `dsse` entry by key.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pem_rfc7468::LineEnding;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::directory::Novelty;
use super::web::{PATIENCE, Server};
use super::{Error, Recorded, Submission, TransparencyLog};
use crate::trust::envelope::Envelope;
use crate::trust::transparency::entry::Verifier;
use crate::trust::transparency::merkle::Hash;
use crate::trust::transparency::note::Note;
use crate::trust::transparency::proof::Proof;
use crate::trust::transparency::tlog_policy::Policy;

/// Path that entries are sent to.
const ENTRIES: &str = "api/v1/log/entries";

/// A Rekor v1 server.
pub struct RekorV1<'a> {
    name: String,
    server: Server,
    policy: &'a Policy,
}

/// Encodes DER as PEM, as Rekor does.
fn pem(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, LineEnding::LF, der).expect("both labels are well-formed")
}

fn verifier_pem(verifier: &Verifier) -> String {
    match verifier {
        Verifier::Key(der) => pem("PUBLIC KEY", der),
        Verifier::Certificate(der) => pem("CERTIFICATE", der),
    }
}

impl<'a> RekorV1<'a> {
    /// Uses the Rekor at an address.
    pub fn new(address: &str, policy: &'a Policy, patience: Option<Duration>) -> Self {
        let server = Server::new(address, patience.unwrap_or(PATIENCE));
        RekorV1 { name: address.to_owned(), server, policy }
    }

    fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { url: self.server.url(ENTRIES), reason: reason.into() }
    }

    fn hash(&self, value: &Value) -> Result<Hash, Error> {
        let mut hash = [0; 32];
        let text = value.as_str().unwrap_or_default();
        hex::decode_to_slice(text, &mut hash).map_err(|_| self.malformed("invalid hash"))?;
        Ok(Hash(hash))
    }

    fn json(&self, bytes: &[u8]) -> Result<Value, Error> {
        serde_json::from_slice(bytes).map_err(|error| self.malformed(error.to_string()))
    }

    /// Returns the proven entry of an answer.
    fn recorded(
        &self,
        answer: &[u8],
        envelope: &Envelope,
        verifier: &Verifier,
        novelty: Novelty,
    ) -> Result<Recorded, Error> {
        let answer = self.json(answer)?;
        let entries = answer.as_object().filter(|entries| entries.len() == 1);
        let found = entries.and_then(|entries| entries.values().next());
        let found = found.ok_or_else(|| self.malformed("expected one entry"))?;
        let need = |pointer: &str| {
            found.pointer(pointer).ok_or_else(|| self.malformed(format!("{pointer} is missing")))
        };
        let text = |pointer: &str| Ok::<_, Error>(need(pointer)?.as_str().unwrap_or_default());
        let number = |pointer: &str| {
            need(pointer)?.as_u64().ok_or_else(|| self.malformed(format!("{pointer} is not a number")))
        };
        let encoded = text("/body")?;
        let body = STANDARD.decode(encoded).map_err(|_| self.malformed("the body is not base64"))?;
        self.is_ours(&body, envelope, verifier)?;
        let inclusion = "/verification/inclusionProof";
        let at = |member: &str| format!("{inclusion}/{member}");
        let hashes = need(&at("hashes"))?.as_array().ok_or_else(|| self.malformed("no hashes"))?;
        let hashes = hashes.iter().map(|hash| self.hash(hash)).collect::<Result<Vec<_>, _>>()?;
        let checkpoint = text(&at("checkpoint"))?;
        let log = || self.name.clone();
        let note = Note::parse(checkpoint.as_bytes()).map_err(|source| Error::Note { log: log(), source })?;
        let proof = Proof { extra: None, index: number(&at("logIndex"))?, hashes, checkpoint: note };
        let accepted =
            proof.verify(&body, self.policy).map_err(|source| Error::Proof { log: log(), source })?;
        let id = self.hash(need("/logID")?)?;
        let state = accepted.checkpoint();
        // The verifier of the whole bundle checks the signed time.
        let entry = json!({
            "logIndex": number("/logIndex")?.to_string(),
            "logId": {"keyId": id.to_base64()},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": number("/integratedTime")?.to_string(),
            "inclusionPromise": {"signedEntryTimestamp": text("/verification/signedEntryTimestamp")?},
            "inclusionProof": {
                "logIndex": proof.index.to_string(),
                "rootHash": state.root().to_base64(),
                "treeSize": state.size().to_string(),
                "hashes": proof.hashes.iter().map(|hash| hash.to_base64()).collect::<Vec<_>>(),
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": encoded,
        });
        Ok(Recorded { entry, body, proof, novelty })
    }

    /// Checks that a body contains our envelope and verifier.
    fn is_ours(&self, body: &[u8], envelope: &Envelope, verifier: &Verifier) -> Result<(), Error> {
        let body = self.json(body)?;
        let must = |pointer: &str, expected: &str| {
            let found = body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            if found == expected {
                return Ok(());
            }
            Err(Error::Other { log: self.name.clone(), reason: format!("{pointer} of its entry differs") })
        };
        must("/kind", "dsse")?;
        must("/apiVersion", "0.0.1")?;
        must("/spec/payloadHash/value", &hex::encode(Sha256::digest(&envelope.payload)))?;
        must("/spec/signatures/0/signature", &STANDARD.encode(&envelope.signature))?;
        must("/spec/signatures/0/verifier", &STANDARD.encode(verifier_pem(verifier)))?;
        match body.pointer("/spec/signatures/1") {
            None => Ok(()),
            Some(_) => Err(Error::Other { log: self.name.clone(), reason: "two signatures".to_owned() }),
        }
    }
}

impl TransparencyLog for RekorV1<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit(&mut self, submission: Submission<'_>) -> Result<Recorded, Error> {
        let Submission { envelope, verifier } = submission;
        let text =
            String::from_utf8(envelope.to_bytes()).map_err(|_| self.malformed("the envelope is not text"))?;
        let request = json!({"kind": "dsse", "apiVersion": "0.0.1", "spec": {"proposedContent": {
            "envelope": text,
            "verifiers": [STANDARD.encode(verifier_pem(verifier))],
        }}});
        let answer = self.server.post(ENTRIES, "application/json", request.to_string().as_bytes())?;
        match (answer.status, &answer.location) {
            (200 | 201, _) => self.recorded(&answer.body, envelope, verifier, Novelty::New),
            (409, Some(location)) => {
                // Only the path, on the same server, whatever the header says.
                let at = location.find("/api/v1/log/entries/").and_then(|at| location.get(at..));
                let path = at.ok_or_else(|| self.malformed("the conflict names no entry"))?;
                self.recorded(&self.server.fetch(path)?, envelope, verifier, Novelty::Known)
            }
            _ => Err(self.server.refused(ENTRIES, &answer)),
        }
    }

    fn checkpoint(&self) -> Result<Note, Error> {
        let answer = self.json(&self.server.fetch("api/v1/log")?)?;
        let text = answer.get("signedTreeHead").and_then(Value::as_str).unwrap_or_default();
        let log = || self.name.clone();
        let note = Note::parse(text.as_bytes()).map_err(|source| Error::Note { log: log(), source })?;
        self.policy.accept(&note).map_err(|source| Error::Policy { log: log(), source })?;
        Ok(note)
    }

    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
        let state = self.json(&self.server.fetch("api/v1/log")?)?;
        let tree = state.get("treeID").and_then(Value::as_str).unwrap_or_default();
        if tree.is_empty() || !tree.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.malformed("no treeID"));
        }
        let path = format!("api/v1/log/proof?firstSize={old}&lastSize={new}&treeID={tree}");
        let answer = self.json(&self.server.fetch(&path)?)?;
        let hashes = answer.get("hashes").and_then(Value::as_array);
        hashes.ok_or_else(|| self.malformed("no hashes"))?.iter().map(|hash| self.hash(hash)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::path::{Path, PathBuf};
    use std::thread;

    use super::super::serve::tests::served;
    use super::super::serve::{Request, Response};
    use super::super::tests::vectors;
    use super::*;
    use crate::trust::transparency::checkpoint::Checkpoint;
    use crate::trust::transparency::merkle;
    use crate::trust::transparency::note::{Material, VerifierKey};

    struct Pair {
        request: Value,
        status: u16,
        location: Option<String>,
        body: Vec<u8>,
    }

    fn recorded(folder: &Path, name: &str) -> Pair {
        let pair: Value =
            serde_json::from_slice(&std::fs::read(folder.join("rekor-v1").join(name)).unwrap()).unwrap();
        Pair {
            body: STANDARD.decode(pair["response"]["body_base64"].as_str().unwrap()).unwrap(),
            status: pair["response"]["status"].as_u64().unwrap() as u16,
            location: pair["response"]["headers"]["Location"].as_str().map(str::to_owned),
            request: pair["request"].clone(),
        }
    }

    struct Lab {
        folder: PathBuf,
        envelope: Envelope,
        verifier: Verifier,
        policy: Policy,
    }

    fn der(pem: &str) -> Vec<u8> {
        let lines: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
        STANDARD.decode(lines).unwrap()
    }

    fn lab() -> Option<Lab> {
        use p256::pkcs8::DecodePublicKey;
        let folder = vectors("sigstore/recorded-local")?;
        let request = recorded(&folder, "02-post-dsse.json").request;
        let request: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
        let content = &request["spec"]["proposedContent"];
        let envelope = Envelope::parse(content["envelope"].as_str().unwrap().as_bytes()).unwrap();
        let key = STANDARD.decode(content["verifiers"][0].as_str().unwrap()).unwrap();
        let verifier = Verifier::Key(der(&String::from_utf8(key).unwrap()));
        let log = String::from_utf8(recorded(&folder, "01-publickey.json").body).unwrap();
        let log = p256::ecdsa::VerifyingKey::from_public_key_der(&der(&log)).unwrap();
        let log = VerifierKey::new("rekor.lab.example", Material::Ecdsa(log)).unwrap();
        let policy = Policy::parse(&format!("log {log}\nquorum none\n")).unwrap();
        Some(Lab { folder, envelope, verifier, policy })
    }

    impl Lab {
        /// Starts a server that gives the recorded answers to the recorded requests.
        fn server(&self, names: &[&str], change: fn(&str, Vec<u8>) -> Vec<u8>) -> String {
            let pairs: Vec<(String, Pair)> =
                names.iter().map(|name| ((*name).to_owned(), recorded(&self.folder, name))).collect();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            thread::spawn(move || {
                // Hand-written, for a header that `served` never sends.
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut text = Vec::new();
                    let mut byte = [0];
                    while !text.ends_with(b"\r\n\r\n")
                        && std::io::Read::read(&mut stream, &mut byte).unwrap() == 1
                    {
                        text.push(byte[0]);
                    }
                    let head = String::from_utf8(text).unwrap();
                    let length = head.lines().find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                    });
                    let mut sent = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                    std::io::Read::read_exact(&mut stream, &mut sent).unwrap();
                    let mut words = head.split(' ');
                    let (method, path) = (words.next().unwrap(), words.next().unwrap());
                    let pair = pairs.iter().find(|(_, pair)| {
                        pair.request["method"] == method
                            && pair.request["path"] == path
                            && body_is(pair, &sent)
                    });
                    let (status, location, body) = match pair {
                        Some((name, pair)) => {
                            (pair.status, pair.location.clone(), change(name, pair.body.clone()))
                        }
                        None => (404, None, b"not recorded".to_vec()),
                    };
                    let location = location.map_or(String::new(), |to| format!("Location: {to}\r\n"));
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} -\r\n{location}Content-Length: {length}\r\nConnection: close\r\n\r\n"
                    );
                    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                }
            });
            address
        }

        fn submit(&self, address: &str) -> Result<Recorded, Error> {
            let mut log = RekorV1::new(address, &self.policy, Some(Duration::from_secs(5)));
            log.submit(Submission { envelope: &self.envelope, verifier: &self.verifier })
        }
    }

    /// Tells whether the body sent matches the recorded one: white space in the envelope does not matter.
    fn body_is(pair: &Pair, sent: &[u8]) -> bool {
        let Some(text) = pair.request["body"].as_str() else { return sent.is_empty() };
        let of = |text: &[u8]| {
            let value: Value = serde_json::from_slice(text).unwrap_or_default();
            let content = value["spec"]["proposedContent"].clone();
            let envelope = Envelope::parse(content["envelope"].as_str().unwrap_or_default().as_bytes());
            (value["kind"].clone(), envelope.ok(), content["verifiers"].clone())
        };
        of(text.as_bytes()) == of(sent)
    }

    fn same(_: &str, body: Vec<u8>) -> Vec<u8> {
        body
    }

    #[test]
    fn an_envelope_is_logged_and_one_that_was_is_found() {
        let Some(lab) = lab() else { return };
        let first = lab.submit(&lab.server(&["02-post-dsse.json"], same)).unwrap();
        assert_eq!((first.proof.index, first.novelty), (21, Novelty::New));
        let again =
            lab.submit(&lab.server(&["03-post-dsse-duplicate-409.json", "08-get-by-uuid.json"], same));
        let again = again.unwrap();
        assert_eq!((again.proof.index, again.novelty), (21, Novelty::Known));
        assert_eq!(again.body, first.body);
        // It verifies as a bundle, with its signed time.
        let pem = verifier_pem(&lab.verifier);
        let key = crate::trust::bundle::PublicKey::from_pem(&pem).unwrap();
        let root = crate::trust::image_policy::trust_root(&[crate::trust::image_policy::log_in_root(
            &lab.policy.logs()[0].key,
            None,
        )]);
        let bundle = lab.envelope.bundle(&lab.verifier, &[first.entry], &[]);
        use crate::trust::bundle::{Artifact, Signer, Sigstore, Verify};
        let statement: Value = serde_json::from_slice(&lab.envelope.payload).unwrap();
        let mut digest = [0; 32];
        hex::decode_to_slice(statement["subject"][0]["digest"]["sha256"].as_str().unwrap(), &mut digest)
            .unwrap();
        let checked = Sigstore::new(root.to_string().as_bytes())
            .unwrap()
            .verify(bundle.as_bytes(), Artifact::Sha256(digest), &Signer::Key(key))
            .unwrap();
        assert_eq!(checked.times(), [1_795_375_248]);
    }

    #[test]
    fn states_and_their_consistency_are_read() {
        let Some(lab) = lab() else { return };
        let names = ["13-loginfo-after.json", "14-consistency-proof.json"];
        let log = RekorV1::new(&lab.server(&names, same), &lab.policy, None);
        let new = lab.policy.accept(&log.checkpoint().unwrap()).unwrap();
        let before: Value =
            serde_json::from_slice(&recorded(&lab.folder, "00-loginfo-before.json").body).unwrap();
        let note = Note::parse(before["signedTreeHead"].as_str().unwrap().as_bytes()).unwrap();
        let old = Checkpoint::verified(&note, &lab.policy.logs()[0].key).unwrap();
        let new = new.checkpoint();
        let proof = log.consistency(old.size(), new.size()).unwrap();
        merkle::verify_consistency(old.size(), new.size(), &proof, &old.root(), &new.root()).unwrap();
        assert!(matches!(log.consistency(1, 2), Err(Error::Status { status: 404, .. })));
    }

    #[test]
    fn what_a_server_refuses_is_told() {
        let Some(lab) = lab() else { return };
        for name in ["04-post-dsse-badsig-400.json", "16-get-404.json", "17-post-malformed-4xx.json"] {
            let pair = recorded(&lab.folder, name);
            assert!((400..500).contains(&pair.status), "{name}");
            let (status, body) = (pair.status, pair.body);
            let address =
                served(move |_: Request| Response { status, kind: "application/json", body: body.clone() });
            let error = lab.submit(&address).unwrap_err();
            assert!(
                matches!(error, Error::Status { status: found, .. } if found == status),
                "{name}: {error}"
            );
        }
        // A conflict whose entry is gone, and one that does not say where the entry is.
        let gone = lab.server(&["03-post-dsse-duplicate-409.json"], same);
        assert!(matches!(lab.submit(&gone), Err(Error::Status { status: 404, .. })));
        let nowhere = served(|_| Response { status: 409, kind: "text/plain", body: Vec::new() });
        assert!(matches!(lab.submit(&nowhere), Err(Error::Status { status: 409, .. })));
    }

    #[test]
    fn a_forged_or_truncated_answer_is_refused() {
        let Some(lab) = lab() else { return };
        type Change = fn(&str, Vec<u8>) -> Vec<u8>;
        let changes: [Change; 6] = [
            |_, body| body[..body.len() / 2].to_vec(),
            |_, _| b"{}".to_vec(),
            |_, body| replace(&body, "\"logIndex\":21,\"rootHash", "\"logIndex\":20,\"rootHash"),
            |_, body| replace(&body, "5877d69e", "5877d69f"),
            |_, body| replace(&body, "\\n22\\n", "\\n23\\n"),
            |_, body| replace(&body, "signedEntryTimestamp", "signedEntryTime"),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let error = lab.submit(&lab.server(&["02-post-dsse.json"], change)).unwrap_err();
            assert!(!matches!(error, Error::Unreachable { .. } | Error::Status { .. }), "{number}: {error}");
        }
        // Another signer's entry, validly in the log.
        let other = recorded(&lab.folder, "06-post-dsse-1.json").body;
        let address =
            served(move |_| Response { status: 201, kind: "application/json", body: other.clone() });
        assert!(matches!(lab.submit(&address), Err(Error::Other { .. })));
    }

    fn replace(body: &[u8], from: &str, to: &str) -> Vec<u8> {
        let text = String::from_utf8(body.to_vec()).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        changed.into_bytes()
    }

    #[test]
    fn a_server_that_is_slow_is_given_up() {
        let Some(lab) = lab() else { return };
        let slow = served(|_| {
            thread::sleep(Duration::from_secs(3));
            Response { status: 201, kind: "application/json", body: Vec::new() }
        });
        let mut log = RekorV1::new(&slow, &lab.policy, Some(Duration::from_millis(200)));
        let submission = Submission { envelope: &lab.envelope, verifier: &lab.verifier };
        assert!(matches!(log.submit(submission), Err(Error::Unreachable { .. })));
    }
}
