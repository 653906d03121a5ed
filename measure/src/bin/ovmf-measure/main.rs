//! Prints reference values of a measured boot.
fn main() {}
