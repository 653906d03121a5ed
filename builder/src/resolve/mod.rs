//! Yields Debian package sets from signed archive indexes: what is authentic, what exists, what roots need.
//!
//! # Shape
//! ```text
//! InRelease bytes --inrelease::verify--> Verified<InRelease> --(path -> size, SHA-256)--> Packages bytes (fetched by the caller)
//! Packages bytes  --packages::read-----> Vec<Package>        --solve::Universe::merge---> Universe
//! Universe + Request --solve::solve----> Solution { chosen (each with its why), waived }
//! control archives of the chosen -------> scripts::judge (inert, handled, unknown)
//! ```
//!
//! # Source
//! Debian Policy 4.6 (control fields, relationships, maintainer scripts), the Debian repository format
//! (wiki.debian.org/DebianRepository/Format), apt 2.6.1 (order of choice).
//!
//! # Not here
//! Network and files: every function takes bytes and a time, and returns values.

pub mod chain;
pub mod npm;
pub mod packages;
pub mod relation;
pub mod scripts;
pub mod solve;
