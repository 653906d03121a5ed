//! Every effect on the world, one file per power.

pub mod built;
pub mod fetch;
pub mod files;
pub mod mirror;
pub mod output;
pub mod progress;
pub mod store;
