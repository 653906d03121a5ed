//! Prints the SHA-256 of the init's binary, as `sha256sum` does.

#![allow(clippy::print_stdout)] // its only output

use sha2::Digest as _;

fn main() {
    println!("{}  proofmark-init", hex::encode(sha2::Sha256::digest(proofmark_guest::INIT)));
}
