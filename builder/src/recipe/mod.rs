//! Yields a whole recipe for one profile, from a `recipe.toml` and those that it extends.
//!
//! # Shape
//! ```text
//! recipe.toml ─┬─ extends ─> documents, the most basic first ─┐
//!              └─ profiles.<profile> ─────────────────────────┴─> Recipe
//! ```
//! Lists add up, single values are overridden, and every value that could be wrong in itself is checked here, so that
//! a [`Recipe`] holds no path that escapes, no name that is none, and no path twice.
//!
//! # Not here
//! Reading files: a function that does comes in by argument. What the packages bring: `pipeline`.

pub mod document;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::{NonZeroU8, NonZeroU16};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ovmf_measure::acpi::{Smm, Vendor};
use ovmf_measure::shape::{self, Name, Shape, Start};
use rootfs::omit::{self, Rule};
use rootfs::path::TreePath;
use rootfs::tree::Origin;
use serde::Serialize;
use sha2::{Digest, Sha256};
use toml::Spanned;

use crate::advice::{Advice, Advised, FAILED};
use document::Document;

/// How deep recipes may extend each other.
const MAX_EXTENDS: usize = 16;

/// What is wrong with a recipe, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A recipe file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{place}: {message}")]
    Wrong {
        /// Where.
        place: Place,
        /// What.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Something that every recipe says is not said.
    #[error("{}: no {what}", path.display())]
    Missing {
        /// The recipe.
        path: PathBuf,
        /// What is not said.
        what: &'static str,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Wrong { hint, .. } => Some(Advice { hint: hint.clone(), exit_code: FAILED }),
            Error::Read { .. } => {
                Some(Advice::failed("name a recipe's folder, as `proofmark build recipes/minimal`"))
            }
            Error::Missing { .. } => None,
        }
    }
}

/// A place in a recipe file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Which of the two images of a recipe is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// For production.
    Release,
    /// For development: with a login. A verifier refuses it unless it is told otherwise.
    Debug,
}

impl Profile {
    /// Both.
    pub const ALL: [Profile; 2] = [Profile::Release, Profile::Debug];

    /// Its name, as it stands in os-release and in every manifest.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Release => "release",
            Profile::Debug => "debug",
        }
    }
}

/// A recipe for one profile.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// Which profile this is.
    pub profile: Profile,
    /// Host name of the machine.
    pub hostname: String,
    /// Debian packages.
    pub debian: Debian,
    /// The kernel.
    pub kernel: Kernel,
    /// Node.js.
    pub node: Option<document::Node>,
    /// Applications from the npm registry, by name.
    pub npm: Vec<document::NpmApplication>,
    /// Files, links and directories of the recipe's own, by path.
    pub entries: BTreeMap<TreePath, Entry>,
    /// System users.
    pub users: Vec<document::User>,
    /// System groups.
    pub groups: Vec<document::Group>,
    /// Units to enable, to mask, and the default target.
    pub systemd: Systemd,
    /// Debian alternatives.
    pub alternatives: BTreeMap<String, String>,
    /// Level of zstd; `None`: not compressed.
    pub compression: Option<i32>,
    /// Size of the whole disk in bytes, when it is given.
    pub disk_size: Option<u64>,
    /// The machines whose reference values are computed.
    pub measure: Measure,
    /// Libraries that may be absent, with the reason.
    pub absent_libraries: BTreeMap<String, String>,
}

/// The machines whose reference values are computed.
#[derive(Debug, Clone)]
pub struct Measure {
    /// Debian package of QEMU's firmware, and where it stands.
    pub firmware: Option<(String, Place)>,
    /// Each machine, in the order of the recipe.
    pub machines: Vec<(Name, Shape)>,
}

/// Debian packages of a recipe.
#[derive(Debug, Clone)]
pub struct Debian {
    /// Code name of the release.
    pub suite: String,
    /// Moment of the archive, `YYYYMMDDTHHMMSSZ`.
    pub snapshot: Option<String>,
    /// Packages wanted, sorted, each with its place.
    pub packages: BTreeMap<String, Place>,
    /// Packages that must not come along.
    pub exclude: BTreeMap<String, Place>,
    /// Files to leave out.
    pub omit: Vec<document::Omit>,
    /// What to do about unknown maintainer scripts.
    pub scripts: BTreeMap<String, document::ScriptRule>,
}

/// The kernel of a recipe.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Debian package of the kernel.
    pub package: String,
    /// Debian package of the UEFI stub.
    pub stub_package: String,
    /// Modules of the root file system.
    pub modules: Vec<String>,
    /// Modules that the initrd loads.
    pub initrd_modules: Vec<String>,
    /// Words of the command line.
    pub command_line: Vec<String>,
}

/// Units of a recipe.
#[derive(Debug, Clone)]
pub struct Systemd {
    /// Units to enable.
    pub enable: Vec<String>,
    /// Units to mask.
    pub mask: Vec<String>,
    /// What the machine boots to.
    pub default_target: String,
}

/// A path of the recipe's own.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Where it is said.
    pub place: Place,
    /// Whether it takes the place of a package's file.
    pub replace: bool,
}

/// What a path of the recipe's own is.
#[derive(Debug, Clone)]
pub enum EntryKind {
    /// A file.
    File {
        /// Its content.
        content: Source,
        /// Permissions and owner.
        access: Access,
    },
    /// A symbolic link to a target, as written.
    Link(String),
    /// A directory.
    Directory(Access),
}

/// Permissions and owner of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The low 12 bits of `st_mode`.
    pub mode: u16,
    /// Name of the owner.
    pub owner: String,
    /// Name of the group.
    pub group: String,
}

/// Where the content of a file comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file of the recipe's folder.
    Path(PathBuf),
    /// The recipe itself.
    Text(String),
}

impl Entry {
    /// Who brings it.
    pub fn origin(&self) -> Origin {
        Origin::Recipe { file: Arc::clone(&self.place.file), line: self.place.line }
    }
}

/// Reads a file: the one effect that loading a recipe needs.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// A parsed file, and what is needed to say where something stands in it.
struct Parsed {
    path: PathBuf,
    name: Arc<str>,
    text: String,
    document: Document,
}

impl Parsed {
    fn place(&self, span: Range<usize>) -> Place {
        place(&self.name, &self.text, span.start)
    }

    fn wrong(&self, span: Range<usize>, message: impl Into<String>) -> Error {
        Error::Wrong { place: self.place(span), message: message.into(), hint: None }
    }
}

fn place(name: &Arc<str>, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() as u32 + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) as u32 + 1;
    Place { file: Arc::clone(name), line, column }
}

/// Finds the recipe file that `argument` names: a `recipe.toml`, or the folder that holds one.
pub fn file_of(argument: &Path) -> PathBuf {
    if argument.extension().is_some_and(|extension| extension == "toml") {
        argument.to_owned()
    } else {
        argument.join("recipe.toml")
    }
}

/// Loads the recipe at `path` and all that it extends, for one profile.
///
/// # Errors
/// [`Error`], with file, line and column, and the near miss where there is one.
pub fn load(path: &Path, profile: Profile, read: ReadFile<'_>) -> Result<Recipe, Error> {
    let mut chain = Vec::new();
    parse_chain(path, path, read, &mut chain, 0)?;
    lay(path, profile, &chain)
}

fn parse_chain(
    path: &Path,
    top: &Path,
    read: ReadFile<'_>,
    chain: &mut Vec<Parsed>,
    depth: usize,
) -> Result<(), Error> {
    let parsed = parse(path, top, read)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for base in &parsed.document.extends {
        let wrong = |message: String| parsed.wrong(base.span(), message);
        if Path::new(base.get_ref()).is_absolute() {
            return Err(wrong(format!("extends {:?}, which is not a relative path", base.get_ref())));
        }
        if depth >= MAX_EXTENDS {
            return Err(wrong(format!(
                "recipes extend each other more than {MAX_EXTENDS} deep, or in a circle"
            )));
        }
        let base_path = normal(&file_of(&folder.join(base.get_ref())));
        if chain.iter().any(|known| known.path == base_path) {
            continue;
        }
        match parse_chain(&base_path, top, read, chain, depth + 1) {
            Err(Error::Read { path, source }) => {
                return Err(wrong(format!("extends {}, which cannot be read: {source}", path.display())));
            }
            other => other?,
        }
    }
    chain.push(parsed);
    Ok(())
}

/// The path without `.` and `a/..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// `path` as seen from the folder of the recipe that is built: it must not depend on where that lies.
fn relative_name(path: &Path, top: &Path) -> String {
    let folder = normal(top.parent().unwrap_or(Path::new("")));
    let path = normal(path);
    let mut up = String::new();
    let mut base = folder.as_path();
    loop {
        if let Ok(rest) = path.strip_prefix(base) {
            return format!("{up}{}", rest.display());
        }
        match base.parent() {
            Some(parent) => base = parent,
            None => return path.display().to_string(),
        }
        up.push_str("../");
    }
}

fn parse(path: &Path, top: &Path, read: ReadFile<'_>) -> Result<Parsed, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let bytes = read(path).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|error| failed(io::Error::other(error.utf8_error())))?;
    let name: Arc<str> = relative_name(path, top).into();
    let document: Document = toml::from_str(&text).map_err(|error| {
        let place =
            place(&Arc::from(path.display().to_string()), &text, error.span().map_or(0, |span| span.start));
        let message = error.message().trim().to_owned();
        let hint = near_miss_of(&message);
        Error::Wrong { place, message, hint }
    })?;
    Ok(Parsed { path: normal(path), name, text, document })
}

/// "unknown field `x`, expected one of `a`, `b`": which of those may be meant.
fn near_miss_of(message: &str) -> Option<String> {
    let mut names = message.split('`').skip(1).step_by(2);
    let word = names.next()?;
    near_miss(word, names).map(|name| format!("did you mean `{name}`?"))
}

/// The candidate nearest to `word`, if one is near.
pub fn near_miss<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().div_ceil(3).max(1);
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Number of insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            *cell = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn lay(path: &Path, profile: Profile, chain: &[Parsed]) -> Result<Recipe, Error> {
    let missing = |what| Error::Missing { path: path.to_owned(), what };
    let overlays = || {
        chain.iter().map(move |parsed| {
            let profiles = &parsed.document.profiles;
            (parsed, if profile == Profile::Debug { &profiles.debug } else { &profiles.release })
        })
    };
    let (mut name, mut version, mut hostname, mut suite, mut snapshot, mut package, mut stub) =
        (None, None, None, None, None, None, None);
    let (mut node, mut compression, mut level, mut disk_size, mut target) = (None, None, None, None, None);
    for parsed in chain {
        let document = &parsed.document;
        over(&mut name, checked(parsed, &document.image.name, name_is_plain)?);
        over(&mut version, checked(parsed, &document.image.version, version_is_plain)?);
        over(&mut hostname, document.image.hostname.clone());
        over(&mut suite, document.debian.suite.clone());
        over(&mut snapshot, checked(parsed, &document.debian.snapshot, is_moment)?);
        over(&mut package, document.kernel.package.clone());
        over(&mut stub, document.kernel.stub_package.clone());
        over(&mut node, document.node.clone());
        over(&mut compression, document.filesystem.compression);
        over(&mut target, document.systemd.default_target.clone());
        if let Some(given) = &document.filesystem.level {
            if !(1..=19).contains(given.get_ref()) {
                return Err(parsed.wrong(given.span(), "expected a level of zstd from 1 to 19"));
            }
            level = Some(*given.get_ref());
        }
        if let Some(given) = &document.disk.size {
            let size = bytes_of(given.get_ref());
            let size = size.ok_or_else(|| parsed.wrong(given.span(), "expected a size as 512M or 2G"))?;
            disk_size = Some(size);
        }
    }
    let name: String = name.ok_or_else(|| missing("image.name"))?;
    let compression = match compression {
        Some(document::Compression::None) => None,
        _ => Some(level.unwrap_or(3)),
    };
    let packages = overlays().flat_map(|(parsed, overlay)| {
        parsed.document.debian.packages.iter().chain(&overlay.packages).map(move |name| (parsed, name))
    });
    let exclude =
        chain.iter().flat_map(|parsed| parsed.document.debian.exclude.iter().map(move |name| (parsed, name)));
    let packages = package_names(packages)?;
    let exclude = package_names(exclude)?;
    if let Some((name, place)) = packages.iter().find(|(name, _)| exclude.contains_key(*name)) {
        let message =
            format!("package {name:?} is both wanted and excluded ({})", exclude.get(name).unwrap_or(place));
        return Err(Error::Wrong { place: place.clone(), message, hint: None });
    }
    let mut omit = Vec::new();
    for (parsed, rule) in chain.iter().flat_map(|p| p.document.debian.omit.iter().map(move |rule| (p, rule)))
    {
        reasoned(parsed, rule.span(), rule.get_ref())?;
        omit.push(rule.get_ref().clone());
    }
    let lists =
        |list: fn(&Document) -> &Vec<String>, more: fn(&document::Overlay) -> &Vec<String>| -> Vec<String> {
            let mut all: Vec<String> = Vec::new();
            for item in overlays().flat_map(|(p, overlay)| list(&p.document).iter().chain(more(overlay))) {
                if !all.contains(item) {
                    all.push(item.clone());
                }
            }
            all
        };
    static NONE: Vec<String> = Vec::new();
    let command_line = lists(|d| &d.kernel.command_line, |o| &o.command_line);
    Ok(Recipe {
        hostname: hostname.unwrap_or_else(|| name.clone()),
        name,
        version: version.ok_or_else(|| missing("image.version"))?,
        profile,
        debian: Debian {
            suite: suite.ok_or_else(|| missing("debian.suite"))?,
            snapshot,
            packages,
            exclude,
            omit,
            scripts: maps(chain, |document| &document.debian.scripts),
        },
        kernel: Kernel {
            package: package.ok_or_else(|| missing("kernel.package"))?,
            stub_package: stub.unwrap_or_else(|| "systemd-boot-efi".to_owned()),
            modules: lists(|d| &d.kernel.modules, |o| &o.modules),
            initrd_modules: lists(|d| &d.kernel.initrd_modules, |_| &NONE),
            command_line,
        },
        npm: applications(chain, node.as_ref())?,
        node,
        entries: entries(overlays())?,
        users: named(
            overlays().flat_map(|(p, o)| p.document.users.iter().chain(&o.users).map(move |u| (p, u))),
            "user",
            |user| &user.name,
        )?,
        groups: named(
            chain.iter().flat_map(|p| p.document.groups.iter().map(move |g| (p, g))),
            "group",
            |group| &group.name,
        )?,
        systemd: Systemd {
            enable: lists(|d| &d.systemd.enable, |o| &o.systemd.enable),
            mask: lists(|d| &d.systemd.mask, |o| &o.systemd.mask),
            default_target: target.unwrap_or_else(|| "multi-user.target".to_owned()),
        },
        alternatives: maps(chain, |document| &document.alternatives),
        measure: measured(chain)?,
        compression,
        disk_size,
        absent_libraries: maps(chain, |document| &document.lint.absent),
    })
}

/// The most machines that a recipe may list: each has its own entry in the document.
const MOST_MACHINES: usize = 256;

fn measured(chain: &[Parsed]) -> Result<Measure, Error> {
    let mut firmware = None;
    let mut machines: Vec<(Name, Shape)> = Vec::new();
    for parsed in chain {
        let measure = &parsed.document.measure;
        if let Some(name) = &measure.firmware {
            let name = package_names([(parsed, name)].into_iter())?.pop_first();
            firmware = name.or(firmware);
        }
        for given in &measure.platforms {
            let wrong = |message: String| parsed.wrong(given.span(), message);
            machines.extend(shapes(given.get_ref()).map_err(wrong)?);
            if machines.len() > MOST_MACHINES {
                return Err(wrong(format!("{} machines: expected at most {MOST_MACHINES}", machines.len())));
            }
            let (name, _) = machines.last().ok_or_else(|| wrong("no machine".to_owned()))?;
            if name.is_qemu() && firmware.is_none() {
                return Err(wrong(format!("{name} needs firmware: expected `firmware` in [measure]")));
            }
        }
    }
    Ok(Measure { firmware, machines })
}

/// Every combination of a platform's lists.
fn shapes(given: &document::MeasuredPlatform) -> Result<Vec<(Name, Shape)>, String> {
    let name: Name = given.platform.parse().map_err(|error: shape::Error| error.to_string())?;
    let usual = Shape::usual(name);
    let memory = given.memory.iter().map(|text| {
        shape::bytes(text).ok_or_else(|| format!("expected a size of memory as 512M or 4G, found {text:?}"))
    });
    let mut memory = memory.collect::<Result<Vec<u64>, String>>()?;
    let vcpus = given.vcpus.iter().map(|number| {
        NonZeroU16::new(*number).ok_or_else(|| "expected at least one processor, found 0".to_owned())
    });
    let mut vcpus = vcpus.collect::<Result<Vec<NonZeroU16>, String>>()?;
    let mut versions = given.qemu.clone();
    let devices = given.devices.map(|number| {
        NonZeroU8::new(number).ok_or_else(|| "expected at least one device, found 0".to_owned())
    });
    let devices = devices.transpose()?.unwrap_or(usual.devices);
    let vendor = match given.vendor {
        Some(document::Vendor::Intel) => Vendor::Intel,
        Some(document::Vendor::Amd) => Vendor::Amd,
        None => usual.vendor,
    };
    let address_bits = given.address_bits.unwrap_or(usual.address_bits);
    let for_qemu = !given.vcpus.is_empty()
        || !given.qemu.is_empty()
        || given.devices.is_some()
        || given.address_bits.is_some()
        || given.vendor.is_some()
        || given.direct;
    if for_qemu && !name.is_qemu() {
        return Err(format!("{name} decides for itself: expected memory alone, found what is for QEMU"));
    }
    if memory.is_empty() {
        memory.push(usual.memory);
    }
    if vcpus.is_empty() {
        vcpus.push(usual.vcpus);
    }
    if versions.is_empty() {
        versions.push(usual.qemu);
    }
    let start = if given.direct { Start::Kernel } else { Start::Disk };
    let mut all = Vec::new();
    for qemu in &versions {
        for vcpus in &vcpus {
            for memory in &memory {
                let (memory, vcpus, qemu) = (*memory, *vcpus, qemu.clone());
                let shape = Shape { memory, vcpus, qemu, devices, address_bits, vendor, start };
                if name.is_qemu() {
                    shape.tables(name, Smm::On).map_err(|error| error.to_string())?;
                }
                all.push((name, shape));
            }
        }
    }
    Ok(all)
}

fn over<T>(slot: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *slot = value;
    }
}

fn maps<T: Clone>(chain: &[Parsed], map: fn(&Document) -> &BTreeMap<String, T>) -> BTreeMap<String, T> {
    chain.iter().flat_map(|parsed| map(&parsed.document).clone()).collect()
}

fn checked(
    parsed: &Parsed,
    value: &Option<Spanned<String>>,
    check: fn(&str) -> Result<(), &'static str>,
) -> Result<Option<String>, Error> {
    let Some(value) = value else { return Ok(None) };
    check(value.get_ref())
        .map_err(|expected| parsed.wrong(value.span(), format!("{:?} is not {expected}", value.get_ref())))?;
    Ok(Some(value.get_ref().clone()))
}

/// os-release(5): `IMAGE_ID` is lower-case letters, digits, `.`, `_`, `-`.
fn name_is_plain(text: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let good = !text.is_empty() && text.chars().all(plain) && !text.starts_with(['.', '-']);
    good.then_some(()).ok_or("a name of lower-case letters, digits, \".\", \"_\" and \"-\"")
}

/// Whether an image may have this name.
pub fn is_plain_name(text: &str) -> bool {
    name_is_plain(text).is_ok()
}

fn version_is_plain(text: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    let good = !text.is_empty() && text.chars().all(plain) && !text.starts_with(['.', '-']);
    good.then_some(()).ok_or("a version of letters, digits, \".\", \"_\", \"+\", \"~\" and \"-\"")
}

fn is_moment(text: &str) -> Result<(), &'static str> {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    (form == "00000000T000000Z").then_some(()).ok_or("a moment as 20260912T075541Z")
}

fn bytes_of(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let unit: u64 = match unit.trim() {
        "" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn package_names<'a>(
    names: impl Iterator<Item = (&'a Parsed, &'a Spanned<String>)>,
) -> Result<BTreeMap<String, Place>, Error> {
    let mut all = BTreeMap::new();
    for (parsed, name) in names {
        // Debian Policy 5.6.1.
        let text = name.get_ref();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        if text.len() < 2
            || !text.chars().all(plain)
            || !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            return Err(parsed.wrong(name.span(), format!("{text:?} is not the name of a Debian package")));
        }
        all.entry(text.clone()).or_insert_with(|| parsed.place(name.span()));
    }
    Ok(all)
}

fn reasoned(parsed: &Parsed, span: Range<usize>, rule: &document::Omit) -> Result<(), Error> {
    if rule.reason.trim().is_empty() {
        return Err(parsed.wrong(span, "an omit rule without a reason"));
    }
    omit::Omit::new(&[Rule::from(rule)]).map_err(|error| parsed.wrong(span, error.to_string()))?;
    Ok(())
}

fn applications(
    chain: &[Parsed],
    node: Option<&document::Node>,
) -> Result<Vec<document::NpmApplication>, Error> {
    let mut all: Vec<document::NpmApplication> = Vec::new();
    for (parsed, item) in chain.iter().flat_map(|p| p.document.npm.iter().map(move |item| (p, item))) {
        let application = item.get_ref();
        let wrong = |message: String| parsed.wrong(item.span(), message);
        if node.is_none() {
            return Err(wrong(format!("npm application {:?}, but no [node] to run it", application.name)));
        }
        if semver::Version::parse(&application.version).is_err() {
            let message = format!("{:?} is no exact version of {:?}", application.version, application.name);
            return Err(wrong(message));
        }
        TreePath::new(&application.target).map_err(|error| wrong(error.to_string()))?;
        for rule in &application.omit {
            reasoned(parsed, item.span(), rule)?;
        }
        if all.iter().any(|other| other.target == application.target) {
            return Err(wrong(format!("two npm applications in {:?}", application.target)));
        }
        all.push(application.clone());
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn named<'a, T: Clone + 'a>(
    items: impl Iterator<Item = (&'a Parsed, &'a Spanned<T>)>,
    what: &str,
    name: fn(&T) -> &str,
) -> Result<Vec<T>, Error> {
    let mut all: BTreeMap<String, T> = BTreeMap::new();
    for (parsed, item) in items {
        let text = name(item.get_ref());
        // useradd(8): lower-case letters, digits, underscores and dashes; at most 32 characters.
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        let start = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if !start || text.len() > 32 || !text.chars().all(plain) {
            return Err(parsed.wrong(item.span(), format!("{text:?} is no name of a {what}")));
        }
        if all.insert(text.to_owned(), item.get_ref().clone()).is_some() {
            return Err(parsed.wrong(item.span(), format!("{what} {text:?} is named twice")));
        }
    }
    Ok(all.into_values().collect())
}

fn entries<'a>(
    overlays: impl Iterator<Item = (&'a Parsed, &'a document::Overlay)>,
) -> Result<BTreeMap<TreePath, Entry>, Error> {
    let mut all: BTreeMap<TreePath, Entry> = BTreeMap::new();
    for (parsed, overlay) in overlays {
        let document = &parsed.document;
        let mut add = |span: Range<usize>, path: &str, kind: EntryKind, replace: bool| {
            let wrong = |message: String| parsed.wrong(span.clone(), message);
            if !path.starts_with('/') {
                return Err(wrong(format!("target {path:?} is not an absolute path")));
            }
            let path = TreePath::new(path).map_err(|error| wrong(error.to_string()))?;
            if let Some(first) = all.get(&path) {
                return Err(wrong(format!("{path} has two sources: {} says it too", first.place)));
            }
            all.insert(path, Entry { kind, place: parsed.place(span), replace });
            Ok(())
        };
        for item in document.files.iter().chain(&overlay.files) {
            let file = item.get_ref();
            let wrong = |message: &str| parsed.wrong(item.span(), message);
            let content = match (&file.source, &file.text) {
                (Some(source), None) => Source::Path(inside(parsed, item.span(), source)?),
                (None, Some(text)) => Source::Text(text.clone()),
                _ => return Err(wrong("a file needs either `source` or `text`")),
            };
            let access = access(&file.mode, 0o644, &file.owner, &file.group);
            let access = access.ok_or_else(|| wrong("expected a mode in octal, as \"0644\""))?;
            add(item.span(), &file.target, EntryKind::File { content, access }, file.replace)?;
        }
        for item in document.links.iter().chain(&overlay.links) {
            let link = item.get_ref();
            if link.target.is_empty() || link.target.contains('\0') {
                return Err(parsed.wrong(item.span(), "a link needs a target"));
            }
            add(item.span(), &link.path, EntryKind::Link(link.target.clone()), link.replace)?;
        }
        for item in document.directories.iter().chain(&overlay.directories) {
            let directory = item.get_ref();
            let access = access(&directory.mode, 0o755, &directory.owner, &directory.group);
            let access =
                access.ok_or_else(|| parsed.wrong(item.span(), "expected a mode in octal, as \"0755\""))?;
            add(item.span(), &directory.path, EntryKind::Directory(access), true)?;
        }
    }
    Ok(all)
}

fn access(
    mode: &Option<String>,
    otherwise: u16,
    owner: &Option<String>,
    group: &Option<String>,
) -> Option<Access> {
    let mode = match mode {
        Some(text) => u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)?,
        None => otherwise,
    };
    let owner = owner.clone().unwrap_or_else(|| "root".to_owned());
    let group = group.clone().unwrap_or_else(|| owner.clone());
    Some(Access { mode, owner, group })
}

/// The path of a source file, which must lie in the folder of the recipe that names it.
fn inside(parsed: &Parsed, span: Range<usize>, source: &str) -> Result<PathBuf, Error> {
    let relative = Path::new(source);
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if source.is_empty() || !plain {
        let message = format!("source {source:?} is not a path inside of the recipe's folder");
        return Err(parsed.wrong(span, message));
    }
    Ok(parsed.path.parent().unwrap_or(Path::new("")).join(normal(relative)))
}

/// Digest of everything in a recipe that decides what a lock holds, over both profiles.
pub fn lock_digest(recipes: &[Recipe]) -> String {
    #[derive(Serialize)]
    struct Inputs<'a> {
        profile: &'a str,
        suite: &'a str,
        snapshot: &'a Option<String>,
        packages: Vec<&'a String>,
        exclude: Vec<&'a String>,
        scripts: Vec<&'a String>,
        kernel: (&'a str, &'a str),
        #[serde(skip_serializing_if = "Option::is_none")]
        firmware: Option<&'a str>,
        node: Option<(&'a str, &'a str)>,
        npm: Vec<(&'a str, &'a str, &'a str)>,
        accounts: Vec<(&'a str, &'a str, Option<u32>)>,
    }
    let mut hasher = Sha256::new();
    for recipe in recipes {
        let users = recipe.users.iter().map(|user| ("user", &*user.name, user.id));
        let groups = recipe.groups.iter().map(|group| ("group", &*group.name, group.id));
        let inputs = Inputs {
            profile: recipe.profile.name(),
            suite: &recipe.debian.suite,
            snapshot: &recipe.debian.snapshot,
            packages: recipe.debian.packages.keys().collect(),
            exclude: recipe.debian.exclude.keys().collect(),
            scripts: recipe.debian.scripts.keys().collect(),
            kernel: (&recipe.kernel.package, &recipe.kernel.stub_package),
            firmware: recipe.measure.firmware.as_ref().map(|(name, _)| name.as_str()),
            node: recipe.node.as_ref().map(|node| (&*node.version, &*node.npm_client)),
            npm: recipe.npm.iter().map(|app| (&*app.name, &*app.version, &*app.target)).collect(),
            accounts: users.chain(groups).collect(),
        };
        // Strings, numbers and lists: nothing that JSON cannot hold.
        hasher.update(serde_json::to_vec(&inputs).unwrap_or_default());
        hasher.update([0]);
    }
    hex::encode(hasher.finalize())
}

/// The JSON Schema of a recipe, as a text that ends with a newline.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Document);
    // A schema is JSON by construction.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
[image]
name = "base"
version = "1"
[debian]
suite = "trixie"
packages = ["systemd"]
[kernel]
package = "linux-image-cloud-amd64"
"#;

    fn load_files(files: &[(&str, &str)], profile: Profile) -> Result<Recipe, Error> {
        let files: BTreeMap<PathBuf, &str> =
            files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect();
        let read = |path: &Path| -> io::Result<Vec<u8>> {
            files.get(path).map(|text| text.as_bytes().to_vec()).ok_or(io::ErrorKind::NotFound.into())
        };
        load(Path::new("recipes/x/recipe.toml"), profile, &read)
    }

    fn load_one(text: &str) -> Result<Recipe, Error> {
        load_files(&[("recipes/x/recipe.toml", text)], Profile::Release)
    }

    fn refused(text: &str) -> String {
        match load_one(&format!("{BASE}{text}")) {
            Err(Error::Wrong { place, message, hint }) => {
                let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                format!("{}:{} {message}{hint}", place.line, place.column)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_small_recipe_loads_with_its_defaults() {
        let recipe = load_one(BASE).unwrap();
        assert_eq!((recipe.name.as_str(), recipe.hostname.as_str()), ("base", "base"));
        assert_eq!(recipe.compression, Some(3));
        assert_eq!(recipe.systemd.default_target, "multi-user.target");
        assert_eq!(recipe.kernel.stub_package, "systemd-boot-efi");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_near_miss() {
        assert_eq!(
            refused("[filesystem]\ncompresion = \"zstd\"\n"),
            "11:1 unknown field `compresion`, expected `compression` or `level` (did you mean `compression`?)"
        );
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_place() {
        let message = refused("[systemd]\nenable = \"x.service\"\n");
        assert!(message.starts_with("11:10 invalid type: string"), "{message}");
    }

    #[test]
    fn broken_syntax_is_refused_with_its_place() {
        let message = refused("[systemd\n");
        assert!(message.starts_with("10:9 "), "{message}");
    }

    #[test]
    fn paths_that_escape_are_refused() {
        let message = refused("[[files]]\nsource = \"../../etc/shadow\"\ntarget = \"/a\"\n");
        assert_eq!(message, "10:1 source \"../../etc/shadow\" is not a path inside of the recipe's folder");
        let message = refused("[[files]]\nsource = \"/etc/shadow\"\ntarget = \"/a\"\n");
        assert!(message.contains("is not a path inside"), "{message}");
        let message = refused("[[files]]\ntext = \"\"\ntarget = \"/a/../../b\"\n");
        assert!(message.contains("\"..\" component"), "{message}");
        let message = refused("[[files]]\ntext = \"\"\ntarget = \"a\"\n");
        assert!(message.contains("is not an absolute path"), "{message}");
    }

    #[test]
    fn two_sources_of_one_path_are_refused_and_both_named() {
        let message =
            refused("[[files]]\ntext = \"1\"\ntarget = \"/a\"\n[[links]]\npath = \"//a/\"\ntarget = \"b\"\n");
        assert_eq!(message, "13:1 /a has two sources: recipe.toml:10:1 says it too");
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for (text, part) in [
            ("[[files]]\ntarget = \"/a\"\n", "either `source` or `text`"),
            ("[[files]]\ntext = \"\"\ntarget = \"/a\"\nmode = \"0999\"\n", "mode in octal"),
            ("[filesystem]\nlevel = 20\n", "from 1 to 19"),
            ("[filesystem]\nlevel = 0\n", "from 1 to 19"),
            ("[disk]\nsize = \"2 apples\"\n", "as 512M or 2G"),
            ("[[users]]\nname = \"Root\"\n", "no name of a user"),
            ("[[users]]\nname = \"a\"\n[[users]]\nname = \"a\"\n", "named twice"),
            ("[[npm]]\nname = \"a\"\nversion = \"1.0.0\"\ntarget = \"/a\"\n", "no [node]"),
            ("[[debian.omit]]\npaths = [\"a\"]\nreason = \" \"\n", "without a reason"),
            ("[[debian.omit]]\npaths = [\"a[\"]\nreason = \"x\"\n", "glob \"a[\""),
            (
                "[[debian.omit]]\npaths = [\"/usr/share/doc\"]\nreason = \"x\"\n",
                "\"/usr/share/doc\" is not relative",
            ),
            ("[[links]]\npath = \"/a\"\ntarget = \"\"\n", "needs a target"),
            ("[profiles.debug]\npackages = [1]\n", "invalid type"),
        ] {
            let message = refused(text);
            assert!(message.contains(part), "{text}: {message}");
        }
        let node = "[node]\nversion = \"22.19.0\"\ntarget = \"/opt/node\"\nnpm-client = \"10.9.3\"\n";
        let range = "[[npm]]\nname = \"a\"\nversion = \"^1.0.0\"\ntarget = \"/a\"\n";
        assert!(refused(&format!("{node}{range}")).contains("no exact version"));
        let exclude = BASE.replace("packages", "exclude = [\"systemd\"]\npackages");
        assert!(
            matches!(load_one(&exclude), Err(Error::Wrong { message, .. }) if message.contains("excluded"))
        );
        let odd = BASE.replace("\"systemd\"", "\"Systemd\"");
        assert!(
            matches!(load_one(&odd), Err(Error::Wrong { message, .. }) if message.contains("Debian package"))
        );
        let moment = BASE.replace("packages", "snapshot = \"today\"\npackages");
        assert!(
            matches!(load_one(&moment), Err(Error::Wrong { message, .. }) if message.contains("a moment"))
        );
    }

    #[test]
    fn what_every_recipe_says_must_be_said() {
        for what in ["name", "version", "suite", "package"] {
            let text: String = BASE
                .lines()
                .filter(|line| !line.starts_with(&format!("{what} ")))
                .fold(String::new(), |text, line| text + line + "\n");
            let error = load_one(&text).unwrap_err();
            assert!(error.to_string().contains(&format!(".{what}")), "{error}");
        }
    }

    #[test]
    fn a_recipe_adds_to_the_lists_of_its_base_and_overrides_its_values() {
        let base = "[image]\nname = \"base\"\nversion = \"1\"\n[debian]\nsuite = \"trixie\"\npackages = [\"aa\"]\n\
                    [kernel]\npackage = \"k\"\ncommand-line = [\"quiet\"]\n[[files]]\nsource = \"f\"\ntarget = \"/f\"\n\
                    [profiles.debug]\npackages = [\"dd\"]\ncommand-line = [\"debug\"]\n";
        let top =
            "extends = [\"../shared/recipe.toml\"]\n[image]\nname = \"top\"\n[debian]\npackages = [\"bb\"]\n";
        let files = [("recipes/shared/recipe.toml", base), ("recipes/x/recipe.toml", top)];
        let release = load_files(&files, Profile::Release).unwrap();
        assert_eq!((release.name.as_str(), release.version.as_str()), ("top", "1"));
        assert_eq!(release.debian.packages.keys().collect::<Vec<_>>(), ["aa", "bb"]);
        assert_eq!(release.kernel.command_line, ["quiet"]);
        let (path, entry) = release.entries.first_key_value().unwrap();
        assert_eq!(
            (path.as_str(), entry.origin().to_string().as_str()),
            ("f", "recipe:../shared/recipe.toml:10")
        );
        assert!(matches!(&entry.kind, EntryKind::File { content: Source::Path(path), .. }
            if path == Path::new("recipes/shared/f")));
        let debug = load_files(&files, Profile::Debug).unwrap();
        assert_eq!(debug.debian.packages.keys().collect::<Vec<_>>(), ["aa", "bb", "dd"]);
        assert_eq!(debug.kernel.command_line, ["quiet", "debug"]);
    }

    #[test]
    fn recipes_that_extend_in_a_circle_or_into_nothing_are_refused() {
        let circle = load_one("extends = [\"../x\"]\n").unwrap_err();
        assert!(circle.to_string().contains("in a circle"), "{circle}");
        let nothing = load_one("extends = [\"../y\"]\n").unwrap_err();
        assert!(
            nothing.to_string().starts_with("recipe.toml:1:12: extends recipes/y/recipe.toml"),
            "{nothing}"
        );
        let absolute = load_one("extends = [\"/y\"]\n").unwrap_err();
        assert!(absolute.to_string().contains("not a relative path"), "{absolute}");
    }

    #[test]
    fn only_what_a_lock_depends_on_changes_its_digest() {
        let digest = |text: &str| lock_digest(&[load_one(text).unwrap()]);
        assert_eq!(digest(BASE), digest(&format!("{BASE}command-line = [\"quiet\"]\n")));
        assert_ne!(digest(BASE), digest(&BASE.replace("\"systemd\"", "\"systemd\", \"udev\"")));
    }

    #[test]
    fn the_schema_names_every_table_and_refuses_others() {
        let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        for table in ["image", "debian", "kernel", "npm", "files", "profiles", "extends"] {
            assert!(schema["properties"].get(table).is_some(), "{table}");
        }
    }
}
