//! The terms of the DSDT of QEMU's q35 machine.
//!
//! # Shape
//!
//! ```text
//! \        DBG                     the debug port
//! \_SB     PCI0, DRAC              the PCI root; its configuration space
//! \_SB.PCI0                        hotplug behind bridges
//! \_SB     PICF, PRTP, PRTA, LNKx  routing of PCI interrupts
//! \_SB     HPET                    if present
//! \_GPE, \_SB PRES, CPUS           CPU hotplug, and each processor
//! \_SB.PCI0 _CRS                   ports and memory of the PCI root
//! \        _S3 _S4 _S5
//! \_SB.PCI0 FWCF                   fw_cfg
//! \_SB.PCI0 Sxx                    each device, and the devices on the LPC bridge
//! \_SB     TPM                     if present
//! \_GPE    _E01                    PCI hotplug
//! ```
//!
//! # Source
//!
//! QEMU 7.2, 10.0 and 11.1: hw/i386/acpi-build.c `build_dsdt` and what it calls, hw/acpi/cpu.c `build_cpus_aml`,
//! hw/acpi/pcihp.c, hw/acpi/tpm.c `tpm_build_ppi_acpi`, hw/isa/lpc_ich9.c, hw/input/pckbd.c, hw/char/serial-isa.c,
//! hw/rtc/mc146818rtc.c, hw/nvram/fw_cfg-acpi.c. The complete output is compared with QEMU's.
//!
//! # Not here
//!
//! Encoding of terms ([`aml`](super::aml)); the other tables ([`fixed`](super::fixed)).

mod processors;
mod tpm;

use alloc::format;
use alloc::vec::Vec;

use super::aml::{
    Access, Bits, Cacheable, Lock, Range, Serial, Space, Term, Update, Width, Write, acquire, and, arg,
    buffer, call, create_dword_field, deref_of, device, eisa_id, else_, field, if_, increment, index, int,
    interrupts, io, irq_no_flags, irq_shared, l_equal, l_greater, l_less, l_not, l_or, local, memory32_fixed,
    method, mutex, name, name_decl, none, operation_region, or, package, range, release, resource_template,
    return_, scope, shift_left, shift_right, size_of, slot_name, store, string, subtract, to_buffer,
    to_hex_string, to_uuid, while_,
};
use super::fixed::{ECAM, ECAM_END, GPE0, GPE0_BYTES, SMI_PORT};
use super::{Layout, Machine, Qemu, Smm, Switch, Tpm};

use Bits::{Named, Reserved};
use Serial::{NotSerialized, Serialized};

/// First port of the PCI hotplug registers (ACPI_PCIHP_ADDR_ICH9).
const PCI_HOTPLUG: u16 = 0xcc0;
/// The event timer (HPET_BASE, HPET_LEN).
const HPET: u32 = 0xfed0_0000;
const HPET_BYTES: u32 = 0x400;
/// The I/O APIC; the 32-bit PCI window ends before it.
const IO_APIC: u64 = 0xfec0_0000;

/// Returns the terms of the DSDT, concatenated.
pub(super) fn terms(machine: &Machine, layout: &Layout) -> Vec<u8> {
    let mut terms = Vec::from([debug_port(), root(machine), pci_hotplug(machine.qemu)]);
    terms.extend(interrupt_routing());
    if machine.hpet == Switch::On {
        terms.push(event_timer());
    }
    terms.push(scope("_GPE", &[name_decl("_HID", string("ACPI0006"))]));
    terms.extend(processors::processors(machine));
    terms.push(root_resources(layout));
    terms.push(sleep_states());
    terms.push(scope("\\_SB.PCI0", &[firmware_configuration()]));
    let mut system_bus = Vec::from([scope("PCI0", &devices(machine))]);
    if machine.tpm == Tpm::Crb {
        system_bus.push(tpm::tpm());
    }
    terms.push(scope("\\_SB", &system_bus));
    terms.extend(hotplug_events(machine.qemu));
    terms.into_iter().flat_map(|Term(bytes)| bytes).collect()
}

/// `build_dbg_aml`.
fn debug_port() -> Term {
    let (text, length, at) = (|| local(0), || local(1), || local(2));
    let print = [
        to_hex_string(arg(0), text()),
        to_buffer(text(), text()),
        subtract(size_of(text()), int(1), length()),
        store(int(0), at()),
        while_(
            l_less(at(), length()),
            &[store(deref_of(index(text(), at())), name("DBGB")), increment(at())],
        ),
        store(int(0x0a), name("DBGB")),
    ];
    scope(
        "\\",
        &[
            operation_region("DBG", Space::SystemIo, int(0x402), 1),
            field("DBG", Access::Byte, Lock::NoLock, Update::Preserve, &[Named("DBGB", 8)]),
            method("DBUG", 1, NotSerialized, &print),
        ],
    )
}

/// The PCI root, and the memory of its configuration space.
fn root(machine: &Machine) -> Term {
    let mut terms = Vec::from([name_decl("_HID", eisa_id("PNP0A08")), name_decl("_CID", eisa_id("PNP0A03"))]);
    if machine.qemu == Qemu::V7_2 {
        terms.push(name_decl("_ADR", int(0)));
    }
    terms.push(name_decl("_UID", int(0)));
    terms.push(operating_system_capabilities());
    if machine.qemu != Qemu::V7_2 {
        terms.push(endpoint_label());
    }
    let dram = [
        name_decl("_HID", string("PNP0C01")),
        name_decl(
            "_CRS",
            resource_template(&[range(
                Width::DWord,
                Range::Memory { cacheable: Cacheable::No },
                ECAM,
                ECAM_END,
            )]),
        ),
    ];
    let mut bus = Vec::from([device("PCI0", &terms), device("DRAC", &dram)]);
    if machine.smm == Smm::Negotiated {
        bus.push(management_interrupt());
    }
    scope("_SB", &bus)
}

/// The ports for notifying firmware of CPU hotplug.
fn management_interrupt() -> Term {
    device(
        "PCI0.SMI0",
        &[
            name_decl("_HID", eisa_id("PNP0A06")),
            name_decl("_UID", string("SMI resources")),
            name_decl("_CRS", resource_template(&[io(SMI_PORT, 1, 2)])),
            operation_region("SMIR", Space::SystemIo, int(SMI_PORT.into()), 2),
            field("SMIR", Access::Byte, Lock::NoLock, Update::WriteAsZeros, &[Named("SMIC", 8), Reserved(8)]),
        ],
    )
}

/// `build_q35_osc_method`: what the OS may control; hotplug stays with ACPI.
fn operating_system_capabilities() -> Term {
    let word = |number: u64, path: &str| create_dword_field(arg(3), int(4 * number), path);
    let (first, third, granted) = (|| name("CDW1"), || name("CDW3"), || local(0));
    let host_bridge = [
        word(1, "CDW2"),
        word(2, "CDW3"),
        store(third(), granted()),
        and(granted(), int(0x1e), granted()),
        if_(l_not(l_equal(arg(1), int(1))), &[or(first(), int(0x08), first())]),
        if_(l_not(l_equal(third(), granted())), &[or(first(), int(0x10), first())]),
        store(granted(), third()),
    ];
    method(
        "_OSC",
        4,
        NotSerialized,
        &[
            word(0, "CDW1"),
            if_(l_equal(arg(0), to_uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766")), &host_bridge),
            else_(&[or(first(), int(4), first())]),
            return_(arg(3)),
        ],
    )
}

/// The start of both label methods: no function is supported by default (`build_append_pci_dsm_func0_common`).
fn label_functions(result: &Term, after_result: Option<Term>) -> Vec<Term> {
    let mut terms = Vec::from([store(buffer(&[0]), result.clone())]);
    terms.extend(after_result);
    terms.extend([
        if_(
            l_not(l_equal(arg(0), to_uuid("E5C937D0-3553-4D7A-9117-EA4D19C3434D"))),
            &[return_(result.clone())],
        ),
        if_(l_less(arg(1), int(2)), &[return_(result.clone())]),
    ]);
    terms
}

/// `aml_pci_edsm`: the label of a device without hotplug.
fn endpoint_label() -> Term {
    let (result, label) = (|| local(0), || local(1));
    let mut functions = label_functions(&result(), None);
    functions.push(store(int(1 | 1 << 7), index(result(), int(0))));
    functions.push(return_(result()));
    let seventh = [
        store(package(2, &[int(0), string("")]), result()),
        store(deref_of(index(arg(4), int(0))), label()),
        store(label(), index(result(), int(0))),
        return_(result()),
    ];
    let terms = [if_(l_equal(arg(2), int(0)), &functions), if_(l_equal(arg(2), int(7)), &seventh)];
    method("EDSM", 5, Serialized, &terms)
}

/// `build_x86_acpi_pci_hotplug`, later `build_acpi_pci_hotplug`.
fn pci_hotplug(qemu: Qemu) -> Term {
    let region = |path: &str, at: u16, bytes: u64| {
        operation_region(path, Space::SystemIo, int(u64::from(PCI_HOTPLUG + at)), bytes)
    };
    let words =
        |path: &str, bits: &[Bits]| field(path, Access::DWord, Lock::NoLock, Update::WriteAsZeros, bits);
    let bit = || shift_left(int(1), arg(1));
    let eject = [
        acquire("BLCK"),
        store(arg(0), name("BNUM")),
        store(bit(), name("B0EJ")),
        release("BLCK"),
        return_(int(0)),
    ];
    let label = [
        acquire("BLCK"),
        store(arg(0), name("BNUM")),
        store(bit(), name("PIDX")),
        store(name("PIDX"), local(0)),
        release("BLCK"),
        return_(local(0)),
    ];
    scope(
        "_SB.PCI0",
        &[
            region("PCST", 0, 8),
            words("PCST", &[Named("PCIU", 32), Named("PCID", 32)]),
            region("SEJ", 8, 4),
            words("SEJ", &[Named("B0EJ", 32)]),
            region("BNMR", 16, 8),
            words("BNMR", &[Named("BNUM", 32), Named("PIDX", 32)]),
            mutex("BLCK"),
            method("PCEJ", 2, NotSerialized, &eject),
            method("AIDX", 2, NotSerialized, &label),
            pluggable_label(qemu),
        ],
    )
}

/// `aml_pci_pdsm`: the label of a hotpluggable device.
fn pluggable_label(qemu: Qemu) -> Term {
    let (result, supported, label) = (|| local(0), || local(1), || local(2));
    let (zero, unsupported) = (|| int(0), || int(0xffff_ffff));
    let parameter = |at: u64| deref_of(index(arg(4), int(at)));
    let asked = || store(call("AIDX", &[parameter(0), parameter(1)]), label());
    let cleared = || store(zero(), supported());

    let mut functions = match qemu {
        Qemu::V7_2 => label_functions(&result(), Some(cleared())),
        Qemu::V10_0 | Qemu::V11_1 => {
            let mut functions = label_functions(&result(), None);
            functions.push(cleared());
            functions
        }
    };
    functions.extend([
        asked(),
        if_(
            l_not(or(l_equal(label(), zero()), l_equal(label(), unsupported()), none())),
            &[or(supported(), int(1), supported()), or(supported(), shift_left(int(1), int(7)), supported())],
        ),
        store(supported(), index(result(), zero())),
        return_(result()),
    ]);
    let seventh = [
        asked(),
        store(package(2, &[]), result()),
        if_(
            l_not(l_or(l_equal(label(), zero()), l_equal(label(), unsupported()))),
            &[store(label(), index(result(), zero())), store(string(""), index(result(), int(1)))],
        ),
        return_(result()),
    ];
    let terms = [if_(l_equal(arg(2), zero()), &functions), if_(l_equal(arg(2), int(7)), &seventh)];
    method("PDSM", 5, Serialized, &terms)
}

/// `build_q35_pci0_int`.
fn interrupt_routing() -> [Term; 3] {
    let routes = [
        name_decl("PRTP", routing_table("LNK")),
        name_decl("PRTA", routing_table("GSI")),
        method(
            "_PRT",
            0,
            NotSerialized,
            &[if_(l_equal(name("PICF"), int(0)), &[return_(name("PRTP"))]), else_(&[return_(name("PRTA"))])],
        ),
    ];
    let status = [if_(and(int(0x80), arg(0), none()), &[return_(int(0x09))]), return_(int(0x0b))];
    let current = [
        name_decl("PRR0", resource_template(&[interrupts(&[0])])),
        create_dword_field(name("PRR0"), int(5), "PRRI"),
        store(and(arg(0), int(0x0f), none()), name("PRRI")),
        return_(name("PRR0")),
    ];
    let mut bus = Vec::from([
        scope("PCI0", &routes),
        method("IQST", 1, NotSerialized, &status),
        method("IQCR", 1, Serialized, &current),
    ]);
    bus.extend((0..8).map(link));
    bus.extend((0..8).map(fixed_link));
    [
        name_decl("PICF", int(0)),
        method("_PIC", 1, NotSerialized, &[store(arg(0), name("PICF"))]),
        scope("_SB", &bus),
    ]
}

/// The letter of an interrupt line, A to H.
fn letter(line: u8) -> char {
    char::from(b'A' + (line & 7))
}

/// `build_q35_routing_table`: four pins of each of 32 slots. The pins rotate through one group of four lines, A to D or E
/// to H, from the slot's first line.
fn routing_table(lines: &str) -> Term {
    let mut routes = Vec::new();
    for slot in 0..32_u8 {
        let first = match slot {
            0..=23 => 4 + (slot & 3),
            24 | 30 => 4,
            _ => 0,
        };
        for pin in 0..4_u8 {
            let line = (first & 4) | ((first + pin) & 3);
            let address = int(u64::from(slot) << 16 | 0xffff);
            let source = name(&format!("{lines}{}", letter(line)));
            routes.push(package(4, &[address, int(pin.into()), source, int(0)]));
        }
    }
    package(128, &routes)
}

/// `build_link_dev`: a line that the OS can route.
fn link(line: u8) -> Term {
    let register = || name(&format!("PRQ{}", letter(line)));
    device(
        &format!("LNK{}", letter(line)),
        &[
            name_decl("_HID", eisa_id("PNP0C0F")),
            name_decl("_UID", int(line.into())),
            name_decl("_PRS", resource_template(&[interrupts(&[5, 10, 11])])),
            method("_STA", 0, NotSerialized, &[return_(call("IQST", &[register()]))]),
            method("_DIS", 0, NotSerialized, &[or(register(), int(0x80), register())]),
            method("_CRS", 0, NotSerialized, &[return_(call("IQCR", &[register()]))]),
            method(
                "_SRS",
                1,
                NotSerialized,
                &[create_dword_field(arg(0), int(5), "PRRI"), store(name("PRRI"), register())],
            ),
        ],
    )
}

/// `build_gsi_link_dev`: a fixed line.
fn fixed_link(line: u8) -> Term {
    let number = 16 + u32::from(line);
    let resources = || resource_template(&[interrupts(&[number])]);
    device(
        &format!("GSI{}", letter(line)),
        &[
            name_decl("_HID", eisa_id("PNP0C0F")),
            name_decl("_UID", int(number.into())),
            name_decl("_PRS", resources()),
            name_decl("_CRS", resources()),
            method("_DIS", 0, NotSerialized, &[]),
            method("_SRS", 1, NotSerialized, &[]),
        ],
    )
}

/// `build_hpet_aml`.
fn event_timer() -> Term {
    let (id, period) = (|| local(0), || local(1));
    let absent = || [return_(int(0))];
    let status = [
        store(name("VEND"), id()),
        store(name("PRD"), period()),
        shift_right(id(), int(16), id()),
        if_(l_or(l_equal(id(), int(0)), l_equal(id(), int(0xffff))), &absent()),
        if_(l_or(l_equal(period(), int(0)), l_greater(period(), int(100_000_000))), &absent()),
        return_(int(0x0f)),
    ];
    let registers = [Named("VEND", 32), Named("PRD", 32)];
    let timer = [
        name_decl("_HID", eisa_id("PNP0103")),
        name_decl("_UID", int(0)),
        operation_region("HPTM", Space::SystemMemory, int(HPET.into()), HPET_BYTES.into()),
        field("HPTM", Access::DWord, Lock::Lock, Update::Preserve, &registers),
        method("_STA", 0, NotSerialized, &status),
        name_decl("_CRS", resource_template(&[memory32_fixed(HPET, HPET_BYTES, Write::ReadOnly)])),
    ];
    scope("_SB", &[device("HPET", &timer)])
}

/// The resources of the PCI root: bus numbers, ports, memory from RAM to the I/O APIC except the configuration space, and
/// the window above RAM.
fn root_resources(layout: &Layout) -> Term {
    let memory = |first, last| range(Width::DWord, Range::Memory { cacheable: Cacheable::No }, first, last);
    let mut resources = Vec::from([
        range(Width::Word, Range::Bus, 0, 0xff),
        io(0xcf8, 1, 8),
        range(Width::Word, Range::Io, 0, 0xcf7),
        range(Width::Word, Range::Io, 0xd00, 0xffff),
        range(Width::DWord, Range::Memory { cacheable: Cacheable::Yes }, 0xa_0000, 0xb_ffff),
    ]);
    resources.push(memory(layout.low_memory, ECAM - 1));
    resources.push(memory(ECAM_END + 1, IO_APIC - 1));
    let (first, last) = layout.window;
    resources.push(range(Width::QWord, Range::Memory { cacheable: Cacheable::Yes }, first, last));
    let reserved = |path: &str, text: &str, ports: Term| {
        device(
            path,
            &[
                name_decl("_HID", string("PNP0A06")),
                name_decl("_UID", string(text)),
                name_decl("_STA", int(0x0b)),
                name_decl("_CRS", resource_template(&[ports])),
            ],
        )
    };
    scope(
        "\\_SB.PCI0",
        &[
            name_decl("_CRS", resource_template(&resources)),
            reserved("GPE0", "GPE0 resources", io(GPE0, 1, GPE0_BYTES)),
            reserved("PHPR", "PCI Hotplug resources", io(PCI_HOTPLUG, 1, 0x18)),
        ],
    )
}

fn sleep_states() -> Term {
    let state =
        |path: &str, number: u64| name_decl(path, package(4, &[int(number), int(number), int(0), int(0)]));
    scope("\\", &[state("_S3", 1), state("_S4", 2), state("_S5", 0)])
}

/// `fw_cfg_add_acpi_dsdt`.
fn firmware_configuration() -> Term {
    device(
        "FWCF",
        &[
            name_decl("_HID", string("QEMU0002")),
            name_decl("_STA", int(0x0b)),
            name_decl("_CRS", resource_template(&[io(0x510, 1, 12)])),
        ],
    )
}

/// `build_append_pci_bus_devices`: host bridge, the machine's own devices, LPC bridge, AHCI, SMBus.
fn devices(machine: &Machine) -> Vec<Term> {
    let address = |slot: u8, function: u64| name_decl("_ADR", int(u64::from(slot) << 16 | function));
    let mut devices: Vec<Term> =
        (0..=machine.devices.get()).map(|slot| device(&slot_name(slot), &[address(slot, 0)])).collect();
    devices.push(device(&slot_name(0x1f), &[&[address(0x1f, 0)], &low_pin_count(machine.qemu)[..]].concat()));
    if machine.qemu != Qemu::V7_2 {
        devices.push(device("SFA", &[address(0x1f, 2)]));
    }
    devices.push(device("SFB", &[address(0x1f, 3)]));
    if machine.qemu == Qemu::V7_2 {
        devices.push(method("PCNT", 0, NotSerialized, &[]));
    }
    devices
}

/// `build_ich9_isa_aml`, and the devices on the bus.
fn low_pin_count(qemu: Qemu) -> [Term; 6] {
    let routing = [
        Named("PRQA", 8),
        Named("PRQB", 8),
        Named("PRQC", 8),
        Named("PRQD", 8),
        Reserved(32),
        Named("PRQE", 8),
        Named("PRQF", 8),
        Named("PRQG", 8),
        Named("PRQH", 8),
    ];
    let routing = field("PCI0.SF8.PIRQ", Access::Byte, Lock::NoLock, Update::Preserve, &routing);
    let present = || name_decl("_STA", int(0x0f));
    let resources = |terms: &[Term]| name_decl("_CRS", resource_template(terms));
    let id = |text: &str| name_decl("_HID", eisa_id(text));
    let serial_line = match qemu {
        Qemu::V7_2 | Qemu::V10_0 => irq_no_flags(4),
        Qemu::V11_1 => irq_shared(4),
    };
    [
        operation_region("PIRQ", Space::PciConfig, int(0x60), 12),
        scope("\\_SB", &[routing]),
        device(
            "KBD",
            &[id("PNP0303"), present(), resources(&[io(0x60, 1, 1), io(0x64, 1, 1), irq_no_flags(1)])],
        ),
        device("MOU", &[id("PNP0F13"), present(), resources(&[irq_no_flags(12)])]),
        device(
            "COM1",
            &[
                id("PNP0501"),
                name_decl("_UID", int(1)),
                present(),
                resources(&[io(0x3f8, 0, 8), serial_line]),
            ],
        ),
        device("RTC", &[id("PNP0B00"), resources(&[io(0x70, 1, 8), irq_no_flags(8)])]),
    ]
}

/// The handler of PCI hotplug events.
///
/// QEMU 7.2 scans the buses; later versions know that none is hotpluggable, and do nothing.
fn hotplug_events(qemu: Qemu) -> [Term; 1] {
    const LOCK: &str = "\\_SB.PCI0.BLCK";
    let look = [acquire(LOCK), call("\\_SB.PCI0.PCNT", &[]), release(LOCK)];
    let terms = if qemu == Qemu::V7_2 { &look[..] } else { &[] };
    [scope("_GPE", &[method("_E01", 0, NotSerialized, terms)])]
}
