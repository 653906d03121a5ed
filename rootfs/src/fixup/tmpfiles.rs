//! Yields the paths that tmpfiles.d asks for and that never change after the build, and the skeleton of /var for the
//! boot.
//!
//! # Shape
//! The root is read-only and verified; /dev, /proc, /run, /sys, /tmp and /var are mounted over at boot, where
//! systemd-tmpfiles applies its lines itself. So lines for those six are left to it, and lines for all other paths are
//! applied here, once:
//! ```text
//! d D q Q v   make a directory, or set the mode and owner of an existing one
//! f           make a file with the text, if none exists
//! L L+ L?     make a link, if nothing exists (+: in any case; ?: if its target exists)
//! C           copy files and directories, if nothing exists (or an empty directory)
//! z Z m       set mode and owner, Z recursively
//! r R x X e   nothing: there is nothing to clean
//! ```
//! /var is a tmpfs, which hides what packages ship there. Their directories and links become lines of
//! /usr/lib/tmpfiles.d/00-proofmark-var.conf, and systemd-tmpfiles recreates them at every boot; files of packages in
//! /var (which none needs to run) are reported, not copied.
//!
//! # Source
//! tmpfiles.d(5) of systemd 257 and its `src/tmpfiles/tmpfiles.c`.
//!
//! # Not here
//! ACLs, attributes, device nodes and globs on paths that never change: refused. Credentials (`^`): they come from the
//! host and have no place in a verified root, so their lines are skipped.

use std::collections::{BTreeMap, BTreeSet};

use super::{accounts, systemd_conf, write};
use crate::content::Content;
use crate::path::TreePath;
use crate::tree::{self, Kind, Node, Origin, Tree};

const NAME: &str = "tmpfiles";
const VAR: &str = "usr/lib/tmpfiles.d/00-proofmark-var.conf";

/// The directories that are mounted over before systemd-tmpfiles runs.
const MOUNTED: [&str; 6] = ["dev", "proc", "run", "sys", "tmp", "var"];

/// Why a line cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A line that is not valid, or asks for something that a read-only image cannot have.
    #[error("{path}:{line}: {problem}: {text:?}")]
    Line {
        /// The file.
        path: TreePath,
        /// The line, from 1.
        line: u32,
        /// What is wrong.
        problem: &'static str,
        /// The part that is wrong.
        text: String,
    },
    /// A line that cannot be split into words.
    #[error("{path}:{line}: cannot split the line")]
    Words {
        /// The file.
        path: TreePath,
        /// The line, from 1.
        line: u32,
        /// Why.
        source: systemd_conf::WordError,
    },
    /// A path of /var that cannot be written as a line of tmpfiles.d.
    #[error("{0:?} cannot be written in tmpfiles.d")]
    Name(String),
    /// The accounts cannot be read.
    #[error("cannot read the accounts")]
    Accounts(#[source] accounts::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// What was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that packages ship in /var, which the tmpfs hides.
    pub hidden: Vec<TreePath>,
}

/// Applies the lines of tmpfiles.d for the image itself, and writes the skeleton of /var. Run [`accounts`] first.
///
/// # Errors
/// [`Error`] for the first line on a path of the image that cannot be applied.
pub fn apply(tree: &mut Tree) -> Result<Report, Error> {
    // Our own lines of an earlier run do not count.
    write::file(tree, VAR, 0o644, "", NAME)?;
    let ids = accounts::read(tree).map_err(Error::Accounts)?;
    let mut at_boot = BTreeSet::new();
    for (path, text) in systemd_conf::files(tree, "tmpfiles.d")? {
        for (number, text) in systemd_conf::lines(&text) {
            let place = Place { path: &path, line: number };
            let Some(line) = Line::parse(text, &place, &ids)? else { continue };
            if line.path.components().next().is_some_and(|first| MOUNTED.contains(&first)) {
                if matches!(line.kind, 'd' | 'D' | 'q' | 'Q' | 'v' | 'L' | 'f' | 'C') {
                    at_boot.insert(line.path.clone());
                }
                continue;
            }
            line.apply(tree, &place)?;
        }
    }
    let (skeleton, hidden) = skeleton(tree, &at_boot)?;
    write::file(tree, VAR, 0o644, skeleton, NAME)?;
    Ok(Report { hidden })
}

/// The place of a line.
struct Place<'a> {
    path: &'a TreePath,
    line: u32,
}

impl Place<'_> {
    fn wrong(&self, problem: &'static str, text: &str) -> Error {
        Error::Line { path: self.path.clone(), line: self.line, problem, text: text.to_owned() }
    }
}

/// The mode and owner that a line sets; `None` if it does not.
struct Rights {
    mode: Option<Mode>,
    uid: Option<u32>,
    gid: Option<u32>,
    /// `:` before a value: only for paths that the line itself makes.
    new_only: bool,
}

#[derive(Clone, Copy)]
struct Mode {
    bits: u16,
    /// `~`: mask the mode with the bits of the node.
    masked: bool,
}

struct Line {
    kind: char,
    force: bool,
    if_target: bool,
    path: TreePath,
    rights: Rights,
    argument: String,
}

impl Line {
    /// `None` for a line that asks for nothing at build time.
    fn parse(text: &str, place: &Place<'_>, ids: &accounts::Ids) -> Result<Option<Line>, Error> {
        let (words, argument) = systemd_conf::words(text, 6).map_err(|source| Error::Words {
            path: place.path.clone(),
            line: place.line,
            source,
        })?;
        let mut words = words.into_iter();
        let kind_text = words.next().unwrap_or_default();
        let Some(target) = words.next() else { return Err(place.wrong("no path", text)) };
        let mut letters = kind_text.chars();
        let kind = letters.next().unwrap_or(' ');
        let flags: String = letters.collect();
        if let Some(flag) = flags.chars().find(|flag| !"!-+=~^$?".contains(*flag)) {
            return Err(place.wrong("unknown modifier", &flag.to_string()));
        }
        if flags.contains('^') || matches!(kind, 'r' | 'R' | 'x' | 'X' | 'e') {
            return Ok(None);
        }
        if !target.starts_with('/') {
            return Err(place.wrong("not an absolute path", &target));
        }
        let mounted =
            target.split('/').find(|part| !part.is_empty()).is_some_and(|first| MOUNTED.contains(&first));
        let path = match TreePath::new(&target.replace("%%", "\u{1}").replace('\u{1}', "%")) {
            Ok(path) => path,
            Err(error) => return Err(tree::Error::from(error).into()),
        };
        let rights = Rights { mode: None, uid: None, gid: None, new_only: false };
        let (force, if_target) = (flags.contains('+'), flags.contains('?'));
        let argument = argument.to_owned();
        let mut line = Line { kind, force, if_target, path, rights, argument };
        if mounted {
            // Its specifiers, globs and owners are resolved at boot.
            return Ok(Some(line));
        }
        if target.replace("%%", "").contains('%') || line.argument.replace("%%", "").contains('%') {
            return Err(place.wrong("specifiers are not supported", &target));
        }
        line.argument = line.argument.replace("%%", "%");
        if target.contains(['*', '?', '[']) {
            return Err(place.wrong("globs are not supported", &target));
        }
        let mut field = |table: Option<&BTreeMap<String, u32>>| -> Result<Option<u32>, Error> {
            let Some(word) = words.next().filter(|word| word != "-" && !word.is_empty()) else {
                return Ok(None);
            };
            let (new_only, plain) = match word.strip_prefix(':') {
                Some(rest) => (true, rest),
                None => (false, word.as_str()),
            };
            line.rights.new_only |= new_only;
            match table {
                None => {
                    let (masked, digits) = match plain.strip_prefix('~') {
                        Some(rest) => (true, rest),
                        None => (false, plain),
                    };
                    let bits = u16::from_str_radix(digits, 8).ok().filter(|bits| *bits <= 0o7777);
                    let bits = bits.ok_or_else(|| place.wrong("not a mode", &word))?;
                    line.rights.mode = Some(Mode { bits, masked });
                    Ok(None)
                }
                Some(table) => {
                    let id = plain.parse().ok().or_else(|| table.get(plain).copied());
                    id.map(Some).ok_or_else(|| place.wrong("unknown account", &word))
                }
            }
        };
        field(None)?;
        let uid = field(Some(&ids.users))?;
        let gid = field(Some(&ids.groups))?;
        (line.rights.uid, line.rights.gid) = (uid, gid);
        Ok(Some(line))
    }

    fn apply(&self, tree: &mut Tree, place: &Place<'_>) -> Result<(), Error> {
        let origin = || Origin::fix_up(NAME);
        let there = tree.get(&self.path);
        match self.kind {
            'd' | 'D' | 'q' | 'Q' | 'v' => match there {
                Some(node) if !node.is_directory() => {
                    return Err(place.wrong("path exists and is not a directory", &self.path.to_string()));
                }
                Some(_) => self.set(tree, &self.path, State::Existing),
                None => {
                    tree.insert(self.path.clone(), Node::directory(0o755, origin()))?;
                    self.set(tree, &self.path, State::Made);
                }
            },
            'f' => {
                if there.is_some() && !self.force {
                    self.set(tree, &self.path, State::Existing);
                } else {
                    let text = self.argument.trim_matches('"');
                    if text.contains('\\') {
                        return Err(place.wrong("escapes in a file's text are not supported", text));
                    }
                    tree.replace(self.path.clone(), Node::file(0o644, Content::raw(text), origin()))?;
                    self.set(tree, &self.path, State::Made);
                }
            }
            'L' => {
                let factory = format!("../usr/share/factory{}", self.path);
                let target = if self.argument.is_empty() { factory.as_str() } else { &self.argument };
                let wanted = !self.if_target || self.resolves(tree, target)?;
                if wanted && (there.is_none() || self.force) {
                    tree.replace(self.path.clone(), Node::symlink(target, origin()))?;
                }
            }
            'C' => self.copy(tree)?,
            'z' | 'm' => self.set(tree, &self.path, State::Existing),
            'Z' => {
                let below: Vec<TreePath> = tree.below(&self.path).map(|(path, _)| path.clone()).collect();
                for path in below.iter().chain([&self.path]) {
                    self.set(tree, path, State::Existing);
                }
            }
            _ => {
                return Err(
                    place.wrong("type is not supported on a path of the image", &self.kind.to_string())
                );
            }
        }
        Ok(())
    }

    fn resolves(&self, tree: &Tree, target: &str) -> Result<bool, Error> {
        let mut here = self.path.parent().unwrap_or_else(TreePath::root);
        if target.starts_with('/') {
            here = TreePath::root();
        }
        for part in target.split('/') {
            here = match part {
                ".." => here.parent().unwrap_or_else(TreePath::root),
                part => here.join(part).map_err(tree::Error::from)?,
            };
        }
        Ok(tree.resolve(&here).is_ok())
    }

    fn copy(&self, tree: &mut Tree) -> Result<(), Error> {
        let source = match self.argument.as_str() {
            "" => format!("usr/share/factory{}", self.path),
            source => source.to_owned(),
        };
        let source = TreePath::new(&source).map_err(tree::Error::from)?;
        let empty = tree.below(&self.path).next().is_none();
        match tree.get(&self.path) {
            Some(node) if !(node.is_directory() && empty) => return Ok(()),
            _ => {}
        }
        let mut copies = Vec::new();
        for (path, node) in
            tree.get(&source).map(|node| (&source, node)).into_iter().chain(tree.below(&source))
        {
            let rest = path.as_str().strip_prefix(source.as_str()).unwrap_or("");
            let copy = self.path.join(rest).map_err(tree::Error::from)?;
            copies.push((copy, Node { origin: Origin::fix_up(NAME), ..node.clone() }));
        }
        for (path, node) in copies {
            tree.replace(path, node)?;
        }
        self.set(tree, &self.path, State::Made);
        Ok(())
    }

    fn set(&self, tree: &mut Tree, path: &TreePath, state: State) {
        let Some(node) = tree.edit(path) else { return };
        // As in systemd, a link is neither followed nor changed.
        if (self.rights.new_only && state == State::Existing) || matches!(node.kind, Kind::Symlink(_)) {
            return;
        }
        if let Some(mode) = self.rights.mode {
            node.mode = masked(mode, node);
        }
        node.uid = self.rights.uid.unwrap_or(node.uid);
        node.gid = self.rights.gid.unwrap_or(node.gid);
    }
}

/// Whether the line itself made a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Made,
    Existing,
}

/// A mode after `~`: drops read, write and execute bits that the node has for no one, and set-id bits on a file
/// (tmpfiles.d(5), "Mode").
fn masked(mode: Mode, node: &Node) -> u16 {
    if !mode.masked {
        return mode.bits;
    }
    let mut bits = mode.bits;
    for kind in [0o444, 0o222, 0o111] {
        if node.mode & kind == 0 {
            bits &= !kind;
        }
    }
    if node.is_directory() { bits } else { bits & 0o777 }
}

/// The lines that recreate the directories and links of /var, except those in `at_boot`, and the files that are left
/// out.
fn skeleton(tree: &Tree, at_boot: &BTreeSet<TreePath>) -> Result<(String, Vec<TreePath>), Error> {
    let mut text = String::from("# What packages ship in /var, which is empty at every boot.\n");
    let mut hidden = Vec::new();
    let var = TreePath::new("var").map_err(tree::Error::from)?;
    for (path, node) in tree.below(&var).filter(|(path, _)| !at_boot.contains(*path)) {
        let plain = |text: &str| {
            let bad =
                |letter: char| letter.is_whitespace() || letter.is_control() || "\"'\\".contains(letter);
            match text.contains(bad) {
                true => Err(Error::Name(text.to_owned())),
                false => Ok(text.replace('%', "%%")),
            }
        };
        match &node.kind {
            Kind::Directory => {
                let path = plain(&path.to_string())?;
                text.push_str(&format!("d {path} {:04o} {} {} -\n", node.mode, node.uid, node.gid));
            }
            Kind::Symlink(target) => {
                let (path, target) = (plain(&path.to_string())?, plain(target)?);
                text.push_str(&format!("L {path} - - - - {target}\n"));
            }
            _ => hidden.push(path.clone()),
        }
    }
    Ok((text, hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn tree(lines: &str) -> Tree {
        let mut tree = Tree::new(Origin::fix_up("test"));
        let mut put = |at: &str, text: &str| {
            let node = Node::file(0o644, Content::raw(text), Origin::debian("pkg", "1"));
            tree.insert(path(at), node).unwrap();
        };
        put("usr/lib/tmpfiles.d/a.conf", lines);
        put("etc/passwd", "root:x:0:0::/root:/bin/sh\ntss:x:990:991::/:/bin/false\n");
        put("etc/group", "root:x:0:\ntss:x:991:\nmail:x:8:\n");
        put("etc/dir/file", "text");
        put("usr/share/factory/etc/pam/x", "x");
        put("usr/share/skel/a/b", "b");
        put("var/lib/pkg/state", "state");
        tree
    }

    fn applied(lines: &str) -> Tree {
        let mut tree = tree(lines);
        apply(&mut tree).unwrap();
        tree
    }

    fn rights(tree: &Tree, at: &str) -> (u16, u32, u32) {
        let node = tree.get(&path(at)).unwrap();
        (node.mode, node.uid, node.gid)
    }

    #[test]
    fn directories_are_made_and_changed() {
        let tree = applied(
            "d /etc/new 0700 tss tss\nd /etc/dir 0711 - 8\nd- /srv/x :0750 :root :root -\nd /etc/dir/sub\n",
        );
        assert_eq!(rights(&tree, "etc/new"), (0o700, 990, 991));
        assert_eq!(rights(&tree, "etc/dir"), (0o711, 0, 8));
        assert_eq!(rights(&tree, "srv/x"), (0o750, 0, 0));
        assert_eq!(rights(&tree, "etc/dir/sub"), (0o755, 0, 0));
    }

    #[test]
    fn a_colon_leaves_existing_paths_alone() {
        assert_eq!(rights(&applied("d /etc/dir :0700 :tss -\n"), "etc/dir"), (0o755, 0, 0));
    }

    #[test]
    fn links_fill_gaps_and_a_plus_replaces() {
        let tree = applied(
            "L! /etc/resolv.conf - - - - ../run/x\nL /etc/dir/file - - - - no\nL+ /etc/mtab - - - - ../proc/self/mounts\n\
             L? /etc/there - - - - dir/file\nL? /etc/gone - - - - ../none\nL /etc/pam\n",
        );
        let target = |at| match &tree.get(&path(at)).unwrap().kind {
            Kind::Symlink(target) => target.to_string(),
            kind => kind.name().into(),
        };
        assert_eq!(target("etc/resolv.conf"), "../run/x");
        assert_eq!(target("etc/dir/file"), "regular file");
        assert_eq!(target("etc/mtab"), "../proc/self/mounts");
        assert_eq!(target("etc/there"), "dir/file");
        assert!(tree.get(&path("etc/gone")).is_none());
        assert_eq!(target("etc/pam"), "../usr/share/factory/etc/pam");
    }

    #[test]
    fn files_are_made_and_copied() {
        let tree = applied(
            "f /etc/f 0600 - - - \"a text\"\nf /etc/dir/file - - - - other\nC /etc/pam\nC /etc/a - - - - /usr/share/skel/a\n",
        );
        assert_eq!(&*tree.read(&path("etc/f")).unwrap(), b"a text");
        assert_eq!(rights(&tree, "etc/f").0, 0o600);
        assert_eq!(&*tree.read(&path("etc/dir/file")).unwrap(), b"text");
        assert_eq!(&*tree.read(&path("etc/pam/x")).unwrap(), b"x");
        assert_eq!(&*tree.read(&path("etc/a/b")).unwrap(), b"b");
    }

    #[test]
    fn modes_are_set_in_depth_and_a_tilde_masks_them() {
        let tree = applied("Z /etc/dir ~0770 tss - -\nz /usr/share/skel 0750\nm /none 0700\n");
        assert_eq!(rights(&tree, "etc/dir"), (0o770, 990, 0));
        assert_eq!(rights(&tree, "etc/dir/file"), (0o660, 990, 0));
        assert_eq!(rights(&tree, "usr/share/skel"), (0o750, 0, 0));
    }

    #[test]
    fn lines_on_mounted_paths_and_credentials_are_left_for_the_boot() {
        let before = tree("").len();
        let tree = applied(
            "d /run/x 0755 nobody-knows - -\na+ /var/log/journal/%m - - - - d:x\nf^ /etc/hosts - - - - network.hosts\n\
             z /dev/kvm 0660 - kvm -\nr! /etc/passwd.lock\nx /tmp/a-*\nD! /tmp/.X11-unix 1777 root root 10d\n",
        );
        assert_eq!(tree.len(), before + 1);
    }

    #[test]
    fn the_skeleton_of_var_leaves_out_paths_of_packages_own_lines() {
        let mut tree = tree("d /var/lib 0755 - - -\n");
        tree.insert(path("var/mail"), Node::directory(0o2775, Origin::fix_up("t")).owned_by(0, 8)).unwrap();
        tree.insert(path("var/run"), Node::symlink("/run", Origin::fix_up("t"))).unwrap();
        let report = apply(&mut tree).unwrap();
        let text = tree.read(&path(VAR)).unwrap().into_owned();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["d /var/lib/pkg 0755 0 0 -", "d /var/mail 2775 0 8 -", "L /var/run - - - - /run"]);
        assert_eq!(report.hidden, [path("var/lib/pkg/state")]);
    }

    #[test]
    fn applying_twice_changes_nothing() {
        let mut tree = tree("d /etc/new 0700 tss tss\n");
        tree.insert(path("var/mail"), Node::directory(0o2775, Origin::fix_up("t"))).unwrap();
        apply(&mut tree).unwrap();
        let once = tree.read(&path(VAR)).unwrap().into_owned();
        apply(&mut tree).unwrap();
        assert_eq!(*tree.read(&path(VAR)).unwrap(), once);
    }

    #[test]
    fn invalid_lines_on_the_image_are_refused() {
        for line in [
            "a /etc/dir - - - - u:x:rw",
            "c /etc/null 0666 - - - 1:3",
            "d",
            "d etc/x",
            "d@ /etc/x",
            "d /etc/x 99",
            "d /etc/x 0755 nobody-knows",
            "z /etc/* 0600",
            "d /etc/%m",
            "f /etc/f - - - - a\\n",
            "d /etc/dir/file",
            "d /etc/../x",
        ] {
            assert!(apply(&mut tree(line)).is_err(), "{line}");
        }
        assert!(matches!(apply(&mut tree("d \"/etc")), Err(Error::Words { line: 1, .. })));
        let mut odd = tree("");
        odd.insert(path("var/a b"), Node::directory(0o755, Origin::fix_up("t"))).unwrap();
        assert!(matches!(apply(&mut odd), Err(Error::Name(_))));
        assert!(matches!(apply(&mut Tree::new(Origin::fix_up("t"))), Err(Error::Accounts(_))));
    }
}
