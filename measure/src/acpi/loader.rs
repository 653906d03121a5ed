//! The commands for a guest's firmware to load ACPI tables into memory.
//!
//! # Shape
//!
//! ```text
//! command, 128 bytes: number 4, then by number, then zeros
//!   1 allocate   file 56, alignment 4, zone 1 (1 anywhere, 2 F segment)
//!   2 pointer    file 56, file pointed to 56, offset 4, width 1
//!   3 checksum   file 56, offset of the checksum 4, start 4, length 4
//! ```
//! Allocations precede all other commands, the latest first; the file is padded to a multiple of 4096 bytes.
//!
//! # Source
//!
//! QEMU hw/acpi/bios-linker-loader.c; edk2 OvmfPkg/AcpiPlatformDxe/QemuLoader.h.
//!
//! # Not here
//!
//! The contents of the files.

use alloc::vec::Vec;

/// Size of a command in bytes.
const COMMAND: usize = 128;
/// Size of a file's name in bytes, including the NUL.
const NAME: usize = 56;
/// ACPI_BUILD_ALIGN_SIZE.
const ALIGNMENT: usize = 0x1000;

/// A fw_cfg file in the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blob {
    Rsdp,
    TpmLog,
    Tables,
}

impl Blob {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Blob::Rsdp => "etc/acpi/rsdp",
            Blob::TpmLog => "etc/tpm/log",
            Blob::Tables => "etc/acpi/tables",
        }
    }

    const fn padded_name(self) -> [u8; NAME] {
        let mut padded = [0; NAME];
        if let Some((head, _)) = padded.split_at_mut_checked(self.name().len()) {
            head.copy_from_slice(self.name().as_bytes());
        }
        padded
    }
}

/// Where a file is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Zone {
    Anywhere = 1,
    FSegment = 2,
}

/// A pointer in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pointer {
    /// The file that holds it.
    pub(super) in_file: Blob,
    /// Its offset in that file.
    pub(super) offset: u32,
    /// Its size in bytes.
    pub(super) width: u8,
    /// The file that it points into.
    pub(super) to: Blob,
}

/// A list of commands under construction.
#[derive(Debug, Default)]
pub(super) struct Loader {
    allocations: Vec<[u8; COMMAND]>,
    commands: Vec<[u8; COMMAND]>,
}

fn command(number: u32, fields: &[&[u8]]) -> [u8; COMMAND] {
    let mut command = [0; COMMAND];
    let fields = fields.iter().flat_map(|field| field.iter());
    for (to, &from) in command.iter_mut().zip(number.to_le_bytes().iter().chain(fields)) {
        *to = from;
    }
    command
}

impl Loader {
    pub(super) fn allocate(&mut self, file: Blob, alignment: u32, zone: Zone) {
        let fields: [&[u8]; 3] = [&file.padded_name(), &alignment.to_le_bytes(), &[zone as u8]];
        self.allocations.push(command(1, &fields));
    }

    pub(super) fn add_pointer(&mut self, pointer: Pointer) {
        let Pointer { in_file, offset, width, to } = pointer;
        let fields: [&[u8]; 4] = [&in_file.padded_name(), &to.padded_name(), &offset.to_le_bytes(), &[width]];
        self.commands.push(command(2, &fields));
    }

    pub(super) fn add_checksum(&mut self, file: Blob, offset: u32, start: u32, length: u32) {
        let numbers = [offset.to_le_bytes(), start.to_le_bytes(), length.to_le_bytes()].concat();
        self.commands.push(command(3, &[&file.padded_name(), &numbers]));
    }

    /// Returns the file of commands.
    pub(super) fn finish(self) -> Vec<u8> {
        let commands = self.allocations.into_iter().rev().chain(self.commands);
        let mut file: Vec<u8> = commands.flatten().collect();
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file
    }
}
