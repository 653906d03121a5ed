//! Yields the files of the index from the modules.

use std::collections::{BTreeMap, BTreeSet};

use super::alias::{aliases_of_builtin, normal_alias};
use super::trie::Trie;
use super::{Error, Modules};
use crate::fixup::module::{Module, normal_name};
use crate::path::TreePath;
use crate::tree::{self, Tree};

/// Buckets of kmod's tables of modules and of symbols, which decide the order of lines.
const MODULE_BUCKETS: u32 = 512;
const SYMBOL_BUCKETS: u32 = 2048;

impl Modules {
    /// The modules in the order of the index: those of `modules.order`, then the rest in the order of kmod's hash
    /// table.
    pub(super) fn order(&self, tree: &Tree) -> Result<Vec<String>, Error> {
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

/// The content of the index files; a module is a number in the order of the index.
pub(super) struct Index<'m> {
    names: Vec<&'m str>,
    files: Vec<String>,
    modules: Vec<&'m Module>,
    /// All dependencies of each module, sorted so that users come before what they use.
    dependencies: Vec<Vec<usize>>,
    /// Exported names in the order of kmod's table.
    symbols: BTreeMap<(u32, &'m str), usize>,
}

impl<'m> Index<'m> {
    pub(super) fn new(all: &'m Modules, order: &'m [String]) -> Result<Self, Error> {
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

    pub(super) fn files(
        &self,
        tree: &Tree,
        directory: &TreePath,
    ) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
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

/// `char-major-MAJOR-MINOR`, or `block-major-MAJOR-MINOR`.
fn device_numbers(alias: &str) -> Option<(char, u32, u32)> {
    let (kind, rest) = alias
        .strip_prefix("char-major-")
        .map(|rest| ('c', rest))
        .or_else(|| alias.strip_prefix("block-major-").map(|rest| ('b', rest)))?;
    let (major, minor) = rest.split_once('-')?;
    let digits = minor.split(|char: char| !char.is_ascii_digit()).next()?;
    Some((kind, major.parse().ok()?, digits.parse().ok()?))
}

/// The position of each in an order where users come before what they use; the members of cycles if there is none.
fn rank(direct: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut users = vec![0usize; direct.len()];
    for dependency in direct.iter().flatten() {
        if let Some(count) = users.get_mut(*dependency) {
            *count += 1;
        }
    }
    // The last one to become free is taken first, as in kmod.
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
