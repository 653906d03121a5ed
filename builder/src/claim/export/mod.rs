//! Yields an image's reference values in the forms that verifiers of others import.
//!
//! # Shape
//! ```text
//! reference-values.json ─┬─ rvps ──> {"version","type":"sample","payload"}   names of Trustee, or of Alibaba Cloud's
//!                        └─ corim ─> CBOR, tag 501, unsigned
//! ```
//! Both forms hold sets of values: which RTMR0 goes with which MRTD is lost in `rvps`, and event logs in both. Registers
//! that the platform has a say in have no value to export; their names are given back as left out.
//!
//! # Source
//! See the modules.
//!
//! # Not here
//! `sbom.cdx.json` and `sbom.spdx.json`, which lie beside the image as they are.

pub mod corim;
pub mod rvps;

use ovmf_measure::digest::Digest;
use ovmf_measure::event::{Expected, Register};
use ovmf_measure::reference::{Platform, Reference, RegisterKind};

use crate::claim::file;
use crate::claim::manifest::Manifest;

/// Why reference values cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are of another image.
    #[error("the reference values are of another image: {what} is {found}, expected {expected}")]
    OtherImage {
        /// What differs.
        what: String,
        /// What the manifest says.
        expected: String,
        /// What the reference values say.
        found: String,
    },
    /// No platform has values of the kind that the form holds.
    #[error("the reference values have no {kind} platform{}", named.as_ref().map_or(String::new(), |name| format!(" {name:?}")))]
    NoPlatform {
        /// `TDX`, or nothing where any will do.
        kind: &'static str,
        /// The platform that was asked for.
        named: Option<String>,
    },
    /// There is nothing to export.
    #[error("no value of the platforms is known beforehand")]
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
    /// Registers and measurements that have no value beforehand, with their platforms.
    pub left_out: Vec<String>,
}

/// Checks that reference values are those of an image.
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

/// The platforms of a kind, or all of them; only those of a name, when one is given.
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

/// A platform and the machine that its values hold for, in words.
fn label(platform: &Platform) -> String {
    let shape: Vec<String> = platform.shape.iter().map(|(name, value)| format!("{name}={value}")).collect();
    match shape.is_empty() {
        true => platform.name.clone(),
        false => format!("{} ({})", platform.name, shape.join(", ")),
    }
}

/// The registers of a TD or a TPM that have no value beforehand, though an event is extended into them.
fn unknown(platform: &Platform) -> Vec<Register> {
    let of = |pcr: u8| match platform.kind {
        RegisterKind::Tdx => ovmf_measure::event::rtmr_of_pcr(pcr).map(Register::Rtmr),
        RegisterKind::Tpm => Some(Register::Pcr(pcr)),
    };
    let mut all: Vec<Register> = platform
        .events
        .iter()
        .filter_map(|event| of(event.pcr))
        .filter(|register| !platform.registers.contains_key(register))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// The digest that an event must have; `None` when the platform decides.
fn exact(expected: &Expected) -> Option<&Digest> {
    match expected {
        Expected::Exact(digest) => Some(digest),
        Expected::PlatformGiven(_) => None,
    }
}

#[cfg(test)]
mod tests;
