//! The init's binary, compiled from its source with only the pinned toolchain.
//!
//! # Shape
//!
//! One call of `rustc`, with `core` as the only library and the toolchain's own linker: no C library, linker
//! or flag of the build machine is used.
//!
//! # Source
//!
//! Ours; `README.md` has the same line for a shell, and a test keeps the two in step.
//!
//! # Not here
//!
//! `RUSTFLAGS`, Cargo's profile and configuration, wrappers: `rustc` is called without them, in an
//! environment that has only what rustup's proxy needs to find the toolchain.

use std::path::Path;
use std::process::Command;

/// The flags that determine the bytes; in addition, the folder of the source is remapped.
pub const FLAGS: [&str; 22] = [
    "--crate-name=proofmark_init",
    "--crate-type=bin",
    "--edition=2024",
    "--target=x86_64-unknown-linux-gnu",
    "-Copt-level=s",
    "-Clto=fat",
    "-Cpanic=abort",
    "-Ccodegen-units=1",
    "-Ctarget-cpu=x86-64",
    "-Crelocation-model=static",
    "-Cforce-unwind-tables=no",
    "-Cforce-frame-pointers=no",
    "-Coverflow-checks=on",
    "-Cdebug-assertions=off",
    "-Cdebuginfo=0",
    "-Cstrip=symbols",
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=--build-id=none",
    "-Clink-arg=--fatal-warnings",
];

/// Compiles `main.rs` of the folder `source` into the file `output`.
///
/// # Errors
///
/// A sentence with the compiler's own message.
pub fn compile(rustc: &Path, source: &Path, output: &Path) -> Result<(), String> {
    let mut command = Command::new(rustc);
    command.env_clear();
    for name in ["PATH", "HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let mut remap = std::ffi::OsString::from("--remap-path-prefix=");
    remap.push(source);
    remap.push("=/proofmark-init");
    command.args(FLAGS).arg(remap).arg("-o").arg(output).arg("main.rs").current_dir(source);
    let done = command.output().map_err(|error| format!("{} does not start: {error}", rustc.display()))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(format!("{} does not compile {}: {}\n{said}", rustc.display(), source.display(), done.status))
}
