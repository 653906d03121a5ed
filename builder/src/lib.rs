//! Builds measured confidential VM images from declarative recipes: the library behind the `proofmark` command.

pub mod resolve;
