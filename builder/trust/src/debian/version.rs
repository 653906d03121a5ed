//! Debian version order, from version strings.
//!
//! # Shape
//! `[epoch:]upstream[-revision]`; the epoch is a decimal number, the revision follows the last hyphen.
//!
//! # Source
//! Debian Policy 5.6.12 and deb-version(7); compared with `dpkg --compare-versions` in `system-tests`.
//!
//! # Not here
//! Relations that constrain versions: `resolve`.

use std::cmp::Ordering;

/// A string that is not a Debian version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The upstream part is empty.
    #[error("version `{0}` has no upstream part")]
    Empty(String),
    /// The epoch is not a number below 2^31.
    #[error("version `{0}` has an epoch that is not a number")]
    Epoch(String),
    /// A character outside `A-Za-z0-9.+-~:`.
    #[error("version `{version}` has the character {found:?} at byte {offset}")]
    Character {
        /// The whole version.
        version: String,
        /// The character that is not allowed.
        found: char,
        /// Its byte offset.
        offset: usize,
    },
}

/// A well-formed Debian version that borrows its text; `==` and order are Debian's (`1.0` equals `1.00`).
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    text: &'a str,
    epoch: u32,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Version<'a> {
    /// Reads a version; the error names the offending part.
    pub fn read(text: &'a str) -> Result<Self, VersionError> {
        for (offset, found) in text.char_indices() {
            if !(found.is_ascii_alphanumeric() || ".+-~:".contains(found)) {
                return Err(VersionError::Character { version: text.into(), found, offset });
            }
        }
        let (epoch, rest) = match text.split_once(':') {
            None => (0, text),
            Some((epoch, rest)) => {
                let digits = !epoch.is_empty() && epoch.bytes().all(|b| b.is_ascii_digit());
                let epoch: Option<u32> = if digits { epoch.parse().ok() } else { None };
                (epoch.filter(|e| *e <= i32::MAX as u32).ok_or(VersionError::Epoch(text.into()))?, rest)
            }
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        if upstream.is_empty() {
            return Err(VersionError::Empty(text.into()));
        }
        Ok(Version { text, epoch, upstream, revision })
    }

    /// Returns the version as it was written.
    pub fn as_str(&self) -> &'a str {
        self.text
    }
}

impl std::fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text)
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version<'_> {}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_part(self.upstream, other.upstream))
            .then_with(|| compare_part(self.revision, other.revision))
    }
}

/// Compares runs of non-digits and runs of digits in turn, as Policy 5.6.12 says.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let (text_a, text_b);
        (text_a, a) = split_run(a, |byte| !byte.is_ascii_digit());
        (text_b, b) = split_run(b, |byte| !byte.is_ascii_digit());
        let text = compare_text(text_a, text_b);
        if text != Ordering::Equal {
            return text;
        }
        let (digits_a, digits_b);
        (digits_a, a) = split_run(a, |byte| byte.is_ascii_digit());
        (digits_b, b) = split_run(b, |byte| byte.is_ascii_digit());
        let (digits_a, digits_b) = (digits_a.trim_start_matches('0'), digits_b.trim_start_matches('0'));
        let number = digits_a.len().cmp(&digits_b.len()).then_with(|| digits_a.cmp(digits_b));
        if number != Ordering::Equal {
            return number;
        }
        if a.is_empty() && b.is_empty() {
            return Ordering::Equal;
        }
    }
}

/// Orders bytes: tilde before the end of the text, the end before letters, letters before everything else.
fn compare_text(a: &str, b: &str) -> Ordering {
    let weight = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => i32::from(other) + 256,
    };
    let (mut a, mut b) = (a.bytes(), b.bytes());
    loop {
        let (next_a, next_b) = (a.next(), b.next());
        let order = weight(next_a).cmp(&weight(next_b));
        if order != Ordering::Equal || (next_a.is_none() && next_b.is_none()) {
            return order;
        }
    }
}

/// Splits off the longest prefix whose bytes satisfy `wanted`; versions are ASCII, so any byte is a boundary.
fn split_run(text: &str, wanted: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !wanted(byte)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `system-tests` checks this table against `dpkg --compare-versions`.
    const TABLE: &[(&str, &str, Ordering)] = &[
        ("1.0", "1.0", Ordering::Equal),
        ("1.0", "1.00", Ordering::Equal),
        ("1.0", "1.0-0", Ordering::Equal),
        ("0:1.0", "1.0", Ordering::Equal),
        ("1.0~rc1", "1.0", Ordering::Less),
        ("1.0~~", "1.0~", Ordering::Less),
        ("1.0~~a", "1.0~~", Ordering::Greater),
        ("1.0-1", "1.0-1+b1", Ordering::Less),
        ("1:0.1", "9.9", Ordering::Greater),
        ("1.10", "1.9", Ordering::Greater),
        ("1.0a", "1.0+", Ordering::Less),
        ("1.0a", "1.0", Ordering::Greater),
        ("1.0-1~deb13u1", "1.0-1", Ordering::Less),
        ("257.9-1~deb13u1", "257.8-1~deb13u2", Ordering::Greater),
        ("20250419+deb13u1", "20250419", Ordering::Greater),
        ("1.2.3-a-b", "1.2.3-a-c", Ordering::Less),
        ("00012", "12", Ordering::Equal),
        ("9999999999999999999999", "10000000000000000000000", Ordering::Less),
    ];

    #[test]
    fn versions_compare_as_policy_says() {
        for &(a, b, order) in TABLE {
            let (left, right) = (Version::read(a).unwrap(), Version::read(b).unwrap());
            assert_eq!(left.cmp(&right), order, "{a} {b}");
            assert_eq!(right.cmp(&left), order.reverse(), "{b} {a}");
        }
    }

    #[test]
    fn a_version_without_upstream_part_is_refused() {
        assert_eq!(Version::read("").unwrap_err(), VersionError::Empty("".into()));
        assert_eq!(Version::read("1:").unwrap_err(), VersionError::Empty("1:".into()));
        assert_eq!(Version::read("-1").unwrap_err(), VersionError::Empty("-1".into()));
    }

    #[test]
    fn an_epoch_that_is_no_number_is_refused() {
        for text in ["a:1", ":1", "+1:1", "2147483648:1", "99999999999:1"] {
            assert_eq!(Version::read(text).unwrap_err(), VersionError::Epoch(text.into()), "{text}");
        }
    }

    #[test]
    fn a_character_outside_the_alphabet_is_refused() {
        let error = Version::read("1.0_2").unwrap_err();
        assert_eq!(error, VersionError::Character { version: "1.0_2".into(), found: '_', offset: 3 });
        assert!(Version::read("1.0é").is_err());
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_total(a in "[0-9][a-z0-9.+~-]{0,8}", b in "[0-9][a-z0-9.+~-]{0,8}", c in "[0-9][a-z0-9.+~-]{0,8}") {
            let [a, b, c] = [&a, &b, &c].map(|text| Version::read(text).unwrap());
            proptest::prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c { proptest::prop_assert!(a <= c); }
        }
    }
}
