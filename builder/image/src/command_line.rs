//! Judges a kernel command line: whether every word that is measured also reaches the kernel.
//!
//! # Shape
//! ```text
//! word word "word with blanks" …      printable ASCII, at most 2,047 bytes
//! ```
//!
//! # Source
//! Linux x86 `COMMAND_LINE_SIZE` (2,048 with the NUL); `efi_convert_cmdline` cuts a longer line at a blank, without an error.
//! `lib/cmdline.c` `next_arg` (a quote joins what follows, to the next quote), `kernel/params.c` `parse_args` (`--` ends the
//! kernel's part). systemd-stub turns control characters into blanks, ends at a NUL, and drops what UCS-2 lacks.
//!
//! # Not here
//! What the words mean.

/// The longest line that the kernel keeps, in bytes.
pub const MOST: usize = 2047;

/// Why a command line would not be in force as it is measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is too long.
    #[error(
        "command line has {found} bytes, expected at most {MOST}: the kernel cuts the rest off without an error"
    )]
    Length {
        /// Its length.
        found: usize,
    },
    /// A character changes on its way to the kernel.
    #[error("command line has the byte {found:#04x} at offset {offset}, expected printable ASCII")]
    Character {
        /// Its offset.
        offset: usize,
        /// The byte.
        found: u8,
    },
    /// A quote is not closed.
    #[error("command line has a quote that is not closed: it joins all words that follow into one")]
    Quote,
    /// The kernel's part ends early.
    #[error("command line has the word \"--\": the words after it do not reach the kernel")]
    End,
}

/// Checks a command line, or a part of one.
///
/// # Errors
/// [`Error`].
pub fn check(line: &[u8]) -> Result<(), Error> {
    if let Some(offset) = line.iter().position(|byte| !(b' '..=b'~').contains(byte)) {
        return Err(Error::Character { offset, found: line.get(offset).copied().unwrap_or_default() });
    }
    let mut quoted = false;
    for word in line.split(|byte| *byte == b' ') {
        if !quoted && matches!(word, b"--" | b"\"--" | b"\"--\"") {
            return Err(Error::End);
        }
        quoted ^= word.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
    }
    match (quoted, line.len()) {
        (true, _) => Err(Error::Quote),
        (false, found) if found > MOST => Err(Error::Length { found }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_keeps_is_accepted() {
        for line in ["", "quiet", "a=\"b c\" d", "a=b\"c d\"", "root=/dev/dm-0 ro", "--x x--"] {
            assert_eq!(check(line.as_bytes()), Ok(()), "{line}");
        }
        assert_eq!(check(&[b'x'; MOST]), Ok(()));
    }

    #[test]
    fn what_the_kernel_cuts_off_is_refused() {
        assert_eq!(check(&[b'x'; MOST + 1]), Err(Error::Length { found: MOST + 1 }));
    }

    #[test]
    fn characters_that_change_on_their_way_are_refused() {
        for found in (0..=0x1f).chain([0x7f, 0x80, 0xa0, 0xff]) {
            assert_eq!(check(&[b'a', found, b'b']), Err(Error::Character { offset: 1, found }));
        }
        for text in ["\u{e4}", "a\u{1f600}", "a\u{2028}b", "quiet\n", "quiet\0"] {
            assert!(matches!(check(text.as_bytes()), Err(Error::Character { .. })), "{text:?}");
        }
    }

    #[test]
    fn words_that_hide_those_after_them_are_refused() {
        for line in ["a=\"b", "a\" lockdown=confidentiality", "\"", "a=\"b c\" \"d"] {
            assert_eq!(check(line.as_bytes()), Err(Error::Quote), "{line}");
        }
        for line in ["--", "quiet -- lockdown=confidentiality", "-- x", "\"--\" x"] {
            assert_eq!(check(line.as_bytes()), Err(Error::End), "{line}");
        }
        assert_eq!(check(b"a=\"b -- c\""), Ok(()));
    }
}
