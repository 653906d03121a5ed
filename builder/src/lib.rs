//! Builds measured confidential VM images from declarative recipes: the library behind the `proofmark` command.

pub mod advice;
pub mod amount;
pub mod assemble;
pub mod claim;
pub mod flow;
pub mod host;
pub mod lock;
pub mod pipeline;
pub mod recipe;
pub mod resolve;
pub mod session;

pub use proofmark_image as image;
pub use proofmark_trust as trust;
