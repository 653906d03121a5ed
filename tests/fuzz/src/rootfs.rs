//! Fuzz targets of rootfs: packages, file systems, programs and certificates.

use std::collections::BTreeMap;
use std::io::Write;

use ::rootfs::content::{Content, Packing};
use ::rootfs::deb;
use ::rootfs::elf::{Elf, Sections};
use ::rootfs::erofs::Reader;
use ::rootfs::fixup::{ca_bundle, module};
use ::rootfs::npm::integrity::Integrity;
use ::rootfs::npm::lock::{Entry, LINUX_X64_GLIBC, PackageLock, Wanted};
use ::rootfs::npm::tarball::{self, Destination};
use ::rootfs::npm::{engines, layout};
use ::rootfs::omit::{Omit, Rule};
use ::rootfs::path::TreePath;
use ::rootfs::tree::Origin;

use crate::Target;

/// Every target of this crate.
pub const TARGETS: [Target; 7] = [
    ("certificate", certificate),
    ("deb", deb),
    ("elf", elf),
    ("erofs", erofs),
    ("module", module),
    ("npm_tar", npm_tar),
    ("package_lock", package_lock),
];

/// The most bytes that all files of one EROFS image may have.
const LIMIT: u64 = 64 << 20;

/// Reads bytes as a certificate, in PEM and in DER.
pub fn certificate(bytes: &[u8]) {
    let _ = ca_bundle::subject_hash(bytes);
    if let Ok(der) = ca_bundle::certificate(bytes) {
        let _ = ca_bundle::subject_hash(&der);
    }
}

/// Reads bytes as a Debian package, and as the tar archives of one, so that the fuzzer gets past the packing.
pub fn deb(bytes: &[u8]) {
    read_deb(bytes);
    let mut package = b"!<arch>\n".to_vec();
    member(&mut package, "debian-binary", b"2.0\n");
    member(&mut package, "control.tar", bytes);
    member(&mut package, "data.tar", bytes);
    read_deb(&package);
}

fn read_deb(bytes: &[u8]) {
    let _ = (deb::members(bytes), deb::control(bytes));
    let _ = deb::unpack(bytes, &Origin::fix_up("fuzz"), &|_| None, Packing::Raw);
}

/// Appends a member, as ar(5) specifies.
fn member(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len());
    archive.extend(header.bytes());
    archive.extend(content);
    if content.len() % 2 == 1 {
        archive.push(b'\n');
    }
}

/// Reads bytes as an ELF file.
pub fn elf(bytes: &[u8]) {
    let _ = Sections::read(bytes);
    let content = Content::raw(bytes);
    if let Ok(elf) = Elf::open(&content) {
        let _ = (elf.interpreter(), elf.dynamic(), elf.dlopen(), elf.isa_level());
    }
}

/// Reads bytes as an EROFS image, without its checksum, so that the fuzzer gets past it.
pub fn erofs(bytes: &[u8]) {
    let mut image = bytes.to_vec();
    // Without EROFS_FEATURE_COMPAT_SB_CHKSUM the checksum is not compared.
    if let Some(byte) = image.get_mut(1024 + 8) {
        *byte &= !1;
    }
    if let Ok(reader) = Reader::new(&image) {
        let _ = reader.tree(&Origin::fix_up("fuzz"), LIMIT);
    }
}

/// Reads bytes as a kernel module, in each packing.
pub fn module(bytes: &[u8]) {
    for packing in [module::Packing::Plain, module::Packing::Xz, module::Packing::Zstd] {
        let _ = module::Module::read(bytes, packing);
    }
}

/// Reads bytes as an npm tarball, and as the tar archive inside one: files stay in their folder, without special
/// bits, and within the limit of unpacked bytes.
pub fn npm_tar(bytes: &[u8]) {
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
    let root = TreePath::new("opt/app").expect("the path is valid");
    let below = TreePath::new("opt/app/node_modules").expect("the path is valid");
    let omit = Omit::new(&[Rule::new("node_modules/**/*.md")]).expect("the rule is valid");
    let destination = Destination { root: &root, omit: &omit, packing: Packing::Raw };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(bytes).expect("memory takes all bytes");
    let gzipped = gzip.finish().expect("memory takes all bytes");
    for tarball in [&gzipped, bytes] {
        for package in &packages {
            if let Ok(unpacked) = tarball::unpack(tarball, package, &destination) {
                let entries = &unpacked.layer.entries;
                let sum: u64 = entries.iter().filter_map(|(_, node)| node.content()).map(Content::len).sum();
                assert!(sum <= 256 * tarball.len() as u64 + (1 << 20));
                assert!(entries.iter().all(|(path, _)| path.starts_with(&below)));
                assert!(entries.iter().all(|(_, node)| node.mode & 0o7000 == 0));
            }
        }
        let _ = tarball::all(tarball, &Origin::fix_up("fuzz"), Packing::Raw);
    }
}

/// Reads bytes as a package-lock: locations, tarball paths and links never escape.
pub fn package_lock(bytes: &[u8]) {
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
}
