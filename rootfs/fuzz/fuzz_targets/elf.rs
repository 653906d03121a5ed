#![no_main]

use libfuzzer_sys::fuzz_target;
use rootfs::content::Content;
use rootfs::elf::{Elf, Sections};

fuzz_target!(|bytes: &[u8]| {
    let _ = Sections::read(bytes);
    let content = Content::raw(bytes);
    if let Ok(elf) = Elf::open(&content) {
        let _ = (elf.interpreter(), elf.dynamic(), elf.dlopen(), elf.isa_level());
    }
});
