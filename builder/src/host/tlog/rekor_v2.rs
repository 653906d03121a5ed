//! Yields entries of a Rekor v2, proven, from envelopes.
//!
//! # Shape
//! ```text
//! POST <write>/api/v2/log/entries    {"hashedRekordRequestV002": {digest, signature: {content, verifier}}}
//!   201  TransparencyLogEntry
//!   409  "... with index N": the entry is found by its index, and its proof is made from tiles
//! GET  <read>/checkpoint, <read>/tile/...     C2SP tlog-tiles
//! ```
//! Reads and writes have separate addresses: the writer serves no reads.
//!
//! # Source
//! `rekor-tiles` 2.3, `rekor-v2-spec` §6.1.4: DSSE is logged as `hashedrekord` over the PAE. Confirmed with
//! recorded answers of a real server.
//!
//! # Not here
//! Witnesses: the server asks them, and fails open; here, the policy requires the quorum.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::directory::Novelty;
use super::web::{Server, Tiles};
use super::{Error, Recorded, Submission, TransparencyLog, bundled};
use crate::trust::Verified;
use crate::trust::transparency::checkpoint::decimal;
use crate::trust::transparency::entry::{Entry, Verifier};
use crate::trust::transparency::merkle::{self, Hash};
use crate::trust::transparency::note::Note;
use crate::trust::transparency::proof::Proof;
use crate::trust::transparency::tile::{Kind, Name, Source, Tree, WIDTH};
use crate::trust::transparency::tlog_policy::{Accepted, Policy};

/// Path that entries are sent to.
const ENTRIES: &str = "api/v2/log/entries";

/// A Rekor v2 server.
pub struct RekorV2<'a> {
    name: String,
    write: Server,
    read: Tiles,
    policy: &'a Policy,
}

impl<'a> RekorV2<'a> {
    /// Uses the Rekor at an address; `read` is the address of its tiles, by default `<write>/api/v2`.
    pub fn new(write: &str, read: Option<&str>, policy: &'a Policy, patience: Duration) -> Self {
        let server = Server::new(write, patience);
        let read = read.map_or_else(|| server.url("api/v2"), str::to_owned);
        RekorV2 { name: write.to_owned(), write: server, read: Tiles(Server::new(&read, patience)), policy }
    }

    fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { url: self.write.url(ENTRIES), reason: reason.into() }
    }

    fn note(&self, text: &[u8]) -> Result<(Note, Verified<Accepted>), Error> {
        let log = || self.name.clone();
        let note = Note::parse(text).map_err(|source| Error::Note { log: log(), source })?;
        let accepted = self.policy.accept(&note).map_err(|source| Error::Policy { log: log(), source })?;
        Ok((note, accepted))
    }

    /// Returns the proven entry of an answer.
    fn created(&self, answer: &[u8], body: &[u8]) -> Result<Recorded, Error> {
        let entry: Value =
            serde_json::from_slice(answer).map_err(|error| self.malformed(error.to_string()))?;
        let text = |pointer: &str| {
            let found = entry.pointer(pointer).and_then(Value::as_str);
            found.ok_or_else(|| self.malformed(format!("{pointer} is missing")))
        };
        let index = decimal(text("/logIndex")?).ok_or_else(|| self.malformed("/logIndex is not a number"))?;
        let found = STANDARD.decode(text("/canonicalizedBody")?);
        if found.is_ok_and(|found| found != body) {
            let reason = "the entry's body differs".to_owned();
            return Err(Error::Other { log: self.name.clone(), reason });
        }
        let hashes = entry.pointer("/inclusionProof/hashes").and_then(Value::as_array);
        let hashes = hashes.into_iter().flatten().map(|hash| hash.as_str().and_then(Hash::from_base64));
        let hashes = hashes.collect::<Option<Vec<_>>>().ok_or_else(|| self.malformed("invalid hash"))?;
        let (checkpoint, _) = self.note(text("/inclusionProof/checkpoint/envelope")?.as_bytes())?;
        self.recorded(Proof { extra: None, index, hashes, checkpoint }, body, Novelty::New)
    }

    /// Returns the entry at an index, proven from tiles.
    fn found(&self, index: u64, body: &[u8]) -> Result<Recorded, Error> {
        let (checkpoint, accepted) = self.note(&self.read.0.fetch("checkpoint")?)?;
        let size = accepted.checkpoint().size();
        let tiles = |source| Error::Tiles { log: self.name.clone(), source };
        let proof = merkle::prove_inclusion(&Tree::new(&self.read, size), index, size).map_err(tiles)?;
        let width = u64::from(WIDTH);
        let other = |reason: &str| Error::Other { log: self.name.clone(), reason: reason.to_owned() };
        let name = Name::in_tree(Kind::Entries, index / width, size).ok_or_else(|| other("no such index"))?;
        let bundle = self.read.tile(&name).map_err(|reason| other(&reason))?;
        let entries = name.entries(&bundle).map_err(|error| other(&error.to_string()))?;
        let at = usize::try_from(index % width).unwrap_or(usize::MAX);
        if entries.get(at).copied() != Some(body) {
            // The server calls it equivalent: the same digest by the same key, but another signature.
            return Err(other("an entry that the server calls equivalent has another signature"));
        }
        self.recorded(Proof { extra: None, index, hashes: proof, checkpoint }, body, Novelty::Known)
    }

    fn recorded(&self, proof: Proof, body: &[u8], novelty: Novelty) -> Result<Recorded, Error> {
        let log = || self.name.clone();
        let accepted =
            proof.verify(body, self.policy).map_err(|source| Error::Proof { log: log(), source })?;
        let entry = bundled(&proof, &accepted, body);
        Ok(Recorded { entry, body: body.to_vec(), proof, novelty })
    }
}

fn request(entry: &Entry) -> Value {
    let verifier = match &entry.verifier {
        Verifier::Key(key) => json!({
            "keyDetails": entry.key_details,
            "publicKey": {"rawBytes": STANDARD.encode(key)},
        }),
        Verifier::Certificate(der) => json!({
            "keyDetails": entry.key_details,
            "x509Certificate": {"rawBytes": STANDARD.encode(der)},
        }),
    };
    json!({"hashedRekordRequestV002": {
        "digest": STANDARD.encode(entry.digest),
        "signature": {"content": STANDARD.encode(&entry.signature), "verifier": verifier},
    }})
}

impl TransparencyLog for RekorV2<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit(&mut self, submission: Submission<'_>) -> Result<Recorded, Error> {
        let entry = submission.envelope.entry(submission.verifier.clone());
        let text = request(&entry).to_string();
        let answer = self.write.post(ENTRIES, "application/json", text.as_bytes())?;
        match answer.status {
            200 | 201 => self.created(&answer.body, &entry.to_bytes()),
            409 => {
                // Only the message has the index.
                let value: Value = serde_json::from_slice(&answer.body)
                    .map_err(|error| self.malformed(error.to_string()))?;
                let message = value.get("message").and_then(Value::as_str).unwrap_or_default();
                let index = message.rsplit(' ').next().and_then(decimal);
                let index = index.ok_or_else(|| self.malformed("the conflict names no index"))?;
                self.found(index, &entry.to_bytes())
            }
            _ => Err(self.write.refused(ENTRIES, &answer)),
        }
    }

    fn checkpoint(&self) -> Result<Note, Error> {
        Ok(self.note(&self.read.0.fetch("checkpoint")?)?.0)
    }

    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
        merkle::prove_consistency(&Tree::new(&self.read, new), old, new)
            .map_err(|source| Error::Tiles { log: self.name.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::serve::tests::served;
    use super::super::serve::{Request, Response};
    use super::super::tests::vectors;
    use super::*;
    use crate::trust::envelope::Envelope;

    /// Returns a recorded request and its answer.
    pub fn recorded(path: &Path) -> (Value, u16, Option<String>, Vec<u8>) {
        let pair: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let body = STANDARD.decode(pair["response"]["body_base64"].as_str().unwrap()).unwrap();
        let status = pair["response"]["status"].as_u64().unwrap() as u16;
        let location = pair["response"]["headers"]["Location"].as_str().map(str::to_owned);
        (pair["request"].clone(), status, location, body)
    }

    /// The parts of the envelope that a log sees; the signed bytes are in the recordings of Rekor v1.
    struct Lab {
        folder: std::path::PathBuf,
        envelope: Envelope,
        verifier: Verifier,
        policy: Policy,
    }

    fn lab() -> Option<Lab> {
        let folder = vectors("sigstore/recorded-local")?;
        let (request, ..) = recorded(&folder.join("rekor-v1/02-post-dsse.json"));
        let request: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
        let envelope = request["spec"]["proposedContent"]["envelope"].as_str().unwrap();
        let envelope = Envelope::parse(envelope.as_bytes()).unwrap();
        let (request, ..) = recorded(&folder.join("rekor-v2/02-post-hashedrekord-over-dsse.json"));
        let request: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
        let key = request.pointer("/hashedRekordRequestV002/signature/verifier/publicKey/rawBytes").unwrap();
        let verifier = Verifier::Key(STANDARD.decode(key.as_str().unwrap()).unwrap());
        let text = |name: &str| std::fs::read_to_string(folder.join("rekor-v2").join(name)).unwrap();
        let lines = format!("log {}\n{}", text("log.vkey").trim(), text("witness-policy.txt"));
        Some(Lab { policy: Policy::parse(&lines).unwrap(), folder, envelope, verifier })
    }

    impl Lab {
        /// Starts a server that answers the recorded write, and serves reads from the recorded store.
        fn server(&self, recording: &str) -> String {
            self.server_with(recording, |body| body)
        }

        fn server_with(&self, recording: &str, change: fn(Vec<u8>) -> Vec<u8>) -> String {
            let (request, status, _, body) = recorded(&self.folder.join("rekor-v2").join(recording));
            let expected: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
            let store = self.folder.join("rekor-v2/store");
            served(move |asked: Request| {
                if asked.method == "POST" {
                    assert_eq!(asked.path, "/api/v2/log/entries");
                    let found: Value = serde_json::from_slice(&asked.body).unwrap();
                    if recording_matters(status) {
                        assert_eq!(found, expected);
                    }
                    return Response { status, kind: "application/json", body: change(body.clone()) };
                }
                let path = asked.path.strip_prefix("/api/v2/").unwrap();
                match std::fs::read(store.join(path)) {
                    Ok(body) => Response { status: 200, kind: "application/octet-stream", body },
                    Err(_) => Response { status: 404, kind: "text/plain", body: b"no".to_vec() },
                }
            })
        }

        fn submit(&self, address: &str) -> Result<Recorded, Error> {
            let mut log = RekorV2::new(address, None, &self.policy, Duration::from_secs(5));
            log.submit(Submission { envelope: &self.envelope, verifier: &self.verifier })
        }
    }

    /// Tells whether a request must match its recording: refused ones are never made by this client.
    fn recording_matters(status: u16) -> bool {
        matches!(status, 201 | 409)
    }

    #[test]
    fn an_envelope_is_logged_and_one_that_was_is_found() {
        let Some(lab) = lab() else { return };
        let first = lab.submit(&lab.server("02-post-hashedrekord-over-dsse.json")).unwrap();
        assert_eq!((first.proof.index, first.novelty), (0, Novelty::New));
        let again = lab.submit(&lab.server("03-post-duplicate.json")).unwrap();
        assert_eq!((again.proof.index, again.novelty), (0, Novelty::Known));
        assert_eq!(again.body, first.body);
        assert_eq!(again.entry["inclusionProof"]["treeSize"], "31");
    }

    #[test]
    fn the_state_and_its_consistency_are_read_from_tiles() {
        let Some(lab) = lab() else { return };
        let address = lab.server("03-post-duplicate.json");
        let log = RekorV2::new(&address, None, &lab.policy, Duration::from_secs(5));
        let accepted = lab.policy.accept(&log.checkpoint().unwrap()).unwrap();
        assert_eq!(accepted.checkpoint().size(), 31);
        assert!(!log.consistency(7, 31).unwrap().is_empty());
        assert!(log.consistency(7, 300).is_err());
    }

    #[test]
    fn what_a_server_refuses_is_told() {
        let Some(lab) = lab() else { return };
        for (recording, status) in [
            ("04-post-badsig-400.json", 400),
            ("05-post-dsseRequestV002-rejected.json", 400),
            ("07-post-malformed.json", 400),
            ("08-get-checkpoint-from-writer-501.json", 501),
        ] {
            let path = lab.folder.join("rekor-v2").join(recording);
            let (_, found, _, body) = recorded(&path);
            assert_eq!(found, status);
            let address = served(move |_| Response { status, kind: "application/json", body: body.clone() });
            let error = lab.submit(&address).unwrap_err();
            assert!(matches!(error, Error::Status { status: found, .. } if found == status), "{error}");
        }
        let gone = served(|_| Response { status: 404, kind: "text/plain", body: Vec::new() });
        assert!(matches!(lab.submit(&gone), Err(Error::Status { status: 404, .. })));
    }

    type Change = fn(Vec<u8>) -> Vec<u8>;

    #[test]
    fn a_forged_or_truncated_answer_is_refused() {
        let Some(lab) = lab() else { return };
        let good = "02-post-hashedrekord-over-dsse.json";
        let changes: BTreeMap<&str, Change> = BTreeMap::from([
            ("truncated", (|body| body[..body.len() / 2].to_vec()) as Change),
            ("empty", |_| Vec::new()),
            ("empty object", |_| b"{}".to_vec()),
            ("index", |body| replace(&body, "\"logIndex\":\"0\"", "\"logIndex\":\"1\"")),
            ("hash", |body| replace(&body, "\"hashes\":[]", "\"hashes\":[\"AAAA\"]")),
            ("extra hash", |body| {
                let hash = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
                replace(&body, "\"hashes\":[]", &format!("\"hashes\":[\"{hash}\"]"))
            }),
            ("checkpoint", |body| replace(&body, "\\n1\\n", "\\n2\\n")),
            ("body", |body| replace(&body, "canonicalizedBody\":\"eyJ", "canonicalizedBody\":\"eyK")),
            ("no witness", |body| {
                let text = String::from_utf8(body).unwrap();
                let from = text.find("\u{2014} witness").unwrap();
                let to = text[from..].find("\\n").unwrap() + from + 2;
                format!("{}{}", &text[..from], &text[to..]).into_bytes()
            }),
        ]);
        for (name, change) in changes {
            let error = lab.submit(&lab.server_with(good, change)).unwrap_err();
            assert!(!matches!(error, Error::Unreachable { .. }), "{name}: {error}");
        }
        // A conflict that names another entry, or none.
        for message in ["with index 3", "with index 99", "with index x", ""] {
            let address = {
                let store = lab.folder.join("rekor-v2/store");
                let body = format!("{{\"message\":\"{message}\"}}").into_bytes();
                served(move |asked: Request| match asked.method.as_str() {
                    "POST" => Response { status: 409, kind: "application/json", body: body.clone() },
                    _ => {
                        let path = asked.path.strip_prefix("/api/v2/").unwrap();
                        let body = std::fs::read(store.join(path)).unwrap_or_default();
                        Response { status: if body.is_empty() { 404 } else { 200 }, kind: "text/plain", body }
                    }
                })
            };
            assert!(lab.submit(&address).is_err(), "{message}");
        }
    }

    fn replace(body: &[u8], from: &str, to: &str) -> Vec<u8> {
        let text = String::from_utf8(body.to_vec()).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        changed.into_bytes()
    }

    #[test]
    fn a_server_that_is_slow_or_gone_is_given_up() {
        let Some(lab) = lab() else { return };
        let slow = served(|_| {
            std::thread::sleep(Duration::from_secs(3));
            Response { status: 201, kind: "application/json", body: Vec::new() }
        });
        let mut log = RekorV2::new(&slow, None, &lab.policy, Duration::from_millis(200));
        let submission = Submission { envelope: &lab.envelope, verifier: &lab.verifier };
        assert!(matches!(log.submit(submission), Err(Error::Unreachable { .. })));
        assert!(matches!(lab.submit("http://127.0.0.1:1"), Err(Error::Unreachable { .. })));
    }
}
