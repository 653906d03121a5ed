//! Yields the programs of other projects that tests compare with.

use std::path::{Path, PathBuf};

/// Says loudly that a check did not run.
///
/// # Panics
/// When the check must run: when `CI` is `true`.
pub fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
}

/// The Debian packages of programs whose package has another name.
const PACKAGES: [(&str, &str); 18] = [
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("fsck.vfat", "dosfstools"),
    ("mdir", "mtools"),
    ("mkfs.erofs", "erofs-utils"),
    ("mtype", "mtools"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("sbsign", "sbsigntool"),
    ("sbverify", "sbsigntool"),
    ("setpriv", "util-linux"),
    ("sfdisk", "fdisk"),
    ("sgdisk", "gdisk"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("systemctl", "systemd"),
    ("systemd-sysusers", "systemd"),
    ("taskset", "util-linux"),
    ("veritysetup", "cryptsetup-bin"),
];

/// The path of a program, from the folders of PATH or the administrator's; `None`, with a loud message, when it is
/// missing.
///
/// # Panics
/// When it is missing in CI.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(administrators)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        let package =
            PACKAGES.iter().find(|(program, _)| *program == name).map_or(name, |(_, package)| package);
        skipped(&format!("{name} is missing: apt-get install {package}"));
    }
    found
}

/// The first of these files that exists; `None`, with a loud message, when all are missing.
///
/// # Panics
/// When they are missing in CI.
pub fn file(paths: &[&str], package: &str) -> Option<PathBuf> {
    let found = paths.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned);
    if found.is_none() {
        skipped(&format!("{} is missing: apt-get install {package}", paths.join(" or ")));
    }
    found
}
