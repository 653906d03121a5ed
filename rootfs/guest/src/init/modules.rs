//! The kernel modules to load, from `/modules.load` of the initrd.
//!
//! # Shape
//!
//! One absolute path per line, in the order of loading, each line ended by `\n`. A `?` before the path marks
//! a module whose hardware only some machines have (a CPU's SHA extensions, another cloud's disk): it may
//! fail because there is none.
//!
//! ```text
//! /lib/modules/dm-mod.ko.xz
//! ?/lib/modules/sha256-ssse3.ko.xz
//! ```
//!
//! # Source
//!
//! Ours: a dependency comes before the modules that need it, because nothing here resolves dependencies.
//!
//! # Not here
//!
//! Comments, blank lines, parameters: the builder writes the list, and its bytes are measured.

use core::fmt;

/// Names a module file and how to load it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// The path, absolute, printable ASCII without blanks.
    pub path: &'a str,
    /// What unpacks it.
    pub packing: Packing,
    /// Whether its hardware may be missing.
    pub hardware: Hardware,
}

/// Tells how a module file is packed, by its name's ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// `.ko`
    Plain,
    /// `.ko.xz`, `.ko.zst` or `.ko.gz`: the kernel unpacks it (`MODULE_INIT_COMPRESSED_FILE`).
    Compressed,
}

/// Tells whether a module's hardware may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// The module must load.
    Required,
    /// `ENODEV` is not a failure.
    Optional,
}

/// Tells why a line was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The line, from 1.
    pub line: usize,
    /// What it should have been.
    pub expected: &'static str,
}

impl core::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is not {}", self.line, self.expected)
    }
}

/// Reads the list; an error names its line.
pub fn list(text: &[u8]) -> impl Iterator<Item = Result<Module<'_>, Error>> {
    let lines = text.split_inclusive(|byte| *byte == b'\n').scan(0_usize, |number, line| {
        *number = number.saturating_add(1);
        Some((*number, line))
    });
    lines.map(|(number, line)| {
        let refuse = |expected| Error { line: number, expected };
        let line = line.strip_suffix(b"\n").ok_or(refuse("ended by a line feed"))?;
        module(line).map_err(refuse)
    })
}

fn module(line: &[u8]) -> Result<Module<'_>, &'static str> {
    let (hardware, path) = match line.strip_prefix(b"?") {
        Some(path) => (Hardware::Optional, path),
        None => (Hardware::Required, line),
    };
    let absolute = path.first() == Some(&b'/') && path.iter().all(u8::is_ascii_graphic);
    let path = core::str::from_utf8(path).ok().filter(|_| absolute);
    let path = path.ok_or("an absolute path of printable ASCII without blanks")?;
    let packing = if path.ends_with(".ko") {
        Packing::Plain
    } else if [".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|ending| path.ends_with(ending)) {
        Packing::Compressed
    } else {
        return Err("a .ko, .ko.xz, .ko.zst or .ko.gz file");
    };
    Ok(Module { path, packing, hardware })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &[u8]) -> Error {
        list(text).find_map(Result::err).expect("refused")
    }

    #[test]
    fn the_order_of_the_lines_is_the_order_of_loading() {
        let read: Vec<_> = list(b"/b.ko\n?/a.ko.xz\n").collect::<Result<_, _>>().expect("accepted");
        assert_eq!(
            read,
            [
                Module { path: "/b.ko", packing: Packing::Plain, hardware: Hardware::Required },
                Module { path: "/a.ko.xz", packing: Packing::Compressed, hardware: Hardware::Optional },
            ]
        );
    }

    #[test]
    fn an_empty_list_names_no_module() {
        assert_eq!(list(b"").count(), 0);
    }

    #[test]
    fn a_line_without_its_end_is_refused() {
        assert_eq!(refusal(b"/a.ko\n/b.ko").line, 2);
    }

    #[test]
    fn a_blank_or_relative_or_unprintable_line_is_refused() {
        for text in [&b"\n"[..], b"?\n", b"a.ko\n", b" /a.ko\n", b"/a b.ko\n", b"/a\0.ko\n", b"/\xff.ko\n"] {
            assert_eq!(refusal(text).line, 1, "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_module_is_refused() {
        for text in [&b"/a\n"[..], b"/a.ko.bz2\n", b"/a.ko.xz.sh\n"] {
            assert_eq!(refusal(text).expected, "a .ko, .ko.xz, .ko.zst or .ko.gz file", "{text:?}");
        }
    }
}
