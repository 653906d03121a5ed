//! Yields the reference values of an image for every machine that its recipe lists, and what in a document of
//! such values disagrees with an image.
//!
//! # Shape
//! ```text
//! UKI, first sectors of the disk ─ hashed once for each bank ─┐
//! firmware ─ MRTD, its own events ────────────────────────────┼─ for each machine ─> reference-values.json
//! shapes, platform files ─────────────────────────────────────┘
//! a document, the values of an image ─> [`Mismatch`]es
//! ```
//!
//! # Not here
//! How each value is derived (`ovmf_measure`); files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use ovmf_measure::boot::{self, Code, Image, Plan};
use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::event::{Event, Expected, Register};
use ovmf_measure::firmware;
use ovmf_measure::known::PLATFORMS;
use ovmf_measure::mrtd::{Order, mrtd};
use ovmf_measure::platform::PlatformFile;
use ovmf_measure::preimage::Pass;
use ovmf_measure::reference::{self, Format1, Platform, Reference, RegisterKind, Subject};
use ovmf_measure::shape::{self, Before, Name, Shape};
use ovmf_measure::volume::Profile;
use rayon::prelude::*;
use rootfs::content::Blob;
use serde::Serialize;
use serde_json::{Value, json};

use crate::recipe;

/// Why the reference values cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image's events cannot be determined.
    #[error("cannot tell what a boot of the image measures")]
    Boot(#[from] boot::Error),
    /// The firmware cannot be read.
    #[error("cannot read the firmware")]
    Firmware(#[from] firmware::Error),
    /// A machine's values cannot be computed.
    #[error("cannot tell what {name} measures")]
    Shape {
        /// The platform.
        name: Name,
        /// Why.
        source: shape::Error,
    },
    /// A QEMU machine needs firmware, and none is given.
    #[error("{name} needs firmware, but none is given")]
    NoFirmware {
        /// The platform.
        name: Name,
    },
    /// This program's own file for a platform is damaged.
    #[error("the file of platform {name} cannot be read")]
    File {
        /// The platform.
        name: Name,
        /// Why.
        source: toml::de::Error,
    },
}

/// Firmware for QEMU's machines.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// The variables and the code.
    pub image: Blob,
    /// What the firmware does.
    pub profile: Profile,
    /// Known digests of its PEIFV.
    pub pei: Vec<Digest>,
}

/// What reference values are computed from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The name, version and profile of the image.
    pub image: reference::Image,
    /// The unified kernel image.
    pub uki: &'a [u8],
    /// The disk's first sectors, at least [`ovmf_measure::gpt::TABLE`] bytes.
    pub disk_head: &'a [u8],
    /// The machines.
    pub machines: &'a [(Name, Shape)],
    /// The orders in which a VMM may add the pages of a TD: one MRTD for each.
    pub orders: &'a [Order],
}

/// How many bytes of one input a thread hashes before it turns to another.
const TURN: usize = 512 << 10;

/// Both orders.
pub const ORDERS: [Order; 2] = [Order::SinglePass, Order::TwoPass];

/// The files that the document names besides the firmware.
#[derive(Debug, Clone, Copy)]
pub struct Files {
    /// SHA-256 of the UKI.
    pub uki: Digest,
    /// SHA-256 of the disk, if known.
    pub disk: Option<Digest>,
    /// The disk's size.
    pub disk_bytes: u64,
}

/// Returns the description of an image that reference values carry.
pub fn image_of(name: &str, version: &str, profile: recipe::Profile) -> reference::Image {
    reference::Image { name: name.to_owned(), version: version.to_owned(), profile: profile_of(profile) }
}

/// Returns a recipe's profile as reference values and policies name it.
pub fn profile_of(profile: recipe::Profile) -> reference::Profile {
    match profile {
        recipe::Profile::Release => reference::Profile::Release,
        recipe::Profile::Debug => reference::Profile::Debug,
    }
}

/// The results of all slow work: the digests of the image's parts in each bank, and what the firmware gives.
#[derive(Debug)]
pub struct Hashed<'a> {
    inputs: &'a Inputs<'a>,
    banks: &'static [Algorithm],
    firmware: Option<HashedFirmware>,
    images: BTreeMap<Algorithm, Image>,
}

/// Firmware, its own events in each bank, and the MRTD for each requested order.
#[derive(Debug)]
struct HashedFirmware {
    given: Firmware,
    codes: BTreeMap<Algorithm, Code>,
    mrtds: Vec<(Order, Digest)>,
}

impl HashedFirmware {
    fn new(given: Firmware, inputs: &Inputs<'_>, banks: &[Algorithm]) -> Result<Self, Error> {
        let read = inputs.read(&given)?;
        let tdx = inputs.machines.iter().any(|(name, _)| *name == Name::QemuTdx);
        let orders = if tdx { inputs.orders } else { &[] };
        let mrtds = || orders.par_iter().map(|order| (*order, mrtd(&read, *order))).collect();
        let code = |bank: &Algorithm| {
            let code = Code::read(*bank, &given.profile, &read, None, &given.pei);
            Ok((*bank, code.map_err(Error::from)?))
        };
        let codes = || banks.par_iter().map(code).collect::<Result<BTreeMap<_, _>, Error>>();
        let (mrtds, codes) = rayon::join(mrtds, codes);
        let codes = codes?;
        Ok(HashedFirmware { given, codes, mrtds })
    }
}

impl Inputs<'_> {
    fn kinds(&self) -> BTreeSet<RegisterKind> {
        self.machines.iter().map(|(name, _)| name.kind()).collect()
    }

    fn read<'f>(&self, given: &'f Firmware) -> Result<firmware::Firmware<'f>, firmware::Error> {
        firmware::Firmware::read_for(&given.image, self.kinds().contains(&RegisterKind::Tdx))
    }
}

/// Hash passes in progress on all threads, and the digests of the finished ones.
struct Passes<'p> {
    turns: Mutex<Turns<'p>>,
    finished: Mutex<Vec<Vec<Digest>>>,
}

/// Which passes wait for a thread, and which threads to expect.
struct Turns<'p> {
    waiting: Vec<(usize, Pass<'p>)>,
    /// Threads that were asked to take another turn and have not started it yet.
    coming: usize,
    /// Threads that found no waiting pass.
    turned_away: usize,
}

impl<'p> Passes<'p> {
    /// Finishes all passes on all threads. Each pass is a chain that only one thread can advance, and a
    /// thread advances several of them in step. For one turn, an idle thread takes its share of the passes
    /// with the most left, so that no thread is left alone with a long one at the end.
    fn finish(passes: Vec<Pass<'p>>) -> Vec<Vec<Digest>> {
        let finished = Mutex::new(vec![Vec::new(); passes.len()]);
        let waiting = passes.into_iter().enumerate().collect();
        let all = Passes { turns: Mutex::new(Turns { waiting, coming: 0, turned_away: 0 }), finished };
        rayon::scope(|scope| {
            for _ in 0..rayon::current_num_threads() {
                scope.spawn(|scope| all.turn(scope));
            }
        });
        all.finished.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a turn, then schedules another: between turns, the thread may do other work that is waiting.
    fn turn<'s>(&'s self, scope: &rayon::Scope<'s>) {
        let taken = self.turns.lock().map(|mut turns| turns.take()).unwrap_or_default();
        // A thread that finds no pass is scheduled again after another thread's turn.
        if taken.is_empty() {
            return;
        }
        let (indices, mut passes): (Vec<usize>, Vec<Pass<'p>>) = taken.into_iter().unzip();
        Pass::advance_all(&mut passes, TURN);
        let (done, left) = indices.into_iter().zip(passes).partition(|(_, pass)| pass.left() == 0);
        self.keep(done);
        let asked = self.turns.lock().map(|mut turns| turns.put_back(left)).unwrap_or_default();
        for _ in 0..asked {
            scope.spawn(|scope| self.turn(scope));
        }
    }

    fn keep(&self, done: Vec<(usize, Pass<'p>)>) {
        if let Ok(mut finished) = self.finished.lock() {
            for (index, pass) in done {
                if let Some(place) = finished.get_mut(index) {
                    *place = pass.finish();
                }
            }
        }
    }
}

impl<'p> Turns<'p> {
    /// Takes a thread's share of the passes, those with the most left.
    fn take(&mut self) -> Vec<(usize, Pass<'p>)> {
        self.coming = self.coming.saturating_sub(1);
        if self.waiting.is_empty() {
            self.turned_away += 1;
        }
        self.waiting.sort_by_key(|(_, pass)| pass.left());
        let share = self.waiting.len().div_ceil(self.coming + 1).min(Pass::LANES);
        self.waiting.split_off(self.waiting.len() - share)
    }

    /// Takes passes back; returns how many threads to schedule: the caller, and those turned away.
    fn put_back(&mut self, passes: Vec<(usize, Pass<'p>)>) -> usize {
        self.waiting.extend(passes);
        let asked = std::mem::take(&mut self.turned_away) + 1;
        self.coming += asked;
        asked
    }
}

/// Hashes the inputs of the reference values, each piece in parallel, while `firmware` gets the firmware.
///
/// # Errors
/// [`Error`], and the error of `firmware`.
pub fn hash<'a, E: From<Error> + Send>(
    inputs: &'a Inputs<'a>,
    firmware: impl FnOnce() -> Result<Option<Firmware>, E> + Send,
) -> Result<Hashed<'a>, E> {
    let plan = Plan::read(inputs.uki, Some(inputs.disk_head)).map_err(Error::from)?;
    let banks: &[Algorithm] = match inputs.kinds().contains(&RegisterKind::Tpm) {
        true => &[Algorithm::Sha384, Algorithm::Sha256],
        false => &[Algorithm::Sha384],
    };
    let images = || {
        let passes =
            |bank: &Algorithm| plan.preimages().iter().map(|preimage| preimage.pass(*bank)).collect();
        let passes: Vec<Vec<Pass<'_>>> = banks.iter().map(passes).collect();
        let digests = Passes::finish(passes.into_iter().flatten().collect());
        let of_banks = digests.chunks(plan.preimages().len().max(1));
        let image = |(bank, digests): (&Algorithm, &[Vec<Digest>])| Ok((*bank, plan.hashed(*bank, digests)?));
        banks.iter().zip(of_banks).map(image).collect::<Result<BTreeMap<_, _>, Error>>()
    };
    let firmware = || -> Result<Option<HashedFirmware>, E> {
        Ok(firmware()?.map(|given| HashedFirmware::new(given, inputs, banks)).transpose()?)
    };
    let (images, firmware) = rayon::join(images, firmware);
    Ok(Hashed { inputs, banks, firmware: firmware?, images: images? })
}

impl Hashed<'_> {
    /// Returns the document: the values of every machine.
    ///
    /// # Errors
    /// [`Error`].
    pub fn document(&self, files: Files) -> Result<Reference, Error> {
        let subject = |name: &str, sha256, bytes| Subject { name: name.to_owned(), sha256, bytes };
        let firmware = self.firmware.as_ref().map(|HashedFirmware { given, .. }| {
            subject("firmware", given.profile.firmware, given.image.len() as u64)
        });
        let disk = files.disk.map(|sha256| subject("disk", sha256, files.disk_bytes));
        let uki = subject("uki", files.uki, self.inputs.uki.len() as u64);
        let subjects = firmware.into_iter().chain(disk).chain([uki]).collect();
        let platforms = self.platforms()?;
        Ok(Reference { format: Format1, image: self.inputs.image.clone(), subjects, platforms })
    }

    /// Returns the values of every machine.
    ///
    /// # Errors
    /// [`Error`].
    pub fn platforms(&self) -> Result<Vec<Platform>, Error> {
        let mut platforms = Vec::new();
        for (name, shape) in self.inputs.machines {
            for bank in self.banks {
                if name.kind() == RegisterKind::Tpm || *bank == Algorithm::Sha384 {
                    platforms.extend(self.platform(*name, shape, *bank)?);
                }
            }
        }
        Ok(platforms)
    }

    fn platform(&self, name: Name, shape: &Shape, bank: Algorithm) -> Result<Option<Platform>, Error> {
        let Some(image) = self.images.get(&bank) else { return Ok(None) };
        let file = PLATFORMS.iter().find(|(known, _)| *known == name.as_str());
        let file: Option<PlatformFile> = match file {
            Some((_, text)) => Some(toml::from_str(text).map_err(|source| Error::File { name, source })?),
            None => None,
        };
        let known = self.firmware.as_ref().and_then(|known| Some((known, known.codes.get(&bank)?)));
        let read;
        let before = match (&file, known) {
            (Some(file), _) => Before::File(file),
            (None, Some((HashedFirmware { given, mrtds, .. }, code))) => {
                read = self.inputs.read(given)?;
                let mrtd = if name.kind() == RegisterKind::Tdx { mrtds.as_slice() } else { &[] };
                Before::Firmware(shape::Hashed {
                    firmware: &read,
                    code,
                    sha256: given.profile.firmware,
                    mrtd,
                })
            }
            _ => return Err(Error::NoFirmware { name }),
        };
        let platform = shape::reference(name, shape, &before, image);
        Ok(Some(platform.map_err(|source| Error::Shape { name, source })?))
    }
}

/// Formats the document; equal values give the same text.
pub fn to_text(reference: &Reference) -> String {
    // JSON can hold all of it: strings, numbers, lists and maps keyed by string.
    let mut text = serde_json::to_string_pretty(reference).unwrap_or_default();
    text.push('\n');
    text
}

/// Returns a platform's registers, with MRTD: its only value, or that of the first order.
pub fn registers(platform: &Platform) -> BTreeMap<Register, Digest> {
    let mut all = platform.registers.clone();
    if let Some(first) = platform.mrtd.first() {
        all.insert(Register::Mrtd, first.digest);
    }
    all
}

/// Returns the registers as nested JSON: `mrtd`, `rtmr0` … or `pcr` with numbers.
pub fn registers_json(platform: &Platform) -> Value {
    let mut values = serde_json::Map::new();
    let mut pcrs = serde_json::Map::new();
    for (register, digest) in registers(platform) {
        match register {
            Register::Pcr(index) => pcrs.insert(index.to_string(), json!(digest)),
            _ => values.insert(register.to_string(), json!(digest)),
        };
    }
    if !pcrs.is_empty() {
        values.insert("pcr".to_owned(), pcrs.into());
    }
    values.into()
}

/// Returns the events as JSON: register, type, digest, subject, source, expected. The digest is null where
/// the platform decides it.
pub fn events_json(platform: &Platform) -> Value {
    let event = |event: &Event| {
        let digest = match &event.expected {
            Expected::Exact(digest) => Some(digest),
            Expected::PlatformGiven(_) => None,
        };
        json!({
            "register": event.register(platform.kind),
            "type": event.kind,
            "digest": digest,
            "subject": event.subject,
            "source": event.source,
            "expected": event.expected,
        })
    };
    platform.events.iter().map(event).collect()
}

/// Returns a platform's name and shape, in one line.
pub fn title(platform: &Platform) -> String {
    let mut line = platform.name.clone();
    for (word, value) in &platform.shape {
        let short = if word == "firmware" { value.get(..12).unwrap_or(value) } else { value };
        let _ = write!(line, " {word}={short}");
    }
    if platform.kind == RegisterKind::Tpm {
        let bank = match platform.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
        };
        let _ = write!(line, " bank={bank}");
    }
    line
}

/// Describes a source in the terms of someone who changes it.
fn input_words(file: &str) -> &str {
    match file {
        "acpi" => "the machine's ACPI tables (QEMU's version, vCPUs, memory, devices, address bits)",
        "machine" => "the machine (memory, boot devices)",
        "firmware" => "the firmware and its variables",
        "platform" => "the platform, as its file says",
        "disk" => "the disk's partition table",
        "uki" => "the unified kernel image",
        other => other,
    }
}

/// Describes what a register depends on, leaving out constants.
fn inputs_of(register: Register, events: &[&Event]) -> String {
    if register == Register::Mrtd {
        return "the firmware's code, and the order in which the VMM adds its pages".to_owned();
    }
    let inputs: BTreeSet<&str> = events.iter().map(|event| event.source.file.as_str()).collect();
    let words: Vec<&str> = inputs.into_iter().filter(|input| *input != "rule").map(input_words).collect();
    if words.is_empty() { "constants alone".to_owned() } else { words.join("; ") }
}

/// How much detail to give for each register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Its value.
    Values,
    /// Its value, what it depends on, and its events with their sources.
    Explained,
}

/// Formats a platform for people.
pub fn text(platform: &Platform, detail: Detail) -> String {
    let values = registers(platform);
    let mut all: BTreeMap<Register, Vec<&Event>> =
        values.keys().map(|register| (*register, Vec::new())).collect();
    for event in &platform.events {
        if let Some(register) = event.register(platform.kind) {
            all.entry(register).or_default().push(event);
        }
    }
    let mut out = format!("{}\n", title(platform));
    for (register, events) in all {
        let value = values.get(&register).map_or_else(|| "platform-given".to_owned(), ToString::to_string);
        let _ = writeln!(out, "  {register:<7} {value}");
        if detail == Detail::Values {
            continue;
        }
        let _ = writeln!(out, "    depends on {}", inputs_of(register, &events));
        for event in events {
            let _ = writeln!(out, "    {} {}: {}", event.kind, event.subject, event.expected);
            let ranges: Vec<String> =
                event.source.ranges.iter().map(|(at, length)| format!("{at:#x}+{length:#x}")).collect();
            let ranges = if ranges.is_empty() { String::new() } else { format!(" [{}]", ranges.join(" ")) };
            let _ = writeln!(out, "      {}{ranges}: {}", event.source.file, event.source.rule);
        }
    }
    out
}

/// A value in a document that disagrees with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The machine; absent if the mismatch concerns the image as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The register, or the part of the document.
    pub register: String,
    /// Index of the register's first event that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<usize>,
    /// What that event measures.
    pub subject: String,
    /// What the document says.
    pub expected: String,
    /// What the image gives.
    pub found: String,
    /// The likely cause.
    pub points_to: String,
}

impl Mismatch {
    /// A difference that no platform has for itself, and no event.
    pub fn of_all(register: &str, subject: &str, expected: String, found: String, points_to: &str) -> Self {
        Mismatch {
            platform: None,
            register: register.to_owned(),
            event: None,
            subject: subject.to_owned(),
            expected,
            found,
            points_to: points_to.to_owned(),
        }
    }
}

/// Compares a document with an image's values: every register, its first event that differs, every subject.
pub fn compare(document: &Reference, computed: &Reference) -> Vec<Mismatch> {
    let mut all = Vec::new();
    let mut whole = |register: &str, subject: &str, expected: String, found: String, points_to: &str| {
        if expected != found {
            all.push(Mismatch::of_all(register, subject, expected, found, points_to));
        }
    };
    let name = |image: &reference::Image| format!("{} {} ({})", image.name, image.version, image.profile);
    whole("image", "name, version, profile", name(&document.image), name(&computed.image), "another image");
    let subjects = |reference: &Reference| -> BTreeMap<String, String> {
        let text = |subject: &Subject| {
            (subject.name.clone(), format!("{} ({} bytes)", subject.sha256, subject.bytes))
        };
        reference.subjects.iter().map(text).collect()
    };
    let (expected, found) = (subjects(document), subjects(computed));
    for subject in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        let of =
            |all: &BTreeMap<String, String>| all.get(subject).cloned().unwrap_or_else(|| "none".to_owned());
        whole("subject", subject, of(&expected), of(&found), "the file itself");
    }
    let count = |reference: &Reference| format!("{} entries", reference.platforms.len());
    whole("platforms", "machines and banks", count(document), count(computed), "the document");
    for (expected, found) in document.platforms.iter().zip(&computed.platforms) {
        all.extend(platform_mismatches(expected, found));
    }
    all
}

fn platform_mismatches(expected: &Platform, found: &Platform) -> Vec<Mismatch> {
    let mut all = Vec::new();
    let mut push = |register: String, event, subject: &str, wanted: String, got: String, points_to: &str| {
        all.push(Mismatch {
            platform: Some(title(expected)),
            register,
            event,
            subject: subject.to_owned(),
            expected: wanted,
            found: got,
            points_to: points_to.to_owned(),
        });
    };
    if (expected.kind, expected.algorithm, &expected.shape) != (found.kind, found.algorithm, &found.shape) {
        push("shape".to_owned(), None, "the machine", title(expected), title(found), "firmware or shape");
    }
    let mrtds = |platform: &Platform| -> Vec<String> {
        platform.mrtd.iter().map(|mrtd| mrtd.digest.to_string()).collect()
    };
    if mrtds(expected) != mrtds(found) {
        let (wanted, got) = (mrtds(expected).join(" "), mrtds(found).join(" "));
        push("mrtd".to_owned(), None, "the firmware's code", wanted, got, input_words("firmware"));
    }
    let events = |platform: &Platform, of: Register| -> Vec<Event> {
        let all = platform.events.iter();
        all.filter(|event| event.register(platform.kind) == Some(of)).cloned().collect()
    };
    let of = |platform: &Platform| -> BTreeSet<Register> {
        let events = platform.events.iter().filter_map(|event| event.register(platform.kind));
        events.chain(platform.registers.keys().copied()).collect()
    };
    for register in &of(expected) | &of(found) {
        let (wanted, got) = (events(expected, register), events(found, register));
        let longest = wanted.len().max(got.len());
        let first = (0..longest).find(|index| wanted.get(*index) != got.get(*index));
        let told = |events: &[Event], index| {
            let event = events.get(index);
            event.map_or_else(|| "no event".to_owned(), |event: &Event| event.expected.to_string())
        };
        match first {
            Some(index) => {
                let event = got.get(index).or(wanted.get(index));
                let subject = event.map_or("", |event| event.subject.as_str());
                let points_to = event.map_or(String::new(), |event| match event.source.file.as_str() {
                    "uki" => format!("{}: {}", input_words("uki"), event.subject),
                    file => input_words(file).to_owned(),
                });
                let (wanted, got) = (told(&wanted, index), told(&got, index));
                let same = "the same digest of another type, subject or source".to_owned();
                let got = if wanted == got { same } else { got };
                push(register.to_string(), Some(index), subject, wanted, got, &points_to);
            }
            None => {
                let value = |platform: &Platform| {
                    let value = platform.registers.get(&register);
                    value.map_or_else(|| "platform-given".to_owned(), ToString::to_string)
                };
                let (wanted, got) = (value(expected), value(found));
                if wanted != got {
                    let what = "the document: its own events do not give this value";
                    push(register.to_string(), None, "the register's value", wanted, got, what);
                }
            }
        }
    }
    all
}
