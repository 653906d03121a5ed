//! Yields the index of kernel modules that modprobe and udev read, and the modules that a recipe asks for, from the
//! modules of the tree.
//!
//! # Shape
//! ```text
//! usr/lib/modules/VERSION/**/*.ko{,.xz,.zst} -> modules.{dep,alias,symbols}{,.bin}, .softdep, .weakdep, .devname
//! modules.builtin, modules.builtin.modinfo   -> modules.builtin.bin, modules.builtin.alias.bin
//! ```
//! A `.bin` is a trie: magic B007F457, version 00020001, offset of the root, then the nodes in pre-order, big endian.
//! A node: its prefix NUL, first and last byte and an offset u32 for each child between, values (count u32; each:
//! priority u32, text NUL). The three high bits of an offset tell which of these a node has.
//!
//! # Source
//! kmod 34: the comment at the head of `libkmod/libkmod-index.c`, and the order of lines of `tools/depmod.c`, which
//! follows `modules.order`, then its hash tables. Equal to the bytes of trixie's depmod
//! (`tests/tests/fixup_b_reference.rs`).
//!
//! # Not here
//! `depmod.d`: it chooses between modules of one name, and those are refused.

use std::collections::{BTreeMap, BTreeSet};

use globset::Glob;
use rayon::prelude::*;

use crate::content::Content;
use crate::fixup::module::{self, Module, Packing, normal_name};
use crate::path::{self, TreePath};
use crate::tree::{self, Kind, Node, Origin, Tree};

/// Buckets of kmod's tables of modules and of symbols, which decide the order of lines.
const MODULE_BUCKETS: u32 = 512;
const SYMBOL_BUCKETS: u32 = 2048;

const INDEX_MAGIC: u32 = 0xb007_f457;
const INDEX_VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;

/// Why the modules cannot be indexed or chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are no modules of this kernel.
    #[error("{0} holds no kernel modules")]
    NoModules(TreePath),
    /// Two files are one module.
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
    /// Nothing has this name.
    #[error("the kernel has no module {name}{}", near_misses(near))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// A module is part of the kernel, so that there is no file to load.
    #[error("{0} is built into the kernel: it needs no module")]
    BuiltIn(String),
    /// A module needs another that has no file and is not built in.
    #[error("module {name} depends on {missing}, which is not there")]
    MissingDependency {
        /// The module.
        name: String,
        /// What it needs.
        missing: String,
    },
    /// Modules that need each other.
    #[error("modules need each other in a circle: {}", .0.join(", "))]
    Cycle(Vec<String>),
    /// A pattern that is none.
    #[error("pattern {0:?} of a module is not valid")]
    Pattern(String),
    /// A text that the index cannot hold.
    #[error("module index: {0:?} is not ASCII")]
    NotAscii(String),
    /// The tree cannot be read or changed.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A text is no path.
    #[error(transparent)]
    Path(#[from] path::Error),
}

fn near_misses(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (there is {})", near.join(", ")) }
}

/// What [`Modules::select`] chose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The modules, by name, with all that they need.
    pub modules: BTreeSet<String>,
    /// What was asked for, or needed, that is built into the kernel.
    pub builtin: BTreeSet<String>,
    /// Soft dependencies that no module and nothing built in offers: `module: name`.
    pub unmet: BTreeSet<String>,
}

/// The modules of one kernel; their files are read when they are first needed.
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

    /// The names that a pattern of a recipe means: a module, or a glob over names; `-` and `_` are one.
    fn named(&self, wanted: &str, selection: &mut Selection) -> Result<Vec<String>, Error> {
        if wanted.contains(['*', '?', '[']) {
            let glob = Glob::new(&wanted.replace('-', "_"))
                .map_err(|_| Error::Pattern(wanted.to_owned()))?
                .compile_matcher();
            let list: Vec<String> = self.files.keys().filter(|name| glob.is_match(name)).cloned().collect();
            if list.is_empty() {
                return Err(Error::Unknown { name: wanted.to_owned(), near: Vec::new() });
            }
            return Ok(list);
        }
        let name = normal_name(wanted);
        if self.files.contains_key(&name) {
            return Ok(vec![name]);
        }
        if self.builtin.contains(&name) {
            selection.builtin.insert(name);
            return Ok(Vec::new());
        }
        Err(self.unknown(wanted))
    }

    fn unknown(&self, wanted: &str) -> Error {
        let name = normal_name(wanted);
        let mut near: Vec<(usize, &String)> = self
            .files
            .keys()
            .chain(&self.builtin)
            .map(|other| (distance(&name, other), other))
            .filter(|(far, _)| *far <= 1 + name.len() / 4)
            .collect();
        near.sort();
        let near = near.into_iter().take(3).map(|(_, name)| name.clone()).collect();
        Error::Unknown { name: wanted.to_owned(), near }
    }

    /// Chooses the modules that `wanted` names, and all that they depend on, soft dependencies included.
    ///
    /// # Errors
    /// [`Error::Unknown`] with near misses, [`Error::MissingDependency`], [`Error::Module`].
    pub fn select(&mut self, tree: &Tree, wanted: &[&str]) -> Result<Selection, Error> {
        let mut selection = Selection::default();
        let mut wave: BTreeSet<String> = BTreeSet::new();
        for name in wanted {
            wave.extend(self.named(name, &mut selection)?);
        }
        while !wave.is_empty() {
            self.need(tree, wave.iter().map(String::as_str))?;
            selection.modules.extend(wave.iter().cloned());
            let mut next = BTreeSet::new();
            for name in &wave {
                for dependency in self.depends(name) {
                    if self.files.contains_key(&dependency) {
                        next.insert(dependency);
                    } else if self.builtin.contains(&dependency) {
                        selection.builtin.insert(dependency);
                    } else {
                        return Err(Error::MissingDependency { name: name.clone(), missing: dependency });
                    }
                }
                for alias in self.soft(name) {
                    match self.offers(tree, &alias)? {
                        Offer::Modules(names) => next.extend(names),
                        Offer::BuiltIn => {
                            selection.builtin.insert(normal_name(&alias));
                        }
                        Offer::Nothing => {
                            selection.unmet.insert(format!("{name}: {alias}"));
                        }
                    }
                }
            }
            wave = next.difference(&selection.modules).cloned().collect();
        }
        Ok(selection)
    }

    /// What `depends=` lists.
    fn depends(&self, name: &str) -> Vec<String> {
        let module = self.read.get(name);
        let lists = module.into_iter().flat_map(|module| module.values("depends"));
        lists.flat_map(|list| list.split(',')).filter(|part| !part.is_empty()).map(normal_name).collect()
    }

    /// What `softdep=` lists.
    fn soft(&self, name: &str) -> Vec<String> {
        let module = self.read.get(name);
        let lists = module.into_iter().flat_map(|module| module.values("softdep"));
        lists
            .flat_map(str::split_whitespace)
            .filter(|word| !matches!(*word, "pre:" | "post:"))
            .map(str::to_owned)
            .collect()
    }

    /// Who offers a name or an alias. Aliases of modules need all of them read, so those come last.
    fn offers(&mut self, tree: &Tree, alias: &str) -> Result<Offer, Error> {
        let name = normal_name(alias);
        if self.files.contains_key(&name) {
            return Ok(Offer::Modules(vec![name]));
        }
        let wanted = normal_alias(alias).unwrap_or_else(|| alias.to_owned());
        if self.builtin.contains(&name) || self.builtin_aliases.contains_key(&wanted) {
            return Ok(Offer::BuiltIn);
        }
        self.need_all(tree)?;
        let offering: Vec<String> = self
            .read
            .iter()
            .filter(|(_, module)| {
                module.values("alias").any(|own| normal_alias(own).as_deref() == Some(wanted.as_str()))
            })
            .map(|(name, _)| name.clone())
            .collect();
        Ok(if offering.is_empty() { Offer::Nothing } else { Offer::Modules(offering) })
    }

    /// Takes the modules that are not in `keep` out of the tree, and the directories that held nothing else; gives
    /// how many modules went.
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

    /// The files to load, in order, for `names` to work: dependencies first.
    ///
    /// # Errors
    /// [`Error::BuiltIn`], [`Error::Unknown`], [`Error::MissingDependency`], [`Error::Cycle`].
    pub fn load_order(&mut self, tree: &Tree, names: &[&str]) -> Result<Vec<TreePath>, Error> {
        let mut order: Vec<String> = Vec::new();
        for name in names {
            let normal = normal_name(name);
            if !self.files.contains_key(&normal) {
                let builtin = self.builtin.contains(&normal);
                return Err(if builtin { Error::BuiltIn(normal) } else { self.unknown(name) });
            }
            self.visit(tree, &normal, &mut Vec::new(), &mut order)?;
        }
        Ok(order.iter().filter_map(|name| self.path(name).cloned()).collect())
    }

    fn visit(
        &mut self,
        tree: &Tree,
        name: &str,
        above: &mut Vec<String>,
        order: &mut Vec<String>,
    ) -> Result<(), Error> {
        if order.iter().any(|done| done == name) {
            return Ok(());
        }
        if above.iter().any(|open| open == name) {
            return Err(Error::Cycle(above.clone()));
        }
        self.need(tree, std::iter::once(name))?;
        above.push(name.to_owned());
        for dependency in self.depends(name) {
            if self.files.contains_key(&dependency) {
                self.visit(tree, &dependency, above, order)?;
            } else if !self.builtin.contains(&dependency) {
                return Err(Error::MissingDependency { name: name.to_owned(), missing: dependency });
            }
        }
        above.pop();
        order.push(name.to_owned());
        Ok(())
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

    /// The modules in the order of the index: those of `modules.order`, then the rest as kmod's table holds them.
    fn order(&self, tree: &Tree) -> Result<Vec<String>, Error> {
        let mut listed: BTreeMap<&str, usize> = BTreeMap::new();
        let text = match tree.read(&self.directory.join("modules.order")?) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(tree::Error::Missing(_)) => String::new(),
            Err(error) => return Err(error.into()),
        };
        for (at, line) in text.lines().enumerate() {
            listed.entry(line).or_insert(at);
        }
        let mut order: Vec<&String> = self.files.keys().collect();
        order.sort_by_key(|name| {
            let place = self.path(name).map(|path| uncompressed(&self.relative(path)));
            let place = place.and_then(|place| listed.get(place.as_str()).copied());
            (place.unwrap_or(usize::MAX), bucket(name, MODULE_BUCKETS), (*name).clone())
        });
        Ok(order.into_iter().cloned().collect())
    }

    fn relative(&self, path: &TreePath) -> String {
        let skip = self.directory.as_str().len() + 1;
        path.as_str().get(skip..).unwrap_or("").to_owned()
    }
}

enum Offer {
    Modules(Vec<String>),
    BuiltIn,
    Nothing,
}

/// Writes the index of the modules of the kernel `version`.
///
/// # Errors
/// As [`Modules::open`] and [`Modules::index`].
pub fn apply(tree: &mut Tree, version: &str) -> Result<(), Error> {
    Modules::open(tree, version)?.index(tree)
}

fn uncompressed(path: &str) -> String {
    let stem = path.strip_suffix(".xz").or_else(|| path.strip_suffix(".zst")).unwrap_or(path);
    stem.to_owned()
}

/// Paul Hsieh's hash, with which kmod fills its tables (<http://www.azillionmonkeys.com/qed/hash.html>).
fn bucket(key: &str, buckets: u32) -> u32 {
    let bytes = key.as_bytes();
    let mut hash = bytes.len() as u32;
    let pair = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        let [a, b, c, d] = *chunk else { continue };
        hash = hash.wrapping_add(pair(a, b));
        hash = (hash << 16) ^ (pair(c, d) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    // The last byte is a signed char on amd64.
    let signed = |byte: u8| byte as i8 as i32 as u32;
    match *chunks.remainder() {
        [a, b, c] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 16;
            hash ^= signed(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(signed(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash = hash.wrapping_add(hash >> 6);
    hash & (buckets - 1)
}

/// An alias as the index spells it: underscores outside of brackets; `None` when its brackets do not pair.
fn normal_alias(alias: &str) -> Option<String> {
    let mut normal = String::with_capacity(alias.len());
    let mut inside = false;
    for char in alias.chars() {
        match char {
            '[' => inside = true,
            ']' if !inside => return None,
            ']' => inside = false,
            _ => {}
        }
        normal.push(if char == '-' && !inside { '_' } else { char });
    }
    (!inside).then_some(normal)
}

/// Module and normalised alias of each `NAME.alias=VALUE` in `modules.builtin.modinfo`.
fn aliases_of_builtin(modinfo: &str) -> Vec<(String, String)> {
    modinfo
        .split('\0')
        .filter_map(|entry| {
            let (name, rest) = entry.split_once('.')?;
            let alias = rest.strip_prefix("alias=").filter(|alias| !alias.is_empty())?;
            Some((name.to_owned(), normal_alias(alias)?)).filter(|(name, _)| !name.is_empty())
        })
        .collect()
}

/// Edits that make one name the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((b, pair), last) in right.iter().zip(row.windows(2)).zip(1..) {
            let &[diagonal, above] = pair else { continue };
            let before = next.get(last - 1).copied().unwrap_or(usize::MAX - 1);
            next.push((diagonal + usize::from(a != *b)).min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// All that the index files say, with modules as numbers in their order.
struct Index<'m> {
    names: Vec<&'m str>,
    files: Vec<String>,
    modules: Vec<&'m Module>,
    /// All dependencies of each, nearest the kernel last.
    dependencies: Vec<Vec<usize>>,
    /// Exported names in the order of kmod's table.
    symbols: BTreeMap<(u32, &'m str), usize>,
}

impl<'m> Index<'m> {
    fn new(all: &'m Modules, order: &'m [String]) -> Result<Self, Error> {
        let rows: Vec<(&str, String, &Module)> = order
            .iter()
            .filter_map(|name| Some((name.as_str(), all.relative(all.path(name)?), all.read.get(name)?)))
            .collect();
        let mut symbols = BTreeMap::new();
        for (index, (_, _, module)) in rows.iter().enumerate() {
            for name in &module.exports {
                symbols.insert((bucket(name, SYMBOL_BUCKETS), name.as_str()), index);
            }
        }
        let direct: Vec<Vec<usize>> = rows
            .iter()
            .map(|(_, _, module)| {
                let mut list: Vec<usize> = Vec::new();
                let mut seen = BTreeSet::new();
                for name in &module.needs {
                    let name = name.strip_prefix('.').unwrap_or(name);
                    let owner = symbols.get(&(bucket(name, SYMBOL_BUCKETS), name));
                    list.extend(owner.filter(|owner| seen.insert(**owner)));
                }
                list
            })
            .collect();
        let rank = rank(&direct).map_err(|left| {
            let names = left.iter().filter_map(|at| rows.get(*at)).map(|row| row.0.to_owned());
            Error::Cycle(names.collect::<BTreeSet<_>>().into_iter().collect())
        })?;
        let dependencies = (0..rows.len())
            .map(|start| {
                let mut all = BTreeSet::new();
                let mut todo = direct.get(start).cloned().unwrap_or_default();
                while let Some(next) = todo.pop() {
                    if all.insert(next) {
                        todo.extend(direct.get(next).into_iter().flatten());
                    }
                }
                let mut all: Vec<usize> = all.into_iter().collect();
                all.sort_by_key(|at| rank.get(*at).copied());
                all
            })
            .collect();
        let (mut names, mut files, mut modules) = (Vec::new(), Vec::new(), Vec::new());
        for (name, file, module) in rows {
            names.push(name);
            files.push(file);
            modules.push(module);
        }
        Ok(Index { names, files, modules, dependencies, symbols })
    }

    fn each(&self) -> impl Iterator<Item = (usize, &'m str, &'m Module)> {
        self.names.iter().zip(&self.modules).enumerate().map(|(at, (name, module))| (at, *name, *module))
    }

    /// `path: path path …`
    fn dependency_line(&self, at: usize) -> String {
        let mut line = format!("{}:", self.files.get(at).map_or("", String::as_str));
        let list = self.dependencies.get(at).into_iter().flatten().filter_map(|dep| self.files.get(*dep));
        for file in list {
            line.push(' ');
            line.push_str(file);
        }
        line
    }

    /// `keyword module value` for each value of a key.
    fn values(&self, comment: &str, key: &str) -> String {
        let mut text = format!("# {comment} extracted from modules themselves.\n");
        for (_, name, module) in self.each() {
            for value in module.values(key) {
                let line = match key {
                    "alias" => format!("alias {value} {name}\n"),
                    _ => format!("{key} {name} {value}\n"),
                };
                text.push_str(&line);
            }
        }
        text
    }

    fn device_names(&self) -> String {
        let mut text = String::new();
        for (_, name, module) in self.each() {
            let (mut device, mut numbers) = (None, None);
            for alias in module.values("alias") {
                if let Some(found) = alias.strip_prefix("devname:") {
                    device = Some(found);
                } else if let Some(found) = device_numbers(alias) {
                    numbers = Some(found);
                }
                if device.is_some() && numbers.is_some() {
                    break;
                }
            }
            if let (Some(device), Some((kind, major, minor))) = (device, numbers) {
                if text.is_empty() {
                    text.push_str("# Device nodes to trigger on-demand module loading.\n");
                }
                text.push_str(&format!("{name} {device} {kind}{major}:{minor}\n"));
            }
        }
        text
    }

    fn files(&self, tree: &Tree, directory: &TreePath) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
        let (mut dep, mut dep_bin) = (String::new(), Trie::default());
        let mut alias_bin = Trie::default();
        for (at, name, module) in self.each() {
            let line = self.dependency_line(at);
            dep_bin.insert(name, &line, at as u32)?;
            dep.push_str(&line);
            dep.push('\n');
            for alias in module.values("alias").filter_map(normal_alias) {
                alias_bin.insert(&alias, name, at as u32)?;
            }
        }
        let mut symbols = "# Aliases for symbols, used by symbol_request().\n".to_owned();
        let mut symbols_bin = Trie::default();
        for ((_, symbol), &owner) in &self.symbols {
            let Some(name) = self.names.get(owner) else { continue };
            symbols.push_str(&format!("alias symbol:{symbol} {name}\n"));
            symbols_bin.insert(&format!("symbol:{symbol}"), name, owner as u32)?;
        }
        let mut files = vec![
            ("modules.dep", dep.into_bytes()),
            ("modules.dep.bin", dep_bin.bytes()),
            ("modules.alias", self.values("Aliases", "alias").into_bytes()),
            ("modules.alias.bin", alias_bin.bytes()),
            ("modules.softdep", self.values("Soft dependencies", "softdep").into_bytes()),
            ("modules.weakdep", self.values("Weak dependencies", "weakdep").into_bytes()),
            ("modules.symbols", symbols.into_bytes()),
            ("modules.symbols.bin", symbols_bin.bytes()),
            ("modules.devname", self.device_names().into_bytes()),
        ];
        // Without these lists depmod leaves empty files.
        let mut builtin_bin = Vec::new();
        if let Ok(bytes) = tree.read(&directory.join("modules.builtin")?) {
            let mut builtin = Trie::default();
            for line in String::from_utf8_lossy(&bytes).lines() {
                if line.starts_with(|first: char| first.is_ascii_alphabetic()) {
                    builtin.insert(&normal_name(line.rsplit('/').next().unwrap_or("")), "", 0)?;
                }
            }
            builtin_bin = builtin.bytes();
        }
        files.push(("modules.builtin.bin", builtin_bin));
        let mut aliases_bin = Vec::new();
        if let Ok(bytes) = tree.read(&directory.join("modules.builtin.modinfo")?) {
            let mut aliases = Trie::default();
            for (name, alias) in aliases_of_builtin(&String::from_utf8_lossy(&bytes)) {
                aliases.insert(&alias, &name, 0)?;
            }
            aliases_bin = aliases.bytes();
        }
        files.push(("modules.builtin.alias.bin", aliases_bin));
        Ok(files)
    }
}

/// `char-major-MAJOR-MINOR` and its like of block devices.
fn device_numbers(alias: &str) -> Option<(char, u32, u32)> {
    let (kind, rest) = alias
        .strip_prefix("char-major-")
        .map(|rest| ('c', rest))
        .or_else(|| alias.strip_prefix("block-major-").map(|rest| ('b', rest)))?;
    let (major, minor) = rest.split_once('-')?;
    let digits = minor.split(|char: char| !char.is_ascii_digit()).next()?;
    Some((kind, major.parse().ok()?, digits.parse().ok()?))
}

/// The place of each in an order where users come before what they use; those in a circle when there is none.
fn rank(direct: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut users = vec![0usize; direct.len()];
    for dependency in direct.iter().flatten() {
        if let Some(count) = users.get_mut(*dependency) {
            *count += 1;
        }
    }
    // The last that becomes free is taken first, as kmod does.
    let mut free: Vec<usize> = (0..direct.len()).filter(|at| users.get(*at) == Some(&0)).collect();
    let mut rank = vec![usize::MAX; direct.len()];
    let mut done = 0;
    while let Some(at) = free.pop() {
        if let Some(place) = rank.get_mut(at) {
            *place = done;
        }
        done += 1;
        for dependency in direct.get(at).into_iter().flatten() {
            if let Some(count) = users.get_mut(*dependency) {
                *count -= 1;
                if *count == 0 {
                    free.push(*dependency);
                }
            }
        }
    }
    if done == direct.len() {
        return Ok(rank);
    }
    Err((0..direct.len()).filter(|at| rank.get(*at) == Some(&usize::MAX)).collect())
}

/// The trie of a `.bin` file.
#[derive(Debug, Default)]
struct Trie {
    prefix: Vec<u8>,
    values: Vec<(u32, String)>,
    children: BTreeMap<u8, Trie>,
}

impl Trie {
    fn insert(&mut self, key: &str, value: &str, priority: u32) -> Result<(), Error> {
        for text in [key, value] {
            if !text.is_ascii() {
                return Err(Error::NotAscii(text.to_owned()));
            }
        }
        let mut node = self;
        let mut rest = key.as_bytes();
        loop {
            let common = node.prefix.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if let Some(&branch) = node.prefix.get(common) {
                let tail = node.prefix.split_off(common + 1);
                node.prefix.truncate(common);
                let child = Trie {
                    prefix: tail,
                    values: std::mem::take(&mut node.values),
                    children: std::mem::take(&mut node.children),
                };
                node.children.insert(branch, child);
            }
            rest = rest.get(common..).unwrap_or(&[]);
            let Some((&next, after)) = rest.split_first() else {
                let at = node.values.partition_point(|(other, _)| *other < priority);
                node.values.insert(at, (priority, value.to_owned()));
                return Ok(());
            };
            rest = after;
            node = node
                .children
                .entry(next)
                .or_insert_with(|| Trie { prefix: std::mem::take(&mut rest).to_vec(), ..Trie::default() });
            // A new node holds all that was left of the key.
            if node.values.is_empty() && node.children.is_empty() {
                node.values.push((priority, value.to_owned()));
                return Ok(());
            }
        }
    }

    fn flags(&self) -> u32 {
        let mut flags = 0;
        if !self.children.is_empty() {
            flags |= HAS_CHILDREN;
        }
        if !self.prefix.is_empty() {
            flags |= HAS_PREFIX;
        }
        if !self.values.is_empty() {
            flags |= HAS_VALUES;
        }
        flags
    }

    /// First and last byte that has a child.
    fn span(&self) -> Option<(u8, u8)> {
        Some((*self.children.keys().next()?, *self.children.keys().next_back()?))
    }

    /// Appends this node and all below it.
    fn write(&self, out: &mut Vec<u8>) {
        if !self.prefix.is_empty() {
            out.extend(self.prefix.iter().chain(&[0]));
        }
        let mut table = out.len() + 2;
        if let Some((first, last)) = self.span() {
            out.extend([first, last]);
            out.resize(out.len() + 4 * (usize::from(last - first) + 1), 0);
        }
        if !self.values.is_empty() {
            out.extend((self.values.len() as u32).to_be_bytes());
            for (priority, value) in &self.values {
                out.extend(priority.to_be_bytes());
                out.extend(value.bytes().chain([0]));
            }
        }
        let Some((first, last)) = self.span() else { return };
        for byte in first..=last {
            if let Some(child) = self.children.get(&byte) {
                let offset = (out.len() as u32) | child.flags();
                if let Some(place) = out.get_mut(table..table + 4) {
                    place.copy_from_slice(&offset.to_be_bytes());
                }
                child.write(out);
            }
            table += 4;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(INDEX_MAGIC.to_be_bytes());
        out.extend(INDEX_VERSION.to_be_bytes());
        out.extend((12 | self.flags()).to_be_bytes());
        self.write(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixup::module::tests::module;

    const VERSION: &str = "6.12-test";

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn add(tree: &mut Tree, place: &str, bytes: impl Into<Vec<u8>>) {
        let node = Node::file(0o644, Content::raw(bytes), Origin::debian("linux", "1"));
        tree.insert(path(&format!("usr/lib/modules/{VERSION}/{place}")), node).unwrap();
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(Origin::debian("linux", "1"));
        let info = ["depends=dm-bufio,dm-mod", "softdep=pre: sha256 md5-alias", "alias=pci:v[0-9]-*"];
        add(&mut tree, "kernel/md/dm-verity.ko", module(&info, &[], &["bufio_new", "dm_new"]));
        add(&mut tree, "kernel/md/dm-bufio.ko", module(&["depends=dm-mod"], &["bufio_new"], &["dm_new"]));
        let dm = ["depends=", "alias=devname:mapper/control", "alias=char-major-10-236"];
        add(&mut tree, "kernel/md/dm-mod.ko", module(&dm, &["dm_new"], &["printk"]));
        add(&mut tree, "kernel/crypto/md5.ko", module(&["alias=md5-alias"], &[], &[]));
        add(&mut tree, "kernel/net/other.ko", module(&[], &[], &[]));
        add(&mut tree, "modules.order", "kernel/net/other.ko\nkernel/md/dm-mod.ko\n");
        add(&mut tree, "modules.builtin", "kernel/lib/sha256.ko\nkernel/fs/ext4.ko\n");
        add(&mut tree, "modules.builtin.modinfo", "ext4.alias=fs-ext4\0ext4.license=GPL\0");
        tree
    }

    fn text(tree: &Tree, name: &str) -> String {
        let place = path(&format!("usr/lib/modules/{VERSION}/{name}"));
        String::from_utf8_lossy(&tree.read(&place).unwrap()).into_owned()
    }

    #[test]
    fn the_index_names_dependencies_aliases_and_devices() {
        let mut tree = tree();
        apply(&mut tree, VERSION).unwrap();
        let dep = text(&tree, "modules.dep");
        assert!(dep.starts_with("kernel/net/other.ko:\nkernel/md/dm-mod.ko:\n"), "{dep}");
        assert!(dep.contains("kernel/md/dm-verity.ko: kernel/md/dm-bufio.ko kernel/md/dm-mod.ko\n"), "{dep}");
        assert!(text(&tree, "modules.alias").contains("alias pci:v[0-9]-* dm_verity\n"));
        assert!(text(&tree, "modules.softdep").contains("softdep dm_verity pre: sha256 md5-alias\n"));
        assert!(text(&tree, "modules.symbols").contains("alias symbol:dm_new dm_mod\n"));
        assert!(text(&tree, "modules.devname").ends_with("dm_mod mapper/control c10:236\n"));
        let dep_bin = tree.read(&path(&format!("usr/lib/modules/{VERSION}/modules.dep.bin"))).unwrap();
        assert_eq!(&dep_bin[..8], [0xb0, 0x07, 0xf4, 0x57, 0, 2, 0, 1]);
    }

    #[test]
    fn a_selection_holds_all_that_it_needs_and_the_rest_goes() {
        let mut tree = tree();
        let mut modules = Modules::open(&tree, VERSION).unwrap();
        let selection = modules.select(&tree, &["dm-verity", "ext4"]).unwrap();
        let names: Vec<&str> = selection.modules.iter().map(String::as_str).collect();
        assert_eq!(names, ["dm_bufio", "dm_mod", "dm_verity", "md5"]);
        let builtin: Vec<&str> = selection.builtin.iter().map(String::as_str).collect();
        assert_eq!(builtin, ["ext4", "sha256"]);
        assert_eq!(modules.retain(&mut tree, &selection.modules), 1);
        assert!(tree.get(&path("usr/lib/modules/6.12-test/kernel/net")).is_none());
        modules.index(&mut tree).unwrap();
        assert!(!text(&tree, "modules.dep").contains("other"));
        let globbed = modules.select(&tree, &["dm-m*"]).unwrap();
        assert_eq!(globbed.modules, BTreeSet::from(["dm_mod".to_owned()]));
    }

    #[test]
    fn dependencies_are_loaded_first() {
        let tree = tree();
        let mut modules = Modules::open(&tree, VERSION).unwrap();
        let order = modules.load_order(&tree, &["dm-verity", "dm_mod"]).unwrap();
        let names: Vec<&str> = order.iter().map(TreePath::name).collect();
        assert_eq!(names, ["dm-mod.ko", "dm-bufio.ko", "dm-verity.ko"]);
    }

    #[test]
    fn an_unknown_module_is_refused_with_near_misses() {
        let tree = tree();
        let mut modules = Modules::open(&tree, VERSION).unwrap();
        let error = modules.select(&tree, &["dm-verty"]).unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no module dm-verty (there is dm_verity)");
        assert!(matches!(modules.select(&tree, &["zz*"]), Err(Error::Unknown { .. })));
        assert!(matches!(modules.select(&tree, &["zz["]), Err(Error::Pattern(_))));
        assert_eq!(modules.load_order(&tree, &["ext4"]), Err(Error::BuiltIn("ext4".into())));
    }

    #[test]
    fn what_cannot_be_indexed_is_refused() {
        assert!(matches!(Modules::open(&tree(), "5.0"), Err(Error::NoModules(_))));
        let mut twice = tree();
        add(&mut twice, "updates/dm-mod.ko", module(&[], &[], &[]));
        assert!(matches!(Modules::open(&twice, VERSION), Err(Error::Duplicate { .. })));
        let mut lost = tree();
        add(&mut lost, "kernel/lost.ko", module(&["depends=gone"], &[], &[]));
        let mut modules = Modules::open(&lost, VERSION).unwrap();
        assert!(matches!(modules.select(&lost, &["lost"]), Err(Error::MissingDependency { .. })));
        let mut damaged = tree();
        add(&mut damaged, "kernel/bad.ko", "no module");
        assert!(matches!(apply(&mut damaged, VERSION), Err(Error::Module { .. })));
        let mut foreign = tree();
        add(&mut foreign, "kernel/foreign.ko", module(&["alias=ä"], &[], &[]));
        assert!(matches!(apply(&mut foreign, VERSION), Err(Error::NotAscii(_))));
        let mut circle = tree();
        add(&mut circle, "kernel/x.ko", module(&["depends=y"], &["x"], &["y"]));
        add(&mut circle, "kernel/y.ko", module(&["depends=x"], &["y"], &["x"]));
        assert_eq!(apply(&mut circle, VERSION), Err(Error::Cycle(vec!["x".into(), "y".into()])));
        let mut modules = Modules::open(&circle, VERSION).unwrap();
        assert!(matches!(modules.load_order(&circle, &["x"]), Err(Error::Cycle(_))));
    }

    #[test]
    fn aliases_are_normalised_outside_of_brackets() {
        assert_eq!(normal_alias("a-b[0-9]-c").as_deref(), Some("a_b[0-9]_c"));
        assert_eq!(normal_alias("a]"), None);
        assert_eq!(normal_alias("a[0"), None);
    }

    /// All values that the bytes of an index hold, found as libkmod reads them: by offsets and flags.
    fn walk(bytes: &[u8], offset: u32, key: Vec<u8>, found: &mut Vec<(String, u32, String)>) {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let text = |at: usize| bytes[at..].split(|&byte| byte == 0).next().unwrap();
        let (mut at, mut key) = ((offset & 0x0fff_ffff) as usize, key);
        if offset & HAS_PREFIX != 0 {
            key.extend(text(at));
            at += text(at).len() + 1;
        }
        let mut children = Vec::new();
        if offset & HAS_CHILDREN != 0 {
            let (first, last) = (bytes[at], bytes[at + 1]);
            at += 2;
            for byte in first..=last {
                children.push((byte, word(at)));
                at += 4;
            }
        }
        if offset & HAS_VALUES != 0 {
            let count = word(at);
            at += 4;
            for _ in 0..count {
                let value = String::from_utf8(text(at + 4).to_vec()).unwrap();
                found.push((String::from_utf8(key.clone()).unwrap(), word(at), value.clone()));
                at += 4 + value.len() + 1;
            }
        }
        for (byte, child) in children.into_iter().filter(|(_, child)| *child != 0) {
            walk(bytes, child, [key.clone(), vec![byte]].concat(), found);
        }
    }

    proptest::proptest! {
        #[test]
        fn an_index_gives_back_what_was_put_in(entries in proptest::collection::vec(("[a-c:_*]{0,6}", 0u32..4), 0..40)) {
            let mut trie = Trie::default();
            for (at, (key, priority)) in entries.iter().enumerate() {
                trie.insert(key, &format!("v{at}"), *priority).unwrap();
            }
            let bytes = trie.bytes();
            let mut found = Vec::new();
            walk(&bytes, u32::from_be_bytes(bytes[8..12].try_into().unwrap()), Vec::new(), &mut found);
            proptest::prop_assert!(found.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 <= pair[1].1));
            let mut want: Vec<(String, u32, String)> = entries
                .into_iter()
                .enumerate()
                .map(|(at, (key, priority))| (key, priority, format!("v{at}")))
                .collect();
            want.sort();
            found.sort();
            proptest::prop_assert_eq!(found, want);
        }
    }
}
