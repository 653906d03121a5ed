//! Yields the links that enable, alias and mask systemd units, from an explicit list: unlisted units are off.
//!
//! # Shape
//! ```text
//! [Install] WantedBy=a.target      /etc/systemd/system/a.target.wants/NAME    -> /usr/lib/systemd/system/NAME
//!           RequiredBy=, UpheldBy= …/a.target.requires/NAME, …/a.target.upholds/NAME
//!           Alias=b.service        /etc/systemd/system/b.service              -> /usr/lib/systemd/system/NAME
//!           Also=c.socket          the same for c.socket
//! x@i.service                      link name x@i.service, target …/x@.service
//! mask                             /etc/systemd/system/NAME                   -> /dev/null
//! ```
//! `00-proofmark.preset` tells systemctl(1) the same: the enabled units, then `disable *`. Links of packages in
//! /etc/systemd are removed; links in /usr/lib/systemd are the package's own wiring and stay.
//!
//! # Source
//! systemd.unit(5), "[Install] section options"; systemd.preset(5); systemd 257 `src/shared/install.c`
//! (`install_info_symlink_alias`, `install_info_symlink_wants`). As there, `[Install]` of drop-ins counts too.
//!
//! # Not here
//! The effect of a unit; units that generators make at boot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use strsim::levenshtein;

use super::{systemd_conf, write};
use crate::path::TreePath;
use crate::tree::{self, Kind, Node, Origin, Tree};

const NAME: &str = "units";

/// The endings of unit names (systemd.unit(5)).
const SUFFIXES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// Why units cannot be enabled or masked as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such unit.
    #[error("unit {name:?} of {origin} does not exist{}", suggest(.near))]
    Missing {
        /// The unit.
        name: String,
        /// Who wants it.
        origin: Origin,
        /// Units with a similar name.
        near: Vec<String>,
    },
    /// The unit has no `[Install]` section.
    #[error("unit {name:?} of {origin} is static: {path} has no [Install] section to enable{}", pulled(.wanted_by))]
    Static {
        /// The unit.
        name: String,
        /// Who wants it.
        origin: Origin,
        /// Its file.
        path: TreePath,
        /// Units that pull it in already.
        wanted_by: Vec<String>,
    },
    /// The name is an alias of another unit.
    #[error("unit {name:?} of {origin} is an alias: name {real:?} instead")]
    Alias {
        /// The alias.
        name: String,
        /// Who wants it.
        origin: Origin,
        /// The unit that it stands for.
        real: String,
    },
    /// The unit is masked by a package or by the recipe itself.
    #[error("unit {name:?} of {origin} is masked at {path}")]
    Masked {
        /// The unit.
        name: String,
        /// Who wants it.
        origin: Origin,
        /// The mask.
        path: TreePath,
    },
    /// A template without an instance.
    #[error("unit {name:?} of {origin} is a template without DefaultInstance: name an instance of it")]
    Template {
        /// The template.
        name: String,
        /// Who wants it.
        origin: Origin,
    },
    /// A string that is not a unit name.
    #[error("{name:?} of {origin} is not a valid unit name")]
    Name {
        /// The text.
        name: String,
        /// Who wants it.
        origin: Origin,
    },
    /// An invalid line of an `[Install]` section.
    #[error("{path}: {problem} in [Install]: {text:?}")]
    Install {
        /// The unit's file.
        path: TreePath,
        /// What is wrong.
        problem: &'static str,
        /// The text that is wrong.
        text: String,
    },
    /// Two units want one link.
    #[error("{path} would point to both {first} and {second}")]
    Conflict {
        /// The link.
        path: TreePath,
        /// Where it points.
        first: String,
        /// Where it should also point.
        second: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

fn suggest(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(", is it {}?", names.join(" or ")) }
}

fn pulled(units: &[String]) -> String {
    if units.is_empty() { String::new() } else { format!("; {} pulls it in already", units.join(", ")) }
}

/// A unit and where it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name with its suffix; for a template with an instance.
    pub name: String,
    /// The recipe's line.
    pub origin: Origin,
}

/// The recipe's choice of units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// System units to enable.
    pub enable: Vec<Unit>,
    /// System units to mask.
    pub mask: Vec<Unit>,
    /// User units to enable.
    pub enable_user: Vec<Unit>,
    /// User units to mask.
    pub mask_user: Vec<Unit>,
    /// The default target; `None` keeps that of the packages.
    pub default_target: Option<Unit>,
}

/// The links that were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every link and its target.
    pub links: BTreeMap<TreePath, String>,
    /// Units that should pull in an enabled one but do not exist in the image, with the enabled one.
    pub dangling: BTreeSet<(String, String)>,
}

/// Makes the links, and removes those of packages.
///
/// # Errors
/// [`Error`] for the first unit that cannot be enabled or masked.
pub fn apply(tree: &mut Tree, declared: &Declared) -> Result<Report, Error> {
    remove_package_links(tree);
    let mut report = Report::default();
    let mut all = BTreeMap::new();
    for (scope, enable, mask) in
        [(&SYSTEM, &declared.enable, &declared.mask), (&USER, &declared.enable_user, &declared.mask_user)]
    {
        let mut links = Links { tree, scope, links: BTreeMap::new(), dangling: BTreeSet::new() };
        links.mask(mask)?;
        links.enable(enable)?;
        if scope.etc == SYSTEM.etc {
            links.boot_to(declared.default_target.as_ref())?;
        }
        // A name that exists only as an alias counts too.
        let made: BTreeSet<&str> = links.links.keys().map(TreePath::name).collect();
        links.dangling.retain(|(by, _)| !made.contains(by.as_str()));
        report.dangling.append(&mut links.dangling);
        all.append(&mut links.links);
    }
    for (path, (target, origin)) in all {
        tree.replace(path.clone(), Node::symlink(&target, origin))?;
        report.links.insert(path, target);
    }
    for (folder, units) in [("system-preset", &declared.enable), ("user-preset", &declared.enable_user)] {
        let mut text = String::from("# What the recipe enables; everything else is off.\n");
        text.extend(units.iter().map(|unit| format!("enable {}\n", unit.name)));
        text.push_str("disable *\n");
        write::file(tree, &format!("usr/lib/systemd/{folder}/00-proofmark.preset"), 0o644, text, NAME)?;
    }
    Ok(report)
}

/// One of systemd's two managers: where links go, and where units are searched.
struct Scope {
    etc: &'static str,
    search: &'static [&'static str],
}

/// systemd 257 `src/libsystemd/sd-path/path-lookup.c`, without what exists only at run time.
const SYSTEM: Scope = Scope {
    etc: "etc/systemd/system",
    search: &["etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system"],
};
const USER: Scope = Scope {
    etc: "etc/systemd/user",
    search: &[
        "etc/systemd/user",
        "usr/local/share/systemd/user",
        "usr/share/systemd/user",
        "usr/local/lib/systemd/user",
        "usr/lib/systemd/user",
    ],
};

fn remove_package_links(tree: &mut Tree) {
    let mut gone = Vec::new();
    for scope in [&SYSTEM, &USER] {
        for (path, node) in tree.iter().filter(|(path, _)| path.as_str().starts_with(scope.etc)) {
            let link = matches!(node.kind, Kind::Symlink(_));
            if link && matches!(node.origin, Origin::Debian { .. }) {
                gone.push(path.clone());
            }
        }
    }
    for path in gone {
        tree.remove(&path);
    }
}

/// The parts of a unit name: `prefix[@instance].suffix`.
struct Parts<'a> {
    prefix: &'a str,
    /// `Some("")` for a template.
    instance: Option<&'a str>,
    suffix: &'a str,
}

/// Splits a unit name; `None` if it is not valid (systemd `unit_name_is_valid`).
fn parts(name: &str) -> Option<Parts<'_>> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let (prefix, instance) = match stem.split_once('@') {
        Some((prefix, instance)) => (prefix, Some(instance)),
        None => (stem, None),
    };
    let good =
        name.len() <= 255 && name.bytes().all(valid) && !prefix.is_empty() && SUFFIXES.contains(&suffix);
    good.then_some(Parts { prefix, instance, suffix })
}

/// What a unit name refers to.
enum Found {
    File(TreePath),
    Alias(String),
    Masked(TreePath),
    Nothing,
}

#[derive(Default)]
struct Install {
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    upheld_by: Vec<String>,
    alias: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

struct Links<'a> {
    tree: &'a Tree,
    scope: &'static Scope,
    links: BTreeMap<TreePath, (String, Origin)>,
    dangling: BTreeSet<(String, String)>,
}

impl Links<'_> {
    fn mask(&mut self, units: &[Unit]) -> Result<(), Error> {
        for unit in units {
            if matches!(self.find(&unit.name)?, Found::Nothing) {
                return Err(self.missing(unit));
            }
            self.link(&unit.name, "/dev/null", &unit.origin)?;
        }
        Ok(())
    }

    fn boot_to(&mut self, target: Option<&Unit>) -> Result<(), Error> {
        let Some(unit) = target else { return Ok(()) };
        match self.find(&unit.name)? {
            Found::File(path) => self.link("default.target", &path.to_string(), &unit.origin),
            Found::Alias(real) => {
                Err(Error::Alias { name: unit.name.clone(), origin: unit.origin.clone(), real })
            }
            Found::Masked(path) => {
                Err(Error::Masked { name: unit.name.clone(), origin: unit.origin.clone(), path })
            }
            Found::Nothing => Err(self.missing(unit)),
        }
    }

    fn enable(&mut self, units: &[Unit]) -> Result<(), Error> {
        let mut todo: VecDeque<(Unit, Asked)> =
            units.iter().map(|unit| (unit.clone(), Asked::ByName)).collect();
        let mut done = BTreeSet::new();
        while let Some((unit, asked)) = todo.pop_front() {
            if !done.insert(unit.name.clone()) {
                continue;
            }
            let Unit { name, origin } = unit.clone();
            if parts(&name).is_none() {
                return Err(Error::Name { name, origin });
            }
            let path = match (self.find(&name)?, asked) {
                (Found::File(path), _) => path,
                // systemctl skips a unit of Also= that does not exist.
                (_, Asked::Also) => continue,
                (Found::Alias(real), _) => return Err(Error::Alias { name, origin, real }),
                (Found::Masked(path), _) => return Err(Error::Masked { name, origin, path }),
                (Found::Nothing, _) => return Err(self.missing(&unit)),
            };
            let Some(install) = self.install(&path, &name)? else {
                if asked == Asked::Also {
                    continue;
                }
                let wanted_by = self.pulled_in_by(&name)?;
                return Err(Error::Static { name, origin, path, wanted_by });
            };
            self.enable_one(&unit, &path, &install)?;
            for also in install.also {
                todo.push_back((Unit { name: also, origin: origin.clone() }, Asked::Also));
            }
        }
        Ok(())
    }

    fn enable_one(&mut self, unit: &Unit, path: &TreePath, install: &Install) -> Result<(), Error> {
        let Unit { name, origin } = unit;
        let wrong =
            |problem, text: &str| Error::Install { path: path.clone(), problem, text: text.to_owned() };
        let Some(own) = parts(name) else { return Ok(()) };
        let target = path.to_string();
        for alias in &install.alias {
            let Some(other) = parts(alias) else { return Err(wrong("not a unit name", alias)) };
            if other.suffix != own.suffix {
                return Err(wrong("alias of another type", alias));
            }
            // A template's alias takes the enabled instance.
            let alias = match (own.instance, other.instance) {
                (Some(instance), Some("")) => format!("{}@{instance}.{}", other.prefix, other.suffix),
                (own, other) if own == other => alias.clone(),
                _ => return Err(wrong("alias with another instance", alias)),
            };
            if alias != *name {
                self.link(&alias, &target, origin)?;
            }
        }
        let groups = [
            ("wants", &install.wanted_by),
            ("requires", &install.required_by),
            ("upholds", &install.upheld_by),
        ];
        for (kind, units) in groups {
            for by in units {
                let Some(other) = parts(by) else { return Err(wrong("not a unit name", by)) };
                let link = match (own.instance, &install.default_instance) {
                    (Some(""), Some(instance)) => format!("{}@{instance}.{}", own.prefix, own.suffix),
                    (Some(""), None) if other.instance == Some("") => name.clone(),
                    (Some(""), None) => {
                        return Err(Error::Template { name: name.clone(), origin: origin.clone() });
                    }
                    _ => name.clone(),
                };
                if matches!(self.find(by)?, Found::Nothing) {
                    self.dangling.insert((by.clone(), name.clone()));
                }
                self.link(&format!("{by}.{kind}/{link}"), &target, origin)?;
            }
        }
        Ok(())
    }

    fn link(&mut self, name: &str, target: &str, origin: &Origin) -> Result<(), Error> {
        let path = TreePath::new(self.scope.etc).and_then(|etc| etc.join(name)).map_err(tree::Error::from)?;
        let there = self.links.get(&path).map(|(target, _)| target.clone());
        // Never replace a file of the recipe or of a package at this path.
        let there = there.or_else(|| match self.tree.get(&path).map(|node| &node.kind) {
            Some(Kind::Symlink(there)) => Some(there.to_string()),
            Some(kind) => Some(format!("a {}", kind.name())),
            None => None,
        });
        match there {
            Some(first) if first != target => {
                if first == "/dev/null" {
                    return Err(Error::Masked { name: name.to_owned(), origin: origin.clone(), path });
                }
                Err(Error::Conflict { path, first, second: target.to_owned() })
            }
            _ => {
                self.links.insert(path, (target.to_owned(), origin.clone()));
                Ok(())
            }
        }
    }

    /// Looks a unit up; an instance falls back to its template.
    fn find(&self, name: &str) -> Result<Found, Error> {
        match (self.find_exact(name)?, parts(name)) {
            (Found::Nothing, Some(Parts { prefix, instance: Some(instance), suffix }))
                if !instance.is_empty() =>
            {
                self.find_exact(&format!("{prefix}@.{suffix}"))
            }
            (found, _) => Ok(found),
        }
    }

    fn find_exact(&self, name: &str) -> Result<Found, Error> {
        if parts(name).is_none() {
            return Ok(Found::Nothing);
        }
        let own = TreePath::new(self.scope.etc).and_then(|etc| etc.join(name)).map_err(tree::Error::from)?;
        if matches!(self.links.get(&own), Some((target, _)) if target == "/dev/null") {
            return Ok(Found::Masked(own));
        }
        for folder in self.scope.search {
            let path = TreePath::new(folder).and_then(|path| path.join(name)).map_err(tree::Error::from)?;
            let Some(node) = self.tree.get(&path) else { continue };
            return Ok(match &node.kind {
                Kind::Symlink(target) if &**target == "/dev/null" => Found::Masked(path),
                Kind::Symlink(_) => match self.tree.resolve(&path) {
                    Ok(real) if real.name() == name => Found::File(path),
                    Ok(real) => Found::Alias(real.name().to_owned()),
                    Err(tree::Error::Missing(_)) => continue,
                    Err(error) => return Err(error.into()),
                },
                Kind::File(content) if content.is_empty() => Found::Masked(path),
                Kind::File(_) | Kind::HardLink(_) => Found::File(path),
                _ => continue,
            });
        }
        Ok(Found::Nothing)
    }

    fn missing(&self, unit: &Unit) -> Error {
        let mut names = BTreeSet::new();
        for folder in self.scope.search {
            if let Ok(folder) = TreePath::new(folder) {
                names.extend(self.tree.children(&folder).map(|(path, _)| path.name().to_owned()));
            }
        }
        let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned();
        let mut near: Vec<(usize, String)> = names
            .into_iter()
            .filter(|name| parts(name).is_some())
            .map(|name| {
                (levenshtein(&unit.name, &name).min(1 + levenshtein(&stem(&unit.name), &stem(&name))), name)
            })
            .filter(|(distance, name)| *distance <= 3 && distance * 3 <= stem(name).len().max(3))
            .collect();
        near.sort();
        let near = near.into_iter().map(|(_, name)| name).take(3).collect();
        Error::Missing { name: unit.name.clone(), origin: unit.origin.clone(), near }
    }

    fn pulled_in_by(&self, name: &str) -> Result<Vec<String>, Error> {
        let mut units = BTreeSet::new();
        for folder in self.scope.search {
            let folder = TreePath::new(folder).map_err(tree::Error::from)?;
            for (path, _) in self.tree.below(&folder).filter(|(path, _)| path.name() == name) {
                let parent = path.parent().map(|parent| parent.name().to_owned()).unwrap_or_default();
                let unit = parent.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "wants" | "requires"));
                units.extend(unit.map(|(unit, _)| unit.to_owned()));
            }
        }
        Ok(units.into_iter().collect())
    }

    /// The drop-ins of a unit: of its type, its prefixes at a dash, its template and itself; for one file name the more
    /// specific folder and the stronger root win, and the files are sorted by name (systemd.unit(5), "Description").
    fn drop_ins(&self, name: &str) -> Result<Vec<TreePath>, Error> {
        let Some(Parts { prefix, instance, suffix }) = parts(name) else { return Ok(Vec::new()) };
        let mut folders = vec![format!("{suffix}.d")];
        for (dash, _) in prefix.match_indices('-') {
            let (start, _) = prefix.split_at_checked(dash + 1).unwrap_or((prefix, ""));
            let at = if instance.is_some() { "@" } else { "" };
            folders.push(format!("{start}{at}.{suffix}.d"));
        }
        if instance.is_some() {
            folders.push(format!("{prefix}@.{suffix}.d"));
        }
        folders.push(format!("{name}.d"));
        let mut by_name = BTreeMap::new();
        for folder in folders {
            for root in self.scope.search.iter().rev() {
                let place =
                    TreePath::new(root).and_then(|root| root.join(&folder)).map_err(tree::Error::from)?;
                for (path, _) in self.tree.children(&place).filter(|(path, _)| path.name().ends_with(".conf"))
                {
                    by_name.insert(path.name().to_owned(), path.clone());
                }
            }
        }
        let masked = |path: &TreePath| match self.tree.get(path).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) => &**target == "/dev/null",
            _ => false,
        };
        Ok(by_name.into_values().filter(|path| !masked(path)).collect())
    }

    /// The `[Install]` section of a unit and its drop-ins; `None` if it is empty.
    fn install(&self, path: &TreePath, name: &str) -> Result<Option<Install>, Error> {
        let mut install = Install::default();
        let mut said = self.read_install(path, name, &mut install)?;
        for path in self.drop_ins(name)? {
            said |= self.read_install(&path, name, &mut install)?;
        }
        Ok(said.then_some(install))
    }

    /// Adds one file's `[Install]` section; returns whether it has any entries.
    fn read_install(&self, path: &TreePath, name: &str, install: &mut Install) -> Result<bool, Error> {
        let bytes = self.tree.read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let wrong =
            |problem, text: &str| Error::Install { path: path.clone(), problem, text: text.to_owned() };
        let mut said = false;
        for (key, value) in section(&text, "Install") {
            let list = match key.as_str() {
                "WantedBy" => &mut install.wanted_by,
                "RequiredBy" => &mut install.required_by,
                "UpheldBy" => &mut install.upheld_by,
                "Alias" => &mut install.alias,
                "Also" => &mut install.also,
                "DefaultInstance" => {
                    install.default_instance = Some(value).filter(|value| !value.is_empty());
                    continue;
                }
                _ => continue,
            };
            if value.is_empty() {
                list.clear();
                continue;
            }
            said = true;
            let (words, _) =
                systemd_conf::words(&value, usize::MAX).map_err(|_| wrong("unclosed quote", &value))?;
            for word in words {
                list.push(expand(&word, name).ok_or_else(|| wrong("unsupported specifier", &word))?);
            }
        }
        Ok(said)
    }
}

/// Where a unit is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    ByName,
    Also,
}

/// Keys and values of one section, with continuation lines joined and comments dropped.
fn section(text: &str, wanted: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut inside = false;
    let mut joined = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) || (line.is_empty() && joined.is_empty()) {
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            joined.push_str(part);
            joined.push(' ');
            continue;
        }
        joined.push_str(line);
        let whole = std::mem::take(&mut joined);
        match whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => inside = name == wanted,
            None if inside => pairs.extend(
                whole.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())),
            ),
            None => {}
        }
    }
    pairs
}

/// Resolves the specifiers that depend only on the unit's name (systemd.unit(5), "Specifiers").
fn expand(word: &str, name: &str) -> Option<String> {
    let Parts { prefix, instance, .. } = parts(name)?;
    let mut out = String::with_capacity(word.len());
    let mut letters = word.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next()? {
            '%' => out.push('%'),
            'n' => out.push_str(name),
            'N' => out.push_str(name.rsplit_once('.')?.0),
            'p' => out.push_str(prefix),
            'i' => out.push_str(instance.unwrap_or("")),
            'j' => out.push_str(prefix.rsplit('-').next()?),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests;
