//! Yields messages for people about a failure, and the exit code; no other module chooses either.
//!
//! # Shape
//! ```text
//! error: what failed
//! caused by: why
//! hint: what to do next
//! ```
//! Exit codes: 0 done, 1 failed, 2 usage, 3 the network or another outside cause, 4 verified and the answer is no.

use std::error::Error;
use std::process::ExitCode;

use proofmark::advice::{Advice, Advised, FAILED};
use proofmark::host::{
    built, carried, configuration, earlier_build, fetch, fulcio, locking, osv, outputs, publication,
    recipe_folder, signer, starter, store, tlog,
};
use proofmark::trust::attestation;
use proofmark::{assemble, flow, lock, recipe};

/// The answer to a check is no.
pub const NO: u8 = 4;

/// A failure whose next step is known where it occurs.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Hinted {
    /// What failed.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

/// Makes a failure with a next step.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into() }.into()
}

impl Advised for Hinted {
    fn advice(&self) -> Option<Advice> {
        Some(Advice::failed(self.hint.clone()))
    }
}

/// Asks a cause for advice, if it is an error of this type.
fn ask<E: Advised + 'static>(cause: &(dyn Error + 'static)) -> Option<Advice> {
    cause.downcast_ref::<E>()?.advice()
}

/// The error types that may know what to do next.
const ADVISED: [fn(&(dyn Error + 'static)) -> Option<Advice>; 31] = [
    ask::<Box<assemble::Error>>,
    ask::<Box<tlog::Error>>,
    ask::<Hinted>,
    ask::<assemble::Error>,
    ask::<attestation::Error>,
    ask::<built::Error>,
    ask::<carried::Error>,
    ask::<configuration::Error>,
    ask::<earlier_build::Error>,
    ask::<fetch::Error>,
    ask::<flow::audit::Error>,
    ask::<flow::build::Error>,
    ask::<flow::lock::Error>,
    ask::<flow::measure::Error>,
    ask::<flow::publish::Error>,
    ask::<flow::rebuild::Error>,
    ask::<flow::verify::Error>,
    ask::<fulcio::Error>,
    ask::<lock::Error>,
    ask::<locking::Error>,
    ask::<tlog::Error>,
    ask::<tlog::directory::Error>,
    ask::<osv::Error>,
    ask::<outputs::Error>,
    ask::<publication::Error>,
    ask::<recipe::Error>,
    ask::<recipe_folder::Error>,
    ask::<signer::Error>,
    ask::<std::io::Error>,
    ask::<starter::Error>,
    ask::<store::Error>,
];

/// Prints what failed to standard error, and returns the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // A transparent error repeats its source.
        if said.last().is_some_and(|last| *last == text) {
            continue;
        }
        eprintln!("{}: {text}", if said.is_empty() { "error" } else { "caused by" });
        said.push(text);
    }
    let Advice { hint, exit_code } = advice(error);
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(exit_code)
}

/// The advice of the first cause that has any.
fn advice(error: &anyhow::Error) -> Advice {
    let said = error.chain().find_map(|cause| ADVISED.iter().find_map(|ask| ask(cause)));
    said.unwrap_or(Advice { hint: None, exit_code: FAILED })
}
