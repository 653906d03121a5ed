//! Yields what programs of the image need and the image lacks, from the headers of its ELF files and scripts.
//!
//! # Shape
//! ```text
//! DT_NEEDED without a file                 error
//! PT_INTERP without a file                 error
//! .note.dlopen, none of its sonames there  warning; the note's priority tells how bad
//! #! without a file                        info
//! ```
//!
//! # Source
//! ld.so(8): RPATH where there is no RUNPATH, RUNPATH, the configured directories, the system's; `$ORIGIN`.
//! <https://systemd.io/ELF_DLOPEN_METADATA/>.
//!
//! # Not here
//! An RPATH that is inherited from the program that loads a library, and `LD_LIBRARY_PATH`: what relies on those is
//! acknowledged by the recipe. Files for other machines are passed over.

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

/// Longest `#!` line that the kernel reads (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE: u64 = 256;

/// Why the image cannot be looked through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A pattern that is none.
    #[error("acknowledged pattern {0:?} is not valid")]
    Pattern(String),
    /// The search directories cannot be told.
    #[error("cannot tell where libraries are looked for")]
    Directories(#[from] ld_cache::Error),
}

/// How bad a finding is, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The program cannot start.
    Error,
    /// A part of the program does not work.
    Warning,
    /// It may not matter.
    Info,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// A library that it must be loaded with is not there.
    Library {
        /// The library.
        soname: String,
    },
    /// The loader that it asks for is not there.
    Loader {
        /// The loader.
        path: String,
    },
    /// A library that it opens when it needs it is not there.
    Dlopen {
        /// How badly it is wanted.
        priority: Priority,
        /// What for, as `tpm`.
        feature: String,
        /// The same for people.
        description: String,
        /// Names of the library, of which one is enough.
        sonames: Vec<String>,
    },
    /// The interpreter of a script is not there.
    Interpreter {
        /// The interpreter.
        path: String,
    },
    /// The file begins as an ELF file does, and is none.
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
    /// Who brought it.
    pub origin: Origin,
    /// What it lacks.
    pub problem: Problem,
}

impl Finding {
    /// How bad it is.
    pub fn level(&self) -> Level {
        match &self.problem {
            Problem::Library { .. } | Problem::Loader { .. } => Level::Error,
            Problem::Dlopen { .. } | Problem::Damaged { .. } => Level::Warning,
            Problem::Interpreter { .. } => Level::Info,
        }
    }

    /// What is lacking, by name: what an acknowledgement names.
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
            Problem::Library { soname } => write!(f, "needs the library {soname}, which is missing"),
            Problem::Loader { path } => write!(f, "asks for the loader {path}, which is missing"),
            Problem::Dlopen { priority, feature, description, sonames } => {
                let word = match priority {
                    Priority::Required => "required",
                    Priority::Recommended => "recommended",
                    Priority::Suggested => "suggested",
                };
                write!(f, "opens {} ({word} for {feature}: {description}), missing", sonames.join(" or "))
            }
            Problem::Interpreter { path } => write!(f, "is a script for {path}, which is missing"),
            Problem::Damaged { reason } => write!(f, "is a damaged ELF file: {reason}"),
        }
    }
}

/// What a recipe knows and accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Glob over the paths of files, without their leading slash; `*` stays in a directory, `**` does not.
    pub paths: String,
    /// Name of what is lacking; `None` for anything.
    pub lacking: Option<String>,
    /// Why that is right.
    pub reason: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is not acknowledged: worst first, then by path.
    pub findings: Vec<Finding>,
    /// What is, with the number of the acknowledgement.
    pub acknowledged: Vec<(Finding, usize)>,
    /// Numbers of the acknowledgements that fit nothing.
    pub unused: Vec<usize>,
}

/// Looks through all files of the tree.
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

/// What one file lacks.
fn examine(
    tree: &Tree,
    common: &[TreePath],
    path: &TreePath,
    node: &Node,
    content: &Content,
) -> Result<BTreeSet<Problem>, elf::Error> {
    let executable = node.mode & 0o111 != 0;
    // Nothing but libraries and programs is looked at; large data files stay compressed.
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
    // A private library is loaded by a program that has loaded its neighbours already: libsystemd-core has no RUNPATH.
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

/// A directory by a text that may climb (`$ORIGIN/..`), links followed.
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

/// Which interpreter a script lacks.
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
    fn each_thing_that_is_lacking_is_found_once_and_the_worst_first() {
        let report = lint(&tree(), &[]).unwrap();
        let lines: Vec<String> = report.findings.iter().map(Finding::to_string).collect();
        assert_eq!(
            lines,
            [
                "/opt/bin/musl (deb:p=1): asks for the loader /lib/ld-musl-x86_64.so.1, which is missing",
                "/opt/bin/program (deb:p=1): needs the library libnone.so.1, which is missing",
                "/opt/bin/broken (deb:p=1): is a damaged ELF file: program headers at offset 64 needs 280 bytes, \
                 the file has 36 there",
                "/usr/lib/liba.so.1 (deb:p=1): opens libgone.so.1 (required for f: d), missing",
                "/opt/bin/script (deb:p=1): is a script for python3, which is missing",
                "/opt/bin/shell (deb:p=1): is a script for /bin/sh, which is missing",
            ]
        );
    }

    #[test]
    fn an_acknowledgement_takes_what_it_names_and_an_idle_one_is_told() {
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
