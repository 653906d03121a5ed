//! Yields a unified kernel image from systemd-stub and the sections that it boots.
//!
//! # Shape
//!
//! ```text
//! stub's headers   NumberOfSections, SizeOfInitializedData, SizeOfImage, CheckSum (0) changed,
//!                  one 40-byte section header added per section
//! stub's sections  unchanged, except .sbat, which the caller's replaces
//! .osrel … .linux  as given, each from the next multiple of the file alignment (512) in the file and of
//!                  the section alignment (4096) in memory
//! ```
//!
//! The stub's time stamp stays, since it comes from the locked input. With the same sections, the bytes equal
//! the output of `ukify build`.
//!
//! # Source
//!
//! UAPI Group specification *Unified Kernel Image* (section names) and *PE Format* (headers); `ukify` 257
//! `pe_add_sections()` and `merge_sbat()` for every choice that those leave open; a test compares whole
//! files. OVMF 2025.02 boots it.
//!
//! # Not here
//!
//! What systemd-stub measures from the image (`ovmf-measure`), signing (`sign`).

use ovmf_measure::pe::{self, Name, Pe};

use super::command_line;

/// `IMAGE_SCN_CNT_CODE`.
const CODE: u32 = 0x0000_0020;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA`.
const INITIALIZED_DATA: u32 = 0x0000_0040;
/// `IMAGE_SCN_MEM_READ`.
const READABLE: u32 = 0x4000_0000;

/// The only section that the stub may have too.
const SBAT: Name = Name(*b".sbat\0\0\0");
/// The first line of every SBAT section.
const SBAT_HEADER: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n";
/// The line that marks the image as a UKI, as `ukify` adds it; shim uses it to revoke a generation of UKIs.
pub const SBAT_UKI: &str =
    "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/\n";

/// A section to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name, for instance `.cmdline`.
    pub name: &'a str,
    /// Its bytes, which may not be empty.
    pub content: &'a [u8],
}

/// Why an image could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The stub is not an image that can be extended.
    #[error("cannot read the stub")]
    Stub(#[source] pe::Error),
    /// The kernel is not an EFI program.
    #[error("cannot read the kernel")]
    Kernel(#[source] pe::Error),
    /// The stub is not an EFI application.
    #[error("stub has subsystem {found}, expected {expected} (EFI application)", expected = pe::EFI_APPLICATION)]
    Subsystem {
        /// The subsystem found.
        found: u16,
    },
    /// The stub carries a signature, which any change would break.
    #[error("stub is signed ({found} bytes of certificates), expected an unsigned one")]
    Signed {
        /// Length of its certificate table.
        found: usize,
    },
    /// A size or offset of the stub is not a multiple of its alignment.
    #[error("{what} of the stub is {found:#x}, expected a multiple of {expected:#x}")]
    Unaligned {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The alignment.
        expected: u32,
    },
    /// The stub has bytes after its sections.
    #[error("stub ends at {found:#x}, expected {expected:#x}, the end of its last section")]
    TrailingBytes {
        /// The end of the last section.
        expected: u64,
        /// The stub's length.
        found: u64,
    },
    /// The name does not fit a section header.
    #[error("section name {name:?}: expected 1 to 8 printable characters")]
    Name {
        /// The name.
        name: String,
    },
    /// A section has no bytes.
    #[error("section {name} is empty")]
    Empty {
        /// The section.
        name: Name,
    },
    /// The stub already has the section, or it is given twice.
    #[error("section {name} exists already")]
    Exists {
        /// The section.
        name: Name,
    },
    /// The headers have no room for one more section.
    #[error(
        "no room for section {name}: its header would end at {found:#x}, the headers end at {expected:#x}"
    )]
    HeaderRoom {
        /// The section.
        name: Name,
        /// The size of the headers.
        expected: u64,
        /// Where the new header would end.
        found: u64,
    },
    /// The merged SBAT section is larger than the room of the stub's own.
    #[error("merged .sbat section has {found} bytes, the stub has room for {expected}")]
    SbatRoom {
        /// The room in the stub.
        expected: u32,
        /// Bytes given.
        found: usize,
    },
    /// SBAT data do not begin with the header line or are not text.
    #[error(
        "SBAT data of the {origin} is malformed, expected lines of text, the first beginning with \"sbat,\""
    )]
    Sbat {
        /// Where the data come from.
        origin: &'static str,
    },
    /// The kernel would not get the command line as it is measured.
    #[error("section .cmdline")]
    CommandLine(#[source] command_line::Error),
    /// The image would exceed the 32-bit address range.
    #[error("section {name} ends beyond 4 GiB")]
    TooLarge {
        /// The section.
        name: Name,
    },
}

/// A section and its place.
struct Placed<'a> {
    header: pe::Section,
    content: &'a [u8],
}

/// Appends `sections` to `stub`, in the order given, and returns the image.
///
/// A `.sbat` section replaces the stub's (see [`merge_sbat`]). If `.linux` is not marked as compatible with
/// NX memory, neither is the image, since the firmware would load both the same way.
///
/// # Errors
///
/// A stub that cannot be extended: not PE32+ for x86-64, signed, unaligned, or without header room. A section
/// that has no name, has no bytes, or already exists; a `.linux` that is not a PE image; a `.cmdline` that the kernel would
/// not get as it is measured.
pub fn build(stub: &[u8], sections: &[Section<'_>]) -> Result<Vec<u8>, Error> {
    let stub = Pe::read_strict(stub).map_err(Error::Stub)?;
    check(&stub)?;
    let mut plan = Plan::of(&stub);
    for section in sections {
        plan.add(section)?;
    }
    plan.image()
}

/// Where everything goes, before anything is written.
struct Plan<'a> {
    stub: &'a Pe<'a>,
    added: Vec<Placed<'a>>,
    /// The index of the stub's section that is replaced, and its replacement.
    replaced: Option<(usize, Placed<'a>)>,
    file_end: u64,
    memory_end: u64,
    header_end: u64,
    initialized: u64,
    characteristics: u16,
}

impl<'a> Plan<'a> {
    fn of(stub: &'a Pe<'a>) -> Self {
        Plan {
            stub,
            added: Vec::new(),
            replaced: None,
            file_end: stub.bytes().len() as u64,
            memory_end: stub.sections().last().map_or(0, pe::Section::memory_end),
            header_end: (stub.section_table() + pe::SECTION_HEADER * stub.sections().len()) as u64,
            initialized: 0,
            characteristics: stub.dll_characteristics(),
        }
    }

    fn add(&mut self, section: &Section<'a>) -> Result<(), Error> {
        let stub = self.stub;
        let name = Name::new(section.name).ok_or_else(|| Error::Name { name: section.name.into() })?;
        if section.content.is_empty() {
            return Err(Error::Empty { name });
        }
        if section.name == ".cmdline" {
            command_line::check(section.content).map_err(Error::CommandLine)?;
        }
        let too_large = |_| Error::TooLarge { name };
        let memory_size = u32::try_from(section.content.len()).map_err(too_large)?;
        let given = self.replaced.iter().map(|(_, placed)| placed).chain(&self.added);
        if given.into_iter().any(|placed| placed.header.name == name) {
            return Err(Error::Exists { name });
        }
        let mut existing = stub.sections().iter().enumerate().filter(|(_, existing)| existing.name == name);
        let content = section.content;
        if let Some((index, header)) = existing.next() {
            if name != SBAT || existing.next().is_some() {
                return Err(Error::Exists { name });
            }
            // The section has one unit of memory alignment to itself: the next section begins after it.
            let room = header.file_size.min(stub.section_alignment());
            if header.memory_size == 0 || memory_size > room {
                return Err(Error::SbatRoom { expected: room, found: content.len() });
            }
            self.replaced = Some((index, Placed { header: pe::Section { memory_size, ..*header }, content }));
            return Ok(());
        }
        self.header_end += pe::SECTION_HEADER as u64;
        let expected = stub.size_of_headers() as u64;
        if self.header_end > expected {
            return Err(Error::HeaderRoom { name, expected, found: self.header_end });
        }
        let address = self.memory_end.next_multiple_of(stub.section_alignment().into());
        let file_size = u64::from(memory_size).next_multiple_of(u64::from(stub.file_alignment()));
        let header = pe::Section {
            name,
            memory_size,
            address: u32::try_from(address).map_err(too_large)?,
            file_size: u32::try_from(file_size).map_err(too_large)?,
            file_offset: u32::try_from(self.file_end).map_err(too_large)?,
            characteristics: READABLE | if section.name == ".linux" { CODE } else { INITIALIZED_DATA },
        };
        if section.name == ".linux" {
            let kernel = Pe::read_strict(content).map_err(Error::Kernel)?;
            self.characteristics &= kernel.dll_characteristics() | !pe::NX_COMPAT;
        }
        self.memory_end = header.memory_end();
        self.file_end += file_size;
        self.initialized += u64::from(memory_size);
        self.added.push(Placed { header, content });
        Ok(())
    }

    /// Writes the image.
    fn image(self) -> Result<Vec<u8>, Error> {
        let stub = self.stub;
        let last = self.added.last().map(|placed| placed.header.name);
        let too_large = |_| Error::TooLarge { name: last.unwrap_or(SBAT) };
        let size_of_image = self.memory_end.next_multiple_of(stub.section_alignment().into());
        let size_of_image = u32::try_from(size_of_image).map_err(too_large)?;
        let mut image = Vec::with_capacity(usize::try_from(self.file_end).map_err(too_large)?);
        image.extend_from_slice(stub.bytes());
        for placed in &self.added {
            image.extend_from_slice(placed.content);
            image.resize(image.len().next_multiple_of(stub.file_alignment() as usize), 0);
        }

        let optional = stub.optional_header();
        let count = stub.sections().len() + self.added.len();
        let at = |index: usize| stub.section_table() + pe::SECTION_HEADER * index;
        for (index, placed) in self.added.iter().enumerate() {
            put(&mut image, at(stub.sections().len() + index), &section_header(&placed.header));
        }
        if let Some((index, Placed { header, content })) = &self.replaced {
            let start = header.file_offset as usize;
            put(&mut image, at(*index) + 8, &header.memory_size.to_le_bytes());
            put(&mut image, start, content);
            put(&mut image, start + content.len(), &vec![0; header.file_size as usize - content.len()]);
        }
        put(&mut image, stub.file_header() + 2, &(count as u16).to_le_bytes());
        let data = optional + pe::SIZE_OF_INITIALIZED_DATA;
        let initialized = stub.size_of_initialized_data().wrapping_add(self.initialized as u32);
        put(&mut image, data, &initialized.to_le_bytes());
        put(&mut image, optional + pe::SIZE_OF_IMAGE, &size_of_image.to_le_bytes());
        put(&mut image, optional + pe::CHECK_SUM, &[0; 4]);
        put(&mut image, optional + pe::DLL_CHARACTERISTICS, &self.characteristics.to_le_bytes());
        Ok(image)
    }
}

fn check(stub: &Pe<'_>) -> Result<(), Error> {
    if stub.subsystem() != pe::EFI_APPLICATION {
        return Err(Error::Subsystem { found: stub.subsystem() });
    }
    if !stub.certificates().is_empty() {
        return Err(Error::Signed { found: stub.certificates().len() });
    }
    let expected = stub.file_alignment();
    let aligned = |what, found: u64| match found.is_multiple_of(expected.into()) {
        true => Ok(()),
        false => Err(Error::Unaligned { what, found, expected }),
    };
    let mut end = stub.size_of_headers() as u64;
    aligned("the headers' size", end)?;
    for section in stub.sections() {
        aligned("a section's offset", section.file_offset.into())?;
        aligned("a section's size", section.file_size.into())?;
        end = end.max(section.file_end());
    }
    let found = stub.bytes().len() as u64;
    if found == end { Ok(()) } else { Err(Error::TrailingBytes { expected: end, found }) }
}

fn section_header(section: &pe::Section) -> [u8; pe::SECTION_HEADER] {
    let mut header = [0; pe::SECTION_HEADER];
    put(&mut header, 0, &section.name.0);
    put(&mut header, 8, &section.memory_size.to_le_bytes());
    put(&mut header, 12, &section.address.to_le_bytes());
    put(&mut header, 16, &section.file_size.to_le_bytes());
    put(&mut header, 20, &section.file_offset.to_le_bytes());
    put(&mut header, 36, &section.characteristics.to_le_bytes());
    header
}

/// Writes a field at an offset that [`Pe::read_strict`] found inside the image.
fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
    let place = image.get_mut(offset..offset + bytes.len());
    place.expect("the reader checked that the field lies in the image").copy_from_slice(bytes);
}

/// Merges the SBAT lines of stub and kernel with `extra` lines (usually [`SBAT_UKI`]) into one section.
///
/// Shim compares each line's generation with its revocation list, so a fault in the stub, the kernel or the
/// image can be revoked separately.
///
/// # Errors
///
/// An image that cannot be read, or SBAT data that are not text or lack their header line.
pub fn merge_sbat(stub: &[u8], kernel: &[u8], extra: &str) -> Result<Vec<u8>, Error> {
    let stub = Pe::read_strict(stub).map_err(Error::Stub)?;
    let kernel = Pe::read_strict(kernel).map_err(Error::Kernel)?;
    let mut merged = SBAT_HEADER.to_owned();
    for (origin, image, wrap) in
        [("stub", stub, Error::Stub as fn(pe::Error) -> Error), ("kernel", kernel, Error::Kernel)]
    {
        let section = match image.extract(".sbat") {
            Err(pe::Error::Missing { .. }) => continue,
            section => section.map_err(wrap)?,
        };
        let text = std::str::from_utf8(section).map_err(|_| Error::Sbat { origin })?;
        let mut lines = text.trim_end_matches('\0').lines();
        if !lines.next().is_some_and(|first| first.starts_with("sbat,"))
            || text.trim_end_matches('\0').contains('\0')
        {
            return Err(Error::Sbat { origin });
        }
        for line in lines {
            merged.push_str(line);
            merged.push('\n');
        }
    }
    if extra.contains('\0') || !(extra.is_empty() || extra.ends_with('\n')) {
        return Err(Error::Sbat { origin: "caller" });
    }
    merged.push_str(extra);
    merged.push('\0');
    Ok(merged.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::specimen::{HEADERS, OPTIONAL, PE, TABLE, image, set};
    use super::*;
    use proptest::prelude::*;

    const SBAT: &str =
        "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nstub,1,S,s,1,x\n";

    fn stub() -> Vec<u8> {
        image(&[(".text", &[0x90; 700]), (".sbat", SBAT.as_bytes()), (".reloc", &[1; 12])])
    }

    fn kernel() -> Vec<u8> {
        image(&[(".text", &[0xcc; 1000])])
    }

    fn section<'a>(name: &'a str, content: &'a [u8]) -> Section<'a> {
        Section { name, content }
    }

    fn refusal(stub: &[u8], sections: &[Section<'_>]) -> Error {
        build(stub, sections).unwrap_err()
    }

    #[test]
    fn sections_come_out_as_they_went_in() {
        let kernel = kernel();
        let sections =
            [section(".osrel", b"ID=x\n"), section(".cmdline", b"quiet"), section(".linux", &kernel)];
        let image = build(&stub(), &sections).unwrap();
        let read = Pe::read_strict(&image).unwrap();
        for Section { name, content } in sections {
            assert_eq!(read.extract(name).unwrap(), content, "{name}");
        }
        assert_eq!(read.extract(".text").unwrap(), [0x90; 700]);
        let rows: Vec<_> = read.sections()[3..]
            .iter()
            .map(|row| (row.address, row.memory_size, row.file_offset, row.file_size, row.characteristics))
            .collect();
        let start = stub().len() as u32;
        assert_eq!(
            rows,
            [
                (0x4000, 5, start, 0x200, 0x4000_0040),
                (0x5000, 5, start + 0x200, 0x200, 0x4000_0040),
                (0x6000, kernel.len() as u32, start + 0x400, kernel.len() as u32, 0x4000_0020),
            ]
        );
        let u32_at = |offset: usize| u32::from_le_bytes(image[offset..offset + 4].try_into().unwrap());
        assert_eq!(u32_at(OPTIONAL + pe::SIZE_OF_IMAGE), 0x7000);
        assert_eq!(u32_at(OPTIONAL + pe::SIZE_OF_INITIALIZED_DATA), 10 + kernel.len() as u32);
        assert_eq!(image.capacity(), image.len());
    }

    #[test]
    fn check_sum_becomes_zero_and_the_time_stamp_stays() {
        let mut stub = stub();
        set(&mut stub, OPTIONAL + pe::CHECK_SUM, &[1, 2, 3, 4]);
        set(&mut stub, PE + 8, &[5, 6, 7, 8]);
        let image = build(&stub, &[section(".osrel", b"x")]).unwrap();
        assert_eq!(image[OPTIONAL + pe::CHECK_SUM..][..4], [0; 4]);
        assert_eq!(image[PE + 8..][..4], [5, 6, 7, 8]);
    }

    #[test]
    fn sbat_takes_the_place_of_the_stubs() {
        let merged = merge_sbat(&stub(), &kernel(), SBAT_UKI).unwrap();
        assert_eq!(merged, format!("{SBAT}{SBAT_UKI}\0").into_bytes());
        let image = build(&stub(), &[section(".sbat", &merged)]).unwrap();
        let read = Pe::read_strict(&image).unwrap();
        assert_eq!(read.extract(".sbat").unwrap(), merged);
        assert_eq!(image.len(), stub().len());
        // A shorter section leaves nothing of the longer one behind.
        let shorter = build(&image, &[section(".sbat", b"sbat,1\n")]).unwrap();
        let row = Pe::read_strict(&shorter).unwrap().sections()[1];
        assert!(
            shorter[row.file_offset as usize + 7..][..row.file_size as usize - 7]
                .iter()
                .all(|byte| *byte == 0)
        );
    }

    #[test]
    fn sbat_lines_of_the_kernel_come_after_the_stubs() {
        let kernel = image(&[(".sbat", b"sbat,1,SBAT Version\nlinux,1,L,linux,6,y\n\0\0")]);
        let merged = String::from_utf8(merge_sbat(&stub(), &kernel, "").unwrap()).unwrap();
        assert_eq!(merged, format!("{SBAT}linux,1,L,linux,6,y\n\0"));
    }

    #[test]
    fn malformed_sbat_is_refused() {
        let text = |content: &[u8]| image(&[(".sbat", content)]);
        let good = text(b"sbat,1\n");
        for bad in [&b"linux,1\n"[..], b"sbat,1\n\xff\n", b"\0\0", b"sbat,1\na\0b\n"] {
            assert_eq!(merge_sbat(&text(bad), &good, ""), Err(Error::Sbat { origin: "stub" }));
            assert_eq!(merge_sbat(&good, &text(bad), ""), Err(Error::Sbat { origin: "kernel" }));
        }
        for bad in ["no end", "a\0\n"] {
            assert_eq!(merge_sbat(&good, &good, bad), Err(Error::Sbat { origin: "caller" }));
        }
        assert!(matches!(merge_sbat(b"", &good, ""), Err(Error::Stub(_))));
        assert!(matches!(merge_sbat(&good, b"", ""), Err(Error::Kernel(_))));
    }

    #[test]
    fn sbat_larger_than_its_place_is_refused() {
        assert!(build(&stub(), &[section(".sbat", &[b'x'; 512])]).is_ok());
        let error = refusal(&stub(), &[section(".sbat", &[b'x'; 513])]);
        assert_eq!(error, Error::SbatRoom { expected: 512, found: 513 });
    }

    #[test]
    fn a_stub_without_sbat_gets_one() {
        let stub = image(&[(".text", b"x")]);
        let image = build(&stub, &[section(".sbat", b"sbat,1\n")]).unwrap();
        assert_eq!(Pe::read_strict(&image).unwrap().extract(".sbat").unwrap(), b"sbat,1\n");
    }

    #[test]
    fn an_image_is_as_nx_compatible_as_its_kernel() {
        let flags = |kernel: &[u8]| {
            let image = build(&stub(), &[section(".linux", kernel)]).unwrap();
            Pe::read_strict(&image).unwrap().dll_characteristics()
        };
        let mut old = kernel();
        set(&mut old, OPTIONAL + pe::DLL_CHARACTERISTICS, &[0, 0]);
        assert_eq!(flags(&kernel()), pe::NX_COMPAT);
        assert_eq!(flags(&old), 0);
    }

    #[test]
    fn a_section_that_exists_is_refused() {
        assert!(matches!(refusal(&stub(), &[section(".text", b"x")]), Error::Exists { .. }));
        let twice = [section(".osrel", b"x"), section(".osrel", b"y")];
        assert_eq!(refusal(&stub(), &twice).to_string(), "section .osrel exists already");
        let twice = [section(".sbat", b"x"), section(".sbat", b"y")];
        assert!(matches!(refusal(&stub(), &twice), Error::Exists { .. }));
        let two = image(&[(".sbat", b"sbat,1\n"), (".sbat", b"sbat,1\n")]);
        assert!(matches!(refusal(&two, &[section(".sbat", b"x")]), Error::Exists { .. }));
    }

    #[test]
    fn a_section_without_name_or_bytes_is_refused() {
        for name in ["", ".toolong9", "\0"] {
            assert!(matches!(refusal(&stub(), &[section(name, b"x")]), Error::Name { .. }));
        }
        assert!(matches!(refusal(&stub(), &[section(".osrel", b"")]), Error::Empty { .. }));
    }

    #[test]
    fn a_section_beyond_the_headers_room_is_refused() {
        let names: Vec<String> = (0..20).map(|index| format!(".x{index}")).collect();
        let sections: Vec<Section<'_>> = names.iter().map(|name| section(name, b"x")).collect();
        let room = (HEADERS - TABLE) / pe::SECTION_HEADER - 3;
        assert!(build(&stub(), &sections[..room]).is_ok());
        let error = refusal(&stub(), &sections[..room + 1]);
        assert!(matches!(error, Error::HeaderRoom { expected: 0x400, found: 0x418, .. }), "{error}");
    }

    #[test]
    fn a_kernel_that_is_not_a_program_is_refused() {
        assert!(matches!(refusal(&stub(), &[section(".linux", b"bzImage")]), Error::Kernel(_)));
    }

    #[test]
    fn a_stub_that_cannot_be_extended_is_refused() {
        assert!(matches!(refusal(b"MZ", &[]), Error::Stub(pe::Error::Truncated { .. })));
        let changed = |offset: usize, bytes: &[u8]| {
            let mut stub = stub();
            set(&mut stub, offset, bytes);
            refusal(&stub, &[])
        };
        assert!(matches!(
            changed(PE + 4, &[0x64, 0xaa]),
            Error::Stub(pe::Error::Field { field: "the machine", .. })
        ));
        assert!(matches!(changed(OPTIONAL, &[0x0b, 0x01]), Error::Stub(pe::Error::Field { .. })));
        assert_eq!(changed(OPTIONAL + 68, &[3, 0]), Error::Subsystem { found: 3 });
        let error = changed(OPTIONAL + 60, &0x3f0u32.to_le_bytes());
        assert_eq!(error, Error::Unaligned { what: "the headers' size", found: 0x3f0, expected: 0x200 });
        let error = changed(TABLE + 16, &700u32.to_le_bytes());
        assert_eq!(error, Error::Unaligned { what: "a section's size", found: 700, expected: 0x200 });
        let mut longer = stub();
        longer.push(0);
        assert!(matches!(refusal(&longer, &[]), Error::TrailingBytes { .. }));
    }

    #[test]
    fn a_signed_stub_is_refused() {
        let mut signed = stub();
        let directory = OPTIONAL + 112 + 32;
        let length = signed.len() as u32;
        set(&mut signed, directory, &length.to_le_bytes());
        set(&mut signed, directory + 4, &8u32.to_le_bytes());
        signed.extend([0; 8]);
        assert_eq!(refusal(&signed, &[]), Error::Signed { found: 8 });
    }

    #[test]
    fn a_command_line_that_the_kernel_does_not_get_whole_is_refused() {
        use command_line::{Error as Line, MOST};
        let refused = |line: &[u8]| refusal(&stub(), &[section(".cmdline", line)]);
        assert_eq!(refused(&[b'x'; MOST + 1]), Error::CommandLine(Line::Length { found: MOST + 1 }));
        for line in ["ro\0quiet", "ro\nquiet", "ro\tquiet", "ro \u{e4}"] {
            let refused = refused(line.as_bytes());
            assert!(matches!(refused, Error::CommandLine(Line::Character { .. })), "{line:?}: {refused}");
        }
        assert!(build(&stub(), &[section(".cmdline", &[b'x'; MOST])]).is_ok());
    }

    #[test]
    fn an_image_beyond_4_gib_is_refused() {
        // All sections share one gibibyte of zeros that is never touched.
        let content = vec![0; (1 << 30) + 1];
        let names = [".a", ".b", ".c", ".d"];
        let sections: Vec<Section<'_>> = names.iter().map(|name| section(name, &content)).collect();
        assert!(matches!(refusal(&stub(), &sections), Error::TooLarge { .. }));
    }

    proptest! {
        #[test]
        fn any_contents_read_back(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..3000), 0..7)) {
            let names = [".osrel", ".dtb", ".uname", ".initrd", ".ucode", ".splash", ".pcrpkey"];
            let sections: Vec<Section<'_>> = names.iter().zip(&contents).map(|(name, content)| section(name, content)).collect();
            let image = build(&stub(), &sections).unwrap();
            let read = Pe::read_strict(&image).unwrap();
            for Section { name, content } in sections {
                prop_assert_eq!(read.extract(name).unwrap(), content);
            }
        }
    }
}
