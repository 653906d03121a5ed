//! Compiles `src/init` to `OUT_DIR/proofmark-init`, which the library embeds.

#![allow(clippy::print_stdout)] // cargo reads it

mod compile;

use std::env::var_os;
use std::path::{Path, PathBuf};

fn main() {
    for changed in ["build", "src/init"] {
        println!("cargo::rerun-if-changed={changed}");
    }
    println!("cargo::rerun-if-env-changed=RUSTC");
    let [rustc, output, package] = ["RUSTC", "OUT_DIR", "CARGO_MANIFEST_DIR"]
        .map(|name| PathBuf::from(var_os(name).expect("cargo sets this for every build script")));
    println!("cargo::rustc-env=PROOFMARK_RUSTC={}", rustc.display()); // for tests/reproduce.rs
    let source = package.join("src").join("init");
    if let Err(error) = compile::compile(&rustc, &source, &output.join(Path::new("proofmark-init"))) {
        println!("cargo::error=the init of the initrd: {}", error.replace('\n', "\ncargo::error="));
    }
}
