//! Compares the EROFS writer with `fsck.erofs` and the kernel, and the reader with what they extract.
//!
//! Needs erofs-utils 1.8 with zstd (Debian trixie; `tests/tools/erofs-utils.sh` for older systems, its `bin` named by
//! `PROOFMARK_EROFS_UTILS`), and root and a kernel with EROFS for the mounts. `PROOFMARK_TEST_TREE` names a folder
//! of real files; the default is a part of this machine's `/usr/share`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // all of it is a test

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rootfs::content::{CLUSTER, Content, Packing, SMALL};
use rootfs::erofs::{Image, Label, Options, Reader};
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Node, Origin, Tree};
use system_tests::folder;
use system_tests::tool::skipped;
use tempfile::TempDir;

const MTIME: u64 = 1_700_000_000;

/// The checker of erofs-utils 1.8 or later with zstd.
fn fsck() -> Option<PathBuf> {
    let path = match std::env::var_os("PROOFMARK_EROFS_UTILS") {
        Some(folder) => PathBuf::from(folder).join("fsck.erofs"),
        None => PathBuf::from("fsck.erofs"),
    };
    let version = Command::new(&path).arg("-V").output().ok()?;
    String::from_utf8_lossy(&version.stdout).contains("zstd").then_some(path)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text.into()) } else { Err(format!("{command:?}: {text}")) }
}

fn write(tree: &Tree, packing: Packing, path: &Path) {
    let label = Label::new("reference").unwrap();
    let image = Image::new(tree, &Options { uuid: [3; 16], mtime: MTIME, label, packing }).unwrap();
    let mut bytes = Vec::new();
    image
        .write_to(|chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })
        .unwrap();
    let read = Reader::new(&bytes).unwrap().tree(&Origin::fix_up("image"), u64::MAX).unwrap();
    assert_same(&folder::dump_tree(&read).unwrap(), &folder::dump_tree(tree).unwrap(), "own reader");
    fs::write(path, bytes).unwrap();
}

fn assert_same(found: &[String], expected: &[String], who: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{who}");
    }
    assert_eq!(found.len(), expected.len(), "{who}");
}

/// Asserts that an image is clean, and that what is extracted or mounted equals the tree.
fn check(tree: &Tree, packing: Packing) {
    let temp = TempDir::new().unwrap();
    let image = temp.path().join("image.erofs");
    write(tree, packing, &image);
    let expected = folder::dump_tree(tree).unwrap();
    let root = rustix::process::geteuid().is_root();

    match fsck() {
        Some(fsck) => {
            // It is silent about good images; any output is a warning.
            assert_eq!(run(Command::new(&fsck).arg("--extract").arg(&image)).unwrap(), "");
            if root {
                let out = temp.path().join("extracted");
                let mut extract = OsString::from("--extract=");
                extract.push(&out);
                run(Command::new(&fsck).arg(&extract).arg("--preserve").arg(&image)).unwrap();
                let mut plain = tree.clone();
                plain.iter_mut().for_each(|(_, node)| node.xattrs.clear());
                let (found, expected) = (folder::dump_folder(&out), folder::dump_tree(&plain));
                assert_same(&without_links(found.unwrap()), &without_links(expected.unwrap()), "fsck");
            } else {
                skipped("extraction with owners needs root");
            }
        }
        None => skipped("no fsck.erofs with zstd (erofs-utils 1.8) found"),
    }

    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("\terofs\n");
    if !root || !known {
        return skipped("mounting needs root and a kernel with EROFS");
    }
    let mounted = temp.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    run(Command::new("mount").args(["-t", "erofs", "-o", "loop,ro"]).args([&image, &mounted])).unwrap();
    let found = folder::dump_folder(&mounted);
    let time = fs::metadata(&mounted).and_then(|meta| meta.modified());
    run(Command::new("umount").arg(&mounted)).unwrap();
    assert_same(&found.unwrap(), &expected, "kernel");
    let time = time.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(time.as_secs(), MTIME);
}

/// Removes the links between hard-linked paths: `fsck.erofs` extracts copies of some.
fn without_links(lines: Vec<String>) -> Vec<String> {
    let cut = |line: String| match line.rsplit_once(" as /") {
        Some((line, _)) if line.contains(" file ") => line.to_owned(),
        _ => line,
    };
    lines.into_iter().map(cut).collect()
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Bytes that compress, or do not when `seed` is a multiple of three.
fn bytes(len: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64;
    (0..len)
        .map(|index| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let text = b"every good boy does fine "[(index + (state >> 60) as usize) % 25];
            if seed.is_multiple_of(3) { (state >> 33) as u8 } else { text }
        })
        .collect()
}

/// Everything that a tree can hold, at the edges of blocks and clusters.
fn synthetic(packing: Packing) -> Tree {
    let origin = || Origin::fix_up("synthetic");
    let mut tree = Tree::new(origin());
    let mut put = |name: String, node: Node| tree.insert(path(&name), node).unwrap();
    let sizes = [
        0,
        1,
        31,
        32,
        33,
        4031,
        4032,
        4033,
        4064,
        4065,
        4095,
        4096,
        4097,
        8191,
        8192,
        SMALL - 1,
        SMALL,
        CLUSTER - 4096,
        CLUSTER - 1,
        CLUSTER,
        CLUSTER + 1,
        CLUSTER + 4096,
        CLUSTER + 4097,
        CLUSTER + 8193,
        3 * CLUSTER,
        10 * CLUSTER + 12345,
    ];
    for (index, len) in sizes.into_iter().enumerate() {
        for seed in 0..3 {
            let content = Content::pack(&bytes(len, 3 * index + seed), packing);
            let node = Node::file(0o4755, content, origin()).owned_by(seed as u32 * 40_000, 5);
            put(format!("sizes/{len}-{seed}"), node.clone());
            put(format!("equal/{len}-{seed}"), node);
        }
        let link = Kind::HardLink(path(&format!("sizes/{len}-0")));
        put(format!("hard/{len}"), Node { kind: link, ..Node::directory(0, origin()) });
    }
    // A file whose first cluster compresses and whose second does not.
    let mixed = [bytes(CLUSTER, 1), bytes(CLUSTER, 3), bytes(CLUSTER, 2), bytes(CLUSTER / 3, 3)].concat();
    put("mixed".into(), Node::file(0o600, Content::pack(&mixed, packing), origin()));
    let with = |kind| Node { kind, ..Node::directory(0o600, origin()) };
    put("dev/null".into(), with(Kind::CharDevice { major: 1, minor: 3 }));
    put("dev/disk".into(), with(Kind::BlockDevice { major: 259, minor: 70_000 }));
    put("dev/pipe".into(), with(Kind::Fifo).owned_by(70_000, 1));
    for len in [1, 31, 63, 64, 2000, 3900] {
        put(format!("links/{len}"), Node::symlink(&"t".repeat(len), origin()));
    }
    for index in 0..1500 {
        let content = Content::pack(&bytes(index * 7, index), packing);
        put(format!("many/{index:04}{}", "n".repeat(index % 250)), Node::file(0o644, content, origin()));
    }
    for name in ["!", "+x", "-", ".a", "..a", "...", "ü", "~", "a b", &"x".repeat(255)] {
        put(format!("odd/{name}"), Node::directory(0o1777, origin()));
    }
    put(["deep"; 200].join("/"), Node::directory(0o700, origin()));
    for (name, len) in [("small", 20), ("large", 3000), ("larger", 20_000)] {
        for (size, seed) in [(10, 1), (3000, 2), (300_000, 4), (300_000, 3)] {
            let mut node = Node::file(0o755, Content::pack(&bytes(size, seed), packing), origin());
            node.xattrs.insert("user.x".into(), vec![b'v'; len].into());
            node.xattrs.insert("trusted.y".into(), vec![b'w'; 7].into());
            put(format!("xattrs/{name}-{size}-{seed}"), node);
        }
    }
    // VFS_CAP_REVISION_2 with cap_net_bind_service (include/uapi/linux/capability.h).
    let mut node = Node::file(0o755, Content::raw(*b"ping"), origin());
    let capability = [0x0200_0001u32, 1 << 10, 0, 0, 0].map(u32::to_le_bytes).concat();
    node.xattrs.insert("security.capability".into(), capability.into());
    put("xattrs/capability".into(), node);
    tree
}

/// A folder of real files.
fn real(packing: Packing) -> Tree {
    if let Some(folder) = std::env::var_os("PROOFMARK_TEST_TREE") {
        return folder::tree(Path::new(&folder), packing).unwrap();
    }
    let mut tree = Tree::new(Origin::fix_up("real"));
    for name in ["/usr/share/doc", "/usr/share/perl", "/usr/share/zoneinfo", "/usr/lib/locale", "/etc"] {
        let Ok(part) = folder::tree(Path::new(name), packing) else { continue };
        for (below, node) in part.iter() {
            let mut node = node.clone();
            if let Kind::HardLink(target) = &node.kind {
                node.kind = Kind::HardLink(path(name).join(target.as_str()).unwrap());
            }
            tree.replace(path(name).join(below.as_str()).unwrap(), node).unwrap();
        }
    }
    tree
}

#[test]
fn an_uncompressed_image_is_what_fsck_and_the_kernel_take_it_for() {
    check(&synthetic(Packing::Raw), Packing::Raw);
}

#[test]
fn a_compressed_image_is_what_fsck_and_the_kernel_take_it_for() {
    check(&synthetic(Packing::Zstd(3)), Packing::Zstd(3));
}

#[test]
fn compressed_content_can_be_written_uncompressed() {
    check(&synthetic(Packing::Zstd(3)), Packing::Raw);
}

#[test]
fn real_files_are_what_fsck_and_the_kernel_take_them_for_when_uncompressed() {
    check(&real(Packing::Raw), Packing::Raw);
}

#[test]
fn real_files_are_what_fsck_and_the_kernel_take_them_for_when_compressed() {
    check(&real(Packing::Zstd(3)), Packing::Zstd(3));
}
