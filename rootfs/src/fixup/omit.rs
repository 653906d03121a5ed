//! Yields a tree without what its recipe omits, and how much each rule took.
//!
//! # Shape
//! ```text
//! rule: ["usr/share/doc", "!usr/share/doc/*/copyright"], "nobody reads it here"
//! ```
//! A glob takes a path and, when it is a directory, all below it; `*` stays in a directory, `**` does not. A glob
//! after `!` keeps what it fits. Directories that become empty because of it go too. The first rule that takes a path
//! counts it.
//!
//! # Not here
//! Which rules there are: the recipe says.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::path::TreePath;
use crate::tree::{self, Kind, Tree};

/// Why a tree cannot be pruned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A glob that is none.
    #[error("omit glob {glob:?} is not valid: {reason}")]
    Glob {
        /// The glob.
        glob: String,
        /// Why.
        reason: String,
    },
    /// A rule that takes nothing by its form.
    #[error("omit rule {0:?} has no glob that takes anything")]
    Empty(String),
    /// The tree cannot be changed.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// What shall go, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Globs over paths, without their leading slash; after `!`: what is kept.
    pub globs: Vec<String>,
    /// Why nobody misses it.
    pub reason: String,
}

/// What one rule took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Paths that are no directories; 0 tells that the rule fits nothing any more.
    pub paths: usize,
    /// Bytes of the regular files among them.
    pub bytes: u64,
}

fn globs<'g>(texts: impl Iterator<Item = &'g str>) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for text in texts {
        let wrong = |error: globset::Error| Error::Glob { glob: text.to_owned(), reason: error.to_string() };
        let plain = text.trim_start_matches('/').trim_end_matches('/');
        set.add(GlobBuilder::new(plain).literal_separator(true).build().map_err(wrong)?);
    }
    set.build().map_err(|error| Error::Glob { glob: String::new(), reason: error.to_string() })
}

/// Takes what `rules` name out of the tree; gives what each took, in their order.
///
/// # Errors
/// [`Error::Glob`], [`Error::Empty`].
pub fn omit(tree: &mut Tree, rules: &[Rule]) -> Result<Vec<Count>, Error> {
    let mut sets = Vec::new();
    for rule in rules {
        let taken = rule.globs.iter().filter(|glob| !glob.starts_with('!')).map(String::as_str);
        if taken.clone().next().is_none() {
            return Err(Error::Empty(rule.reason.clone()));
        }
        sets.push((globs(taken)?, globs(rule.globs.iter().filter_map(|glob| glob.strip_prefix('!')))?));
    }
    let mut counts = vec![Count::default(); rules.len()];
    // For each directory, the rules that take all below it.
    let mut whole: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    let mut gone: Vec<TreePath> = Vec::new();
    for (path, node) in tree.iter() {
        let above = path.as_str().rsplit_once('/').map_or("", |(above, _)| above);
        let inherited = whole.get(above);
        let taken: Vec<bool> = sets
            .iter()
            .enumerate()
            .map(|(rule, (take, _))| {
                inherited.and_then(|list| list.get(rule)).copied().unwrap_or(false)
                    || take.is_match(path.as_str())
            })
            .collect();
        let rule =
            taken.iter().zip(&sets).position(|(taken, (_, keep))| *taken && !keep.is_match(path.as_str()));
        if node.is_directory() {
            // An empty directory that fits goes as well; one that is not empty is judged by what is in it.
            if rule.is_some() && tree.below(path).next().is_none() {
                gone.push(path.clone());
            }
            whole.insert(path.as_str(), taken);
        } else if let Some(rule) = rule {
            if let Some(count) = counts.get_mut(rule) {
                count.paths += 1;
                count.bytes += node.content().map_or(0, |content| content.len());
            }
            gone.push(path.clone());
        }
    }
    hand_over(tree, &gone)?;
    for path in &gone {
        tree.remove(path);
        let mut above = path.parent();
        while let Some(directory) = above.filter(|directory| !directory.is_root()) {
            if tree.below(&directory).next().is_some() {
                break;
            }
            tree.remove(&directory);
            above = directory.parent();
        }
    }
    Ok(counts)
}

/// Makes the first hard link that stays the file, where the file goes.
fn hand_over(tree: &mut Tree, gone: &[TreePath]) -> Result<(), Error> {
    let mut heirs: BTreeMap<TreePath, Vec<TreePath>> = BTreeMap::new();
    for (path, node) in tree.iter() {
        if let Kind::HardLink(target) = &node.kind
            && gone.binary_search(path).is_err()
            && gone.binary_search(target).is_ok()
        {
            heirs.entry(target.clone()).or_default().push(path.clone());
        }
    }
    for (target, links) in heirs {
        let Some(file) = tree.get(&target).map(|node| node.kind.clone()) else { continue };
        let mut links = links.into_iter();
        let Some(heir) = links.next() else { continue };
        if let Some(node) = tree.edit(&heir) {
            node.kind = file;
        }
        for link in links {
            if let Some(node) = tree.edit(&link) {
                node.kind = Kind::HardLink(heir.clone());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::tree::{Node, Origin};

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn tree() -> Tree {
        let origin = || Origin::debian("p", "1");
        let mut tree = Tree::new(origin());
        for name in [
            "usr/share/doc/a/copyright",
            "usr/share/doc/a/NEWS.gz",
            "usr/share/doc/b/README",
            "usr/share/docs/keep",
            "usr/share/man/man1/x.1.gz",
            "usr/lib/hwdb.d/20-a.hwdb",
            "usr/lib/hwdb.d/20-a.conf",
        ] {
            tree.insert(path(name), Node::file(0o644, Content::raw("four"), origin())).unwrap();
        }
        tree.insert(path("usr/share/doc/empty"), Node::directory(0o755, origin())).unwrap();
        tree.insert(path("var/empty"), Node::directory(0o755, origin())).unwrap();
        tree
    }

    fn rule(globs: &[&str]) -> Rule {
        Rule { globs: globs.iter().map(|glob| (*glob).to_owned()).collect(), reason: "small".into() }
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.iter().filter(|(_, node)| !node.is_directory()).map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn a_rule_takes_what_it_names_and_all_below_but_what_it_keeps() {
        let mut tree = tree();
        let rules = [
            rule(&["/usr/share/doc/", "!usr/share/doc/*/copyright"]),
            rule(&["usr/share/man/**"]),
            rule(&["usr/lib/**/*.hwdb"]),
            rule(&["usr/share/doc/a/NEWS.gz", "nowhere"]),
        ];
        let counts = omit(&mut tree, &rules).unwrap();
        let numbers: Vec<(usize, u64)> = counts.iter().map(|count| (count.paths, count.bytes)).collect();
        assert_eq!(numbers, [(2, 8), (1, 4), (1, 4), (0, 0)]);
        assert_eq!(
            paths(&tree),
            ["usr/lib/hwdb.d/20-a.conf", "usr/share/doc/a/copyright", "usr/share/docs/keep"]
        );
        for gone in ["usr/share/man", "usr/share/doc/b", "usr/share/doc/empty"] {
            assert!(tree.get(&path(gone)).is_none(), "{gone}");
        }
        assert!(tree.get(&path("var/empty")).is_some());
    }

    #[test]
    fn a_hard_link_outlives_the_file_that_it_was_a_name_of() {
        let mut tree = tree();
        for link in ["usr/keep/one", "usr/keep/two"] {
            let node = tree.get(&path("usr/share/man/man1/x.1.gz")).unwrap().clone();
            let node = Node { kind: Kind::HardLink(path("usr/share/man/man1/x.1.gz")), ..node };
            tree.insert(path(link), node).unwrap();
        }
        omit(&mut tree, &[rule(&["usr/share/man"])]).unwrap();
        assert_eq!(&*tree.read(&path("usr/keep/one")).unwrap(), b"four");
        assert!(matches!(&tree.get(&path("usr/keep/two")).unwrap().kind,
            Kind::HardLink(to) if *to == path("usr/keep/one")));
    }

    #[test]
    fn rules_that_are_none_are_refused() {
        assert!(matches!(omit(&mut tree(), &[rule(&["a/["])]), Err(Error::Glob { .. })));
        assert_eq!(omit(&mut tree(), &[rule(&["!a"])]), Err(Error::Empty("small".into())));
    }
}
