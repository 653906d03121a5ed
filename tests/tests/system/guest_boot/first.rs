//! Yields the first program of the test's root file system: it prints what it was started with, then powers off.

#![no_std]
#![no_main]
#![allow(missing_docs, unsafe_code)]

core::arch::global_asm!(".globl _start", "_start:", "mov rdi, rsp", "call {start}", "ud2", start = sym start);

unsafe fn call(number: usize, first: usize, second: usize, third: usize, fourth: usize) {
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") number => _, in("rdi") first, in("rsi") second, in("rdx") third,
            in("r10") fourth, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
}

unsafe fn say(text: *const u8, length: usize) {
    unsafe { call(1, 2, text as usize, length, 0) }
}

extern "C" fn start(stack: *const usize) -> ! {
    let marker = b"THE ROOT HAS STARTED\n";
    unsafe {
        say(marker.as_ptr(), marker.len());
        let mut at = stack.add(1); // arguments, 0, environment, 0
        for kind in [b"argument ", b"variable "] {
            while *at != 0 {
                let text = *at as *const u8;
                let mut length = 0;
                while text.add(length).read_volatile() != 0 {
                    length += 1;
                }
                say(kind.as_ptr(), kind.len());
                say(text, length);
                say(b"\n".as_ptr(), 1);
                at = at.add(1);
            }
            at = at.add(1);
        }
        call(169, 0xfee1_dead, 0x2812_1969, 0x4321_fedc, 0); // reboot(2), power off
    }
    loop {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
