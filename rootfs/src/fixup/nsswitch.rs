//! Yields /etc/nsswitch.conf from libc-bin's template, with the name services that the image has.
//!
//! # Shape
//! ```text
//! passwd group shadow gshadow   files [systemd]
//! hosts                         files [myhostname] [resolve [!UNAVAIL=return]] dns
//! others                        as in the template, without services that no libnss_*.so.2 provides
//! ```
//! A line without any service left is dropped: glibc's own default then applies.
//!
//! # Source
//! nsswitch.conf(5); libc-bin 2.41 `usr/share/libc-bin/nsswitch.conf`; what the postinst scripts of libnss-systemd,
//! libnss-resolve and libnss-myhostname 257 insert (dh_installnss); nss-systemd(8), nss-resolve(8), nss-myhostname(8).
//! Debian keeps `db` and `nis` on five lines although nothing provides them.
//!
//! # Not here
//! The services' own configuration.

use std::collections::BTreeSet;

use super::write;
use crate::path::TreePath;
use crate::tree::{self, Tree};

const NAME: &str = "nsswitch";
const TEMPLATE: &str = "usr/share/libc-bin/nsswitch.conf";

/// Services that glibc itself contains since 2.34.
const BUILT_IN: [&str; 2] = ["files", "dns"];

/// Why nsswitch.conf cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The template has an invalid line.
    #[error("/{TEMPLATE}:{line}: expected \"database: services\", found {text:?}")]
    Line {
        /// The line, from 1.
        line: u32,
        /// Its text.
        text: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// Writes the file.
///
/// # Errors
/// [`Error`] if the template is missing or has an invalid line.
pub fn apply(tree: &mut Tree) -> Result<(), Error> {
    let template = TreePath::new(TEMPLATE).map_err(tree::Error::from)?;
    let text = String::from_utf8_lossy(&tree.read(&template)?).into_owned();
    let mut have: BTreeSet<String> = BUILT_IN.iter().map(|&name| name.to_owned()).collect();
    for (path, _) in tree.iter() {
        let name = path.name().strip_prefix("libnss_").and_then(|name| name.strip_suffix(".so.2"));
        have.extend(name.filter(|_| path.as_str().starts_with("usr/lib")).map(str::to_owned));
    }
    let mut out = String::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() || text.starts_with('#') {
            out.push_str(text);
            out.push('\n');
            continue;
        }
        let Some((database, services)) = text.split_once(':') else {
            return Err(Error::Line { line, text: text.to_owned() });
        };
        let services = services_of(database, services, &have);
        if !services.is_empty() {
            out.push_str(&format!("{:<15} {}\n", format!("{database}:"), services.join(" ")));
        }
    }
    // A paragraph may be reduced to a blank line.
    let out = format!("{}\n", out.trim_end());
    Ok(write::file(tree, "etc/nsswitch.conf", 0o644, out, NAME)?)
}

/// The services of one database: the template's and ours, reduced to those that the image has, with their actions.
fn services_of(database: &str, template: &str, have: &BTreeSet<String>) -> Vec<String> {
    let mut wanted: Vec<&str> = template.split_whitespace().collect();
    match database {
        "passwd" | "group" | "shadow" | "gshadow" if !wanted.contains(&"systemd") => wanted.push("systemd"),
        "hosts" => {
            let dns = wanted.iter().position(|service| *service == "dns").unwrap_or(wanted.len());
            let ours = ["myhostname", "resolve", "[!UNAVAIL=return]"];
            let ours: Vec<&str> = ours.into_iter().filter(|service| !wanted.contains(service)).collect();
            wanted.splice(dns..dns, ours);
        }
        _ => {}
    }
    let mut kept = Vec::new();
    let mut last_kept = false;
    for service in wanted {
        // An action in brackets belongs to the service before it.
        if !service.starts_with('[') {
            last_kept = have.contains(service);
        }
        if last_kept {
            kept.push(service.to_owned());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::tree::{Node, Origin};

    const TRIXIE: &str = "# c\n\npasswd:         files\ngroup:          files\nhosts:          files dns\n\
                          protocols:      db files\n\nnetgroup:       nis\n";

    fn tree(template: &'static str, modules: &[&str]) -> Tree {
        let mut tree = Tree::new(Origin::fix_up("test"));
        let mut put = |path: &str, text: &'static str| {
            let node = Node::file(0o644, Content::raw(text), Origin::fix_up("test"));
            tree.insert(TreePath::new(path).unwrap(), node).unwrap();
        };
        put(TEMPLATE, template);
        for module in modules {
            put(&format!("usr/lib/x86_64-linux-gnu/libnss_{module}.so.2"), "");
        }
        tree
    }

    fn made(modules: &[&str]) -> String {
        let mut tree = tree(TRIXIE, modules);
        apply(&mut tree).unwrap();
        String::from_utf8(tree.read(&TreePath::new("etc/nsswitch.conf").unwrap()).unwrap().into_owned())
            .unwrap()
    }

    #[test]
    fn only_services_that_the_image_has_remain() {
        assert_eq!(
            made(&[]),
            "# c\n\npasswd:         files\ngroup:          files\nhosts:          files dns\nprotocols:      files\n"
        );
        assert!(made(&["db", "nis"]).ends_with("protocols:      db files\n\nnetgroup:       nis\n"));
    }

    #[test]
    fn systemds_services_are_where_debian_puts_them() {
        let text = made(&["systemd", "resolve", "myhostname"]);
        assert!(text.contains("passwd:         files systemd\ngroup:          files systemd\n"), "{text}");
        assert!(text.contains("hosts:          files myhostname resolve [!UNAVAIL=return] dns\n"), "{text}");
        assert!(made(&["myhostname"]).contains("hosts:          files myhostname dns\n"));
    }

    #[test]
    fn a_missing_template_and_a_line_without_a_database_are_refused() {
        assert!(matches!(apply(&mut Tree::new(Origin::fix_up("t"))), Err(Error::Tree(_))));
        assert!(matches!(apply(&mut tree("# c\nwhat\n", &[])), Err(Error::Line { line: 2, .. })));
    }
}
