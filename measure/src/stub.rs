//! systemd-stub's events, from a UKI's sections.
//!
//! # Shape
//!
//! ```text
//! for each section present, in this order, never .pcrsig:
//!   .linux .osrel .cmdline .initrd .ucode .splash .dtb .uname .sbat .pcrpkey .hwids
//! PCR 11   EV_IPL   the name and a NUL
//! PCR 11   EV_IPL   the content, with its size in memory
//!
//! version     knows                     kernel's initrd               kernel measured again   RTMRs
//! 252         not .ucode .uname         .initrd; with .pcrsig or      if Secure Boot is off   no
//!             .sbat .hwids              .pcrpkey also these
//! 254         not .ucode .hwids         the same                      if Secure Boot is off   no
//! 257         all                       and .ucode, .osrel            if Secure Boot is off   yes
//! 262         all                       and .ucode, .osrel; from a    no                      yes
//!                                       disk also a secret
//!
//! 262 with a TPM also measures SMBIOS tables, PCR 1   EV_EVENT_TAG, and appends a console to a command line without one
//! ```
//!
//! # Source
//!
//! systemd `src/boot/stub.c` (`measure_sections`), `src/fundamental/uki.c` (the order), of Debian's 252.39, 254.26 and
//! 257.13; `src/boot/boot-secret.c`, `measure-smbios.c` and `console.c` for 262. A test boots a UKI with each of the four stubs and compares every event. A version that nobody booted is refused,
//! because each of these differs from the others.
//!
//! # Not here
//!
//! Files that a stub loads beside the UKI (add-ons, credentials, extensions), which this project's disks do not have; UKIs
//! with several profiles or automatic device trees, which are refused.

use alloc::string::String;
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
/// The versions with known rules: those of Debian bookworm, its backports, trixie, and sid.
const KNOWN: [u16; 4] = [252, 254, 257, 262];

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
        "UKI's stub, section .sdmagic: expected \"systemd-stub\" and version 252, 254, 257 or 262, whose measurements are known, \
         found {found:?}"
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

    /// Tells whether the stub knows a section; what it does not know, it neither measures nor uses.
    pub fn knows(self, section: &str) -> bool {
        match section {
            ".ucode" | ".hwids" => self.0 >= 257,
            ".uname" | ".sbat" => self.0 >= 254,
            _ => true,
        }
    }

    /// Tells whether the stub passes `.osrel` on to the kernel, in an archive of its own.
    pub const fn passes_on_release(self) -> bool {
        self.0 >= 257
    }

    /// Tells whether the stub, started from a disk that it may write to, passes a secret on to the kernel: random bytes, kept
    /// in a variable and on the disk. Nobody can predict the initrd.
    pub const fn passes_on_secret(self) -> bool {
        self.0 >= 262
    }

    /// Tells whether the stub measures the machine's SMBIOS tables of types 1, 2 and 11, if there is a TPM.
    pub const fn measures_smbios(self) -> bool {
        self.0 >= 262
    }

    /// Tells whether the stub appends the machine's console to this command line.
    pub fn appends_console(self, cmdline: &[u8]) -> bool {
        let named = cmdline.starts_with(b"console=") || cmdline.windows(9).any(|part| part == b" console=");
        self.0 >= 262 && !named
    }

    /// Tells whether the stub trims blanks at the start of the command line.
    pub const fn trims_start(self) -> bool {
        self.0 >= 257
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
        for name in MEASURED.into_iter().filter(|name| version.knows(name)) {
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

/// Reads the version in `#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####`. A release candidate has no known rules.
fn version(magic: &[u8]) -> Result<Version, Error> {
    let text = String::from_utf8_lossy(magic);
    let words = text.strip_prefix("#### LoaderInfo: systemd-stub ");
    let word = words.and_then(|words| words.split(' ').next()).unwrap_or_default();
    let (number, rest) =
        word.split_at(word.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(word.len()));
    let released = rest.is_empty() || rest.starts_with(['.', '-']);
    match number.parse() {
        Ok(number) if KNOWN.contains(&number) && released && !rest.contains("rc") => Ok(Version(number)),
        _ => Err(Error::Version { found: text.chars().take(80).collect() }),
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
        let newest = Version(262);
        for line in [&b"console=ttyS0"[..], b"quiet console=ttyS0"] {
            assert!(!newest.appends_console(line));
        }
        for line in [&b""[..], b"quiet", b"xconsole=ttyS0"] {
            assert!(newest.appends_console(line) && !uki.version().appends_console(line));
        }
    }

    #[test]
    fn a_stub_with_an_unknown_version_is_refused() {
        for magic in [
            &b"#### LoaderInfo: systemd-stub 251 ####"[..],
            b"systemd-stub 263",
            b"systemd-boot 257",
            b"\xff",
            // A stub of its own name, or one that only mentions another.
            b"#### LoaderInfo: systemd-boot 257 ####",
            b"#### LoaderInfo: systemd-addon 257 ####",
            b"#### LoaderInfo: other 1, like systemd-stub 257 ####",
        ] {
            assert!(matches!(Uki::read(&uki(magic, b"x")), Err(Error::Version { .. })));
        }
        let of = |version: &str| version_of(version).map(|version| version.0);
        for known in ["252.39-1~deb12u2", "254.26-1~bpo12+1", "257.13-1~deb13u1", "262.1-1", "257"] {
            assert_eq!(of(known), known[..3].parse().ok(), "{known}");
        }
        // Between and beyond the versions that were booted, candidates, and numbers that only start like one.
        let others =
            ["253", "255.4-1ubuntu8", "256.7-1", "258.1-1", "259", "260", "261.2", "263", "2570", "25"];
        for unknown in others.into_iter().chain(["257~rc2-1", "257-rc3", "v257", "257x", "", "-257", "+257"])
        {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }

    fn version_of(text: &str) -> Option<Version> {
        let magic = alloc::format!("#### LoaderInfo: systemd-stub {text} ####");
        Uki::read(&uki(magic.as_bytes(), b"x")).ok().map(|uki| uki.version())
    }

    #[test]
    fn older_stubs_measure_fewer_sections() {
        let names = |version: &str| -> Vec<&str> {
            let magic = alloc::format!("#### LoaderInfo: systemd-stub {version} ####");
            let all = MEASURED.map(|name| (name, &b"content"[..]));
            let mut sections = alloc::vec![(".sdmagic", magic.as_bytes())];
            sections.extend(all);
            let bytes = image(&sections);
            Uki::read(&bytes).unwrap().sections().iter().map(|(name, _)| *name).collect()
        };
        let oldest = [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"];
        assert_eq!(names("252.39-1"), oldest);
        let older =
            [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"];
        assert_eq!(names("254.26"), older);
        assert_eq!(names("257.13"), MEASURED);
        assert_eq!(names("262.1"), MEASURED);
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
