//! The verdict on evidence, from what a boot should have measured.
