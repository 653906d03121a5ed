//! Yields the parts of an image that Debian's maintainer scripts would have made, each from the tree alone.

pub mod alternatives;
pub mod ca_bundle;
pub mod depmod;
pub mod dpkg_status;
pub mod ld_cache;
pub mod lint;
pub mod module;
pub mod omit;
