//! Yields a stand-in for a first-generation Rekor: this program listens on loopback, and logs envelopes in memory.
//!
//! # Shape
//! ```text
//! GET  /api/v1/log/publicKey            PEM
//! GET  /api/v1/log                      {signedTreeHead, treeID, treeSize, rootHash}
//! POST /api/v1/log/entries              {kind: dsse, …} ─> {uuid: {body, integratedTime, logID, logIndex, verification}}
//! POST /api/v1/log/entries/retrieve     {entries: [{kind: dsse, …}]} ─> [{uuid: {…}}], or []
//! ```
//! An envelope that is already logged is answered with its entry. Only the signature with a P-256 key comes from the
//! program under test: this file makes trees and entries itself, after RFC 6962 §2.1 and Rekor's
//! `pkg/types/dsse/v0.0.1`.

// A wrong step here is a failed test: it panics where it happens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proofmark::host::tlog::serve::{Request, Response, serve};
use proofmark::trust::envelope::SigningKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The log's name, in its checkpoints and as its host.
const NAME: &str = "log.example";
/// The ID of its tree.
const TREE: u64 = 1_306_520_104_186_415_480;

/// The state of a server.
struct Log {
    key: SigningKey,
    entries: Vec<Entry>,
}

/// What was logged, and when: seconds since 1970.
struct Entry {
    body: Vec<u8>,
    time: u64,
}

impl Entry {
    fn now(body: Vec<u8>) -> Self {
        Entry { body, time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() }
    }
}

/// A log that listens until the process ends.
pub struct RekorV1 {
    /// Its address.
    pub address: String,
    /// Its key in the form of policies: `log.example+id+key`.
    pub key: String,
    log: Arc<Mutex<Log>>,
}

impl RekorV1 {
    /// Makes a log that holds this many entries of others.
    pub fn new(others: u32) -> Self {
        let key = SigningKey::from_seed(&[9; 32]).unwrap();
        let der = key.public().der().unwrap();
        let id = hex(&Sha256::digest(&der)[..4]);
        let name = format!("{NAME}+{id}+{}", STANDARD.encode([&[2], &der[..]].concat()));
        let entries = (0..others).map(|number| Entry::now(number.to_be_bytes().to_vec())).collect();
        let log = Arc::new(Mutex::new(Log { key, entries }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            serve(&listener, &mut |request| Some(shared.lock().unwrap().answer(&request)), &|_| {})
        });
        RekorV1 { address, key: name, log }
    }

    /// The number of entries.
    pub fn size(&self) -> usize {
        self.log.lock().unwrap().entries.len()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::digest([&[1], &left[..], &right[..]].concat()).into()
}

/// Where a tree of more than one leaf is split.
fn middle(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}

fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(middle(leaves.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The inclusion proof of a leaf, from the leaf up.
fn path(leaves: &[[u8; 32]], index: usize) -> Vec<[u8; 32]> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let at = middle(leaves.len());
    let (left, right) = leaves.split_at(at);
    let (mut below, beside) =
        if index < at { (path(left, index), root(right)) } else { (path(right, index - at), root(left)) };
    below.push(beside);
    below
}

/// What the log keeps of a proposed entry, with its fields sorted by name.
fn body(proposed: &Value) -> Option<Vec<u8>> {
    let content = proposed.pointer("/spec/proposedContent")?;
    let text = content["envelope"].as_str()?;
    let envelope: Value = serde_json::from_str(text).ok()?;
    let payload = STANDARD.decode(envelope["payload"].as_str()?).ok()?;
    let hash = |bytes: &[u8]| json!({"algorithm": "sha256", "value": hex(&Sha256::digest(bytes))});
    let body = json!({
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": hash(text.as_bytes()),
            "payloadHash": hash(&payload),
            "signatures": [{"signature": envelope["signatures"][0]["sig"], "verifier": content["verifiers"][0]}],
        },
    });
    Some(body.to_string().into_bytes())
}

impl Log {
    fn leaves(&self) -> Vec<[u8; 32]> {
        self.entries.iter().map(|entry| Sha256::digest([&[0], &entry.body[..]].concat()).into()).collect()
    }

    fn checkpoint(&self, root: &[u8; 32]) -> String {
        let text = format!("{NAME} - {TREE}\n{}\n{}\n", self.entries.len(), STANDARD.encode(root));
        let der = self.key.public().der().unwrap();
        let signature = [&Sha256::digest(der)[..4], &self.key.sign(text.as_bytes())[..]].concat();
        format!("{text}\n\u{2014} {NAME} {}\n", STANDARD.encode(signature))
    }

    fn entry(&self, index: usize) -> Value {
        let leaves = self.leaves();
        let root = root(&leaves);
        let Entry { body, time } = &self.entries[index];
        let promised = json!({
            "body": STANDARD.encode(body),
            "integratedTime": time,
            "logID": hex(&Sha256::digest(self.key.public().der().unwrap())),
            "logIndex": index,
        });
        let mut entry = promised.clone();
        entry["verification"] = json!({
            "inclusionProof": {
                "checkpoint": self.checkpoint(&root),
                "hashes": path(&leaves, index).iter().map(|hash| hex(hash)).collect::<Vec<_>>(),
                "logIndex": index,
                "rootHash": hex(&root),
                "treeSize": leaves.len(),
            },
            "signedEntryTimestamp": STANDARD.encode(self.key.sign(promised.to_string().as_bytes())),
        });
        json!({format!("{TREE:016x}{}", hex(&leaves[index])): entry})
    }

    fn answer(&mut self, request: &Request) -> Response {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let find = |entries: &[Entry], wanted: &[u8]| entries.iter().position(|entry| entry.body == wanted);
        let path = request.path.split('?').next().unwrap_or_default();
        let (status, kind, text) = match (request.method.as_str(), path) {
            ("GET", "/api/v1/log/publicKey") => {
                (200, "application/x-pem-file", self.key.public().pem().unwrap())
            }
            ("GET", "/api/v1/log") => {
                let root = root(&self.leaves());
                let state = json!({"rootHash": hex(&root), "signedTreeHead": self.checkpoint(&root),
                    "treeID": TREE.to_string(), "treeSize": self.entries.len()});
                (200, "application/json", state.to_string())
            }
            ("POST", "/api/v1/log/entries") => match body(&asked) {
                Some(body) => {
                    let index = find(&self.entries, &body).unwrap_or_else(|| {
                        self.entries.push(Entry::now(body));
                        self.entries.len() - 1
                    });
                    (201, "application/json", self.entry(index).to_string())
                }
                None => (400, "application/json", json!({"code": 400, "message": "no dsse"}).to_string()),
            },
            ("POST", "/api/v1/log/entries/retrieve") => {
                let wanted = asked["entries"].as_array().into_iter().flatten().filter_map(body);
                let found: Vec<Value> = wanted
                    .filter_map(|body| find(&self.entries, &body))
                    .map(|index| self.entry(index))
                    .collect();
                (200, "application/json", json!(found).to_string())
            }
            _ => (404, "application/json", json!({"code": 404, "message": "not here"}).to_string()),
        };
        Response { status, kind, body: text.into_bytes() }
    }
}
