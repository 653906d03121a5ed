//! Any bytes as a Debian package: members of the archive, control files and data; an error is fine, a panic is a bug.
//!
//! So that the fuzzer gets past the packing, the same bytes are also the plain tar archives of a package.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootfs::content::Packing;
use rootfs::deb;
use rootfs::tree::Origin;

/// A member as ar(5) writes it.
fn member(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).bytes());
    archive.extend(content);
    if content.len() % 2 == 1 {
        archive.push(b'\n');
    }
}

fn read(bytes: &[u8]) {
    let _ = (deb::members(bytes), deb::control(bytes));
    let _ = deb::unpack(bytes, &Origin::fix_up("fuzz"), &|_| None, Packing::Raw);
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut package = b"!<arch>\n".to_vec();
    member(&mut package, "debian-binary", b"2.0\n");
    member(&mut package, "control.tar", bytes);
    member(&mut package, "data.tar", bytes);
    read(&package);
});
