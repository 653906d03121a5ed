//! Builds measured confidential VM images from declarative recipes.

pub mod host;
pub mod lock;
pub mod recipe;
