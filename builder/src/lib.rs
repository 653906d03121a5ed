//! Builds measured confidential VM images from declarative recipes.
pub mod recipe;
