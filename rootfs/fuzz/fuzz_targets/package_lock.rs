//! Any bytes as a package-lock: entries, their selection and their links; an error is fine, a panic is a bug.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootfs::npm::lock::{LINUX_X64_GLIBC, PackageLock};
use rootfs::npm::{engines, layout};
use rootfs::path::TreePath;

fuzz_target!(|bytes: &[u8]| {
    let Ok(lock) = PackageLock::parse(bytes) else { return };
    let Ok(entries) = lock.select(&LINUX_X64_GLIBC) else { return };
    assert!(entries.len() <= lock.entries().len());
    let _ = engines::check(entries.iter().copied(), "22.19.0");
    for package in layout::lay_out(entries) {
        assert!(TreePath::new(&package.entry.location).is_ok());
        let path = package.entry.tarball_path();
        assert!(!path.contains("..") || !path.split('/').any(|part| part == ".."));
        for link in package.links {
            assert!(link.path.contains("node_modules/.bin/"));
            // One `..`, out of `.bin`; the rest stays in the package.
            assert_eq!(link.target.split('/').filter(|part| *part == "..").count(), 1);
        }
    }
});
