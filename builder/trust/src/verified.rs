//! Yields the mark of what was verified: a type that only this crate's judges can make.

use std::ops::Deref;

/// A value that passed its verifier; nothing else can make one.
///
/// Whoever asks for a `Verified<T>` gets what a judge of this crate let pass. There is no other way to one:
///
/// ```compile_fail
/// let forged = proofmark_trust::Verified(7);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Marks what has just been verified.
    pub(crate) fn by_its_judge(value: T) -> Self {
        Verified(value)
    }

    /// Gives the value up, and with it the proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
