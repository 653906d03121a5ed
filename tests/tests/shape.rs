//! Holds the workspace to its shape: which crates and modules may import which, what pure code may use, and names.
//!
//! # Shape
//! Each rule lists the places that break it, as `file:line: why`; a test fails with all of them. Tests inside source
//! files are skipped: everything from the first `#[cfg(test)]` on that a module `tests` follows.
//!
//! # Not here
//! What the compiler and clippy check: `missing_docs`, `unsafe_code`, `unwrap_used`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // all of it is a test

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Names that do not say what a module yields.
const EMPTY_NAMES: [&str; 10] =
    ["util", "utils", "common", "helpers", "misc", "types", "manager", "handler", "context", "processor"];

/// Which crates of the workspace may import which, apart from tests.
const IMPORTS: [(&str, &[&str]); 9] = [
    ("dm-verity-tool", &[]),
    ("ovmf-measure", &[]),
    ("proofmark-guest", &[]),
    ("rootfs", &["dm-verity-tool"]),
    ("proofmark-image", &["ovmf-measure"]),
    ("proofmark-trust", &["ovmf-measure"]),
    (
        "proofmark",
        &[
            "dm-verity-tool",
            "ovmf-measure",
            "proofmark-guest",
            "proofmark-image",
            "proofmark-trust",
            "rootfs",
        ],
    ),
    (
        "fuzz-targets",
        &[
            "dm-verity-tool",
            "ovmf-measure",
            "proofmark",
            "proofmark-guest",
            "proofmark-image",
            "proofmark-trust",
            "rootfs",
        ],
    ),
    ("system-tests", &["dm-verity-tool", "ovmf-measure", "proofmark-guest", "rootfs", "proofmark"]),
];

/// Code that neither reads nor changes the outside world. Folders end in `/`.
const PURE: [&str; 13] = [
    "measure/src/",
    "rootfs/src/",
    "rootfs/verity/src/",
    "builder/image/src/",
    "builder/trust/src/",
    "builder/src/advice.rs",
    "builder/src/amount.rs",
    "builder/src/claim/",
    "builder/src/resolve/",
    "builder/src/recipe/",
    "builder/src/pipeline.rs",
    "builder/src/assemble.rs",
    "builder/src/lock.rs",
];

/// The outside world, modules that lead to it, and sources of differences between two runs.
const WORLD: [&str; 12] = [
    "std::fs",
    "std::process",
    "std::net",
    "std::env",
    "std::os::",
    "SystemTime",
    "Instant",
    "HashMap",
    "HashSet",
    "crate::host",
    "crate::session",
    "crate::flow",
];

/// The floors of the builder's library, from bottom to top: each may import those below it. The crates `image` and
/// `trust` lie below all of them.
const FLOORS: [&str; 11] = [
    "advice", "amount", "recipe", "lock", "resolve", "assemble", "claim", "pipeline", "host", "session",
    "flow",
];

/// The floors of the builder's program, above the library.
const PROGRAM: [&str; 5] = ["failure", "format", "options", "cmd", "cli"];

/// The maximum number of lines of a function.
const MOST_LINES_OF_A_FUNCTION: usize = 80;

/// The maximum number of lines of a file, without its tests.
const MOST_LINES_OF_A_FILE: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every Rust file of the members, relative to the root, sorted.
fn sources() -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut todo: Vec<PathBuf> = ["measure", "rootfs", "builder", "tests"].map(PathBuf::from).into();
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                if path.file_name().unwrap() != "target" {
                    todo.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all.push(path);
            }
        }
    }
    all.sort();
    assert!(all.len() > 100, "only {} sources were found", all.len());
    all
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The lines of code with their numbers, without comments and up to the tests.
fn code(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]"
            && (pair[1].contains("mod tests") || pair[1].trim().starts_with("#["))
    });
    let end = tests.unwrap_or(lines.len());
    let numbered = lines[..end].iter().enumerate().map(|(index, line)| (index + 1, *line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//")).collect()
}

/// Whether `word` occurs in `line` as a whole word.
fn mentions(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part);
        !before && (!after || word.ends_with(':'))
    })
}

/// Whether the path is this file, whose rules contain what they forbid.
fn is_this(path: &Path) -> bool {
    path == Path::new("tests/tests/shape.rs")
}

fn starts(path: &Path, with: &[&str]) -> bool {
    with.iter().any(|start| path.starts_with(start.trim_end_matches('/')))
}

/// Fails with every place that breaks a rule.
fn holds(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

/// The lines of code in which `wrong` finds something, among the files that `of` chooses.
fn lines_where(of: impl Fn(&Path) -> bool, wrong: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut broken = Vec::new();
    for path in sources().into_iter().filter(|path| of(path)) {
        for (number, line) in code(&read(&path)) {
            broken.extend(wrong(line).map(|why| format!("{}:{number}: {why}", path.display())));
        }
    }
    broken
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    let output =
        command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn imports_run_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let members: BTreeSet<&str> = packages.iter().map(|package| text(&package["name"])).collect();
    let allowed = BTreeMap::from(IMPORTS);
    let mut broken = Vec::new();
    for package in packages {
        let name = text(&package["name"]);
        let place = text(&package["manifest_path"]);
        let Some(allowed) = allowed.get(name) else {
            broken.push(format!(
                "{place}:1: {name} is a new member: say in tests/tests/shape.rs what it may import"
            ));
            continue;
        };
        let manifest = fs::read_to_string(place).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = text(&dependency["name"]);
            if members.contains(other) && dependency["kind"].is_null() && !allowed.contains(&other) {
                let line =
                    manifest.lines().position(|line| line.starts_with(other)).map_or(1, |index| index + 1);
                broken.push(format!("{place}:{line}: {name} imports {other}"));
            }
        }
    }
    holds("an import runs the wrong way", &broken);
    assert_eq!(members, allowed.into_keys().collect());
}

/// The modules of its own crate that a line names: `crate::x::y`, `crate::{x, y::z}`.
fn own_modules(line: &str) -> Vec<&str> {
    let name = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut all = Vec::new();
    for (at, word) in line.match_indices("crate::") {
        let rest = &line[at + word.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            all.push(&rest[..name(rest)]);
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in list.char_indices() {
            if begins && depth == 0 && c.is_alphabetic() {
                all.push(&list[at..][..name(&list[at..])]);
            }
            begins = c == ',' || (begins && c == ' ');
            depth += i32::from(c == '{') - i32::from(c == '}');
        }
    }
    all
}

/// Why a file of the builder may not contain this line: it names a floor above its own, or another verb.
fn climbs(path: &Path, line: &str) -> Option<String> {
    let below = path.strip_prefix("builder/src").ok()?.with_extension("");
    let own = below.iter().next()?.to_str()?.to_owned();
    let (floors, own_floor): (&[&str], usize) =
        match (FLOORS.iter().position(|floor| *floor == own), PROGRAM.iter().position(|floor| *floor == own))
        {
            (Some(floor), _) => (&FLOORS, floor),
            (_, Some(floor)) => (&PROGRAM, floor),
            _ => return None,
        };
    let is_verb = own == "cmd" && below.file_name()? != "mod";
    if is_verb && (mentions(line, "super::") || mentions(line, "crate::cmd")) {
        return Some(format!("a verb imports another: {}", line.trim()));
    }
    let above =
        |module: &&str| floors.iter().position(|floor| floor == module).is_some_and(|at| at > own_floor);
    let module = own_modules(line).into_iter().find(above)?;
    Some(format!("{own} lies below {module}: {}", line.trim()))
}

/// Functions of formatted code with more lines than `most`: line number, name and length.
fn long_functions(code: &[(usize, &str)], most: usize) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, (number, line)) in code.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let head = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        let head = head.trim_start_matches("pub ").trim_start_matches("const ");
        let Some(rest) = head.strip_prefix("fn ") else { continue };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = code[at..].iter().find(|(_, line)| line.strip_prefix(indent) == Some("}"));
        let lines = end.map_or(0, |(end, _)| end - number + 1);
        // A trait method without a body ends in a semicolon, and has no closing brace of its own.
        if lines > most && !line.ends_with(';') {
            found.push((*number, name, lines));
        }
    }
    found
}

#[test]
fn the_floors_of_the_builder_are_imported_downwards() {
    let of = |path: &Path| starts(path, &["builder/src"]) && path.file_name().unwrap() != "tests.rs";
    let mut broken = Vec::new();
    for path in sources().into_iter().filter(|path| of(path)) {
        for (number, line) in code(&read(&path)) {
            broken.extend(climbs(&path, line).map(|why| format!("{}:{number}: {why}", path.display())));
        }
    }
    holds("an import runs up", &broken);
    let floors = FLOORS.iter().chain(&PROGRAM);
    let known: BTreeSet<String> = floors.map(|floor| (*floor).to_owned()).collect();
    let listed = |file: &str| -> BTreeSet<String> {
        let text = read(Path::new(file));
        let names = text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
        names.map(|name| name.trim_end_matches(';').to_owned()).collect()
    };
    let there = &listed("builder/src/lib.rs") | &listed("builder/src/main.rs");
    assert_eq!(there, known, "say in tests/tests/shape.rs on which floor a module lies");
}

#[test]
fn an_import_that_runs_up_is_seen() {
    let said = |path: &str, line: &str| climbs(Path::new(path), line).is_some();
    assert!(said("builder/src/assemble.rs", "use crate::host::store;"));
    assert!(said("builder/src/claim/explain.rs", "    let text = crate::host::progress::size(1);"));
    assert!(said("builder/src/host/store.rs", "use crate::{lock, flow::build};"));
    assert!(said("builder/src/recipe/mod.rs", "use crate::lock::Lock;"));
    assert!(said("builder/src/cmd/rebuild.rs", "use super::build::make;"));
    assert!(said("builder/src/cmd/rebuild.rs", "use crate::cmd::build;"));
    assert!(said("builder/src/options/tlog.rs", "use crate::cmd::log;"));
    assert!(!said("builder/src/flow/build.rs", "use crate::host::{fetch, store};"));
    assert!(!said("builder/src/cmd/mod.rs", "pub mod build;"));
    assert!(!said("builder/src/lock.rs", "use crate::{advice, trust::flow};"));
    assert_eq!(own_modules("use crate::{a::{b, c}, d};"), ["a", "d"]);
}

#[test]
fn functions_and_files_are_no_longer_than_a_reader_can_hold() {
    let mut broken = Vec::new();
    for path in sources().iter().filter(|path| starts(path, &["builder", "measure/src", "rootfs"])) {
        if path.file_name().unwrap() == "tests.rs" {
            continue;
        }
        let text = read(path);
        let code = code(&text);
        let last = code.last().map_or(0, |(number, _)| *number);
        if last > MOST_LINES_OF_A_FILE {
            broken.push(format!("{}:1: {last} lines without its tests", path.display()));
        }
        for (number, name, lines) in long_functions(&code, MOST_LINES_OF_A_FUNCTION) {
            broken.push(format!("{}:{number}: {name} has {lines} lines", path.display()));
        }
    }
    holds("too long", &broken);
}

#[test]
fn a_long_function_is_seen() {
    let text = "trait T {\n    fn short();\n}\nimpl T {\n    pub fn long(\n    ) {\n        a\n    }\n\n    fn short() {\n    }\n}";
    let found = long_functions(&code(text), 2);
    assert_eq!(found, [(5, "long".to_owned(), 4)]);
    assert!(long_functions(&code(text), 4).is_empty());
}

#[test]
fn the_clock_is_read_in_one_place() {
    let of = |path: &Path| {
        starts(path, &["builder/src", "builder/image", "builder/trust"])
            && path != Path::new("builder/src/host/clock.rs")
            && path.file_name().unwrap() != "tests.rs"
    };
    let broken = lines_where(of, |line| mentions(line, "SystemTime").then(|| line.trim().to_owned()));
    holds("the clock is read outside of builder/src/host/clock.rs", &broken);
}

#[test]
fn every_dependency_has_its_version_from_the_workspace() {
    let mut broken = Vec::new();
    for package in metadata()["packages"].as_array().unwrap() {
        let place = text(&package["manifest_path"]);
        let mut inside = false;
        for (index, line) in fs::read_to_string(place).unwrap().lines().enumerate() {
            if line.starts_with('[') {
                inside = line.contains("dependencies");
            } else if inside
                && line.contains('=')
                && !line.starts_with('#')
                && !line.contains(".workspace = true")
                && !line.contains("workspace = true,")
            {
                broken.push(format!("{place}:{}: {line}", index + 1));
            }
        }
    }
    holds("a version stands outside of the root Cargo.toml", &broken);
}

#[test]
fn modules_are_named_after_what_they_yield() {
    let named = |path: &PathBuf| {
        let parts = path.with_extension("");
        let bad = parts.iter().any(|part| EMPTY_NAMES.iter().any(|name| part == *name));
        bad.then(|| format!("{}:1: the name says nothing", path.display()))
    };
    let mut broken: Vec<String> = sources().iter().filter_map(named).collect();
    broken.extend(lines_where(
        |_| true,
        |line| {
            let (_, name) = line.split_once("mod ")?;
            let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            EMPTY_NAMES.contains(&&*name).then(|| format!("mod {name} says nothing"))
        },
    ));
    broken.extend(lines_where(
        |path| !is_this(path),
        |line| line.contains("fn get_").then(|| format!("{}: no `get_`", line.trim())),
    ));
    holds("a name", &broken);
}

#[test]
fn every_module_opens_with_what_it_yields() {
    let mut broken = Vec::new();
    for path in &sources() {
        // A module's tests in a file of their own need no `//!`.
        if !read(path).starts_with("//!") && path.file_name().unwrap() != "tests.rs" {
            broken.push(format!("{}:1: no `//!`", path.display()));
        }
    }
    holds("a module does not say what it is", &broken);
}

#[test]
fn pure_code_sees_no_world() {
    let pure = |path: &Path| {
        let outside = ["rootfs/verity/src/bin/", "measure/src/bin/"];
        starts(path, &PURE) && !starts(path, &outside) && path.file_name().unwrap() != "tests.rs"
    };
    assert!(sources().iter().filter(|path| pure(path)).count() > 50);
    let broken = lines_where(pure, |line| {
        // `std::os::unix::ffi` only gives the bytes of names, and no access to the world.
        let line = line.replace("std::os::unix::ffi", "");
        let word = WORLD.iter().find(|word| mentions(&line, word))?;
        Some(format!("{word}: {}", line.trim()))
    });
    holds("pure code touches the world, or what differs from run to run", &broken);
}

#[test]
fn programs_are_started_in_one_place() {
    let of = |path: &Path| {
        let product = [
            "builder/src",
            "builder/image",
            "builder/trust",
            "rootfs/src",
            "rootfs/verity/src",
            "measure/src",
            "rootfs/guest/src",
        ];
        starts(path, &product)
            && !starts(path, &["builder/src/host/tool", "builder/src/host/tool.rs"])
            && path.file_name().unwrap() != "tests.rs"
    };
    let broken = lines_where(of, |line| mentions(line, "Command::new").then(|| line.trim().to_owned()));
    holds("a program is started outside of builder/src/host/tool", &broken);
}

#[test]
fn what_the_fuzzer_may_skip_the_program_may_not() {
    let of = |path: &Path| starts(path, &["builder", "rootfs", "measure"]);
    let broken = lines_where(of, |line| {
        let calls = mentions(line, "is_acceptable_once_signed") && !line.starts_with("pub fn ");
        calls.then(|| line.trim().to_owned())
    });
    holds("a signature is passed over outside of tests/fuzz", &broken);
}

#[test]
fn only_the_guest_is_unsafe() {
    let guests =
        ["rootfs/guest", "tests/tests/system/guest_boot", "tests/tests/system/measured_boot/init.rs"];
    let of = |path: &Path| !starts(path, &guests) && !is_this(path);
    let broken = lines_where(of, |line| mentions(line, "unsafe").then(|| line.trim().to_owned()));
    holds("unsafe code", &broken);
}

#[test]
fn only_two_hosts_are_built_in() {
    let hosts = ["https://snapshot.debian.org/", "https://registry.npmmirror.com/"];
    let of = |path: &Path| {
        let with =
            ["host", "cmd", "options", "flow", "resolve"].map(|folder| format!("builder/src/{folder}"));
        let with: Vec<&str> = with.iter().map(String::as_str).chain(["rootfs/src"]).collect();
        starts(path, &with) && path.file_name().unwrap() != "tests.rs"
    };
    let broken = lines_where(of, |line| {
        let (_, rest) = line.split_once("http://").or_else(|| line.split_once("https://"))?;
        // A scheme alone or a document's namespace is not a host.
        let host = rest.chars().next().is_some_and(|c| c.is_alphanumeric());
        let known = hosts.iter().any(|known| line.contains(known));
        let local =
            rest.starts_with("127.0.0.1") || rest.starts_with("localhost") || rest.contains(".example");
        let data = line.contains("HOME_URL") || line.contains("schema");
        (host && !known && !local && !data).then(|| line.trim().to_owned())
    });
    holds("a host that nobody asked for", &broken);
    let mirrors = read(Path::new("builder/src/host/mirror.rs"));
    assert!(
        hosts.iter().all(|host| mirrors.contains(host)),
        "the defaults are not where they are looked for"
    );
}

#[test]
fn the_readme_speaks_to_strangers() {
    let readme = read(Path::new("README.md"));
    // The README opens with two commands: to build, and to check.
    let opening = readme.split("\n## ").next().unwrap();
    for command in ["cargo run --release -- build recipes/openclaw", "ci/check"] {
        assert!(opening.contains(command), "README.md:1: it opens without `{command}`");
    }
    let words = ["session", "founder", "issue #", "/work/", "HOUSE.md", "BUILD-FACTS", "OPENCLAW-FACTS"];
    let mut broken = Vec::new();
    for (index, line) in readme.lines().enumerate() {
        for word in words.iter().filter(|word| line.contains(**word)) {
            broken.push(format!("README.md:{}: {word}", index + 1));
        }
    }
    holds("a word of the workshop", &broken);
}

/// Phrases of another language in English words, which a native reader stumbles over.
const STUMBLING: [&str; 8] = [
    "whoever",
    "nobody asks",
    "nobody needs",
    "nobody misses",
    "is no journal",
    "is no quote",
    "is no part of",
    "text is none",
];

#[test]
fn texts_are_in_plain_english() {
    let said = |text: &str| {
        let lower = text.to_lowercase();
        STUMBLING.iter().find(|phrase| lower.contains(**phrase)).copied()
    };
    assert_eq!(said("Whoever is free takes its share."), Some("whoever"));
    assert_eq!(said("An idle thread takes a batch."), None);
    let documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    let mut broken = Vec::new();
    for path in sources().into_iter().filter(|path| !is_this(path)).chain(documents.map(PathBuf::from)) {
        for (index, line) in read(&path).lines().enumerate() {
            broken.extend(said(line).map(|phrase| format!("{}:{}: {phrase}", path.display(), index + 1)));
        }
    }
    holds("a phrase that a native reader stumbles over", &broken);
}

#[test]
fn a_word_inside_of_another_is_not_that_word() {
    assert!(mentions("use std::fs;", "std::fs") && mentions("a: Instant,", "Instant"));
    assert!(mentions("std::os::unix::fs::x", "std::os::"));
    assert!(!mentions("use rustix::std::fsx;", "std::fs") && !mentions("Instantly", "Instant"));
    assert_eq!(
        code("//! a\nx\n#[cfg(test)]\nmod tests {\ny").iter().map(|line| line.0).collect::<Vec<_>>(),
        [2]
    );
}
