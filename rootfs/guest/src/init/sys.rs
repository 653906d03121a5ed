//! Raw system calls of x86_64 Linux.
//!
//! # Shape
//!
//! One safe function per call: every pointer given to the kernel comes from a reference that outlives the
//! call. Only this file and `main.rs` have `unsafe` code.
//!
//! # Source
//!
//! `arch/x86/entry/syscalls/syscall_64.tbl` for the numbers, `include/uapi` for the flags; the calling
//! convention is that of the System V ABI's AMD64 supplement, A.2.1.
//!
//! # Not here
//!
//! A C library: its bytes would come from the build machine.

#![allow(unsafe_code)] // raw system calls have no safe form

use super::verity::{Command, Request};
use core::ffi::CStr;
use core::fmt;
use core::num::NonZeroI32;

/// Ignores set-user-id bits on the mount.
pub const NOSUID: usize = 2;
/// Ignores device nodes on the mount.
pub const NODEV: usize = 4;
/// Allows no programs to run from the mount.
pub const NOEXEC: usize = 8;
/// Mounts read-only.
pub const RDONLY: usize = 1;
/// Moves a mount.
pub const MOVE: usize = 8192;

/// Opens for reading.
pub const READ: usize = 0;
/// Opens for writing.
pub const WRITE: usize = 1;
/// Opens for both.
pub const READ_WRITE: usize = 2;

const CLOEXEC: usize = 0o2_000_000;
const MODULE_INIT_COMPRESSED_FILE: usize = 4;
const CLOCK_MONOTONIC: usize = 1;

/// Holds the error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub NonZeroI32);

impl Errno {
    /// Tells whether it is this number of `errno-base.h`.
    pub fn is(self, number: i32) -> bool {
        self.0.get() == number
    }
}

/// The file exists.
pub const EEXIST: i32 = 17;
/// No such device.
pub const ENODEV: i32 = 19;

impl fmt::Display for Errno {
    /// Writes the number, with its name if the calls here are known to return it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0.get() {
            1 => "EPERM, not permitted",
            2 => "ENOENT, no such file",
            5 => "EIO, input/output error",
            6 => "ENXIO, no such device or address",
            7 => "E2BIG, too small for what is asked",
            8 => "ENOEXEC, not a program or module",
            12 => "ENOMEM, out of memory",
            13 => "EACCES, permission denied",
            16 => "EBUSY, in use",
            EEXIST => "EEXIST, already there",
            ENODEV => "ENODEV, no such device or filesystem type",
            20 => "ENOTDIR, not a directory",
            22 => "EINVAL, invalid",
            36 => "ENAMETOOLONG, name too long",
            38 => "ENOSYS, not in this kernel",
            74 => "EBADMSG, bad message",
            75 => "EOVERFLOW, longer than the init takes",
            117 => "EUCLEAN, damaged filesystem",
            126 => "ENOKEY, signed by an unknown key",
            129 => "EKEYREJECTED, signature rejected",
            _ => "see errno.h",
        };
        write!(f, "error {} ({name})", self.0)
    }
}

/// Returns the answer of a system call: the kernel's range of errors is -4095 to -1.
fn call(number: usize, arguments: [usize; 5]) -> Result<usize, Errno> {
    let [first, second, third, fourth, fifth] = arguments;
    let answer: isize;
    // SAFETY: every caller below passes what the named call asks for; the kernel clobbers rcx and r11 only.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") first, in("rsi") second, in("rdx") third, in("r10") fourth, in("r8") fifth,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    match i32::try_from(answer).ok().filter(|answer| (-4095..0).contains(answer)) {
        Some(negative) => Err(Errno(NonZeroI32::new(-negative).unwrap_or(NonZeroI32::MAX))),
        None => Ok(answer as usize),
    }
}

fn path(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// Holds an open file, closed when dropped.
#[derive(Debug)]
pub struct File(usize);

impl Drop for File {
    fn drop(&mut self) {
        let _ = call(3, [self.0, 0, 0, 0, 0]);
    }
}

impl File {
    /// Opens an existing file for `READ`, `WRITE` or `READ_WRITE`.
    pub fn open(name: &CStr, access: usize) -> Result<Self, Errno> {
        Ok(Self(call(2, [path(name), access | CLOEXEC, 0, 0, 0])?))
    }

    /// Reads the whole file into the beginning of `buffer`; refuses a file that does not leave a byte free
    /// with `EOVERFLOW`.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
        let mut length = 0;
        loop {
            let free = buffer.get_mut(length..).unwrap_or_default();
            let (at, room) = (free.as_mut_ptr() as usize, free.len());
            if room == 0 {
                return Err(Errno(NonZeroI32::new(75).unwrap_or(NonZeroI32::MAX)));
            }
            match call(0, [self.0, at, room, 0, 0])? {
                0 => return Ok(buffer.get(..length).unwrap_or_default()),
                read => length = length.saturating_add(read),
            }
        }
    }

    /// Reads exactly the buffer's length from an offset; an early end is `EIO`.
    pub fn read_at<'a>(&self, offset: u64, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
        let read = call(17, [self.0, buffer.as_mut_ptr() as usize, buffer.len(), offset as usize, 0])?;
        if read == buffer.len() {
            Ok(buffer)
        } else {
            Err(Errno(NonZeroI32::new(5).unwrap_or(NonZeroI32::MAX)))
        }
    }

    /// Writes the text in one call.
    pub fn write(&self, text: &[u8]) -> Result<usize, Errno> {
        call(1, [self.0, text.as_ptr() as usize, text.len(), 0, 0])
    }

    /// Loads the open file as a kernel module, unpacked by the kernel when `compressed`.
    pub fn load_module(&self, packing: super::modules::Packing) -> Result<(), Errno> {
        let flags = match packing {
            super::modules::Packing::Plain => 0,
            super::modules::Packing::Compressed => MODULE_INIT_COMPRESSED_FILE,
        };
        call(313, [self.0, path(c""), flags, 0, 0]).map(drop)
    }

    /// Sends a request to the device mapper; this must be its control file.
    pub fn device_mapper(&self, command: Command, request: &mut Request) -> Result<(), Errno> {
        // The kernel reads and writes `data_size` bytes, which a `Request` says of itself truthfully.
        call(16, [self.0, command.number(), request.bytes_mut().as_mut_ptr() as usize, 0, 0]).map(drop)
    }
}

/// Writes to the console that the kernel opened for the init.
pub fn console(text: &[u8]) {
    let _ = call(1, [2, text.as_ptr() as usize, text.len(), 0, 0]);
}

/// Mounts, or moves a mount.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: usize, data: &CStr) -> Result<(), Errno> {
    call(165, [path(source), path(target), path(kind), flags, path(data)]).map(drop)
}

/// Makes a folder of mode 0755.
pub fn mkdir(name: &CStr) -> Result<(), Errno> {
    call(83, [path(name), 0o755, 0, 0, 0]).map(drop)
}

/// Removes a file.
pub fn unlink(name: &CStr) -> Result<(), Errno> {
    call(87, [path(name), 0, 0, 0, 0]).map(drop)
}

/// Changes the working folder.
pub fn chdir(name: &CStr) -> Result<(), Errno> {
    call(80, [path(name), 0, 0, 0, 0]).map(drop)
}

/// Changes the root folder.
pub fn chroot(name: &CStr) -> Result<(), Errno> {
    call(161, [path(name), 0, 0, 0, 0]).map(drop)
}

/// Becomes another program; returns only on failure, with the reason.
pub fn execute(program: &CStr, environment: [&CStr; 3]) -> Errno {
    let arguments = [program.as_ptr(), core::ptr::null()];
    let [first, second, third] = environment.map(CStr::as_ptr);
    let environment = [first, second, third, core::ptr::null()];
    match call(59, [path(program), arguments.as_ptr() as usize, environment.as_ptr() as usize, 0, 0]) {
        Err(errno) => errno,
        Ok(_) => Errno(NonZeroI32::MAX),
    }
}

/// Milliseconds since the kernel started.
pub fn milliseconds() -> u64 {
    let mut time = [0_u64; 2];
    let _ = call(228, [CLOCK_MONOTONIC, time.as_mut_ptr() as usize, 0, 0, 0]);
    let [seconds, nanoseconds] = time;
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

/// Sleeps for fewer than a thousand milliseconds.
pub fn sleep(milliseconds: u64) {
    let time = [0, milliseconds.min(999) * 1_000_000];
    let _ = call(35, [time.as_ptr() as usize, 0, 0, 0, 0]);
}

/// Ends the process with status 1; when process 1 ends, the kernel panics.
pub fn exit() -> ! {
    loop {
        let _ = call(231, [1, 0, 0, 0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole() {
        let mut buffer = [0; 4096];
        let text =
            File::open(c"/proc/self/comm", READ).expect("opens").read(&mut buffer).expect("reads").to_vec();
        assert_eq!(text, std::fs::read("/proc/thread-self/comm").map(|_| text.clone()).expect("reads"));
        assert!(text.ends_with(b"\n"));
    }

    #[test]
    fn a_file_longer_than_the_buffer_is_refused() {
        let error =
            File::open(c"/proc/self/status", READ).expect("opens").read(&mut [0; 8]).expect_err("refused");
        assert!(error.is(75), "{error}");
    }

    #[test]
    fn a_piece_is_read_from_its_offset_or_not_at_all() {
        let program = File::open(c"/proc/self/exe", READ).expect("opens");
        assert_eq!(program.read_at(1, &mut [0; 3]), Ok(&b"ELF"[..]));
        assert!(program.read_at(u64::from(u32::MAX), &mut [0; 3]).expect_err("beyond the end").is(5));
    }

    #[test]
    fn a_missing_file_is_named_so() {
        let error = File::open(c"/no/such/file", READ).expect_err("refused");
        assert_eq!(error.to_string(), "error 2 (ENOENT, no such file)");
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let file = File::open(c"/proc/self/comm", READ).expect("opens");
        assert!(file.load_module(super::super::modules::Packing::Plain).is_err());
    }

    #[test]
    fn a_program_that_does_not_exist_is_not_become() {
        assert!(execute(c"/no/such/program", [c"A=1", c"B=2", c"C=3"]).is(2));
    }

    #[test]
    fn time_passes_while_asleep() {
        let before = milliseconds();
        sleep(20);
        assert!((20..5000).contains(&(milliseconds() - before)));
    }
}
