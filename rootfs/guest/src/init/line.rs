//! A text of bounded length on the stack, formatted from pieces.
//!
//! # Shape
//!
//! `N` bytes, of which at most `N - 1` are text: what follows the text is always NUL, so that the kernel can
//! take a line as a C string.
//!
//! # Source
//!
//! Ours: the init has no heap, and each text that it builds (a path, a dm table, a message) has a known
//! bound.
//!
//! # Not here
//!
//! Growing: a piece that does not fit is an error of [`core::fmt::Write`], never a truncated text, except by
//! [`Line::cut`].

use core::ffi::CStr;
use core::fmt;

/// Holds a text of at most `N - 1` bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Line<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Line<N> {
    /// Makes an empty line.
    pub const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    /// Formats `pieces`; `None` when they do not fit.
    pub fn of(pieces: fmt::Arguments<'_>) -> Option<Self> {
        let mut line = Self::new();
        fmt::Write::write_fmt(&mut line, pieces).ok()?;
        Some(line)
    }

    /// Copies foreign bytes for a message: bytes that are not printable ASCII become `?`; a long text is truncated.
    pub fn cut(text: &[u8]) -> Self {
        let mut line = Self::new();
        for (to, from) in line.bytes.iter_mut().take(N.saturating_sub(1)).zip(text) {
            *to = if from.is_ascii_graphic() || *from == b' ' { *from } else { b'?' };
        }
        line.length = text.len().min(N.saturating_sub(1));
        line
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The text up to its first NUL, as a C string.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Write for Line<N> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let end = self.length.checked_add(piece.len()).filter(|end| *end < N).ok_or(fmt::Error)?;
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(piece.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Line<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(self.as_bytes()).unwrap_or("?"))
    }
}

impl<const N: usize> fmt::Debug for Line<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_all_but_one_byte_fits() {
        let line = Line::<4>::of(format_args!("{}", 123)).expect("fits");
        assert_eq!(line.as_bytes(), b"123");
        assert_eq!(line.as_c_str(), c"123");
    }

    #[test]
    fn a_text_that_leaves_no_room_for_the_nul_is_refused() {
        assert_eq!(Line::<4>::of(format_args!("{}", 1234)), None);
        assert_eq!(Line::<0>::of(format_args!("1")), None);
    }

    #[test]
    fn foreign_bytes_are_cut_and_made_printable() {
        assert_eq!(Line::<6>::cut(b"a\n\x1bb\xffcdef").as_bytes(), b"a??b?");
        assert_eq!(Line::<0>::cut(b"a").as_bytes(), b"");
    }
}
