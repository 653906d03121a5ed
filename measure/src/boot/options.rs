//! The boot options that OVMF makes of a QEMU machine.
//!
//! # Source
//!
//! edk2 `OvmfPkg/Library/PlatformBootManagerLib`, `MdeModulePkg/Library/UefiBootManagerLib`; EFI_LOAD_OPTION, UEFI 2.10, 3.1.3;
//! device paths, UEFI 2.10, 10.3.

use alloc::vec::Vec;

use super::{Events, Start};
use crate::event::EventType;
use crate::variable::GLOBAL;
use crate::volume::{BOOT_MENU, Profile, SHELL, UI_APP};

/// Returns fw_cfg's `bootorder` for one virtio disk on PCI bus 0: Open Firmware paths, one per line, with a NUL at the
/// end. With `-kernel`, QEMU puts its own option ROM first.
pub fn boot_order(start: Start, slot: u8) -> Vec<u8> {
    let first = match start {
        Start::Disk => "",
        Start::Kernel => "/rom@genroms/linuxboot_dma.bin\n",
    };
    alloc::format!("{first}/pci@i0cf8/scsi@{slot:x}/disk@0,0\0").into_bytes()
}

/// Makes a load option: attributes u32, length of the paths u16, description, paths, optional data.
fn load_option(attributes: u32, description: &str, path: &[u8], more: &[u8]) -> Vec<u8> {
    let mut option = attributes.to_le_bytes().to_vec();
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(description.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    option.extend_from_slice(path);
    option.extend_from_slice(more);
    option
}

/// Ends a device path.
const PATH_END: [u8; 4] = [0x7f, 0xff, 4, 0];
/// Optional data of options that the boot manager made: 8108ac4e-9f11-4d59-850e-e21a522c59b2.
const MADE: [u8; 16] =
    [0x4e, 0xac, 0x08, 0x81, 0x11, 0x9f, 0x59, 0x4d, 0x85, 0x0e, 0xe2, 0x1a, 0x52, 0x2c, 0x59, 0xb2];
/// DXEFV, 7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1.
const DXE_VOLUME: [u8; 16] =
    [0xc9, 0xbd, 0xb8, 0x7c, 0xeb, 0xf8, 0x34, 0x4f, 0xaa, 0xea, 0x3e, 0xe4, 0xaf, 0x65, 0x16, 0xa1];
const ACTIVE: u32 = 1;
const HIDDEN: u32 = 8;
/// LOAD_OPTION_CATEGORY_APP.
const APPLICATION: u32 = 0x100;

fn volume_option(attributes: u32, description: &str, file: &[u8; 16]) -> Vec<u8> {
    let mut path = alloc::vec![4, 7, 20, 0];
    path.extend(DXE_VOLUME);
    path.extend([4, 6, 20, 0]);
    path.extend(file);
    path.extend(PATH_END);
    load_option(attributes, description, &path, &[])
}

/// Adds BootOrder and its options: the disk with a boot index, then the firmware's own. Without a disk: the options before
/// the firmware has searched for any.
pub(super) fn boot_options(events: &mut Events, profile: &Profile, disk: Option<u8>) {
    let mut options: Vec<Vec<u8>> = Vec::new();
    let menu = profile.boot_menu.is_present();
    if menu {
        options.push(volume_option(ACTIVE | HIDDEN | APPLICATION, "BootManagerMenuApp", &BOOT_MENU));
    }
    if profile.ui_app.is_present() {
        let (attributes, name) = if menu {
            (ACTIVE | APPLICATION, "EFI Firmware Setup")
        } else {
            (ACTIVE | HIDDEN | APPLICATION, "UiApp")
        };
        options.push(volume_option(attributes, name, &UI_APP));
    }
    let mut first = 0;
    if let Some(slot) = disk {
        // PciRoot(0x0)/Pci(slot,0x0)
        let mut path = alloc::vec![2, 1, 12, 0, 0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0, 1, 1, 6, 0, 0, slot];
        path.extend(PATH_END);
        first = options.len();
        options.push(load_option(ACTIVE, "UEFI Misc Device", &path, &MADE));
        if profile.shell.is_present() {
            let attributes = if menu { ACTIVE | APPLICATION } else { ACTIVE };
            options.push(volume_option(attributes, "EFI Internal Shell", &SHELL));
        }
    }
    let order: Vec<usize> =
        core::iter::once(first).chain((0..options.len()).filter(|index| *index != first)).collect();
    let numbers: Vec<u8> = order.iter().flat_map(|index| (*index as u16).to_le_bytes()).collect();
    let kind = EventType::EV_EFI_VARIABLE_BOOT;
    events.variable(kind, 1, "BootOrder", &GLOBAL, &numbers, "machine");
    for index in order {
        if let Some(option) = options.get(index) {
            events.variable(kind, 1, &alloc::format!("Boot{index:04X}"), &GLOBAL, option, "machine");
        }
    }
}
