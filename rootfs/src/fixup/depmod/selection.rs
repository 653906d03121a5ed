//! Yields the modules that a recipe asks for, with their dependencies, and the order to load them.

use std::collections::BTreeSet;

use globset::Glob;

use super::alias::normal_alias;
use super::{Error, Modules};
use crate::fixup::module::normal_name;
use crate::path::TreePath;
use crate::tree::Tree;

/// What [`Modules::select`] chose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The names of the modules and of all their dependencies.
    pub modules: BTreeSet<String>,
    /// Wanted modules and dependencies that are built into the kernel.
    pub builtin: BTreeSet<String>,
    /// Soft dependencies that neither a module nor the kernel provides: `module: name`.
    pub unmet: BTreeSet<String>,
}

impl Modules {
    /// The modules that a recipe's pattern names: one module, or a glob over names; `-` and `_` are equal.
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
            .map(|other| (strsim::levenshtein(&name, other), other))
            .filter(|(far, _)| *far <= 1 + name.len() / 4)
            .collect();
        near.sort();
        let near = near.into_iter().take(3).map(|(_, name)| name.clone()).collect();
        Error::Unknown { name: wanted.to_owned(), near }
    }

    /// Selects the modules that `wanted` names, and all their dependencies, including soft ones.
    ///
    /// # Errors
    /// [`Error::Unknown`] with similar names, [`Error::MissingDependency`], [`Error::Module`].
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

    /// The dependencies in `depends=`.
    fn depends(&self, name: &str) -> Vec<String> {
        let module = self.read.get(name);
        let lists = module.into_iter().flat_map(|module| module.values("depends"));
        lists.flat_map(|list| list.split(',')).filter(|part| !part.is_empty()).map(normal_name).collect()
    }

    /// The dependencies in `softdep=`.
    fn soft(&self, name: &str) -> Vec<String> {
        let module = self.read.get(name);
        let lists = module.into_iter().flat_map(|module| module.values("softdep"));
        lists
            .flat_map(str::split_whitespace)
            .filter(|word| !matches!(*word, "pre:" | "post:"))
            .map(str::to_owned)
            .collect()
    }

    /// What provides a name or an alias. Aliases come last, since they require reading all modules.
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

    /// The files to load for `names`, in order: dependencies first.
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
}

enum Offer {
    Modules(Vec<String>),
    BuiltIn,
    Nothing,
}
