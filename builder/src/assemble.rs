//! Yields the tree of an image and the parts of its UKI, from a recipe, its lock and the locked files.
//!
//! # Shape
//! ```text
//! debs, tarballs ─ unpack (parallel, cached) ─> layers ─ merge ─> tree ─ fix-ups, recipe's files ─> tree
//!                                                                   └─ kernel, stub, initrd modules
//! ```
//!
//! # Not here
//! Where the files come from: a [`Source`] supplies them. What happens to the tree: `pipeline`.

mod unpacked;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use rootfs::content::{self, Content, Packing, Sha256Digest};
use rootfs::deb;
use rootfs::fixup::{
    accounts, alternatives, base, ca_bundle, depmod, dpkg_status, ld_cache, lint, nsswitch, os_release, pam,
    tmpfiles, units,
};
use rootfs::layer::Layer;
use rootfs::merge::{self, Rules};
use rootfs::npm::{engines, tarball};
use rootfs::omit;
use rootfs::path::{self, TreePath};
use rootfs::tree::{self, Node, Origin, Tree};

use crate::advice::{Advice, Advised};
use crate::lock::{Blob, Ids, Lock};
use crate::recipe::{EntryKind, Recipe, Source as RecipeSource};

/// Why the tree cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A locked file cannot be read.
    #[error("{0}")]
    Blob(#[source] Unavailable),
    /// A locked file is not a valid Debian package.
    #[error("cannot unpack {label}")]
    Deb {
        /// Name and version.
        label: String,
        /// Why.
        source: deb::Error,
    },
    /// A locked file is not a valid npm package.
    #[error("cannot unpack {label}")]
    Npm {
        /// Name and version.
        label: String,
        /// Why.
        source: tarball::Error,
    },
    /// An entry of the lock is invalid.
    #[error("the lock's entry for {0} cannot be used")]
    Lock(String),
    /// An npm entry of the lock cannot be used.
    #[error(transparent)]
    Entry(#[from] crate::resolve::npm::Error),
    /// A package does not run on the pinned Node.js.
    #[error(transparent)]
    Engines(#[from] engines::Error),
    /// An omit rule cannot be used.
    #[error(transparent)]
    Omit(#[from] omit::Error),
    /// The layers conflict.
    #[error("the packages do not fit together")]
    Merge(#[from] merge::Error),
    /// A file of the recipe cannot be read.
    #[error("{place}: cannot read {}", path.display())]
    RecipeFile {
        /// Where the recipe names it.
        place: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A recipe's entry cannot be placed in the tree.
    #[error("{place}")]
    RecipeEntry {
        /// Where the recipe names it.
        place: String,
        /// Why.
        source: tree::Error,
    },
    /// A recipe's entry has an owner or group that does not exist in the image.
    #[error("{place}: there is no {what} {name:?} in the image")]
    Owner {
        /// Where the recipe names it.
        place: String,
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A recipe's entry would replace a path that something else brought.
    #[error("{place}: {path} already comes from {owner}; set `replace = true` to replace it")]
    Taken {
        /// Where the recipe names it.
        place: String,
        /// The path.
        path: TreePath,
        /// What brought it.
        owner: Origin,
    },
    /// A fix-up failed.
    #[error("fix-up {name}")]
    FixUp {
        /// Which one.
        name: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The packages lack something that every image needs.
    #[error("no {what} in the packages: expected {expected}")]
    Missing {
        /// What.
        what: &'static str,
        /// What was expected.
        expected: String,
    },
    /// Programs lack libraries that they need.
    #[error("the image lacks what its programs need{}", listed(.0))]
    Lint(Vec<String>),
    /// A path is invalid.
    #[error(transparent)]
    Path(#[from] path::Error),
    /// Something expected is missing from the tree.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The content of a file cannot be read.
    #[error(transparent)]
    Content(#[from] content::Error),
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        let Error::Lint(_) = self else { return None };
        Some(Advice::failed(
            "add the package that has it, leave the program out, or say in `[lint] absent` why it is not needed",
        ))
    }
}

/// Lists lines below a message.
pub(crate) fn listed(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

fn fix_up<E: std::error::Error + Send + Sync + 'static>(name: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::FixUp { name, source: Box::new(source) }
}

/// Why a source cannot supply a file: the source's own error.
pub type Unavailable = Box<dyn std::error::Error + Send + Sync>;

/// Supplies the locked files and caches what is derived from them.
pub trait Source: Sync {
    /// Returns a locked file.
    ///
    /// # Errors
    /// The reason why it cannot be read.
    fn blob(&self, blob: &Blob) -> Result<content::Blob, Unavailable>;
    /// Returns what was cached under this key.
    fn derived(&self, key: &Sha256Digest) -> Option<content::Blob>;
    /// Caches a derived layer.
    fn keep(&self, key: &Sha256Digest, layer: &Layer);
    /// Reads a file of the recipe.
    ///
    /// # Errors
    /// The file system's error.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Reports that this many bytes of archives are unpacked.
    fn unpacked(&self, bytes: u64);
}

/// The tree of an image, and what comes with it.
#[derive(Debug)]
pub struct Assembled {
    /// The root file system.
    pub tree: Tree,
    /// The kernel, a PE file.
    pub kernel: Vec<u8>,
    /// What `uname -r` says.
    pub kernel_release: String,
    /// The package that brought the kernel.
    pub kernel_origin: Origin,
    /// The UEFI stub, a PE file.
    pub stub: Vec<u8>,
    /// The package that brought the stub.
    pub stub_origin: Option<Origin>,
    /// The copyright file of that package, which the tree does not contain.
    pub stub_copyright: Option<Vec<u8>>,
    /// Control stanzas of all Debian packages, including the stub's.
    pub controls: BTreeMap<Origin, String>,
    /// os-release.
    pub os_release: Vec<u8>,
    /// Modules of the initrd in the order of loading: file name and content.
    pub initrd_modules: Vec<(String, Vec<u8>)>,
    /// Number of modules in the root file system.
    pub modules: usize,
    /// Ids of all users and groups whose ids are not fixed.
    pub ids: Ids,
    /// Files of the recipe: name, size and digest, sorted.
    pub recipe_files: Vec<(String, u64, Sha256Digest)>,
    /// Hints for the user: omit rules that match nothing.
    pub remarks: Vec<String>,
}

/// Which numeric ids apply.
#[derive(Debug, Clone, Copy)]
pub enum IdChoice<'a> {
    /// The lock's ids: an account without one makes the lock stale.
    Pinned(&'a Ids),
    /// An older lock's ids where they are still needed; the others are chosen.
    Choose(&'a Ids),
}

/// Makes the tree.
///
/// # Errors
/// [`Error`] describes the first problem.
pub fn assemble(
    recipe: &Recipe,
    lock: &Lock,
    ids: IdChoice<'_>,
    source: &dyn Source,
) -> Result<Assembled, Error> {
    let mut remarks = Vec::new();
    let (layers, tallies) = unpacked::unpack(recipe, lock, source)?;
    for (name, rules, tally) in tallies {
        for rule in tally.stale() {
            let glob = rules.get(rule).map_or("?", String::as_str);
            remarks.push(format!("omit rule {glob:?} of {name} matches nothing"));
        }
    }
    let stub_origin = lock.debs.iter().find(|deb| deb.name == recipe.kernel.stub_package);
    let stub_origin = stub_origin.map(|deb| Origin::debian(&deb.name, &deb.version));
    let mut stanzas = Vec::new();
    let mut controls = BTreeMap::new();
    let mut replaces = BTreeSet::new();
    for (origin, layer) in &layers {
        if let (Origin::Debian { name, .. }, Some(control)) = (origin, layer.notes.get("control")) {
            replaces.extend(replaced_by(control).map(|loser| (name.to_string(), loser)));
            controls.insert(origin.clone(), control.clone());
            if Some(origin) != stub_origin.as_ref() {
                stanzas.push((control.clone(), layer.notes.get("md5sums").cloned()));
            }
        }
    }
    let mut tree = merge::merge(layers.into_iter(), &Rules { replaces, diversions: Vec::new() })?;
    let (kernel, kernel_release, kernel_origin) = take_kernel(&mut tree)?;
    let stub_copyright = stub_origin.as_ref().and_then(|origin| copyright(&tree, origin));
    let stub = take_stub(&mut tree, stub_origin.as_ref())?;
    base::apply(&mut tree, &recipe.hostname).map_err(fix_up("base"))?;
    let image =
        os_release::Image { id: &recipe.name, version: &recipe.version, profile: recipe.profile.name() };
    let os_release = os_release::apply(&mut tree, &image).map_err(fix_up("os-release"))?;
    let ids = apply_accounts(recipe, ids, &mut tree)?;
    pam::apply(&mut tree).map_err(fix_up("pam"))?;
    nsswitch::apply(&mut tree).map_err(fix_up("nsswitch"))?;
    let recipe_files = apply_entries(recipe, &mut tree, source)?;
    let (initrd_modules, modules) = apply_modules(recipe, &kernel_release, &mut tree)?;
    apply_alternatives(recipe, &mut tree)?;
    if tree.get(&TreePath::new("usr/share/ca-certificates")?).is_some() {
        ca_bundle::apply(&mut tree, &[]).map_err(fix_up("ca-bundle"))?;
    }
    apply_units(recipe, &mut tree)?;
    let packages: Vec<dpkg_status::Package<'_>> = stanzas
        .iter()
        .map(|(control, md5sums)| dpkg_status::Package { control, md5sums: md5sums.as_deref() })
        .collect();
    dpkg_status::apply(&mut tree, &packages).map_err(fix_up("dpkg-status"))?;
    if let Some(generator) = ld_cache::generator(&tree) {
        ld_cache::apply(&mut tree, &generator).map_err(fix_up("ld-cache"))?;
    }
    tmpfiles::apply(&mut tree).map_err(fix_up("tmpfiles"))?;
    Ok(Assembled {
        tree,
        kernel,
        kernel_release,
        kernel_origin,
        stub,
        stub_origin,
        stub_copyright,
        controls,
        os_release,
        initrd_modules,
        modules,
        ids,
        recipe_files,
        remarks,
    })
}

/// Returns how an image of this recipe packs its contents.
pub fn packing(recipe: &Recipe) -> Packing {
    recipe.compression.map_or(Packing::Raw, Packing::Zstd)
}

/// Lists the packages that a control stanza says it replaces.
fn replaced_by(control: &str) -> impl Iterator<Item = String> + '_ {
    let mut inside = false;
    control
        .lines()
        .flat_map(move |line| {
            if line.starts_with([' ', '\t']) {
                return if inside { line } else { "" }.split(',');
            }
            let value = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
            inside = value.is_some();
            value.map_or("", |(_, value)| value).split(',')
        })
        .filter_map(|item| item.split_whitespace().next().map(str::to_owned))
}

/// Takes the kernel and everything else in /boot out of the tree: the kernel belongs in the UKI.
fn take_kernel(tree: &mut Tree) -> Result<(Vec<u8>, String, Origin), Error> {
    let boot = TreePath::new("boot")?;
    let found = tree.children(&boot).find_map(|(path, node)| {
        let release = path.name().strip_prefix("vmlinuz-")?;
        Some((node.content()?.clone(), release.to_owned(), node.origin.clone()))
    });
    let missing = || Error::Missing { what: "kernel", expected: "/boot/vmlinuz-*".to_owned() };
    let (content, release, origin) = found.ok_or_else(missing)?;
    let kernel = content.read()?.into_owned();
    tree.remove(&boot);
    Ok((kernel, release, origin))
}

/// Returns the copyright file of a Debian package, if the tree has one.
pub fn copyright(tree: &Tree, origin: &Origin) -> Option<Vec<u8>> {
    let Origin::Debian { name, .. } = origin else { return None };
    let path = TreePath::new(&format!("usr/share/doc/{name}/copyright")).ok()?;
    tree.read(&path).ok().map(std::borrow::Cow::into_owned)
}

/// Takes the UEFI stub out of the tree, with everything else from its package.
fn take_stub(tree: &mut Tree, origin: Option<&Origin>) -> Result<Vec<u8>, Error> {
    let path = TreePath::new("usr/lib/systemd/boot/efi/linuxx64.efi.stub")?;
    let missing = || Error::Missing { what: "UEFI stub", expected: path.to_string() };
    let stub = tree.get(&path).and_then(Node::content).ok_or_else(missing)?.read()?.into_owned();
    let files: Vec<TreePath> = tree
        .iter()
        .filter(|(_, node)| Some(&node.origin) == origin && !node.is_directory())
        .map(|(path, _)| path.clone())
        .collect();
    for file in files {
        tree.remove(&file);
        let mut above = file.parent();
        while let Some(directory) = above {
            let own = tree.get(&directory).is_some_and(|node| Some(&node.origin) == origin);
            if !own || tree.below(&directory).next().is_some() {
                break;
            }
            tree.remove(&directory);
            above = directory.parent();
        }
    }
    Ok(stub)
}

fn apply_accounts(recipe: &Recipe, choice: IdChoice<'_>, tree: &mut Tree) -> Result<Ids, Error> {
    let declared = accounts::Declared {
        users: recipe
            .users
            .iter()
            .map(|user| accounts::User {
                name: user.name.clone(),
                uid: user.id,
                group: None,
                groups: user.groups.clone(),
                description: user.comment.clone().unwrap_or_default(),
                home: Some(user.home.clone().unwrap_or_else(|| "/nonexistent".to_owned())),
                shell: user.shell.clone(),
            })
            .collect(),
        groups: recipe
            .groups
            .iter()
            .map(|group| accounts::Group { name: group.name.clone(), gid: group.id })
            .collect(),
    };
    let known = match choice {
        IdChoice::Pinned(ids) | IdChoice::Choose(ids) => {
            accounts::Ids { users: ids.users.clone(), groups: ids.groups.clone() }
        }
    };
    let ids = match choice {
        IdChoice::Pinned(_) => known,
        IdChoice::Choose(_) => accounts::plan(tree, &declared, &known).map_err(fix_up("accounts"))?,
    };
    accounts::apply(tree, &declared, &ids).map_err(fix_up("accounts"))?;
    Ok(Ids { users: ids.users, groups: ids.groups })
}

/// Puts the recipe's own files, links and directories into the tree; lists its files.
fn apply_entries(
    recipe: &Recipe,
    tree: &mut Tree,
    source: &dyn Source,
) -> Result<Vec<(String, u64, Sha256Digest)>, Error> {
    let ids = accounts::read(tree).map_err(fix_up("accounts"))?;
    let packing = packing(recipe);
    let mut files = Vec::new();
    for (path, entry) in &recipe.entries {
        let place = || entry.place.to_string();
        let owner = |access: &crate::recipe::Access| -> Result<(u32, u32), Error> {
            let id = |what, map: &BTreeMap<String, u32>, name: &String| {
                map.get(name).copied().ok_or_else(|| Error::Owner {
                    place: place(),
                    what,
                    name: name.clone(),
                })
            };
            Ok((id("user", &ids.users, &access.owner)?, id("group", &ids.groups, &access.group)?))
        };
        let node = match &entry.kind {
            EntryKind::File { content, access } => {
                let bytes =
                    match content {
                        RecipeSource::Text(text) => text.clone().into_bytes(),
                        RecipeSource::Path(path) => source.file(path).map_err(|source| {
                            Error::RecipeFile { place: place(), path: path.clone(), source }
                        })?,
                    };
                let content = Content::pack(&bytes, packing);
                files.push((path.to_string(), content.len(), content.sha256()));
                let (uid, gid) = owner(access)?;
                Node::file(access.mode, content, entry.origin()).owned_by(uid, gid)
            }
            EntryKind::Link(target) => Node::symlink(target, entry.origin()),
            EntryKind::Directory(access) => {
                let (uid, gid) = owner(access)?;
                Node::directory(access.mode, entry.origin()).owned_by(uid, gid)
            }
        };
        if let Some(there) = tree.get(path)
            && !entry.replace
        {
            return Err(Error::Taken { place: place(), path: path.clone(), owner: there.origin.clone() });
        }
        tree.replace(path.clone(), node).map_err(|source| Error::RecipeEntry { place: place(), source })?;
    }
    Ok(files)
}

type InitrdModules = Vec<(String, Vec<u8>)>;

/// Keeps only the modules that the recipe names, and returns those of the initrd.
fn apply_modules(recipe: &Recipe, release: &str, tree: &mut Tree) -> Result<(InitrdModules, usize), Error> {
    let mut modules = depmod::Modules::open(tree, release).map_err(fix_up("depmod"))?;
    let initrd: Vec<&str> =
        recipe.kernel.initrd_modules.iter().map(|name| name.trim_start_matches('?')).collect();
    let wanted: Vec<&str> =
        recipe.kernel.modules.iter().map(String::as_str).chain(initrd.iter().copied()).collect();
    let selection = modules.select(tree, &wanted).map_err(fix_up("depmod"))?;
    let optional: BTreeSet<String> = recipe
        .kernel
        .initrd_modules
        .iter()
        .filter_map(|name| name.strip_prefix('?'))
        .map(rootfs::fixup::module::normal_name)
        .collect();
    let order = modules.load_order(tree, &initrd).map_err(fix_up("depmod"))?;
    let mut loaded = Vec::new();
    for path in order {
        let stem = path.name().split(".ko").next().unwrap_or("");
        let mark = if optional.contains(&rootfs::fixup::module::normal_name(stem)) { "?" } else { "" };
        loaded.push((format!("{mark}{}", path.name()), tree.read(&path)?.into_owned()));
    }
    modules.retain(tree, &selection.modules);
    modules.index(tree).map_err(fix_up("depmod"))?;
    Ok((loaded, selection.modules.len()))
}

fn apply_alternatives(recipe: &Recipe, tree: &mut Tree) -> Result<(), Error> {
    let origin = Origin::fix_up("alternatives");
    let declared: Vec<alternatives::Alternative> = recipe
        .alternatives
        .iter()
        .map(|(name, target)| {
            Ok(alternatives::Alternative {
                name: name.clone(),
                link: TreePath::new("usr/bin")?.join(name)?,
                target: TreePath::new(target)?,
                slaves: Vec::new(),
                origin: origin.clone(),
            })
        })
        .collect::<Result<_, path::Error>>()?;
    alternatives::apply(tree, &declared).map_err(fix_up("alternatives"))?;
    Ok(())
}

fn apply_units(recipe: &Recipe, tree: &mut Tree) -> Result<(), Error> {
    let origin = Origin::fix_up("units");
    let unit = |name: &String| units::Unit { name: name.clone(), origin: origin.clone() };
    let declared = units::Declared {
        enable: recipe.systemd.enable.iter().map(unit).collect(),
        mask: recipe.systemd.mask.iter().map(unit).collect(),
        enable_user: Vec::new(),
        mask_user: Vec::new(),
        default_target: Some(unit(&recipe.systemd.default_target)),
    };
    units::apply(tree, &declared).map_err(fix_up("units"))?;
    Ok(())
}

/// Refuses an image whose programs cannot start; returns the libraries that an optional feature would open
/// and that the image lacks. It reads every program and changes nothing, so other work can run meanwhile.
///
/// # Errors
/// [`Error::Lint`].
pub fn check_libraries(recipe: &Recipe, tree: &Tree) -> Result<Vec<String>, Error> {
    let known: Vec<lint::Acknowledgement> = recipe
        .absent_libraries
        .iter()
        .map(|(name, reason)| lint::Acknowledgement {
            paths: "**".to_owned(),
            lacking: Some(name.clone()),
            reason: reason.clone(),
        })
        .collect();
    let report = lint::lint(tree, &known).map_err(fix_up("lint"))?;
    let of = |level| {
        report
            .findings
            .iter()
            .filter(move |finding| finding.level() == level)
            .map(|finding| finding.to_string())
    };
    let errors: Vec<String> = of(lint::Level::Error).collect();
    if !errors.is_empty() {
        return Err(Error::Lint(errors));
    }
    // One line per library, however many programs open it.
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for finding in &report.findings {
        let opener = finding.origin.to_string();
        match &finding.problem {
            lint::Problem::Dlopen { priority, feature, sonames, .. } => {
                let library = format!("{} ({priority:?} for {feature})", sonames.join(" or ")).to_lowercase();
                wanted.entry(library).or_default().insert(opener);
            }
            lint::Problem::Damaged { reason } => {
                wanted.entry(format!("{}: {reason}", finding.path)).or_default().insert(opener);
            }
            _ => {}
        }
    }
    Ok(wanted
        .into_iter()
        .map(|(library, openers)| {
            let openers: Vec<String> = openers.into_iter().collect();
            format!("missing {library}, which would be opened by {}", openers.join(", "))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_packages_are_read_from_a_stanza() {
        let control = "Package: x\nReplaces: a (<< 2), b,\n c\nDescription: Replaces: d\n Replaces: e\n";
        assert_eq!(replaced_by(control).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
