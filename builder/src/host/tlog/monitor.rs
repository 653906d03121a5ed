//! Yields alarms about a log since the last look, from its new entries and its state.
//!
//! # Shape
//! ```text
//! STATE/<SHA-256 of the origin>.checkpoint     the last verified state, a signed note
//! alarms   roll-back · fork · quorum lost · an entry by our key without a known envelope ·
//!          two statements of one kind for one image · one name and version for two images
//! ```
//! The first look at a log records its state and says so: it proves nothing about earlier states.
//!
//! # Not here
//! Whether the whole log is well-formed: `audit`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Error;
use super::medium::Medium;
use crate::claim::file;
use crate::claim::provenance::statement::{PROVENANCE, REFERENCE, Statement};
use crate::trust::envelope::{Envelope, IN_TOTO};
use crate::trust::transparency::checkpoint::Checkpoint;
use crate::trust::transparency::entry::{Entry, Verifier};
use crate::trust::transparency::merkle::{self, Hash};
use crate::trust::transparency::note::Note;
use crate::trust::transparency::tile::{Kind, Name, Source, Tree, WIDTH};
use crate::trust::transparency::tlog_policy::{self as policy, Policy};

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// The log is smaller than it was.
    RollBack {
        /// Entries before.
        before: u64,
        /// Entries now.
        now: u64,
    },
    /// The log's states are not consistent.
    Fork {
        /// Entries before.
        before: u64,
        /// Entries now.
        now: u64,
        /// Why.
        reason: String,
    },
    /// The state has the log's signature, but not the quorum that the policy requires.
    QuorumLost {
        /// Why.
        reason: String,
    },
    /// Our key signed something that we do not know.
    UnknownEnvelope {
        /// Index of the entry.
        index: u64,
        /// SHA-256 of the signed bytes, hexadecimal.
        digest: String,
    },
    /// Two statements of one kind about one image differ.
    TwoStatements {
        /// SHA-256 of the image.
        image: String,
        /// The predicate.
        predicate: String,
    },
    /// Two images have the same name and version.
    TwoImages {
        /// Name and version.
        name: String,
        /// SHA-256 of each image.
        images: BTreeSet<String>,
    },
    /// An entry or envelope cannot be read.
    Unreadable {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
}

/// The result of a look at a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Look {
    /// The log's origin.
    pub origin: String,
    /// Entries at the last look; `None` at the first.
    pub before: Option<u64>,
    /// Entries now.
    pub now: u64,
    /// New entries by our keys.
    pub ours: u64,
    /// The alarms.
    pub alarms: Vec<Alarm>,
}

/// Our identity and what we signed.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// Our public keys or certificates, DER.
    pub verifiers: BTreeSet<Vec<u8>>,
    /// Our envelopes, by the SHA-256 of the signed bytes.
    pub envelopes: BTreeMap<[u8; 32], Envelope>,
}

impl Own {
    /// Adds an envelope.
    pub fn knows(&mut self, envelope: Envelope) {
        self.envelopes.insert(Sha256::digest(envelope.pae()).into(), envelope);
    }
}

fn place(origin: &str) -> PathBuf {
    PathBuf::from(format!("{}.checkpoint", hex::encode(Sha256::digest(origin))))
}

/// Returns the contradictions between the envelopes that we know.
fn contradictions(own: &Own) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let mut statements: BTreeMap<(String, String), BTreeSet<[u8; 32]>> = BTreeMap::new();
    let mut images: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for envelope in own.envelopes.values().filter(|envelope| envelope.kind == IN_TOTO) {
        let Ok(statement) = Statement::parse(&envelope.payload) else { continue };
        let Some(disk) = statement.digest_of(file::DISK).map(str::to_owned) else { continue };
        if [PROVENANCE, REFERENCE].contains(&statement.predicate_kind.as_str()) {
            let key = (disk.clone(), statement.predicate_kind.clone());
            statements.entry(key).or_default().insert(Sha256::digest(&envelope.payload).into());
        }
        let parameter = |name| {
            let text = statement.predicate.pointer(&format!("/buildDefinition/externalParameters/{name}"));
            text.and_then(|text| text.as_str())
        };
        if let (Some(name), Some(version), Some(profile)) =
            (parameter("recipe"), parameter("version"), parameter("profile"))
        {
            images.entry(format!("{name} {version} ({profile})")).or_default().insert(disk);
        }
    }
    for ((image, predicate), payloads) in statements {
        if payloads.len() > 1 {
            alarms.push(Alarm::TwoStatements { image, predicate });
        }
    }
    for (name, images) in images {
        if images.len() > 1 {
            alarms.push(Alarm::TwoImages { name, images });
        }
    }
    alarms
}

/// Looks at a log, and records its state if it extends the last one.
///
/// # Errors
/// When no log of the policy signed the state, or the recorded state cannot be read.
pub fn look(
    source: &dyn Source,
    checkpoint: &Note,
    policy: &Policy,
    own: &Own,
    memory: &dyn Medium,
) -> Result<Look, Error> {
    let mut alarms = Vec::new();
    let state = state(checkpoint, policy, &mut alarms)?;
    let file = place(state.origin());
    let before = remembered(&file, &state, policy, memory)?;
    let size = state.size();
    let tree = Tree::new(source, size);
    let first = before.as_ref().map_or(size, Checkpoint::size);
    let broken = before.as_ref().and_then(|before| break_between(before, &state, &tree));
    let mut ours = 0;
    if let Some(alarm) = broken {
        alarms.push(alarm);
    } else {
        for (index, entry) in new_entries(source, &tree, first, size, state.root(), &mut alarms) {
            ours += u64::from(own.made(index, &entry, &mut alarms));
        }
        alarms.extend(contradictions(own));
        let unproven = alarms.iter().any(|alarm| matches!(alarm, Alarm::Fork { .. }));
        if !unproven {
            let beside = file.with_extension("new");
            let text = checkpoint.to_string();
            let kept = memory
                .write(&beside, text.as_bytes())
                .and_then(|()| memory.rename(&beside, &file))
                .and_then(|()| memory.settle(Path::new("")));
            kept.map_err(|source| unusable(&file, source))?;
        }
    }
    Ok(Look {
        origin: state.origin().to_owned(),
        before: before.map(|before| before.size()),
        now: size,
        ours,
        alarms,
    })
}

/// Returns the log's name, from its checkpoint.
fn origin(checkpoint: &Note) -> String {
    checkpoint.text().split('\n').next().unwrap_or_default().to_owned()
}

fn unusable(file: &Path, source: io::Error) -> Error {
    Error::Directory(super::directory::Error::Io { deed: "use", path: file.to_owned(), source })
}

/// Returns the state in a checkpoint that a log of the policy signed.
fn state(checkpoint: &Note, policy: &Policy, alarms: &mut Vec<Alarm>) -> Result<Checkpoint, Error> {
    match policy.accept(checkpoint) {
        Ok(accepted) => Ok(accepted.checkpoint().clone()),
        // A state with the log's signature is worth a look even without its witnesses: it may reveal a fork.
        Err(error @ (policy::Error::Quorum { .. } | policy::Error::Cosignature(_))) => {
            alarms.push(Alarm::QuorumLost { reason: error.to_string() });
            let signed = policy.logs().iter().find_map(|log| Checkpoint::verified(checkpoint, &log.key).ok());
            signed.ok_or_else(|| Error::Policy { log: origin(checkpoint), source: error })
        }
        Err(source) => Err(Error::Policy { log: origin(checkpoint), source }),
    }
}

/// Returns the state at the last look; `None` at the first.
fn remembered(
    file: &Path,
    state: &Checkpoint,
    policy: &Policy,
    memory: &dyn Medium,
) -> Result<Option<Checkpoint>, Error> {
    let Some(bytes) = memory.read(file).map_err(|source| unusable(file, source))? else { return Ok(None) };
    let note =
        Note::parse(&bytes).map_err(|source| Error::Note { log: state.origin().to_owned(), source })?;
    let mut known = policy.logs().iter().filter_map(|log| Checkpoint::verified(&note, &log.key).ok());
    let refused = || Error::Malformed {
        url: file.display().to_string(),
        reason: "the remembered state is not signed by a log of the policy".to_owned(),
    };
    Ok(Some(known.next().filter(|known| known.origin() == state.origin()).ok_or_else(refused)?))
}

/// Returns why a state does not extend the earlier one, if so.
fn break_between(before: &Checkpoint, state: &Checkpoint, tree: &Tree<'_>) -> Option<Alarm> {
    let sizes = (before.size(), state.size());
    if sizes.0 > sizes.1 {
        return Some(Alarm::RollBack { before: sizes.0, now: sizes.1 });
    }
    if sizes.0 == 0 {
        return None;
    }
    let proven = merkle::prove_consistency(tree, sizes.0, sizes.1).and_then(|proof| {
        merkle::verify_consistency(sizes.0, sizes.1, &proof, &before.root(), &state.root())
    });
    let reason = proven.err()?.to_string();
    Some(Alarm::Fork { before: sizes.0, now: sizes.1, reason })
}

impl Own {
    /// Tells whether an entry is by one of our keys; one that is and that we do not know is an alarm.
    fn made(&self, index: u64, entry: &[u8], alarms: &mut Vec<Alarm>) -> bool {
        let entry = match Entry::parse(entry) {
            Ok(entry) => entry,
            Err(error) => {
                let reason = crate::host::chain(&error);
                alarms.push(Alarm::Unreadable { what: format!("entry {index}"), reason });
                return false;
            }
        };
        let (Verifier::Key(der) | Verifier::Certificate(der)) = &entry.verifier;
        if !self.verifiers.contains(der) {
            return false;
        }
        // We did not make an entry with our digest and another signature either.
        if self.envelopes.get(&entry.digest).is_none_or(|envelope| envelope.signature != entry.signature) {
            alarms.push(Alarm::UnknownEnvelope { index, digest: hex::encode(entry.digest) });
        }
        true
    }
}

/// Returns the entries from `first` on, each proven in the state. The first one that cannot be proven is an
/// alarm, and ends the list.
fn new_entries(
    source: &dyn Source,
    tree: &Tree<'_>,
    first: u64,
    size: u64,
    root: Hash,
    alarms: &mut Vec<Alarm>,
) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    let width = u64::from(WIDTH);
    let mut number = first / width;
    while let Some(name) = Name::in_tree(Kind::Entries, number, size) {
        let bytes = source.tile(&name);
        let entries = bytes.as_ref().map_err(Clone::clone).and_then(|bytes| {
            name.entries(bytes)
                .or_else(|error| name.full().entries(bytes).map_err(|_| error))
                .map_err(|error| error.to_string())
        });
        let entries = match entries {
            Ok(entries) => entries,
            Err(reason) => {
                alarms.push(Alarm::Unreadable { what: name.to_string(), reason });
                return found;
            }
        };
        for (index, entry) in (number * width..size).zip(entries).filter(|(index, _)| *index >= first) {
            let proven = merkle::prove_inclusion(tree, index, size)
                .and_then(|proof| merkle::verify_inclusion(&merkle::leaf(entry), index, size, &proof, &root));
            if let Err(error) = proven {
                alarms.push(Alarm::Fork {
                    before: first,
                    now: size,
                    reason: format!("entry {index}: {error}"),
                });
                return found;
            }
            found.push((index, entry.to_vec()));
        }
        number += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::directory::{Directory, Unwitnessed, Writer};
    use super::super::medium::Disk;
    use super::*;
    use crate::trust::envelope::{self, pae};
    use crate::trust::transparency::note::{Role, SigningKey};

    fn log() -> SigningKey {
        SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap()
    }

    fn statement(disk: &str, version: &str, more: u32) -> Envelope {
        let payload = serde_json::json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "disk.raw", "digest": {"sha256": disk.repeat(64)}}],
            "predicateType": PROVENANCE,
            "predicate": {"more": more, "buildDefinition": {"externalParameters": {
                "recipe": "minimal", "version": version, "profile": "release"}}},
        });
        let payload = payload.to_string().into_bytes();
        let signature = ours().sign(&pae(IN_TOTO, &payload));
        Envelope { kind: IN_TOTO.to_owned(), payload, signature }
    }

    fn ours() -> envelope::SigningKey {
        envelope::SigningKey::from_seed(&[7; 32]).unwrap()
    }

    fn verifier() -> Verifier {
        Verifier::Key(ours().public().der().unwrap())
    }

    struct Lab {
        root: tempfile::TempDir,
        own: Own,
        policy: Policy,
    }

    fn lab() -> Lab {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("state")).unwrap();
        drop(Writer::init(&root.path().join("log"), log()).unwrap());
        let mut own = Own::default();
        own.verifiers.insert(ours().public().der().unwrap());
        let policy = Policy::parse(&format!("log {}\nquorum none\n", log().public())).unwrap();
        Lab { root, own, policy }
    }

    impl Lab {
        fn append(&self, entries: &[Vec<u8>]) {
            let mut writer = Writer::open(&self.root.path().join("log"), log()).unwrap();
            writer.append(entries, &Unwitnessed).unwrap();
        }

        fn look(&self) -> Look {
            let files = Directory::open(&self.root.path().join("log"));
            let memory = Disk::new(&self.root.path().join("state"));
            look(&files, &files.checkpoint().unwrap(), &self.policy, &self.own, &memory).unwrap()
        }
    }

    #[test]
    fn a_log_that_grows_with_known_entries_gives_no_alarm() {
        let mut lab = lab();
        assert_eq!(lab.look().before, None);
        let envelope = statement("1", "1.0", 0);
        lab.own.knows(envelope.clone());
        lab.append(&[envelope.entry(verifier()).to_bytes()]);
        let look = lab.look();
        assert_eq!((look.before, look.now, look.ours, look.alarms.len()), (Some(0), 1, 1, 0), "{look:?}");
        let again = lab.look();
        assert_eq!((again.before, again.now, again.ours), (Some(1), 1, 0));
    }

    #[test]
    fn an_entry_by_our_key_that_we_do_not_know_is_an_alarm() {
        let mut lab = lab();
        lab.look();
        let known = statement("1", "1.0", 0);
        lab.own.knows(known.clone());
        let unknown = statement("2", "6.6", 0);
        let mut resigned = known.entry(verifier());
        resigned.signature = unknown.signature.clone();
        let mut foreign = unknown.entry(verifier());
        foreign.verifier = Verifier::Key(b"somebody else".to_vec());
        lab.append(&[
            known.entry(verifier()).to_bytes(),
            unknown.entry(verifier()).to_bytes(),
            resigned.to_bytes(),
            foreign.to_bytes(),
            b"nonsense".to_vec(),
        ]);
        let look = lab.look();
        let unknown = hex::encode(unknown.entry(verifier()).digest);
        assert_eq!(look.ours, 3);
        assert_eq!(look.alarms[0], Alarm::UnknownEnvelope { index: 1, digest: unknown });
        assert!(matches!(look.alarms[1], Alarm::UnknownEnvelope { index: 2, .. }));
        assert!(matches!(&look.alarms[2], Alarm::Unreadable { what, .. } if what == "entry 4"));
        assert_eq!(look.alarms.len(), 3);
    }

    #[test]
    fn two_statements_for_one_image_and_two_images_of_one_version_are_alarms() {
        let mut lab = lab();
        lab.look();
        for envelope in [statement("1", "1.0", 0), statement("1", "1.0", 1), statement("2", "1.0", 0)] {
            lab.own.knows(envelope);
        }
        let alarms = lab.look().alarms;
        assert!(matches!(&alarms[0], Alarm::TwoStatements { image, .. } if *image == "1".repeat(64)));
        assert!(matches!(&alarms[1], Alarm::TwoImages { images, .. } if images.len() == 2), "{alarms:?}");
    }

    #[test]
    fn a_roll_back_and_a_fork_are_alarms_and_are_not_remembered() {
        let lab = lab();
        lab.append(&[b"a".to_vec(), b"b".to_vec()]);
        lab.look();
        let folder = lab.root.path().join("log");
        std::fs::rename(&folder, lab.root.path().join("kept")).unwrap();
        let mut fork = Writer::init(&folder, log()).unwrap();
        fork.append(&[b"x".to_vec()], &Unwitnessed).unwrap();
        drop(fork);
        assert_eq!(lab.look().alarms, [Alarm::RollBack { before: 2, now: 1 }]);
        lab.append(&[b"y".to_vec()]);
        assert!(matches!(lab.look().alarms.as_slice(), [Alarm::Fork { before: 2, now: 2, .. }]));
        lab.append(&[b"z".to_vec()]);
        for _ in 0..2 {
            assert!(matches!(lab.look().alarms.as_slice(), [Alarm::Fork { before: 2, now: 3, .. }]));
        }
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::rename(lab.root.path().join("kept"), &folder).unwrap();
        assert_eq!(lab.look().alarms, []);
    }

    #[test]
    fn a_lost_quorum_a_changed_entry_and_a_forged_memory_are_noticed() {
        let mut lab = lab();
        lab.look();
        lab.append(&[statement("1", "1.0", 0).entry(verifier()).to_bytes()]);
        let witness = SigningKey::new("witness.example", Role::Witness, &[2; 32]).unwrap();
        let text = format!("log {}\nwitness w {}\nquorum w\n", log().public(), witness.public());
        let lax = std::mem::replace(&mut lab.policy, Policy::parse(&text).unwrap());
        assert!(lab.look().alarms.iter().any(|alarm| matches!(alarm, Alarm::QuorumLost { .. })));
        lab.policy = lax;
        lab.append(&[statement("2", "1.0", 0).entry(verifier()).to_bytes()]);
        let bundle = lab.root.path().join("log/tile/entries/000.p/2");
        let mut bytes = std::fs::read(&bundle).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&bundle, bytes).unwrap();
        assert!(matches!(lab.look().alarms.as_slice(), [Alarm::Fork { .. }]));
        let memory = lab.root.path().join("state").join(place("log.example"));
        let other = SigningKey::new("log.example", Role::Log, &[9; 32]).unwrap();
        let forged = Checkpoint::new("log.example", 0, merkle::empty_root()).unwrap().sign(&other).unwrap();
        std::fs::write(&memory, forged.to_string()).unwrap();
        let files = Directory::open(&lab.root.path().join("log"));
        let disk = Disk::new(&lab.root.path().join("state"));
        assert!(look(&files, &files.checkpoint().unwrap(), &lab.policy, &lab.own, &disk).is_err());
    }
}
