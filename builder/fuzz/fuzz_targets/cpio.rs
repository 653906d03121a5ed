//! Any bytes as an initrd archive; what is read and can be written is written alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::image::cpio;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entries) = cpio::read(bytes) else { return };
    let mut written = Vec::new();
    if cpio::write(&entries, &mut written).is_ok() {
        assert_eq!(cpio::read(&written).expect("what is written can be read"), entries);
    }
});
