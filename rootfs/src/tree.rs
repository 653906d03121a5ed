//! Yields the in-memory tree of an image: every path, what it is, and where it comes from.
//!
//! # Shape
//! ```text
//! path -> Node { mode, uid, gid, xattrs, kind, origin }
//! ```
//! All files share one time, which is given to the writer of the image; a node has none of its own.
//! Every ancestor directory of a node is a node itself.
//!
//! # Not here
//! Reading archives (`deb`, `npm`), merging them (`merge`), writing the image (`erofs`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::content::{self, Content};
use crate::path::{self, TreePath};

/// The most links that [`Tree::resolve`] follows (Linux `MAXSYMLINKS`, `include/linux/namei.h`).
const MAX_LINKS: usize = 40;

/// Why a tree cannot be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two sources provide one path.
    #[error("{path} comes from {first} and from {second}")]
    Conflict {
        /// The path.
        path: TreePath,
        /// The first origin.
        first: Origin,
        /// The second origin.
        second: Origin,
    },
    /// A node would lie below something that is not a directory.
    #[error("{path} of {origin} lies below {parent}, which is a {kind} of {owner}, not a directory")]
    NotADirectory {
        /// The path to be added.
        path: TreePath,
        /// Who wants it.
        origin: Origin,
        /// The path above it.
        parent: TreePath,
        /// What is at that path.
        kind: &'static str,
        /// Where that comes from.
        owner: Origin,
    },
    /// The path does not exist.
    #[error("{0} is not in the image")]
    Missing(TreePath),
    /// The path is not a regular file.
    #[error("{path} is a {kind}, not a regular file")]
    NotAFile {
        /// The path.
        path: TreePath,
        /// What is at that path.
        kind: &'static str,
    },
    /// Symbolic links form a loop, or leave the image.
    #[error("the symbolic links of {0} form a loop or leave the image")]
    Loop(TreePath),
    /// The content of a file cannot be read.
    #[error("cannot read {path}")]
    Content {
        /// The path.
        path: TreePath,
        /// Why.
        source: content::Error,
    },
    /// A string is not a path.
    #[error(transparent)]
    Path(#[from] path::Error),
}

/// Where a path of the image comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A Debian package.
    Debian {
        /// Its name.
        name: Arc<str>,
        /// Its version.
        version: Arc<str>,
    },
    /// An npm package.
    Npm {
        /// Its name.
        name: Arc<str>,
        /// Its version.
        version: Arc<str>,
        /// Its location in the application, such as `node_modules/a/node_modules/b`.
        location: Arc<str>,
    },
    /// A line of a recipe.
    Recipe {
        /// The recipe's file, relative to the folder of the recipe that is built.
        file: Arc<str>,
        /// The line, from 1.
        line: u32,
    },
    /// A fix-up, by its name.
    FixUp(Arc<str>),
}

impl Origin {
    /// A Debian package.
    pub fn debian(name: &str, version: &str) -> Self {
        Origin::Debian { name: name.into(), version: version.into() }
    }

    /// A fix-up.
    pub fn fix_up(name: &str) -> Self {
        Origin::FixUp(name.into())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Debian { name, version } => write!(f, "deb:{name}={version}"),
            Origin::Npm { name, version, location } => write!(f, "npm:{name}@{version} ({location})"),
            Origin::Recipe { file, line } => write!(f, "recipe:{file}:{line}"),
            Origin::FixUp(name) => write!(f, "fix-up:{name}"),
        }
    }
}

/// What a path is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target, as written.
    Symlink(Box<str>),
    /// Another name of a regular file.
    HardLink(TreePath),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl Kind {
    /// The name of the kind, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Directory => "directory",
            Kind::File(_) => "regular file",
            Kind::Symlink(_) => "symbolic link",
            Kind::HardLink(_) => "hard link",
            Kind::CharDevice { .. } => "character device",
            Kind::BlockDevice { .. } => "block device",
            Kind::Fifo => "named pipe",
        }
    }
}

/// One path of the image.
#[derive(Debug, Clone)]
pub struct Node {
    /// Permissions: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes by their full name, such as `security.capability`.
    pub xattrs: BTreeMap<Box<str>, Box<[u8]>>,
    /// What it is.
    pub kind: Kind,
    /// Where it comes from.
    pub origin: Origin,
}

impl Node {
    fn plain(mode: u16, kind: Kind, origin: Origin) -> Self {
        Node { mode: mode & 0o7777, uid: 0, gid: 0, xattrs: BTreeMap::new(), kind, origin }
    }

    /// A directory owned by root.
    pub fn directory(mode: u16, origin: Origin) -> Self {
        Node::plain(mode, Kind::Directory, origin)
    }

    /// A regular file owned by root.
    pub fn file(mode: u16, content: Content, origin: Origin) -> Self {
        Node::plain(mode, Kind::File(content), origin)
    }

    /// A symbolic link to `target`, as written, owned by root.
    pub fn symlink(target: &str, origin: Origin) -> Self {
        Node::plain(0o777, Kind::Symlink(target.into()), origin)
    }

    /// The same node with another owner and group.
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }

    /// Its content, if it is a regular file.
    pub fn content(&self) -> Option<&Content> {
        match &self.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }
}

/// Every path of an image.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: BTreeMap<TreePath, Node>,
}

impl Tree {
    /// Makes a tree that holds only its root directory, mode 0755.
    pub fn new(origin: Origin) -> Self {
        Tree { nodes: BTreeMap::from([(TreePath::root(), Node::directory(0o755, origin))]) }
    }

    /// The node at exactly this path; links are not followed.
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The node at exactly this path, mutable. A directory must stay a directory; use [`Tree::replace`] or
    /// [`Tree::remove`] for other changes.
    pub fn edit(&mut self, path: &TreePath) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// All nodes in the order of their paths.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    /// All nodes in the order of their paths, mutable as by [`Tree::edit`].
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&TreePath, &mut Node)> {
        self.nodes.iter_mut()
    }

    /// Number of paths, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the tree holds only its root.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// The entries of `directory`, by name.
    pub fn children<'a>(
        &'a self,
        directory: &TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, &'a Node)> + use<'a> {
        let depth = directory.components().count() + 1;
        self.below(directory).filter(move |(path, _)| path.components().count() == depth)
    }

    /// Everything below `directory`, excluding itself, in the order of paths.
    pub fn below<'a>(
        &'a self,
        directory: &TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, &'a Node)> + use<'a> {
        let first = if directory.is_root() { String::new() } else { format!("{}/", directory.as_str()) };
        self.nodes
            .range::<str, _>((std::ops::Bound::Excluded(first.as_str()), std::ops::Bound::Unbounded))
            .take_while({
                let first = first.clone();
                move |(path, _)| path.as_str().starts_with(&first)
            })
    }

    /// Adds a node, and its missing parent directories with mode 0755 and its origin. Adding a directory where one
    /// exists changes nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the path is taken, [`Error::NotADirectory`] if an ancestor is not a directory.
    pub fn insert(&mut self, path: TreePath, node: Node) -> Result<(), Error> {
        match self.nodes.get(&path) {
            Some(there) if there.is_directory() && node.is_directory() => Ok(()),
            Some(there) => Err(Error::Conflict { path, first: there.origin.clone(), second: node.origin }),
            None => self.place(path, node),
        }
    }

    /// Replaces whatever is at the path; unless both are directories, everything below the path is removed.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] if an ancestor is not a directory.
    pub fn replace(&mut self, path: TreePath, node: Node) -> Result<(), Error> {
        if !node.is_directory() {
            self.remove(&path);
        }
        self.place(path, node)
    }

    fn place(&mut self, path: TreePath, node: Node) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut above = path.parent();
        while let Some(parent) = above {
            match self.nodes.get(&parent) {
                Some(there) if there.is_directory() => break,
                Some(there) => {
                    return Err(Error::NotADirectory {
                        path,
                        origin: node.origin,
                        kind: there.kind.name(),
                        owner: there.origin.clone(),
                        parent,
                    });
                }
                None => {
                    above = parent.parent();
                    missing.push(parent);
                }
            }
        }
        for parent in missing {
            self.nodes.insert(parent, Node::directory(0o755, node.origin.clone()));
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Removes a path and everything below it; returns the number of paths removed.
    pub fn remove(&mut self, path: &TreePath) -> usize {
        let mut gone: Vec<TreePath> = self.below(path).map(|(path, _)| path.clone()).collect();
        gone.push(path.clone());
        gone.iter().filter(|path| !path.is_root() && self.nodes.remove(*path).is_some()).count()
    }

    /// Resolves all symbolic links in `path`, inside the image.
    ///
    /// # Errors
    /// [`Error::Missing`] if the path does not exist, [`Error::Loop`] if links form a loop.
    pub fn resolve(&self, path: &TreePath) -> Result<TreePath, Error> {
        let mut todo: Vec<String> = path.components().rev().map(str::to_owned).collect();
        let mut here = TreePath::root();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    here = here.parent().unwrap_or_else(TreePath::root);
                    continue;
                }
                _ => {}
            }
            let next = here.join(&part)?;
            match self.nodes.get(&next).map(|node| &node.kind) {
                Some(Kind::Symlink(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::Loop(path.clone()));
                    }
                    if target.starts_with('/') {
                        here = TreePath::root();
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                }
                Some(_) => here = next,
                None => return Err(Error::Missing(next)),
            }
        }
        Ok(here)
    }

    /// The content of the regular file that `path` names, links followed.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Loop`], or [`Error::NotAFile`].
    pub fn content(&self, path: &TreePath) -> Result<&Content, Error> {
        let mut place = self.resolve(path)?;
        if let Some(Kind::HardLink(target)) = self.nodes.get(&place).map(|node| &node.kind) {
            place = target.clone();
        }
        match self.nodes.get(&place) {
            Some(Node { kind: Kind::File(content), .. }) => Ok(content),
            Some(node) => Err(Error::NotAFile { path: place, kind: node.kind.name() }),
            None => Err(Error::Missing(place)),
        }
    }

    /// The bytes of the regular file that `path` names, links followed.
    ///
    /// # Errors
    /// As [`Tree::content`], and [`Error::Content`] when its bytes are damaged.
    pub fn read(&self, path: &TreePath) -> Result<Cow<'_, [u8]>, Error> {
        self.content(path)?.read().map_err(|source| Error::Content { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn origin(name: &str) -> Origin {
        Origin::debian(name, "1")
    }

    fn file(name: &str) -> Node {
        Node::file(0o644, Content::raw(name.as_bytes()), origin(name))
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(Origin::fix_up("base"));
        tree.insert(path("usr/lib/a"), file("a")).unwrap();
        tree.insert(path("usr/lib-x"), file("x")).unwrap();
        tree.insert(path("usr/lib/b/c"), file("c")).unwrap();
        tree.insert(path("lib"), Node::symlink("usr/lib", origin("base"))).unwrap();
        tree
    }

    #[test]
    fn missing_directories_are_made_with_the_origin_of_what_needs_them() {
        let tree = tree();
        let node = tree.get(&path("usr/lib/b")).unwrap();
        assert!(node.is_directory());
        assert_eq!((node.mode, &node.origin), (0o755, &origin("c")));
    }

    #[test]
    fn two_sources_of_one_path_conflict_and_the_error_names_both() {
        let error = tree().insert(path("usr/lib/a"), file("other")).unwrap_err();
        assert_eq!(error.to_string(), "/usr/lib/a comes from deb:a=1 and from deb:other=1");
        assert!(tree().insert(path("usr/lib"), file("f")).is_err());
        assert!(tree().insert(path("usr/lib"), Node::directory(0o700, origin("d"))).is_ok());
    }

    #[test]
    fn nothing_lies_below_a_file() {
        let error = tree().insert(path("usr/lib/a/deeper/b"), file("b")).unwrap_err();
        assert!(
            matches!(&error, Error::NotADirectory { parent, .. } if *parent == path("usr/lib/a")),
            "{error}"
        );
        assert!(matches!(tree().insert(path("lib/b"), file("b")), Err(Error::NotADirectory { .. })));
    }

    #[test]
    fn children_and_below_stay_inside_their_directory() {
        let tree = tree();
        let names = |nodes: Vec<(&TreePath, &Node)>| -> Vec<String> {
            nodes.iter().map(|(path, _)| path.as_str().to_owned()).collect()
        };
        assert_eq!(names(tree.children(&path("usr")).collect()), ["usr/lib", "usr/lib-x"]);
        assert_eq!(names(tree.below(&path("usr/lib")).collect()), ["usr/lib/a", "usr/lib/b", "usr/lib/b/c"]);
        assert_eq!(names(tree.children(&TreePath::root()).collect()), ["lib", "usr"]);
        assert_eq!(tree.below(&TreePath::root()).count(), tree.len() - 1);
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        let mut tree = tree();
        tree.insert(path("etc/up"), Node::symlink("../../../lib/a", origin("l"))).unwrap();
        tree.insert(path("etc/here"), Node::symlink("/etc/up", origin("l"))).unwrap();
        assert_eq!(tree.resolve(&path("etc/here")).unwrap(), path("usr/lib/a"));
        assert_eq!(&*tree.read(&path("etc/here")).unwrap(), b"a");
        tree.insert(path("etc/loop"), Node::symlink("loop", origin("l"))).unwrap();
        assert_eq!(tree.resolve(&path("etc/loop")), Err(Error::Loop(path("etc/loop"))));
        assert_eq!(tree.resolve(&path("lib/none")), Err(Error::Missing(path("usr/lib/none"))));
        assert!(matches!(tree.read(&path("lib")), Err(Error::NotAFile { kind: "directory", .. })));
    }

    #[test]
    fn a_hard_link_reads_as_its_file() {
        let mut tree = tree();
        let link = Node { kind: Kind::HardLink(path("usr/lib/a")), ..file("link") };
        tree.insert(path("usr/link"), link).unwrap();
        assert_eq!(&*tree.read(&path("usr/link")).unwrap(), b"a");
    }

    #[test]
    fn replacing_a_directory_by_a_file_removes_what_was_below() {
        let mut tree = tree();
        tree.replace(path("usr/lib"), file("new")).unwrap();
        assert!(tree.get(&path("usr/lib/a")).is_none());
        assert!(tree.get(&path("usr/lib-x")).is_some());
        assert_eq!(tree.remove(&path("usr")), 3);
        assert_eq!(tree.remove(&path("usr")), 0);
        assert_eq!(tree.remove(&TreePath::root()), 1);
        assert!(tree.is_empty());
    }
}
