#![no_main]

use libfuzzer_sys::fuzz_target;
use rootfs::fixup::module::{Module, Packing};

fuzz_target!(|bytes: &[u8]| {
    for packing in [Packing::Plain, Packing::Xz, Packing::Zstd] {
        let _ = Module::read(bytes, packing);
    }
});
