//! The properties of firmware that its events depend on, from the volumes in its image.
//!
//! # Shape
//!
//! ```text
//! image      firmware volumes, one after another: "_FVH" at 40, length u64 at 32, files from the header's end
//! file       GUID, check u16, type u8, attributes u8, size u24, state u8 | sections, each aligned to 4
//! section    size u24, type u8 | content; 0x02: GUID, data offset u16, attributes u16; LZMA: [sections] inside
//!            0x17: a nested volume. PEIFV has the PEI core (file type 4), DXEFV the DXE core (file type 5)
//! ```
//!
//! # Source
//!
//! UEFI Platform Initialization 1.8, III.2.2 and III.3.2; edk2 `MdeModulePkg/Include/Guid/LzmaDecompress.h`;
//! `OvmfPkg/OvmfPkgX64.fdf` (the drivers). What each driver means for the log was observed with Debian's OVMF 2022.11 and
//! 2025.02.
//!
//! # Not here
//!
//! Whether code does what its GUID says: MRTD, or PCR 0, covers the code.

use alloc::string::String;
use alloc::vec::Vec;

use lzma_rust2::LzmaReader;
use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest};
use crate::field;

/// ee4e5898-3914-4259-9d6e-dc7bd79403cf.
const LZMA: [u8; 16] =
    [0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42, 0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf];
/// Tcg2Pei, a0c98b77-cba5-4bb8-993b-4af6ce33ece4: it holds the version in EV_S_CRTM_VERSION.
const TCG2_PEI: [u8; 16] =
    [0x77, 0x8b, 0xc9, 0xa0, 0xa5, 0xcb, 0xb8, 0x4b, 0x99, 0x3b, 0x4a, 0xf6, 0xce, 0x33, 0xec, 0xe4];
/// TdTcg2Dxe, f062221e-c607-44c2-b0b4-c3886331d351: it extends the RTMRs.
const TD_TCG2: [u8; 16] =
    [0x1e, 0x22, 0x62, 0xf0, 0x07, 0xc6, 0xc2, 0x44, 0xb0, 0xb4, 0xc3, 0x88, 0x63, 0x31, 0xd3, 0x51];
/// SecureBootConfigDxe, f0e6a44f-7195-41c3-ac64-54f202cd0a21.
const SECURE_BOOT: [u8; 16] =
    [0x4f, 0xa4, 0xe6, 0xf0, 0x95, 0x71, 0xc3, 0x41, 0xac, 0x64, 0x54, 0xf2, 0x02, 0xcd, 0x0a, 0x21];
/// SmbiosMeasurementDxe, d27fed59-abb4-4fed-bead-2a878c7e4a7e.
const SMBIOS: [u8; 16] =
    [0x59, 0xed, 0x7f, 0xd2, 0xb4, 0xab, 0xed, 0x4f, 0xbe, 0xad, 0x2a, 0x87, 0x8c, 0x7e, 0x4a, 0x7e];
/// OVMF's SmmControl2Dxe, 1206f7ca-a475-4624-a83e-e6fc9bb38e49: it negotiates SMIs for CPU hotplug with QEMU.
const SMM_CONTROL: [u8; 16] =
    [0xca, 0xf7, 0x06, 0x12, 0x75, 0xa4, 0x24, 0x46, 0xa8, 0x3e, 0xe6, 0xfc, 0x9b, 0xb3, 0x8e, 0x49];
/// UiApp, 462caa21-7614-4503-836e-8ab6f4662331.
pub(crate) const UI_APP: [u8; 16] =
    [0x21, 0xaa, 0x2c, 0x46, 0x14, 0x76, 0x03, 0x45, 0x83, 0x6e, 0x8a, 0xb6, 0xf4, 0x66, 0x23, 0x31];
/// BootManagerMenuApp, eec25bdc-67f2-4d95-b1d5-f81b2039d11d.
pub(crate) const BOOT_MENU: [u8; 16] =
    [0xdc, 0x5b, 0xc2, 0xee, 0xf2, 0x67, 0x95, 0x4d, 0xb1, 0xd5, 0xf8, 0x1b, 0x20, 0x39, 0xd1, 0x1d];
/// Shell, 7c04a583-9e3e-4f1c-ad65-e05268d0b4d1.
pub(crate) const SHELL: [u8; 16] =
    [0x83, 0xa5, 0x04, 0x7c, 0x3e, 0x9e, 0x1c, 0x4f, 0xad, 0x65, 0xe0, 0x52, 0x68, 0xd0, 0xb4, 0xd1];

const PEI_CORE: u8 = 4;
const DXE_CORE: u8 = 5;
const GUIDED: u8 = 0x02;
const VOLUME: u8 = 0x17;
const PE32: u8 = 0x10;
const TERSE: u8 = 0x12;
/// The maximum nesting of volumes; OVMF has image, LZMA, volume.
const MOST_DEPTH: u8 = 4;
/// The maximum unpacked size in bytes; OVMF's is 16 MiB.
const MOST_UNPACKED: u64 = 64 << 20;
/// The maximum memory for LZMA in KiB; OVMF's dictionary has 16 MiB.
const MOST_MEMORY: u32 = 96 << 10;

/// An image's volumes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No volume in the image has the DXE core.
    #[error(
        "firmware of {length} bytes: expected a volume with the DXE core, found {found} volumes without it"
    )]
    NoDxe {
        /// The image's length.
        length: usize,
        /// The number of volumes.
        found: usize,
    },
    /// A structure exceeds its container.
    #[error("firmware {what} at offset {offset:#x}: expected a size of {least} to {most}, found {found}")]
    Size {
        /// The structure.
        what: &'static str,
        /// Its offset in the container.
        offset: usize,
        /// The minimum size.
        least: u64,
        /// The maximum size.
        most: u64,
        /// Its size field.
        found: u64,
    },
    /// Compressed data are corrupt.
    #[error(
        "firmware section at offset {offset:#x}: expected LZMA data of {expected} bytes, found them corrupt after {found}"
    )]
    Lzma {
        /// Offset of the section.
        offset: usize,
        /// The declared unpacked size.
        expected: u64,
        /// Bytes unpacked before the error.
        found: u64,
    },
    /// Volumes are nested too deeply.
    #[error("firmware volumes are nested more than {expected} deep")]
    Depth {
        /// The maximum depth.
        expected: u8,
    },
}

/// Where firmware measures the separator before it starts a boot option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Separator {
    /// TDX: into RTMR1, as specified; edk2-stable202411 and later.
    Rtmr1,
    /// TDX: into RTMR0 again; earlier edk2.
    Rtmr0,
}

/// The properties of firmware that decide which events it measures. [`Profile::read`] takes some tenths of a second;
/// callers can cache the result by the image's digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// SHA-256 of the image.
    pub firmware: Digest,
    /// The text of EV_S_CRTM_VERSION; `None` if the image is ambiguous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it has Secure Boot; without, the variable SecureBoot is empty.
    pub secure_boot: Feature,
    /// Whether it runs in system management mode, which shows in QEMU's ACPI tables.
    pub smm: Feature,
    /// Whether it measures QEMU's ACPI tables.
    pub acpi: Feature,
    /// Whether it measures other items of QEMU's fw_cfg.
    pub fw_cfg: Feature,
    /// Whether it measures SMBIOS.
    pub smbios: Feature,
    /// Whether `Boot0000` is the boot manager menu, as in edk2-stable202505 and later.
    pub boot_menu: Feature,
    /// Whether the setup program is the first boot option, or the one after the menu.
    pub ui_app: Feature,
    /// Whether the last boot option is a shell.
    pub shell: Feature,
    /// Whether it extends RTMRs.
    pub tdx: Feature,
    /// Where the separator of a TD goes.
    pub separator: Separator,
    /// SHA-256 and SHA-384 of the unpacked DXEFV.
    pub dxe: Vec<Digest>,
}

/// Whether firmware has a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// It has it.
    Present,
    /// It does not.
    Absent,
}

impl Feature {
    fn of(condition: Option<()>) -> Feature {
        condition.map_or(Feature::Absent, |()| Feature::Present)
    }

    /// Tells whether the firmware has it.
    pub const fn is_present(self) -> bool {
        matches!(self, Feature::Present)
    }
}

impl Profile {
    /// Reads the profile from an image: variables and code, or code only.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn read(image: &[u8]) -> Result<Self, Error> {
        let volumes = Volumes::read(image)?;
        let has = |guid: &[u8; 16]| Feature::of(volumes.file(guid).map(drop));
        let says =
            |text: &[u8]| Feature::of(volumes.dxe.files.iter().any(|file| file.contains(text)).then_some(()));
        let version = volumes.version();
        let old = version.as_deref().and_then(release).is_some_and(|release| release < (2024, 11));
        Ok(Profile {
            firmware: Algorithm::Sha256.of(image),
            secure_boot: has(&SECURE_BOOT),
            smm: has(&SMM_CONTROL),
            acpi: says(b"ACPI DATA"),
            fw_cfg: says(b"QEMU FW CFG"),
            smbios: has(&SMBIOS),
            boot_menu: has(&BOOT_MENU),
            ui_app: has(&UI_APP),
            shell: has(&SHELL),
            tdx: has(&TD_TCG2),
            separator: if old { Separator::Rtmr0 } else { Separator::Rtmr1 },
            dxe: [Algorithm::Sha256, Algorithm::Sha384].map(|hash| hash.of(&volumes.dxe.bytes)).to_vec(),
            version,
        })
    }
}

/// Extracts edk2's release from a version such as `2025.02-8+deb13u1` or `edk2-stable202502`.
fn release(version: &str) -> Option<(u16, u8)> {
    let digits: Vec<u8> = version.bytes().filter(u8::is_ascii_digit).take(6).collect();
    let number: u32 = core::str::from_utf8(&digits).ok().filter(|text| text.len() == 6)?.parse().ok()?;
    Some(((number / 100) as u16, (number % 100) as u8)).filter(|release| (1..=12).contains(&release.1))
}

#[derive(Debug, Default)]
struct Volume {
    bytes: Vec<u8>,
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    guid: [u8; 16],
    kind: u8,
    content: Vec<u8>,
}

impl File {
    fn contains(&self, text: &[u8]) -> bool {
        let Some(first) = text.first() else { return true };
        let mut rest = self.content.as_slice();
        while let Some(at) = rest.iter().position(|byte| byte == first) {
            rest = rest.get(at..).unwrap_or_default();
            if rest.starts_with(text) {
                return true;
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        false
    }
}

/// The volumes of the PEI and DXE phases.
#[derive(Debug)]
struct Volumes {
    pei: Volume,
    dxe: Volume,
}

impl Volumes {
    fn read(image: &[u8]) -> Result<Self, Error> {
        let mut found = Vec::new();
        volumes_in(image, 0, &mut found)?;
        let count = found.len();
        let mut take = |kind: u8| {
            let index =
                found.iter().position(|volume: &Volume| volume.files.iter().any(|file| file.kind == kind))?;
            Some(found.swap_remove(index))
        };
        let dxe = take(DXE_CORE).ok_or(Error::NoDxe { length: image.len(), found: count })?;
        // TDX-only firmware has no PEI phase.
        Ok(Volumes { pei: take(PEI_CORE).unwrap_or_default(), dxe })
    }

    fn file(&self, guid: &[u8; 16]) -> Option<&File> {
        self.pei.files.iter().chain(&self.dxe.files).find(|file| file.guid == *guid)
    }

    /// Returns the only text in Tcg2Pei's program, empty if there is none; `None` if there are several.
    fn version(&self) -> Option<String> {
        let file = self.file(&TCG2_PEI)?;
        let sections = sections(&file.content).ok()?;
        let (.., program) = sections.iter().find(|(_, kind, _)| matches!(*kind, PE32 | TERSE))?;
        let mut texts = Vec::new();
        let mut text = String::new();
        for at in (0..program.len()).step_by(2) {
            match field::u16(program, at).unwrap_or_default() {
                letter @ 0x20..0x7f => text.push(char::from(letter as u8)),
                0 if text.len() >= 4 => texts.push(core::mem::take(&mut text)),
                _ => text.clear(),
            }
        }
        match texts.len() {
            0 => Some(String::new()),
            1 => texts.pop(),
            _ => None,
        }
    }
}

/// Reads the volumes in `bytes`, and the volumes nested in them.
fn volumes_in(bytes: &[u8], depth: u8, found: &mut Vec<Volume>) -> Result<(), Error> {
    if depth > MOST_DEPTH {
        return Err(Error::Depth { expected: MOST_DEPTH });
    }
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if field::bytes(rest, 40, 4) != Some(b"_FVH") {
            // Free space; volumes are page-aligned.
            at = at.saturating_add(4096);
            continue;
        }
        let length = field::u64(rest, 32).unwrap_or_default();
        let volume =
            usize::try_from(length).ok().filter(|length| *length >= 56).and_then(|length| rest.get(..length));
        let volume = volume.ok_or(Error::Size {
            what: "volume",
            offset: at,
            least: 56,
            most: rest.len() as u64,
            found: length,
        })?;
        read_volume(volume, depth, found)?;
        at = at.saturating_add(volume.len());
    }
    Ok(())
}

fn read_volume(volume: &[u8], depth: u8, found: &mut Vec<Volume>) -> Result<(), Error> {
    let header = usize::from(field::u16(volume, 48).unwrap_or_default());
    let extended = usize::from(field::u16(volume, 52).unwrap_or_default());
    let mut at = match extended {
        0 => header,
        // The extended header ends with its own size.
        _ => extended
            .saturating_add(field::u32(volume, extended.saturating_add(16)).unwrap_or_default() as usize),
    };
    let mut files = Vec::new();
    loop {
        at = at.saturating_add(7) & !7;
        let Some(head) = field::bytes(volume, at, 24) else { break };
        // A header of all ones is free space.
        if head.iter().all(|byte| *byte == 0xff) {
            break;
        }
        let large = head.get(19).is_some_and(|attributes| attributes & 1 != 0);
        let (start, size) = match large {
            true => (32, field::u64(volume, at.saturating_add(24)).unwrap_or_default()),
            false => (24, field::u24(head, 20).unwrap_or_default().into()),
        };
        let rest = volume.get(at..).unwrap_or_default();
        let file = usize::try_from(size).ok().and_then(|size| rest.get(start..size));
        let content = file.ok_or(Error::Size {
            what: "file",
            offset: at,
            least: start as u64,
            most: rest.len() as u64,
            found: size,
        })?;
        let kind = head.get(18).copied().unwrap_or_default();
        // Only this type, a volume image, has nested volumes.
        if kind == 0x0b {
            for (offset, kind, section) in sections(content)? {
                inner(offset, kind, section, depth, found)?;
            }
        }
        let guid = field::array(head, 0).unwrap_or_default();
        files.push(File { guid, kind, content: content.to_vec() });
        at = at.saturating_add(start.saturating_add(content.len()));
    }
    if files.iter().any(|file| matches!(file.kind, PEI_CORE | DXE_CORE)) {
        found.push(Volume { bytes: volume.to_vec(), files });
    }
    Ok(())
}

fn inner(offset: usize, kind: u8, content: &[u8], depth: u8, found: &mut Vec<Volume>) -> Result<(), Error> {
    match kind {
        VOLUME => volumes_in(content, depth.saturating_add(1), found),
        GUIDED if field::array::<16>(content, 0) == Some(LZMA) => {
            // The data offset counts from the section header of 4 bytes, which precedes the content.
            let start = usize::from(field::u16(content, 16).unwrap_or_default()).saturating_sub(4);
            let unpacked = unpack(offset, content.get(start..).unwrap_or_default())?;
            if depth >= MOST_DEPTH {
                return Err(Error::Depth { expected: MOST_DEPTH });
            }
            for (offset, kind, section) in sections(&unpacked)? {
                inner(offset, kind, section, depth.saturating_add(1), found)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A section: offset, type, content.
type Content<'a> = (usize, u8, &'a [u8]);

/// Returns the sections in order.
fn sections(bytes: &[u8]) -> Result<Vec<Content<'_>>, Error> {
    let mut sections = Vec::new();
    let mut at: usize = 0;
    loop {
        at = at.saturating_add(3) & !3;
        let Some(head) = field::bytes(bytes, at, 4) else { return Ok(sections) };
        let rest = bytes.get(at..).unwrap_or_default();
        let (start, size) = match field::u24(head, 0).unwrap_or_default() {
            0xff_ffff => (8, field::u32(rest, 4).unwrap_or_default()),
            size => (4, size),
        };
        let content = rest.get(start..size as usize).ok_or(Error::Size {
            what: "section",
            offset: at,
            least: start as u64,
            most: rest.len() as u64,
            found: size.into(),
        })?;
        sections.push((at, head.get(3).copied().unwrap_or_default(), content));
        at = at.saturating_add(size as usize);
    }
}

fn unpack(offset: usize, packed: &[u8]) -> Result<Vec<u8>, Error> {
    // Properties u8, dictionary u32, size u64.
    let expected = field::u64(packed, 5).unwrap_or_default();
    let damage = |found: usize| Error::Lzma { offset, expected, found: found as u64 };
    if expected > MOST_UNPACKED {
        return Err(Error::Size {
            what: "packed section",
            offset,
            least: 0,
            most: MOST_UNPACKED,
            found: expected,
        });
    }
    let mut reader = LzmaReader::new_mem_limit(packed, MOST_MEMORY, None).map_err(|_| damage(0))?;
    let mut unpacked = Vec::new();
    let mut buffer = alloc::vec![0; 64 << 10];
    while (unpacked.len() as u64) < expected {
        let count = lzma_rust2::Read::read(&mut reader, &mut buffer).map_err(|_| damage(unpacked.len()))?;
        if count == 0 {
            return Err(damage(unpacked.len()));
        }
        unpacked.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn section(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = ((content.len() + 4) as u32).to_le_bytes()[..3].to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(content);
        bytes
    }

    fn file(guid: &[u8; 16], kind: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = guid.to_vec();
        bytes.extend([0, 0, kind, 0]);
        bytes.extend(&((content.len() + 24) as u32).to_le_bytes()[..3]);
        bytes.push(0xf8);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(8), 0xff);
        bytes
    }

    fn volume(files: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = alloc::vec![0; 56];
        bytes[40..44].copy_from_slice(b"_FVH");
        bytes[48] = 56;
        bytes.extend(files.concat());
        bytes.resize((bytes.len() + 32).next_multiple_of(4096), 0xff);
        let length = bytes.len() as u64;
        bytes[32..40].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    fn version_program(text: &str) -> Vec<u8> {
        let mut program = alloc::vec![1; 32];
        program.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        program.extend([0; 4]);
        section(TERSE, &program)
    }

    fn image(version: &str, more: &[Vec<u8>]) -> Vec<u8> {
        let pei = volume(&[file(&[1; 16], PEI_CORE, b"x"), file(&TCG2_PEI, 6, &version_program(version))]);
        let mut files = alloc::vec![file(&[2; 16], DXE_CORE, b"core")];
        files.extend_from_slice(more);
        let dxe = volume(&files);
        let mut inside = section(VOLUME, &pei);
        inside.resize(inside.len().next_multiple_of(4), 0);
        inside.extend(section(VOLUME, &dxe));
        let mut image = alloc::vec![0xff; 4096];
        image.extend(volume(&[file(&[3; 16], 0x0b, &inside)]));
        image
    }

    #[test]
    fn features_come_from_files_and_their_texts() {
        let bare = Profile::read(&image("2023.05-2", &[])).unwrap();
        assert_eq!(bare.version.as_deref(), Some("2023.05-2"));
        assert_eq!(
            (bare.acpi, bare.smbios, bare.separator),
            (Feature::Absent, Feature::Absent, Separator::Rtmr0)
        );
        let more = [file(&SMBIOS, 7, b"x"), file(&[9; 16], 7, b"AACPI DATA\0"), file(&TD_TCG2, 7, b"")];
        let full = Profile::read(&image("edk2-stable202502", &more)).unwrap();
        assert_eq!(
            (full.acpi, full.smbios, full.tdx),
            (Feature::Present, Feature::Present, Feature::Present)
        );
        assert_eq!(full.separator, Separator::Rtmr1);
        assert_ne!(full.dxe, bare.dxe);
    }

    #[test]
    fn an_absent_version_is_empty() {
        assert_eq!(Profile::read(&image("", &[])).unwrap().version.as_deref(), Some(""));
        assert_eq!(release("2025.02-8+deb13u1"), Some((2025, 2)));
        assert_eq!(release("1.0"), None);
        assert_eq!(release("202599"), None);
    }

    #[test]
    fn an_image_without_drivers_is_refused() {
        assert_eq!(Profile::read(&[]), Err(Error::NoDxe { length: 0, found: 0 }));
        let error = Profile::read(&volume(&[file(&[1; 16], PEI_CORE, b"x")])).unwrap_err();
        assert_eq!(error, Error::NoDxe { length: 4096, found: 1 });
    }

    #[test]
    fn sizes_beyond_the_container_are_refused() {
        let good = image("", &[]);
        let refusal = |at: usize, value: &[u8]| {
            let mut image = good.clone();
            image[4096 + at..4096 + at + value.len()].copy_from_slice(value);
            Profile::read(&image).unwrap_err()
        };
        assert!(matches!(refusal(32, &[0xff; 8]), Error::Size { what: "volume", offset: 4096, .. }));
        assert!(matches!(refusal(32, &[0; 8]), Error::Size { what: "volume", .. }));
        assert!(matches!(refusal(56 + 20, &[0xff; 3]), Error::Size { what: "file", .. }));
        assert!(matches!(refusal(56 + 20, &[0; 3]), Error::Size { what: "file", .. }));
        assert!(matches!(refusal(56 + 24, &[0xfe, 0xff, 0xff]), Error::Size { what: "section", .. }));
        assert!(matches!(refusal(56 + 24, &[0; 3]), Error::Size { what: "section", .. }));
    }

    #[test]
    fn volumes_nested_too_deeply_are_refused() {
        let mut bytes = volume(&[file(&[2; 16], DXE_CORE, b"x")]);
        for _ in 0..6 {
            bytes = volume(&[file(&[3; 16], 0x0b, &section(VOLUME, &bytes))]);
        }
        assert_eq!(Profile::read(&bytes), Err(Error::Depth { expected: MOST_DEPTH }));
    }

    #[test]
    fn corrupt_compressed_data_are_refused() {
        let packed = |data: &[u8]| {
            let mut content = LZMA.to_vec();
            content.extend([24, 0, 1, 0]);
            content.extend_from_slice(data);
            volume(&[file(&[3; 16], 0x0b, &section(GUIDED, &content))])
        };
        assert!(matches!(
            Profile::read(&packed(&[0xff; 40])),
            Err(Error::Size { what: "packed section", .. })
        ));
        let mut data = alloc::vec![93, 0, 0, 1, 0];
        data.extend(100u64.to_le_bytes());
        data.extend([0; 20]);
        data[13] = 1;
        assert!(matches!(Profile::read(&packed(&data)), Err(Error::Lzma { expected: 100, .. })));
    }
}
