//! Tests of the unpacking of npm tarballs.

use std::io::Write;

use super::*;
use crate::npm::layout::lay_out;
use crate::npm::lock::Entry;
use crate::npm::lock::tests::entry;
use crate::omit::{Omitted, Rule};
use crate::tree::Kind;

/// An archive, written header by header, so that it can be invalid.
#[derive(Default)]
struct Archived(Vec<u8>);

impl Archived {
    fn add(mut self, kind: EntryType, path: &str, mode: u32, size: u64, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("package/a").unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, mode: u32, bytes: &[u8]) -> Self {
        self.add(EntryType::Regular, path, mode, bytes.len() as u64, bytes)
    }

    fn folder(self, path: &str) -> Self {
        self.add(EntryType::Directory, path, 0o700, 0, b"")
    }

    fn gzip(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        gzip(&self.0)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn with(tarball: &[u8], bin: &[(&str, &str)], rules: &[Rule]) -> Result<Unpacked, Error> {
    let bin = bin.iter().map(|(name, file)| ((*name).into(), (*file).into())).collect();
    let package = lay_out(&[Entry { bin, ..entry("node_modules/a") }]).remove(0);
    let root = TreePath::new("opt/app").unwrap();
    let omit = Omit::new(rules).unwrap();
    unpack(tarball, &package, &Destination { root: &root, omit: &omit, packing: Packing::Raw })
}

/// The unpacked files as `path mode content`, relative to the folder of the package.
fn listed(unpacked: &Unpacked) -> Vec<String> {
    let line = |(path, node): &(TreePath, Node)| {
        let path = path.as_str().strip_prefix("opt/app/node_modules/").unwrap();
        let what = match &node.kind {
            Kind::Directory => "/".to_owned(),
            Kind::Symlink(target) => format!("-> {target}"),
            Kind::File(content) => String::from_utf8_lossy(&content.read().unwrap()).into_owned(),
            other => panic!("{}", other.name()),
        };
        assert_eq!((node.uid, node.gid), (0, 0));
        assert_eq!(node.origin.to_string(), "npm:a@1.0.0 (node_modules/a)");
        format!("{path} {:o} {what}", node.mode)
    };
    unpacked.layer.entries.iter().map(line).collect()
}

fn list(archive: Archived) -> Vec<String> {
    listed(&with(&archive.gzip(), &[], &[]).unwrap())
}

fn refusal(archive: Archived) -> Error {
    with(&archive.gzip(), &[], &[]).unwrap_err()
}

#[test]
fn the_first_component_is_dropped_whatever_its_name() {
    let archive = Archived::default().file("package/x", 0o644, b"1").file("other/lib//./y", 0o644, b"2");
    assert_eq!(list(archive), ["a 755 /", "a/lib/y 644 2", "a/x 644 1"]);
}

#[test]
fn modes_are_those_of_npm_under_umask_022() {
    let archive = Archived::default()
        .file("p/a", 0o000, b"")
        .file("p/b", 0o777, b"")
        .file("p/c", 0o6755, b"")
        .file("p/d", 0o600, b"")
        .file("p/e", 0o100, b"")
        .folder("p/f/");
    assert_eq!(
        list(archive),
        ["a 755 /", "a/f 755 /", "a/a 644 ", "a/b 755 ", "a/c 755 ", "a/d 644 ", "a/e 744 "]
    );
}

#[test]
fn links_devices_and_comments_are_dropped() {
    let comment = b"19 comment=abcdefg\n";
    let archive = Archived::default()
        .add(EntryType::XGlobalHeader, "pax_global_header", 0, comment.len() as u64, comment)
        .add(EntryType::Symlink, "p/l", 0o777, 0, b"")
        .add(EntryType::Link, "p/h", 0o777, 0, b"")
        .add(EntryType::Fifo, "p/f", 0o777, 0, b"")
        .add(EntryType::Char, "../p/c", 0o777, 0, b"")
        .file("p/x", 0o644, b"x");
    assert_eq!(list(archive), ["a 755 /", "a/x 644 x"]);
}

#[test]
fn a_gitignore_becomes_an_npmignore_unless_there_is_one() {
    let only = Archived::default().file("p/.gitignore", 0o644, b"g").file("p/s/x.gitignore", 0o644, b"x");
    assert_eq!(list(only), ["a 755 /", "a/.npmignore 644 g", "a/s/x.gitignore 644 x"]);
    let before = Archived::default().file("p/s/.npmignore", 0o644, b"n").file("p/s/.gitignore", 0o644, b"g");
    assert_eq!(list(before), ["a 755 /", "a/s/.npmignore 644 n"]);
    let after = Archived::default().file("p/.gitignore", 0o644, b"g").file("p/.npmignore", 0o644, b"n");
    assert_eq!(list(after), ["a 755 /", "a/.npmignore 644 n"]);
}

#[test]
fn programs_become_executable_and_lose_the_carriage_return_of_their_first_line() {
    let archive = Archived::default().file("p/cli.js", 0o640, b"#!/usr/bin/env node\r\nx\r\n").file(
        "p/lib.js",
        0o644,
        b"#!/usr/bin/env node\r\nx\r\n",
    );
    let unpacked = with(&archive.gzip(), &[("a", "cli.js"), ("gone", "gone.js")], &[]).unwrap();
    assert_eq!(
        listed(&unpacked),
        [
            "a 755 /",
            "a/cli.js 755 #!/usr/bin/env node\nx\r\n",
            "a/lib.js 644 #!/usr/bin/env node\r\nx\r\n",
            ".bin/a 777 -> ../a/cli.js"
        ]
    );
}

#[test]
fn a_carriage_return_is_taken_only_from_a_first_line_that_npm_would_find() {
    let fixed = |bytes: &[u8]| without_carriage_return(bytes).map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(fixed(b"#!a\r\n"), Some("#!a\n".to_owned()));
    assert_eq!(fixed(b"#!a\r\r\nb"), Some("#!a\r\nb".to_owned()));
    assert_eq!(fixed(b"#!a\r\n\xff"), Some("#!a\n\u{fffd}".to_owned()));
    for other in [&b""[..], b"#!a\n", b"#!\r\n", b"//a\r\n", b"#!a\r", b"#!a\nb\r\n"] {
        assert_eq!(fixed(other), None, "{other:?}");
    }
    let long = [b"#!".to_vec(), vec![b'a'; SHEBANG], b"\r\n".to_vec()].concat();
    assert_eq!(fixed(&long), None);
}

#[test]
fn a_contested_name_is_executable_but_not_linked() {
    let archive = Archived::default().file("p/cli", 0o644, b"#!a\r\n").gzip();
    let mut package =
        lay_out(&[Entry { bin: BTreeMap::from([("x".into(), "cli".into())]), ..entry("node_modules/a") }])
            .remove(0);
    package.links.clear();
    let root = TreePath::new("opt/app").unwrap();
    let omit = Omit::nothing();
    let destination = Destination { root: &root, omit: &omit, packing: Packing::Raw };
    let unpacked = unpack(&archive, &package, &destination).unwrap();
    assert_eq!(listed(&unpacked), ["a 755 /", "a/cli 755 #!a\r\n"]);
}

#[test]
fn omitted_files_are_counted_and_emptied_folders_are_dropped() {
    let archive = Archived::default()
        .folder("p/empty/")
        .folder("p/docs/")
        .folder("p/mixed/")
        .file("p/docs/a.md", 0o644, b"123")
        .file("p/mixed/b.md", 0o644, b"12345")
        .file("p/mixed/c.js", 0o644, b"c")
        .file("p/cli.js", 0o644, b"cli");
    let rules = [Rule::new("node_modules/**/*.md"), Rule::new("node_modules/a/cli.js"), Rule::new("x/**")];
    let unpacked = with(&archive.gzip(), &[("a", "cli.js")], &rules).unwrap();
    assert_eq!(listed(&unpacked), ["a 755 /", "a/empty 755 /", "a/mixed 755 /", "a/mixed/c.js 644 c"]);
    let omitted = unpacked.omitted.by_rule();
    assert_eq!(omitted, [Omitted { files: 2, bytes: 8 }, Omitted { files: 1, bytes: 3 }, Omitted::default()]);
    assert_eq!(unpacked.omitted.stale().collect::<Vec<_>>(), [2]);
}

#[test]
fn nothing_of_a_wholly_omitted_package_stays() {
    let archive = Archived::default().folder("p/lib/").file("p/lib/cli.js", 0o644, b"").gzip();
    let unpacked = with(&archive, &[("a", "lib/cli.js")], &[Rule::new("node_modules/a/**")]).unwrap();
    assert_eq!(listed(&unpacked), Vec::<String>::new());
}

#[test]
fn a_link_in_bin_can_be_omitted_by_its_own_path() {
    let archive = Archived::default().file("p/cli.js", 0o644, b"").gzip();
    let unpacked = with(&archive, &[("a", "cli.js")], &[Rule::new("node_modules/.bin/*")]).unwrap();
    assert_eq!(listed(&unpacked), ["a 755 /", "a/cli.js 755 "]);
    assert_eq!(unpacked.omitted.total().files, 1);
}

#[test]
fn paths_that_escape_are_refused() {
    for path in ["../x", "p/../x", "p/a/..", "p/a\\..\\b", "/p/x", ".."] {
        assert!(matches!(refusal(Archived::default().file(path, 0o644, b"")), Error::Path { .. }), "{path}");
    }
    assert!(matches!(
        refusal(Archived::default().file("x", 0o644, b"")),
        Error::Path { what: "not in a folder", .. }
    ));
    assert!(matches!(refusal(Archived::default().folder("p/../../x/")), Error::Path { .. }));
}

#[test]
fn the_last_of_two_files_with_one_path_stays_and_is_counted_once() {
    let archive = || {
        Archived::default()
            .file("p/a", 0o755, b"1")
            .file("p/x.md", 0o644, b"12")
            .file("q/./a", 0o644, b"2")
            .file("p/x.md", 0o644, b"123")
            .file("p/.gitignore", 0o644, b"g")
            .file("p/.gitignore", 0o644, b"h")
    };
    let unpacked = with(&archive().gzip(), &[], &[Rule::new("**/*.md")]).unwrap();
    assert_eq!(listed(&unpacked), ["a 755 /", "a/.npmignore 644 h", "a/a 644 2"]);
    assert_eq!(unpacked.omitted.total(), Omitted { files: 1, bytes: 3 });
    let ignores = archive().file("p/.npmignore", 0o644, b"n").file("p/.gitignore", 0o644, b"i");
    assert_eq!(list(ignores)[1], "a/.npmignore 644 n");
}

#[test]
fn a_path_that_is_a_file_and_a_folder_is_refused() {
    let file = |path| Archived::default().file(path, 0o644, b"");
    for archive in [
        file("p/a").file("p/a/b", 0o644, b""),
        file("p/a/b/c").file("p/a", 0o644, b""),
        file("p/a").folder("p/a/"),
        file("p/a").folder("p/a/b/"),
    ] {
        assert!(matches!(refusal(archive), Error::Clash { .. }));
    }
}

#[test]
fn a_tarball_of_several_members_is_read_to_the_end_of_the_last() {
    let plain = Archived::default().file("p/a", 0o644, b"1").file("p/b", 0o644, b"2").0;
    let (first, second) = plain.split_at(plain.len() / 2);
    assert_eq!(first.len(), second.len(), "the lengths alone must not tell them apart");
    let both = [gzip(first), gzip(second)].concat();
    assert_eq!(*Plain::of(&both, "p").unwrap(), *plain);
    assert_eq!(*Plain::of(&gzip(&plain), "p").unwrap(), *plain);
    assert!(Plain::of_one_member(&both, u64::MAX).is_none());
    assert!(Plain::of_one_member(&gzip(&plain), u64::MAX).is_some());
    assert!(Plain::of_one_member(&gzip(&plain), 5).is_none());
}

#[test]
fn a_file_larger_than_the_tarball_justifies_is_refused() {
    let archive = Archived::default().add(EntryType::Regular, "p/a", 0o644, 1 << 32, b"x");
    assert!(matches!(refusal(archive), Error::Truncated { expected: 0x1_0000_0000, .. }));
    let zeros = Archived::default().file("p/a", 0o644, &vec![0; 64 << 20]);
    assert!(matches!(refusal(zeros), Error::TooLarge { .. }));
}

#[test]
fn damaged_tarballs_are_refused() {
    let good = Archived::default().file("p/a", 0o644, &[7; 5000]).gzip();
    assert!(with(&good, &[], &[]).is_ok());
    for len in 0..good.len() {
        assert!(with(&good[..len], &[], &[]).is_err(), "{len}");
    }
    let mut wrong = good.clone();
    let crc = good.len() - 8;
    wrong[crc] ^= 1;
    assert!(matches!(with(&wrong, &[], &[]), Err(Error::Read { .. })));
    assert!(matches!(with(b"not gzip", &[], &[]), Err(Error::Read { .. })));
    let short = Archived::default().add(EntryType::Regular, "p/a", 0o644, 5000, b"x").0;
    assert!(matches!(with(&gzip(&short), &[], &[]), Err(Error::Truncated { expected: 5000, .. })));
    let mut header = Archived::default().file("p/a", 0o644, b"").0;
    header[0] ^= 1;
    assert!(matches!(with(&gzip(&header), &[], &[]), Err(Error::Read { .. })));
}

#[test]
fn kinds_that_would_change_other_entries_are_refused() {
    let sparse = Archived::default().add(EntryType::GNUSparse, "p/a", 0o644, 0, b"");
    assert!(matches!(refusal(sparse), Error::Kind { .. } | Error::Read { .. }));
    let global = Archived::default().add(EntryType::XGlobalHeader, "g", 0, 12, b"12 path=p/b\n");
    assert!(matches!(refusal(global), Error::Kind { what, .. } if what.contains("path")));
    let unknown = Archived::default().add(EntryType::new(b'V'), "p/a", 0, 0, b"");
    assert!(matches!(refusal(unknown), Error::Kind { .. }));
}

#[test]
fn single_files_are_picked_and_a_missing_one_is_refused() {
    let archive =
        Archived::default().file("package/bin/node", 0o755, b"elf").file("package/h", 0o644, b"").gzip();
    let origin = Origin::Npm { name: "n".into(), version: "1".into(), location: "opt/node".into() };
    let place = TreePath::new("opt/node/bin/node").unwrap();
    let layer =
        pick(&archive, &BTreeMap::from([("bin/node", place.clone())]), &origin, Packing::Raw).unwrap();
    assert_eq!(layer.entries.len(), 1);
    assert_eq!((&layer.entries[0].0, layer.entries[0].1.mode), (&place, 0o755));
    let error = pick(&archive, &BTreeMap::from([("bin/npm", place)]), &origin, Packing::Raw).unwrap_err();
    assert_eq!(error.to_string(), "tarball of npm:n@1 (opt/node) has no file \"bin/npm\"");
}
