//! The events of the kernel's EFI stub, from the command line and the initrd.
//!
//! # Shape
//!
//! ```text
//! PCR 9   EV_EVENT_TAG 0x8f3b22ed   LoadOptions: UTF-16 with a NUL
//! PCR 9   EV_EVENT_TAG 0x8f3b22ec   the initrd: .ucode, .initrd, newc cpio archives of what the stub passes on, each
//!                                   padded to a multiple of 4 bytes; a single one as it is
//! ```
//!
//! On a machine with a TPM and a TD's registers, the kernel extends only the TPM.
//!
//! # Source
//!
//! Linux `drivers/firmware/efi/libstub/efi-stub-helper.c` (from 6.9 also for TDs); systemd 252, 254 and 257
//! `src/boot/stub.c` (`combine_initrd`), `src/boot/cpio.c`, `src/boot/util.c` (`mangle_stub_cmdline`),
//! `src/boot/efi-string.c` (`xstrn8_to_16`). Checked with Debian's kernel 6.12 and each stub.

use alloc::vec::Vec;

use crate::preimage::{Piece, Preimage};
use crate::stub::{Uki, Version};

/// A directory in an archive.
const DIRECTORY: u32 = 0o040_000;
/// A file in an archive.
const FILE: u32 = 0o100_000;

/// A command line cannot be predicted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not UTF-8.
    #[error("command line at byte {offset}: expected UTF-8, found {found:#04x}")]
    NotText {
        /// Offset of the first bad byte.
        offset: usize,
        /// The byte.
        found: u8,
    },
}

/// Returns the LoadOptions that systemd-stub passes to the kernel for the UKI's section `.cmdline`.
///
/// # Errors
///
/// [`Error::NotText`].
pub fn load_options(cmdline: &[u8], stub: Version) -> Result<Vec<u8>, Error> {
    // The text ends at a NUL.
    let text = cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = core::str::from_utf8(text).map_err(|error| {
        let offset = error.valid_up_to();
        Error::NotText { offset, found: text.get(offset).copied().unwrap_or_default() }
    })?;
    let blank = |letter: char| u32::from(letter) <= 0x20;
    // Control characters become blanks, and blanks at the end are trimmed; by newer stubs also those at the start.
    let text = text.trim_end_matches(blank);
    let text = if stub.trims_start() { text.trim_start_matches(blank) } else { text };
    let plain = text.chars().map(|letter| if blank(letter) { ' ' } else { letter });
    // The stub knows UCS-2 only, and drops what does not fit.
    let units = plain.filter_map(|letter| u16::try_from(u32::from(letter)).ok());
    Ok(units.chain([0]).flat_map(u16::to_le_bytes).collect())
}

/// Returns the preimage of the kernel's initrd event, and the cut for it. If the initrd starts with the UKI's section
/// `.initrd`, the cut before it is that section's own digest, so that both cost one pass.
pub fn initrd<'a>(uki: &Uki<'a>) -> (Preimage<'a>, usize) {
    // In the order of the stub's list of initrds.
    let release = uki.section(".osrel").filter(|_| uki.version().passes_on_release());
    let passed_on = [
        (uki.signature(), "tpm2-pcr-signature.json"),
        (uki.section(".pcrpkey"), "tpm2-pcr-public-key.pem"),
        (release, "os-release"),
    ];
    let sections = [uki.section(".ucode"), uki.section(".initrd")];
    // The stub copies and pads only if it has something to combine.
    let alone =
        sections.iter().flatten().count() + passed_on.iter().filter(|(part, _)| part.is_some()).count() == 1;
    let fill = |section: &Piece<'_>| {
        let fill = if alone { 0 } else { section.bytes.len().wrapping_neg() % 4 };
        Piece::made(alloc::vec![0; fill])
    };
    let mut pieces = Vec::new();
    let mut first = None;
    match sections {
        [None, Some(initrd)] => {
            first = Some(initrd.clone());
            pieces.push(fill(initrd));
        }
        _ => {
            sections.into_iter().flatten().for_each(|section| pieces.extend([section.clone(), fill(section)]))
        }
    }
    for (section, name) in passed_on {
        if let Some(section) = section {
            archive(section, name, &mut pieces);
        }
    }
    match first {
        Some(section) => (Preimage::new(alloc::vec![section]).followed_by(pieces), 1),
        None => (Preimage::new(pieces), 0),
    }
}

/// Appends an archive with one file in `.extra`.
fn archive<'a>(content: &Piece<'a>, name: &str, pieces: &mut Vec<Piece<'a>>) {
    let size = content.bytes.len();
    let mut head = member(1, DIRECTORY | 0o555, 0, ".extra");
    head.extend(member(2, FILE | 0o444, size, &alloc::format!(".extra/{name}")));
    pieces.push(Piece::made(head));
    pieces.push(content.clone());
    let mut tail = alloc::vec![0; size.wrapping_neg() % 4];
    let zeros = "00000000";
    let words = ["070701", zeros, zeros, zeros, zeros, "00000001", zeros, zeros, zeros, zeros, zeros, zeros];
    tail.extend(words.concat().into_bytes());
    tail.extend(b"0000000B00000000TRAILER!!!\0\0\0\0");
    // The stub pads each archive to 4 bytes; the trailer is 124 bytes long and needs no padding.
    pieces.push(Piece::made(tail));
}

fn member(inode: u32, mode: u32, size: usize, name: &str) -> Vec<u8> {
    let mut bytes = b"070701".to_vec();
    let length = name.len().saturating_add(1) as u32;
    for word in [inode, mode, 0, 0, 1, 0, size as u32, 0, 0, 0, 0, length, 0] {
        bytes.extend(alloc::format!("{word:08x}").into_bytes());
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use alloc::string::String;

    use super::*;
    use crate::digest::Algorithm;
    use crate::pe::specimen::image;
    use crate::stub::specimen::{MAGIC, uki};

    fn text(cmdline: &[u8]) -> String {
        text_of(cmdline, Version(257))
    }

    fn text_of(cmdline: &[u8], stub: Version) -> String {
        let options = load_options(cmdline, stub).unwrap();
        let units: Vec<u16> = options.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        assert_eq!(units.last(), Some(&0));
        String::from_utf16(&units[..units.len() - 1]).unwrap()
    }

    #[test]
    fn blanks_at_the_ends_are_trimmed_and_control_characters_become_blanks() {
        assert_eq!(text(b" \n quiet\troot=x\n\n"), "quiet root=x");
        // Beyond UCS-2, the stub drops a character (`xstrn8_to_16`).
        assert_eq!(text("a\u{e4}\u{1f600} b\0junk".as_bytes()), "a\u{e4} b");
        assert_eq!(text(b""), "");
        assert_eq!(text_of(b" \n quiet\troot=x\n\n", Version(252)), "   quiet root=x");
        assert_eq!(text_of(b" \n ", Version(254)), "");
        assert_eq!(load_options(b"ab\xff", Version(257)), Err(Error::NotText { offset: 2, found: 0xff }));
    }

    #[test]
    fn an_initrd_that_the_stub_combines_with_nothing_stays_as_it_is() {
        let digest = |sections: &[(&str, &[u8])]| {
            let bytes = image(sections);
            let (preimage, cut) = initrd(&Uki::read(&bytes).unwrap());
            preimage.digests(Algorithm::Sha384)[cut]
        };
        let old = &b"#### LoaderInfo: systemd-stub 252.39-1 ####"[..];
        let base = [(".linux", &b"k"[..]), (".osrel", b"ID=x\n"), (".ucode", b"u"), (".initrd", b"initrd")];
        let with = |magic, more: &[(&'static str, &'static [u8])]| {
            let mut all = alloc::vec![(".sdmagic", magic)];
            all.extend(base);
            all.extend(more);
            digest(&all)
        };
        let plain = |bytes: &[u8]| Algorithm::Sha384.of(bytes);
        assert_eq!(with(old, &[]), plain(b"initrd"));
        assert_ne!(with(MAGIC, &[]), plain(b"initrd"));
        assert_eq!(
            digest(&[(".sdmagic", MAGIC), (".linux", b"k"), (".initrd", b"initrd")]),
            plain(b"initrd")
        );
        assert_eq!(digest(&[(".sdmagic", MAGIC), (".linux", b"k"), (".ucode", b"ucode")]), plain(b"ucode"));
        // With something to combine, it is padded, and the archive follows.
        let mut pieces = Vec::new();
        archive(&Piece::made(b"{}".to_vec()), "tpm2-pcr-signature.json", &mut pieces);
        let tail: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
        assert_eq!(with(old, &[(".pcrsig", b"{}")]), plain(&[&b"initrd\0\0"[..], &tail].concat()));
    }

    #[test]
    fn the_initrd_is_the_section_and_an_archive_of_the_release() {
        let bytes = uki(MAGIC, b"x");
        let uki = Uki::read(&bytes).unwrap();
        let (preimage, cut) = initrd(&uki);
        let digests = preimage.digests(Algorithm::Sha384);
        assert_eq!(cut, 1);
        assert_eq!(digests[0], Algorithm::Sha384.of(b"initrd"));
        let mut all = b"initrd\0\0".to_vec();
        let member = |inode, mode, size, name_size| {
            alloc::format!(
                "070701{inode}{mode}0000000000000000{links}00000000{size}{rest}{name_size}00000000",
                links = "00000001",
                rest = "00000000".repeat(4)
            )
            .into_bytes()
        };
        all.extend(member("00000001", "0000416d", "00000000", "00000007"));
        all.extend(b".extra\0\0\0\0");
        all.extend(member("00000002", "00008124", "00000005", "00000012"));
        all.extend(b".extra/os-release\0");
        all.extend(b"ID=x\n\0\0\0");
        all.extend(member("00000000", "00000000", "00000000", "0000000B"));
        all.extend(b"TRAILER!!!\0\0\0\0");
        assert_eq!(digests[1], Algorithm::Sha384.of(&all), "{}", String::from_utf8_lossy(&all));
    }
}
