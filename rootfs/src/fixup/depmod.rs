//! Yields the index of kernel modules for modprobe and udev, and the modules that a recipe asks for, from the modules
//! of the tree.
//!
//! # Shape
//! ```text
//! usr/lib/modules/VERSION/**/*.ko{,.xz,.zst} -> modules.{dep,alias,symbols}{,.bin}, .softdep, .weakdep, .devname
//! modules.builtin, modules.builtin.modinfo   -> modules.builtin.bin, modules.builtin.alias.bin
//! ```
//! A `.bin` is a trie: magic B007F457, version 00020001, offset of the root, then the nodes in pre-order, big-endian.
//! A node: its prefix NUL, first and last byte and an offset u32 for each child between, values (count u32; each:
//! priority u32, text NUL). The three high bits of an offset tell which of these a node has.
//!
//! # Source
//! kmod 34: the comment at the head of `libkmod/libkmod-index.c`, and the order of lines of `tools/depmod.c`, which
//! follows `modules.order`, then its hash tables. Equal to the bytes of trixie's depmod
//! (`tests/tests/fixup_b_reference.rs`).
//!
//! # Not here
//! `depmod.d`: it chooses between modules with one name, which are refused here.

mod alias;
mod index;
mod selection;
mod trie;

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::content::Content;
use crate::fixup::module::{self, Module, Packing, normal_name};
use crate::path::{self, TreePath};
use crate::tree::{self, Kind, Node, Origin, Tree};

use alias::aliases_of_builtin;
use index::Index;
pub use selection::Selection;

/// Why the modules cannot be indexed or chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There are no modules of this kernel.
    #[error("{0} holds no kernel modules")]
    NoModules(TreePath),
    /// Two files have the same module name.
    #[error("module {name} is both {first} and {second}")]
    Duplicate {
        /// The module.
        name: String,
        /// One file.
        first: TreePath,
        /// The other.
        second: TreePath,
    },
    /// A module is damaged.
    #[error("cannot read the module {path}")]
    Module {
        /// Its file.
        path: TreePath,
        /// Why.
        source: module::Error,
    },
    /// There is no such module.
    #[error("the kernel has no module {name}{}", near_misses(near))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Similar names.
        near: Vec<String>,
    },
    /// A module is built into the kernel and has no file to load.
    #[error("{0} is built into the kernel, so there is no module to load")]
    BuiltIn(String),
    /// A module depends on one that has no file and is not built in.
    #[error("module {name} depends on {missing}, which does not exist")]
    MissingDependency {
        /// The module.
        name: String,
        /// Its dependency.
        missing: String,
    },
    /// Modules that depend on each other.
    #[error("modules depend on each other in a cycle: {}", .0.join(", "))]
    Cycle(Vec<String>),
    /// An invalid pattern.
    #[error("invalid module pattern {0:?}")]
    Pattern(String),
    /// A string that the index cannot hold.
    #[error("module index: {0:?} is not ASCII")]
    NotAscii(String),
    /// The tree cannot be read or changed.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A string is not a path.
    #[error(transparent)]
    Path(#[from] path::Error),
}

fn near_misses(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (there is {})", near.join(", ")) }
}

/// The modules of one kernel; each file is read when first needed.
#[derive(Debug)]
pub struct Modules {
    directory: TreePath,
    files: BTreeMap<String, (TreePath, Packing)>,
    read: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
    builtin_aliases: BTreeMap<String, String>,
}

impl Modules {
    /// Lists the modules of the kernel `version`, without reading them.
    ///
    /// # Errors
    /// [`Error::NoModules`], [`Error::Duplicate`].
    pub fn open(tree: &Tree, version: &str) -> Result<Self, Error> {
        let directory = TreePath::new("usr/lib/modules")?.join(version)?;
        let mut files: BTreeMap<String, (TreePath, Packing)> = BTreeMap::new();
        for (path, node) in tree.below(&directory) {
            if !matches!(node.kind, Kind::File(_) | Kind::HardLink(_) | Kind::Symlink(_)) {
                continue;
            }
            let Some((name, packing)) = Packing::of(path.name()) else { continue };
            let mut inside = path.components().skip(directory.components().count());
            if inside.any(|part| part == "build" || part == "source") {
                continue;
            }
            if let Some((first, _)) = files.insert(name.clone(), (path.clone(), packing)) {
                return Err(Error::Duplicate { name, first, second: path.clone() });
            }
        }
        if files.is_empty() {
            return Err(Error::NoModules(directory));
        }
        let text = |name| -> Result<String, Error> {
            let bytes = match tree.read(&directory.join(name)?) {
                Ok(bytes) => bytes,
                Err(tree::Error::Missing(_)) => return Ok(String::new()),
                Err(error) => return Err(error.into()),
            };
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let builtin = text("modules.builtin")?
            .lines()
            .filter(|line| line.starts_with(|first: char| first.is_ascii_alphabetic()))
            .map(|line| normal_name(line.rsplit('/').next().unwrap_or("")))
            .collect();
        let mut builtin_aliases = BTreeMap::new();
        for (name, alias) in aliases_of_builtin(&text("modules.builtin.modinfo")?) {
            builtin_aliases.insert(alias, name);
        }
        Ok(Modules { directory, files, read: BTreeMap::new(), builtin, builtin_aliases })
    }

    /// The names of all modules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The file of a module.
    pub fn path(&self, name: &str) -> Option<&TreePath> {
        self.files.get(name).map(|(path, _)| path)
    }

    /// Reads those of `names` that are not read yet, in parallel.
    fn need<'n>(&mut self, tree: &Tree, names: impl Iterator<Item = &'n str>) -> Result<(), Error> {
        let missing: Vec<(&String, &(TreePath, Packing))> = names
            .filter(|name| !self.read.contains_key(*name))
            .filter_map(|name| self.files.get_key_value(name))
            .collect();
        let read: Vec<(String, Module)> = missing
            .into_par_iter()
            .with_max_len(1)
            .map(|(name, (path, packing))| {
                let bytes = tree.read(path)?;
                let module = Module::read(&bytes, *packing)
                    .map_err(|source| Error::Module { path: path.clone(), source })?;
                Ok((name.clone(), module))
            })
            .collect::<Result<_, Error>>()?;
        self.read.extend(read);
        Ok(())
    }

    fn need_all(&mut self, tree: &Tree) -> Result<(), Error> {
        let names: Vec<String> = self.files.keys().cloned().collect();
        self.need(tree, names.iter().map(String::as_str))
    }

    /// Removes the modules that are not in `keep` from the tree, with the directories that become empty; returns how
    /// many modules it removed.
    pub fn retain(&mut self, tree: &mut Tree, keep: &BTreeSet<String>) -> usize {
        let gone: Vec<String> = self.files.keys().filter(|name| !keep.contains(*name)).cloned().collect();
        for name in &gone {
            self.read.remove(name);
            let Some((path, _)) = self.files.remove(name) else { continue };
            tree.remove(&path);
            let mut above = path.parent();
            while let Some(directory) = above.filter(|directory| *directory != self.directory) {
                if tree.below(&directory).next().is_some() {
                    break;
                }
                tree.remove(&directory);
                above = directory.parent();
            }
        }
        gone.len()
    }

    /// Writes the index of all modules into the tree.
    ///
    /// # Errors
    /// [`Error::Module`], [`Error::Cycle`], [`Error::NotAscii`].
    pub fn index(&mut self, tree: &mut Tree) -> Result<(), Error> {
        self.need_all(tree)?;
        let order = self.order(tree)?;
        let files = Index::new(self, &order)?.files(tree, &self.directory)?;
        for (name, bytes) in files {
            let node = Node::file(0o644, Content::raw(bytes), Origin::fix_up("depmod"));
            tree.replace(self.directory.join(name)?, node)?;
        }
        Ok(())
    }
}

/// Writes the index of the modules of the kernel `version`.
///
/// # Errors
/// As [`Modules::open`] and [`Modules::index`].
pub fn apply(tree: &mut Tree, version: &str) -> Result<(), Error> {
    Modules::open(tree, version)?.index(tree)
}

#[cfg(test)]
mod tests;
