//! Yields what one kernel module declares about itself, from the bytes of its file.
//!
//! # Shape
//! ```text
//! .ko | .ko.xz | .ko.zst -> ELF -> .modinfo           key=value, NUL
//!                                  .symtab .strtab     __crc_NAME: exported; undefined: needed
//!                                  __versions          64 B each: checksum u64, name
//!                                  __ksymtab_strings   exported names, where there are no checksums
//! ```
//!
//! # Source
//! Linux `include/linux/module.h`, `scripts/mod/modpost.c`; which of them count, and in what order: kmod 34.
//!
//! # Not here
//! Dependencies between modules: [`crate::fixup::depmod`].

use std::io::Read;

use crate::elf::{self, Sections};

/// The most bytes that a module may unpack to; the largest of Debian's cloud kernel has 3 MB.
pub const MAX_MODULE: u64 = 128 << 20;

/// The most memory for unpacking one module, in bytes.
const MAX_MEMORY: u64 = 256 << 20;

const SYMBOL: usize = 24;
const VERSION: usize = 64;
const UNDEFINED: u16 = 0;

/// Why a file is not a kernel module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It does not decompress.
    #[error("the {0} stream is damaged")]
    Compressed(&'static str),
    /// It is too large.
    #[error("the module unpacks to more than {MAX_MODULE} bytes")]
    TooLarge,
    /// Its ELF headers are damaged.
    #[error("the module is not an ELF file")]
    Elf(#[from] elf::Error),
    /// A table that is not a whole number of entries.
    #[error("section {section} has {found} bytes, expected a multiple of {expected}")]
    Table {
        /// Its name.
        section: &'static str,
        /// Length of an entry.
        expected: usize,
        /// Its length.
        found: usize,
    },
    /// A string without an end, or that is not UTF-8.
    #[error("invalid string at offset {offset} of section {section}")]
    Text {
        /// The section.
        section: &'static str,
        /// Where in it.
        offset: usize,
    },
}

/// How the file of a module is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// `.ko`
    Plain,
    /// `.ko.xz`
    Xz,
    /// `.ko.zst`
    Zstd,
}

impl Packing {
    /// Splits the name of a module's file into the module's name, as the kernel spells it, and the packing; `None` if
    /// it is not a module.
    pub fn of(file: &str) -> Option<(String, Packing)> {
        let (stem, packing) = [(".ko", Packing::Plain), (".ko.xz", Packing::Xz), (".ko.zst", Packing::Zstd)]
            .into_iter()
            .find_map(|(end, packing)| Some((file.strip_suffix(end)?, packing)))?;
        (!stem.is_empty()).then(|| (normal_name(stem), packing))
    }
}

/// The name of a module as the kernel spells it: up to the first dot, with underscores.
pub fn normal_name(name: &str) -> String {
    name.split('.').next().unwrap_or("").replace('-', "_")
}

/// What a module declares about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Module {
    /// Its `key=value` pairs, in order.
    pub info: Vec<(String, String)>,
    /// Names that it exports.
    pub exports: Vec<String>,
    /// Names that it needs, in the order of its tables.
    pub needs: Vec<String>,
}

impl Module {
    /// Decompresses and reads a module.
    ///
    /// # Errors
    /// [`Error`] if any part is damaged.
    pub fn read(file: &[u8], packing: Packing) -> Result<Self, Error> {
        match packing {
            Packing::Plain => Module::parse(file),
            Packing::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(MAX_MEMORY, 0)
                    .map_err(|_| Error::Compressed("xz"))?;
                Module::parse(&unpack(liblzma::read::XzDecoder::new_stream(file, stream), "xz")?)
            }
            Packing::Zstd => {
                let decoder =
                    zstd::stream::read::Decoder::new(file).map_err(|_| Error::Compressed("zstd"))?;
                Module::parse(&unpack(decoder, "zstd")?)
            }
        }
    }

    /// Reads the bytes of a plain module.
    ///
    /// # Errors
    /// [`Error::Elf`], [`Error::Table`], [`Error::Text`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let sections = Sections::read(bytes)?;
        let mut module = Module::default();
        for entry in texts(sections.named(".modinfo").unwrap_or(&[]), ".modinfo")? {
            let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
            module.info.push((key.to_owned(), value.to_owned()));
        }
        let symbols = symbols(&sections)?;
        for (name, section) in &symbols {
            if let Some(exported) = name.strip_prefix("__crc_") {
                module.exports.push(exported.to_owned());
            }
            if *section == UNDEFINED && !name.is_empty() {
                module.needs.push((*name).to_owned());
            }
        }
        if module.exports.is_empty() {
            let strings = sections.named("__ksymtab_strings").unwrap_or(&[]);
            module.exports = texts(strings, "__ksymtab_strings")?.into_iter().map(str::to_owned).collect();
        }
        // Names with a checksum but no undefined symbol, such as module_layout, are needed too.
        let versions = sections.named("__versions").unwrap_or(&[]);
        let section = "__versions";
        if versions.len() % VERSION != 0 {
            return Err(Error::Table { section, expected: VERSION, found: versions.len() });
        }
        let asked: std::collections::BTreeSet<&str> =
            symbols.iter().filter(|(_, section)| *section == UNDEFINED).map(|(name, _)| *name).collect();
        for (index, entry) in versions.chunks_exact(VERSION).enumerate() {
            let name = text(entry.get(8..).unwrap_or(&[]), 0)
                .ok_or(Error::Text { section, offset: index * VERSION })?;
            if !asked.contains(name) {
                module.needs.push(name.to_owned());
            }
        }
        Ok(module)
    }

    /// The values of one key, in order.
    pub fn values<'m>(&'m self, key: &'m str) -> impl Iterator<Item = &'m str> {
        self.info.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
    }
}

fn unpack(decoder: impl Read, what: &'static str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = decoder.take(MAX_MODULE + 1).read_to_end(&mut bytes).map_err(|_| Error::Compressed(what))?;
    if read as u64 > MAX_MODULE { Err(Error::TooLarge) } else { Ok(bytes) }
}

fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

/// The non-empty strings between NULs.
fn texts<'b>(bytes: &'b [u8], section: &'static str) -> Result<Vec<&'b str>, Error> {
    let mut offset = 0;
    let mut list = Vec::new();
    for part in bytes.split(|&byte| byte == 0) {
        if !part.is_empty() {
            list.push(std::str::from_utf8(part).map_err(|_| Error::Text { section, offset })?);
        }
        offset += part.len() + 1;
    }
    Ok(list)
}

/// Name and section of each symbol except the first, which is a null entry.
fn symbols<'b>(sections: &Sections<'b>) -> Result<Vec<(&'b str, u16)>, Error> {
    let (Some(table), Some(strings)) = (sections.named(".symtab"), sections.named(".strtab")) else {
        return Ok(Vec::new());
    };
    if table.len() % SYMBOL != 0 {
        return Err(Error::Table { section: ".symtab", expected: SYMBOL, found: table.len() });
    }
    let entries = table.chunks_exact(SYMBOL).skip(1);
    entries
        .map(|raw| {
            let offset = raw.first_chunk().map_or(0, |raw| u32::from_le_bytes(*raw)) as usize;
            let section =
                raw.get(6..).and_then(<[u8]>::first_chunk).map_or(0, |raw| u16::from_le_bytes(*raw));
            let name = text(strings, offset).ok_or(Error::Text { section: ".strtab", offset })?;
            Ok((name, section))
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A minimal module with these strings.
    pub(crate) fn module(info: &[&str], exports: &[&str], needs: &[&str]) -> Vec<u8> {
        let modinfo: Vec<u8> = info.iter().flat_map(|text| text.bytes().chain([0])).collect();
        let mut strings = vec![0u8];
        let mut symbols = vec![0u8; SYMBOL];
        let names = exports.iter().map(|name| (format!("__crc_{name}"), 1u16));
        for (name, section) in names.chain(needs.iter().map(|name| ((*name).to_owned(), UNDEFINED))) {
            symbols.extend((strings.len() as u32).to_le_bytes());
            symbols.extend([0, 0]);
            symbols.extend(section.to_le_bytes());
            symbols.extend([0; 16]);
            strings.extend(name.bytes().chain([0]));
        }
        let names = b"\0.modinfo\0.symtab\0.strtab\0.shstrtab\0".to_vec();
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([1, 0, 62, 0, 1, 0, 0, 0]);
        file.extend([0; 16]);
        let bodies = [(1u32, modinfo), (10, symbols), (18, strings), (26, names)];
        let table_at = 64 + bodies.iter().map(|(_, body)| body.len()).sum::<usize>();
        file.extend((table_at as u64).to_le_bytes());
        file.extend([0; 4]);
        for half in [64u16, 0, 0, 64, 5, 4] {
            file.extend(half.to_le_bytes());
        }
        let mut table = vec![0u8; 64];
        for (name, body) in &bodies {
            let mut header = vec![0u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(body.len() as u64).to_le_bytes());
            table.extend(header);
            file.extend(body);
        }
        file.extend(table);
        file
    }

    fn sample() -> Vec<u8> {
        module(&["alias=pci:*", "depends=b", "alias=c"], &["out"], &["in"])
    }

    #[test]
    fn strings_exports_and_needs_are_read() {
        let module = Module::parse(&sample()).unwrap();
        assert_eq!(module.values("alias").collect::<Vec<_>>(), ["pci:*", "c"]);
        assert_eq!(module.exports, ["out"]);
        assert_eq!(module.needs, ["in"]);
    }

    #[test]
    fn a_compressed_module_reads_as_the_plain_one() {
        let plain = Module::parse(&sample()).unwrap();
        let packed = zstd::bulk::compress(&sample(), 3).unwrap();
        assert_eq!(Module::read(&packed, Packing::Zstd).unwrap(), plain);
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(&*sample(), 6).read_to_end(&mut xz).unwrap();
        assert_eq!(Module::read(&xz, Packing::Xz).unwrap(), plain);
        xz.truncate(xz.len() / 2);
        assert_eq!(Module::read(&xz, Packing::Xz), Err(Error::Compressed("xz")));
        assert_eq!(Module::read(b"junk", Packing::Zstd), Err(Error::Compressed("zstd")));
    }

    #[test]
    fn names_of_files_become_names_of_modules() {
        assert_eq!(Packing::of("dm-mod.ko.xz"), Some(("dm_mod".into(), Packing::Xz)));
        assert_eq!(Packing::of("a.ko"), Some(("a".into(), Packing::Plain)));
        assert_eq!(Packing::of("a.ko.zst"), Some(("a".into(), Packing::Zstd)));
        for other in ["a.ko.gz", "modules.dep", ".ko", "ko"] {
            assert_eq!(Packing::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_table_with_half_an_entry_is_refused() {
        let mut file = sample();
        let header = file.len() - 3 * 64;
        file[header + 32] -= 1;
        let error = Module::parse(&file).unwrap_err();
        assert!(matches!(error, Error::Table { section: ".symtab", .. }), "{error}");
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_of_a_module_panics() {
        let good = sample();
        for len in 0..good.len() {
            let _ = Module::parse(&good[..len]);
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut file = good.clone();
                file[at] = value;
                let _ = Module::parse(&file);
            }
        }
    }
}
