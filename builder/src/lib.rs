//! Builds measured confidential VM images from declarative recipes.

pub mod host;
pub mod lock;
pub mod recipe;
//! The parts of Proofmark's builder, each usable and testable without the command line.
pub mod image;
//! Builds measured confidential VM images from declarative recipes: the library behind the `proofmark` command.
pub mod resolve;
