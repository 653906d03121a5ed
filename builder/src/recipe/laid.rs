//! Yields a recipe for one profile from its parsed files, merged in order: later values win, and lists grow.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU16};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use ovmf_measure::acpi::Vendor;
use ovmf_measure::shape::{self, Name, Options, Shape, Start};
use rootfs::omit::{self, Rule};
use rootfs::path::TreePath;
use toml::Spanned;

use super::document::{self, Document};
use super::parsed::{Parsed, normal};
use super::promise;
use super::{
    Access, Debian, Entry, EntryKind, Error, Kernel, Measure, Place, Profile, Recipe, Source, Systemd,
};
use crate::image::command_line;

/// Merges the files of a chain in order, for one profile.
pub(super) fn lay(path: &Path, profile: Profile, chain: &[Parsed]) -> Result<Recipe, Error> {
    let missing = |what| Error::Missing { path: path.to_owned(), what };
    let overlays = || {
        chain.iter().map(move |parsed| {
            let profiles = &parsed.document.profiles;
            (parsed, if profile == Profile::Debug { &profiles.debug } else { &profiles.release })
        })
    };
    let last = Last::of(chain)?;
    let name = last.name.ok_or_else(|| missing("image.name"))?;
    let (packages, exclude) = packages(chain, overlays())?;
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
    let (words, command_line_places) = words(overlays(), profile)?;
    Ok(Recipe {
        hostname: last.hostname.unwrap_or_else(|| name.clone()),
        name,
        version: last.version.ok_or_else(|| missing("image.version"))?,
        profile,
        debian: Debian {
            suite: last.suite.ok_or_else(|| missing("debian.suite"))?,
            snapshot: last.snapshot,
            packages,
            exclude,
            omit: omissions(chain)?,
            scripts: maps(chain, |document| &document.debian.scripts),
        },
        kernel: Kernel {
            package: last.package.ok_or_else(|| missing("kernel.package"))?,
            stub_package: last.stub.unwrap_or_else(|| "systemd-boot-efi".to_owned()),
            modules: lists(|d| &d.kernel.modules, |o| &o.modules),
            initrd_modules: lists(|d| &d.kernel.initrd_modules, |_| &NONE),
            command_line: words,
            command_line_places,
        },
        npm: applications(chain, last.node.as_ref())?,
        node: last.node,
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
            default_target: last.target.unwrap_or_else(|| "multi-user.target".to_owned()),
        },
        alternatives: maps(chain, |document| &document.alternatives),
        measure: measured(chain)?,
        compression: match last.compression {
            Some(document::Compression::None) => None,
            _ => Some(last.level.unwrap_or(3)),
        },
        disk_size: last.disk_size,
        absent_libraries: maps(chain, |document| &document.lint.absent),
    })
}

/// Single values, for which the last file wins.
#[derive(Default)]
struct Last {
    name: Option<String>,
    version: Option<String>,
    hostname: Option<String>,
    suite: Option<String>,
    snapshot: Option<String>,
    package: Option<String>,
    stub: Option<String>,
    node: Option<document::Node>,
    compression: Option<document::Compression>,
    level: Option<i32>,
    disk_size: Option<u64>,
    target: Option<String>,
}

impl Last {
    fn of(chain: &[Parsed]) -> Result<Self, Error> {
        let mut last = Last::default();
        for parsed in chain {
            let document = &parsed.document;
            over(&mut last.name, checked(parsed, &document.image.name, name_is_plain)?);
            over(&mut last.version, checked(parsed, &document.image.version, version_is_plain)?);
            over(&mut last.hostname, document.image.hostname.clone());
            over(&mut last.suite, document.debian.suite.clone());
            over(&mut last.snapshot, checked(parsed, &document.debian.snapshot, is_moment)?);
            over(&mut last.package, document.kernel.package.clone());
            over(&mut last.stub, document.kernel.stub_package.clone());
            over(&mut last.node, document.node.clone());
            over(&mut last.compression, document.filesystem.compression);
            over(&mut last.target, document.systemd.default_target.clone());
            if let Some(given) = &document.filesystem.level {
                if !(1..=19).contains(given.get_ref()) {
                    return Err(parsed.wrong(given.span(), "expected a zstd level from 1 to 19"));
                }
                last.level = Some(*given.get_ref());
            }
            if let Some(given) = &document.disk.size {
                let size = bytes_of(given.get_ref());
                let size =
                    size.ok_or_else(|| parsed.wrong(given.span(), "expected a size such as 512M or 2G"))?;
                last.disk_size = Some(size);
            }
        }
        Ok(last)
    }
}

type Places = BTreeMap<String, Place>;

/// Collects the packages to install and the packages to exclude.
fn packages<'a>(
    chain: &'a [Parsed],
    overlays: impl Iterator<Item = (&'a Parsed, &'a document::Overlay)>,
) -> Result<(Places, Places), Error> {
    let packages = overlays.flat_map(|(parsed, overlay)| {
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
    Ok((packages, exclude))
}

/// Collects the words of the command line, and where each is. Each must reach the kernel as it is.
fn words<'a>(
    overlays: impl Iterator<Item = (&'a Parsed, &'a document::Overlay)>,
    profile: Profile,
) -> Result<(Vec<String>, Vec<Place>), Error> {
    let (mut words, mut places) = (Vec::new(), Vec::new());
    let mut length = 0;
    for (parsed, overlay) in overlays {
        for word in parsed.document.kernel.command_line.iter().chain(&overlay.command_line) {
            let text = word.get_ref();
            if words.contains(text) {
                continue;
            }
            let wrong = |why: command_line::Error| parsed.wrong(word.span(), format!("{text:?}: {why}"));
            command_line::check(text.as_bytes()).map_err(wrong)?;
            promise::check(text, profile).map_err(|why| Error::Wrong {
                place: parsed.place(word.span()),
                message: why.to_string(),
                hint: match why {
                    promise::Error::Opens { .. } => Some(
                        "put it under [profiles.debug], which verifiers refuse, or leave it out".to_owned(),
                    ),
                    promise::Error::Reserved { .. } => Some("leave it out".to_owned()),
                },
            })?;
            length += text.len() + 1;
            if length > command_line::MOST {
                return Err(parsed.wrong(word.span(), too_long(length)));
            }
            words.push(text.clone());
            places.push(parsed.place(word.span()));
        }
    }
    Ok((words, places))
}

/// Says that the command line is too long up to and including a word.
pub fn too_long(length: usize) -> String {
    format!(
        "the command line has {length} bytes up to this word, expected at most {}: the kernel cuts off the rest without an \
         error, although it is measured",
        command_line::MOST
    )
}

/// Collects the rules for files to leave out, each with its reason.
fn omissions(chain: &[Parsed]) -> Result<Vec<document::Omit>, Error> {
    let mut omit = Vec::new();
    for (parsed, rule) in chain.iter().flat_map(|p| p.document.debian.omit.iter().map(move |rule| (p, rule)))
    {
        reasoned(parsed, rule.span(), rule.get_ref())?;
        omit.push(rule.get_ref().clone());
    }
    Ok(omit)
}

/// The largest number of machines that a recipe may list: each has its own entry in the document.
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

/// Lists every combination of a platform's lists.
fn shapes(given: &document::MeasuredPlatform) -> Result<Vec<(Name, Shape)>, String> {
    let name: Name = given.platform.parse().map_err(|error: shape::Error| error.to_string())?;
    let memory = given.memory.iter().map(|text| {
        shape::bytes(text).ok_or_else(|| format!("expected a memory size such as 512M or 4G, found {text:?}"))
    });
    let memory = memory.collect::<Result<Vec<u64>, String>>()?;
    let vcpus = given.vcpus.iter().map(|number| {
        NonZeroU16::new(*number).ok_or_else(|| "expected at least one processor, found 0".to_owned())
    });
    let vcpus = vcpus.collect::<Result<Vec<NonZeroU16>, String>>()?;
    let devices = given.devices.map(|number| {
        NonZeroU8::new(number).ok_or_else(|| "expected at least one device, found 0".to_owned())
    });
    let options = Options {
        devices: devices.transpose()?,
        address_bits: given.address_bits,
        vendor: given.vendor.map(|vendor| match vendor {
            document::Vendor::Intel => Vendor::Intel,
            document::Vendor::Amd => Vendor::Amd,
        }),
        start: given.direct.then_some(Start::Kernel),
        ..Options::default()
    };
    let mut all = Vec::new();
    for qemu in or_absent(&given.qemu) {
        for vcpus in or_absent(&vcpus) {
            for memory in or_absent(&memory) {
                let options = Options { memory, vcpus, qemu: qemu.clone(), ..options.clone() };
                all.push((name, options.shape(name).map_err(|error| error.to_string())?));
            }
        }
    }
    Ok(all)
}

/// The values of a list, or the absence of one.
fn or_absent<T: Clone>(list: &[T]) -> Vec<Option<T>> {
    if list.is_empty() { vec![None] } else { list.iter().cloned().map(Some).collect() }
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

/// Returns whether an image may have this name.
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
    (form == "00000000T000000Z").then_some(()).ok_or("a time such as 20260912T075541Z")
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
            let message =
                format!("{:?} is not an exact version of {:?}", application.version, application.name);
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
            return Err(parsed.wrong(item.span(), format!("{text:?} is not a valid {what} name")));
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
                return Err(wrong(format!("{path} has two sources: {} names it too", first.place)));
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
            let access = access.ok_or_else(|| wrong("expected an octal mode such as \"0644\""))?;
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
                access.ok_or_else(|| parsed.wrong(item.span(), "expected an octal mode such as \"0755\""))?;
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

/// Resolves the path of a source file, which must lie in the folder of the recipe that names it.
fn inside(parsed: &Parsed, span: Range<usize>, source: &str) -> Result<PathBuf, Error> {
    let relative = Path::new(source);
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if source.is_empty() || !plain {
        let message = format!("source {source:?} is not a path inside the recipe's folder");
        return Err(parsed.wrong(span, message));
    }
    Ok(parsed.path.parent().unwrap_or(Path::new("")).join(normal(relative)))
}
