//! Yields whether to trust an image, with every reason against it, from its bundles and a policy.
//!
//! # Shape
//! ```text
//! image, bundles, policy, time
//!   bundle x identity   signature, certificate, log entry, promise, time stamp      trust::bundle
//!   log entries         of logs of the policy, checkpoints cosigned by its quorum   trust::transparency
//!   deny list           disk, payload, key, version
//!   statement           subjects are the image's files; builder, name, profile, version, manifest
//!   reference values    recomputed from the image, equal to the signed ones
//!   identities          enough distinct ones agree, none disagrees
//!   age                 of the earliest trusted time
//! -> Verdict { problems, accepted }
//! ```
//! A bundle from a signer that the policy does not name counts neither for nor against the image. Everything
//! that cannot be checked is a problem; nothing is trusted without a check.
//!
//! # Not here
//! Reading files, the clock, and the recomputation itself: the caller supplies them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ovmf_measure::reference::Reference;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::statement::{PROVENANCE, REFERENCE, SUMMARY, Statement};
use crate::claim::file;
use crate::claim::manifest::Manifest;
use crate::claim::reference;
use crate::trust::Verified;
use crate::trust::bundle::{self, Verify};
use crate::trust::image_policy::{Identity, Policy, References, Signed};
use crate::trust::transparency::merkle::Hash;

/// How many seconds a trusted time may be ahead of this machine's clock.
const SKEW: u64 = 300;

/// How many differences between a statement and an image are told.
const TOLD: usize = 5;

/// The image to judge.
pub struct Image<'a> {
    /// Its manifest, whose outputs have been compared with the files.
    pub manifest: &'a Manifest,
    /// SHA-256 of the manifest's bytes, in hexadecimal.
    pub manifest_sha256: String,
    /// Outputs that the manifest names but that are missing.
    pub absent: Vec<String>,
}

/// Recomputes the reference values of an image.
pub trait Recompute {
    /// Computes, from the image, the reference values of the machines that a signed document names.
    ///
    /// # Errors
    /// The reason why it cannot be computed, for people.
    fn recompute(&self, signed: &Value) -> Result<Value, String>;
}

/// Lists, register by register, where the signed values differ from the image's.
fn differences(signed: &Value, image: &Value) -> Vec<String> {
    let read = |document: &Value| serde_json::from_value::<Reference>(document.clone());
    let found = match (read(signed), read(image)) {
        (Ok(signed), Ok(image)) => reference::compare(&signed, &image),
        _ => Vec::new(),
    };
    if found.is_empty() {
        return vec!["the signed values differ from the image's".to_owned()];
    }
    let say = |one: &reference::Mismatch| {
        let machine = one.platform.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let event = one.event.map(|index| format!(", event {index}")).unwrap_or_default();
        let reference::Mismatch { register, subject, expected, found, points_to, .. } = one;
        format!(
            "{machine}{register}{event} ({subject}): signed {expected}, the image gives {found}; look at {points_to}"
        )
    };
    found.iter().map(say).collect()
}

/// Why an image is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The policy's trust root cannot be used.
    TrustRoot(String),
    /// An output that the manifest names is missing.
    Absent(String),
    /// The policy is for another image.
    Name {
        /// The name in the policy.
        expected: String,
        /// The name in the manifest.
        found: String,
    },
    /// The profile is not allowed.
    Profile(String),
    /// The version is too old, or not comparable.
    Version {
        /// The oldest version allowed.
        least: String,
        /// The image's version.
        found: String,
    },
    /// The image, its version, a payload or a key is on the deny list.
    Denied(String),
    /// A statement by a signer that the policy names does not match the image.
    Statement {
        /// Name of the bundle.
        bundle: String,
        /// What does not match.
        reason: String,
    },
    /// Two statements of one kind about this image differ.
    Contradiction {
        /// The predicate type.
        predicate: String,
        /// Names of the bundles.
        bundles: Vec<String>,
    },
    /// A log signed two trees of one size: it shows different entries to different people.
    Fork {
        /// The log.
        log: String,
        /// The number of entries in both trees.
        size: u64,
        /// Names of the bundles.
        bundles: Vec<String>,
    },
    /// No signer that the policy names states how the image was built.
    NoProvenance,
    /// Too few identities agree.
    Rebuilders {
        /// How many must agree.
        expected: usize,
        /// The identities that agree.
        found: BTreeSet<String>,
    },
    /// No signer that the policy names signed reference values.
    NoReferenceValues,
    /// The signed reference values differ from the image's.
    ReferenceValues(String),
    /// There is no trusted time, or it is too long ago or in the future.
    Age(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::TrustRoot(reason) => write!(out, "the policy's trust root cannot be used: {reason}"),
            Problem::Absent(name) => write!(out, "{name} is missing, but the manifest names it"),
            Problem::Name { expected, found } => {
                write!(out, "the image is {found:?}, the policy is for {expected:?}")
            }
            Problem::Profile(found) => write!(out, "profile {found} is not allowed"),
            Problem::Version { least, found } => {
                write!(out, "version {found} is older than {least}, or cannot be compared with it")
            }
            Problem::Denied(what) => write!(out, "the policy denies {what}"),
            Problem::Statement { bundle, reason } => write!(out, "{bundle}: {reason}"),
            Problem::Contradiction { predicate, bundles } => {
                write!(out, "statements {predicate} of {} differ", bundles.join(" and "))
            }
            Problem::Fork { log, size, bundles } => {
                write!(
                    out,
                    "log {log} is forked: it signed different trees of {size} entries, in {}",
                    bundles.join(" and ")
                )
            }
            Problem::NoProvenance => {
                out.write_str("no identity in the policy has signed the image's provenance")
            }
            Problem::Rebuilders { expected, found } => {
                let names: Vec<_> = found.iter().map(String::as_str).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                write!(out, "{expected} identities must agree on the image, found: {names}")
            }
            Problem::NoReferenceValues => {
                out.write_str("no identity in the policy has signed the image's reference values")
            }
            Problem::ReferenceValues(reason) => write!(out, "reference values: {reason}"),
            Problem::Age(reason) => write!(out, "age: {reason}"),
        }
    }
}

/// A trusted statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// The bundle.
    pub bundle: String,
    /// The signer, as the policy names it.
    pub identity: String,
    /// The predicate type.
    pub predicate: String,
    /// Logs that contain it, with its index in each.
    pub logs: BTreeMap<String, u64>,
    /// The earliest trusted time of the signature, in seconds since 1970.
    pub time: Option<u64>,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Why the image is not trusted; empty if it is.
    pub problems: Vec<Problem>,
    /// The trusted statements.
    pub accepted: Vec<Accepted>,
    /// Bundles that count for nothing, with the reasons.
    pub passed_over: BTreeMap<String, Vec<String>>,
}

impl Verdict {
    /// Returns whether the image is trusted.
    pub fn holds(&self) -> bool {
        self.problems.is_empty()
    }
}

/// A statement with a trusted signature and trusted log entries, not yet compared with the image.
struct Proven<'a> {
    bundle: &'a str,
    identity: &'a Identity,
    signed: Verified<Signed>,
    statement: Statement,
}

/// Returns what a bundle states if an identity signed it, or else why it states nothing.
fn proven<'a>(
    verifier: &dyn Verify,
    policy: &Policy,
    disk: [u8; 32],
    bundle: (&'a str, &[u8]),
    identity: &'a Identity,
) -> Result<Proven<'a>, String> {
    let (bundle, bytes) = bundle;
    let signed = policy.signed(verifier, bytes, disk, identity)?;
    let statement = Statement::parse(&signed.payload).map_err(|error| bundle_chain(&error))?;
    Ok(Proven { bundle, identity, signed, statement })
}

/// Formats an error and its causes in one line.
fn bundle_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Lists where a statement differs from the one that the image gives, by JSON pointers: whatever a builder states about an
/// image is in its manifest.
fn contradictions(found: &Statement, expected: &Statement) -> Vec<String> {
    fn walk(place: &str, found: Option<&Value>, expected: Option<&Value>, differ: &mut Vec<String>) {
        match (found, expected) {
            (Some(Value::Object(found)), Some(Value::Object(expected))) => {
                let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
                for name in names {
                    walk(&format!("{place}/{name}"), found.get(name), expected.get(name), differ);
                }
            }
            (Some(Value::Array(found)), Some(Value::Array(expected))) => {
                for index in 0..found.len().max(expected.len()) {
                    walk(&format!("{place}/{index}"), found.get(index), expected.get(index), differ);
                }
            }
            (found, expected) if found == expected => {}
            (found, expected) => {
                let say = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
                differ.push(format!("{place} is {}, expected {}", say(found), say(expected)));
            }
        }
    }
    let document = |statement: &Statement| serde_json::to_value(statement).unwrap_or_default();
    let mut differ = Vec::new();
    walk("", Some(&document(found)), Some(&document(expected)), &mut differ);
    // After a missing entry of a list, all later ones differ.
    let more = differ.len().saturating_sub(TOLD);
    differ.truncate(TOLD);
    if more > 0 {
        differ.push(format!("and {more} more differences"));
    }
    differ
}

/// Lists where a statement does not match the image.
fn misfits(
    proven: &Proven<'_>,
    image: &Image<'_>,
    policy: &Policy,
) -> Result<Vec<String>, super::statement::Error> {
    let (statement, manifest) = (&proven.statement, image.manifest);
    let mut misfits = Vec::new();
    for subject in &statement.subject {
        if let Some(output) = manifest.outputs.get(&subject.name)
            && subject.digest.get("sha256") != Some(&output.sha256)
        {
            misfits.push(format!("its {} differs from the image's", subject.name));
        }
    }
    let disk = manifest.outputs.get(file::DISK).map(|output| output.sha256.as_str());
    if statement.digest_of(file::DISK) != disk || disk.is_none() {
        misfits.push(format!("it is not about the image's {}", file::DISK));
    }
    let mut must = |field: &'static str, expected: &str| -> Result<(), super::statement::Error> {
        let found = statement.text(field)?;
        if found != expected {
            misfits.push(format!("{field} is {found:?}, expected {expected:?}"));
        }
        Ok(())
    };
    match statement.predicate_kind.as_str() {
        PROVENANCE => {
            let builder = statement.text("/runDetails/builder/id")?;
            if !policy.builders.contains(builder) {
                misfits.push(format!("builder {builder:?} is not allowed"));
            }
            let expected = Statement::provenance(manifest, builder, &image.manifest_sha256);
            misfits.extend(contradictions(statement, &expected));
        }
        SUMMARY => {
            let verifier = statement.text("/verifier/id")?;
            if !policy.builders.contains(verifier) {
                misfits.push(format!("verifier {verifier:?} is not allowed"));
            }
            let expected = Statement::reproduced(manifest, verifier, &image.manifest_sha256);
            misfits.extend(contradictions(statement, &expected));
        }
        REFERENCE => {
            must("/image/name", &manifest.name)?;
            must("/image/version", &manifest.version)?;
            must("/image/profile", manifest.profile.name())?;
            let expected = Statement::reference(manifest, statement.predicate.clone());
            misfits.extend(contradictions(statement, &expected));
        }
        other => misfits.push(format!("predicate {other:?} is unknown")),
    }
    Ok(misfits)
}

/// Lists the problems of the image that need no statement.
fn problems_of_image(policy: &Policy, image: &Image<'_>) -> Vec<Problem> {
    let manifest = image.manifest;
    let mut problems: Vec<Problem> = image.absent.iter().cloned().map(Problem::Absent).collect();
    if manifest.name != policy.image {
        problems.push(Problem::Name { expected: policy.image.clone(), found: manifest.name.clone() });
    }
    if !policy.profiles.contains(&reference::profile_of(manifest.profile)) {
        problems.push(Problem::Profile(manifest.profile.name().to_owned()));
    }
    if let Some(least) = &policy.minimum_version
        && !least.compare(&manifest.version).is_some_and(Ordering::is_ge)
    {
        let found = manifest.version.clone();
        problems.push(Problem::Version { least: least.as_str().to_owned(), found });
    }
    if policy.deny.version(&manifest.version) {
        problems.push(Problem::Denied(format!("version {}", manifest.version)));
    }
    if let Some(output) = manifest.outputs.values().find(|output| policy.deny.image(&output.sha256)) {
        problems.push(Problem::Denied(format!("image {}", output.sha256)));
    }
    problems
}

/// Judges an image at a time given in seconds since 1970.
pub fn judge(
    policy: &Policy,
    image: &Image<'_>,
    bundles: &BTreeMap<String, Vec<u8>>,
    recompute: &dyn Recompute,
    now: u64,
) -> Verdict {
    let mut problems = problems_of_image(policy, image);
    let mut passed_over: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let found = all_proven(policy, image, bundles, &mut problems, &mut passed_over);
    problems.extend(forks(&found));
    let fitting = fitting(found, policy, image, &mut problems);
    problems.extend(disagreements(&fitting, policy));
    problems.extend(of_reference_values(&fitting, policy, recompute));
    problems.extend(of_age(&fitting, policy, now));
    let accepted = fitting
        .into_iter()
        .map(|proven| Accepted {
            bundle: proven.bundle.to_owned(),
            identity: proven.identity.name.clone(),
            predicate: proven.statement.predicate_kind,
            logs: proven.signed.logs.clone(),
            time: proven.signed.time,
        })
        .collect();
    Verdict { problems, accepted, passed_over }
}

/// Returns the statements of one kind.
fn of<'p>(
    fitting: &'p [Proven<'p>],
    predicate: &'static str,
) -> impl Iterator<Item = &'p Proven<'p>> + use<'p> {
    fitting.iter().filter(move |proven| proven.statement.predicate_kind == predicate)
}

/// Collects what each bundle proves, for each identity that the policy names.
fn all_proven<'a>(
    policy: &'a Policy,
    image: &Image<'_>,
    bundles: &'a BTreeMap<String, Vec<u8>>,
    problems: &mut Vec<Problem>,
    passed_over: &mut BTreeMap<String, Vec<String>>,
) -> Vec<Proven<'a>> {
    let mut found: Vec<Proven<'a>> = Vec::new();
    let mut disk = [0; 32];
    let output = image.manifest.outputs.get(file::DISK);
    let verifier = bundle::Sigstore::new(policy.trust_root.to_string().as_bytes());
    match (&verifier, output.map(|output| hex::decode_to_slice(&output.sha256, &mut disk))) {
        (Err(error), _) => problems.push(Problem::TrustRoot(error.to_string())),
        (_, None | Some(Err(_))) => problems.push(Problem::Absent(file::DISK.to_owned())),
        (Ok(verifier), Some(Ok(()))) => {
            for (name, bytes) in bundles {
                let mut reasons = Vec::new();
                for identity in &policy.identities {
                    if policy.deny.signer(&identity.signer) {
                        reasons.push(format!("{}: the policy denies the key", identity.name));
                        continue;
                    }
                    match proven(verifier, policy, disk, (name, bytes), identity) {
                        Ok(proven) => found.push(proven),
                        Err(reason) => reasons.push(format!("{}: {reason}", identity.name)),
                    }
                }
                if !found.iter().any(|proven| proven.bundle == name) {
                    passed_over.insert(name.clone(), reasons);
                }
            }
        }
    }
    found
}

/// Returns the statements that are not denied and match the image.
fn fitting<'a>(
    found: Vec<Proven<'a>>,
    policy: &Policy,
    image: &Image<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Proven<'a>> {
    let mut fitting: Vec<Proven<'a>> = Vec::new();
    for proven in found {
        if policy.deny.statement(&proven.signed.payload) {
            let digest = hex::encode(Sha256::digest(&proven.signed.payload));
            problems.push(Problem::Denied(format!("statement {digest}")));
            continue;
        }
        let misfits = misfits(&proven, image, policy).unwrap_or_else(|error| vec![error.to_string()]);
        if misfits.is_empty() {
            fitting.push(proven);
        } else {
            let bundle = proven.bundle.to_owned();
            problems.push(Problem::Statement { bundle, reason: misfits.join("; ") });
        }
    }
    fitting
}

/// Lists the logs that signed two trees of one size.
fn forks(found: &[Proven<'_>]) -> Vec<Problem> {
    let mut trees: BTreeMap<(&str, u64), (Hash, &str)> = BTreeMap::new();
    let mut forks = Vec::new();
    for proven in found {
        for checkpoint in &proven.signed.checkpoints {
            let (log, size, bundle) = (checkpoint.origin(), checkpoint.size(), proven.bundle);
            let (root, first) = *trees.entry((log, size)).or_insert((checkpoint.root(), bundle));
            if root != checkpoint.root() {
                let bundles = vec![first.to_owned(), bundle.to_owned()];
                forks.push(Problem::Fork { log: log.to_owned(), size, bundles });
            }
        }
    }
    forks
}

/// Lists the problems if too few agree or some disagree.
fn disagreements(fitting: &[Proven<'_>], policy: &Policy) -> Vec<Problem> {
    let mut problems = Vec::new();
    for predicate in [PROVENANCE, REFERENCE] {
        let mut alike = of(fitting, predicate);
        if let Some(first) = alike.next()
            && let Some(other) = alike.find(|other| other.signed.payload != first.signed.payload)
        {
            let bundles = vec![first.bundle.to_owned(), other.bundle.to_owned()];
            problems.push(Problem::Contradiction { predicate: predicate.to_owned(), bundles });
        }
    }
    if of(fitting, PROVENANCE).next().is_none() {
        problems.push(Problem::NoProvenance);
    }
    let agreeing: BTreeSet<String> = of(fitting, PROVENANCE)
        .chain(of(fitting, SUMMARY))
        .map(|proven| proven.identity.name.clone())
        .collect();
    if agreeing.len() < policy.rebuilders {
        problems.push(Problem::Rebuilders { expected: policy.rebuilders, found: agreeing });
    }
    problems
}

/// Lists the problems if the signed reference values differ from the image's.
fn of_reference_values(fitting: &[Proven<'_>], policy: &Policy, recompute: &dyn Recompute) -> Vec<Problem> {
    if policy.reference_values != References::Required {
        return Vec::new();
    }
    let Some(proven) = of(fitting, REFERENCE).next() else { return vec![Problem::NoReferenceValues] };
    let signed = &proven.statement.predicate;
    match recompute.recompute(signed) {
        Ok(values) if values == *signed => Vec::new(),
        Ok(values) => differences(signed, &values).into_iter().map(Problem::ReferenceValues).collect(),
        Err(reason) => vec![Problem::ReferenceValues(format!("cannot be recomputed: {reason}"))],
    }
}

/// Returns the problem if the image was stated too long ago, or in the future: by the earliest time that any bundle proves, if
/// there is a stamp at all.
fn of_age(fitting: &[Proven<'_>], policy: &Policy, now: u64) -> Option<Problem> {
    let stamped = of(fitting, PROVENANCE).any(|proven| proven.signed.stamped);
    let earliest = of(fitting, PROVENANCE).filter_map(|proven| proven.signed.time).min();
    age(earliest.filter(|_| stamped), policy.maximum_age?, now)
}

/// Returns the problem of a signature of this time, in seconds since 1970, that may be at most so many seconds old.
fn age(signed: Option<u64>, most: u64, now: u64) -> Option<Problem> {
    let reason = match signed {
        None => "no trusted stamp says when it was signed".to_owned(),
        Some(time) if time > now.saturating_add(SKEW) => {
            format!("signed at {time}, which is in the future")
        }
        Some(time) if now.saturating_sub(time) > most => {
            let days = now.saturating_sub(time) / 86_400;
            format!("signed {days} days ago, at most {} are allowed", most / 86_400)
        }
        Some(_) => return None,
    };
    Some(Problem::Age(reason))
}

#[cfg(test)]
mod tests;
