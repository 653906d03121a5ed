//! Every effect on the world, one file per power.

pub mod fetch;
pub mod files;
pub mod mirror;
pub mod npm_resolver;
pub mod progress;
pub mod store;
pub mod tool;
