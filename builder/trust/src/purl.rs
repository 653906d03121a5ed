//! Yields package URLs from names and versions.
//!
//! # Shape
//! `pkg:deb/debian/NAME@VERSION?arch=ARCH&distro=SUITE`, `pkg:npm/%40SCOPE/NAME@VERSION`,
//! `pkg:cargo/NAME@VERSION`, `pkg:generic/NAME@VERSION`; qualifiers are sorted by name.
//!
//! # Source
//! ECMA-427 (package-url): 5.4 (percent-encoding), and the types `deb`, `npm`, `cargo`, `generic`.
//!
//! # Not here
//! Subpaths: nothing here needs them.

use std::fmt::Write;

/// Percent-encodes every byte that is neither unreserved nor a colon.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The package URL of a Debian package; a source package has the architecture `source`.
pub fn deb(name: &str, version: &str, architecture: &str, suite: &str) -> String {
    let [name, version, arch, distro] = [name, version, architecture, suite].map(encoded);
    format!("pkg:deb/debian/{name}@{version}?arch={arch}&distro={distro}")
}

/// The package URL of an npm package.
pub fn npm(name: &str, version: &str) -> String {
    let name = name.split('/').map(encoded).collect::<Vec<_>>().join("/");
    format!("pkg:npm/{name}@{}", encoded(version))
}

/// The package URL of an npm package of unknown version.
pub fn npm_of_no_version(name: &str) -> String {
    let url = npm(name, "");
    url.trim_end_matches('@').to_owned()
}

/// The package URL of a crate.
pub fn cargo(name: &str, version: &str) -> String {
    format!("pkg:cargo/{}@{}", encoded(name), encoded(version))
}

/// The package URL of something without a registry.
pub fn generic(name: &str, version: &str) -> String {
    format!("pkg:generic/{}@{}", encoded(name), encoded(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_characters_are_encoded_and_colons_are_not() {
        assert_eq!(
            deb("libstdc++6", "1:2.3+x~y-1", "amd64", "trixie"),
            "pkg:deb/debian/libstdc%2B%2B6@1:2.3%2Bx~y-1?arch=amd64&distro=trixie"
        );
        assert_eq!(npm("@a/b", "1.0.0+x"), "pkg:npm/%40a/b@1.0.0%2Bx");
        assert_eq!(npm_of_no_version("@a/b"), "pkg:npm/%40a/b");
        assert_eq!(npm("b", "1 ü"), "pkg:npm/b@1%20%C3%BC");
        assert_eq!(cargo("a-b", "1"), "pkg:cargo/a-b@1");
        assert_eq!(generic("node", "22.19.0"), "pkg:generic/node@22.19.0");
    }
}
