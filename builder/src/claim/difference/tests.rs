use std::path::{Path, PathBuf};

use super::super::explain::tests::{contents, item, manifest};
use super::*;
use crate::lock::tests::sample;
use crate::recipe::{self, Profile};

fn images(change: impl Fn(&mut Manifest, &mut Contents)) -> Difference {
    let (mut manifest, mut contents) = (manifest(), contents());
    let before = Side::of_image(&manifest, &contents);
    change(&mut manifest, &mut contents);
    compare(&before, &Side::of_image(&manifest, &contents))
}

fn find<'a>(contents: &'a mut Contents, path: &str) -> &'a mut super::super::contents::Item {
    contents.paths.iter_mut().find(|item| item.path == path).unwrap()
}

#[test]
fn equal_images_are_equal() {
    let same = images(|_, _| ());
    assert!(same.is_empty());
    assert_eq!(same.to_text(), "equal\n");
}

#[test]
fn images_differ_by_packages_then_files_then_everything_else() {
    let mut difference = images(|manifest, contents| {
        manifest.inputs[0].version = "1:2-4".into();
        manifest.inputs[1].name = "y".into();
        manifest.inputs[2].sha256 = "66".repeat(32);
        manifest.command_line = "roothash=00 ro loglevel=3".into();
        manifest.kernel.release = "6.13".into();
        manifest.disk.partitions[0].guid = "q".into();
        manifest.uki[1].size = 4;
        contents.origins[0] = "deb:a=1:2-4".into();
        find(contents, "/usr/bin/dash").mode = "4755".into();
        *find(contents, "/etc/conf") = item("/etc/conf", "file", 2, "one\nthree\n");
        contents.paths.retain(|item| item.path != "/etc/loop");
        contents.paths.push(item("/zz", "symlink", 2, "bin"));
    });
    let files: BTreeMap<&str, &[u8]> =
        BTreeMap::from([("before", &b"one\ntwo\n"[..]), ("after", b"one\nthree\n")]);
    let read = |side: &'static str| {
        let bytes = files.get(side).map(|bytes| bytes.to_vec());
        move |path: &str| {
            assert_eq!(path, "/etc/conf");
            Ok(bytes.clone())
        }
    };
    difference.look_into(&read("before"), &read("after")).unwrap();
    let old = Sha256Digest::of(b"one\ntwo\n").to_string();
    let new = Sha256Digest::of(b"one\nthree\n").to_string();
    let (old, new) = (&old[..12], &new[..12]);
    let (two, six) = ("22".repeat(32), "66".repeat(32));
    assert_eq!(
        difference.to_text(),
        format!(
            "packages\n  ~ deb a 1:2-3 -> 1:2-4\n  - npm x 1.0.0\n  + npm y 1.0.0\nfiles\n\
                 \x20 ~ /etc/conf  origin recipe:r -> fix-up:base, sha256 {old} -> {new}, size 8 -> 10\n\
                 \x20 - /etc/loop  symlink, -> loop, from recipe:r\n\
                 \x20 ~ /usr/bin/dash  mode 0644 -> 4755\n\
                 \x20 + /zz  symlink, -> bin, from fix-up:base\n\
                 what changed in them\n--- a/etc/conf\n+++ b/etc/conf\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n\
                 everything else\n  command_line: quiet -> loglevel=3\n\
                 \x20 disk partitions root-x86-64 guid: p -> q\n  inputs recipe r: {two} -> {six}\n\
                 \x20 kernel release: 6.12 -> 6.13\n  uki .initrd size: 3 -> 4\n\
                 different: packages 3, files 4, everything else 5\n"
        )
    );
}

#[test]
fn another_digest_of_the_same_version_is_a_difference() {
    let difference = images(|manifest, _| manifest.inputs[0].sha256 = "77".repeat(32));
    let text = difference.to_text();
    let digests = ["22", "77"].map(|byte| format!("1:2-3 sha256:{}", byte.repeat(32)));
    assert!(text.contains(&format!("  ~ deb a {} -> {}\n", digests[0], digests[1])), "{text}");
}

#[test]
fn only_another_order_is_a_difference() {
    let text = images(|manifest, _| manifest.command_line = "roothash=00 ro quiet".into()).to_text();
    assert!(text.contains("  command_line: roothash=00 quiet ro -> roothash=00 ro quiet\n"), "{text}");
    let text = images(|manifest, _| manifest.uki.reverse()).to_text();
    assert!(text.contains("  uki order: .linux .initrd -> .initrd .linux\n"), "{text}");
}

#[test]
fn every_aspect_of_a_path_is_seen() {
    for (aspect, change) in [
        ("owner 0:0 -> 1:2", (|item| (item.uid, item.gid) = (1, 2)) as fn(&mut super::super::contents::Item)),
        ("xattrs none -> a=00", |item| drop(item.xattrs.insert("a".into(), "00".into()))),
        ("kind symlink -> fifo", |item| item.kind = "fifo".into()),
        ("target dash -> none", |item| item.target = None),
        ("origin deb:b -> npm:x (node_modules/x)", |item| item.origin = 3),
    ] {
        let text = images(|_, contents| change(find(contents, "/usr/bin/sh"))).to_text();
        assert!(text.contains(&format!("  ~ /usr/bin/sh  {aspect}\n")), "{text}");
    }
}

#[test]
fn bytes_and_terminal_codes_are_not_shown_as_lines() {
    let elf = Inside::Bytes { what: "ELF", first: 5 };
    assert_eq!(inside("/x", b"\x7fELF\0a", b"\x7fELF\0b"), elf);
    let bytes = |first| Inside::Bytes { what: "binary or long", first };
    assert_eq!(inside("/x", b"a\xff", b"a"), bytes(1));
    assert_eq!(inside("/x", b"a\x1b[2J", b"b"), bytes(0));
    let long = vec![b'a'; MAX_TEXT + 1];
    assert_eq!(inside("/x", &long, b"a"), bytes(1));
    assert!(matches!(inside("/x", b"a", b"b\n"), Inside::Lines(lines) if lines.contains("No newline")));
}

#[test]
fn locks_differ_by_packages_and_what_is_said_of_them() {
    let before = sample();
    let mut after = sample();
    after.debs[0].version = "1:2-4".into();
    after.debs[1].wanted_by = "b".into();
    after.debs[1].scripts = vec!["postinst 00 inert".into()];
    let mut npm = after.npm[0].clone();
    npm.location = "node_modules/y/node_modules/x".into();
    npm.version = "2.0.0".into();
    after.npm.push(npm.clone());
    npm.name = "z".into();
    after.npm.push(npm);
    after.archives[0].date = "20261001T000000Z".into();
    after.ids.users.insert("tss".into(), 998);
    let difference = compare(&Side::of_lock(&before), &Side::of_lock(&after));
    assert_eq!(
        difference.to_text(),
        "packages\n  ~ deb b 1:2-3 -> 1:2-4\n  ~ npm x 1.0.0 -> 1.0.0, 2.0.0\n  + npm z 2.0.0\n\
             everything else\n  archive trixie date: 20260912T075541Z -> 20261001T000000Z\n\
             \x20 deb a: - wanted-by=recipe, + script=postinst 00 inert, + wanted-by=b\n\
             \x20 ids users tss: + 998\n\
             \x20 npm x: + bin=x:x.js, + license=MIT, + place=x/node_modules/y/node_modules/x\n\
             different: packages 3, files 0, everything else 4\n"
    );
    assert!(compare(&Side::of_lock(&before), &Side::of_lock(&before)).is_empty());
}

const RECIPE: &str = "[image]\nname = \"x\"\nversion = \"1\"\n[kernel]\npackage = \"k\"\n\
        [[files]]\nsource = \"f\"\ntarget = \"/f\"\n[[files]]\ntext = \"t\"\ntarget = \"/t\"\n\
        [profiles.debug]\npackages = [\"gdb\"]\n[debian]\nsuite = \"trixie\"\npackages = [\"systemd\"]\n";

fn recipes(before: &str, after: &str) -> Difference {
    let of = |text: &str, profile| {
        let files: BTreeMap<PathBuf, Vec<u8>> =
            [("x/recipe.toml", text), ("x/f", if text == RECIPE { "one\n" } else { "two\n" })]
                .map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()))
                .into();
        let read = |path: &Path| files.get(path).cloned().ok_or(io::ErrorKind::NotFound.into());
        let recipe = recipe::load(Path::new("x/recipe.toml"), profile, &read).unwrap();
        let files = files_of(&recipe, &read).unwrap();
        (Side::of_recipe(&recipe, &files), files)
    };
    let [release, debug] = Profile::ALL.map(|profile| {
        let ((before, old), (after, new)) = (of(before, profile), of(after, profile));
        let mut difference = compare(&before, &after);
        difference.look_into(&|path| Ok(old.get(path).cloned()), &|path| Ok(new.get(path).cloned())).unwrap();
        difference
    });
    Difference::of_profiles(release, debug)
}

#[test]
fn recipes_differ_field_by_field_and_in_their_files() {
    assert!(recipes(RECIPE, RECIPE).is_empty());
    let after = RECIPE
        .replace("\"gdb\"", "\"strace\"")
        .replace("\"systemd\"", "\"systemd\", \"udev\"")
        .replace("target = \"/t\"", "target = \"/t\"\nmode = \"0600\"")
        + "[systemd]\nenable = [\"a.service\"]\n[[users]]\nname = \"u\"\nid = 7\n\
               [profiles.debug.systemd]\nmask = [\"b.service\"]\n";
    let old = Sha256Digest::of(b"one\n").to_string();
    let new = Sha256Digest::of(b"two\n").to_string();
    assert_eq!(
        recipes(RECIPE, &after).to_text(),
        format!(
            "packages\n  + deb udev any\n  - deb gdb any (only debug)\n  + deb strace any (only debug)\n\
                 files\n  ~ /f  sha256 {} -> {}\n  ~ /t  mode 0644 -> 0600\n\
                 what changed in them\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-one\n+two\n\
                 everything else\n  systemd enable: + a.service\n  users u: + id=7, + user\n\
                 \x20 systemd mask: + b.service (only debug)\n\
                 different: packages 3, files 2, everything else 3\n",
            &old[..12],
            &new[..12]
        )
    );
}

#[test]
fn a_file_of_a_recipe_that_cannot_be_read_is_named() {
    let read = |path: &Path| match path.ends_with("recipe.toml") {
        true => Ok(RECIPE.as_bytes().to_vec()),
        false => Err(io::ErrorKind::NotFound.into()),
    };
    let recipe = recipe::load(Path::new("x/recipe.toml"), Profile::Release, &read).unwrap();
    let message = files_of(&recipe, &read).unwrap_err().to_string();
    assert!(message.starts_with("recipe.toml:6:1: x/f of /f: "), "{message}");
}
