//! Yields an image's reference values in the formats that other verifiers import.
//!
//! # Shape
//! ```text
//! reference-values.json ─┬─ rvps ──> {"version","type":"sample","payload"}   Trustee's names, or Alibaba Cloud's
//!                        └─ corim ─> CBOR, tag 501, unsigned
//! ```
//! Both formats hold sets of values: `rvps` loses which RTMR0 belongs to which MRTD, and both lose event
//! logs. Registers that depend on the platform have no value to export; their names are returned as left out.
//!
//! # Source
//! See the modules.
//!
//! # Not here
//! `sbom.cdx.json` and `sbom.spdx.json`, which a build writes beside the image.

pub mod corim;
pub mod rvps;

use ovmf_measure::digest::Digest;
use ovmf_measure::event::{Expected, Register};
use ovmf_measure::reference::{Platform, Reference, RegisterKind};

use crate::claim::file;
use crate::claim::manifest::Manifest;

/// Why the reference values cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They belong to another image.
    #[error("the reference values are for another image: {what} is {found}, expected {expected}")]
    OtherImage {
        /// What differs.
        what: String,
        /// What the manifest says.
        expected: String,
        /// What the reference values say.
        found: String,
    },
    /// No platform has values of the kind that the format holds.
    #[error("the reference values have no {kind} platform{}", named.as_ref().map_or(String::new(), |name| format!(" {name:?}")))]
    NoPlatform {
        /// `TDX`, or empty if any kind will do.
        kind: &'static str,
        /// The requested platform.
        named: Option<String>,
    },
    /// There is nothing to export.
    #[error("no value of the platforms is known in advance")]
    Empty,
    /// The CoRIM cannot be encoded.
    #[error("cannot encode the CoRIM: {0}")]
    Encode(String),
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported<T> {
    /// The document.
    pub document: T,
    /// Registers and measurements without a value known beforehand, with their platforms.
    pub left_out: Vec<String>,
}

/// Checks that reference values belong to an image.
///
/// # Errors
/// [`Error::OtherImage`].
pub fn is_of(reference: &Reference, manifest: &Manifest) -> Result<(), Error> {
    let mut pairs = vec![
        ("name".to_owned(), manifest.name.clone(), reference.image.name.clone()),
        ("version".to_owned(), manifest.version.clone(), reference.image.version.clone()),
        ("profile".to_owned(), manifest.profile.name().to_owned(), reference.image.profile.to_string()),
    ];
    for (subject, output) in [("uki", file::UKI), ("disk", file::DISK)] {
        let found = reference.subjects.iter().find(|one| one.name == subject);
        let expected = manifest.outputs.get(output);
        if let (Some(found), Some(expected)) = (found, expected) {
            pairs.push((
                format!("SHA-256 of {output}"),
                expected.sha256.clone(),
                hex::encode(found.sha256.as_bytes()),
            ));
        }
    }
    match pairs.into_iter().find(|(_, expected, found)| expected != found) {
        Some((what, expected, found)) => Err(Error::OtherImage { what, expected, found }),
        None => Ok(()),
    }
}

/// Returns the platforms of a kind, or of any kind; only those with the name, if one is given.
fn platforms<'a>(
    reference: &'a Reference,
    kind: Option<RegisterKind>,
    named: Option<&str>,
) -> Result<Vec<&'a Platform>, Error> {
    let fits = |platform: &&Platform| {
        kind.is_none_or(|kind| platform.kind == kind) && named.is_none_or(|name| platform.name == name)
    };
    let found: Vec<&Platform> = reference.platforms.iter().filter(fits).collect();
    if found.is_empty() {
        let kind = if kind == Some(RegisterKind::Tdx) { "TDX" } else { "such" };
        return Err(Error::NoPlatform { kind, named: named.map(str::to_owned) });
    }
    Ok(found)
}

/// Describes a platform and the machine that its values hold for.
fn label(platform: &Platform) -> String {
    let shape: Vec<String> = platform.shape.iter().map(|(name, value)| format!("{name}={value}")).collect();
    match shape.is_empty() {
        true => platform.name.clone(),
        false => format!("{} ({})", platform.name, shape.join(", ")),
    }
}

/// Lists the registers of a TD or a TPM that an event extends but whose value is not known beforehand.
fn unknown(platform: &Platform) -> Vec<Register> {
    let mut all: Vec<Register> = platform
        .events
        .iter()
        .filter_map(|event| event.register(platform.kind))
        .filter(|register| !platform.registers.contains_key(register))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Returns the digest that an event must have; `None` if the platform decides.
fn exact(expected: &Expected) -> Option<&Digest> {
    match expected {
        Expected::Exact(digest) => Some(digest),
        Expected::PlatformGiven(_) => None,
    }
}

#[cfg(test)]
mod tests;
