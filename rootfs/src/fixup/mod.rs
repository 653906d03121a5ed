//! Yields what maintainer scripts would have made: one small, pure module for each task.
//!
//! # Shape
//! Every module has one `apply(&mut Tree, …) -> Result<…, Error>`; what it writes has the origin `fix-up:<module>`,
//! or the recipe's line that asks for it. They run in this order: [`base`], [`os_release`], [`accounts`], [`pam`],
//! [`nsswitch`], [`units`], and [`tmpfiles`], which needs the ids of the accounts; then what reads the whole tree:
//! [`depmod`], [`ca_bundle`], [`alternatives`], [`dpkg_status`], [`ld_cache`] and [`lint`].
//!
//! # Not here
//! Running scripts, which never happens.

pub mod accounts;
pub mod alternatives;
pub mod base;
pub mod ca_bundle;
pub mod depmod;
pub mod dpkg_status;
pub mod ld_cache;
pub mod lint;
pub mod module;
pub mod nsswitch;
pub mod os_release;
pub mod pam;
pub mod systemd_conf;
pub mod tmpfiles;
pub mod units;
mod write;
