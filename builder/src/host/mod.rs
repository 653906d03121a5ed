//! Every effect on the world, one file per power.

pub mod fetch;
pub mod files;
pub mod machine;
pub mod mirror;
pub mod progress;
pub mod store;
pub mod tool;
