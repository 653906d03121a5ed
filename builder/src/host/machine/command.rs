//! Yields QEMU's command line.

use std::ffi::OsString;
use std::num::NonZeroU16;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{Accelerator, Firmware, Forward, Memory};

/// The settings of QEMU's command line.
#[derive(Debug)]
pub struct Plan<'a> {
    /// How instructions run.
    pub accelerator: Accelerator,
    /// Processors.
    pub vcpus: NonZeroU16,
    /// Memory.
    pub memory: Memory,
    /// The firmware; its variables are written.
    pub firmware: &'a Firmware,
    /// The disk to boot; it is never written.
    pub disk: &'a Path,
    /// A program to start before any disk, a UKI.
    pub kernel: Option<&'a Path>,
    /// Further disks, which are written.
    pub drives: &'a [PathBuf],
    /// Forwarded ports.
    pub forwards: &'a [Forward],
    /// Files that each hold one SMBIOS string.
    pub strings: &'a [PathBuf],
    /// The socket of the TPM emulator.
    pub tpm: Option<&'a Path>,
    /// The socket on which QMP is expected.
    pub control: &'a Path,
}

/// Returns QEMU's arguments.
pub fn command(plan: &Plan<'_>) -> Vec<OsString> {
    let mut all = Words(Vec::new());
    all.words("-name proofmark -nodefaults -no-user-config -no-reboot -display none -machine q35");
    all.words(&plan.accelerator.arguments().join(" "));
    all.words(&format!("-smp {} -m {}M", plan.vcpus, plan.memory.0));
    match &plan.firmware.variables {
        Some(variables) => {
            all.path("-drive", "if=pflash,unit=0,format=raw,readonly=on,file=", &plan.firmware.code);
            all.path("-drive", "if=pflash,unit=1,format=raw,file=", variables);
        }
        // The argument is the path itself: commas are not doubled.
        None => all.0.extend(["-bios".into(), plan.firmware.code.clone().into()]),
    }
    if let Some(kernel) = plan.kernel {
        // The argument is the path itself.
        all.0.extend(["-kernel".into(), kernel.into()]);
    }
    all.path("-drive", "if=none,id=root,format=raw,snapshot=on,file=", plan.disk);
    // The loader of -kernel takes the first boot index.
    let place = u8::from(plan.kernel.is_some());
    all.words(&format!("-device virtio-blk-pci,drive=root,serial=proofmark-root,bootindex={place}"));
    for (number, drive) in plan.drives.iter().enumerate() {
        all.path("-drive", &format!("if=none,id=drive{number},format=raw,file="), drive);
        all.words(&format!("-device virtio-blk-pci,drive=drive{number},serial=proofmark-drive{number}"));
    }
    let mut network = "user,id=network".to_owned();
    for Forward { host, guest } in plan.forwards {
        network += &format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}");
    }
    all.words(&format!("-netdev {network} -device virtio-net-pci,netdev=network,romfile="));
    all.words("-device virtio-rng-pci");
    all.words("-chardev stdio,id=console,signal=off -serial chardev:console");
    all.path("-chardev", "socket,id=control,path=", plan.control);
    all.words("-mon chardev=control,mode=control");
    for path in plan.strings {
        all.path("-smbios", "type=11,path=", path);
    }
    if let Some(tpm) = plan.tpm {
        all.path("-chardev", "socket,id=tpm,path=", tpm);
        all.words("-tpmdev emulator,id=tpm0,chardev=tpm -device tpm-crb,tpmdev=tpm0");
    }
    all.0
}

/// An argument list in progress.
struct Words(Vec<OsString>);

impl Words {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split_whitespace().map(OsString::from));
    }

    /// Adds an option that ends in a path, with commas doubled as QEMU requires.
    fn path(&mut self, name: &str, before: &str, path: &Path) {
        let mut bytes = before.as_bytes().to_vec();
        for &byte in path.as_os_str().as_bytes() {
            bytes.push(byte);
            if byte == b',' {
                bytes.push(byte);
            }
        }
        self.0.extend([name.into(), OsString::from_vec(bytes)]);
    }
}
