//! The parts of Proofmark's builder, each usable and testable without the command line.

pub mod image;
