//! Yields proof that an entry is in a log that a policy trusts, from one small file.
//!
//! # Shape
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64>                  optional, not authenticated
//! index <decimal>
//! <hash in base64>                any number: the inclusion proof, from the leaf's sibling up
//! <empty line>
//! <checkpoint: a signed note>
//! ```
//!
//! # Source
//! C2SP `tlog-proof`.
//!
//! # Not here
//! The entry itself: the caller must have it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::decimal;
use super::merkle::{self, Hash};
use super::note::{self, Note};
use super::tlog_policy::{self as policy, Accepted, Policy};
use crate::Verified;

/// The first line.
const MAGIC: &str = "c2sp.org/tlog-proof@v1";
/// The most hashes in a proof: one per level.
const MOST_HASHES: usize = 64;

/// Why a proof is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file breaks the format.
    #[error("malformed proof: {reason}")]
    Text {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The checkpoint is not a note.
    #[error(transparent)]
    Note(#[from] note::Error),
    /// The policy refuses the checkpoint.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// The entry is not at that index of that tree.
    #[error(transparent)]
    Merkle(#[from] merkle::Error),
}

/// A proof, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Data that the application added. It is never authenticated.
    pub extra: Option<Vec<u8>>,
    /// The index of the entry.
    pub index: u64,
    /// The inclusion proof.
    pub hashes: Vec<Hash>,
    /// The state of the log that the proof leads to.
    pub checkpoint: Note,
}

impl Proof {
    /// Reads a proof.
    ///
    /// # Errors
    /// [`Error::Text`], [`Error::Note`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |reason| Error::Text { reason };
        if bytes.len() > note::MOST_BYTES {
            return Err(wrong("longer than 1 MiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| wrong("no empty line"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(MAGIC) {
            return Err(wrong("the first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra = match lines.next_if(|line| line.starts_with("extra ")) {
            Some(line) => {
                let text = line.strip_prefix("extra ").unwrap_or_default();
                Some(STANDARD.decode(text).map_err(|_| wrong("extra data that is not base64"))?)
            }
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal);
        let index = index.ok_or_else(|| wrong("no index in plain decimal"))?;
        let mut hashes = Vec::new();
        for line in lines {
            if hashes.len() == MOST_HASHES {
                return Err(wrong("more than 64 hashes"));
            }
            hashes
                .push(Hash::from_base64(line).ok_or_else(|| wrong("a hash that is not 32 bytes of base64"))?);
        }
        Ok(Proof { extra, index, hashes, checkpoint: Note::parse(checkpoint.as_bytes())? })
    }

    /// Checks that an entry is in a log that the policy trusts.
    ///
    /// # Errors
    /// The reason why the proof is invalid.
    pub fn verify(&self, entry: &[u8], policy: &Policy) -> Result<Verified<Accepted>, Error> {
        let accepted = policy.accept(&self.checkpoint)?;
        let checkpoint = accepted.checkpoint();
        let leaf = merkle::leaf(entry);
        merkle::verify_inclusion(&leaf, self.index, checkpoint.size(), &self.hashes, &checkpoint.root())?;
        Ok(accepted)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{MAGIC}")?;
        if let Some(extra) = &self.extra {
            writeln!(out, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(out, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(out, "{hash}"))?;
        write!(out, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::super::merkle::tests::Memory;
    use super::super::note::{Role, SigningKey, tests::vectors};
    use super::super::tile::{Kind, Name, Source, Tree, tests::Folder};
    use super::super::{checkpoint::Checkpoint, cosignature};
    use super::*;

    fn made() -> (Proof, Policy) {
        let log = SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap();
        let witness = SigningKey::new("witness.example", Role::Witness, &[2; 32]).unwrap();
        let (memory, roots) = Memory::of(11);
        let mut checkpoint = Checkpoint::new("log.example", 11, roots[11]).unwrap().sign(&log).unwrap();
        checkpoint.add(cosignature::sign(&checkpoint, &witness, 5).unwrap());
        let hashes = merkle::prove_inclusion(&memory, 6, 11).unwrap();
        let policy = format!("log {}\nwitness w {}\nquorum w\n", log.public(), witness.public());
        (Proof { extra: None, index: 6, hashes, checkpoint }, Policy::parse(&policy).unwrap())
    }

    #[test]
    fn a_proof_is_written_read_and_holds() {
        let (mut proof, policy) = made();
        for extra in [None, Some(b"more".to_vec()), Some(Vec::new())] {
            proof.extra = extra;
            let again = Proof::parse(proof.to_string().as_bytes()).unwrap();
            assert_eq!(again, proof);
            let accepted = again.verify(&6u64.to_be_bytes(), &policy).unwrap();
            assert_eq!((accepted.checkpoint().size(), accepted.cosigned()["w"]), (11, 5));
        }
    }

    #[test]
    fn a_forged_proof_is_refused() {
        let (good, policy) = made();
        let entry = 6u64.to_be_bytes();
        assert!(matches!(good.verify(&7u64.to_be_bytes(), &policy), Err(Error::Merkle(_))));
        let mut proof = good.clone();
        proof.index = 7;
        assert!(matches!(proof.verify(&entry, &policy), Err(Error::Merkle(_))));
        let mut proof = good.clone();
        proof.hashes[1].0[0] ^= 1;
        assert!(matches!(proof.verify(&entry, &policy), Err(Error::Merkle(_))));
        let mut proof = good.clone();
        proof.hashes.pop();
        assert!(matches!(proof.verify(&entry, &policy), Err(Error::Merkle(_))));
        let text = good.to_string();
        let unwitnessed =
            text.split_inclusive('\n').filter(|line| !line.contains("witness")).collect::<String>();
        let proof = Proof::parse(unwitnessed.as_bytes()).unwrap();
        assert!(matches!(proof.verify(&entry, &policy), Err(Error::Policy(policy::Error::Quorum { .. }))));
        let proof = Proof::parse(text.replace("\n11\n", "\n12\n").as_bytes()).unwrap();
        assert!(matches!(proof.verify(&entry, &policy), Err(Error::Policy(_))));
    }

    #[test]
    fn a_malformed_proof_is_refused() {
        let text = made().0.to_string();
        for (from, to) in [
            ("@v1", "@v2"),
            ("index 6", "index 06"),
            ("index 6", "index +6"),
            ("index 6\n", ""),
            ("index 6", "extra AAAA"),
            ("index 6", "extra ?\nindex 6"),
            ("index 6\n", "index 6\nAAAA\n"),
            ("\n\n", "\n"),
        ] {
            assert!(Proof::parse(text.replacen(from, to, 2).as_bytes()).is_err(), "{from:?} to {to:?}");
        }
        let hash = merkle::empty_root();
        let long = text.replacen("index 6\n", &format!("index 6\n{}", format!("{hash}\n").repeat(65)), 1);
        assert!(Proof::parse(long.as_bytes()).is_err());
        assert!(Proof::parse(b"\xff").is_err());
    }

    #[test]
    fn each_entry_of_a_real_rekor_is_proven_from_its_tiles() {
        let Some(folder) = vectors("sigstore/recorded-local/rekor-v2") else { return };
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let lines = format!("log {}\n{}", text("log.vkey").trim(), text("witness-policy.txt"));
        let policy = Policy::parse(&lines).unwrap();
        let checkpoint = Note::parse(text("store/checkpoint").as_bytes()).unwrap();
        let store = Folder(folder.join("store"));
        let tree = Tree::new(&store, 31);
        let name = Name::in_tree(Kind::Entries, 0, 31).unwrap();
        let bundle = store.tile(&name).unwrap();
        for (index, entry) in (0..).zip(name.entries(&bundle).unwrap()) {
            let hashes = merkle::prove_inclusion(&tree, index, 31).unwrap();
            let proof = Proof { extra: None, index, hashes, checkpoint: checkpoint.clone() };
            Proof::parse(proof.to_string().as_bytes()).unwrap().verify(entry, &policy).unwrap();
        }
    }
}
