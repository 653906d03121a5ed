//! Yields control stanzas from deb822 text: names and values as slices of the input.
//!
//! # Shape
//! ```text
//! Name: first line of the value
//!  a continuation line begins with a space or a tab
//! # a comment line
//! <empty line ends the stanza>
//! ```
//!
//! # Source
//! Debian Policy 5.1; deb822(5). Stricter than both: a carriage return and a repeated field are errors.
//!
//! # Not here
//! What a field means: [`super::packages`], [`super::inrelease`].

/// Text that is not deb822; `line` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The bytes are not UTF-8.
    #[error("control text is not UTF-8 at byte {offset}")]
    NotUtf8 {
        /// The offset of the first invalid byte.
        offset: usize,
    },
    /// A carriage return, which is not part of deb822.
    #[error("control text has a carriage return in line {line}")]
    CarriageReturn {
        /// Its line.
        line: usize,
    },
    /// A line that is neither a field, a continuation, a comment nor empty.
    #[error("line {line} has no field name: {text:?}")]
    NoName {
        /// Its line.
        line: usize,
        /// Its first characters.
        text: String,
    },
    /// A continuation line with no field before it.
    #[error("line {line} is a continuation line without a field")]
    NothingToContinue {
        /// Its line.
        line: usize,
    },
    /// A field that occurs twice in one stanza; names are compared case-insensitively.
    #[error("line {line} repeats the field `{name}` of line {first}")]
    Repeated {
        /// The second occurrence.
        line: usize,
        /// The first occurrence.
        first: usize,
        /// The name as the second occurrence spells it.
        name: String,
    },
}

/// One field; its value may span lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as written.
    pub name: &'a str,
    /// The value without surrounding white space, including the unmodified continuation lines.
    pub value: &'a str,
    /// The line of the name, from 1.
    pub line: usize,
}

impl<'a> Field<'a> {
    /// Yields the lines of the value, trimmed and without comments; the first is on the name's line.
    pub fn lines(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.value.split('\n').filter(|line| !line.starts_with('#')).map(str::trim)
    }
}

/// The fields between two empty lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stanza<'a> {
    /// At least one field, in the order of the text.
    pub fields: Vec<Field<'a>>,
    /// The line of the first field, from 1.
    pub line: usize,
}

impl<'a> Stanza<'a> {
    /// Finds a field by its name, case-insensitively.
    pub fn field(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// Finds the value of a field by its name, case-insensitively.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.field(name).map(|field| field.value)
    }
}

/// Yields stanzas in order and stops after the first error.
#[derive(Debug)]
pub struct Stanzas<'a> {
    text: &'a str,
    /// The offset of the first unread byte.
    at: usize,
    line: usize,
    failed: Option<ControlError>,
}

/// Reads deb822 bytes stanza by stanza.
pub fn stanzas(bytes: &[u8]) -> Stanzas<'_> {
    let (text, failed) = match std::str::from_utf8(bytes) {
        Ok(text) if text.contains('\r') => {
            let line = text.split('\n').position(|line| line.contains('\r')).map_or(1, |before| before + 1);
            ("", Some(ControlError::CarriageReturn { line }))
        }
        Ok(text) => (text, None),
        Err(error) => ("", Some(ControlError::NotUtf8 { offset: error.valid_up_to() })),
    };
    Stanzas { text, at: 0, line: 1, failed }
}

impl<'a> Stanzas<'a> {
    /// Takes the next line with its offset and number.
    fn next_line(&mut self) -> Option<(&'a str, usize, usize)> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let line = rest.split_once('\n').map_or(rest, |(line, _)| line);
        let taken = (line, self.at, self.line);
        self.at = self.at.saturating_add(line.len()).saturating_add(1);
        self.line += 1;
        Some(taken)
    }

    fn next_stanza(&mut self) -> Result<Option<Stanza<'a>>, ControlError> {
        let mut fields: Vec<Field<'a>> = Vec::with_capacity(24);
        // The start of the last field's value.
        let mut start = 0;
        while let Some((line, at, number)) = self.next_line() {
            let blank = line.bytes().all(|byte| byte == b' ' || byte == b'\t');
            match line.bytes().next() {
                Some(b'#') => {}
                _ if blank && fields.is_empty() => {}
                _ if blank => break,
                Some(b' ' | b'\t') => {
                    let field = fields.last_mut().ok_or(ControlError::NothingToContinue { line: number })?;
                    field.value = self.text.get(start..at + line.len()).unwrap_or_default().trim();
                }
                _ => {
                    let (name, value) =
                        line.split_once(':').filter(|(name, _)| is_field_name(name)).ok_or_else(|| {
                            ControlError::NoName { line: number, text: line.chars().take(40).collect() }
                        })?;
                    if let Some(first) = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)) {
                        let first = first.line;
                        return Err(ControlError::Repeated { line: number, first, name: name.into() });
                    }
                    start = at + line.len() - value.len();
                    fields.push(Field { name, value: value.trim(), line: number });
                }
            }
        }
        let line = fields.first().map(|field| field.line);
        Ok(line.map(|line| Stanza { fields, line }))
    }
}

impl<'a> Iterator for Stanzas<'a> {
    type Item = Result<Stanza<'a>, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = match self.failed.take() {
            Some(error) => Err(error),
            None => self.next_stanza(),
        };
        if result.is_err() {
            self.text = "";
        }
        result.transpose()
    }
}

/// Tells whether `name` fits Policy 5.1: printable ASCII without the colon, the first neither `#` nor `-`.
fn is_field_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['#', '-']) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads a size in bytes: only decimal digits.
pub fn read_size(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// Reads a SHA-256 digest: 64 lower-case hexadecimal digits.
pub fn read_sha256(text: &str) -> Option<[u8; 32]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}

/// Tells whether a path stays below the folder it is joined to, both on a mirror and on disk.
pub fn is_safe_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\:?#%*\"'<>|".contains(&byte);
    // `%3a` and colons: Debian's file names carry no epoch, and a colon could start a scheme.
    path.bytes().all(plain) && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Stanza<'_>>, ControlError> {
        stanzas(text.as_bytes()).collect()
    }

    #[test]
    fn folded_fields_and_comments_are_read() {
        let text = "\n# head\nPackage: a\nDepends: b,\n# between\n c (>= 1),\n\td\n# after\nSize:1\n\n\n \nPackage: e";
        let got = all(text).unwrap();
        let [first, second] = got.as_slice() else { panic!("two stanzas") };
        assert_eq!(first.line, 3);
        assert_eq!(first.value("package"), Some("a"));
        let depends = first.field("Depends").unwrap();
        assert_eq!(depends.lines().collect::<Vec<_>>(), ["b,", "c (>= 1),", "d"]);
        assert_eq!(depends.line, 4);
        assert_eq!(first.value("Size"), Some("1"));
        assert_eq!(first.value("Version"), None);
        assert_eq!((second.line, second.value("Package")), (13, Some("e")));
    }

    #[test]
    fn values_are_slices_of_the_input() {
        let text = "Package: a\nDescription: x\n y\n";
        let got = all(text).unwrap();
        let value = got[0].value("Description").unwrap();
        assert_eq!(value, "x\n y");
        assert!(text.as_bytes().as_ptr_range().contains(&value.as_ptr()));
    }

    #[test]
    fn text_without_stanzas_yields_none() {
        for text in ["", "\n\n", "# only\n", " \n\t\n"] {
            assert_eq!(all(text).unwrap(), [], "{text:?}");
        }
    }

    #[test]
    fn a_carriage_return_is_refused() {
        assert_eq!(all("A: b\r\n").unwrap_err(), ControlError::CarriageReturn { line: 1 });
        assert_eq!(all("A: b\n\r\nC: d\n").unwrap_err(), ControlError::CarriageReturn { line: 2 });
    }

    #[test]
    fn a_repeated_field_is_refused_with_both_lines() {
        let error = all("A: 1\nB: 2\na: 3\n").unwrap_err();
        assert_eq!(error, ControlError::Repeated { line: 3, first: 1, name: "a".into() });
        assert!(all("A: 1\n\nA: 2\n").is_ok());
    }

    #[test]
    fn a_line_without_a_name_is_refused() {
        for text in ["A: 1\nno colon\n", "A: 1\n: value\n", "A: 1\n-x: 1\n", "A: 1\nB C: 1\n", "A: 1\né: 1\n"]
        {
            assert!(matches!(all(text), Err(ControlError::NoName { line: 2, .. })), "{text:?}");
        }
    }

    #[test]
    fn a_continuation_of_nothing_is_refused() {
        assert_eq!(all(" x\n").unwrap_err(), ControlError::NothingToContinue { line: 1 });
        assert_eq!(all("A: 1\n\n x\n").unwrap_err(), ControlError::NothingToContinue { line: 3 });
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_once() {
        let mut iterator = stanzas(b"A: \xff\n");
        assert_eq!(iterator.next(), Some(Err(ControlError::NotUtf8 { offset: 3 })));
        assert_eq!(iterator.next(), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            for stanza in stanzas(&bytes) { let _ = stanza; }
        }

        #[test]
        fn written_fields_are_read_back(fields in proptest::collection::btree_map("[A-Z][a-z-]{0,6}", "[a-z0-9]{1,5}( [a-z]{1,3})?", 1..6)) {
            let text: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            let stanza = all(&text).unwrap().remove(0);
            for (name, value) in &fields { proptest::prop_assert_eq!(stanza.value(name), Some(value.as_str())); }
        }
    }
}
