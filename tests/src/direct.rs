//! Boots a kernel in QEMU without firmware, under TCG, and yields its console output.
//!
//! # Shape
//! ```text
//! kernel, initrd, command line, disks ──qemu -kernel──> console, once the machine has ended by itself
//! ```
//! The machine has one processor and 512 MiB. It never writes its disks.
//!
//! # Not here
//! Firmware, a TPM, measurements: `proofmark run`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit for a machine, on a busy computer.
const LIMIT: Duration = Duration::from_secs(120);

/// What boots.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// Its initrd.
    pub initrd: &'a Path,
    /// Its command line.
    pub command_line: &'a str,
    /// Disk files, each after the QEMU filters to read it through, such as `blkdebug:rules:`.
    pub disks: &'a [String],
}

/// The text of a console, without carriage returns.
///
/// # Panics
/// When the file cannot be read.
pub fn said(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_else(|error| panic!("{}: {error}", console.display()));
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

/// Boots, waits for the end, and returns the console's text. `console` is the file that keeps it.
///
/// # Panics
/// When QEMU cannot be started, or the machine does not end in time.
pub fn boot(boot: Boot<'_>, console: &Path) -> String {
    let mut qemu = Command::new("qemu-system-x86_64");
    // Under translation, CMPXCHG16B returned broken flags in the kernel's allocator about once in some hundred boots.
    // With two processors in two threads, one was seen to hit a breakpoint with which the kernel patches its own
    // code, after the other had removed it; our program needs only one processor.
    qemu.args("-accel tcg -cpu max,-cx16 -m 512 -smp 1 -nodefaults -display none -no-reboot".split(' '));
    qemu.arg("-kernel")
        .arg(boot.kernel)
        .arg("-initrd")
        .arg(boot.initrd)
        .arg("-append")
        .arg(boot.command_line);
    for disk in boot.disks {
        qemu.arg("-drive").arg(format!("file={disk},format=raw,if=virtio,snapshot=on"));
    }
    let file = File::create(console).unwrap_or_else(|error| panic!("{}: {error}", console.display()));
    qemu.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(file);
    let begun = Instant::now();
    let mut qemu = qemu.spawn().unwrap_or_else(|error| panic!("qemu-system-x86_64: {error}"));
    let status = loop {
        if let Ok(Some(status)) = qemu.try_wait() {
            break status;
        }
        if begun.elapsed() > LIMIT {
            let _ = qemu.kill();
            let _ = qemu.wait();
            panic!("no end after {LIMIT:?}:\n{}", said(console));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "QEMU failed: {status}");
    let said = said(console);
    eprintln!("{said}\n({} ms)", begun.elapsed().as_millis());
    said
}

/// The path of a file in a folder, in the form of [`Boot`]'s disks.
pub fn disk(folder: &Path, name: &str) -> String {
    PathBuf::from(folder).join(name).display().to_string()
}
