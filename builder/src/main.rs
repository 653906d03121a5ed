//! Builds measured confidential VM images from declarative recipes.

fn main() {}
