//! Yields a witness's answer to a new checkpoint of a log, from what it saw before.
//!
//! # Shape
//! ```text
//! request   old <size>                      answer  200  signature lines
//!           <hash in base64>    at most 63          400  the request breaks the format, or old > new
//!           <empty line>                            403  the log has not signed the checkpoint
//!           <checkpoint>                            404  the log is unknown
//!                                                   409  the witness is at another size: its size and a newline
//!                                                   422  the proof does not hold
//! state     origin -> size and root of the last cosigned checkpoint
//! ```
//!
//! # Source
//! C2SP `tlog-witness`, `add-checkpoint`.
//!
//! # Not here
//! HTTP, and storing the state: `host::tlog::witness`.

use super::checkpoint::{self, Checkpoint, decimal};
use super::merkle::{self, Hash};
use super::note::{self, Note, Signature, SigningKey, VerifierKey};
use super::{cosignature, tlog_policy as policy};

/// The most hashes in a request.
const MOST_HASHES: usize = 63;

/// What a witness remembers about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The number of leaves in the last state that it cosigned; 0 if there was none.
    pub size: u64,
    /// The root of that state.
    pub root: Hash,
}

impl Seen {
    /// The state of a log that was never cosigned.
    pub fn nothing() -> Self {
        Seen { size: 0, root: merkle::empty_root() }
    }
}

/// Why a witness does not cosign.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request breaks the format, or its tree is smaller than the old one.
    #[error("malformed request: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// The log has not signed the checkpoint.
    #[error("the log has not signed this")]
    Unsigned(#[source] checkpoint::Error),
    /// The witness does not know the log.
    #[error("log {origin:?} is unknown")]
    Unknown {
        /// The origin in the request.
        origin: String,
    },
    /// The last state that the witness saw is not the one in the request.
    #[error("the last state cosigned has {size} leaves")]
    Conflict {
        /// The size that the witness saw.
        size: u64,
    },
    /// The new state does not extend the old one: the log may have forked.
    #[error("the new state does not follow from the last one cosigned")]
    Inconsistent(#[source] merkle::Error),
    /// The witness cannot sign.
    #[error("cannot cosign")]
    Signing(#[source] note::Error),
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed { .. } => 400,
            Refusal::Unsigned(_) => 403,
            Refusal::Unknown { .. } => 404,
            Refusal::Conflict { .. } => 409,
            Refusal::Inconsistent(_) => 422,
            Refusal::Signing(_) => 500,
        }
    }
}

/// A log's request to a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The size that the log believes the witness saw last.
    pub old: u64,
    /// The consistency proof from that size.
    pub proof: Vec<Hash>,
    /// The new state.
    pub checkpoint: Note,
}

impl Request {
    /// Writes the request's text.
    pub fn to_text(&self) -> String {
        let mut text = format!("old {}\n", self.old);
        for hash in &self.proof {
            text += &format!("{hash}\n");
        }
        format!("{text}\n{}", self.checkpoint)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let wrong = |reason: &str| Refusal::Malformed { reason: reason.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| wrong("no empty line"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(decimal);
        let old = old.ok_or_else(|| wrong("no old size"))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == MOST_HASHES {
                return Err(wrong("more than 63 hashes"));
            }
            proof
                .push(Hash::from_base64(line).ok_or_else(|| wrong("a hash that is not 32 bytes of base64"))?);
        }
        let checkpoint = Note::parse(checkpoint.as_bytes())
            .map_err(|error| Refusal::Malformed { reason: error.to_string() })?;
        Ok(Request { old, proof, checkpoint })
    }

    /// The origin that the checkpoint names, unverified.
    pub fn origin(&self) -> &str {
        self.checkpoint.text().split('\n').next().unwrap_or_default()
    }
}

/// Judges a request against the last state seen, and gives the cosignature and the new state. The caller must
/// store the state durably before it sends the cosignature.
///
/// # Errors
/// The reason for refusal.
pub fn cosign(
    request: &Request,
    log: &VerifierKey,
    seen: &Seen,
    key: &SigningKey,
    time: u64,
) -> Result<(Signature, Seen), Refusal> {
    let checkpoint = Checkpoint::verified(&request.checkpoint, log).map_err(Refusal::Unsigned)?;
    let malformed = |reason: &str| Refusal::Malformed { reason: reason.to_owned() };
    if request.old > checkpoint.size() {
        return Err(malformed("the old size is larger than the new one"));
    }
    if request.old != seen.size {
        return Err(Refusal::Conflict { size: seen.size });
    }
    let root = checkpoint.root();
    if checkpoint.size() == seen.size {
        if !request.proof.is_empty() {
            return Err(malformed("a proof between equal sizes"));
        }
        if root != seen.root {
            return Err(Refusal::Conflict { size: seen.size });
        }
    } else if seen.size == 0 {
        if !request.proof.is_empty() {
            return Err(malformed("a proof from an empty tree"));
        }
    } else {
        merkle::verify_consistency(seen.size, checkpoint.size(), &request.proof, &seen.root, &root)
            .map_err(Refusal::Inconsistent)?;
    }
    let signature = cosignature::sign(&request.checkpoint, key, time).map_err(Refusal::Signing)?;
    Ok((signature, Seen { size: checkpoint.size(), root }))
}

/// Extracts the witness's valid signatures from its answer.
///
/// # Errors
/// [`policy::Error::Cosignature`] when the answer is malformed, or has no signature by the witness or an
/// invalid one.
pub fn from_answer(
    answer: &str,
    checkpoint: &Note,
    witness: &VerifierKey,
) -> Result<Vec<Signature>, policy::Error> {
    let malformed =
        || policy::Error::Cosignature(note::Error::Note { reason: "no signature lines".to_owned() });
    let mut note = checkpoint.clone();
    for line in answer.strip_suffix('\n').ok_or_else(malformed)?.split('\n').take(note::MOST_SIGNATURES) {
        note.add(Signature::from_line(line).map_err(policy::Error::Cosignature)?);
    }
    cosignature::verify(&note, witness).map_err(policy::Error::Cosignature)?;
    let signatures = note.by(witness).map_err(policy::Error::Cosignature)?;
    Ok(signatures.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::super::merkle::tests::Memory;
    use super::super::note::Role;
    use super::*;

    struct Lab {
        log: SigningKey,
        witness: SigningKey,
        memory: Memory,
        roots: Vec<Hash>,
    }

    fn lab() -> Lab {
        let (memory, roots) = Memory::of(20);
        let log = SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap();
        let witness = SigningKey::new("witness.example", Role::Witness, &[2; 32]).unwrap();
        Lab { log, witness, memory, roots }
    }

    impl Lab {
        fn checkpoint(&self, size: usize) -> Note {
            Checkpoint::new("log.example", size as u64, self.roots[size]).unwrap().sign(&self.log).unwrap()
        }

        fn request(&self, old: u64, new: usize) -> Request {
            let proof = match old {
                0 => Vec::new(),
                old => merkle::prove_consistency(&self.memory, old, new as u64).unwrap_or_default(),
            };
            Request { old, proof, checkpoint: self.checkpoint(new) }
        }

        fn seen(&self, size: usize) -> Seen {
            Seen { size: size as u64, root: self.roots[size] }
        }

        fn cosign(&self, request: &Request, seen: &Seen) -> Result<(Signature, Seen), Refusal> {
            let request = Request::parse(request.to_text().as_bytes()).unwrap();
            assert_eq!(request.origin(), "log.example");
            cosign(&request, self.log.public(), seen, &self.witness, 77)
        }
    }

    #[test]
    fn a_log_that_grows_is_cosigned_step_by_step() {
        let lab = lab();
        let mut seen = Seen::nothing();
        for (old, new) in [(0, 0), (0, 3), (3, 3), (3, 8), (8, 20)] {
            let request = lab.request(old, new);
            let (signature, now) = lab.cosign(&request, &seen).unwrap();
            assert_eq!(now, lab.seen(new));
            seen = now;
            let answer = signature.to_line();
            let signatures = from_answer(&answer, &request.checkpoint, lab.witness.public()).unwrap();
            assert_eq!(signatures, [signature]);
        }
    }

    #[test]
    fn a_fork_a_roll_back_and_a_wrong_state_are_refused() {
        let lab = lab();
        let status = |request: &Request, seen: &Seen| lab.cosign(request, seen).unwrap_err().status();
        // The witness saw another size.
        assert_eq!(status(&lab.request(3, 8), &lab.seen(4)), 409);
        assert_eq!(status(&lab.request(0, 8), &lab.seen(4)), 409);
        // Roll-back.
        assert_eq!(status(&lab.request(8, 4), &lab.seen(8)), 400);
        // Forks, at the same size and at a larger one.
        let forked = Seen { size: 4, root: merkle::leaf(b"fork") };
        assert_eq!(status(&lab.request(4, 4), &forked), 409);
        assert_eq!(status(&lab.request(4, 8), &forked), 422);
        // A proof where the format allows none.
        let mut request = lab.request(0, 8);
        request.proof.push(merkle::empty_root());
        assert_eq!(status(&request, &Seen::nothing()), 400);
        let mut request = lab.request(8, 8);
        request.proof.push(merkle::empty_root());
        assert_eq!(status(&request, &lab.seen(8)), 400);
        // Another key.
        let other = SigningKey::new("log.example", Role::Log, &[3; 32]).unwrap();
        let mut request = lab.request(0, 8);
        request.checkpoint = Checkpoint::new("log.example", 8, lab.roots[8]).unwrap().sign(&other).unwrap();
        assert_eq!(status(&request, &Seen::nothing()), 403);
    }

    #[test]
    fn a_malformed_request_is_refused() {
        let lab = lab();
        let text = lab.request(3, 8).to_text();
        for (from, to) in [("old 3", "old 03"), ("old 3\n", ""), ("old 3\n", "old 3\nAAAA\n"), ("\n\n", "\n")]
        {
            let error = Request::parse(text.replacen(from, to, 2).as_bytes()).unwrap_err();
            assert_eq!(error.status(), 400);
        }
        let long =
            text.replacen("old 3\n", &format!("old 3\n{}", format!("{}\n", lab.roots[1]).repeat(64)), 1);
        assert!(Request::parse(long.as_bytes()).is_err());
        assert!(Request::parse(b"\xff").is_err());
    }

    #[test]
    fn an_answer_without_the_witness_is_refused() {
        let lab = lab();
        let checkpoint = lab.checkpoint(8);
        let other = SigningKey::new("witness.example", Role::Witness, &[4; 32]).unwrap();
        let line = cosignature::sign(&checkpoint, &other, 1).unwrap().to_line();
        let mut wrong = cosignature::sign(&checkpoint, &lab.witness, 1).unwrap();
        wrong.bytes[3] ^= 1;
        for answer in [String::new(), "\n".to_owned(), "8\n".to_owned(), line, wrong.to_line()] {
            assert!(from_answer(&answer, &checkpoint, lab.witness.public()).is_err(), "{answer:?}");
        }
    }
}
