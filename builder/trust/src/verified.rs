//! Yields the mark of a verified value: a type that only the verifiers of this crate construct.

use std::ops::Deref;

/// A value that passed its verifier.
///
/// Only the verifiers of this crate construct one:
///
/// ```compile_fail
/// let forged = proofmark_trust::Verified(7);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Marks a value that its verifier has just accepted.
    pub(crate) fn by_its_judge(value: T) -> Self {
        Verified(value)
    }

    /// Unwraps the value, which loses the proof.
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
