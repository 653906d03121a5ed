//! The TPM in the DSDT: its registers, and the physical presence interface.
//!
//! # Source
//!
//! QEMU 7.2, 10.0 and 11.1: hw/acpi/tpm.c `tpm_build_ppi_acpi`; TCG Physical Presence Interface 1.3.

use super::super::aml::{
    Access, Lock, Space, Term, Update, Write, add, and, arg, buffer, call, deref_of, device, field, if_,
    index, int, l_equal, l_greater_equal, local, memory32_fixed, method, name, name_decl, none,
    operation_region, package, resource_template, return_, store, string, to_uuid,
};
use super::Bits::Named;
use super::Serial::Serialized;

use alloc::vec::Vec;

/// Registers of the TPM (TPM_CRB_ADDR_BASE).
const TPM_CRB: u32 = 0xfed4_0000;
/// Memory of the physical presence interface (TPM_PPI_ADDR_BASE).
const TPM_PPI: u64 = 0xfed4_5000;

/// The TPM: its identity, its registers, and the physical presence interface.
pub(super) fn tpm() -> Term {
    let mut terms = Vec::from([
        name_decl("_HID", string("MSFT0101")),
        name_decl("_STR", string("TPM 2.0 Device")),
        name_decl("_CRS", resource_template(&[memory32_fixed(TPM_CRB, 0x1000, Write::ReadWrite)])),
        name_decl("_STA", int(0x0f)),
        name_decl("_UID", int(1)),
    ]);
    terms.extend(physical_presence());
    device("TPM", &terms)
}

/// `tpm_build_ppi_acpi`: the OS asks firmware for operations that need physical presence.
fn physical_presence() -> [Term; 8] {
    let requests = [
        Named("PPIN", 8),
        Named("PPIP", 32),
        Named("PPRP", 32),
        Named("PPRQ", 32),
        Named("PPRM", 32),
        Named("LPPR", 32),
    ];
    let operation = [
        if_(l_greater_equal(arg(0), int(0x100)), &[return_(int(0))]),
        operation_region("TPP1", Space::SystemMemory, add(int(TPM_PPI), arg(0), none()), 1),
        field("TPP1", Access::Byte, Lock::NoLock, Update::Preserve, &[Named("TPPF", 8)]),
        return_(name("TPPF")),
    ];
    [
        operation_region("TPP2", Space::SystemMemory, int(TPM_PPI + 0x100), 0x5a),
        field("TPP2", Access::Any, Lock::NoLock, Update::Preserve, &requests),
        operation_region("TPP3", Space::SystemMemory, int(TPM_PPI + 0x15a), 1),
        field("TPP3", Access::Byte, Lock::NoLock, Update::Preserve, &[Named("MOVV", 8)]),
        method("TPFN", 1, Serialized, &operation),
        name_decl("TPM2", package(2, &[int(0), int(0)])),
        name_decl("TPM3", package(3, &[int(0), int(0), int(0)])),
        method("_DSM", 4, Serialized, &[presence_functions(), attack_mitigation()]),
    ]
}

/// TCG Physical Presence Interface 1.3, functions 0 to 8.
fn presence_functions() -> Term {
    let (revision, function, operation, flags) = (|| arg(1), || arg(2), || local(0), || local(1));
    let (request, parameter) = (|| name("PPRQ"), || name("PPRM"));
    let argument = |at: u64| deref_of(index(arg(3), int(at)));
    let element = |path: &str, at: u64| index(name(path), int(at));
    let looked_up = || [store(argument(0), operation()), store(call("TPFN", &[operation()]), flags())];
    let state = || and(flags(), int(7), none());
    let when = |number: u64, terms: &[Term]| if_(l_equal(function(), int(number)), terms);
    let in_revision = |number: u64, terms: &[Term]| if_(l_equal(revision(), int(number)), terms);
    let unless_implemented = || if_(l_equal(state(), int(0)), &[return_(int(1))]);

    let second = [
        &looked_up()[..],
        &[unless_implemented(), store(operation(), request()), store(int(0), parameter()), return_(int(0))],
    ]
    .concat();
    let third = [
        in_revision(1, &[store(request(), element("TPM2", 1)), return_(name("TPM2"))]),
        in_revision(
            2,
            &[
                store(request(), element("TPM3", 1)),
                store(parameter(), element("TPM3", 2)),
                return_(name("TPM3")),
            ],
        ),
    ];
    let fifth = [
        store(name("LPPR"), element("TPM3", 1)),
        store(name("PPRP"), element("TPM3", 2)),
        return_(name("TPM3")),
    ];
    let seventh = [
        &looked_up()[..],
        &[
            unless_implemented(),
            if_(l_equal(state(), int(2)), &[return_(int(3))]),
            in_revision(1, &[store(operation(), request()), store(int(0), parameter())]),
            in_revision(2, &[store(operation(), request()), store(argument(1), parameter())]),
            return_(int(0)),
        ],
    ]
    .concat();
    let eighth = [&looked_up()[..], &[return_(state())]].concat();
    if_(
        l_equal(arg(0), to_uuid("3DDDFAA6-361B-4EB4-A424-8D10089D1653")),
        &[
            when(0, &[return_(buffer(&[0xff, 0x01]))]),
            when(1, &[return_(string("1.3"))]),
            when(2, &second),
            when(3, &third),
            when(4, &[return_(int(2))]),
            when(5, &fifth),
            when(6, &[return_(int(3))]),
            when(7, &seventh),
            when(8, &eighth),
            return_(buffer(&[0])),
        ],
    )
}

/// TCG Platform Reset Attack Mitigation Specification 1.00, chapter 6.
fn attack_mitigation() -> Term {
    let overwrite =
        [store(deref_of(index(arg(3), int(0))), local(0)), store(local(0), name("MOVV")), return_(int(0))];
    if_(
        l_equal(arg(0), to_uuid("376054ED-CC13-4675-901C-4756D7F2D45D")),
        &[
            if_(l_equal(arg(2), int(0)), &[return_(buffer(&[0x03]))]),
            if_(l_equal(arg(2), int(1)), &overwrite),
        ],
    )
}
