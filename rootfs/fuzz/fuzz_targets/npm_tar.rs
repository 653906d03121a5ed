//! Any bytes as the tar archive of a package, gzipped here or as they are; an error is fine, a panic is a bug.
#![no_main]

use std::collections::BTreeMap;
use std::io::Write;

use libfuzzer_sys::fuzz_target;
use rootfs::content::Packing;
use rootfs::npm::integrity::Integrity;
use rootfs::npm::layout;
use rootfs::npm::lock::{Entry, Wanted};
use rootfs::omit::{Omit, Rule};
use rootfs::npm::tarball::{Destination, all, unpack};
use rootfs::path::TreePath;
use rootfs::tree::Origin;

fuzz_target!(|bytes: &[u8]| {
    let entry = Entry {
        location: "node_modules/a".into(),
        name: "a".into(),
        version: "1.0.0".into(),
        integrity: Integrity([0; 64]),
        bin: BTreeMap::from([("a".into(), "a".into())]),
        os: vec![],
        cpu: vec![],
        libc: vec![],
        wanted: Wanted::Always,
        has_install_script: false,
        engines: None,
        license: None,
        needs: BTreeMap::new(),
    };
    let packages = layout::lay_out([&entry]);
    let root = TreePath::new("opt/app").expect("a path");
    let below = TreePath::new("opt/app/node_modules").expect("a path");
    let omit = Omit::new(&[Rule::new("node_modules/**/*.md")]).expect("a rule");
    let destination = Destination { root: &root, omit: &omit, packing: Packing::Raw };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(bytes).expect("memory");
    let gzipped = gzip.finish().expect("memory");
    for tarball in [&gzipped, bytes] {
        for package in &packages {
            if let Ok(unpacked) = unpack(tarball, package, &destination) {
                let sum: u64 = unpacked
                    .layer
                    .entries
                    .iter()
                    .filter_map(|(_, node)| node.content())
                    .map(|c| c.len())
                    .sum();
                assert!(sum <= 256 * tarball.len() as u64 + (1 << 20));
                assert!(unpacked.layer.entries.iter().all(|(path, _)| path.starts_with(&below)));
                assert!(unpacked.layer.entries.iter().all(|(_, node)| node.mode & 0o7000 == 0));
            }
        }
        let _ = all(tarball, &Origin::fix_up("fuzz"), Packing::Raw);
    }
});
