//! What is claimed of an image, as data: pure, without a clock, a host or a path of this machine.

pub mod attestation;
pub mod contents;
pub mod difference;
pub mod eventlog;
pub mod evidence;
pub mod explain;
pub mod export;
pub mod manifest;
pub mod sbom;
pub mod scan;
pub mod verdict;
