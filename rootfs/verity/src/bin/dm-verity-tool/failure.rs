//! The message for a failure, from an error chain.
//!
//! # Shape
//!
//! `error:`, then one `caused by:` for each source, then a `hint:` if there is one, on standard error.
//!
//! # Not here
//!
//! Wrong usage, which `clap` reports (exit code 2); a corrupt image, which is an answer (exit code 4).

use std::process::ExitCode;

use dm_verity_tool::{SuperblockError, VerifyError};

/// Prints the failure and returns the exit code 1.
pub fn tell(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("caused by: {cause}");
    }
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
    ExitCode::FAILURE
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(Hint { hint, .. }) = cause.downcast_ref() {
            return Some(*hint);
        }
        let superblock = match cause.downcast_ref() {
            Some(VerifyError::Superblock(superblock)) => Some(superblock),
            _ => cause.downcast_ref(),
        };
        match superblock {
            Some(SuperblockError::Signature { .. }) => {
                Some("a tree appended to its data starts at --hash-offset BYTES")
            }
            Some(SuperblockError::HashType { .. } | SuperblockError::Algorithm { .. }) => {
                Some("veritysetup reads other hash types and algorithms")
            }
            _ => None,
        }
    })
}

/// An error of the program itself, with a hint.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Hint {
    message: String,
    hint: &'static str,
}

impl Hint {
    /// Makes an error from a message and a hint.
    pub fn error(message: String, hint: &'static str) -> anyhow::Error {
        anyhow::Error::new(Self { message, hint })
    }
}
