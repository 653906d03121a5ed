//! Yields the directories, links and small files that the scripts of `base-files`, `netbase`, `dash` and similar
//! packages make, for a read-only root.
//!
//! # Shape
//! ```text
//! read-only   everything            /etc is what was measured
//! tmpfs       /var  (etc/fstab)     empty at every boot; systemd-tmpfiles fills it (see tmpfiles)
//! tmpfs       /tmp  (tmp.mount)     systemd's own unit, pulled in by local-fs.target
//! tmpfs       /run, /dev, /proc, /sys   mounted by systemd before anything else
//! ```
//! /etc/fstab is the simplest way to an empty /var: systemd.volatile=state does the same from the kernel command line,
//! and an overlay would keep package files, but needs one more module and makes /var look persistent. /etc/machine-id
//! is an empty file: systemd mounts a fresh id over it, and does not treat the boot as the first one, which would run
//! `preset-all` (machine-id(5), "First Boot Semantics").
//!
//! # Source
//! base-files 13.8 postinst, base-passwd, dash, debianutils (`/usr/share/debianutils/shells.d`), netbase, openssh-server
//! and mount of trixie: what their scripts left in a tree, path by path.
//!
//! # Not here
//! Accounts, PAM, name services, os-release: they have their own modules. SSH host keys: they belong to a machine, not
//! to an image.

use std::collections::BTreeSet;

use super::write;
use crate::content::Content;
use crate::path::TreePath;
use crate::tree::{self, Node, Origin, Tree};

const NAME: &str = "base";

/// The group `mail` in base-passwd's master.
const MAIL: u32 = 8;

/// Directories: path, mode, group.
const DIRECTORIES: [(&str, u16, u32); 37] = [
    ("boot", 0o755, 0),
    ("dev", 0o755, 0),
    // gpt-auto automounts the ESP, which fails without the directory.
    ("efi", 0o755, 0),
    ("etc", 0o755, 0),
    ("etc/opt", 0o755, 0),
    ("home", 0o755, 0),
    ("media", 0o755, 0),
    ("mnt", 0o755, 0),
    ("opt", 0o755, 0),
    ("proc", 0o755, 0),
    ("root", 0o700, 0),
    ("run", 0o755, 0),
    ("srv", 0o755, 0),
    ("sys", 0o755, 0),
    ("tmp", 0o1777, 0),
    ("usr", 0o755, 0),
    ("usr/local", 0o755, 0),
    ("usr/local/bin", 0o755, 0),
    ("usr/local/etc", 0o755, 0),
    ("usr/local/games", 0o755, 0),
    ("usr/local/include", 0o755, 0),
    ("usr/local/lib", 0o755, 0),
    ("usr/local/libexec", 0o755, 0),
    ("usr/local/sbin", 0o755, 0),
    ("usr/local/share", 0o755, 0),
    ("usr/local/share/man", 0o755, 0),
    ("usr/local/src", 0o755, 0),
    ("var", 0o755, 0),
    ("var/backups", 0o755, 0),
    ("var/cache", 0o755, 0),
    ("var/lib", 0o755, 0),
    ("var/local", 0o755, 0),
    ("var/log", 0o755, 0),
    ("var/mail", 0o2775, MAIL),
    ("var/opt", 0o755, 0),
    ("var/spool", 0o755, 0),
    ("var/tmp", 0o1777, 0),
];

/// Links: path, target.
const LINKS: [(&str, &str); 6] = [
    ("etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
    ("etc/mtab", "../proc/self/mounts"),
    ("usr/local/man", "share/man"),
    ("var/lock", "/run/lock"),
    ("var/run", "/run"),
    ("var/spool/mail", "../mail"),
];

/// Files that scripts copy: from, to, mode; skipped if the package is not in the image.
const COPIES: [(&str, &str, u16); 5] = [
    ("usr/share/base-files/dot.bashrc", "root/.bashrc", 0o644),
    ("usr/share/base-files/dot.profile", "root/.profile", 0o644),
    ("usr/share/base-files/motd", "etc/motd", 0o644),
    ("usr/share/base-files/profile", "etc/profile", 0o644),
    ("usr/share/openssh/sshd_config", "etc/ssh/sshd_config", 0o644),
];

/// Files that scripts or the installer write: path, mode, text.
const FILES: [(&str, u16, &str); 4] = [
    ("etc/environment", 0o644, ""),
    ("etc/fstab", 0o644, FSTAB),
    ("etc/machine-id", 0o444, ""),
    ("etc/networks", 0o644, "default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n"),
];

const FSTAB: &str = "\
# The root is read-only and verified; all state is here, and gone after the boot.
tmpfs /var tmpfs mode=0755,nosuid,nodev 0 0
";

/// Why the base of an image cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid host name.
    #[error("invalid host name {0:?}: use at most 64 letters, digits, \"-\" and \".\"")]
    Hostname(String),
    /// A non-empty directory is at the path of a link of the table.
    #[error("{path} must be a link, but is a non-empty directory of {origin}")]
    Occupied {
        /// The path.
        path: TreePath,
        /// Where the directory comes from.
        origin: Origin,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// Adds what scripts would make; anything from a package or the recipe stays.
///
/// # Errors
/// [`Error::Hostname`]; [`Error::Occupied`] for a directory in place of a link; [`Error::Tree`].
pub fn apply(tree: &mut Tree, hostname: &str) -> Result<(), Error> {
    let label = |label: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(good) && !label.starts_with('-') && !label.ends_with('-')
    };
    // HOST_NAME_MAX is 64 on Linux (hostname(5), gethostname(2)).
    if hostname.len() > 64 || !hostname.split('.').all(label) {
        return Err(Error::Hostname(hostname.to_owned()));
    }
    let origin = || Origin::fix_up(NAME);
    for (path, mode, gid) in DIRECTORIES {
        write::missing(tree, path, Node::directory(mode, origin()).owned_by(0, gid))?;
    }
    for (path, target) in LINKS {
        link(tree, path, target)?;
    }
    for (from, to, mode) in COPIES {
        if let Some(text) = write::text(tree, from)? {
            write::missing(tree, to, Node::file(mode, Content::raw(text), origin()))?;
        }
    }
    let made = [
        ("etc/hostname", 0o644, format!("{hostname}\n")),
        ("etc/hosts", 0o644, hosts(hostname)),
        ("etc/shells", 0o644, shells(tree)?),
    ];
    let fixed = FILES.map(|(path, mode, text)| (path, mode, text.to_owned()));
    for (path, mode, text) in made.into_iter().chain(fixed) {
        write::missing(tree, path, Node::file(mode, Content::raw(text), origin()))?;
    }
    if write::exists(tree, "etc/dpkg/origins/debian")? {
        link(tree, "etc/dpkg/origins/default", "debian")?;
    }
    if write::exists(tree, "usr/lib/systemd/systemd-resolved")? {
        link(tree, "etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")?;
    }
    Ok(())
}

/// Makes a link where nothing or an empty directory is, as `base-files` does for /var/run.
fn link(tree: &mut Tree, path: &str, target: &str) -> Result<(), Error> {
    let place = TreePath::new(path).map_err(tree::Error::from)?;
    match tree.get(&place) {
        Some(node) if !node.is_directory() => return Ok(()),
        Some(node) if tree.below(&place).next().is_some() => {
            return Err(Error::Occupied { origin: node.origin.clone(), path: place });
        }
        _ => {}
    }
    Ok(write::link(tree, path, target, NAME)?)
}

fn hosts(hostname: &str) -> String {
    let own = if hostname == "localhost" { String::new() } else { format!("127.0.1.1\t{hostname}\n") };
    format!(
        "127.0.0.1\tlocalhost\n{own}::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\n\
         ff02::2\t\tip6-allrouters\n"
    )
}

/// The shells that packages register in `/usr/share/debianutils/shells.d`, with debianutils' own, and their names in /usr (update-shells(8)).
fn shells(tree: &Tree) -> Result<String, tree::Error> {
    let mut names = BTreeSet::new();
    let own = TreePath::new("usr/share/debianutils/shells")?;
    let folder = TreePath::new("usr/share/debianutils/shells.d")?;
    let own = tree.get(&own).map(|node| (&own, node));
    for (path, _) in own.into_iter().chain(tree.children(&folder)).filter(|(_, node)| !node.is_directory()) {
        for shell in String::from_utf8_lossy(&tree.read(path)?).lines().map(str::trim) {
            if shell.starts_with('/') {
                let real = TreePath::new(shell)?;
                // Both names in the merged /usr, as update-shells writes them.
                if shell.starts_with("/bin/") {
                    names.insert(format!("/usr{shell}"));
                }
                names.insert(real.to_string());
            }
        }
    }
    let mut text = String::from("# /etc/shells: valid login shells\n");
    text.extend(names.iter().map(|name| format!("{name}\n")));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn empty() -> Tree {
        Tree::new(Origin::fix_up("test"))
    }

    fn read(tree: &Tree, at: &str) -> String {
        String::from_utf8(tree.read(&path(at)).unwrap().into_owned()).unwrap()
    }

    fn put(tree: &mut Tree, at: &str, text: &str) {
        tree.insert(path(at), Node::file(0o644, Content::raw(text), Origin::debian("pkg", "1"))).unwrap();
    }

    #[test]
    fn directories_and_links_are_those_of_the_table() {
        let mut tree = empty();
        apply(&mut tree, "claw").unwrap();
        for (at, mode, gid) in DIRECTORIES {
            let node = tree.get(&path(at)).unwrap();
            assert!(node.is_directory());
            assert_eq!((node.mode, node.uid, node.gid), (mode, 0, gid), "{at}");
        }
        for (at, to) in LINKS {
            assert!(
                matches!(&tree.get(&path(at)).unwrap().kind, Kind::Symlink(target) if **target == *to),
                "{at}"
            );
        }
        assert_eq!(read(&tree, "etc/hostname"), "claw\n");
        assert!(read(&tree, "etc/hosts").contains("\n127.0.1.1\tclaw\n"));
        assert!(tree.get(&path("etc/machine-id")).unwrap().content().unwrap().is_empty());
        assert!(tree.get(&path("etc/resolv.conf")).is_none());
    }

    #[test]
    fn existing_paths_stay() {
        let mut tree = empty();
        put(&mut tree, "etc/hosts", "mine\n");
        put(&mut tree, "etc/fstab", "mine\n");
        tree.insert(path("root"), Node::directory(0o750, Origin::debian("pkg", "1"))).unwrap();
        tree.insert(path("var/run"), Node::directory(0o755, Origin::debian("pkg", "1"))).unwrap();
        apply(&mut tree, "localhost").unwrap();
        assert_eq!((read(&tree, "etc/hosts"), read(&tree, "etc/fstab")), ("mine\n".into(), "mine\n".into()));
        assert_eq!(tree.get(&path("root")).unwrap().mode, 0o750);
        assert!(matches!(&tree.get(&path("var/run")).unwrap().kind, Kind::Symlink(_)));
    }

    #[test]
    fn files_of_packages_are_copied_if_the_package_is_present() {
        let mut tree = empty();
        put(&mut tree, "usr/share/base-files/profile", "profile\n");
        put(&mut tree, "usr/share/openssh/sshd_config", "sshd\n");
        put(&mut tree, "etc/dpkg/origins/debian", "d");
        put(&mut tree, "usr/lib/systemd/systemd-resolved", "elf");
        apply(&mut tree, "localhost").unwrap();
        assert_eq!(read(&tree, "etc/profile"), "profile\n");
        assert_eq!(read(&tree, "etc/ssh/sshd_config"), "sshd\n");
        assert_eq!(read(&tree, "etc/dpkg/origins/default"), "d");
        assert!(tree.get(&path("etc/motd")).is_none());
        assert!(tree.get(&path("etc/resolv.conf")).is_some());
    }

    #[test]
    fn shells_are_those_that_packages_register() {
        let mut tree = empty();
        put(&mut tree, "usr/share/debianutils/shells", "# c\n/bin/sh\n");
        put(&mut tree, "usr/share/debianutils/shells.d/bash", "/bin/bash\n# no\n/usr/bin/rbash\n");
        apply(&mut tree, "localhost").unwrap();
        assert_eq!(
            read(&tree, "etc/shells"),
            "# /etc/shells: valid login shells\n/bin/bash\n/bin/sh\n/usr/bin/bash\n/usr/bin/rbash\n/usr/bin/sh\n"
        );
    }

    #[test]
    fn an_invalid_host_name_is_refused() {
        for name in ["", "a b", "-a", "a-", "a..b", ".a", "a_b", "a\n", &"a".repeat(65)] {
            assert_eq!(apply(&mut empty(), name), Err(Error::Hostname(name.into())));
        }
        for name in ["a", "a-1.b", &"a".repeat(64)] {
            assert_eq!(apply(&mut empty(), name), Ok(()));
        }
    }

    #[test]
    fn a_link_does_not_hide_files_of_a_package() {
        let mut tree = empty();
        put(&mut tree, "var/run/pkg.pid", "1");
        assert!(matches!(apply(&mut tree, "a"), Err(Error::Occupied { .. })));
    }
}
