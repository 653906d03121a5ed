//! Tests the whole program from outside: against the tools that others use, against faults, and in booting machines.
//!
//! One program holds all tests, because each would link the same libraries.

mod acpi_reference;
mod audit;
mod boot;
mod claims;
mod debian_reference;
mod documents;
mod erofs_reference;
mod faults;
mod fixup_b_reference;
mod fixup_reference;
mod guest_boot;
mod image_reference;
mod measure_reference;
mod measured_boot;
mod npm_reference;
mod npm_resolve;
mod openclaw_chat;
mod provenance;
mod reproduce;
mod run_boot;
mod sbom_reference;
mod sigstore_reference;
mod verdict;
mod verity_reference;
