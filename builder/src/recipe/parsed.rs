//! Yields a recipe's files, parsed: the recipe itself and everything it extends, the outermost base first.

use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::document::Document;
use super::{Error, Place, ReadFile, file_of, near_miss};

/// How deep recipes may extend each other.
const MAX_EXTENDS: usize = 16;

/// A parsed file, and what is needed to locate a value in it.
pub(super) struct Parsed {
    pub(super) path: PathBuf,
    name: Arc<str>,
    text: String,
    pub(super) document: Document,
}

impl Parsed {
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        place(&self.name, &self.text, span.start)
    }

    pub(super) fn wrong(&self, span: Range<usize>, message: impl Into<String>) -> Error {
        Error::Wrong { place: self.place(span), message: message.into(), hint: None }
    }
}

fn place(name: &Arc<str>, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() as u32 + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) as u32 + 1;
    Place { file: Arc::clone(name), line, column }
}

pub(super) fn parse_chain(
    path: &Path,
    top: &Path,
    read: ReadFile<'_>,
    chain: &mut Vec<Parsed>,
    depth: usize,
) -> Result<(), Error> {
    let parsed = parse(path, top, read)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for base in &parsed.document.extends {
        let wrong = |message: String| parsed.wrong(base.span(), message);
        if Path::new(base.get_ref()).is_absolute() {
            return Err(wrong(format!("extends {:?}, which is not a relative path", base.get_ref())));
        }
        if depth >= MAX_EXTENDS {
            return Err(wrong(format!(
                "recipes extend each other more than {MAX_EXTENDS} deep, or in a loop"
            )));
        }
        let base_path = normal(&file_of(&folder.join(base.get_ref())));
        if chain.iter().any(|known| known.path == base_path) {
            continue;
        }
        match parse_chain(&base_path, top, read, chain, depth + 1) {
            Err(Error::Read { path, source }) => {
                return Err(wrong(format!("extends {}, which cannot be read: {source}", path.display())));
            }
            other => other?,
        }
    }
    chain.push(parsed);
    Ok(())
}

/// Normalises a path: removes `.` and `a/..`.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Names `path` relative to the folder of the recipe being built, wherever that folder lies.
fn relative_name(path: &Path, top: &Path) -> String {
    let folder = normal(top.parent().unwrap_or(Path::new("")));
    let path = normal(path);
    let mut up = String::new();
    let mut base = folder.as_path();
    loop {
        if let Ok(rest) = path.strip_prefix(base) {
            return format!("{up}{}", rest.display());
        }
        match base.parent() {
            Some(parent) => base = parent,
            None => return path.display().to_string(),
        }
        up.push_str("../");
    }
}

fn parse(path: &Path, top: &Path, read: ReadFile<'_>) -> Result<Parsed, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let bytes = read(path).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|error| failed(io::Error::other(error.utf8_error())))?;
    let name: Arc<str> = relative_name(path, top).into();
    let document: Document = toml::from_str(&text).map_err(|error| {
        let place =
            place(&Arc::from(path.display().to_string()), &text, error.span().map_or(0, |span| span.start));
        let message = error.message().trim().to_owned();
        let hint = near_miss_of(&message);
        Error::Wrong { place, message, hint }
    })?;
    Ok(Parsed { path: normal(path), name, text, document })
}

/// Finds the likeliest name in "unknown field `x`, expected one of `a`, `b`".
fn near_miss_of(message: &str) -> Option<String> {
    let mut names = message.split('`').skip(1).step_by(2);
    let word = names.next()?;
    near_miss(word, names).map(|name| format!("did you mean `{name}`?"))
}
