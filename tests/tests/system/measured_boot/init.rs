//! Yields the init of the test's initrd: it prints the files that show what firmware, stub and kernel measured, then
//! powers off.
//!
//! Each file is a line `FILE path`, its bytes in lower-case hex, and a line `END`; a missing file has no `END`.

#![no_std]
#![no_main]
#![allow(missing_docs, unsafe_code)]

core::arch::global_asm!(".globl _start", "_start:", "and rsp, -16", "call {start}", "ud2", start = sym start);

unsafe fn call(number: usize, first: usize, second: usize, third: usize, fourth: usize, fifth: usize) -> isize {
    let mut result = number;
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") result, in("rdi") first, in("rsi") second, in("rdx") third,
            in("r10") fourth, in("r8") fifth, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result as isize
}

unsafe fn say(text: &[u8]) {
    unsafe { call(1, 1, text.as_ptr() as usize, text.len(), 0, 0) };
}

/// Each path ends in NUL.
unsafe fn print(path: &[u8]) {
    unsafe {
        say(b"FILE ");
        say(&path[..path.len() - 1]);
        say(b"\n");
        let file = call(2, path.as_ptr() as usize, 0, 0, 0, 0); // open(2), for reading
        if file < 0 {
            return;
        }
        let mut bytes = [0_u8; 1024];
        loop {
            let read = call(0, file as usize, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0);
            if read <= 0 {
                break;
            }
            let mut line = [b'\n'; 2049];
            for at in 0..read as usize {
                line[2 * at] = b"0123456789abcdef"[usize::from(bytes[at] >> 4)];
                line[2 * at + 1] = b"0123456789abcdef"[usize::from(bytes[at] & 15)];
            }
            say(&line[..2 * read as usize + 1]);
        }
        call(3, file as usize, 0, 0, 0, 0); // close(2)
        say(b"END\n");
    }
}

unsafe extern "C" fn start() -> ! {
    let mount = |kind: &[u8], at: &[u8]| unsafe {
        call(83, at.as_ptr() as usize, 0o755, 0, 0, 0); // mkdir(2)
        call(165, kind.as_ptr() as usize, at.as_ptr() as usize, kind.as_ptr() as usize, 0, 0); // mount(2)
    };
    mount(b"sysfs\0", b"/sys\0");
    mount(b"securityfs\0", b"/sys/kernel/security\0");
    unsafe {
        print(b"/sys/kernel/security/tpm0/binary_bios_measurements\0");
        print(b"/sys/firmware/dmi/tables/DMI\0");
        for bank in [b"256", b"384"] {
            let mut path = *b"/sys/class/tpm/tpm0/pcr-sha000/00\0";
            path[27..30].copy_from_slice(bank);
            for register in 0..24_u8 {
                let (path, digits) = (&mut path, [register / 10 + b'0', register % 10 + b'0']);
                if register < 10 {
                    path[31..33].copy_from_slice(&[digits[1], 0]);
                    print(&path[..33]);
                } else {
                    path[31..33].copy_from_slice(&digits);
                    print(&path[..34]);
                }
            }
        }
        say(b"DONE\n");
        call(169, 0xfee1_dead, 0x2812_1969, 0x4321_fedc, 0, 0); // reboot(2), power off
    }
    loop {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// `core` names it, and nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// The compiler calls these for copies and fills.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    for at in 0..length {
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    for at in 0..length {
        unsafe { to.add(at).write_volatile(byte as u8) };
    }
    to
}
