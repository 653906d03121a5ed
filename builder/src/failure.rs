//! Speaks to people when something failed, and chooses the exit code: nobody else does either.
//!
//! # Shape
//! ```text
//! error: what failed
//! caused by: why
//! hint: what to do next
//! ```
//! Exit codes: 0 done, 1 failed, 2 usage, 3 the network or another outside cause, 4 verified and the answer is no.

use std::error::Error;
use std::io::ErrorKind;
use std::process::ExitCode;

use proofmark::host::{built, carried, fetch, fulcio, locking, log, osv, outputs, publish, signer, store};
use proofmark::trust::attestation;
use proofmark::{assemble, lock, recipe};

/// The answer to a check is no.
pub const NO: u8 = 4;

/// What to do when an attestation is not believed that may be right.
pub const NEWER_KEYS: &str = "if npm's registry or Sigstore has keys that this program does not know yet, give them by \
                              --npm-keys FILE and --npm-trusted-root FILE, as Sigstore's TUF repository has them";

/// A failure whose next step is known where it happens.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Hinted {
    /// What failed.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

/// A failure with a next step.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into() }.into()
}

/// The error that a transparent one stands for: the chain of causes passes it over.
fn meant<'e>(cause: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    if let Some(inner) = cause.downcast_ref::<Box<assemble::Error>>() {
        return meant(&**inner);
    }
    if let Some(inner) = cause.downcast_ref::<Box<log::Error>>() {
        return meant(&**inner);
    }
    if let Some(log::Error::Directory(inner)) = cause.downcast_ref() {
        return inner;
    }
    match (cause.downcast_ref(), cause.downcast_ref(), cause.downcast_ref()) {
        (Some(locking::Error::Fetch(inner)), ..) => meant(inner),
        (Some(locking::Error::Store(inner)), ..) => inner,
        (_, Some(assemble::Error::Blob(inner)), _) => &**inner,
        (.., Some(fetch::Error::Store(inner))) => inner,
        _ => cause,
    }
}

/// Says what failed, on standard error, and gives the exit code.
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
    let (hint, code) = advice(error);
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(code)
}

/// What to do next, and the exit code.
fn advice(error: &anyhow::Error) -> (Option<String>, u8) {
    for cause in error.chain().map(meant) {
        if let Some(hinted) = cause.downcast_ref::<Hinted>() {
            return (Some(hinted.hint.clone()), 1);
        }
        if let Some(hint) = cause.downcast_ref::<osv::Error>().and_then(osv::Error::hint) {
            return (Some(hint.to_owned()), 1);
        }
        if let Some(hint) = cause.downcast_ref::<built::Error>().and_then(built::Error::hint) {
            return (Some(hint.to_owned()), 1);
        }
        if let Some(signer::Error::Readable { path, .. }) = cause.downcast_ref() {
            return (
                Some(format!("run `chmod 600 {}`, and think of who may have read it", path.display())),
                1,
            );
        }
        match cause.downcast_ref() {
            Some(log::directory::Error::Missing { .. }) => {
                return (Some("make a log by `proofmark log init DIR --key FILE`".to_owned()), 1);
            }
            Some(log::directory::Error::Unwitnessed { .. }) => {
                let hint = "run the command again when the witnesses answer: what is signed is kept, and nothing is \
                            published without them";
                return (Some(hint.to_owned()), 3);
            }
            _ => {}
        }
        if let Some(publish::Error::Refused { .. }) = cause.downcast_ref() {
            let hint = "no bundle is written: certificate, stamp and logs have to be those of --trusted-root and --log-policy";
            return (Some(hint.to_owned()), 1);
        }
        match cause.downcast_ref() {
            Some(fulcio::Error::Authority(log::Error::Status { .. })) => {
                let hint =
                    "get a new identity token: they hold for minutes, and are made out for one audience";
                return (Some(hint.to_owned()), 3);
            }
            Some(fulcio::Error::Token { .. }) => {
                let hint = "write the token alone into the file, as its issuer gives it";
                return (Some(hint.to_owned()), 1);
            }
            Some(fulcio::Error::OtherKey | fulcio::Error::Certificate(_)) => {
                let hint = "nothing was signed: look whether the address is that of a Fulcio";
                return (Some(hint.to_owned()), 1);
            }
            _ => {}
        }
        match cause.downcast_ref() {
            Some(log::Error::Unreachable { .. }) => {
                return (Some("run the command again: it goes on where it was".to_owned()), 3);
            }
            Some(log::Error::Status { .. }) => return (None, 3),
            _ => {}
        }
        if let Some(recipe::Error::Wrong { hint, .. }) = cause.downcast_ref() {
            return (hint.clone(), 1);
        }
        if let Some(recipe::Error::Read { .. }) = cause.downcast_ref() {
            return (Some("name a recipe's folder, as `proofmark build recipes/minimal`".to_owned()), 1);
        }
        if let Some(lock::Error::Stale { .. }) = cause.downcast_ref() {
            return (
                Some("run `proofmark lock` on the recipe, review the difference and commit it".to_owned()),
                1,
            );
        }
        if cause.downcast_ref::<lock::Error>().is_some() {
            let hint =
                "take back what was edited by hand, or run `proofmark lock` on the recipe for a new one";
            return (Some(hint.to_owned()), 1);
        }
        if let Some(carried::Error::Foreign { .. }) = cause.downcast_ref() {
            return (Some("move it elsewhere: the folder holds what others signed of the lock's inputs, and nothing else".to_owned()), 1);
        }
        if let Some(carried::Error::Other { .. } | carried::Error::Unnamed { .. }) = cause.downcast_ref() {
            let hint = "the folder beside the lock is a part of it: take back what was changed there, or run `proofmark lock` \
                        on the recipe for a new lock";
            return (Some(hint.to_owned()), 1);
        }
        if let Some(locking::Error::InRelease { .. }) = cause.downcast_ref() {
            let hint = "the lock stays as it was: name a mirror that serves the suite as Debian signed it, by \
                        --debian-mirror or --debian-security-mirror, and look whether this machine's clock is right";
            return (Some(hint.to_owned()), 3);
        }
        if let Some(locking::Error::LostProvenance { .. }) = cause.downcast_ref() {
            let hint = "the lock stays as it was: find out why before you take it, for a stolen account publishes without \
                        attestations, or from a repository of its own; then say --accept-lost-provenance NAME";
            return (Some(hint.to_owned()), 1);
        }
        use attestation::Error as Attested;
        match cause.downcast_ref() {
            Some(Attested::UnknownKey { .. } | Attested::Outdated { .. } | Attested::Signature { .. }) => {
                return (Some(format!("the lock stays as it was; {NEWER_KEYS}")), 1);
            }
            Some(Attested::Keys(_) | Attested::Trust(_)) => {
                let hint = "name files as Sigstore's TUF repository has them: registry.npmjs.org/keys.json by --npm-keys, \
                            trusted_root.json by --npm-trusted-root";
                return (Some(hint.to_owned()), 1);
            }
            Some(_) => {
                let hint = "the lock stays as it was: take another version of the package in the recipe, and ask those who \
                            publish it";
                return (Some(hint.to_owned()), 1);
            }
            None => {}
        }
        if let Some(locking::Error::UnknownProvenance { .. }) = cause.downcast_ref() {
            let hint = "try again later; or say --accept-lost-provenance NAME";
            return (Some(hint.to_owned()), 3);
        }
        if let Some(assemble::Error::Lint(_)) = cause.downcast_ref() {
            let hint = "add the package that has it, leave the program out, or say in `[lint] absent` why nobody misses it";
            return (Some(hint.to_owned()), 1);
        }
        match cause.downcast_ref() {
            Some(fetch::Error::Nowhere { .. }) => {
                let hint = "mirrors forget old packages: run `proofmark update` for a newer lock, or give the folder \
                            of a `proofmark vendor` by --vendor DIR";
                return (Some(hint.to_owned()), 3);
            }
            Some(fetch::Error::Offline { .. }) => {
                let hint = "run `proofmark fetch` on the recipe while there is a network, or give a vendored folder \
                            by --vendor DIR";
                return (Some(hint.to_owned()), 3);
            }
            _ => {}
        }
        if let Some(hint) = cause.downcast_ref::<outputs::Error>().and_then(outputs::Error::hint) {
            return (Some(hint), 1);
        }
        if let Some(store::Error::Damaged { .. }) = cause.downcast_ref() {
            return (Some("run the command again: it is fetched anew".to_owned()), 1);
        }
        if let Some(source) = cause.downcast_ref::<std::io::Error>()
            && source.kind() == ErrorKind::StorageFull
        {
            return (Some("make room on that disk; nothing was changed".to_owned()), 1);
        }
    }
    (None, 1)
}
