//! The first process of the initrd: `boot.rs`, started without a C library.
//!
//! # Shape
//!
//! What conflicts with `std`: the entry point, the memory functions that the compiler calls, the panic
//! handler. Everything else is also compiled into the library, for the linter and the tests.
//!
//! # Source
//!
//! System V ABI, AMD64 supplement, 3.4.1: at entry the stack pointer is a multiple of 16 and there is
//! no return address.
//!
//! # Not here
//!
//! Arguments and environment: they are not read.

#![no_std]
#![no_main]
#![deny(missing_docs, unused_must_use, warnings)]

mod boot;
#[allow(dead_code)] // the builder uses its writing side
mod cmdline;
mod line;
mod modules;
mod partition;
mod sys;
mod verity;

core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "call {start}",
    "ud2",
    start = sym start,
);

extern "C" fn start() -> ! {
    match boot::boot() {
        Err(refusal) => boot::say("<2>", format_args!("{refusal}")),
        Ok(never) => match never {},
    }
    sys::exit()
}

/// The language requires one; the linker drops it, since no panic is reachable, as a test checks.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    boot::say("<2>", format_args!("refusing to boot: proofmark-init has panicked"));
    sys::exit()
}

/// Copies forward.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// Copies between ranges that may overlap.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= length {
        // SAFETY: forward copying reads no byte that it has written.
        return unsafe { memcpy(to, from, length) };
    }
    // SAFETY: the caller's promise; here `to` lies within the source, so the copy runs backward.
    unsafe {
        core::arch::asm!("std", "rep movsb", "cld", inout("rcx") length => _,
            inout("rdi") to.wrapping_add(length).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(length).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// Fills.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") length => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    to
}

/// Compares.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    for at in 0..length {
        // SAFETY: the caller's promise; volatile, so that the compiler does not turn this into a call of memcmp.
        let (left, right) = unsafe { (left.add(at).read_volatile(), right.add(at).read_volatile()) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// Compares for equality.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(left, right, length) }
}
