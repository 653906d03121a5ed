//! The init's binary is the same bytes wherever it is compiled with the pinned toolchain.

#[path = "../build/compile.rs"]
mod compile;

use proofmark_guest::INIT;
use sha2::Digest as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const RUSTC: &str = env!("PROOFMARK_RUSTC");
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");
/// A change here is a commit of its own that says why.
const PIN: &str = include_str!("../proofmark-init.sha256");

fn digest(bytes: &[u8]) -> String {
    hex::encode(sha2::Sha256::digest(bytes))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("reads") {
        let entry = entry.expect("reads");
        match entry.file_type().expect("reads").is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).expect("copies")),
        }
    }
}

#[test]
fn the_embedded_binary_is_the_pinned_one() {
    assert_eq!(format!("{}  proofmark-init\n", digest(INIT)), PIN);
}

/// Compiles copies in two different folders; the second with another umask, locale, time zone, home,
/// temporary folder, number of cores and place of the toolchain, and with user flags that must have no
/// effect.
#[test]
fn unlike_folders_and_environments_give_the_same_bytes() {
    let folder = tempfile::tempdir().expect("creates");
    let source = Path::new(PACKAGE).join("src/init");
    let (near, far) =
        (folder.path().join("a"), folder.path().join("some/where/else \u{e4}/with a longer name"));
    copy(&source, &near);
    copy(&source, &far);

    let first = folder.path().join("first");
    compile::compile(Path::new(RUSTC), &near, &first).expect("compiles");

    let real = Command::new(RUSTC).args(["--print", "sysroot"]).output().expect("starts").stdout;
    let real = String::from_utf8(real).expect("a path");
    let moved = folder.path().join("moved toolchain");
    fs::create_dir(&moved).expect("creates");
    std::os::unix::fs::symlink(Path::new(real.trim()).join("lib"), moved.join("lib")).expect("links");
    let (home, unlike) = (folder.path().join("home"), folder.path().join("unlike"));
    fs::create_dir(&home).expect("creates");
    let script = format!(
        "#!/bin/sh\numask 077\nexport HOME='{home}' TMPDIR='{home}' LC_ALL=tr_TR.UTF-8 TZ=Asia/Tokyo USER=other \
         RUSTFLAGS=-Copt-level=3 CARGO_ENCODED_RUSTFLAGS=-Copt-level=3 SOURCE_DATE_EPOCH=1\n\
         exec taskset -c 0 '{real}/bin/rustc' --sysroot='{moved}' \"$@\"\n",
        home = home.display(),
        real = real.trim(),
        moved = moved.display(),
    );
    fs::write(&unlike, script).expect("writes");
    fs::set_permissions(&unlike, fs::Permissions::from_mode(0o755)).expect("sets the mode");
    let second = folder.path().join("second");
    compile::compile(&unlike, &far, &second).expect("compiles");

    for output in [first, second] {
        assert_eq!(digest(&fs::read(&output).expect("reads")), digest(INIT), "{}", output.display());
    }
}

#[test]
fn the_readmes_command_gives_the_same_bytes() {
    let readme = fs::read_to_string(Path::new(PACKAGE).join("README.md")).expect("reads");
    let script = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a command");
    let folder = tempfile::tempdir().expect("creates");
    let tools = Path::new(RUSTC).parent().expect("in a folder").display().to_string();
    let path = format!("{tools}:{}", std::env::var("PATH").expect("set"));
    let root = Path::new(PACKAGE).ancestors().nth(2).expect("in the workspace");
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).current_dir(root).env("TMPDIR", folder.path()).env("PATH", path);
    let done = shell.output().expect("starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let printed = String::from_utf8(done.stdout).expect("text");
    assert_eq!(printed.split_whitespace().next(), PIN.split_whitespace().next());
}

#[test]
fn a_source_that_does_not_compile_is_an_error_with_the_compilers_words() {
    let folder = tempfile::tempdir().expect("creates");
    fs::write(folder.path().join("main.rs"), "fn main() { nonsense() }").expect("writes");
    let said =
        compile::compile(Path::new(RUSTC), folder.path(), &folder.path().join("out")).expect_err("refused");
    assert!(said.contains("cannot find function `nonsense`"), "{said}");
    let said = compile::compile(Path::new("/no/rustc"), folder.path(), folder.path()).expect_err("refused");
    assert!(said.starts_with("/no/rustc does not start"), "{said}");
}

#[test]
fn no_panic_can_be_reached() {
    for trace in ["has panicked", ".rs"] {
        assert!(
            !INIT.windows(trace.len()).any(|bytes| bytes == trace.as_bytes()),
            "{trace:?} is in the binary"
        );
    }
}

#[test]
fn the_binary_is_static_and_small_and_names_no_folder_of_this_machine() {
    assert_eq!(INIT.get(..6), Some(&b"\x7fELF\x02\x01"[..]));
    assert!(INIT.len() < 100_000, "{} bytes", INIT.len());
    let half = |at: usize| usize::from(u16::from_le_bytes([INIT[at], INIT[at + 1]]));
    assert_eq!((half(16), half(18)), (2, 62), "ET_EXEC for x86_64");
    let kinds: Vec<u8> = (0..half(56)).map(|index| INIT[half(32) + index * half(54)]).collect();
    assert!(!kinds.contains(&2) && !kinds.contains(&3), "PT_DYNAMIC or PT_INTERP in {kinds:?}");
    let home = std::env::var("HOME").unwrap_or("/home".into());
    for folder in [PACKAGE, home.as_str(), env!("CARGO_TARGET_TMPDIR"), "/rustc/", ".rustup"] {
        let found = INIT.windows(folder.len()).any(|bytes| bytes == folder.as_bytes());
        assert!(!found || folder == "/", "it names {folder}");
    }
}
