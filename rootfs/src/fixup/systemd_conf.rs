//! Yields the configuration files that systemd's tools read, in their order, and the words of their lines.
//!
//! # Shape
//! `<root>/<kind>/*.conf` of four roots; for one name the first root wins, a link to `/dev/null` masks the name, and
//! the files are read in the order of their names. Words are split at white space; quotes group words; a backslash
//! escapes one of `\ " '` or a space.
//!
//! # Source
//! sysusers.d(5) and tmpfiles.d(5), "Configuration directories and precedence"; systemd 257 `src/basic/extract-word.c`.
//!
//! # Not here
//! What the words mean: `accounts`, `tmpfiles`.

use std::collections::BTreeMap;

use crate::path::TreePath;
use crate::tree::{self, Kind, Tree};

/// The directories of configuration, strongest first (systemd `CONF_PATHS`).
const ROOTS: [&str; 4] = ["etc", "run", "usr/local/lib", "usr/lib"];

/// Why a line cannot be split into words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordError {
    /// A quote that is not closed.
    #[error("quote {0} is not closed")]
    Quote(char),
    /// A backslash before a character that needs no escape; its meaning differs between readers.
    #[error("unsupported escape \"\\{0}\"")]
    Escape(char),
    /// A backslash at the end of the line.
    #[error("backslash at the end of the line")]
    Dangling,
}

/// The files of `kind` (such as `sysusers.d`) with their text, in reading order.
///
/// # Errors
/// [`tree::Error`] when a file cannot be read.
pub fn files(tree: &Tree, kind: &str) -> Result<Vec<(TreePath, String)>, tree::Error> {
    let mut by_name: BTreeMap<String, Option<TreePath>> = BTreeMap::new();
    for root in ROOTS {
        let folder = TreePath::new(root)?.join(kind)?;
        for (path, node) in tree.children(&folder).filter(|(path, _)| path.name().ends_with(".conf")) {
            let masked = matches!(&node.kind, Kind::Symlink(target) if &**target == "/dev/null");
            by_name.entry(path.name().to_owned()).or_insert_with(|| (!masked).then(|| path.clone()));
        }
    }
    by_name
        .into_values()
        .flatten()
        .map(|path| {
            let text = String::from_utf8_lossy(&tree.read(&path)?).into_owned();
            Ok((path, text))
        })
        .collect()
}

/// The lines of `text` that are neither blank nor comments, numbered from 1.
pub fn lines(text: &str) -> impl Iterator<Item = (u32, &str)> {
    (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Splits `line` into at most `limit` words; returns the rest as it is, trimmed.
///
/// # Errors
/// [`WordError`] for an open quote or an unsupported escape.
pub fn words(line: &str, limit: usize) -> Result<(Vec<String>, &str), WordError> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() && words.len() < limit {
        let mut word = String::new();
        let mut quote = None;
        let mut end = rest.len();
        let mut chars = rest.char_indices();
        while let Some((at, letter)) = chars.next() {
            match (letter, quote) {
                ('\\', _) => match chars.next() {
                    Some((_, next @ ('\\' | '"' | '\'' | ' '))) => word.push(next),
                    Some((_, next)) => return Err(WordError::Escape(next)),
                    None => return Err(WordError::Dangling),
                },
                ('"' | '\'', None) => quote = Some(letter),
                (_, Some(open)) if letter == open => quote = None,
                (_, None) if letter.is_ascii_whitespace() => {
                    end = at;
                    break;
                }
                _ => word.push(letter),
            }
        }
        if let Some(open) = quote {
            return Err(WordError::Quote(open));
        }
        words.push(word);
        rest = rest.get(end..).unwrap_or("").trim_start();
    }
    Ok((words, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::tree::{Node, Origin};

    fn put(tree: &mut Tree, path: &str, text: &str) {
        let node = Node::file(0o644, Content::raw(text), Origin::fix_up("test"));
        tree.insert(TreePath::new(path).unwrap(), node).unwrap();
    }

    #[test]
    fn the_stronger_root_wins_a_name_and_names_order_the_files() {
        let mut tree = Tree::new(Origin::fix_up("test"));
        put(&mut tree, "usr/lib/sysusers.d/b.conf", "lib b");
        put(&mut tree, "usr/lib/sysusers.d/a.conf", "lib a");
        put(&mut tree, "usr/lib/sysusers.d/c.conf", "lib c");
        put(&mut tree, "usr/lib/sysusers.d/README", "no");
        put(&mut tree, "etc/sysusers.d/b.conf", "etc b");
        let null = Node::symlink("/dev/null", Origin::fix_up("test"));
        tree.insert(TreePath::new("etc/sysusers.d/c.conf").unwrap(), null).unwrap();
        let texts: Vec<String> =
            files(&tree, "sysusers.d").unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["lib a", "etc b"]);
    }

    #[test]
    fn words_are_split_at_white_space_outside_quotes() {
        let split = |line| words(line, 9).unwrap().0;
        assert_eq!(split("u  a\t- \"two words\" 'x \"y\"'"), ["u", "a", "-", "two words", "x \"y\""]);
        assert_eq!(split("a\\ b \\\"c ''"), ["a b", "\"c", ""]);
        assert_eq!(words("L /a - - - - the rest \"as is\"", 6).unwrap().1, "the rest \"as is\"");
    }

    #[test]
    fn an_open_quote_and_an_unknown_escape_are_refused() {
        assert_eq!(words("u \"a", 9), Err(WordError::Quote('"')));
        assert_eq!(words("u a\\x20b", 9), Err(WordError::Escape('x')));
        assert_eq!(words("u a\\", 9), Err(WordError::Dangling));
    }
}
