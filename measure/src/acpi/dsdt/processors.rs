//! The processors in the DSDT: hotplug registers, the container of processors, and the hotplug event.
//!
//! # Shape
//!
//! ```text
//! \_SB.PCI0.PRES    the hotplug registers and their lock
//! \_SB.CPUS         methods CTFY CSTA CEJ0 CSCN COST, then a processor Cxxx each
//! \_GPE._E02        the hotplug event: calls CSCN
//! ```
//!
//! # Source
//!
//! QEMU 7.2, 10.0 and 11.1: hw/acpi/cpu.c `build_cpus_aml`.
//!
//! # Not here
//!
//! The ports for notifying firmware, which belong to the PCI root.

use alloc::format;
use alloc::vec::Vec;

use super::super::aml::{
    Access, Lock, Space, Term, Update, acquire, arg, break_, buffer, call, debug, deref_of, device, eisa_id,
    else_, field, if_, increment, index, int, io, l_and, l_equal, l_greater, l_less, l_or, local, method,
    mutex, name, name_decl, notify, operation_region, package, processor, release, resource_template,
    return_, scope, store, string, while_,
};
use super::super::fixed::processor_entry;
use super::super::{Machine, Qemu, Smm};
use super::Bits::{Named, Reserved};
use super::Serial::{NotSerialized, Serialized};

/// First port of the CPU hotplug registers (ICH9_CPU_HOTPLUG_IO_BASE).
const CPU_HOTPLUG: u16 = 0xcd8;
/// Their size in bytes.
const CPU_HOTPLUG_PORTS: u8 = 12;
/// The maximum number of processors that one pass of `CSCN` records.
const CPUS_A_PASS: u8 = 255;

/// Notifies firmware of CPU hotplug (OVMF_CPUHP_SMI_CMD).
fn tell_firmware() -> Term {
    store(int(4), name("\\_SB.PCI0.SMI0.SMIC"))
}

/// A CPU hotplug register.
fn plug(register: &str) -> Term {
    name(&format!("\\_SB.PCI0.PRES.{register}"))
}

const PLUG_LOCK: &str = "\\_SB.PCI0.PRES.CPLK";

/// A method that holds the registers' lock.
fn locked(path: &str, arguments: u8, terms: &[Term], after: &[Term]) -> Term {
    let body = [&[acquire(PLUG_LOCK)], terms, &[release(PLUG_LOCK)], after].concat();
    method(path, arguments, Serialized, &body)
}

/// `build_cpus_aml`: the registers, the container, the event.
pub(super) fn processors(machine: &Machine) -> [Term; 2] {
    let count = machine.vcpus.get();
    let notified = |number: u16| {
        if_(l_equal(arg(0), int(number.into())), &[notify(name(&format!("C{number:03X}")), arg(1))])
    };
    let eject: &[Term] = match machine.smm {
        Smm::Off | Smm::On => &[store(int(1), plug("CEJ0"))],
        Smm::Negotiated => &[store(int(1), plug("CEJF")), tell_firmware()],
    };
    let eject = [&[store(arg(0), plug("CSEL"))], eject].concat();
    let notifications: Vec<Term> = (0..count).map(notified).collect();
    let mut container = Vec::from([
        name_decl("_HID", string("ACPI0010")),
        name_decl("_CID", eisa_id("PNP0A05")),
        method("CTFY", 2, NotSerialized, &notifications),
        locked(
            "CSTA",
            1,
            &[
                store(arg(0), plug("CSEL")),
                store(int(0), local(0)),
                if_(l_equal(plug("CPEN"), int(1)), &[store(int(0x0f), local(0))]),
            ],
            &[return_(local(0))],
        ),
        locked("CEJ0", 1, &eject, &[]),
        scan(machine),
        locked(
            "COST",
            4,
            &[
                store(arg(0), plug("CSEL")),
                store(int(1), plug("CCMD")),
                store(arg(1), plug("CDAT")),
                store(int(2), plug("CCMD")),
                store(arg(2), plug("CDAT")),
            ],
            &[],
        ),
    ]);
    container.extend((0..count).map(one_processor));
    [
        scope(
            "_SB",
            &[device("\\_SB.PCI0.PRES", &registers(machine.qemu)), device("\\_SB.CPUS", &container)],
        ),
        method("\\_GPE._E02", 0, NotSerialized, &[call("\\_SB.CPUS.CSCN", &[])]),
    ]
}

/// The hotplug registers, and their lock.
fn registers(qemu: Qemu) -> Vec<Term> {
    let mut registers = Vec::from([
        name_decl("_HID", eisa_id("PNP0A06")),
        name_decl("_UID", string("CPU Hotplug resources")),
        mutex("CPLK"),
        name_decl("_CRS", resource_template(&[io(CPU_HOTPLUG, 1, CPU_HOTPLUG_PORTS)])),
        operation_region("PRST", Space::SystemIo, int(CPU_HOTPLUG.into()), CPU_HOTPLUG_PORTS.into()),
        field(
            "PRST",
            Access::Byte,
            Lock::NoLock,
            Update::WriteAsZeros,
            &[
                Reserved(32),
                Named("CPEN", 1),
                Named("CINS", 1),
                Named("CRMV", 1),
                Named("CEJ0", 1),
                Named("CEJF", 1),
                Reserved(3),
                Named("CCMD", 8),
            ],
        ),
        field(
            "PRST",
            Access::DWord,
            Lock::NoLock,
            Update::Preserve,
            &[Named("CSEL", 32), Reserved(32), Named("CDAT", 32)],
        ),
    ]);
    if qemu != Qemu::V11_1 {
        // Switches from the hotplug interface of QEMU before 2.7 to the modern one.
        registers.push(method("_INI", 0, Serialized, &[store(int(0), name("CSEL"))]));
    }
    registers
}

/// The method that scans for hotplug and unplug events.
///
/// QEMU 7.2 reports an unplug immediately; later versions collect and report them after the scan.
fn scan(machine: &Machine) -> Term {
    let (event, added, at, uid, work, ejected) =
        (|| local(0), || local(1), || local(2), || local(3), || local(4), || local(5));
    let notes_ejected = machine.qemu != Qemu::V7_2;
    let noted = |list: &str, count: Term| {
        [store(uid(), index(name(list), count.clone())), increment(count), store(int(1), event())]
    };
    let told = |list: &str, count: Term, terms: &[Term]| {
        let head = [store(deref_of(index(name(list), at())), uid())];
        while_(l_less(at(), count), &[&head[..], terms, &[increment(at())]].concat())
    };
    let full = |count: Term| l_equal(count, int(CPUS_A_PASS.into()));

    let mut found = Vec::from([
        store(int(0), event()),
        store(uid(), plug("CSEL")),
        store(int(0), plug("CCMD")),
        if_(l_less(plug("CDAT"), uid()), &[break_()]),
        if_(
            if notes_ejected { l_or(full(added()), full(ejected())) } else { full(added()) },
            &[store(int(1), work()), break_()],
        ),
        store(plug("CDAT"), uid()),
        if_(l_equal(plug("CINS"), int(1)), &noted("CNEW", added())),
    ]);
    let removal = l_equal(plug("CRMV"), int(1));
    found.push(if notes_ejected {
        if_(removal, &noted("CEJL", ejected()))
    } else {
        let told_at_once =
            [call("CTFY", &[uid(), int(3)]), store(int(1), plug("CRMV")), store(int(1), event())];
        else_(&[if_(removal, &told_at_once)])
    });
    found.push(increment(uid()));

    let last = int(machine.vcpus.get().into());
    let mut pass = Vec::from([store(int(0), work()), store(int(1), event()), store(int(0), added())]);
    if notes_ejected {
        pass.push(store(int(0), ejected()));
    }
    pass.push(while_(l_and(l_equal(event(), int(1)), l_less(uid(), last)), &found));
    if machine.smm == Smm::Negotiated {
        pass.push(if_(l_greater(added(), int(0)), &[tell_firmware()]));
    }
    pass.extend([
        store(int(0), at()),
        told(
            "CNEW",
            added(),
            &[
                call("CTFY", &[uid(), int(1)]),
                store(uid(), debug()),
                store(uid(), plug("CSEL")),
                store(int(1), plug("CINS")),
            ],
        ),
    ]);
    if notes_ejected {
        pass.push(store(int(0), at()));
        pass.push(told(
            "CEJL",
            ejected(),
            &[call("CTFY", &[uid(), int(3)]), store(uid(), plug("CSEL")), store(int(1), plug("CRMV"))],
        ));
    }

    let mut terms = Vec::from([name_decl("CNEW", package(CPUS_A_PASS, &[]))]);
    if notes_ejected {
        terms.push(name_decl("CEJL", package(CPUS_A_PASS, &[])));
    }
    terms.extend([store(int(0), uid()), store(int(1), work()), while_(l_equal(work(), int(1)), &pass)]);
    locked("CSCN", 0, &terms, &[])
}

/// A processor; the first one cannot be unplugged.
fn one_processor(number: u16) -> Term {
    let uid = || int(number.into());
    let mut terms = Vec::from([
        method("_STA", 0, Serialized, &[return_(call("CSTA", &[uid()]))]),
        name_decl("_MAT", buffer(&processor_entry(number as u8))),
    ]);
    if number != 0 {
        terms.push(method("_EJ0", 1, NotSerialized, &[call("CEJ0", &[uid()])]));
    }
    terms.push(method("_OST", 3, Serialized, &[call("COST", &[uid(), arg(0), arg(1), arg(2)])]));
    processor(&format!("C{number:03X}"), number as u8, &terms)
}
