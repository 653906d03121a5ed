//! Compares the fix-ups with the real tools: systemd-sysusers, systemctl, and a Debian tree whose scripts ran.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of tests fail as tests do

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rootfs::content::Content;
use rootfs::fixup::{accounts, base, nsswitch, pam, tmpfiles, units};
use rootfs::layer::Layer;
use rootfs::merge::{Rules, merge};
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Node, Origin, Tree};
use system_tests::tool::find;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Runs `systemd-sysusers` or `systemctl` on a root directory; returns its standard error.
fn run(tool: &str, root: &Path, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .arg(format!("--root={}", root.display()))
        .args(arguments)
        .env("SOURCE_DATE_EPOCH", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?}: {said}");
    said
}

/// Writes the same files to a root directory and to a tree; a text `-> x` makes a link.
fn both(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(Origin::fix_up("test"));
    for (name, text) in files {
        let place = folder.path().join(name);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        let node = match text.strip_prefix("-> ") {
            Some(target) => {
                symlink(target, &place).unwrap();
                Node::symlink(target, Origin::fix_up("test"))
            }
            None => {
                std::fs::write(&place, text).unwrap();
                Node::file(0o644, Content::raw(*text), Origin::fix_up("test"))
            }
        };
        tree.insert(path(name), node).unwrap();
    }
    (folder, tree)
}

fn text(tree: &Tree, at: &str) -> String {
    String::from_utf8(tree.read(&path(at)).unwrap().into_owned()).unwrap()
}

fn sorted(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

#[test]
fn accounts_are_those_of_systemd_sysusers() {
    if find("systemd-sysusers").is_none() {
        return;
    }
    let passwd =
        "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
    let group = "root:*:0:\nadm:*:4:\nshadow:*:42:\nnogroup:*:65534:\n";
    // Not covered: a fixed id that an earlier account took by chance. systemd-sysusers then chooses another id for
    // the fixed account; our code keeps the id free.
    let cases = [
        "g adm 4 -\nu messagebus - \"System Message Bus\" /nonexistent\ng input -\ng kvm -\nu sshd -:nogroup \"sshd user\" /run/sshd\n\
         g systemd-journal - -\nu systemd-network - \"systemd Network Management\"\n",
        "u a 300\nu b 301:4\nu c 302:adm\nu d -:adm\nm h adm\nm a newgroup\ng free -\nu i - \"A B\" /srv/i /bin/sh\n",
        "r - 500-510\nu a -\nu b 505\ng c 506\nu d -\ng e -\n",
        "g one 998\nu two 997\nu four 996:one\nu three -\ng five -\nu one -\n",
    ];
    for case in cases {
        let (folder, mut tree) = both(&[
            ("usr/share/base-passwd/passwd.master", passwd),
            ("usr/share/base-passwd/group.master", group),
            ("usr/lib/sysusers.d/case.conf", case),
        ]);
        let etc = folder.path().join("etc");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(etc.join("passwd"), passwd).unwrap();
        std::fs::write(etc.join("group"), group).unwrap();
        run("systemd-sysusers", folder.path(), &[]);
        let declared = accounts::Declared::default();
        let ids = accounts::plan(&tree, &declared, &accounts::Ids::default()).unwrap();
        accounts::apply(&mut tree, &declared, &ids).unwrap();
        for (name, masters) in [("passwd", passwd), ("group", group), ("shadow", ""), ("gshadow", "")] {
            // Our code leaves the day of the last change empty; 0 would demand a new password.
            let theirs = std::fs::read_to_string(etc.join(name)).unwrap().replace(":!*:0:", ":!*::");
            let masters = sorted(&masters.replace(":*:", ":x:"));
            let added = |text: &str| -> BTreeSet<String> {
                let lines = sorted(&text.replace(":*:", ":x:"));
                // The masters' shadow lines come from shadowconfig, not from systemd-sysusers.
                lines
                    .difference(&masters)
                    .filter(|line| name != "shadow" || line.contains(":!*:"))
                    .cloned()
                    .collect()
            };
            let ours = added(&text(&tree, &format!("etc/{name}")));
            let ours: BTreeSet<String> = match name {
                "gshadow" => ours.into_iter().filter(|line| line.contains(":!*:")).collect(),
                _ => ours,
            };
            assert_eq!(ours, added(&theirs), "{name} of {case}");
        }
    }
}

/// Every link below the folders of enabled units, with its target.
fn links(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let place = entry.unwrap().path();
            if place.is_symlink() {
                let name = format!("/{}", place.strip_prefix(root).unwrap().display());
                found.insert(name, std::fs::read_link(&place).unwrap().display().to_string());
            } else if place.is_dir() {
                walk(root, &place, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    for folder in ["etc/systemd/system", "etc/systemd/user"] {
        walk(root, &root.join(folder), &mut found);
    }
    found
}

const UNITS: [(&str, &str); 16] = [
    ("usr/lib/systemd/system/bare@.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("usr/lib/systemd/system/multi-user.target", "[Unit]\n"),
    ("usr/lib/systemd/system/graphical.target", "[Unit]\n"),
    ("usr/lib/systemd/system/default.target", "-> graphical.target"),
    ("usr/lib/systemd/system/getty.target", "[Unit]\n"),
    ("usr/lib/systemd/system/sockets.target", "[Unit]\n"),
    ("usr/lib/systemd/system/plain.service", "[Service]\n[Install]\nWantedBy=multi-user.target\n"),
    ("usr/lib/systemd/system/plain.service.d/more.conf", "[Install]\nWantedBy=getty.target\n"),
    ("usr/lib/systemd/system/getty@.service", "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"),
    ("usr/lib/systemd/system/inst@.service", "[Install]\nWantedBy=multi-user.target\nAlias=other@.service\n"),
    ("usr/lib/systemd/system/deep@.service", "[Install]\nWantedBy=outer@.target\n"),
    ("usr/lib/systemd/system/broker.service", "[Install]\nAlias=dbus.service\nRequiredBy=%p.target\n"),
    (
        "usr/lib/systemd/system/also.service",
        "[Install]\n; c\nWantedBy=multi-user.target \\\n  getty.target\nAlso=also.socket gone.service\n",
    ),
    (
        "usr/lib/systemd/system/also.socket",
        "[Install]\nWantedBy=sockets.target\nWantedBy=\nWantedBy=%N.target\n",
    ),
    ("etc/systemd/system/own.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("usr/lib/systemd/user/session.service", "[Install]\nWantedBy=default.target\nAlias=dbus.service\n"),
];

fn unit(name: &str) -> units::Unit {
    units::Unit { name: name.into(), origin: Origin::fix_up("test") }
}

#[test]
fn links_are_those_of_systemctl() {
    if find("systemctl").is_none() {
        return;
    }
    for name in [
        "plain.service",
        "getty@.service",
        "getty@tty7.service",
        "inst@a.service",
        "deep@.service",
        "broker.service",
        "also.service",
        "own.service",
    ] {
        let (folder, mut tree) = both(&UNITS);
        run("systemctl", folder.path(), &["enable", name]);
        let declared = units::Declared { enable: vec![unit(name)], ..units::Declared::default() };
        let report = units::apply(&mut tree, &declared).unwrap();
        let ours: BTreeMap<String, String> =
            report.links.into_iter().map(|(path, target)| (path.to_string(), target)).collect();
        assert_eq!(ours, links(folder.path()), "{name}");
    }
}

#[test]
fn masks_the_default_target_and_user_units_are_those_of_systemctl() {
    if find("systemctl").is_none() {
        return;
    }
    let (folder, mut tree) = both(&UNITS);
    run("systemctl", folder.path(), &["mask", "plain.service", "getty@tty1.service"]);
    run("systemctl", folder.path(), &["set-default", "multi-user.target"]);
    run("systemctl", folder.path(), &["--global", "enable", "session.service"]);
    let declared = units::Declared {
        mask: vec![unit("plain.service"), unit("getty@tty1.service")],
        default_target: Some(unit("multi-user.target")),
        enable_user: vec![unit("session.service")],
        ..units::Declared::default()
    };
    let report = units::apply(&mut tree, &declared).unwrap();
    let ours: BTreeMap<String, String> =
        report.links.into_iter().map(|(path, target)| (path.to_string(), target)).collect();
    assert_eq!(ours, links(folder.path()));
}

#[test]
fn systemctl_refuses_what_we_refuse() {
    if find("systemctl").is_none() {
        return;
    }
    for name in ["gone.service", "default.target", "bare@.service"] {
        let (folder, mut tree) = both(&UNITS);
        let output = Command::new("systemctl")
            .arg(format!("--root={}", folder.path().display()))
            .args(["enable", name])
            .output()
            .unwrap();
        assert!(!output.status.success() || links(folder.path()).is_empty(), "{name}");
        let declared = units::Declared { enable: vec![unit(name)], ..units::Declared::default() };
        assert!(units::apply(&mut tree, &declared).is_err(), "{name}");
    }
}

/// The entries of a package, as dpkg-deb reads them.
fn layer(deb: &Path) -> (Origin, Layer) {
    let field = |name: &str| {
        let output = Command::new("dpkg-deb").arg("-f").arg(deb).arg(name).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let origin = Origin::debian(&field("Package"), &field("Version"));
    let data = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).output().unwrap().stdout;
    let mut layer = Layer::default();
    for entry in tar::Archive::new(data.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let at = path(std::str::from_utf8(&entry.path_bytes()).unwrap());
        let link = entry.link_name_bytes().map(|name| String::from_utf8(name.into_owned()).unwrap());
        let header = entry.header().clone();
        let mode = (header.mode().unwrap() & 0o7777) as u16;
        let node = match header.entry_type() {
            tar::EntryType::Directory => Node::directory(mode, origin.clone()),
            tar::EntryType::Symlink => Node::symlink(&link.unwrap(), origin.clone()),
            tar::EntryType::Link => {
                let node = Node::file(mode, Content::raw(""), origin.clone());
                Node { kind: Kind::HardLink(path(&link.unwrap())), ..node }
            }
            _ => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                Node::file(mode, Content::raw(bytes), origin.clone())
            }
        };
        let node = node.owned_by(header.uid().unwrap() as u32, header.gid().unwrap() as u32);
        layer.entries.push((at, node));
    }
    (origin, layer)
}

/// One line for a path of a root directory: type, mode, owner and link target.
fn shape(place: &Path) -> Option<String> {
    let data = place.symlink_metadata().ok()?;
    let kind = match (data.is_dir(), data.is_symlink()) {
        (true, _) => "d".to_owned(),
        (_, true) => return Some(format!("l {}", std::fs::read_link(place).unwrap().display())),
        _ => "f".to_owned(),
    };
    Some(format!("{kind} {:o} {}:{}", data.permissions().mode() & 0o7777, data.uid(), data.gid()))
}

fn shape_of(node: &Node) -> String {
    match &node.kind {
        Kind::Directory => format!("d {:o} {}:{}", node.mode, node.uid, node.gid),
        Kind::Symlink(target) => format!("l {target}"),
        _ => format!("f {:o} {}:{}", node.mode, node.uid, node.gid),
    }
}

/// Prints every difference between the fix-ups of a folder of packages and a tree whose scripts ran:
/// `PROOFMARK_DEBS=… PROOFMARK_SCRIPTS_RAN=… cargo test -p system-tests --test fixup_reference -- --ignored --nocapture`
#[test]
#[ignore = "needs a folder of trixie packages and the tree that mmdebstrap made of them"]
fn the_fixed_tree_differs_from_a_tree_whose_scripts_ran_only_where_we_say() {
    let debs =
        PathBuf::from(std::env::var_os("PROOFMARK_DEBS").expect("PROOFMARK_DEBS is a folder of packages"));
    let ran =
        PathBuf::from(std::env::var_os("PROOFMARK_SCRIPTS_RAN").expect("PROOFMARK_SCRIPTS_RAN is a root"));
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(debs).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "deb"));
    files.sort();
    let mut tree = merge(files.iter().map(|file| layer(file)), &Rules::default()).unwrap();
    base::apply(&mut tree, "localhost").unwrap();
    let declared = accounts::Declared::default();
    let ids = accounts::plan(&tree, &declared, &accounts::Ids::default()).unwrap();
    accounts::apply(&mut tree, &declared, &ids).unwrap();
    eprintln!("PAM profiles: {:?}", pam::apply(&mut tree).unwrap());
    nsswitch::apply(&mut tree).unwrap();
    let enable = [
        "dbus-broker.service",
        "e2scrub_reap.service",
        "ssh.service",
        "remote-fs.target",
        "getty@tty1.service",
        "apt-daily-upgrade.timer",
        "fstrim.timer",
        "e2scrub_all.timer",
        "dpkg-db-backup.timer",
        "apt-daily.timer",
        "systemd-timesyncd.service",
        "systemd-resolved.service",
        "systemd-pstore.service",
        "sshd-keygen.service",
    ];
    let declared = units::Declared {
        enable: enable.map(unit).to_vec(),
        enable_user: vec![unit("ssh-agent.socket"), unit("dbus-broker.service")],
        ..units::Declared::default()
    };
    let report = units::apply(&mut tree, &declared).unwrap();
    eprintln!("pulled in by what does not exist: {:?}", report.dangling);
    eprintln!("hidden in /var: {:?}", tmpfiles::apply(&mut tree).unwrap().hidden);
    eprintln!("{}", text(&tree, "usr/lib/tmpfiles.d/00-proofmark-var.conf"));

    let ours: BTreeMap<String, String> =
        report.links.into_iter().map(|(path, target)| (path.to_string(), target)).collect();
    let theirs = links(&ran);
    for name in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        if ours.get(name) != theirs.get(name) {
            eprintln!("unit {name}: ours {:?}, theirs {:?}", ours.get(name), theirs.get(name));
        }
    }
    for (place, node) in tree.iter() {
        let own = shape(&ran.join(place.as_str()));
        if own.as_deref() != Some(&shape_of(node)) && !place.as_str().starts_with("usr/share/doc") {
            eprintln!("path {place} ({}): ours {}, theirs {own:?}", node.origin, shape_of(node));
        }
    }
    fn walk(root: &Path, folder: &Path, tree: &Tree) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let place = entry.unwrap().path();
            let name = place.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if tree.get(&path(&name)).is_none() {
                eprintln!("only theirs {name}: {:?}", shape(&place));
            } else if place.is_dir() && !place.is_symlink() {
                walk(root, &place, tree);
            }
        }
    }
    for folder in ["etc", "root", "srv", "home", "opt", "usr"] {
        walk(&ran, &ran.join(folder), &tree);
    }
    for name in [
        "common-auth",
        "common-account",
        "common-password",
        "common-session",
        "common-session-noninteractive",
    ] {
        let name = format!("etc/pam.d/{name}");
        assert_eq!(text(&tree, &name), std::fs::read_to_string(ran.join(&name)).unwrap(), "{name}");
    }
    for name in [
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/group",
        "etc/shadow",
        "etc/gshadow",
        "etc/shells",
        "etc/profile",
    ] {
        let (ours, theirs) =
            (sorted(&text(&tree, name)), sorted(&std::fs::read_to_string(ran.join(name)).unwrap()));
        for line in ours.symmetric_difference(&theirs) {
            eprintln!("{name}: {} {line}", if ours.contains(line) { "ours  " } else { "theirs" });
        }
    }
}
