//! Yields one tree from the layers of packages, merged as dpkg would on a merged /usr.
//!
//! # Shape
//! ```text
//! /bin/x  /sbin/x  /lib/x  /lib64/x   ->   /usr/bin/x  /usr/sbin/x  /usr/lib/x  /usr/lib64/x
//! /bin -> usr/bin, /sbin, /lib, /lib64     stay links, and are added if no layer has them
//! ```
//! A relative link that moves with its directory is rewritten if it would point elsewhere. If two layers have a
//! directory, the first layer's mode and owner count, as dpkg does not change an existing directory. Any other path in
//! two layers is refused, unless one of the packages declares `Replaces` for the other, or a diversion moves one of the
//! files.
//!
//! # Source
//! Debian policy 7.6.1 (overwriting files in other packages), dpkg `src/main/archives.c` (`tarobject`), the usrmerge
//! requirement of trixie (DEP 17); the aliases are those of trixie's `base-files`.
//!
//! # Not here
//! Reading archives; finding which package `Replaces` which.

use std::collections::{BTreeMap, BTreeSet};

use crate::layer::Layer;
use crate::path::TreePath;
use crate::tree::{self, Kind, Node, Origin, Tree};

/// The directories of the root that are links into /usr.
const ALIASES: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Why layers cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two layers have different things at one path.
    #[error("{path} is a {first_kind} of {first} and a {second_kind} of {second}")]
    Conflict {
        /// The path, after the merge of /usr.
        path: TreePath,
        /// The first origin.
        first: Origin,
        /// Its kind.
        first_kind: &'static str,
        /// The second origin.
        second: Origin,
        /// Its kind.
        second_kind: &'static str,
    },
    /// A link that should point into /usr points elsewhere.
    #[error("{path} of {origin} points to {found:?}, expected {expected:?}")]
    Alias {
        /// The link.
        path: TreePath,
        /// Where it comes from.
        origin: Origin,
        /// Where it points.
        found: String,
        /// Where it must point.
        expected: String,
    },
    /// A hard link whose target is not a regular file of its own layer.
    #[error("hard link {path} of {origin} points to {target}, which is not a regular file of its package")]
    HardLink {
        /// The link.
        path: TreePath,
        /// Where it comes from.
        origin: Origin,
        /// Its target.
        target: TreePath,
    },
    /// A path that cannot be added to the tree.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// A path that one package owns: the same path of any other package moves to `to` (dpkg-divert(1)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diversion {
    /// The path that is diverted.
    pub path: TreePath,
    /// Where the files of other packages go.
    pub to: TreePath,
    /// The package whose file stays.
    pub by: String,
}

/// Which packages may overwrite the files of which.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Pairs of a package and one whose files it may overwrite, as `Replaces` declares.
    pub replaces: BTreeSet<(String, String)>,
    /// Diverted paths.
    pub diversions: Vec<Diversion>,
}

impl Rules {
    fn wins(&self, winner: &Origin, loser: &Origin) -> bool {
        match (winner, loser) {
            (Origin::Debian { name: winner, .. }, Origin::Debian { name: loser, .. }) => {
                self.replaces.contains(&(winner.to_string(), loser.to_string()))
            }
            _ => false,
        }
    }

    fn place(&self, path: TreePath, origin: &Origin) -> TreePath {
        let diverted = self.diversions.iter().find(|diversion| {
            let own = matches!(origin, Origin::Debian { name, .. } if **name == *diversion.by);
            !own && diversion.path == path
        });
        diverted.map_or(path, |diversion| diversion.to.clone())
    }
}

/// Merges the layers, the first one lowest.
///
/// # Errors
/// [`Error`]: two sources of one path, a hard link without a target, a root alias that points elsewhere.
pub fn merge(layers: impl Iterator<Item = (Origin, Layer)>, rules: &Rules) -> Result<Tree, Error> {
    let mut tree = Tree::new(Origin::fix_up("merge"));
    let mut others = Vec::new();
    // Directories first, so that a directory implied by a file does not hide the mode that a later layer gives it.
    for (origin, layer) in layers {
        let mut rest = Vec::new();
        for (path, node) in layer.entries {
            let is_alias_link = matches!(node.kind, Kind::Symlink(_)) && is_alias(&path);
            let place = if is_alias_link { path.clone() } else { merged(&path)? };
            if !node.is_directory() {
                rest.push((path, place, node));
            } else if place.is_root() {
                if matches!(tree.get(&place), Some(root) if matches!(root.origin, Origin::FixUp(_))) {
                    tree.replace(place, node)?;
                }
            } else {
                tree.insert(place, node)?;
            }
        }
        others.push((origin, rest));
    }
    // The targets of this layer's hard links; they stay this layer's even if another layer wins the path.
    let mut linked: BTreeMap<(Origin, TreePath), Node> = BTreeMap::new();
    for (origin, entries) in others {
        let mut targets = BTreeSet::new();
        for (_, _, node) in &entries {
            if let Kind::HardLink(target) = &node.kind {
                targets.insert(rules.place(merged(target)?, &origin));
            }
        }
        for (path, place, mut node) in entries {
            let place = rules.place(place, &origin);
            match &mut node.kind {
                Kind::Symlink(target) if path != place => {
                    if let Some(moved) = moved_target(&path, &place, target)? {
                        *target = moved.into();
                    }
                }
                Kind::HardLink(target) => *target = rules.place(merged(target)?, &origin),
                _ => {}
            }
            if targets.contains(&place) {
                linked.insert((origin.clone(), place.clone()), node.clone());
            }
            add(&mut tree, place, node, rules)?;
        }
    }
    settle_hard_links(&mut tree, &linked)?;
    for alias in ALIASES {
        let path = TreePath::new(alias).map_err(tree::Error::from)?;
        let expected = format!("usr/{alias}");
        match tree.get(&path) {
            Some(Node { kind: Kind::Symlink(target), .. }) if **target == *expected => {}
            Some(node) => {
                let found = match &node.kind {
                    Kind::Symlink(target) => target.to_string(),
                    kind => kind.name().to_owned(),
                };
                return Err(Error::Alias { origin: node.origin.clone(), path, found, expected });
            }
            None => tree.insert(path, Node::symlink(&expected, Origin::fix_up("merge")))?,
        }
    }
    Ok(tree)
}

fn add(tree: &mut Tree, path: TreePath, node: Node, rules: &Rules) -> Result<(), Error> {
    let Some(there) = tree.get(&path) else { return Ok(tree.insert(path, node)?) };
    let directory = there.is_directory() || node.is_directory();
    if !directory && rules.wins(&node.origin, &there.origin) {
        return Ok(tree.replace(path, node)?);
    }
    if !directory && rules.wins(&there.origin, &node.origin) {
        return Ok(());
    }
    Err(Error::Conflict {
        first: there.origin.clone(),
        first_kind: there.kind.name(),
        second: node.origin.clone(),
        second_kind: node.kind.name(),
        path,
    })
}

/// Points every hard link to a regular file of its own layer; if another layer won that path, the first of the links
/// becomes the file.
fn settle_hard_links(tree: &mut Tree, linked: &BTreeMap<(Origin, TreePath), Node>) -> Result<(), Error> {
    let links: Vec<(TreePath, TreePath, Origin)> = tree
        .iter()
        .filter_map(|(path, node)| match &node.kind {
            Kind::HardLink(target) => Some((path.clone(), target.clone(), node.origin.clone())),
            _ => None,
        })
        .collect();
    for (path, target, origin) in links {
        let error = || Error::HardLink { path: path.clone(), origin: origin.clone(), target: target.clone() };
        // A link may point to a link; an archive lists a file before its links, so the chain is no longer than the
        // archive.
        let mut end = target.clone();
        let mut file = None;
        for _ in 0..=linked.len() {
            match linked.get(&(origin.clone(), end.clone())) {
                Some(Node { kind: Kind::HardLink(next), .. }) => end = next.clone(),
                Some(node @ Node { kind: Kind::File(_), .. }) => {
                    file = Some(node);
                    break;
                }
                _ => break,
            }
        }
        let file = file.ok_or_else(error)?;
        let kept = matches!(tree.get(&end), Some(node) if node.origin == origin && node.content().is_some());
        let node = match kept {
            true => Node { kind: Kind::HardLink(end), ..file.clone() },
            false => file.clone(),
        };
        tree.replace(path, node)?;
    }
    Ok(())
}

fn is_alias(path: &TreePath) -> bool {
    ALIASES.contains(&path.as_str())
}

/// Where a path of a package lies in the merged /usr.
fn merged(path: &TreePath) -> Result<TreePath, tree::Error> {
    match path.components().next() {
        Some(first) if ALIASES.contains(&first) => Ok(TreePath::new(&format!("usr/{}", path.as_str()))?),
        _ => Ok(path.clone()),
    }
}

/// The target that preserves the meaning of a relative link moved from `from` to `to`; `None` if it need not change.
fn moved_target(from: &TreePath, to: &TreePath, target: &str) -> Result<Option<String>, tree::Error> {
    if target.starts_with('/') {
        return Ok(None);
    }
    let meant = merged(&lexical(from, target)?)?;
    if merged(&lexical(to, target)?)? == meant {
        return Ok(None);
    }
    let base: Vec<String> =
        to.parent().iter().flat_map(|path| path.components()).map(str::to_owned).collect();
    let goal: Vec<&str> = meant.components().collect();
    let shared = base.iter().zip(&goal).take_while(|(a, b)| a.as_str() == **b).count();
    let up = std::iter::repeat_n("..", base.len() - shared);
    Ok(Some(up.chain(goal.into_iter().skip(shared)).collect::<Vec<_>>().join("/")))
}

/// Resolves `target` from the directory of `link`, without following other links.
fn lexical(link: &TreePath, target: &str) -> Result<TreePath, tree::Error> {
    let mut here = link.parent().unwrap_or_else(TreePath::root);
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => here = here.parent().unwrap_or_else(TreePath::root),
            name => here = here.join(name)?,
        }
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn origin(name: &str) -> Origin {
        Origin::debian(name, "1")
    }

    fn dir(at: &str, mode: u16) -> impl Fn(&Origin) -> (TreePath, Node) {
        let at = path(at);
        move |origin| (at.clone(), Node::directory(mode, origin.clone()))
    }

    fn file(at: &str, text: &'static str) -> impl Fn(&Origin) -> (TreePath, Node) {
        let at = path(at);
        move |origin| (at.clone(), Node::file(0o644, Content::raw(text), origin.clone()))
    }

    fn link(at: &str, to: &'static str) -> impl Fn(&Origin) -> (TreePath, Node) {
        let at = path(at);
        move |origin| (at.clone(), Node::symlink(to, origin.clone()))
    }

    fn hard(at: &str, to: &str) -> impl Fn(&Origin) -> (TreePath, Node) {
        let (at, to) = (path(at), path(to));
        move |origin| {
            let node = Node::file(0o644, Content::raw(""), origin.clone());
            (at.clone(), Node { kind: Kind::HardLink(to.clone()), ..node })
        }
    }

    type Entry = Box<dyn Fn(&Origin) -> (TreePath, Node)>;

    fn layer(name: &str, entries: Vec<Entry>) -> (Origin, Layer) {
        let origin = origin(name);
        let entries = entries.iter().map(|entry| entry(&origin)).collect();
        (origin, Layer { entries, ..Layer::default() })
    }

    macro_rules! layers {
        ($($name:literal : [$($entry:expr),* $(,)?]),* $(,)?) => {
            vec![$(layer($name, vec![$(Box::new($entry) as Entry),*])),*].into_iter()
        };
    }

    fn replaces(winner: &str, loser: &str) -> Rules {
        Rules { replaces: BTreeSet::from([(winner.into(), loser.into())]), ..Rules::default() }
    }

    fn read(tree: &Tree, at: &str) -> String {
        String::from_utf8(tree.read(&path(at)).unwrap().into_owned()).unwrap()
    }

    fn target(tree: &Tree, at: &str) -> String {
        match &tree.get(&path(at)).unwrap().kind {
            Kind::Symlink(target) => target.to_string(),
            kind => kind.name().to_owned(),
        }
    }

    #[test]
    fn paths_of_the_split_usr_move_into_usr() {
        let layers = layers!(
            "a": [dir("lib", 0o755), file("lib/x", "x"), file("bin/sh", "sh"), file("usr/bin/y", "y")],
            "base-files": [link("lib", "usr/lib"), link("bin", "usr/bin"), file("lib/z", "z")],
        );
        let tree = merge(layers, &Rules::default()).unwrap();
        for (at, text) in [("usr/lib/x", "x"), ("usr/bin/sh", "sh"), ("lib/z", "z"), ("bin/y", "y")] {
            assert_eq!(read(&tree, at), text, "{at}");
        }
        assert_eq!(target(&tree, "lib"), "usr/lib");
        assert_eq!(target(&tree, "sbin"), "usr/sbin");
        assert_eq!(tree.get(&path("lib")).unwrap().origin, origin("base-files"));
    }

    #[test]
    fn a_link_that_moves_keeps_its_meaning() {
        let layers = layers!("a": [
            link("lib/x/up", "../../etc/conf"),
            link("lib/x/same", "../y"),
            link("lib/x/alias", "../../bin/tool"),
            link("bin/usr", "../usr/bin/tool"),
            link("bin/abs", "/lib/y"),
            link("usr/lib/x/stay", "../../etc/conf"),
        ]);
        let tree = merge(layers, &Rules::default()).unwrap();
        assert_eq!(target(&tree, "usr/lib/x/up"), "../../../etc/conf");
        assert_eq!(target(&tree, "usr/lib/x/same"), "../y");
        assert_eq!(target(&tree, "usr/lib/x/alias"), "../../bin/tool");
        assert_eq!(target(&tree, "usr/bin/usr"), "tool");
        assert_eq!(target(&tree, "usr/bin/abs"), "/lib/y");
        assert_eq!(target(&tree, "usr/lib/x/stay"), "../../etc/conf");
    }

    #[test]
    fn the_first_directory_keeps_its_mode_and_an_implied_one_yields() {
        let layers = layers!(
            "a": [file("var/mail/x", "x")],
            "b": [dir("var/mail", 0o2775)],
            "c": [dir("var/mail", 0o700)],
        );
        let tree = merge(layers, &Rules::default()).unwrap();
        assert_eq!(tree.get(&path("var/mail")).unwrap().mode, 0o2775);
    }

    #[test]
    fn the_root_takes_the_mode_of_the_first_layer() {
        let tree = merge(layers!("a": [dir("", 0o711)], "b": [dir("", 0o700)]), &Rules::default()).unwrap();
        assert_eq!(tree.get(&TreePath::root()).unwrap().mode, 0o711);
    }

    #[test]
    fn two_files_on_one_path_are_refused_also_across_the_merge() {
        let layers = || layers!("a": [file("lib/x", "a")], "b": [file("usr/lib/x", "b")]);
        let error = merge(layers(), &Rules::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/usr/lib/x is a regular file of deb:a=1 and a regular file of deb:b=1"
        );
        assert_eq!(read(&merge(layers(), &replaces("a", "b")).unwrap(), "lib/x"), "a");
        assert_eq!(read(&merge(layers(), &replaces("b", "a")).unwrap(), "lib/x"), "b");
    }

    #[test]
    fn a_file_or_link_on_a_directory_is_refused_even_with_replaces() {
        let both = |rules: &Rules| {
            let one = merge(layers!("a": [dir("opt/x", 0o755)], "b": [file("opt/x", "b")]), rules);
            let two = merge(layers!("b": [link("opt/x", "y")], "a": [dir("opt/x", 0o755)]), rules);
            (one, two)
        };
        for rules in [Rules::default(), replaces("b", "a"), replaces("a", "b")] {
            let (one, two) = both(&rules);
            assert!(matches!(one, Err(Error::Conflict { .. })));
            assert!(matches!(two, Err(Error::Conflict { .. })));
        }
    }

    #[test]
    fn a_diverted_path_moves_to_its_diversion() {
        let rules = Rules {
            diversions: vec![Diversion {
                path: path("usr/bin/x"),
                to: path("usr/bin/x.real"),
                by: "wrapper".into(),
            }],
            ..Rules::default()
        };
        let layers = layers!("x": [file("bin/x", "real")], "wrapper": [file("usr/bin/x", "wrapper")]);
        let tree = merge(layers, &rules).unwrap();
        assert_eq!((read(&tree, "bin/x"), read(&tree, "bin/x.real")), ("wrapper".into(), "real".into()));
    }

    #[test]
    fn hard_links_move_and_point_to_a_file() {
        let layers = layers!("a": [file("bin/a", "a"), hard("bin/b", "bin/a"), hard("usr/c", "bin/b")]);
        let tree = merge(layers, &Rules::default()).unwrap();
        for at in ["usr/bin/b", "usr/c"] {
            let node = tree.get(&path(at)).unwrap();
            assert!(matches!(&node.kind, Kind::HardLink(target) if *target == path("usr/bin/a")), "{at}");
        }
    }

    #[test]
    fn a_hard_link_keeps_its_own_bytes_when_another_package_wins_its_file() {
        let layers =
            layers!("a": [file("bin/a", "mine"), hard("bin/b", "bin/a")], "b": [file("bin/a", "other")]);
        let tree = merge(layers, &replaces("b", "a")).unwrap();
        assert_eq!((read(&tree, "bin/a"), read(&tree, "bin/b")), ("other".into(), "mine".into()));
    }

    #[test]
    fn a_hard_link_to_nothing_is_refused() {
        for layers in [
            layers!("a": [hard("usr/b", "usr/a")]),
            layers!("a": [hard("usr/a", "usr/a")]),
            layers!("a": [dir("usr/a", 0o755), hard("usr/b", "usr/a")]),
            layers!("a": [hard("usr/b", "usr/c"), hard("usr/c", "usr/b")]),
        ] {
            assert!(matches!(merge(layers, &Rules::default()), Err(Error::HardLink { .. })));
        }
    }

    #[test]
    fn an_alias_that_points_elsewhere_is_refused() {
        let error = merge(layers!("a": [link("bin", "usr/libexec")]), &Rules::default()).unwrap_err();
        assert_eq!(error.to_string(), "/bin of deb:a=1 points to \"usr/libexec\", expected \"usr/bin\"");
    }

    #[test]
    fn a_file_below_a_link_is_refused() {
        let layers = layers!("a": [link("opt/x", "y")], "b": [file("opt/x/f", "f")]);
        assert!(matches!(merge(layers, &Rules::default()), Err(Error::Tree(_))));
    }
}
