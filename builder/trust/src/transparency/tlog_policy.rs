//! Yields which logs and witnesses vouch for a checkpoint, from a policy that names them.
//!
//! # Shape
//! ```text
//! # comment
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> all|any|<k> <name>...
//! quorum none|<name>
//! ```
//!
//! # Source
//! C2SP `tlog-policy`. Witnesses whose key type is not Ed25519 cosignature are refused, not ignored: a quorum
//! that needs them could never be met.
//!
//! # Not here
//! What the log holds and who signed an entry: `claim::appraisal`.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::{self, Checkpoint};
use super::cosignature;
use super::note::{self, Material, Note, VerifierKey};
use crate::Verified;

/// The longest policy that is read, in bytes.
pub const MOST_BYTES: usize = 1 << 20;

/// Why a policy is refused, or why it refuses a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line breaks the format.
    #[error("policy line {line}: {reason}")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A key in the policy is malformed.
    #[error("policy line {line} has no usable key")]
    Key {
        /// The line's number, from 1.
        line: usize,
        /// Why.
        source: note::Error,
    },
    /// There is no `quorum` line.
    #[error("the policy has no quorum line")]
    NoQuorum,
    /// No log of the policy signed the checkpoint.
    #[error("no log of the policy has signed the checkpoint of {origin:?}")]
    UnknownLog {
        /// The checkpoint's origin, unverified.
        origin: String,
    },
    /// The checkpoint itself is invalid.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A witness's signature is invalid.
    #[error(transparent)]
    Cosignature(note::Error),
    /// Too few witnesses cosigned.
    #[error("quorum {quorum:?} is not met: {} cosigned", if cosigned.is_empty() { "no witness".to_owned() } else { cosigned.join(", ") })]
    Quorum {
        /// The quorum's name.
        quorum: String,
        /// The names of the witnesses that cosigned.
        cosigned: Vec<String>,
    },
}

/// A trusted log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Its key, whose name is the log's origin.
    pub key: VerifierKey,
    /// The log's URL.
    pub url: Option<String>,
}

/// A trusted witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its name in the policy.
    pub name: String,
    /// Its key.
    pub key: VerifierKey,
    /// The witness's URL.
    pub url: Option<String>,
}

/// Members, and how many of them must have cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    least: usize,
    members: Vec<String>,
}

/// The trusted logs and witnesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Log>,
    witnesses: Vec<Witness>,
    groups: BTreeMap<String, Group>,
    /// `None` for `quorum none`.
    quorum: Option<String>,
}

/// A checkpoint that a policy accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    checkpoint: Checkpoint,
    log: VerifierKey,
    cosigned: BTreeMap<String, u64>,
}

impl Accepted {
    /// The state.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The key of the log that signed it.
    pub fn log(&self) -> &VerifierKey {
        &self.log
    }

    /// The policy's witnesses that cosigned, and when, in seconds since 1970.
    pub fn cosigned(&self) -> &BTreeMap<String, u64> {
        &self.cosigned
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`Error::Line`], [`Error::Key`], [`Error::NoQuorum`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut policy =
            Policy { logs: Vec::new(), witnesses: Vec::new(), groups: BTreeMap::new(), quorum: None };
        let mut quorums = 0;
        let mut members = BTreeSet::new();
        if text.len() > MOST_BYTES {
            return Err(Error::Line { line: 1, reason: format!("longer than {MOST_BYTES} bytes in all") });
        }
        for (line, text) in (1..).zip(text.split('\n')) {
            let wrong = |reason: &str| Error::Line { line, reason: reason.to_owned() };
            if text.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
                return Err(wrong("a control character"));
            }
            let items: Vec<&str> = text.split([' ', '\t']).filter(|item| !item.is_empty()).collect();
            match items.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["log", key] => policy.add_log(line, key, None)?,
                ["log", key, url] => policy.add_log(line, key, Some(url))?,
                ["witness", name, key] => policy.add_witness(line, name, key, None)?,
                ["witness", name, key, url] => policy.add_witness(line, name, key, Some(url))?,
                ["group", name, least, listed @ ..] if !listed.is_empty() => {
                    policy.free(line, name)?;
                    for member in listed {
                        if !policy.knows(member) {
                            return Err(wrong(&format!("{member:?} is not defined above")));
                        }
                        if !members.insert((*member).to_owned()) {
                            return Err(wrong(&format!("{member:?} is already a member")));
                        }
                    }
                    let least = match *least {
                        "all" => listed.len(),
                        "any" => 1,
                        number => checkpoint::decimal(number)
                            .and_then(|least| usize::try_from(least).ok())
                            .filter(|least| (1..=listed.len()).contains(least))
                            .ok_or_else(|| {
                                wrong("the threshold is not all, any or a number from 1 to the number of members")
                            })?,
                    };
                    let listed = listed.iter().map(|member| (*member).to_owned()).collect();
                    policy.groups.insert((*name).to_owned(), Group { least, members: listed });
                }
                ["quorum", name] => {
                    quorums += 1;
                    if quorums > 1 {
                        return Err(wrong("a second quorum"));
                    }
                    policy.quorum = match *name {
                        "none" => None,
                        name if policy.knows(name) => Some(name.to_owned()),
                        name => return Err(wrong(&format!("{name:?} is not defined above"))),
                    };
                }
                [first, ..] => return Err(wrong(&format!("not a line of a policy: {first:?}"))),
            }
        }
        if quorums == 0 { Err(Error::NoQuorum) } else { Ok(policy) }
    }

    fn knows(&self, name: &str) -> bool {
        self.groups.contains_key(name) || self.witnesses.iter().any(|witness| witness.name == name)
    }

    fn free(&self, line: usize, name: &str) -> Result<(), Error> {
        if name == "none" || self.knows(name) {
            return Err(Error::Line { line, reason: format!("{name:?} is taken") });
        }
        Ok(())
    }

    fn add_log(&mut self, line: usize, key: &str, url: Option<&&str>) -> Result<(), Error> {
        let wrong = |reason: &str| Error::Line { line, reason: reason.to_owned() };
        let key = VerifierKey::parse(key).map_err(|source| Error::Key { line, source })?;
        if matches!(key.material(), Material::Cosignature(_)) {
            return Err(wrong("a witness's key for a log"));
        }
        if self.logs.iter().any(|log| log.key.identity() == key.identity()) {
            return Err(wrong("a log's key a second time"));
        }
        self.logs.push(Log { key, url: url.map(|url| (*url).to_owned()) });
        Ok(())
    }

    fn add_witness(&mut self, line: usize, name: &str, key: &str, url: Option<&&str>) -> Result<(), Error> {
        let wrong = |reason: &str| Error::Line { line, reason: reason.to_owned() };
        self.free(line, name)?;
        let key = VerifierKey::parse(key).map_err(|source| Error::Key { line, source })?;
        if !matches!(key.material(), Material::Cosignature(_)) {
            return Err(wrong("a log's key for a witness"));
        }
        if self.witnesses.iter().any(|witness| witness.key.identity() == key.identity()) {
            return Err(wrong("a witness's key a second time"));
        }
        let url = url.map(|url| (*url).to_owned());
        self.witnesses.push(Witness { name: name.to_owned(), key, url });
        Ok(())
    }

    /// The logs.
    pub fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// The witnesses.
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// The quorum's name; `None` when no witness is required.
    pub fn quorum(&self) -> Option<&str> {
        self.quorum.as_deref()
    }

    fn met(&self, name: &str, cosigned: &BTreeMap<String, u64>) -> bool {
        match self.groups.get(name) {
            Some(group) => {
                group.members.iter().filter(|member| self.met(member, cosigned)).count() >= group.least
            }
            None => cosigned.contains_key(name),
        }
    }

    /// Accepts a checkpoint that a log of the policy signed for itself and a quorum cosigned. Signatures by
    /// unknown keys are ignored. An invalid signature by a known key is refused, even if the quorum would be
    /// met without it.
    ///
    /// # Errors
    /// The reason for refusal.
    pub fn accept(&self, note: &Note) -> Result<Verified<Accepted>, Error> {
        let mut signed = None;
        for log in &self.logs {
            match Checkpoint::verified(note, &log.key) {
                Ok(checkpoint) => {
                    signed = Some((checkpoint, log.key.clone()));
                    break;
                }
                Err(checkpoint::Error::Note(note::Error::Unsigned { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some((checkpoint, log)) = signed else {
            let origin = note.text().split('\n').next().unwrap_or_default().to_owned();
            return Err(Error::UnknownLog { origin });
        };
        let mut cosigned = BTreeMap::new();
        for witness in &self.witnesses {
            match cosignature::verify(note, &witness.key) {
                Ok(time) => {
                    cosigned.insert(witness.name.clone(), time);
                }
                Err(note::Error::Unsigned { .. }) => {}
                Err(error) => return Err(Error::Cosignature(error)),
            }
        }
        if let Some(quorum) = &self.quorum
            && !self.met(quorum, &cosigned)
        {
            let cosigned = cosigned.into_keys().collect();
            return Err(Error::Quorum { quorum: quorum.clone(), cosigned });
        }
        Ok(Verified::by_its_judge(Accepted { checkpoint, log, cosigned }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::merkle::leaf;
    use super::super::note::tests::vectors;
    use super::super::note::{Role, SigningKey};
    use super::*;

    fn log() -> SigningKey {
        SigningKey::new("log.example", Role::Log, &[9; 32]).unwrap()
    }

    fn witness(number: u8) -> SigningKey {
        SigningKey::new(&format!("witness.example/{number}"), Role::Witness, &[number; 32]).unwrap()
    }

    fn note(cosigners: &[u8]) -> Note {
        let mut note = Checkpoint::new("log.example", 1, leaf(b"x")).unwrap().sign(&log()).unwrap();
        for number in cosigners {
            note.add(cosignature::sign(&note, &witness(*number), 100 + u64::from(*number)).unwrap());
        }
        note
    }

    /// Six witnesses in two groups, as in the specification's example.
    fn example() -> Policy {
        let mut text = format!("# comment\n\n\tlog {}  https://log.example/ \n", log().public());
        for number in 1..=6 {
            text += &format!("witness w{number} {}\n", witness(number).public());
        }
        text += "group x 2 w1 w2 w3\ngroup y any w4 w5 w6\ngroup both all x y\nquorum both\n";
        Policy::parse(&text).unwrap()
    }

    #[test]
    fn a_quorum_of_groups_is_counted() {
        let policy = example();
        assert_eq!(policy.logs()[0].url.as_deref(), Some("https://log.example/"));
        for cosigners in [&[1, 2, 4][..], &[2, 3, 6], &[1, 2, 3, 4, 5, 6]] {
            let accepted = policy.accept(&note(cosigners)).unwrap();
            assert_eq!(accepted.cosigned().len(), cosigners.len());
            assert_eq!(accepted.checkpoint().size(), 1);
        }
        for cosigners in [&[][..], &[1, 4], &[1, 2, 3], &[4, 5, 6], &[1, 2, 7]] {
            assert!(matches!(policy.accept(&note(cosigners)), Err(Error::Quorum { .. })), "{cosigners:?}");
        }
    }

    #[test]
    fn a_quorum_of_one_witness_or_none_is_counted() {
        let text = format!("log {}\nwitness w {}\n", log().public(), witness(1).public());
        let one = Policy::parse(&format!("{text}quorum w\n")).unwrap();
        one.accept(&note(&[1])).unwrap();
        let error = one.accept(&note(&[2])).unwrap_err();
        assert_eq!(error.to_string(), "quorum \"w\" is not met: no witness cosigned");
        let none = Policy::parse(&format!("{text}quorum none")).unwrap();
        none.accept(&note(&[])).unwrap();
    }

    #[test]
    fn another_log_or_a_wrong_cosignature_is_refused() {
        let text = format!("log {}\nwitness w {}\nquorum none\n", log().public(), witness(1).public());
        let policy = Policy::parse(&text).unwrap();
        let other = SigningKey::new("log.example", Role::Log, &[8; 32]).unwrap();
        let forged = Checkpoint::new("log.example", 1, leaf(b"x")).unwrap().sign(&other).unwrap();
        assert!(matches!(policy.accept(&forged), Err(Error::UnknownLog { .. })));
        let mut wrong = note(&[]);
        let mut cosignature = cosignature::sign(&wrong, &witness(1), 1).unwrap();
        cosignature.bytes[0] ^= 1;
        wrong.add(cosignature);
        assert!(matches!(policy.accept(&wrong), Err(Error::Cosignature(note::Error::Invalid { .. }))));
    }

    #[test]
    fn the_policy_of_a_real_rekor_accepts_its_checkpoint() {
        let Some(folder) = vectors("sigstore/recorded-local/rekor-v2") else { return };
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let lines = format!("log {}\n{}", text("log.vkey").trim(), text("witness-policy.txt"));
        let policy = Policy::parse(&lines).unwrap();
        let note = Note::parse(text("store/checkpoint").as_bytes()).unwrap();
        let accepted = policy.accept(&note).unwrap();
        assert_eq!(accepted.checkpoint().size(), 31);
        assert_eq!(accepted.cosigned()["w1"], 0x6b03_40ec);
    }

    #[test]
    fn a_malformed_policy_is_refused_by_line() {
        let (log, a, b) = (log(), witness(1), witness(2));
        let (log, a, b) = (log.public(), a.public(), b.public());
        for (text, part) in [
            (String::new(), "no quorum line"),
            (format!("log {log}\n"), "no quorum line"),
            ("quorum none\nquorum none\n".to_owned(), "line 2: a second quorum"),
            ("quorum w\n".to_owned(), "\"w\" is not defined above"),
            (format!("quorum w\nwitness w {a}\n"), "line 1"),
            (format!("log {log}\nlog {log}\nquorum none\n"), "line 2: a log's key a second time"),
            (format!("witness a {a}\nwitness b {a}\nquorum none\n"), "line 2: a witness's key a second time"),
            (format!("witness a {a}\nwitness a {b}\nquorum none\n"), "line 2: \"a\" is taken"),
            (format!("witness none {a}\nquorum none\n"), "\"none\" is taken"),
            (format!("log {a}\nquorum none\n"), "a witness's key for a log"),
            (format!("witness a {log}\nquorum none\n"), "a log's key for a witness"),
            (format!("witness a {a}\ngroup g any\nquorum g\n"), "line 2: not a line"),
            (format!("witness a {a}\ngroup g 0 a\nquorum g\n"), "threshold"),
            (format!("witness a {a}\ngroup g 2 a\nquorum g\n"), "threshold"),
            (format!("witness a {a}\ngroup g 01 a\nquorum g\n"), "threshold"),
            (format!("witness a {a}\ngroup g all a a\nquorum g\n"), "already a member"),
            (format!("witness a {a}\ngroup g all a\ngroup h all a\nquorum g\n"), "already a member"),
            (format!("witness a {a}\ngroup g all none\nquorum g\n"), "not defined above"),
            ("group g all g\nquorum g\n".to_owned(), "not defined above"),
            ("log x\nquorum none\n".to_owned(), "line 1 has no usable key"),
            ("quorum none\r\n".to_owned(), "control character"),
            ("quorum\u{a0}none\n".to_owned(), "not a line"),
        ] {
            let error = Policy::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
