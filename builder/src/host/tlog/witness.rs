//! Yields cosignatures: from a policy's witnesses over HTTP, or as a witness for others.
//!
//! # Shape
//! ```text
//! STATE/<SHA-256 of the origin>     "<size>\n<root in base64>\n": the last cosigned state, written before the answer
//! ```
//!
//! # Source
//! C2SP `tlog-witness`.
//!
//! # Not here
//! The format of requests and answers: `trust::transparency::witness`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::directory::Cosigners;
use super::medium::{Disk, Medium};
use super::serve::{self, Response};
use super::web::Server;
use crate::trust::transparency::checkpoint::decimal;
use crate::trust::transparency::merkle::{self, Hash};
use crate::trust::transparency::note::{Note, Role, SigningKey, VerifierKey};
use crate::trust::transparency::tlog_policy::{Policy, Witness};
use crate::trust::transparency::witness::{Refusal, Request, Seen, cosign, from_answer};

/// Time limit for a witness.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks as many of a policy's witnesses as it needs, and agrees once the policy accepts the state.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The policy.
    pub policy: &'a Policy,
}

impl Asking<'_> {
    /// Asks one witness, which may answer with the size that it knows.
    fn ask(
        witness: &Witness,
        signed: &mut Note,
        prove: &dyn Fn(u64) -> Result<Vec<Hash>, merkle::Error>,
    ) -> Result<(), String> {
        let url =
            witness.url.as_deref().ok_or_else(|| "the policy has no URL for this witness".to_owned())?;
        let server = Server::new(url, PATIENCE);
        let mut old = 0;
        // The second request uses the size that the witness gave; it gets no third request.
        for _ in 0..2 {
            let proof = if old == 0 { Ok(Vec::new()) } else { prove(old) };
            let proof = proof
                .map_err(|error| format!("it is at size {old}, from which there is no proof: {error}"))?;
            let checkpoint = Note::new(signed.text().to_owned()).map(|mut bare| {
                // Send only the log's own signatures: some witnesses refuse more.
                let others = signed.signatures().iter().filter(|signature| signature.name == origin(signed));
                others.for_each(|signature| bare.add(signature.clone()));
                bare
            });
            let checkpoint = checkpoint.map_err(|error| error.to_string())?;
            let request = Request { old, proof, checkpoint };
            let answer = server.post("add-checkpoint", "text/plain", request.to_text().as_bytes());
            let answer = answer.map_err(|error| crate::host::chain(&error))?;
            let text =
                String::from_utf8(answer.body.clone()).map_err(|_| "its answer is not text".to_owned())?;
            match answer.status {
                200 => {
                    let signatures =
                        from_answer(&text, signed, &witness.key).map_err(|error| error.to_string())?;
                    signatures.into_iter().for_each(|signature| signed.add(signature));
                    return Ok(());
                }
                409 => match decimal(text.trim_end_matches('\n')) {
                    Some(size) if size != old => old = size,
                    _ => {
                        return Err(
                            "it has seen a different state of the same size: the log has forked".to_owned()
                        );
                    }
                },
                _ => return Err(server.refused("add-checkpoint", &answer).to_string()),
            }
        }
        Err("it reports a different size each time".to_owned())
    }
}

fn origin(note: &Note) -> &str {
    note.text().split('\n').next().unwrap_or_default()
}

impl Cosigners for Asking<'_> {
    fn cosign(
        &self,
        signed: &mut Note,
        prove: &dyn Fn(u64) -> Result<Vec<Hash>, merkle::Error>,
    ) -> Result<(), String> {
        let mut reasons = Vec::new();
        for witness in self.policy.witnesses() {
            // A quorum is enough: do not wait for a witness that is down.
            if self.policy.accept(signed).is_ok() {
                return Ok(());
            }
            if let Err(reason) = Self::ask(witness, signed, prove) {
                reasons.push(format!("{}: {reason}", witness.name));
            }
        }
        self.policy.accept(signed).map(drop).map_err(|error| {
            reasons.insert(0, error.to_string());
            reasons.join("; ")
        })
    }
}

/// Why a witness cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system operation failed.
    #[error("cannot {deed} {}", path.display())]
    Io {
        /// The operation that failed.
        deed: &'static str,
        /// The path it failed on.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// The record of a log's last cosigned state is malformed: nothing may be signed for that log.
    #[error("{} is malformed: the last cosigned state is unknown", path.display())]
    State {
        /// The file.
        path: PathBuf,
    },
    /// The key is a log's key.
    #[error("{name} is a log's key, not a witness's")]
    Role {
        /// The key's name.
        name: String,
    },
    /// Another witness has the lock.
    #[error("another witness is using {}", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
}

/// A witness, with its state in a folder.
pub struct Own {
    key: SigningKey,
    logs: Vec<VerifierKey>,
    state: Disk,
    _lock: std::fs::File,
}

impl Own {
    /// Makes a witness of logs.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(key: SigningKey, logs: Vec<VerifierKey>, state: &Path) -> Result<Self, Error> {
        if key.role() != Role::Witness {
            return Err(Error::Role { name: key.public().name().to_owned() });
        }
        let io = |deed, source| Error::Io { deed, path: state.to_owned(), source };
        std::fs::create_dir_all(state).map_err(|source| io("make", source))?;
        let lock = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(state.join("lock"))
            .map_err(|source| io("lock", source))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Busy { path: state.to_owned() }),
            Err(error) => return Err(io("lock", error.into())),
        }
        Ok(Own { key, logs, state: Disk::new(state), _lock: lock })
    }

    fn place(origin: &str) -> PathBuf {
        PathBuf::from(hex::encode(Sha256::digest(origin)))
    }

    fn seen(&self, origin: &str) -> Result<Seen, Error> {
        let path = Self::place(origin);
        let bytes = self.state.read(&path);
        let bytes = bytes.map_err(|source| Error::Io { deed: "read", path: path.clone(), source })?;
        let Some(bytes) = bytes else { return Ok(Seen::nothing()) };
        let text = String::from_utf8(bytes).unwrap_or_default();
        let mut lines = text.split('\n');
        let size = lines.next().and_then(decimal);
        let root = lines.next().and_then(Hash::from_base64);
        match (size, root, lines.next(), lines.next()) {
            (Some(size), Some(root), Some(""), None) => Ok(Seen { size, root }),
            _ => Err(Error::State { path: self.state.root().join(path) }),
        }
    }

    fn remember(&self, origin: &str, seen: &Seen) -> Result<(), Error> {
        let path = Self::place(origin);
        let beside = path.with_extension("new");
        let text = format!("{}\n{}\n", seen.size, seen.root);
        let written = self
            .state
            .write(&beside, text.as_bytes())
            .and_then(|()| self.state.rename(&beside, &path))
            .and_then(|()| self.state.settle(Path::new("")));
        written.map_err(|source| Error::Io { deed: "write", path, source })
    }

    /// Answers one `add-checkpoint`, at a time in seconds since 1970.
    ///
    /// # Errors
    /// When the state cannot be read or written: then no signature has left the witness.
    pub fn answer(&self, body: &[u8], time: u64) -> Result<Response, Error> {
        let no = |refusal: &Refusal| {
            let (kind, text) = match refusal {
                Refusal::Conflict { size } => ("text/x.tlog.size", format!("{size}\n")),
                other => ("text/plain", format!("{other}\n")),
            };
            Response { status: refusal.status(), kind, body: text.into_bytes() }
        };
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(refusal) => return Ok(no(&refusal)),
        };
        let named = self.logs.iter().filter(|log| log.name() == request.origin());
        let mut refusal = Refusal::Unknown { origin: request.origin().to_owned() };
        let seen = self.seen(request.origin())?;
        for log in named {
            match cosign(&request, log, &seen, &self.key, time) {
                Ok((signature, now)) => {
                    self.remember(request.origin(), &now)?;
                    let body = signature.to_line().into_bytes();
                    return Ok(Response { status: 200, kind: "text/plain", body });
                }
                Err(other) => refusal = other,
            }
        }
        Ok(no(&refusal))
    }

    /// Serves until no more connections can be accepted; `clock` returns seconds since 1970.
    ///
    /// # Errors
    /// When no more connections can be accepted.
    pub fn serve(
        &self,
        listener: &std::net::TcpListener,
        clock: &dyn Fn() -> u64,
        remark: &dyn Fn(&str),
    ) -> io::Result<()> {
        let mut answer = |request: serve::Request| {
            let plain = |status, text: &str| Response {
                status,
                kind: "text/plain",
                body: format!("{text}\n").into_bytes(),
            };
            if request.path != "/add-checkpoint" {
                return Some(plain(404, "there is only /add-checkpoint here"));
            }
            if request.method != "POST" {
                return Some(plain(405, "only POST is answered"));
            }
            Some(self.answer(&request.body, clock()).unwrap_or_else(|error| {
                remark(&crate::host::chain(&error));
                plain(500, "the witness cannot work")
            }))
        };
        serve::serve(listener, &mut answer, remark)
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::{self, Writer};
    use super::super::serve::tests::served;
    use super::*;

    fn log() -> SigningKey {
        SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap()
    }

    fn key(number: u8) -> SigningKey {
        SigningKey::new(&format!("witness.example/{number}"), Role::Witness, &[number; 32]).unwrap()
    }

    fn witness(state: &Path, number: u8) -> Own {
        Own::new(key(number), vec![log().public().clone()], state).unwrap()
    }

    fn at(own: Own) -> String {
        served(move |request| own.answer(&request.body, 77).unwrap())
    }

    fn policy(addresses: &[(u8, String)], quorum: &str) -> Policy {
        let mut text = format!("log {}\n", log().public());
        for (number, address) in addresses {
            text += &format!("witness w{number} {} {address}\n", key(*number).public());
        }
        Policy::parse(&format!("{text}{quorum}\n")).unwrap()
    }

    #[test]
    fn a_log_is_witnessed_over_http_as_it_grows() {
        let root = tempfile::tempdir().unwrap();
        let address = at(witness(&root.path().join("state"), 1));
        let policy = policy(&[(1, address)], "quorum w1");
        let mut writer = Writer::init(&root.path().join("log"), log()).unwrap();
        for number in 0..5u8 {
            let logged =
                writer.append(&[vec![number], vec![number, 1]], &Asking { policy: &policy }).unwrap();
            let accepted = policy.accept(&logged[0].checkpoint).unwrap();
            assert_eq!(accepted.cosigned()["w1"], 77);
            assert_eq!(accepted.checkpoint().size(), 2 * u64::from(number) + 2);
        }
    }

    #[test]
    fn a_witness_that_is_down_stops_publication_unless_the_quorum_is_met_without() {
        let root = tempfile::tempdir().unwrap();
        let dead = "http://127.0.0.1:1".to_owned();
        let strict = policy(&[(1, dead.clone())], "quorum w1");
        let mut writer = Writer::init(&root.path().join("log"), log()).unwrap();
        let error = writer.append(&[vec![1]], &Asking { policy: &strict }).unwrap_err();
        assert!(
            matches!(&error, directory::Error::Unwitnessed { reason, .. } if reason.contains("w1:")),
            "{error}"
        );
        let address = at(witness(&root.path().join("state"), 2));
        let either = policy(&[(1, dead), (2, address)], "group g any w1 w2\nquorum g");
        let logged = writer.append(&[vec![1]], &Asking { policy: &either }).unwrap();
        assert_eq!(logged[0].index, 0);
        either.accept(&logged[0].checkpoint).unwrap();
    }

    #[test]
    fn a_witness_keeps_its_memory_and_refuses_a_fork_and_a_roll_back() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        let one = policy(&[(1, at(witness(&state, 1)))], "quorum w1");
        let mut writer = Writer::init(&root.path().join("log"), log()).unwrap();
        writer.append(&[vec![1], vec![2]], &Asking { policy: &one }).unwrap();
        // Another log with the same key and name.
        for entries in [vec![vec![9], vec![2]], vec![vec![9], vec![8], vec![7]]] {
            let folder = tempfile::tempdir().unwrap();
            let mut fork = Writer::init(folder.path(), log()).unwrap();
            let error = fork.append(&entries, &Asking { policy: &one }).unwrap_err();
            assert!(matches!(error, directory::Error::Unwitnessed { .. }), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let mut rolled = Writer::init(folder.path(), log()).unwrap();
        let error = rolled.append(&[vec![1]], &Asking { policy: &one }).unwrap_err();
        assert!(error.to_string().contains("from which there is no proof"), "{error}");
    }

    #[test]
    fn a_malformed_memory_signs_nothing() {
        let root = tempfile::tempdir().unwrap();
        let own = witness(root.path(), 1);
        assert!(matches!(Own::new(key(1), Vec::new(), root.path()), Err(Error::Busy { .. })));
        let mut writer = Writer::init(&root.path().join("log"), log()).unwrap();
        let note = writer.append(&[vec![1]], &directory::Unwitnessed).unwrap()[0].checkpoint.clone();
        let body = Request { old: 0, proof: Vec::new(), checkpoint: note }.to_text();
        for text in ["", "1\n", "01\nx\n", "1\nAAAA\n"] {
            std::fs::write(root.path().join(Own::place("log.example")), text).unwrap();
            assert!(matches!(own.answer(body.as_bytes(), 1), Err(Error::State { .. })), "{text:?}");
        }
        std::fs::remove_file(root.path().join(Own::place("log.example"))).unwrap();
        assert_eq!(own.answer(body.as_bytes(), 1).unwrap().status, 200);
        assert_eq!(own.answer(b"nonsense", 1).unwrap().status, 400);
        let unknown = body.replace("log.example\n1", "log.other\n1");
        assert_eq!(own.answer(unknown.as_bytes(), 1).unwrap().status, 404);
        assert!(matches!(Own::new(log(), Vec::new(), &root.path().join("s")), Err(Error::Role { .. })));
    }
}
