//! Builds measured confidential VM images from declarative recipes: the library behind the `proofmark` command.

pub mod host;
pub mod image;
pub mod lock;
pub mod recipe;
pub mod resolve;
