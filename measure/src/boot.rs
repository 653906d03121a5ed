//! The events of a whole boot, from firmware, machine and image.
//!
//! # Shape
//!
//! ```text
//! firmware   TPM: its version, PEIFV, DXEFV      TD: TD HOB, CFV
//! variables  SecureBoot PK KEK db dbx, separator
//! machine    ACPI: the table loader and the files that it allocates; SMBIOS; BootOrder, each Boot####
//! image      "Calling EFI Application…", separators, GPT, the UKI, the stub's sections, the kernel, its command line
//!            and initrd, "Exit Boot Services…" twice
//! -kernel    the UKI before the boot options, no GPT
//! ```
//!
//! # Source
//!
//! edk2 `SecurityPkg/Tcg/Tcg2Dxe`, `SecurityPkg/Tcg/Tcg2Pei`, `OvmfPkg/Tcg/TdTcg2Dxe`, `OvmfPkg/AcpiPlatformDxe`,
//! `OvmfPkg/Library/PlatformBootManagerLib`, `MdeModulePkg/Library/UefiBootManagerLib`. Compared event by event with boots
//! of this project's images in QEMU with swtpm and Debian's OVMF 2022.11, 2025.02 and 2026.08, and with logs of TDs.
//!
//! # Not here
//!
//! MRTD ([`crate::mrtd`]); a boot loader between firmware and UKI; `-kernel` with anything but a UKI, or together with
//! `-initrd` or `-append`.

mod image;
mod options;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use image::{Image, Plan};
pub use options::boot_order;

use self::image::Role;
use self::options::boot_options;
use crate::acpi::Smm;
use crate::digest::{Algorithm, Digest};
use crate::event::{Event, EventType, Expected, PlatformRule, Register, Source, Witness, rtmr_of_pcr};
use crate::firmware::{Firmware, Kind};
use crate::gpt;
use crate::linux;
use crate::platform::Listener;
use crate::secure_boot;
use crate::stub;
use crate::td_hob;
use crate::variable::{self, GLOBAL, IMAGE_SECURITY, SecureBoot, Store};
use crate::volume::{Profile, Separator};

const FIRMWARE: &str = "firmware";
const DISK: &str = "disk";
const UKI: &str = "uki";
const PROGRAM: EventType = EventType::EV_EFI_BOOT_SERVICES_APPLICATION;
const AUTHENTICODE: &str = "Authenticode: the ranges, one after another";
/// The action that the firmware measures before it starts a boot option.
const CALLING: &str = "Calling EFI Application from Boot Option";
/// The actions that the firmware measures when the kernel exits boot services.
const EXITING: [&str; 2] = ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"];
/// Size of the zeroed file for the TPM's log that the loader allocates: QEMU's `TPM_LOG_AREA_MINIMUM_SIZE`.
const TPM_LOG: usize = 64 << 10;

/// The events of a boot cannot be predicted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The UKI is invalid.
    #[error(transparent)]
    Stub(#[from] stub::Error),
    /// The kernel in the UKI is invalid.
    #[error("kernel in the UKI")]
    Kernel(#[source] crate::pe::Error),
    /// The command line is not text.
    #[error(transparent)]
    Linux(#[from] linux::Error),
    /// The partition table is invalid.
    #[error(transparent)]
    Gpt(#[from] gpt::Error),
    /// The firmware is invalid.
    #[error(transparent)]
    Firmware(#[from] crate::firmware::Error),
    /// The firmware's variables are invalid.
    #[error(transparent)]
    Variable(#[from] variable::Error),
    /// The TD HOB cannot be computed.
    #[error(transparent)]
    TdHob(#[from] td_hob::Error),
    /// The number of digests differs from the number of preimages.
    #[error("expected the digests of {expected} preimages, found {found}")]
    Digests {
        /// The number of preimages.
        expected: usize,
        /// The number of digests.
        found: usize,
    },
    /// The firmware does not extend RTMRs.
    #[error("firmware {firmware} does not extend RTMRs: expected edk2's TdTcg2Dxe in it")]
    NotForTdx {
        /// SHA-256 of the firmware.
        firmware: Digest,
    },
    /// The firmware would reject the image: nothing in db lets it pass.
    #[error(
        "Secure Boot is on, and the UKI is not signed with any of the {expected} certificates in the firmware's db, which does \
         not have its hash either"
    )]
    NotSigned {
        /// The number of certificates in db.
        expected: usize,
    },
    /// The firmware would reject the image because of dbx, or nobody can tell.
    #[error(transparent)]
    SecureBoot(secure_boot::Error),
    /// Firmware and image were hashed with different algorithms.
    #[error("image was hashed with {found}, expected {expected}")]
    Algorithm {
        /// The firmware's algorithm.
        expected: Algorithm,
        /// The image's algorithm.
        found: Algorithm,
    },
}

impl From<secure_boot::Error> for Error {
    fn from(error: secure_boot::Error) -> Self {
        match error {
            secure_boot::Error::NotAllowed { certificates } => Error::NotSigned { expected: certificates },
            other => Error::SecureBoot(other),
        }
    }
}

/// A machine's ACPI files in QEMU's fw_cfg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiFiles {
    /// `etc/table-loader`.
    pub loader: Vec<u8>,
    /// `etc/acpi/rsdp`.
    pub rsdp: Vec<u8>,
    /// `etc/acpi/tables`.
    pub tables: Vec<u8>,
}

impl From<crate::acpi::Tables> for AcpiFiles {
    fn from(tables: crate::acpi::Tables) -> Self {
        AcpiFiles { loader: tables.loader, rsdp: tables.rsdp, tables: tables.tables }
    }
}

/// How a machine boots the UKI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// From the disk.
    #[default]
    Disk,
    /// With QEMU's `-kernel`; the firmware starts it before it searches any disk.
    Kernel,
}

/// A QEMU machine: q35 with one disk, which is booted or holds the root file system.
#[derive(Debug, Clone)]
pub struct Machine {
    /// How it boots the UKI.
    pub start: Start,
    /// Memory in bytes.
    pub memory: u64,
    /// Its ACPI files; without them, their events are platform-given.
    pub acpi: Option<AcpiFiles>,
    /// The PCI slot, on bus 0, of the virtio disk that is booted.
    pub disk_slot: u8,
}

/// Hashed firmware: its part of every boot.
#[derive(Debug, Clone)]
pub struct Code {
    algorithm: Algorithm,
    profile: Profile,
    cfv: Option<(Digest, (u64, u64))>,
    variables: [(&'static str, [u8; 16], Vec<u8>); 5],
    secure_boot: SecureBoot,
    /// Whether the variables have boot options, which the firmware merges its own into.
    boot_options: BootOptions,
    /// The known digests of PEIFV, whose code changes itself in memory before it is measured.
    pei: Vec<Digest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BootOptions {
    None,
    There,
}

impl Code {
    /// Returns the firmware's use of system management mode, as it shows in QEMU's ACPI tables.
    pub const fn smm(&self) -> Smm {
        if self.profile.smm.is_present() { Smm::Negotiated } else { Smm::On }
    }

    /// Returns a variable's data.
    fn database(&self, name: &str) -> &[u8] {
        let found = self.variables.iter().find(|(found, ..)| *found == name);
        found.map(|(.., data)| data.as_slice()).unwrap_or_default()
    }

    /// Hashes what a boot measures of firmware. `variables` replace those of the image, like QEMU's second flash; `pei` are
    /// digests of PEIFV from logs of this firmware.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn read(
        algorithm: Algorithm,
        profile: &Profile,
        firmware: &Firmware<'_>,
        variables: Option<&[u8]>,
        pei: &[Digest],
    ) -> Result<Self, Error> {
        // Without sections, the image starts with its variables.
        let cfv = match firmware.sections() {
            [] => None,
            _ => Some(firmware.section(Kind::Cfv)?),
        };
        let own = || cfv.map_or(firmware.bytes(), |cfv| firmware.data(cfv));
        if let Some(variables) = variables {
            crate::firmware::check_store(variables, own())?;
        }
        let bytes = variables.unwrap_or_else(own);
        let store = Store::read(bytes)?;
        let secure_boot =
            if profile.secure_boot.is_present() { store.secure_boot() } else { SecureBoot::Off };
        let state: &[u8] = match (profile.secure_boot.is_present(), secure_boot) {
            (false, _) => &[],
            (true, SecureBoot::Off) => &[0],
            (true, SecureBoot::On) => &[1],
        };
        let data = |guid: &[u8; 16], name| store.data(guid, name).unwrap_or_default().to_vec();
        Ok(Code {
            algorithm,
            profile: profile.clone(),
            cfv: cfv.map(|cfv| (algorithm.of(bytes), (cfv.data_offset.into(), cfv.data_size.into()))),
            variables: [
                ("SecureBoot", GLOBAL, state.to_vec()),
                ("PK", GLOBAL, data(&GLOBAL, "PK")),
                ("KEK", GLOBAL, data(&GLOBAL, "KEK")),
                ("db", IMAGE_SECURITY, data(&IMAGE_SECURITY, "db")),
                ("dbx", IMAGE_SECURITY, data(&IMAGE_SECURITY, "dbx")),
            ],
            secure_boot,
            boot_options: if store.has_boot_options() { BootOptions::There } else { BootOptions::None },
            pei: pei.iter().filter(|digest| digest.algorithm() == algorithm).copied().collect(),
        })
    }
}

/// A list of events under construction.
struct Events {
    algorithm: Algorithm,
    witness: Witness,
    events: Vec<Event>,
}

impl Events {
    fn push(
        &mut self,
        pcr: u8,
        kind: EventType,
        subject: impl Into<String>,
        expected: Expected,
        source: Source,
    ) {
        let event = Event { pcr, kind, subject: subject.into(), expected, witness: self.witness, source };
        self.events.push(event);
    }

    /// Adds an event whose bytes a rule makes.
    fn made(
        &mut self,
        pcr: u8,
        kind: EventType,
        subject: impl Into<String>,
        bytes: &[u8],
        rule: impl Into<String>,
    ) {
        let expected = Expected::Exact(self.algorithm.of(bytes));
        self.push(pcr, kind, subject, expected, rule_source("rule", rule));
    }

    fn action(&mut self, pcr: u8, text: &str) {
        let rule = "the text without a NUL";
        self.made(pcr, EventType::EV_EFI_ACTION, text, text.as_bytes(), rule);
    }

    fn separator(&mut self, pcr: u8) {
        self.made(pcr, EventType::EV_SEPARATOR, "separator", &[0; 4], "four zero bytes");
    }

    fn hashed(
        &mut self,
        pcr: u8,
        kind: EventType,
        subject: impl Into<String>,
        part: Option<(&Digest, &[(u64, u64)])>,
        file: &str,
        rule: &str,
    ) {
        if let Some((digest, ranges)) = part {
            let source = Source { file: file.into(), ranges: ranges.to_vec(), rule: rule.into() };
            self.push(pcr, kind, subject, Expected::Exact(*digest), source);
        }
    }

    /// Adds an event whose digest nobody knows beforehand.
    fn given(&mut self, pcr: u8, kind: EventType, subject: &str, file: &str, rule: &str) {
        let expected = Expected::PlatformGiven(PlatformRule::Unjudged);
        self.push(pcr, kind, subject, expected, rule_source(file, rule));
    }

    fn variable(&mut self, kind: EventType, pcr: u8, name: &str, guid: &[u8; 16], data: &[u8], file: &str) {
        let bytes = match kind {
            EventType::EV_EFI_VARIABLE_BOOT => data.to_vec(),
            _ => variable::event_data(guid, name, data),
        };
        let rule = match kind {
            EventType::EV_EFI_VARIABLE_BOOT => "the variable's data",
            _ => "UEFI_VARIABLE_DATA: GUID, lengths, name, data",
        };
        let expected = Expected::Exact(self.algorithm.of(&bytes));
        self.push(pcr, kind, name, expected, rule_source(file, rule));
    }
}

fn rule_source(file: &str, rule: impl Into<String>) -> Source {
    Source { file: file.into(), ranges: Vec::new(), rule: rule.into() }
}

/// Returns the events of a QEMU machine that boots the image, in order.
///
/// # Errors
///
/// [`Error`].
pub fn qemu(
    listener: Listener,
    firmware: &Firmware<'_>,
    code: &Code,
    machine: &Machine,
    image: &Image,
) -> Result<Vec<Event>, Error> {
    let algorithm = code.algorithm;
    if image.algorithm() != algorithm {
        return Err(Error::Algorithm { expected: algorithm, found: image.algorithm() });
    }
    let witness = if listener == Listener::Tpm { Witness::Tpm } else { Witness::Tdx };
    let mut events = Events { algorithm, witness, events: Vec::new() };
    let profile = &code.profile;
    match listener {
        Listener::Tpm => volumes(&mut events, code),
        Listener::Tdx | Listener::TpmAndTdx => {
            if !profile.tdx.is_present() {
                return Err(Error::NotForTdx { firmware: profile.firmware });
            }
            let hob = td_hob::qemu(firmware, machine.memory)?;
            let rule = "the TD HOB list without its end, from the firmware's sections and the memory";
            events.made(1, EventType::EV_EFI_HANDOFF_TABLES2, "TD HOB", &hob, rule);
            if let Some((digest, range)) = &code.cfv {
                let part = Some((digest, core::slice::from_ref(range)));
                let kind = EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2;
                events.hashed(1, kind, "CFV", part, FIRMWARE, "the bytes of the variable store");
            }
            if profile.fw_cfg.is_present() {
                fw_cfg(&mut events, machine.start, machine.disk_slot);
            }
        }
    }
    for (name, guid, data) in &code.variables {
        events.variable(EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, 7, name, guid, data, FIRMWARE);
    }
    events.separator(7);
    if profile.acpi.is_present() {
        acpi(&mut events, listener, machine.acpi.as_ref());
    }
    if profile.smbios.is_present() {
        let rule = "SMBIOS without what differs from machine to machine";
        events.given(1, EventType::EV_EFI_HANDOFF_TABLES, "SMBIOS", "machine", rule);
    }
    if machine.start == Start::Kernel {
        load(&mut events, Some(code), machine.start, image)?;
    }
    match (code.boot_options, machine.start, profile.boot_menu.is_present()) {
        (BootOptions::None, Start::Disk, _) => boot_options(&mut events, profile, Some(machine.disk_slot)),
        // Before the firmware has searched for boot options, it has only its own.
        (BootOptions::None, Start::Kernel, false) => boot_options(&mut events, profile, None),
        (BootOptions::There, ..) | (_, Start::Kernel, true) => {
            let rule = Expected::PlatformGiven(PlatformRule::FromData { at_most: 17 });
            let text = "the data in the log: the variables hold boot options already, or nobody saw what this firmware \
                        makes of them before it looks for something to boot";
            let source = rule_source("machine", text);
            events.push(1, EventType::EV_EFI_VARIABLE_BOOT, "BootOrder and Boot####", rule, source);
        }
    }
    ready(&mut events, listener, Some(code));
    if machine.start == Start::Disk {
        load(&mut events, Some(code), machine.start, image)?;
    }
    run(&mut events, listener, code.secure_boot, machine.start, image);
    Ok(events.events)
}

/// Returns a platform's events (`before`, from its file) followed by the image's.
///
/// # Errors
///
/// [`Error`].
pub fn platform(listener: Listener, before: Vec<Event>, image: &Image) -> Result<Vec<Event>, Error> {
    let witness = if listener == Listener::Tpm { Witness::Tpm } else { Witness::Tdx };
    let mut events = Events { algorithm: image.algorithm(), witness, events: before };
    ready(&mut events, listener, None);
    load(&mut events, None, Start::Disk, image)?;
    run(&mut events, listener, SecureBoot::Off, Start::Disk, image);
    Ok(events.events)
}

fn volumes(events: &mut Events, code: &Code) {
    let kind = EventType::EV_S_CRTM_VERSION;
    match &code.profile.version {
        Some(version) => {
            let text: Vec<u8> = version.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            let expected = Expected::Exact(events.algorithm.of(&text));
            let source = rule_source(FIRMWARE, "the text in Tcg2Pei, UTF-16 with a NUL");
            events.push(0, kind, "firmware version", expected, source);
        }
        None => {
            let expected = Expected::PlatformGiven(PlatformRule::FromData { at_most: 1 });
            events.push(0, kind, "firmware version", expected, rule_source(FIRMWARE, "the text in the log"));
        }
    }
    let kind = EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB;
    let seen = match code.pei.as_slice() {
        [] => Expected::PlatformGiven(PlatformRule::Unjudged),
        digests => Expected::PlatformGiven(PlatformRule::OneOf { digests: digests.to_vec() }),
    };
    let rule = "PEIFV as its own code has changed it in memory; seen in logs of this firmware";
    events.push(0, kind, "PEIFV", seen, rule_source(FIRMWARE, rule));
    let dxe = code.profile.dxe.iter().find(|digest| digest.algorithm() == events.algorithm);
    let expected =
        dxe.map_or(Expected::PlatformGiven(PlatformRule::Unjudged), |digest| Expected::Exact(*digest));
    events.push(
        0,
        kind,
        "DXEFV",
        expected,
        rule_source(FIRMWARE, "DXEFV, unpacked from the LZMA section of the code"),
    );
}

fn acpi(events: &mut Events, listener: Listener, files: Option<&AcpiFiles>) {
    let kind = EventType::EV_PLATFORM_CONFIG_FLAGS;
    let names = files.map(|files| allocated(&files.loader)).unwrap_or_else(|| {
        let log = (listener != Listener::Tdx).then_some("etc/tpm/log");
        let names = ["etc/acpi/rsdp"].into_iter().chain(log).chain(["etc/acpi/tables"]);
        names.map(ToString::to_string).collect()
    });
    for name in core::iter::once("etc/table-loader".to_string()).chain(names) {
        let content = match (files, name.as_str()) {
            (_, "etc/tpm/log") => Some(alloc::vec![0; TPM_LOG]),
            (Some(files), "etc/table-loader") => Some(files.loader.clone()),
            (Some(files), "etc/acpi/rsdp") => Some(files.rsdp.clone()),
            (Some(files), "etc/acpi/tables") => Some(files.tables.clone()),
            _ => None,
        };
        let expected = match content {
            Some(content) => Expected::Exact(events.algorithm.of(&content)),
            None => Expected::PlatformGiven(PlatformRule::Unjudged),
        };
        let source = rule_source("acpi", "the file of QEMU's fw_cfg, before addresses are put in");
        events.push(1, kind, alloc::format!("ACPI DATA {name}"), expected, source);
    }
}

/// Adds the fw_cfg items that edk2-stable202505 and later read early and measure (OvmfPkg/Library/QemuFwCfgLib,
/// QemuFwCfgCacheInit.c). This machine has two: no boot menu, and one disk with a boot index. The log has their names, the
/// digests are of their contents.
fn fw_cfg(events: &mut Events, start: Start, slot: u8) {
    let kind = EventType::EV_PLATFORM_CONFIG_FLAGS;
    let order = boot_order(start, slot);
    for (name, content) in [("BootMenu", [0; 2].as_slice()), ("bootorder", &order)] {
        let expected = Expected::Exact(events.algorithm.of(content));
        let source = rule_source("machine", "the item of QEMU's fw_cfg");
        events.push(1, kind, alloc::format!("QEMU FW CFG {name}"), expected, source);
    }
}

/// Returns the files that a loader script allocates, in order: commands of 128 bytes, 1 is ALLOCATE, the name at 4.
fn allocated(loader: &[u8]) -> Vec<String> {
    let allocate = loader.chunks_exact(128).filter(|command| crate::field::u32(command, 0) == Some(1));
    let name = |command: &[u8]| {
        let name = command.get(4..60).unwrap_or_default();
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned()
    };
    allocate.map(name).collect()
}

/// Adds what the firmware measures when it starts a boot option.
fn ready(events: &mut Events, listener: Listener, code: Option<&Code>) {
    events.action(4, CALLING);
    match (listener, code.map(|code| code.profile.separator)) {
        (Listener::Tpm, _) => (0..=6).for_each(|pcr| events.separator(pcr)),
        (_, Some(Separator::Rtmr0)) => events.separator(1),
        _ => events.separator(4),
    }
}

/// Adds what the firmware measures when it loads the UKI.
fn load(events: &mut Events, code: Option<&Code>, start: Start, image: &Image) -> Result<(), Error> {
    // The firmware verifies an image before it measures it.
    if let Some(code) = code.filter(|code| code.secure_boot == SecureBoot::On) {
        let entry = image.program.authority(code.database("db"), code.database("dbx"))?;
        events.variable(EventType::EV_EFI_VARIABLE_AUTHORITY, 7, "db", &IMAGE_SECURITY, entry, FIRMWARE);
    }
    if start == Start::Disk {
        let gpt = image.part(&Role::Gpt);
        let rule = "header (92 bytes), the number of used entries (u64), the used entries";
        events.hashed(5, EventType::EV_EFI_GPT_EVENT, "GPT", gpt, DISK, rule);
    }
    events.hashed(4, PROGRAM, "UKI", image.part(&Role::Uki), UKI, AUTHENTICODE);
    Ok(())
}

/// Adds what the UKI's stub and kernel measure.
fn run(events: &mut Events, listener: Listener, secure_boot: SecureBoot, start: Start, image: &Image) {
    let tpm = listener == Listener::Tpm;
    if tpm || image.stub.extends_rtmrs() {
        for name in stub::MEASURED {
            if let Some(part) = image.part(&Role::Section(name)) {
                let label = [name.as_bytes(), &[0]].concat();
                let kind = EventType::EV_IPL;
                events.made(11, kind, alloc::format!("name of section {name}"), &label, "the name and a NUL");
                let rule = "the section, as long as it is in memory";
                events.hashed(11, kind, alloc::format!("section {name}"), Some(part), UKI, rule);
            }
        }
    }
    if tpm && image.stub.measures_smbios() {
        let rule = "the machine's SMBIOS table of type 1, as the stub reads it";
        events.given(1, EventType::EV_EVENT_TAG, "SMBIOS type 1", "machine", rule);
    }
    if image.stub.loads_by_firmware() && secure_boot == SecureBoot::Off {
        events.hashed(4, PROGRAM, "kernel in the UKI", image.part(&Role::Kernel), UKI, AUTHENTICODE);
    }
    if listener != Listener::TpmAndTdx {
        let kind = EventType::EV_EVENT_TAG;
        if image.console {
            let rule = "section .cmdline, and the console that the stub finds on the machine";
            events.given(9, kind, "command line", "machine", rule);
        } else {
            let rule = "section .cmdline as the stub hands it on: UTF-16 with a NUL";
            events.hashed(9, kind, "command line", image.part(&Role::Options), UKI, rule);
        }
        let from_disk = start == Start::Disk && image.part(&Role::Gpt).is_some();
        if from_disk && image.stub.passes_on_secret() {
            events.given(9, kind, "initrd", "machine", "with a secret of the machine, which the stub makes");
        } else {
            let rule = "the sections, each filled up to a multiple of 4, behind each but .ucode and .initrd an archive's \
                        member around it (systemd-stub's .extra)";
            events.hashed(9, kind, "initrd", image.part(&Role::Initrd), UKI, rule);
        }
    }
    EXITING.iter().for_each(|text| events.action(5, text));
}

/// Returns the final value of every register that only exact events extend.
pub fn registers(algorithm: Algorithm, events: &[Event]) -> BTreeMap<Register, Digest> {
    let mut values: BTreeMap<Register, Option<Digest>> = BTreeMap::new();
    let tdx = events.iter().any(|event| event.witness != Witness::Tpm);
    if tdx {
        values.extend((0..4).map(|index| (Register::Rtmr(index), Some(algorithm.zero()))));
    } else {
        // PCRs without predicted events belong to the kernel and its programs.
        values.extend(events.iter().map(|event| (Register::Pcr(event.pcr), Some(algorithm.zero()))));
    }
    for event in events {
        let register = match (event.witness, tdx) {
            (Witness::Tpm, _) | (Witness::Both, false) => Some(Register::Pcr(event.pcr)),
            _ => rtmr_of_pcr(event.pcr).map(Register::Rtmr),
        };
        if let Some(value) = register.and_then(|register| values.get_mut(&register)) {
            *value = match &event.expected {
                Expected::Exact(digest) => value.map(|value| value.extended(digest)),
                Expected::PlatformGiven(_) => None,
            };
        }
    }
    values.into_iter().filter_map(|(register, value)| Some((register, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fw_cfg_items_are_hashed_by_content_not_by_name() {
        let algorithm = Algorithm::Sha384;
        let mut events = Events { algorithm, witness: Witness::Tdx, events: Vec::new() };
        fw_cfg(&mut events, Start::Disk, 0x1f);
        let found: Vec<_> =
            events.events.iter().map(|event| (event.subject.as_str(), &event.expected)).collect();
        let [menu, order] =
            [&[0, 0][..], b"/pci@i0cf8/scsi@1f/disk@0,0\0"].map(|item| Expected::Exact(algorithm.of(item)));
        assert_eq!(found, [("QEMU FW CFG BootMenu", &menu), ("QEMU FW CFG bootorder", &order)]);
        assert!(events.events.iter().all(|event| event.pcr == 1));
    }
}
