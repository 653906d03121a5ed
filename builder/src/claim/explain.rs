//! Yields what is known about a path of an image and about the image's size, from the list of its contents,
//! its manifest and its lock: `proofmark why` and `proofmark size`.
//!
//! # Shape
//! ```text
//! contents + path ─> Explanation (or Absence: what is near it)
//! lock + origin   ─> the chain of packages that wanted the one that brought the path
//! contents        ─> Sizes: bytes by origin, and by folder with everything below it
//! ```
//! Sizes are bytes before compression unless stated otherwise.
//!
//! # Not here
//! Reading the documents (`host::built`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;

use super::contents::{Contents, Item};
use super::manifest::Manifest;
use crate::amount;
use crate::lock::{Lock, NpmRole};
use crate::recipe::near_miss;

/// How many links a path may lead through (Linux `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// How many paths with the same name to suggest for an absent one.
const NEAR: usize = 5;

/// What brought a path, as [`Contents::origins`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bringer<'a> {
    /// A Debian package.
    Debian {
        /// Its name.
        name: &'a str,
        /// Its version.
        version: &'a str,
    },
    /// An npm package.
    Npm {
        /// Its name.
        name: &'a str,
        /// Its version.
        version: &'a str,
        /// Its place in the application.
        location: &'a str,
    },
    /// A line of a recipe.
    Recipe {
        /// The recipe's file.
        file: &'a str,
        /// The line.
        line: &'a str,
    },
    /// A fix-up.
    FixUp(&'a str),
    /// An origin that this program does not know.
    Other(&'a str),
}

impl<'a> Bringer<'a> {
    /// Parses an origin.
    pub fn of(origin: &'a str) -> Self {
        let parts = origin.split_once(':').and_then(|(kind, rest)| match kind {
            "deb" => rest.split_once('=').map(|(name, version)| Bringer::Debian { name, version }),
            "npm" => {
                let (package, location) = rest.strip_suffix(')')?.split_once(" (")?;
                let (name, version) = package.rsplit_once('@')?;
                Some(Bringer::Npm { name, version, location })
            }
            "recipe" => rest.rsplit_once(':').map(|(file, line)| Bringer::Recipe { file, line }),
            "fix-up" => Some(Bringer::FixUp(rest)),
            _ => None,
        });
        parts.unwrap_or(Bringer::Other(origin))
    }

    /// Describes it in words.
    fn words(self) -> String {
        match self {
            Bringer::Debian { name, version } => format!("Debian package {name} {version}"),
            Bringer::Npm { name, version, location } => format!("npm package {name} {version} in {location}"),
            Bringer::Recipe { file, line } => format!("line {line} of {file}"),
            Bringer::FixUp(name) => format!("fix-up {name} of the build"),
            Bringer::Other(origin) => origin.to_owned(),
        }
    }
}

/// A symbolic link on the way to a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The link.
    pub link: String,
    /// The link's target, as written.
    pub target: String,
}

/// What is known about a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path that was asked for, normalised.
    pub asked: String,
    /// Links to directories on the way.
    pub followed: Vec<Step>,
    /// The path itself, with its entry in the list.
    #[serde(flatten)]
    pub item: Item,
    /// For a link: the path that it finally leads to; absent if there is nothing at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leads_to: Option<String>,
    /// What brought it.
    pub brought_by: String,
    /// For a package: the package, what required it, and so on; absent without a lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Vec<String>>,
}

/// A path that is not in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// The path that was asked for, normalised.
    pub asked: String,
    /// Links on the way.
    pub followed: Vec<Step>,
    /// The first path on the way that does not exist.
    pub missing: String,
    /// Suggestions.
    pub near: Vec<String>,
}

/// Whether the last part of a path is followed when it is a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Follow,
    Keep,
}

/// Where a path leads to.
enum Place {
    At(String),
    Missing(String),
    Circle(String),
}

type Index<'a> = BTreeMap<&'a str, &'a Item>;

fn resolve(index: &Index<'_>, path: &str, last: Last) -> (Place, Vec<Step>) {
    let mut todo: Vec<&str> = path.rsplit('/').collect();
    let mut here = String::new();
    let mut steps: Vec<Step> = Vec::new();
    while let Some(part) = todo.pop() {
        match part {
            "" | "." => continue,
            ".." => {
                here.truncate(here.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let next = format!("{here}/{part}");
        let Some(item) = index.get(next.as_str()) else { return (Place::Missing(next), steps) };
        match &item.target {
            Some(target) if item.kind == "symlink" && (last == Last::Follow || !todo.is_empty()) => {
                steps.push(Step { link: next.clone(), target: target.clone() });
                if steps.len() > MAX_LINKS {
                    return (Place::Circle(next), steps);
                }
                if target.starts_with('/') {
                    here.clear();
                }
                todo.extend(target.rsplit('/'));
            }
            _ => here = next,
        }
    }
    (Place::At(if here.is_empty() { "/".to_owned() } else { here }), steps)
}

/// Explains a path; without a lock, it does not say why a package is there.
///
/// # Errors
/// [`Absence`] if nothing is at the path.
pub fn why(contents: &Contents, lock: Option<&Lock>, path: &str) -> Result<Explanation, Absence> {
    let index: Index<'_> = contents.paths.iter().map(|item| (item.path.as_str(), item)).collect();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let asked = format!("/{}", parts.join("/"));
    let (place, followed) = resolve(&index, &asked, Last::Keep);
    let path = match place {
        Place::At(path) => path,
        Place::Missing(missing) | Place::Circle(missing) => {
            let near = near(&index, &missing, &asked);
            return Err(Absence { asked, followed, missing, near });
        }
    };
    let Some(item) = index.get(path.as_str()) else {
        return Err(Absence { asked, followed, missing: path, near: Vec::new() });
    };
    let leads_to = match resolve(&index, &item.path, Last::Follow) {
        (Place::At(end), _) if item.kind == "symlink" => Some(end),
        _ => None,
    };
    let origin = contents.origin(item);
    Ok(Explanation {
        asked,
        followed,
        item: (*item).clone(),
        leads_to,
        brought_by: origin.to_owned(),
        chain: lock.and_then(|lock| chain(lock, Bringer::of(origin))),
    })
}

/// Lists a package, what required it, what required that, and so on up to the recipe; `None` if the origin is
/// not a package or the lock does not list it.
pub fn chain(lock: &Lock, bringer: Bringer<'_>) -> Option<Vec<String>> {
    match bringer {
        Bringer::Debian { name, version } => {
            let mut deb = lock.debs.iter().find(|deb| deb.name == name && deb.version == version)?;
            let mut chain = Vec::new();
            let mut seen = BTreeSet::new();
            loop {
                let profiles: Vec<&str> = deb.profiles.iter().map(|profile| profile.name()).collect();
                let only = if profiles.is_empty() {
                    String::new()
                } else {
                    format!(" (only {})", profiles.join(", "))
                };
                chain.push(format!("{} {}{only}", deb.name, deb.version));
                if !seen.insert(&deb.name) {
                    return Some(chain);
                }
                match lock.debs.iter().find(|other| other.name == deb.wanted_by) {
                    Some(other) if deb.wanted_by != "recipe" => deb = other,
                    _ => {
                        chain.push(deb.wanted_by.clone());
                        return Some(chain);
                    }
                }
            }
        }
        Bringer::Npm { name, version, location } => {
            let is_it = |npm: &&crate::lock::Npm| npm.name == name && npm.version == version;
            let all: Vec<_> = lock.npm.iter().filter(is_it).collect();
            let exact: Vec<_> = all.iter().copied().filter(|npm| npm.location == location).collect();
            let found = if exact.is_empty() { all } else { exact };
            let parents: BTreeSet<String> = found
                .iter()
                .map(|npm| match npm.role {
                    NpmRole::Node => "Node.js of the recipe".to_owned(),
                    NpmRole::Client => "the npm client of the recipe".to_owned(),
                    NpmRole::Application => format!("the tree of application {}", npm.application),
                })
                .collect();
            if parents.is_empty() {
                return None;
            }
            let parents: Vec<String> = parents.into_iter().collect();
            Some(vec![format!("{name} {version}"), parents.join(", "), "recipe".to_owned()])
        }
        _ => None,
    }
}

/// Suggests paths for one that is absent: the nearest name beside it, and the same name elsewhere.
fn near(index: &Index<'_>, missing: &str, asked: &str) -> Vec<String> {
    let (folder, name) = missing.rsplit_once('/').unwrap_or(("", missing));
    let prefix = format!("{folder}/");
    let beside = index
        .range(prefix.as_str()..)
        .map_while(|(path, _)| path.strip_prefix(prefix.as_str()))
        .filter(|name| !name.is_empty() && !name.contains('/'));
    let mut near: Vec<String> =
        near_miss(name, beside).map(|name| format!("{prefix}{name}")).into_iter().collect();
    let wanted = asked.rsplit('/').next().unwrap_or(asked);
    let elsewhere = index.keys().filter(|path| path.rsplit('/').next() == Some(wanted) && !wanted.is_empty());
    for path in elsewhere.take(NEAR) {
        if !near.iter().any(|known| known == path) {
            near.push((*path).to_owned());
        }
    }
    near
}

impl Explanation {
    /// Formats it for people; the text ends with a newline.
    pub fn to_text(&self) -> String {
        let item = &self.item;
        let mut text = format!("{}\n", item.path);
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<7} {value}");
        };
        if self.asked != item.path {
            let steps: Vec<String> =
                self.followed.iter().map(|step| format!("{} -> {}", step.link, step.target)).collect();
            line("asked", &format!("{} ({})", self.asked, steps.join(", ")));
        }
        line("kind", &item.kind);
        if let Some(target) = &item.target {
            match &self.leads_to {
                Some(end) if end != target => line("target", &format!("{target}, which is {end}")),
                None if item.kind == "symlink" => {
                    line("target", &format!("{target}, which leads to nothing"));
                }
                _ => line("target", target),
            }
        }
        line("mode", &item.mode);
        line("owner", &format!("{}:{}", item.uid, item.gid));
        if let Some(size) = item.size {
            line("size", &format!("{size} bytes"));
        }
        if let Some(sha256) = &item.sha256 {
            line("sha256", sha256);
        }
        for (name, value) in &item.xattrs {
            line("xattr", &format!("{name} = {value}"));
        }
        let bringer = Bringer::of(&self.brought_by);
        line("from", &bringer.words());
        let is_package = matches!(bringer, Bringer::Debian { .. } | Bringer::Npm { .. });
        match &self.chain {
            Some(chain) => line("why", &chain.join(" <- ")),
            None if is_package => line("why", "unknown: no lock names the package; give one with --lock"),
            None => {}
        }
        text
    }
}

impl Absence {
    /// States the problem in one clause.
    pub fn message(&self) -> String {
        let steps: Vec<String> =
            self.followed.iter().take(3).map(|step| format!("{} -> {}", step.link, step.target)).collect();
        match (self.followed.len() > MAX_LINKS, steps.is_empty()) {
            (true, _) => format!("{} leads into a loop of links: {}", self.asked, steps.join(", ")),
            (false, true) if self.missing == self.asked => format!("{} is not in the image", self.asked),
            (false, true) => format!("{} is not in the image: there is no {}", self.asked, self.missing),
            (false, false) => format!(
                "{} is not in the image: {}, and there is no {}",
                self.asked,
                steps.join(", "),
                self.missing
            ),
        }
    }

    /// Suggests what to do next.
    pub fn hint(&self) -> String {
        if self.near.is_empty() {
            "an `omit` rule of the recipe may have left it out, or no package in the image contains it"
                .to_owned()
        } else {
            format!("there is {}", self.near.join(", "))
        }
    }
}

/// Bytes and paths of a part of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Name of the part.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Number of its files.
    pub files: u64,
    /// Number of its paths of any kind.
    pub paths: u64,
}

impl Share {
    fn add(&mut self, item: &Item) {
        self.bytes = self.bytes.saturating_add(item.size.unwrap_or(0));
        self.files += u64::from(item.kind == "file");
        self.paths += 1;
    }
}

/// What takes up space in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// The whole image.
    pub total: Share,
    /// Bytes of files, with equal files counted once, as the file system stores them.
    pub different_bytes: u64,
    /// Size of the file system in bytes, compressed as [`Sizes::compression`] says.
    pub filesystem_bytes: u64,
    /// How the file system is compressed.
    pub compression: String,
    /// Sizes of the outputs in bytes, by file name; a disk may be sparse.
    pub outputs: BTreeMap<String, u64>,
    /// By origin, largest first; one npm package in several places counts as one.
    pub origins: Vec<Share>,
    /// By folder, including everything below it, largest first.
    pub folders: Vec<Share>,
}

/// Adds up the sizes of an image, for folders at most `depth` deep.
pub fn sizes(contents: &Contents, manifest: &Manifest, depth: usize) -> Sizes {
    let mut total = Share { name: "all".to_owned(), ..Share::default() };
    let mut different: BTreeMap<&str, u64> = BTreeMap::new();
    let mut origins: BTreeMap<String, Share> = BTreeMap::new();
    let mut folders: BTreeMap<&str, Share> = BTreeMap::new();
    for item in &contents.paths {
        total.add(item);
        if let (Some(sha256), Some(size)) = (&item.sha256, item.size) {
            different.insert(sha256, size);
        }
        let origin = contents.origin(item);
        let name = match Bringer::of(origin) {
            Bringer::Npm { name, version, .. } => format!("npm:{name}@{version}"),
            _ => origin.to_owned(),
        };
        origins.entry(name).or_default().add(item);
        let ends = item.path.match_indices('/').map(|(at, _)| at).skip(1).chain([item.path.len()]);
        for folder in ends.take(depth).filter_map(|end| item.path.get(..end)) {
            // The last one is the path itself, which counts only if it is a directory.
            if folder != item.path || (item.kind == "directory" && folder != "/") {
                folders.entry(folder).or_default().add(item);
            }
        }
    }
    let largest_first = |shares: Vec<Share>| {
        let mut shares = shares;
        shares.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        shares
    };
    let origins = origins.into_iter().map(|(name, share)| Share { name, ..share }).collect();
    let folders = folders.into_iter().map(|(name, share)| Share { name: name.to_owned(), ..share }).collect();
    Sizes {
        total,
        different_bytes: different.values().fold(0, |sum, size| sum.saturating_add(*size)),
        filesystem_bytes: manifest.filesystem.size,
        compression: manifest.filesystem.compression.clone(),
        outputs: manifest.outputs.iter().map(|(name, output)| (name.clone(), output.size)).collect(),
        origins: largest_first(origins),
        folders: largest_first(folders),
    }
}

impl Sizes {
    /// Keeps at most `top` origins and folders.
    pub fn top(mut self, top: usize) -> Self {
        self.origins.truncate(top);
        self.folders.truncate(top);
        self
    }

    /// Formats it for people, with at most `top` origins and folders; the text ends with a newline.
    pub fn to_text(&self, top: usize) -> String {
        let mut text = String::new();
        let mut line = |bytes: u64, rest: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:>11}  {rest}", amount::bytes(bytes));
        };
        let total = &self.total;
        line(total.bytes, &format!("in {} files, of {} paths", total.files, total.paths));
        line(self.different_bytes, "with identical files counted once");
        line(self.filesystem_bytes, &format!("as a file system, compression {}", self.compression));
        for (name, bytes) in &self.outputs {
            line(*bytes, name);
        }
        for (title, shares) in [("by package", &self.origins), ("by folder", &self.folders)] {
            let _ = writeln!(text, "\n{title}");
            let mut line = |bytes: u64, files: u64, name: &str| {
                let _ = writeln!(text, "{:>11} {files:>7} files  {name}", amount::bytes(bytes));
            };
            for share in shares.iter().take(top) {
                line(share.bytes, share.files, &share.name);
            }
            let more = shares.len().saturating_sub(top);
            if more > 0 {
                let _ = writeln!(text, "{:>11} {more:>7} more (--top)", "");
            }
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::claim::manifest::{
        self, Disk, Filesystem, Input, Kernel, Output, Part, Partition, Tool, Verity,
    };
    use crate::lock::tests::sample;
    use crate::recipe::Profile;

    pub(crate) fn item(path: &str, kind: &str, origin: usize, what: &str) -> Item {
        let file = kind == "file";
        Item {
            path: path.into(),
            kind: kind.into(),
            mode: if file { "0644".into() } else { "0755".into() },
            uid: 0,
            gid: 0,
            origin,
            size: file.then_some(what.len() as u64),
            sha256: file.then(|| rootfs::content::Sha256Digest::of(what.as_bytes()).to_string()),
            target: (kind == "symlink" || kind == "hardlink").then(|| what.to_owned()),
            xattrs: BTreeMap::new(),
        }
    }

    pub(crate) fn contents() -> Contents {
        Contents {
            form: super::super::contents::FORM.into(),
            origins: [
                "deb:a=1:2-3",
                "deb:b=1:2-3",
                "fix-up:base",
                "npm:x@1.0.0 (node_modules/x)",
                "recipe:r:7",
            ]
            .map(String::from)
            .to_vec(),
            paths: vec![
                item("/", "directory", 2, ""),
                item("/bin", "symlink", 2, "usr/bin"),
                item("/etc", "directory", 2, ""),
                item("/etc/conf", "file", 4, "one\ntwo\n"),
                item("/etc/loop", "symlink", 4, "loop"),
                item("/etc/nowhere", "symlink", 4, "/none"),
                item("/opt", "directory", 2, ""),
                item("/opt/x.js", "file", 3, "x"),
                item("/usr", "directory", 0, ""),
                item("/usr/bin", "directory", 0, ""),
                item("/usr/bin/dash", "file", 0, "\u{7f}ELF shell"),
                item("/usr/bin/sh", "symlink", 1, "dash"),
            ],
        }
    }

    pub(crate) fn manifest() -> Manifest {
        let part = |name: &str| Part { name: name.into(), size: 3, sha256: "11".repeat(32) };
        let input = |kind: &str, name: &str, version: &str| Input {
            kind: kind.into(),
            name: name.into(),
            version: version.into(),
            size: 1,
            sha256: "22".repeat(32),
        };
        Manifest {
            form: manifest::FORM.into(),
            name: "t".into(),
            version: "1".into(),
            profile: Profile::Release,
            tool: Tool { name: "proofmark".into(), version: "0".into(), compressor: "zstd 1.5.7".into() },
            lock_sha256: "33".repeat(32),
            epoch: 1,
            kernel: Kernel { release: "6.12".into(), initrd_modules: vec!["erofs".into()], modules: 1 },
            command_line: "roothash=00 quiet ro".into(),
            filesystem: Filesystem {
                kind: "erofs".into(),
                uuid: "u".into(),
                size: 4096,
                compression: "zstd:3".into(),
                paths: 12,
            },
            verity: Verity {
                root_hash: "00".into(),
                salt: "44".into(),
                algorithm: "sha256".into(),
                block_size: 4096,
                data_blocks: 1,
                hash_start: 1,
                uuid: "v".into(),
            },
            disk: Disk {
                guid: "g".into(),
                size: 8192,
                partitions: vec![Partition {
                    name: crate::image::disk::Kind::Root.name().into(),
                    type_guid: "t".into(),
                    guid: "p".into(),
                    first_lba: 2,
                    last_lba: 9,
                }],
            },
            uki: vec![part(".linux"), part(".initrd")],
            secure_boot: None,
            inputs: vec![input("deb", "a", "1:2-3"), input("npm", "x", "1.0.0"), input("recipe", "r", "")],
            outputs: BTreeMap::from([("disk.raw".into(), Output { size: 2 << 20, sha256: "55".repeat(32) })]),
        }
    }

    fn lock() -> Lock {
        let mut lock = sample();
        for deb in &mut lock.debs {
            if deb.name == "a" {
                deb.wanted_by = "b".into();
            }
        }
        lock
    }

    #[test]
    fn a_file_of_a_package_says_who_wanted_the_package() {
        let told = why(&contents(), Some(&lock()), "bin/../bin//dash").unwrap();
        let digest = rootfs::content::Sha256Digest::of("\u{7f}ELF shell".as_bytes());
        assert_eq!(
            told.to_text(),
            format!(
                "/usr/bin/dash\n  asked   /bin/../bin/dash (/bin -> usr/bin)\n  kind    file\n\
                 \x20 mode    0644\n  owner   0:0\n  size    10 bytes\n  sha256  {digest}\n\
                 \x20 from    Debian package a 1:2-3\n  why     a 1:2-3 <- b 1:2-3 (only debug) <- recipe\n"
            )
        );
    }

    #[test]
    fn a_link_says_where_it_leads() {
        let text = |path: &str| why(&contents(), Some(&lock()), path).unwrap().to_text();
        assert!(text("/bin/sh").contains("  target  dash, which is /usr/bin/dash\n"));
        assert!(text("/etc/nowhere").contains("  target  /none, which leads to nothing\n"));
        assert!(text("/etc/loop").contains("leads to nothing"));
        assert!(text("/etc/nowhere").ends_with("  from    line 7 of r\n"));
        assert!(text("/").starts_with("/\n  kind    directory\n"));
    }

    #[test]
    fn without_a_lock_the_chain_is_said_to_be_unknown() {
        let told = why(&contents(), None, "/usr/bin/dash").unwrap();
        assert_eq!(told.chain, None);
        assert!(told.to_text().contains("  why     unknown"));
        let npm = why(&contents(), Some(&lock()), "/opt/x.js").unwrap();
        assert_eq!(npm.chain.unwrap(), ["x 1.0.0", "the tree of application x", "recipe"]);
    }

    #[test]
    fn packages_that_want_each_other_end_the_chain() {
        let mut lock = lock();
        lock.debs.iter_mut().filter(|deb| deb.name == "b").for_each(|deb| deb.wanted_by = "a".into());
        let chain = chain(&lock, Bringer::of("deb:a=1:2-3")).unwrap();
        assert_eq!(chain, ["a 1:2-3", "b 1:2-3 (only debug)", "a 1:2-3"]);
        assert_eq!(super::chain(&lock, Bringer::of("deb:a=9")), None);
    }

    #[test]
    fn an_absent_path_is_refused_with_what_is_near_it() {
        let absent = |path: &str| {
            let absence = why(&contents(), None, path).unwrap_err();
            (absence.message(), absence.hint())
        };
        assert_eq!(
            absent("/bin/dish"),
            (
                "/bin/dish is not in the image: /bin -> usr/bin, and there is no /usr/bin/dish".into(),
                "there is /usr/bin/dash".into()
            )
        );
        assert_eq!(
            absent("/sbin/dash"),
            (
                "/sbin/dash is not in the image: there is no /sbin".into(),
                "there is /bin, /usr/bin/dash".into()
            )
        );
        assert!(absent("/etc/loop/x").0.contains("a loop of links"));
        assert!(absent("/etc/conf/x").0.starts_with("/etc/conf/x is not in the image"));
        assert!(absent("/zzzzzzz").1.contains("`omit` rule"));
    }

    #[test]
    fn origins_are_taken_apart() {
        let npm = Bringer::Npm { name: "@s/p", version: "1.0.0", location: "node_modules/@s/p" };
        assert_eq!(Bringer::of("npm:@s/p@1.0.0 (node_modules/@s/p)"), npm);
        assert_eq!(Bringer::of("recipe:../b/r.toml:12"), Bringer::Recipe { file: "../b/r.toml", line: "12" });
        for odd in ["", "deb:a", "npm:x", "new:thing"] {
            assert_eq!(Bringer::of(odd), Bringer::Other(odd));
        }
    }

    #[test]
    fn sizes_add_up_and_the_largest_comes_first() {
        let mut contents = contents();
        contents.paths.push(item("/usr/bin/dish", "file", 0, "\u{7f}ELF shell"));
        let sizes = sizes(&contents, &manifest(), 2);
        assert_eq!(sizes.origins.iter().map(|share| share.bytes).sum::<u64>(), sizes.total.bytes);
        assert_eq!(
            sizes.to_text(2),
            "       29 B  in 4 files, of 13 paths\n       19 B  with identical files counted once\n\
             \x20   4.0 KiB  as a file system, compression zstd:3\n    2.0 MiB  disk.raw\n\n\
             by package\n       20 B       2 files  deb:a=1:2-3\n        8 B       1 files  recipe:r:7\n\
             \x20                 3 more (--top)\n\nby folder\n       20 B       2 files  /usr\n\
             \x20      20 B       2 files  /usr/bin\n                  2 more (--top)\n"
        );
        let short = sizes.top(1);
        assert_eq!((short.origins.len(), short.folders.len()), (1, 1));
    }
}
