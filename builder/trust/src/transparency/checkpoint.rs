//! Yields the size and root of a log's tree at one time, from a note that the log signed.
//!
//! # Shape
//! ```text
//! <origin>
//! <size in decimal>
//! <root in base64>
//! <extension line>          any number, not empty
//! ```
//!
//! # Source
//! C2SP `tlog-checkpoint`. Extension lines: Rekor v1 writes one with a time.
//!
//! # Not here
//! Cosignatures and quorums: `cosignature`, `tlog_policy`.

use super::merkle::Hash;
use super::note::{self, Note, SigningKey, VerifierKey};

/// Why a checkpoint is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The note's text is not a checkpoint.
    #[error("malformed checkpoint: {reason}")]
    Text {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The note cannot be read, or the log has not signed it.
    #[error(transparent)]
    Note(#[from] note::Error),
    /// The log's key signed another log's checkpoint.
    #[error("checkpoint is of log {found:?}, expected {expected:?}")]
    Origin {
        /// The key's name.
        expected: String,
        /// The origin found.
        found: String,
    },
}

/// A state of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
    extensions: Vec<String>,
}

/// Reads a number without leading zeros or sign.
pub fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl Checkpoint {
    /// Creates a checkpoint.
    ///
    /// # Errors
    /// [`Error::Text`] when the origin is invalid.
    pub fn new(origin: &str, size: u64, root: Hash) -> Result<Self, Error> {
        if origin.is_empty() || origin.bytes().any(|byte| byte < 0x20) {
            return Err(Error::Text { reason: "an empty origin, or one with control characters" });
        }
        Ok(Checkpoint { origin: origin.to_owned(), size, root, extensions: Vec::new() })
    }

    /// Reads a note's text. Do not trust the result before the note is verified.
    ///
    /// # Errors
    /// [`Error::Text`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Text { reason };
        let text = text.strip_suffix('\n').ok_or_else(|| wrong("no final newline"))?;
        let mut lines = text.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or_else(|| wrong("no origin"))?;
        let size = lines.next().and_then(decimal).ok_or_else(|| wrong("the size is not a plain decimal"))?;
        let root = lines.next().and_then(Hash::from_base64);
        let root = root.ok_or_else(|| wrong("the root is not 32 bytes of base64"))?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(wrong("an empty extension line"));
        }
        if size == 0 && root != super::merkle::empty_root() {
            return Err(wrong("an empty tree with a root that is not the empty tree's"));
        }
        Ok(Checkpoint { origin: origin.to_owned(), size, root, extensions })
    }

    /// Verifies a note and reads the state that the key signed for the log of the key's name.
    ///
    /// # Errors
    /// The reason for refusal.
    pub fn verified(note: &Note, key: &VerifierKey) -> Result<Self, Error> {
        note.verify(key)?;
        let checkpoint = Self::parse(note.text())?;
        // Rekor v1 writes its tree ID after the name: `rekor.example - 123`.
        let origin = checkpoint.origin.split_once(" - ").map_or(checkpoint.origin.as_str(), |(name, _)| name);
        let expected = match key.material() {
            note::Material::Ecdsa(_) => origin,
            _ => checkpoint.origin.as_str(),
        };
        if expected != key.name() {
            return Err(Error::Origin { expected: key.name().to_owned(), found: checkpoint.origin });
        }
        Ok(checkpoint)
    }

    /// Makes a note of the state, signed by the log.
    ///
    /// # Errors
    /// [`Error::Origin`] when the key belongs to another log, [`Error::Note`] when it is a witness's.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, Error> {
        if key.public().name() != self.origin {
            return Err(Error::Origin {
                expected: key.public().name().to_owned(),
                found: self.origin.clone(),
            });
        }
        let mut note = Note::new(self.to_text())?;
        key.sign(&mut note)?;
        Ok(note)
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The number of leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The note's text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, self.root);
        for line in &self.extensions {
            text += line;
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::merkle::{empty_root, leaf};
    use super::super::note::Role;
    use super::*;

    #[test]
    fn a_checkpoint_is_what_its_log_signed() {
        let key = SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap();
        let checkpoint = Checkpoint::new("log.example", 3, leaf(b"x")).unwrap();
        let note = Note::parse(checkpoint.sign(&key).unwrap().to_string().as_bytes()).unwrap();
        assert_eq!(Checkpoint::verified(&note, key.public()).unwrap(), checkpoint);
        let other = SigningKey::new("log.other", Role::Log, &[1; 32]).unwrap();
        assert!(matches!(checkpoint.sign(&other), Err(Error::Origin { .. })));
        // The key signs for another log: the signature is valid, but the key's name is not the origin.
        let mut note = Note::new(checkpoint.to_text()).unwrap();
        other.sign(&mut note).unwrap();
        assert!(matches!(Checkpoint::verified(&note, other.public()), Err(Error::Origin { .. })));
        assert!(matches!(
            Checkpoint::verified(&note, key.public()),
            Err(Error::Note(note::Error::Unsigned { .. }))
        ));
    }

    #[test]
    fn extension_lines_are_kept() {
        let text = format!("log\n1\n{}\nTimestamp: 1\n", leaf(b"x"));
        assert_eq!(Checkpoint::parse(&text).unwrap().to_text(), text);
    }

    #[test]
    fn a_malformed_checkpoint_is_refused() {
        let root = leaf(b"x").to_base64();
        for text in [
            String::new(),
            "\n".to_owned(),
            format!("\n1\n{root}\n"),
            format!("log\n01\n{root}\n"),
            format!("log\n+1\n{root}\n"),
            format!("log\n-1\n{root}\n"),
            format!("log\n18446744073709551616\n{root}\n"),
            "log\n1\n".to_owned(),
            "log\n1\nAAAA\n".to_owned(),
            format!("log\n1\n{root}"),
            format!("log\n1\n{root}\n\n"),
            format!("log\n0\n{root}\n"),
        ] {
            assert!(matches!(Checkpoint::parse(&text), Err(Error::Text { .. })), "{text:?}");
        }
        assert_eq!(Checkpoint::parse(&format!("log\n0\n{}\n", empty_root())).unwrap().size(), 0);
        assert!(Checkpoint::new("", 0, empty_root()).is_err());
    }
}
