//! Yields the commands that several packages provide, as plain relative links, from the recipe's declarations and
//! Debian's.
//!
//! # Shape
//! ```text
//! /usr/bin/awk -> mawk         (Debian: /usr/bin/awk -> /etc/alternatives/awk -> /usr/bin/mawk)
//! ```
//!
//! # Source
//! `update-alternatives(1)`; the built-in table: the postinst scripts of trixie's packages.
//!
//! # Not here
//! `/etc/alternatives` and the state of dpkg: an alternative of a read-only image never changes.

use crate::path::{self, TreePath};
use crate::tree::{self, Kind, Node, Origin, Tree};

/// Why an alternative cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The target of a declared link does not exist.
    #[error("alternative {name}: {target} is not in the image")]
    NoTarget {
        /// The alternative.
        name: String,
        /// Its target.
        target: TreePath,
    },
    /// The path of a declared link is taken.
    #[error("alternative {name}: {link} already exists as a {kind} of {owner}")]
    Taken {
        /// The alternative.
        name: String,
        /// The path of the link.
        link: TreePath,
        /// What is at that path.
        kind: &'static str,
        /// Where it comes from.
        owner: Origin,
    },
    /// The recipe declares one twice.
    #[error("alternative {0} is declared twice")]
    Twice(String),
    /// The tree cannot be read or changed.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A string is not a path.
    #[error(transparent)]
    Path(#[from] path::Error),
}

/// An additional link of an alternative, such as its manual page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slave {
    /// The path of the link.
    pub link: TreePath,
    /// Its target; if it does not exist, the link is left out.
    pub target: TreePath,
}

/// What a recipe declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// Its name, such as `awk`.
    pub name: String,
    /// The path of the link, such as `/usr/bin/awk`.
    pub link: TreePath,
    /// Its target, such as `/usr/bin/mawk`.
    pub target: TreePath,
    /// Links that go with it.
    pub slaves: Vec<Slave>,
    /// Where it is declared.
    pub origin: Origin,
}

/// Name, link, target, and slaves (link and target), highest priority first. The manual page of a command is a slave
/// too.
type Known = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

/// What trixie's packages register, by descending priority.
const KNOWN: [Known; 16] = [
    ("awk", "usr/bin/awk", "usr/bin/gawk", &[("usr/bin/nawk", "usr/bin/gawk")]),
    ("awk", "usr/bin/awk", "usr/bin/mawk", &[("usr/bin/nawk", "usr/bin/mawk")]),
    ("awk", "usr/bin/awk", "usr/bin/original-awk", &[("usr/bin/nawk", "usr/bin/original-awk")]),
    ("editor", "usr/bin/editor", "bin/nano", &[]),
    ("editor", "usr/bin/editor", "usr/bin/vim.basic", &[]),
    ("editor", "usr/bin/editor", "usr/bin/nvi", &[]),
    ("editor", "usr/bin/editor", "usr/bin/vim.tiny", &[]),
    ("mt", "usr/bin/mt", "usr/bin/mt-gnu", &[]),
    ("nc", "usr/bin/nc", "usr/bin/nc.openbsd", &[("usr/bin/netcat", "usr/bin/nc.openbsd")]),
    ("pager", "usr/bin/pager", "usr/bin/less", &[]),
    ("pager", "usr/bin/pager", "usr/bin/more", &[]),
    ("rmt", "usr/sbin/rmt", "usr/sbin/rmt-tar", &[]),
    ("vi", "usr/bin/vi", "usr/bin/vim.basic", &[("usr/bin/view", "usr/bin/vim.basic")]),
    ("vi", "usr/bin/vi", "usr/bin/nvi", &[("usr/bin/view", "usr/bin/nview"), ("usr/bin/ex", "usr/bin/nex")]),
    ("vi", "usr/bin/vi", "usr/bin/vim.tiny", &[("usr/bin/view", "usr/bin/vim.tiny")]),
    ("which", "usr/bin/which", "usr/bin/which.debianutils", &[]),
];

/// Makes the links that the recipe declares, then those that Debian's packages would register for other names; returns
/// the new links.
///
/// # Errors
/// [`Error`] if a declared target is missing, or the path of its link is taken.
pub fn apply(tree: &mut Tree, declared: &[Alternative]) -> Result<Vec<TreePath>, Error> {
    let mut made = Vec::new();
    for (index, alternative) in declared.iter().enumerate() {
        let Alternative { name, link, target, slaves, origin } = alternative;
        if declared.iter().take(index).any(|other| other.name == *name || other.link == *link) {
            return Err(Error::Twice(name.clone()));
        }
        if tree.resolve(target).is_err() {
            return Err(Error::NoTarget { name: name.clone(), target: target.clone() });
        }
        let links =
            std::iter::once((link, target)).chain(slaves.iter().map(|slave| (&slave.link, &slave.target)));
        for (link, target) in links.filter(|(_, target)| tree_has(tree, target)).collect::<Vec<_>>() {
            // A package's own link is replaced; anything else is not.
            if let Some(there) = tree.get(&place(tree, link)?)
                && !matches!(there.kind, Kind::Symlink(_))
            {
                let (kind, owner) = (there.kind.name(), there.origin.clone());
                return Err(Error::Taken { name: name.clone(), link: link.clone(), kind, owner });
            }
            made.push(set(tree, link, target, origin.clone())?);
        }
    }
    for (name, link, target, slaves) in KNOWN {
        if declared.iter().any(|alternative| alternative.name == name) {
            continue;
        }
        let manual = |command: &str| {
            format!("usr/share/man/man1/{}.1.gz", command.rsplit('/').next().unwrap_or(command))
        };
        let mut links: Vec<(String, String)> = Vec::new();
        for (link, target) in std::iter::once(&(link, target)).chain(slaves) {
            links.push(((*link).to_owned(), (*target).to_owned()));
            links.push((manual(link), manual(target)));
        }
        for (index, (link, target)) in links.into_iter().enumerate() {
            let (link, target) = (TreePath::new(&link)?, TreePath::new(&target)?);
            let free = tree.get(&place(tree, &link)?).is_none();
            if tree_has(tree, &target) && free {
                made.push(set(tree, &link, &target, Origin::fix_up("alternatives"))?);
            } else if index == 0 {
                break;
            }
        }
    }
    Ok(made)
}

fn tree_has(tree: &Tree, target: &TreePath) -> bool {
    tree.resolve(target).is_ok()
}

/// Resolves the links in the parent directories of a path (`/bin` is `/usr/bin`).
fn place(tree: &Tree, path: &TreePath) -> Result<TreePath, Error> {
    let above = path.parent().unwrap_or_else(TreePath::root);
    match tree.resolve(&above) {
        Ok(above) => Ok(above.join(path.name())?),
        Err(tree::Error::Missing(_)) => Ok(path.clone()),
        Err(error) => Err(error.into()),
    }
}

fn set(tree: &mut Tree, link: &TreePath, target: &TreePath, origin: Origin) -> Result<TreePath, Error> {
    let (link, target) = (place(tree, link)?, place(tree, target)?);
    tree.replace(link.clone(), Node::symlink(&relative(&link, &target), origin))?;
    Ok(link)
}

/// The text of a relative link at `link` that points to `target`.
fn relative(link: &TreePath, target: &TreePath) -> String {
    let from: Vec<&str> = link.components().collect();
    let to: Vec<&str> = target.components().collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let common = common.min(from.len().saturating_sub(1)).min(to.len().saturating_sub(1));
    let up = from.len().saturating_sub(common + 1);
    let parts = std::iter::repeat_n("..", up).chain(to.into_iter().skip(common));
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn tree() -> Tree {
        let origin = || Origin::debian("p", "1");
        let mut tree = Tree::new(origin());
        for name in
            ["usr/bin/mawk", "usr/bin/more", "usr/bin/less", "usr/bin/bash", "usr/share/man/man1/mawk.1.gz"]
        {
            tree.insert(path(name), Node::file(0o755, Content::raw(""), origin())).unwrap();
        }
        tree.insert(path("bin"), Node::symlink("usr/bin", origin())).unwrap();
        tree
    }

    fn declared(name: &str, link: &str, target: &str) -> Alternative {
        let origin = Origin::Recipe { file: "recipe.toml".into(), line: 1 };
        Alternative { name: name.into(), link: path(link), target: path(target), slaves: vec![], origin }
    }

    fn target(tree: &Tree, link: &str) -> Option<String> {
        match &tree.get(&path(link))?.kind {
            Kind::Symlink(target) => Some(target.to_string()),
            _ => None,
        }
    }

    #[test]
    fn the_best_one_present_is_taken_with_its_manual_page() {
        let mut tree = tree();
        apply(&mut tree, &[]).unwrap();
        assert_eq!(target(&tree, "usr/bin/awk").as_deref(), Some("mawk"));
        assert_eq!(target(&tree, "usr/bin/nawk").as_deref(), Some("mawk"));
        assert_eq!(target(&tree, "usr/share/man/man1/awk.1.gz").as_deref(), Some("mawk.1.gz"));
        assert_eq!(target(&tree, "usr/bin/pager").as_deref(), Some("less"));
        assert_eq!(target(&tree, "usr/bin/vi"), None);
    }

    #[test]
    fn what_the_recipe_declares_wins_and_links_are_relative() {
        let mut tree = tree();
        let mut sh = declared("sh", "/opt/x/sh", "/bin/bash");
        sh.slaves.push(Slave { link: path("opt/gone"), target: path("opt/none") });
        apply(&mut tree, &[sh, declared("pager", "/bin/pager", "/usr/bin/more")]).unwrap();
        assert_eq!(target(&tree, "opt/x/sh").as_deref(), Some("../../usr/bin/bash"));
        assert_eq!(target(&tree, "usr/bin/pager").as_deref(), Some("more"));
        assert!(tree.get(&path("opt/gone")).is_none());
    }

    #[test]
    fn an_alternative_without_target_or_with_a_taken_path_is_refused() {
        let refused = |list: &[Alternative]| apply(&mut tree(), list).unwrap_err();
        let error = refused(&[declared("vi", "/usr/bin/vi", "/usr/bin/vim")]);
        assert_eq!(error.to_string(), "alternative vi: /usr/bin/vim is not in the image");
        let error = refused(&[declared("sh", "/bin/less", "/bin/bash")]);
        assert_eq!(
            error.to_string(),
            "alternative sh: /bin/less already exists as a regular file of deb:p=1"
        );
        let twice = declared("sh", "/bin/sh", "/bin/bash");
        assert_eq!(refused(&[twice.clone(), twice]), Error::Twice("sh".into()));
    }

    #[test]
    fn a_link_within_one_directory_is_a_bare_name() {
        assert_eq!(relative(&path("a/b"), &path("a/c")), "c");
        assert_eq!(relative(&path("a"), &path("b/c")), "b/c");
        assert_eq!(relative(&path("a/b/c"), &path("a/d")), "../d");
    }
}
