//! Yields text on standard output, safe to show on a terminal.
//!
//! # Not here
//! Failures, which go to standard error (`failure`).

use std::borrow::Cow;
use std::io::{self, Write};

/// Prints a text. Control characters other than newlines and tabs are escaped, because names and contents of
/// an image are untrusted. A closed pipe, as with `head`, is not an error.
///
/// # Errors
/// The file system's error.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(plain(text).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn plain(text: &str) -> Cow<'_, str> {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(odd) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if odd(c) {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn control_characters_are_escaped_and_lines_stay() {
        assert_eq!(plain("a\tb\nc\u{e9}\n"), "a\tb\nc\u{e9}\n");
        assert_eq!(plain("\u{1b}[2J\r\n"), "\\u{1b}[2J\\r\n");
    }
}
