//! systemd-stub's events, from a UKI's sections.
//!
//! # Shape
//!
//! ```text
//! for each section present, in this order, never .pcrsig:
//!   .linux .osrel .cmdline .initrd .ucode .splash .dtb .uname .sbat .pcrpkey .hwids
//! PCR 11   EV_IPL   the name and a NUL
//! PCR 11   EV_IPL   the content, with its size in memory
//! ```
//!
//! # Source
//!
//! systemd `src/boot/stub.c` (`measure_sections`), `src/fundamental/uki.c` (the order), versions 252 to 262; RTMRs are
//! extended from 256 on. Checked against OVMF's log of Debian's stub 257 and a GKE machine's log.
//!
//! # Not here
//!
//! Files that a stub loads beside the UKI (add-ons, credentials, extensions), which this project's disks do not have; UKIs
//! with several profiles or automatic device trees, which are refused.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::pe::{self, Pe};
use crate::preimage::Piece;

/// The measured sections, in order.
pub const MEASURED: [&str; 11] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey",
    ".hwids",
];
/// Sections that the stub selects from at boot.
const CHOSEN: [&str; 3] = [".profile", ".dtbauto", ".efifw"];
/// The versions with known rules.
const KNOWN: core::ops::RangeInclusive<u16> = 252..=262;

/// A UKI's events cannot be predicted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image is not a valid PE file.
    #[error(transparent)]
    Pe(#[from] pe::Error),
    /// A section that every UKI has is missing.
    #[error("UKI has no section {name}")]
    Missing {
        /// The section.
        name: &'static str,
    },
    /// The UKI has sections that the stub selects from at boot.
    #[error("UKI has a section {name}: expected none, since the stub selects from these at boot")]
    Chosen {
        /// The section.
        name: &'static str,
    },
    /// The stub has no known version.
    #[error(
        "UKI's stub, section .sdmagic: expected \"systemd-stub\" and a version from 252 to 262, found {found:?}"
    )]
    Version {
        /// The section's text.
        found: String,
    },
}

/// A version of systemd-stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl Version {
    /// Tells whether the stub lets the firmware load the kernel, which measures it again.
    pub const fn loads_by_firmware(self) -> bool {
        self.0 < 258
    }

    /// Tells whether the stub extends RTMRs.
    pub const fn extends_rtmrs(self) -> bool {
        self.0 >= 256
    }
}

/// A UKI's measured sections.
#[derive(Debug, Clone)]
pub struct Uki<'a> {
    pe: Pe<'a>,
    /// In the order of measurement.
    sections: Vec<(&'static str, Piece<'a>)>,
    version: Version,
    signature: Option<Piece<'a>>,
}

impl<'a> Uki<'a> {
    /// Reads a UKI.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let pe = Pe::read(bytes)?;
        for name in CHOSEN {
            if pe.sections().iter().any(|section| section.name.is(name)) {
                return Err(Error::Chosen { name });
            }
        }
        let magic = one(&pe, ".sdmagic")?.ok_or(Error::Missing { name: ".sdmagic" })?;
        let version = version(&magic.bytes)?;
        let mut sections = Vec::new();
        for name in MEASURED {
            if let Some(piece) = one(&pe, name)? {
                sections.push((name, piece));
            }
        }
        if sections.first().is_none_or(|(name, _)| *name != ".linux") {
            return Err(Error::Missing { name: ".linux" });
        }
        let signature = one(&pe, ".pcrsig")?;
        Ok(Uki { pe, sections, version, signature })
    }

    /// Returns the image itself.
    pub const fn pe(&self) -> &Pe<'a> {
        &self.pe
    }

    /// Returns the measured sections, in order.
    pub fn sections(&self) -> &[(&'static str, Piece<'a>)] {
        &self.sections
    }

    /// Returns a measured section's content.
    pub fn section(&self, name: &str) -> Option<&Piece<'a>> {
        self.sections.iter().find(|(found, _)| *found == name).map(|(_, piece)| piece)
    }

    /// Returns the section `.pcrsig`, which is not measured as a section.
    pub const fn signature(&self) -> Option<&Piece<'a>> {
        self.signature.as_ref()
    }

    /// Returns the stub's version.
    pub const fn version(&self) -> Version {
        self.version
    }
}

/// Returns the content of the only section with this name; `None` if it is absent or empty.
fn one<'a>(pe: &Pe<'a>, name: &str) -> Result<Option<Piece<'a>>, pe::Error> {
    match pe.section(name)? {
        Some(section) if section.memory_size > 0 => pe.content(section).map(Some),
        _ => Ok(None),
    }
}

fn version(magic: &[u8]) -> Result<Version, Error> {
    let text = String::from_utf8_lossy(magic);
    let number = text.split_once("systemd-stub ").map(|(_, rest)| {
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default().parse::<u16>()
    });
    match number {
        Some(Ok(number)) if KNOWN.contains(&number) => Ok(Version(number)),
        _ => Err(Error::Version { found: text.chars().take(80).collect::<String>().to_string() }),
    }
}

#[cfg(test)]
pub(crate) mod specimen {
    use alloc::vec::Vec;

    use crate::pe::specimen::image;

    pub(crate) const MAGIC: &[u8] = b"#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####";

    pub(crate) fn uki(magic: &[u8], cmdline: &[u8]) -> Vec<u8> {
        let kernel = image(&[(".text", &[0xcc; 900])]);
        image(&[
            (".text", &[0x90; 600]),
            (".sdmagic", magic),
            (".osrel", b"ID=x\n"),
            (".cmdline", cmdline),
            (".initrd", b"initrd"),
            (".linux", &kernel),
        ])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::specimen::{MAGIC, uki};
    use super::*;
    use crate::pe::specimen::{TABLE, image, set};

    #[test]
    fn sections_come_in_the_order_of_the_stub_not_of_the_file() {
        let bytes = uki(MAGIC, b"quiet");
        let uki = Uki::read(&bytes).unwrap();
        let names: Vec<_> = uki.sections().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [".linux", ".osrel", ".cmdline", ".initrd"]);
        assert_eq!(&*uki.section(".cmdline").unwrap().bytes, b"quiet");
        assert_eq!(uki.version(), Version(257));
        assert!(uki.version().loads_by_firmware() && uki.version().extends_rtmrs());
        assert!(!Version(258).loads_by_firmware() && !Version(255).extends_rtmrs());
    }

    #[test]
    fn a_stub_with_an_unknown_version_is_refused() {
        for magic in [
            &b"#### LoaderInfo: systemd-stub 251 ####"[..],
            b"systemd-stub 263",
            b"systemd-boot 257",
            b"\xff",
        ] {
            assert!(matches!(Uki::read(&uki(magic, b"x")), Err(Error::Version { .. })));
        }
    }

    #[test]
    fn an_image_without_stub_or_kernel_is_refused() {
        let bytes = image(&[(".linux", b"x")]);
        assert_eq!(Uki::read(&bytes).unwrap_err(), Error::Missing { name: ".sdmagic" });
        let bytes = image(&[(".sdmagic", MAGIC), (".osrel", b"x")]);
        assert_eq!(Uki::read(&bytes).unwrap_err(), Error::Missing { name: ".linux" });
    }

    #[test]
    fn sections_that_the_stub_selects_from_are_refused() {
        for name in CHOSEN {
            let bytes = image(&[(".sdmagic", MAGIC), (".linux", b"x"), (name, b"y")]);
            assert_eq!(Uki::read(&bytes).unwrap_err(), Error::Chosen { name });
        }
        let bytes = image(&[(".sdmagic", MAGIC), (".linux", b"x"), (".linux", b"y")]);
        assert!(matches!(Uki::read(&bytes), Err(Error::Pe(pe::Error::Twice { index: 2, .. }))));
    }

    #[test]
    fn an_empty_section_is_not_measured() {
        let mut bytes = uki(MAGIC, b"quiet");
        set(&mut bytes, TABLE + 3 * 40 + 8, &[0; 4]);
        assert!(Uki::read(&bytes).unwrap().section(".cmdline").is_none());
    }
}
