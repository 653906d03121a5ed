//! Yields what differs between two images, two locks or two recipes: packages, then files, then changes
//! inside them, then everything else.
//!
//! # Shape
//! ```text
//! manifest + contents ─┐
//! lock                 ├─> Side: packages, paths with their aspects, named facts ─┐
//! recipe               ┘                                                          ├─> Difference
//! the other one        ──> Side ──────────────────────────────────────────────────┘
//! ```
//! A package is the set of its versions and digests, wherever it lies. The origin of a path differs if the
//! package's name or the recipe's file does: versions are listed with the packages, and line numbers shift.
//!
//! # Not here
//! Reading the documents and the files in an image (`host::built`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;

use ovmf_measure::shape::{Name, Shape};
use rootfs::content::Sha256Digest;
use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use super::contents::Contents;
use super::explain::Bringer;
use super::manifest::Manifest;
use crate::lock::{Deb, Lock, Npm};
use crate::recipe::document::{self, NpmApplication};
use crate::recipe::{Entry, EntryKind, ReadFile, Recipe, Source};

/// The longest text to compare line by line, in bytes.
pub const MAX_TEXT: usize = 256 * 1024;

/// Name and kind of a package, as `deb dash`.
type Label = (String, String);

/// One version of a package: its version and its digest, either of which may be unknown.
type Version = (String, String);

/// What can be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    packages: BTreeMap<Label, BTreeSet<Version>>,
    paths: BTreeMap<String, BTreeMap<&'static str, String>>,
    facts: BTreeMap<String, Vec<String>>,
}

/// A package that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// `deb`, `npm` or `guest`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Versions before, with the digest if the version alone does not tell them apart.
    pub before: Vec<String>,
    /// Versions after.
    pub after: Vec<String>,
    /// The one profile that it applies to; absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<&'static str>,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// The path.
    pub path: String,
    /// What happened to it.
    pub change: Change,
    /// What differs.
    pub aspects: Vec<Aspect>,
    /// How the content differs, if both contents were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Inside>,
    /// The one profile that it applies to; absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<&'static str>,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It differs.
    Changed,
}

impl Change {
    fn of<T>(before: Option<T>, after: Option<T>) -> Self {
        match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Change::Added => "+",
            Change::Removed => "-",
            Change::Changed => "~",
        }
    }
}

/// One property of a path, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Aspect {
    /// `kind`, `mode`, `owner`, `size`, `sha256`, `target`, `xattrs`, `origin` or `replace`.
    pub name: &'static str,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// After.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// How the content of a file differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Inside {
    /// In lines, as a unified diff.
    Lines(String),
    /// In bytes.
    Bytes {
        /// `ELF`, or `binary or long`.
        what: &'static str,
        /// Offset of the first byte that differs, or at which the shorter file ends.
        first: u64,
    },
}

/// Something else that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FactChange {
    /// Its path in the document.
    pub name: String,
    /// Values that are gone.
    pub removed: Vec<String>,
    /// Values that are new.
    pub added: Vec<String>,
    /// The one profile that it applies to; absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<&'static str>,
}

/// Everything that differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Packages.
    pub packages: Vec<PackageChange>,
    /// Paths.
    pub files: Vec<FileChange>,
    /// Everything else.
    pub facts: Vec<FactChange>,
}

/// Describes a machine whose reference values are computed, in one line.
fn machine((name, shape): &(Name, Shape)) -> String {
    let words = shape.words(*name).into_iter().map(|(word, value)| format!(" {word}={value}"));
    format!("{name}{}", words.collect::<String>())
}

/// Reads the content of the file at a path; `None` if it is not available.
pub type ReadPath<'a> = &'a dyn Fn(&str) -> io::Result<Option<Vec<u8>>>;

impl Side {
    /// Makes the side of an image.
    pub fn of_image(manifest: &Manifest, contents: &Contents) -> Self {
        let mut side = Side::default();
        // JSON can hold all of it: strings, numbers, lists and maps keyed by string.
        let mut value = serde_json::to_value(manifest).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.remove("inputs");
            if let Some(Value::String(line)) = map.remove("command_line") {
                side.facts.insert("command_line".into(), line.split(' ').map(str::to_owned).collect());
            }
        }
        side.flatten("", &value, &["name"]);
        for input in &manifest.inputs {
            let version = (input.version.clone(), input.sha256.clone());
            if input.kind == "recipe" {
                side.facts.insert(format!("inputs recipe {}", input.name), vec![input.sha256.clone()]);
            } else {
                let label = (input.kind.clone(), input.name.clone());
                side.packages.entry(label).or_default().insert(version);
            }
        }
        for item in &contents.paths {
            let mut aspects = BTreeMap::from([
                ("kind", item.kind.clone()),
                ("mode", item.mode.clone()),
                ("owner", format!("{}:{}", item.uid, item.gid)),
                ("origin", bringer(contents.origin(item))),
            ]);
            aspects.extend(item.size.map(|size| ("size", size.to_string())));
            aspects.extend(item.sha256.clone().map(|sha256| ("sha256", sha256)));
            aspects.extend(item.target.clone().map(|target| ("target", target)));
            if !item.xattrs.is_empty() {
                let all: Vec<String> =
                    item.xattrs.iter().map(|(name, value)| format!("{name}={value}")).collect();
                aspects.insert("xattrs", all.join(" "));
            }
            side.paths.insert(item.path.clone(), aspects);
        }
        side
    }

    /// Makes the side of a lock.
    pub fn of_lock(lock: &Lock) -> Self {
        let mut side = Side::default();
        let rest = Lock { debs: Vec::new(), npm: Vec::new(), firmware: None, ..lock.clone() };
        let value = serde_json::to_value(rest).unwrap_or_default();
        side.flatten("", &value, &["suite"]);
        for deb in &lock.debs {
            let label = ("deb".to_owned(), deb.name.clone());
            side.packages.entry(label).or_default().insert((deb.version.clone(), deb.sha256.clone()));
            side.facts.insert(format!("deb {}", deb.name), of_deb(deb));
        }
        if let Some(deb) = &lock.firmware {
            let label = ("firmware".to_owned(), deb.name.clone());
            side.packages.entry(label).or_default().insert((deb.version.clone(), deb.sha256.clone()));
        }
        for npm in &lock.npm {
            let label = ("npm".to_owned(), npm.name.clone());
            side.packages.entry(label).or_default().insert((npm.version.clone(), npm.sha256.clone()));
            side.facts.entry(format!("npm {}", npm.name)).or_default().extend(of_npm(npm));
        }
        for values in side.facts.values_mut() {
            values.sort();
        }
        side
    }

    /// Makes the side of a recipe for one profile; `files` has the content of its files, from [`files_of`].
    pub fn of_recipe(recipe: &Recipe, files: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut side = Side::default();
        let unknown = || BTreeSet::from([("any".to_owned(), String::new())]);
        for name in recipe.debian.packages.keys() {
            side.packages.insert(("deb".into(), name.clone()), unknown());
        }
        let mut fact = |name: &str, values: Vec<String>| {
            side.facts.insert(name.to_owned(), values);
        };
        fact("image name", vec![recipe.name.clone()]);
        fact("image version", vec![recipe.version.clone()]);
        fact("image hostname", vec![recipe.hostname.clone()]);
        fact("debian suite", vec![recipe.debian.suite.clone()]);
        fact("debian snapshot", recipe.debian.snapshot.iter().cloned().collect());
        fact("debian exclude", recipe.debian.exclude.keys().cloned().collect());
        fact("debian omit", recipe.debian.omit.iter().map(omit).collect());
        let scripts = recipe.debian.scripts.iter();
        fact(
            "debian scripts",
            scripts.map(|(name, rule)| format!("{name}: {:?} ({})", rule.action, rule.reason)).collect(),
        );
        fact("kernel package", vec![recipe.kernel.package.clone()]);
        fact("kernel stub-package", vec![recipe.kernel.stub_package.clone()]);
        fact("measure firmware", recipe.measure.firmware.iter().map(|(name, _)| name.clone()).collect());
        fact("measure machines", recipe.measure.machines.iter().map(machine).collect());
        fact("kernel modules", recipe.kernel.modules.clone());
        fact("kernel initrd-modules", recipe.kernel.initrd_modules.clone());
        fact("kernel command-line", recipe.kernel.command_line.clone());
        if let Some(node) = &recipe.node {
            fact("node target", vec![node.target.clone()]);
        }
        recipe.npm.iter().for_each(|npm| application(npm, &mut fact));
        accounts(recipe, &mut fact);
        fact("systemd enable", recipe.systemd.enable.clone());
        fact("systemd mask", recipe.systemd.mask.clone());
        fact("systemd default-target", vec![recipe.systemd.default_target.clone()]);
        let pairs = |map: &BTreeMap<String, String>, between: &str| {
            map.iter().map(|(name, value)| format!("{name}{between}{value}")).collect()
        };
        fact("alternatives", pairs(&recipe.alternatives, " -> "));
        let compression = recipe.compression.map_or("none".to_owned(), |level| format!("zstd:{level}"));
        fact("filesystem compression", vec![compression]);
        fact("disk size", recipe.disk_size.iter().map(u64::to_string).collect());
        fact("lint absent", pairs(&recipe.absent_libraries, ": "));
        let node = recipe.node.iter().flat_map(|node| [("node", &node.version), ("npm", &node.npm_client)]);
        let applications = recipe.npm.iter().map(|npm| (npm.name.as_str(), &npm.version));
        for (name, version) in node.chain(applications) {
            let label = ("npm".to_owned(), name.to_owned());
            side.packages.entry(label).or_default().insert((version.clone(), String::new()));
        }
        for (path, entry) in &recipe.entries {
            let path = path.to_string();
            let aspects = aspects(entry, files.get(&path));
            side.paths.insert(path, aspects);
        }
        side
    }

    /// Adds every leaf of a JSON document, by its path; one of the `keys` names the objects in a list.
    fn flatten(&mut self, way: &str, value: &Value, keys: &[&str]) {
        let below = |name: &str| if way.is_empty() { name.to_owned() } else { format!("{way} {name}") };
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    self.flatten(&below(name), value, keys);
                }
            }
            Value::Array(all) if all.iter().any(Value::is_object) => {
                let name = |item: &Value| {
                    let named = keys.iter().find_map(|key| item.get(key)?.as_str().map(str::to_owned));
                    named.unwrap_or_default()
                };
                self.facts.insert(below("order"), all.iter().map(name).collect());
                for item in all {
                    self.flatten(&below(&name(item)), item, keys);
                }
            }
            Value::Array(all) => {
                self.facts.insert(way.to_owned(), all.iter().map(leaf).collect());
            }
            other => {
                self.facts.insert(way.to_owned(), vec![leaf(other)]);
            }
        }
    }
}

/// Adds what a recipe says about an application, except its version.
fn application(npm: &NpmApplication, fact: &mut dyn FnMut(&str, Vec<String>)) {
    fact(&format!("npm {} target", npm.name), vec![npm.target.clone()]);
    fact(&format!("npm {} omit", npm.name), npm.omit.iter().map(omit).collect());
    if let Some(validate) = &npm.validate {
        let arguments = validate.arguments.join(" ");
        let words = [
            format!("program={}", validate.program),
            format!("arguments={arguments}"),
            format!("variable={}", validate.variable),
            format!("config={}", validate.config),
        ];
        fact(&format!("npm {} validate", npm.name), words.to_vec());
    }
}

/// Adds a recipe's users and groups.
fn accounts(recipe: &Recipe, fact: &mut dyn FnMut(&str, Vec<String>)) {
    for user in &recipe.users {
        let mut words: Vec<String> = user.id.iter().map(|id| format!("id={id}")).collect();
        words.extend(user.home.iter().map(|home| format!("home={home}")));
        words.extend(user.shell.iter().map(|shell| format!("shell={shell}")));
        words.extend(user.comment.iter().map(|comment| format!("comment={comment}")));
        words.extend(user.groups.iter().map(|group| format!("group={group}")));
        words.push("user".to_owned());
        fact(&format!("users {}", user.name), words);
    }
    for group in &recipe.groups {
        let id = group.id.iter().map(|id| format!("id={id}"));
        fact(&format!("groups {}", group.name), id.chain(["group".to_owned()]).collect());
    }
}

/// Lists the properties of one of the recipe's own paths.
fn aspects(entry: &Entry, content: Option<&Vec<u8>>) -> BTreeMap<&'static str, String> {
    let mut aspects = BTreeMap::from([("origin", bringer(&entry.origin().to_string()))]);
    let access = match &entry.kind {
        EntryKind::File { access, .. } => {
            aspects.insert("kind", "file".to_owned());
            Some(access)
        }
        EntryKind::Link(target) => {
            aspects.insert("kind", "symlink".to_owned());
            aspects.insert("target", target.clone());
            None
        }
        EntryKind::Directory(access) => {
            aspects.insert("kind", "directory".to_owned());
            Some(access)
        }
    };
    if let Some(access) = access {
        aspects.insert("mode", format!("{:04o}", access.mode));
        aspects.insert("owner", format!("{}:{}", access.owner, access.group));
    }
    if entry.replace {
        aspects.insert("replace", "true".to_owned());
    }
    if let Some(content) = content {
        aspects.insert("size", content.len().to_string());
        aspects.insert("sha256", Sha256Digest::of(content).to_string());
    }
    aspects
}

fn leaf(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Names the origin of a path, without the parts that change anyway.
fn bringer(origin: &str) -> String {
    match Bringer::of(origin) {
        Bringer::Debian { name, .. } => format!("deb:{name}"),
        Bringer::Npm { name, location, .. } => format!("npm:{name} ({location})"),
        Bringer::Recipe { file, .. } => format!("recipe:{file}"),
        Bringer::FixUp(_) | Bringer::Other(_) => origin.to_owned(),
    }
}

fn omit(rule: &document::Omit) -> String {
    let keep = if rule.keep.is_empty() { String::new() } else { format!(" but {}", rule.keep.join(" ")) };
    format!("{}{keep} ({})", rule.paths.join(" "), rule.reason)
}

fn of_deb(deb: &Deb) -> Vec<String> {
    let mut words = vec![
        format!("architecture={}", deb.architecture),
        format!("suite={}", deb.suite),
        format!("wanted-by={}", deb.wanted_by),
    ];
    words.extend(deb.profiles.iter().map(|profile| format!("profile={}", profile.name())));
    words.extend(deb.scripts.iter().map(|script| format!("script={script}")));
    words
}

fn of_npm(npm: &Npm) -> Vec<String> {
    let mut words = vec![format!("place={}/{}", npm.application, npm.location)];
    words.extend(npm.bin.iter().map(|(name, path)| format!("bin={name}:{path}")));
    if !npm.license.is_empty() {
        words.push(format!("license={}", npm.license));
    }
    if !npm.engines.is_empty() {
        words.push(format!("engines={}", npm.engines));
    }
    words
}

/// Reads the content of a recipe's own files, by their path in the image.
///
/// # Errors
/// The error of `read`, with the file's name.
pub fn files_of(recipe: &Recipe, read: ReadFile<'_>) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for (path, entry) in &recipe.entries {
        let EntryKind::File { content, .. } = &entry.kind else { continue };
        let bytes = match content {
            Source::Text(text) => text.clone().into_bytes(),
            Source::Path(source) => read(source).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{}: {} of {path}: {error}", entry.place, source.display()),
                )
            })?,
        };
        all.insert(path.to_string(), bytes);
    }
    Ok(all)
}

/// Lists what differs; for file contents it says only that they differ.
pub fn compare(before: &Side, after: &Side) -> Difference {
    let mut difference = Difference::default();
    let mut new_or_gone: BTreeSet<String> = BTreeSet::new();
    let none = BTreeSet::new();
    for label in union(&before.packages, &after.packages) {
        let old = before.packages.get(label).unwrap_or(&none);
        let new = after.packages.get(label).unwrap_or(&none);
        if old == new {
            continue;
        }
        let (kind, name) = label.clone();
        if old.is_empty() || new.is_empty() {
            new_or_gone.insert(format!("{kind} {name}"));
        }
        let versions = |set: &BTreeSet<Version>| -> BTreeSet<String> {
            set.iter().map(|(version, _)| version.clone()).collect()
        };
        let by_version = versions(old) != versions(new);
        let said = |set: &BTreeSet<Version>| -> Vec<String> {
            if by_version && !versions(set).contains("") {
                return versions(set).into_iter().collect();
            }
            let long = |(version, sha256): &Version| match (version.as_str(), sha256.as_str()) {
                (version, "") => version.to_owned(),
                ("", sha256) => format!("sha256:{sha256}"),
                (version, sha256) => format!("{version} sha256:{sha256}"),
            };
            set.iter().map(long).collect()
        };
        let (before, after) = (said(old), said(new));
        difference.packages.push(PackageChange { kind, name, before, after, profile: None });
    }
    for path in union(&before.paths, &after.paths) {
        let (old, new) = (before.paths.get(path), after.paths.get(path));
        if old == new {
            continue;
        }
        let change = Change::of(old, new);
        let nothing = BTreeMap::new();
        let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
        let aspects = union(old, new)
            .into_iter()
            .map(|name| Aspect { name, before: old.get(name).cloned(), after: new.get(name).cloned() })
            .filter(|aspect| aspect.before != aspect.after)
            .collect();
        let path = path.clone();
        difference.files.push(FileChange { path, change, aspects, content: None, profile: None });
    }
    let empty = Vec::new();
    for name in union(&before.facts, &after.facts) {
        let old = before.facts.get(name).unwrap_or(&empty);
        let new = after.facts.get(name).unwrap_or(&empty);
        if old == new || new_or_gone.contains(name) {
            continue;
        }
        let (mut removed, mut added) = (without(old, new), without(new, old));
        if removed.is_empty() && added.is_empty() {
            // Only the order differs.
            (removed, added) = (vec![old.join(" ")], vec![new.join(" ")]);
        }
        difference.facts.push(FactChange { name: name.clone(), removed, added, profile: None });
    }
    difference
}

fn union<'a, K: Ord, V, W>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, W>) -> BTreeSet<&'a K> {
    a.keys().chain(b.keys()).collect()
}

/// Returns what remains of `all` after each of `others` removes one equal entry.
fn without(all: &[String], others: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for other in others {
        *counts.entry(other).or_default() += 1;
    }
    let mut left = Vec::new();
    for value in all {
        match counts.get_mut(value) {
            Some(count) if *count > 0 => *count -= 1,
            _ => left.push(value.clone()),
        }
    }
    left
}

/// Returns how two contents differ.
pub fn inside(path: &str, before: &[u8], after: &[u8]) -> Inside {
    if let (Some(old), Some(new)) = (text(before), text(after)) {
        let name = path.trim_start_matches('/');
        let lines = TextDiff::from_lines(old, new);
        let unified = lines.unified_diff().header(&format!("a/{name}"), &format!("b/{name}")).to_string();
        return Inside::Lines(unified);
    }
    let same = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let elf = |bytes: &[u8]| bytes.starts_with(b"\x7fELF");
    let what = if elf(before) && elf(after) { "ELF" } else { "binary or long" };
    Inside::Bytes { what, first: same as u64 }
}

/// Returns the bytes as text, if they can be shown line by line.
fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_TEXT)?;
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
    (!text.contains(odd)).then_some(text)
}

impl Difference {
    /// Returns whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.files.is_empty() && self.facts.is_empty()
    }

    /// Adds how file contents differ, where both are available.
    ///
    /// # Errors
    /// The error of `before` or `after`.
    pub fn look_into(&mut self, before: ReadPath<'_>, after: ReadPath<'_>) -> io::Result<()> {
        for file in &mut self.files {
            let content = file.aspects.iter().find(|aspect| aspect.name == "sha256");
            if content.is_none_or(|content| content.before.is_none() || content.after.is_none()) {
                continue;
            }
            if let (Some(old), Some(new)) = (before(&file.path)?, after(&file.path)?) {
                file.content = Some(inside(&file.path, &old, &new));
            }
        }
        Ok(())
    }

    /// Merges the differences of both profiles: an entry that is not the same in both names its profile.
    pub fn of_profiles(release: Difference, debug: Difference) -> Self {
        fn merge<T: PartialEq>(a: Vec<T>, b: Vec<T>, mark: fn(&mut T, &'static str)) -> Vec<T> {
            let (mut all, mut rest) = (Vec::new(), b);
            for mut change in a {
                match rest.iter().position(|other| *other == change) {
                    Some(at) => drop(rest.remove(at)),
                    None => mark(&mut change, "release"),
                }
                all.push(change);
            }
            for mut change in rest {
                mark(&mut change, "debug");
                all.push(change);
            }
            all
        }
        Difference {
            packages: merge(release.packages, debug.packages, |change, name| change.profile = Some(name)),
            files: merge(release.files, debug.files, |change, name| change.profile = Some(name)),
            facts: merge(release.facts, debug.facts, |change, name| change.profile = Some(name)),
        }
    }

    /// Formats it for people; the text ends with a newline.
    pub fn to_text(&self) -> String {
        let only = |profile: &Option<&str>| profile.map_or(String::new(), |name| format!(" (only {name})"));
        let mut text = String::new();
        if !self.packages.is_empty() {
            text.push_str("packages\n");
        }
        for change in &self.packages {
            let sides = [&change.before, &change.after].map(|versions| versions.join(", "));
            let versions: Vec<&str> =
                sides.iter().map(String::as_str).filter(|side| !side.is_empty()).collect();
            let versions = versions.join(" -> ");
            let sign = Change::of(change.before.first(), change.after.first()).sign();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "  {sign} {} {} {versions}{}",
                change.kind,
                change.name,
                only(&change.profile)
            );
        }
        if !self.files.is_empty() {
            text.push_str("files\n");
        }
        for file in &self.files {
            let sign = file.change.sign();
            let aspects: Vec<String> = match file.change {
                Change::Changed => file.aspects.iter().map(Aspect::words).collect(),
                Change::Added | Change::Removed => {
                    let value = |name| {
                        let aspect = file.aspects.iter().find(|aspect| aspect.name == name)?;
                        aspect.before.clone().or_else(|| aspect.after.clone())
                    };
                    let target = value("target").map(|target| format!("-> {target}"));
                    let size = value("size").map(|size| format!("{size} bytes"));
                    let origin = value("origin").map(|origin| format!("from {origin}"));
                    value("kind").into_iter().chain(target).chain(size).chain(origin).collect()
                }
            };
            let _ = writeln!(text, "  {sign} {}  {}{}", file.path, aspects.join(", "), only(&file.profile));
        }
        let looked_into: Vec<_> =
            self.files.iter().filter_map(|file| Some((file, file.content.as_ref()?))).collect();
        if !looked_into.is_empty() {
            text.push_str("what changed in them\n");
        }
        for (file, inside) in looked_into {
            match inside {
                Inside::Lines(lines) => text.push_str(lines),
                Inside::Bytes { what, first } => {
                    let _ = writeln!(text, "{}: {what}, differs from byte {first} on", file.path);
                }
            }
        }
        if !self.facts.is_empty() {
            text.push_str("everything else\n");
        }
        for fact in &self.facts {
            let said = match (fact.removed.as_slice(), fact.added.as_slice()) {
                ([before], [after]) => format!("{before} -> {after}"),
                (removed, added) => {
                    let removed = removed.iter().map(|value| format!("- {value}"));
                    let added = added.iter().map(|value| format!("+ {value}"));
                    removed.chain(added).collect::<Vec<_>>().join(", ")
                }
            };
            let _ = writeln!(text, "  {}: {said}{}", fact.name, only(&fact.profile));
        }
        let _ = match self.is_empty() {
            true => writeln!(text, "equal"),
            false => writeln!(
                text,
                "different: packages {}, files {}, everything else {}",
                self.packages.len(),
                self.files.len(),
                self.facts.len()
            ),
        };
        text
    }
}

impl Aspect {
    fn words(&self) -> String {
        let short = |value: &Option<String>| match value {
            Some(value) if self.name == "sha256" => value.chars().take(12).collect(),
            Some(value) => value.clone(),
            None => "none".to_owned(),
        };
        format!("{} {} -> {}", self.name, short(&self.before), short(&self.after))
    }
}

#[cfg(test)]
mod tests;
