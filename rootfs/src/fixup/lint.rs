//! Yields what programs need and the image lacks, from the headers of its ELF files and scripts.
//!
//! # Shape
//! ```text
//! DT_NEEDED without a file                 error
//! PT_INTERP without a file                 error
//! .note.dlopen, none of its sonames there  warning; the note's priority gives the severity
//! #! without a file                        info
//! ```
//!
//! # Source
//! ld.so(8): RPATH if there is no RUNPATH, RUNPATH, the configured directories, the system's; `$ORIGIN`.
//! <https://systemd.io/ELF_DLOPEN_METADATA/>.
//!
//! # Not here
//! An RPATH inherited from the program that loads a library, and `LD_LIBRARY_PATH`: the recipe acknowledges programs
//! that rely on those. Files for other machines are skipped.

use std::collections::BTreeSet;
use std::fmt;

use globset::GlobBuilder;
use rayon::prelude::*;

use crate::content::Content;
use crate::elf::{self, Elf, Priority};
use crate::fixup::ld_cache;
use crate::path::TreePath;
use crate::tree::{Kind, Node, Origin, Tree};

/// Where `env` looks for an interpreter.
const PATH: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// The longest `#!` line that the kernel reads (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE: u64 = 256;

/// Why the image cannot be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid pattern.
    #[error("invalid acknowledgement pattern {0:?}")]
    Pattern(String),
    /// The search directories cannot be determined.
    #[error("cannot determine the library search directories")]
    Directories(#[from] ld_cache::Error),
}

/// The severity of a finding, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The program cannot start.
    Error,
    /// A part of the program does not work.
    Warning,
    /// It may not matter.
    Info,
}

/// What a file lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// A required library is missing.
    Library {
        /// The library.
        soname: String,
    },
    /// Its program interpreter is missing.
    Loader {
        /// The loader.
        path: String,
    },
    /// A library that it opens at run time is missing.
    Dlopen {
        /// How important it is.
        priority: Priority,
        /// The feature that it is for, such as `tpm`.
        feature: String,
        /// A description of that feature.
        description: String,
        /// Names of the library; one is enough.
        sonames: Vec<String>,
    },
    /// The interpreter of a script is missing.
    Interpreter {
        /// The interpreter.
        path: String,
    },
    /// The file begins like an ELF file, but is not one.
    Damaged {
        /// Why.
        reason: String,
    },
}

/// One thing that a file needs and the image lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file.
    pub path: TreePath,
    /// Where it comes from.
    pub origin: Origin,
    /// What it lacks.
    pub problem: Problem,
}

impl Finding {
    /// Its severity.
    pub fn level(&self) -> Level {
        match &self.problem {
            Problem::Library { .. } | Problem::Loader { .. } => Level::Error,
            Problem::Dlopen { .. } | Problem::Damaged { .. } => Level::Warning,
            Problem::Interpreter { .. } => Level::Info,
        }
    }

    /// The name of what is missing, as acknowledgements use it.
    pub fn lacking(&self) -> Vec<&str> {
        match &self.problem {
            Problem::Library { soname } => vec![soname],
            Problem::Loader { path } | Problem::Interpreter { path } => vec![path],
            Problem::Dlopen { sonames, .. } => sonames.iter().map(String::as_str).collect(),
            Problem::Damaged { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.path, self.origin)?;
        match &self.problem {
            Problem::Library { soname } => write!(f, "requires the missing library {soname}"),
            Problem::Loader { path } => write!(f, "requires the missing loader {path}"),
            Problem::Dlopen { priority, feature, description, sonames } => {
                let word = match priority {
                    Priority::Required => "required",
                    Priority::Recommended => "recommended",
                    Priority::Suggested => "suggested",
                };
                write!(
                    f,
                    "opens the missing library {} ({word} for {feature}: {description})",
                    sonames.join(" or ")
                )
            }
            Problem::Interpreter { path } => write!(f, "is a script for the missing interpreter {path}"),
            Problem::Damaged { reason } => write!(f, "is a damaged ELF file: {reason}"),
        }
    }
}

/// A finding that a recipe accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Glob over the paths of files, without their leading slash; `*` stays in a directory, `**` does not.
    pub paths: String,
    /// The name of what is missing; `None` for anything.
    pub lacking: Option<String>,
    /// The reason why it is acceptable.
    pub reason: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Findings that are not acknowledged: worst first, then by path.
    pub findings: Vec<Finding>,
    /// Acknowledged findings, with the number of the acknowledgement.
    pub acknowledged: Vec<(Finding, usize)>,
    /// Numbers of the acknowledgements that match nothing.
    pub unused: Vec<usize>,
}

/// Checks all files of the tree.
///
/// # Errors
/// [`Error::Pattern`], [`Error::Directories`]; a damaged file is a finding.
pub fn lint(tree: &Tree, acknowledgements: &[Acknowledgement]) -> Result<Report, Error> {
    let patterns = acknowledgements
        .iter()
        .map(|known| {
            let glob = GlobBuilder::new(known.paths.trim_start_matches('/')).literal_separator(true).build();
            Ok(glob.map_err(|_| Error::Pattern(known.paths.clone()))?.compile_matcher())
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let directories = ld_cache::directories(tree)?;
    let common: Vec<TreePath> =
        directories.into_iter().filter(|one| one.hwcaps.is_none()).map(|one| one.path).collect();
    let files: Vec<(&TreePath, &Node, &Content)> =
        tree.iter().filter_map(|(path, node)| Some((path, node, node.content()?))).collect();
    let mut findings: Vec<Finding> = files
        .into_par_iter()
        .flat_map_iter(|(path, node, content)| {
            let problems = examine(tree, &common, path, node, content)
                .unwrap_or_else(|error| BTreeSet::from([Problem::Damaged { reason: error.to_string() }]));
            let origin = &node.origin;
            let finding = move |problem| Finding { path: path.clone(), origin: origin.clone(), problem };
            problems.into_iter().map(finding)
        })
        .collect();
    findings.sort_by_cached_key(|finding| (finding.level(), finding.clone()));
    let mut report = Report::default();
    for finding in findings {
        let known = acknowledgements.iter().zip(&patterns).position(|(known, pattern)| {
            pattern.is_match(finding.path.as_str())
                && known.lacking.as_deref().is_none_or(|name| finding.lacking().contains(&name))
        });
        match known {
            Some(number) => report.acknowledged.push((finding, number)),
            None => report.findings.push(finding),
        }
    }
    report.unused = (0..acknowledgements.len())
        .filter(|number| report.acknowledged.iter().all(|(_, used)| used != number))
        .collect();
    Ok(report)
}

/// Finds what one file lacks.
fn examine(
    tree: &Tree,
    common: &[TreePath],
    path: &TreePath,
    node: &Node,
    content: &Content,
) -> Result<BTreeSet<Problem>, elf::Error> {
    let executable = node.mode & 0o111 != 0;
    // Only libraries and programs are examined; large data files stay compressed.
    if !executable && !path.name().contains(".so") && !path.name().ends_with(".node") {
        return Ok(BTreeSet::new());
    }
    let head = content.read_range(0..SCRIPT_LINE)?;
    if head.starts_with(b"#!") && executable {
        return Ok(script(tree, &head).into_iter().collect());
    }
    if !elf::is_elf(&head) || head.get(4..6) != Some(&[2, 1]) {
        return Ok(BTreeSet::new());
    }
    let elf = Elf::open(content)?;
    if elf.machine != elf::X86_64 || elf.kind == elf::RELOCATABLE {
        return Ok(BTreeSet::new());
    }
    let mut problems = BTreeSet::new();
    let interpreter = elf.interpreter()?;
    let is_library = interpreter.is_none();
    if let Some(loader) = interpreter.filter(|loader| !exists(tree, loader)) {
        problems.insert(Problem::Loader { path: loader });
    }
    let dynamic = elf.dynamic()?.unwrap_or_default();
    let own = if dynamic.runpath.is_empty() { &dynamic.rpath } else { &dynamic.runpath };
    let here = path.parent().unwrap_or_else(TreePath::root).to_string();
    let mut search: Vec<TreePath> = own
        .iter()
        .map(|directory| directory.replace("${ORIGIN}", &here).replace("$ORIGIN", &here))
        .filter_map(|directory| anchor(tree, &directory))
        .collect();
    search.extend(common.iter().cloned());
    // A private library may rely on libraries that its program has already loaded: libsystemd-core has no RUNPATH.
    search.extend(path.parent().filter(|_| is_library));
    let is_there = |name: &str| {
        if name.contains('/') {
            return exists(tree, &name.replace("$ORIGIN", &here));
        }
        search.iter().filter_map(|directory| directory.join(name).ok()).any(|file| is_file(tree, &file))
    };
    for soname in dynamic.needed {
        if !is_there(&soname) {
            problems.insert(Problem::Library { soname });
        }
    }
    for entry in elf.dlopen()? {
        if !entry.soname.iter().any(|name| is_there(name)) {
            let elf::Dlopen { feature, description, priority, soname: sonames } = entry;
            problems.insert(Problem::Dlopen { priority, feature, description, sonames });
        }
    }
    Ok(problems)
}

/// Resolves a directory whose text may have `..` (`$ORIGIN/..`), following links.
fn anchor(tree: &Tree, text: &str) -> Option<TreePath> {
    let mut here = TreePath::root();
    for part in text.split('/') {
        here = match part {
            "" | "." => continue,
            ".." => here.parent().unwrap_or_else(TreePath::root),
            _ => tree.resolve(&here.join(part).ok()?).ok()?,
        };
    }
    Some(here)
}

fn exists(tree: &Tree, text: &str) -> bool {
    anchor(tree, text).is_some_and(|path| is_file(tree, &path))
}

fn is_file(tree: &Tree, path: &TreePath) -> bool {
    let node = tree.resolve(path).ok().and_then(|path| tree.get(&path));
    node.is_some_and(|node| matches!(node.kind, Kind::File(_) | Kind::HardLink(_)))
}

/// Finds the missing interpreter of a script.
fn script(tree: &Tree, head: &[u8]) -> Option<Problem> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let interpreter = words.next()?;
    if !exists(tree, interpreter) {
        return Some(Problem::Interpreter { path: interpreter.to_owned() });
    }
    if !interpreter.ends_with("/env") {
        return None;
    }
    let program = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
    let found = if program.contains('/') {
        exists(tree, program)
    } else {
        PATH.iter().any(|directory| exists(tree, &format!("{directory}/{program}")))
    };
    (!found).then(|| Problem::Interpreter { path: program.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::shared_object;

    const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

    fn tree() -> Tree {
        let origin = || Origin::debian("p", "1");
        let mut tree = Tree::new(origin());
        let mut add = |path: &str, mode, bytes: Vec<u8>| {
            let node = Node::file(mode, Content::raw(bytes), origin());
            tree.insert(TreePath::new(path).unwrap(), node).unwrap();
        };
        let note = |priority: &str, soname: &str| {
            let text = r#"[{"feature":"f","description":"d","priority":"P","soname":["S"]}]"#;
            text.replace('P', priority).replace('S', soname)
        };
        let notes = [note("required", "libgone.so.1"), note("suggested", "liba.so.1")];
        let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
        add("lib64/ld-linux-x86-64.so.2", 0o755, shared_object(None, &[], None, None, &[]));
        add("usr/lib/liba.so.1", 0o644, shared_object(Some("liba.so.1"), &[], None, None, &notes));
        let private = Some("$ORIGIN/../private");
        let needed = ["liba.so.1", "libp.so.1", "libnone.so.1"];
        add("opt/bin/program", 0o755, shared_object(None, &needed, private, Some(LOADER), &[]));
        add("opt/private/libp.so.1", 0o644, shared_object(None, &["libq.so.1"], None, None, &[]));
        add("opt/private/libq.so.1", 0o644, shared_object(None, &[], None, None, &[]));
        add("opt/bin/musl", 0o755, shared_object(None, &[], None, Some("/lib/ld-musl-x86_64.so.1"), &[]));
        let mut arm = shared_object(None, &["libarm.so.1"], None, Some("/lib/arm"), &[]);
        arm[18] = 183;
        add("opt/bin/arm", 0o755, arm);
        add("opt/bin/script", 0o755, b"#!/usr/bin/env -S python3 -x\n".to_vec());
        add("opt/bin/shell", 0o755, b"#! /bin/sh\n".to_vec());
        add("usr/bin/env", 0o755, b"".to_vec());
        add("opt/bin/broken", 0o755, shared_object(None, &["x"], None, None, &[])[..100].to_vec());
        tree
    }

    #[test]
    fn each_missing_thing_is_found_once_and_the_worst_first() {
        let report = lint(&tree(), &[]).unwrap();
        let lines: Vec<String> = report.findings.iter().map(Finding::to_string).collect();
        assert_eq!(
            lines,
            [
                "/opt/bin/musl (deb:p=1): requires the missing loader /lib/ld-musl-x86_64.so.1",
                "/opt/bin/program (deb:p=1): requires the missing library libnone.so.1",
                "/opt/bin/broken (deb:p=1): is a damaged ELF file: program headers at offset 64 needs 280 bytes, \
                 the file has 36 there",
                "/usr/lib/liba.so.1 (deb:p=1): opens the missing library libgone.so.1 (required for f: d)",
                "/opt/bin/script (deb:p=1): is a script for the missing interpreter python3",
                "/opt/bin/shell (deb:p=1): is a script for the missing interpreter /bin/sh",
            ]
        );
    }

    #[test]
    fn an_acknowledgement_covers_what_it_names_and_an_unused_one_is_reported() {
        let known = |paths: &str, lacking: Option<&str>| Acknowledgement {
            paths: paths.into(),
            lacking: lacking.map(str::to_owned),
            reason: "a test".into(),
        };
        let list =
            [known("/opt/**", None), known("usr/lib/*", Some("libgone.so.1")), known("usr/lib/*", Some("x"))];
        let report = lint(&tree(), &list).unwrap();
        assert_eq!(report.findings, []);
        assert_eq!(report.acknowledged.len(), 6);
        assert_eq!(report.unused, [2]);
        assert_eq!(lint(&tree(), &[known("[", None)]), Err(Error::Pattern("[".into())));
    }
}
