//! Yields what is claimed about an image, as data, without a clock, a host or a path of this machine.

pub mod appraisal;
pub mod contents;
pub mod difference;
pub mod eventlog;
pub mod explain;
pub mod export;
pub mod file;
pub mod manifest;
pub mod moved;
pub mod provenance;
pub mod reference;
pub mod sbom;
pub mod scan;
