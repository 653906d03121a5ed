//! Yields the list of everything in the root file system and what brought it: `contents.json`.
//!
//! # Shape
//! One JSON document: the packages and recipe lines that brought something, and the paths by name, each with the
//! number of its origin. Sizes are bytes before compression; digests are SHA-256.
//!
//! # Not here
//! The bytes themselves.

use std::collections::BTreeMap;

use rootfs::tree::{Kind, Origin, Tree};
use serde::{Deserialize, Serialize};

/// The list format that this program writes.
pub const FORM: &str = "proofmark-contents/1";

/// Everything in a root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// [`FORM`].
    pub form: String,
    /// Everything that brought a path, as `deb:name=version`, `npm:name@version (location)`,
    /// `recipe:file:line` or `fix-up:name`; sorted.
    pub origins: Vec<String>,
    /// Every path, sorted.
    pub paths: Vec<Item>,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The path, with its leading slash.
    pub path: String,
    /// `directory`, `file`, `symlink`, `hardlink`, `char`, `block` or `fifo`.
    pub kind: String,
    /// Permissions in octal, as `0755`.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Index of the origin in [`Contents::origins`].
    pub origin: usize,
    /// Size of a file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Digest of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Target of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Extended attributes in hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
}

impl Contents {
    /// Lists the contents of a tree.
    pub fn of(tree: &Tree) -> Self {
        let mut numbers: BTreeMap<&Origin, usize> = tree.iter().map(|(_, node)| (&node.origin, 0)).collect();
        for (number, (_, slot)) in numbers.iter_mut().enumerate() {
            *slot = number;
        }
        let paths = tree
            .iter()
            .map(|(path, node)| {
                let (kind, target) = match &node.kind {
                    Kind::Directory => ("directory", None),
                    Kind::File(_) => ("file", None),
                    Kind::Symlink(target) => ("symlink", Some(target.to_string())),
                    Kind::HardLink(target) => ("hardlink", Some(target.to_string())),
                    Kind::CharDevice { major, minor } => ("char", Some(format!("{major}:{minor}"))),
                    Kind::BlockDevice { major, minor } => ("block", Some(format!("{major}:{minor}"))),
                    Kind::Fifo => ("fifo", None),
                };
                let xattrs = node.xattrs.iter().map(|(name, value)| (name.to_string(), hex::encode(value)));
                Item {
                    path: path.to_string(),
                    kind: kind.to_owned(),
                    mode: format!("{:04o}", node.mode),
                    uid: node.uid,
                    gid: node.gid,
                    origin: numbers.get(&node.origin).copied().unwrap_or_default(),
                    size: node.content().map(|content| content.len()),
                    sha256: node.content().map(|content| content.sha256().to_string()),
                    target,
                    xattrs: xattrs.collect(),
                }
            })
            .collect();
        let origins = numbers.keys().map(|origin| origin.to_string()).collect();
        Contents { form: FORM.to_owned(), origins, paths }
    }

    /// Formats the list as text that ends with a newline, one path per line.
    pub fn to_text(&self) -> String {
        let mut text = format!("{{\"form\": {},\n\"origins\": [\n", row(&self.form));
        lines(&mut text, self.origins.iter().map(row));
        text.push_str("],\n\"paths\": [\n");
        lines(&mut text, self.paths.iter().map(row));
        text.push_str("]}\n");
        text
    }

    /// Returns the origin of a path.
    pub fn origin(&self, item: &Item) -> &str {
        self.origins.get(item.origin).map_or("?", String::as_str)
    }

    /// Returns the list's entry for a path.
    pub fn find(&self, path: &str) -> Option<&Item> {
        let path = format!("/{}", path.trim_matches('/'));
        self.paths.iter().find(|item| item.path == path)
    }
}

fn lines(text: &mut String, rows: impl Iterator<Item = String>) {
    for (number, row) in rows.enumerate() {
        text.push_str(if number == 0 { "" } else { ",\n" });
        text.push_str(&row);
    }
    text.push('\n');
}

/// Formats one line of JSON: strings, numbers and maps keyed by string, which JSON can hold.
fn row(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rootfs::content::Content;
    use rootfs::path::TreePath;
    use rootfs::tree::Node;

    use super::*;

    #[test]
    fn a_tree_is_listed_and_read_back() {
        let mut tree = Tree::new(Origin::fix_up("base"));
        let origin = Origin::debian("x", "1");
        let node = Node::file(0o4755, Content::raw("hello"), origin.clone()).owned_by(1, 2);
        tree.insert(TreePath::new("usr/bin/x").unwrap(), node).unwrap();
        tree.insert(TreePath::new("bin").unwrap(), Node::symlink("usr/bin", origin)).unwrap();
        let contents = Contents::of(&tree);
        let read: Contents = serde_json::from_str(&contents.to_text()).unwrap();
        assert_eq!(read, contents);
        let item = read.find("usr/bin/x").unwrap();
        assert_eq!((item.mode.as_str(), item.uid, item.gid, item.size), ("4755", 1, 2, Some(5)));
        assert_eq!(read.origin(item), "deb:x=1");
        assert_eq!(read.find("/bin").unwrap().target.as_deref(), Some("usr/bin"));
        assert!(read.find("/none").is_none());
    }
}
