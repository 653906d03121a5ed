//! Yields the message with which Trustee's reference value provider service registers an image's values.
//!
//! # Shape
//! ```text
//! {"version":"0.1.0","type":"sample","payload": base64 of {"NAME":["VALUE", …], …}}
//!
//! upstream   mr_td  rtmr_0 … rtmr_3  xfam               values of registers, which the default policy compares
//! alibaba    measurement.uki.SHA-384  .kernel  .initrd  measurement.kernel_cmdline.SHA-384    digests of events
//! ```
//!
//! # Source
//! Trustee (confidential-containers), `rvps/src/extractors/extractor_modules/sample`, and the names in
//! `ear_default_policy_cpu.rego`; openanolis/trustee for the second set of names.
//!
//! # Not here
//! Sending it (`rvps-tool register --path FILE`), and how long it stays valid.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use ovmf_measure::event::{Event, EventType, Register, Witness};
use ovmf_measure::reference::{Reference, RegisterKind};
use serde::Serialize;

use super::{Error, Exported, exact, label, platforms, unknown};

/// Whose names to give the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Trustee's own.
    Upstream,
    /// Those of Alibaba Cloud's fork of Trustee.
    Alibaba,
}

#[derive(Serialize)]
struct Message<'a> {
    version: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    payload: String,
}

type Values = BTreeMap<String, BTreeSet<String>>;

/// Returns the message, as text that ends with a newline. `xfam` is the set of features that the platform
/// lets a TD use, in hexadecimal: it does not depend on the image.
///
/// # Errors
/// [`Error`] if there is no value for a TD.
pub fn message(
    reference: &Reference,
    names: Names,
    platform: Option<&str>,
    xfam: Option<&str>,
) -> Result<Exported<String>, Error> {
    let platforms = platforms(reference, Some(RegisterKind::Tdx), platform)?;
    let mut values = Values::new();
    let mut left_out = Vec::new();
    let mut put = |name: String, value: String| values.entry(name).or_default().insert(value);
    for platform in platforms {
        match names {
            Names::Upstream => {
                for mrtd in &platform.mrtd {
                    put("mr_td".to_owned(), hex::encode(mrtd.digest.as_bytes()));
                }
                for (register, digest) in &platform.registers {
                    if let Register::Rtmr(number) = register {
                        put(format!("rtmr_{number}"), hex::encode(digest.as_bytes()));
                    }
                }
                left_out.extend(unknown(platform).iter().map(|one| format!("{one} of {}", label(platform))));
            }
            Names::Alibaba => {
                for (name, event) in artifacts(&platform.events) {
                    let name = format!("measurement.{name}.SHA-384");
                    match exact(&event.expected) {
                        Some(digest) => {
                            put(name, hex::encode(digest.as_bytes()));
                        }
                        None => left_out.push(format!("{name} of {}", label(platform))),
                    }
                }
            }
        }
    }
    if let (Names::Upstream, Some(xfam)) = (names, xfam) {
        put("xfam".to_owned(), xfam.to_ascii_lowercase());
    }
    if values.is_empty() {
        return Err(Error::Empty);
    }
    // JSON can hold it: maps and lists of strings.
    let payload = serde_json::to_string(&values).unwrap_or_default();
    let payload = base64::engine::general_purpose::STANDARD.encode(payload);
    let message = Message { version: "0.1.0", kind: "sample", payload };
    let mut document = serde_json::to_string_pretty(&message).unwrap_or_default();
    document.push('\n');
    Ok(Exported { document, left_out })
}

/// Finds the events that Alibaba Cloud's names stand for.
fn artifacts(events: &[Event]) -> Vec<(&'static str, &Event)> {
    let of_uki = || events.iter().filter(|event| event.source.file == "uki" && event.witness != Witness::Tpm);
    let programs = of_uki().filter(|event| event.kind == EventType::EV_EFI_BOOT_SERVICES_APPLICATION);
    // The firmware starts the UKI, and the UKI's stub starts the kernel.
    let mut found: Vec<(&str, &Event)> = ["uki", "kernel"].into_iter().zip(programs).collect();
    for (name, subject) in [("kernel_cmdline", "command line"), ("initrd", "initrd")] {
        found.extend(of_uki().find(|event| event.subject == subject).map(|event| (name, event)));
    }
    found
}
