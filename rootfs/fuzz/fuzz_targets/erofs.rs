//! Reads any bytes as an EROFS image: errors are fine, panics are bugs. The checksum is corrected first, so that what
//! lies behind it is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootfs::erofs::Reader;
use rootfs::tree::Origin;

/// What all files of one image may have.
const LIMIT: u64 = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    let mut image = bytes.to_vec();
    // Without EROFS_FEATURE_COMPAT_SB_CHKSUM nothing is compared.
    if let Some(byte) = image.get_mut(1024 + 8) {
        *byte &= !1;
    }
    if let Ok(reader) = Reader::new(&image) {
        let _ = reader.tree(&Origin::fix_up("fuzz"), LIMIT);
    }
});
