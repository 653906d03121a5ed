//! What is refused, and what each field of a machine changes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use alloc::format;

fn machine() -> Machine {
    Machine {
        qemu: Qemu::V10_0,
        vcpus: NonZeroU16::new(2).unwrap(),
        memory: 2 << 30,
        devices: NonZeroU8::new(5).unwrap(),
        window: dynamic_window(46, Vendor::Intel).unwrap(),
        pic: Switch::Off,
        hpet: Switch::Off,
        smm: Smm::Off,
        tpm: Tpm::Absent,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Signatures of the tables in order, from the end of the FACS.
fn signatures(tables: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 64;
    while tables[at] != 0 {
        found.push(String::from_utf8(tables[at..at + 4].to_vec()).unwrap());
        at += u32_at(tables, at + 4) as usize;
    }
    found
}

#[test]
fn a_version_that_was_never_compared_is_refused() {
    for known in ["7.2", "7.2.22", "10.0.13", "10.1.0", "10.2.2", "11.1.3"] {
        assert!(known.parse::<Qemu>().is_ok(), "{known}");
    }
    for unknown in
        ["", "7", "7.1.0", "8.2.2", "9.2.1", "10.3.0", "11.0.1", "11.2", "72", "10.0-rc1", "10.0.x", "v10.0"]
    {
        assert_eq!(unknown.parse::<Qemu>(), Err(Error::Version { found: unknown.into() }));
    }
}

#[test]
fn the_256th_processor_is_refused() {
    for (vcpus, result) in [(255, None), (256, Some(256)), (288, Some(288)), (u16::MAX, Some(u16::MAX))] {
        let machine = Machine { vcpus: NonZeroU16::new(vcpus).unwrap(), ..machine() };
        assert_eq!(machine.tables().err(), result.map(|found| Error::Vcpus { found }));
    }
}

#[test]
fn the_31st_device_is_refused() {
    for (devices, result) in [(30, None), (31, Some(31)), (255, Some(255))] {
        let machine = Machine { devices: NonZeroU8::new(devices).unwrap(), ..machine() };
        assert_eq!(machine.tables().err(), result.map(|found| Error::Devices { found }));
    }
}

#[test]
fn an_invalid_memory_size_is_refused() {
    for memory in [0, 1, (1 << 30) + 1, 1 << 52, u64::MAX] {
        let machine = Machine { memory, ..machine() };
        assert_eq!(machine.tables(), Err(Error::Memory { found: memory }));
    }
}

#[test]
fn a_window_that_overlaps_memory_or_exceeds_the_address_space_is_refused() {
    let large = Machine { memory: 64 << 30, ..machine() };
    for (window, fits) in [
        (0, false),
        (4 << 30, false),
        ((66 << 30) - 1, false),
        (66 << 30, true),
        (1 << 52, false),
        (u64::MAX, false),
    ] {
        let found = Machine { window, ..large.clone() }.tables();
        assert_eq!(found.is_ok(), fits, "{window:#x}");
        if let Err(error) = found {
            assert!(
                matches!(error, Error::Window { found, least, .. } if found == window && least == 66 << 30)
            );
        }
    }
}

#[test]
fn a_window_is_the_last_eighth_and_unknown_address_widths_are_refused() {
    assert_eq!(dynamic_window(46, Vendor::Intel), Ok(0x3800_0000_0000));
    assert_eq!(dynamic_window(42, Vendor::Amd), Ok(0x380_0000_0000));
    assert_eq!(dynamic_window(40, Vendor::Amd), Ok(768 << 30));
    for (bits, vendor) in [
        (40, Vendor::Intel),
        (0, Vendor::Amd),
        (39, Vendor::Intel),
        (47, Vendor::Amd),
        (52, Vendor::Intel),
        (255, Vendor::Intel),
    ] {
        assert_eq!(dynamic_window(bits, vendor), Err(Error::AddressBits { found: bits }));
    }
}

#[test]
fn every_shape_has_its_tables_and_correct_pointers() {
    for qemu in [Qemu::V7_2, Qemu::V10_0, Qemu::V11_1] {
        for (hpet, tpm, expected) in [
            (Switch::Off, Tpm::Absent, "DSDT FACP APIC MCFG WAET RSDT"),
            (Switch::On, Tpm::Absent, "DSDT FACP APIC HPET MCFG WAET RSDT"),
            (Switch::On, Tpm::Crb, "DSDT FACP APIC HPET TPM2 MCFG WAET RSDT"),
        ] {
            let made = Machine { qemu, hpet, tpm, ..machine() }.tables().unwrap();
            assert_eq!(signatures(&made.tables).join(" "), expected);
            assert_eq!(made.tables.len(), 131_072);
            assert_eq!(made.loader.len(), 4096);
            assert_eq!(made.rsdp.len(), 20);
            let rsdt = u32_at(&made.rsdp, 16) as usize;
            assert_eq!(&made.tables[rsdt..rsdt + 4], b"RSDT");
            for entry in (36..u32_at(&made.tables, rsdt + 4) as usize).step_by(4) {
                let table = u32_at(&made.tables, rsdt + entry) as usize;
                assert!(expected.contains(core::str::from_utf8(&made.tables[table..table + 4]).unwrap()));
            }
        }
    }
}

#[test]
fn the_largest_machine_still_fits_the_usual_file_sizes() {
    let all =
        Machine { vcpus: NonZeroU16::new(255).unwrap(), devices: NonZeroU8::new(30).unwrap(), ..machine() };
    let made = all.tables().unwrap();
    assert_eq!(made.loader.len(), 4096);
    assert_eq!(made.tables.len(), 131_072);
    assert!(made.tables.len() - made.tables.iter().rev().position(|&byte| byte != 0).unwrap() > 8192);
}

#[test]
fn files_come_in_the_order_of_their_allocation() {
    let names = |machine: Machine| {
        let made = machine.tables().unwrap();
        made.measured().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(machine()), ["etc/table-loader", "etc/acpi/rsdp", "etc/acpi/tables"]);
    let with_tpm = Machine { tpm: Tpm::Crb, ..machine() };
    assert_eq!(
        names(with_tpm.clone()),
        ["etc/table-loader", "etc/acpi/rsdp", "etc/tpm/log", "etc/acpi/tables"]
    );
    // The same order as in the commands.
    let loader = with_tpm.tables().unwrap().loader;
    let allocated = loader.chunks(128).take_while(|command| command[0] == 1).map(|command| {
        let name = &command[4..60];
        String::from_utf8(name[..name.iter().position(|&byte| byte == 0).unwrap()].to_vec()).unwrap()
    });
    assert_eq!(allocated.collect::<Vec<_>>(), names(with_tpm)[1..]);
}

#[test]
fn each_field_of_a_machine_changes_the_tables() {
    let base = machine();
    let changed = [
        ("version 7.2", Machine { qemu: Qemu::V7_2, ..base.clone() }),
        ("version 11.1", Machine { qemu: Qemu::V11_1, ..base.clone() }),
        ("vcpus", Machine { vcpus: NonZeroU16::new(3).unwrap(), ..base.clone() }),
        ("memory", Machine { memory: 1 << 30, ..base.clone() }),
        ("devices", Machine { devices: NonZeroU8::new(6).unwrap(), ..base.clone() }),
        ("window", Machine { window: dynamic_window(45, Vendor::Intel).unwrap(), ..base.clone() }),
        ("pic", Machine { pic: Switch::On, ..base.clone() }),
        ("hpet", Machine { hpet: Switch::On, ..base.clone() }),
        ("smm", Machine { smm: Smm::On, ..base.clone() }),
        ("negotiated SMIs", Machine { smm: Smm::Negotiated, ..base.clone() }),
        ("tpm", Machine { tpm: Tpm::Crb, ..base.clone() }),
    ];
    let same = base.tables().unwrap().tables;
    for (field, machine) in changed {
        assert_ne!(machine.tables().unwrap().tables, same, "{field}");
    }
}

#[test]
fn memory_above_4_gib_does_not_affect_the_tables() {
    // The DSDT describes only memory below 4 GiB.
    let at = |gibibytes: u64| Machine { memory: gibibytes << 30, ..machine() }.tables().unwrap();
    assert_eq!(at(3), at(64));
    assert_eq!(at(2), at(64));
    assert_ne!(at(1), at(64));
    let name = format!("{:?}", machine());
    assert!(name.contains("V10_0"));
}
