//! Yields the next step and the exit code of an error; each error type implements [`Advised`] beside its definition.
//!
//! # Shape
//! ```text
//! 1 failed   3 the network or another outside cause   (0 done, 2 usage and 4 "the answer is no" are not errors)
//! ```
//!
//! # Not here
//! Asking and printing: `failure`.

use std::error::Error;
use std::io;

/// Exit code of a failure.
pub const FAILED: u8 = 1;
/// Exit code of a failure of the network or another outside cause.
pub const OUTSIDE: u8 = 3;

/// What to do next, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What to do next, if that is known.
    pub hint: Option<String>,
    /// The exit code.
    pub exit_code: u8,
}

impl Advice {
    /// Advice after a failure, with [`FAILED`] as the exit code.
    pub fn failed(hint: impl Into<String>) -> Self {
        Advice { hint: Some(hint.into()), exit_code: FAILED }
    }

    /// Advice after a failure from outside, with [`OUTSIDE`] as the exit code.
    pub fn outside(hint: impl Into<String>) -> Self {
        Advice { hint: Some(hint.into()), exit_code: OUTSIDE }
    }
}

/// An error that may know what to do next.
///
/// A transparent error answers for its inner error, which the chain of causes skips.
pub trait Advised: Error {
    /// What to do next; `None` defers to the error's cause.
    fn advice(&self) -> Option<Advice>;
}

impl<E: Advised> Advised for Box<E> {
    fn advice(&self) -> Option<Advice> {
        (**self).advice()
    }
}

impl Advised for io::Error {
    fn advice(&self) -> Option<Advice> {
        let full = self.kind() == io::ErrorKind::StorageFull;
        full.then(|| Advice::failed("make room on that disk; nothing was changed"))
    }
}
