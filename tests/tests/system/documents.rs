//! Runs what README and docs print: each code block is a script that works, a file that is read, or names the test that
//! holds it.
//!
//! # Shape
//! Each document has a world of its own: a folder with the recipes, in which its blocks run in order. What a `console`
//! block shows is compared with what is printed, digests and numbers aside.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use system_tests::document::{self, Block};
use system_tests::inputs::{self, Inputs};
use system_tests::outcome::Outcome;
use system_tests::{program, tool};

/// What becomes of a block.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It runs, and must succeed; of a `console` block only what it shows must be right.
    Runs,
    /// It runs after this preparation.
    After(&'static str),
    /// It is written to this file, which later blocks read.
    File(&'static str),
    /// It is a policy that `verify` can read, and by which it refuses the image of this world.
    Policy,
    /// It runs elsewhere: in this test or step of `ci/check`.
    Held(&'static str),
    /// Nothing can run: it is this.
    Shown(&'static str),
}
use Fate::{After, File, Held, Policy, Runs, Shown};

/// The blocks of each document, in order, by how their first line begins.
const README: &[(&str, Fate)] = &[
    ("cargo run --release -- build recipes/openclaw", Held("first_command")),
    ("recipe.toml ─>", Shown("a picture")),
    ("$ proofmark build recipes/minimal", Runs),
    ("proofmark run out/minimal-1", Held("a_release_image_boots_through_ovmf_and_no_unit_fails")),
    (
        "proofmark build recipes/minimal --profile debug",
        Held("the_debug_image_boots_and_takes_the_key_of_the_readme"),
    ),
    ("$ proofmark why out/minimal-1", After("proofmark build recipes/minimal --profile debug")),
    (
        "proofmark build recipes/openclaw --profile debug",
        Held("the_gateway_answers_a_chat_through_a_forwarded_port_and_tells_no_secret"),
    ),
    ("proofmark lock --check recipes/openclaw", Held("the_block_for_ci_boots_as_printed")),
    ("proofmark audit theirs", After("cp -r out/minimal-1 theirs")),
    ("cargo run --release -- build recipes/minimal --out mine", Runs),
    ("format = 1", File("policy.toml")),
    ("proofmark key builder.key", Runs),
    ("$ proofmark vendor /srv/vendored", Runs),
    ("proofmark inputs recipes/minimal", After("mkdir -p /srv/osv && cp record.json /srv/osv/")),
    ("#:schema ../recipe.schema.json", Held("the_recipe_of_the_readme_boots_and_greets")),
    ("[debian.scripts.some-package]", Shown("a fragment, about a package that no recipe here has")),
    ("$ proofmark build recipes/nope", Runs),
];
const PROVENANCE: &[(&str, Fate)] = &[
    ("$ proofmark key builder.key", After("proofmark build recipes/minimal; cp readme.toml policy.toml")),
    ("$ proofmark key --witness", Held("a_witness_is_demanded_and_a_monitor_tells_of_strangers_and_forks")),
    ("format = 1", Policy),
    ("umask 077", Held("who_has_no_key_signs_by_a_token_of_its_identity")),
];
const SBOM: &[(&str, Fate)] = &[
    ("{\"location\"", Shown("a line of an SBOM")),
    ("mkdir osv", Held("an_image_is_clear_until_a_record_of_the_database_names_what_is_in_it")),
    (
        "proofmark export rvps",
        After("proofmark build recipes/minimal && cp -r out/minimal-1 out/openclaw-2026.5.7"),
    ),
];
const VERDICT: &[(&str, Fate)] = &[
    ("proofmark appraise --evidence", Held("an_honest_boot_is_accepted_by_name_only")),
    ("refused: openclaw", Shown("an example of a verdict")),
    ("proofmark appraise …", Held("an_honest_boot_is_accepted_by_name_only")),
    ("{", Held("the_policy_of_docs_is_the_default")),
];
const MEASURE: &[(&str, Fate)] = &[
    ("register'", Shown("a formula")),
    ("$ printf 'Calling EFI", Runs),
    (
        "objcopy -O binary",
        After("proofmark build recipes/minimal && cp out/minimal-1/image.efi out/minimal-1/disk.raw ."),
    ),
    ("tail -c +", After("OFFSET=0; LOG=image.efi; LENGTH=64")),
    ("value=$(printf", After("DIGESTS=$(printf '\\0\\0\\0\\0' | sha384sum | cut -c1-96)")),
    ("ovmf-measure mrtd OVMF.fd", After(FIRMWARE)),
    ("use ovmf_measure", Shown("a doc test of the crate")),
];
const VERITY: &[(&str, Fate)] = &[
    ("$ cargo install dm-verity-tool", Held("the_program_and_veritysetup_write_and_accept_the_same_files")),
    ("dm-verity-tool = {", Shown("a line of a Cargo.toml")),
    ("use dm_verity_tool", Shown("a doc test of the crate")),
];
const ROOTFS: &[(&str, Fate)] =
    &[("archives ──unpack", Shown("a picture")), ("use rootfs::", Shown("a doc test of the crate"))];
const GUEST: &[(&str, Fate)] =
    &[("cd rootfs/guest/src/init", Held("the_readmes_command_gives_the_same_bytes"))];
const CONTRIBUTING: &[(&str, Fate)] = &[
    ("cargo build --release", Held("program")),
    ("cargo nextest run -p proofmark NAME", Held("tests")),
    ("cargo nextest run --release -p system-tests", Held("tests")),
    ("ci/fuzz 10", Held("fuzz")),
    ("ci/check", Held("tests")),
];
const ARCHITECTURE: &[(&str, Fate)] = &[
    ("recipe ─>", Shown("a picture")),
    ("measure/", Shown("a list of folders")),
    ("cmd ─>", Shown("a picture")),
];
const TEMPLATES: &[(&str, Fate)] = &[
    ("proofmark key --log", Runs),
    ("git switch --orphan", Shown("it pushes to a repository of the user")),
    ("format = 1", Shown("a policy, with the user's own names")),
];
const DOCUMENTS: &[(&str, &[(&str, Fate)])] = &[
    ("README.md", README),
    ("docs/provenance.md", PROVENANCE),
    ("docs/sbom.md", SBOM),
    ("docs/verdict.md", VERDICT),
    ("measure/README.md", MEASURE),
    ("rootfs/README.md", ROOTFS),
    ("rootfs/verity/README.md", VERITY),
    ("rootfs/guest/README.md", GUEST),
    ("CONTRIBUTING.md", CONTRIBUTING),
    ("ARCHITECTURE.md", ARCHITECTURE),
    ("ci/templates/README.md", TEMPLATES),
    ("SECURITY.md", &[]),
    ("CHANGELOG.md", &[]),
];

/// The lock's own firmware, which extends RTMRs whatever this machine's does, and this machine's firmware in two files.
const FIRMWARE: &str = r#"
sha256=$(sed -n '/^\[firmware\]/,$ s/^sha256 = "\(.*\)"/\1/p' recipes/minimal/recipe.lock)
dpkg-deb -x "$PROOFMARK_STORE/blobs/sha256/$(printf %.2s "$sha256")/$sha256" firmware
cp firmware/usr/share/ovmf/OVMF.fd /usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/OVMF/OVMF_VARS_4M.fd ."#;
/// A record that is about no package of the image.
const RECORD: &str = r#"{"schema_version":"1.7.0","id":"X-1","modified":"2026-10-01T12:00:00Z","affected":[{"package":
{"ecosystem":"Debian:13","name":"no-such-package"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}]}"#;
/// Time limit of a boot, on a very busy machine.
const LIMIT: Duration = Duration::from_secs(300);

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(document: &str) -> String {
    fs::read_to_string(workspace().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The block of a document that begins so.
fn block(document: &str, begin: &str) -> Block {
    document::blocks(&read(document)).into_iter().find(|block| block.text.starts_with(begin)).unwrap()
}

/// A folder in which the commands of a document run.
struct World {
    folder: tempfile::TempDir,
    store: PathBuf,
}

impl World {
    fn new() -> Self {
        let inputs = Inputs::minimal();
        let folder = tempfile::tempdir().unwrap();
        let recipes = inputs.recipe().parent().unwrap().to_owned();
        inputs::copy(&recipes, &folder.path().join("recipes")).unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        fs::write(folder.path().join("record.json"), RECORD).unwrap();
        fs::write(folder.path().join("readme.toml"), block("README.md", "format = 1").text).unwrap();
        World { folder, store: inputs.store }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A shell that runs a text of a document, as printed but for places outside of this world.
    fn shell(&self, text: &str) -> Command {
        let place = |name: &str| self.at(name).display().to_string();
        let text = text
            .replace("cargo run --release --", "proofmark")
            .replace("/srv/", &format!("{}/", place("srv")))
            .replace("/tmp/empty", &place("empty"));
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        for program in [program::proofmark(), program::ovmf_measure()] {
            let mut longer = program.parent().unwrap().as_os_str().to_owned();
            longer.push(":");
            longer.push(&path);
            path = longer;
        }
        let mut shell = Command::new("bash");
        shell.args(["-eu", "-c", &text]).current_dir(self.folder.path()).stdin(Stdio::null());
        // npm and apt of this machine are set up in its home.
        shell.env("PATH", path).env("PROOFMARK_STORE", &self.store).env("READER", self.at("home"));
        shell
    }

    /// Runs the commands of a `console` block, after `before`.
    fn converse(&self, what: &str, block: &Block, before: &str) {
        Outcome::of(&mut self.shell(before)).succeeded();
        for command in block.commands() {
            let mut outcome = Outcome::of(&mut self.shell(&format!("{{ {}\n}} 2>&1", command.typed)));
            outcome.stdout = outcome.stdout.replace(&self.at("srv").display().to_string(), "/srv");
            let fails = command.printed.iter().any(|line| line.starts_with("error: "));
            // 4: checked, and the answer is no.
            assert_eq!(
                matches!(outcome.code, Some(0 | 4)),
                !fails,
                "{what}: {}\n{}",
                command.typed,
                outcome.stdout
            );
            if let Some(line) = document::missing(&command.printed, &outcome.stdout) {
                panic!("{what}: `{}` does not print {line:?}, but\n{}", command.typed, outcome.stdout);
            }
        }
    }

    fn run(&self, what: &str, block: &Block, fate: Fate) {
        match fate {
            Runs | After(_) => {
                let before = if let After(before) = fate { before } else { ":" };
                match block.language.as_str() {
                    "console" => self.converse(what, block, before),
                    "sh" => {
                        let outcome = Outcome::of(&mut self.shell(&format!("{before}\n{}", block.text)));
                        assert_eq!(outcome.code, Some(0), "{what}\n{}{}", outcome.stdout, outcome.stderr);
                    }
                    other => panic!("{what}: {other} does not run"),
                }
            }
            File(name) => fs::write(self.at(name), &block.text).unwrap(),
            Policy => {
                fs::write(self.at("policy.toml"), &block.text).unwrap();
                let outcome =
                    Outcome::of(&mut self.shell("proofmark verify out/minimal-1 --policy policy.toml"));
                assert_eq!(outcome.code, Some(4), "{what}\n{}{}", outcome.stdout, outcome.stderr);
            }
            Held(_) | Shown(_) => {}
        }
    }
}

/// Runs all blocks of a document that are not held elsewhere.
fn run_all(document: &str) {
    let (_, fates) = DOCUMENTS.iter().find(|(name, _)| *name == document).unwrap();
    let world = World::new();
    for (block, (_, fate)) in document::blocks(&read(document)).iter().zip(*fates) {
        world.run(&format!("{document}:{}", block.line), block, *fate);
    }
}

#[test]
fn the_readme_runs_as_printed() {
    run_all("README.md");
}

#[test]
fn docs_run_as_printed() {
    for document in ["docs/provenance.md", "docs/sbom.md", "ci/templates/README.md"] {
        run_all(document);
    }
}

#[test]
fn the_measure_readme_runs_as_printed() {
    if tool::file(&["/usr/share/OVMF/OVMF_CODE_4M.fd"], "ovmf").is_none() {
        return;
    }
    run_all("measure/README.md");
}

/// All Markdown of the repository, but what is kept beside keys and for fuzzing.
fn documents(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if path.is_dir() && !["target", ".git", "seeds", "specimen", "keys", "bench"].contains(&name.as_str())
        {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path.strip_prefix(workspace()).unwrap().display().to_string());
        }
    }
}

/// The functions of tests and the steps of `ci/check`, as they are declared.
fn declared(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            declared(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") || path.ends_with("ci/check") {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_block_of_every_document_has_a_fate() {
    let mut found = Vec::new();
    documents(workspace(), &mut found);
    let mut known: Vec<String> = DOCUMENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    found.sort();
    known.sort();
    assert_eq!(found, known, "documents, and those with fates");
    let mut code = String::new();
    declared(workspace(), &mut code);
    for (document, fates) in DOCUMENTS {
        let blocks = document::blocks(&read(document));
        let begins = |text: &str, begin: &str| text.starts_with(begin);
        for (block, (begin, fate)) in blocks.iter().zip(*fates) {
            assert!(begins(&block.text, begin), "{document}:{} does not begin with {begin:?}", block.line);
            if let Shown(why) = fate {
                assert!(!["sh", "console"].contains(&&*block.language) || !why.is_empty());
            }
            if let Held(by) = fate {
                let there = code.contains(&format!("fn {by}()")) || code.contains(&format!("\n{by}() {{"));
                assert!(there, "{document}:{}: there is neither a test nor a step {by}", block.line);
            }
        }
        assert_eq!(blocks.len(), fates.len(), "{document}");
    }
}

/// The options of the commands that no test here runs exist.
#[test]
fn blocks_that_are_held_elsewhere_name_options_that_exist() {
    for (document, fates) in DOCUMENTS {
        for (block, (_, fate)) in document::blocks(&read(document)).iter().zip(*fates) {
            let text = block.text.replace("\\\n", " ").replace("cargo run --release --", "proofmark");
            let lines = text
                .lines()
                .filter(|_| matches!(fate, Held(_)) && ["sh", "console"].contains(&&*block.language));
            for line in lines.map(|line| line.strip_prefix("$ ").unwrap_or(line)) {
                let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
                if words.next() != Some("proofmark") {
                    continue;
                }
                let words: Vec<&str> = words.collect();
                let verbs = words.iter().take(2).filter(|word| word.bytes().all(|b| b.is_ascii_lowercase()));
                let help = Command::new(program::proofmark()).args(verbs).arg("--help").output().unwrap();
                let help = String::from_utf8_lossy(&help.stdout).into_owned();
                for option in words.iter().filter(|word| word.starts_with("--")) {
                    let known = help.split([' ', ',', '\n']).any(|word| word == *option);
                    assert!(known, "{document}:{}: {option} is not an option of `{line}`", block.line);
                }
            }
        }
    }
}

#[test]
fn the_policy_of_docs_is_the_default() {
    let text = block("docs/verdict.md", "{").text.replace("00…", &"00".repeat(48));
    let policy: ovmf_measure::appraise::Policy = serde_json::from_str(&text).unwrap();
    assert_eq!(policy, ovmf_measure::appraise::Policy::default());
}

/// A running machine, and what it said.
struct Machine {
    child: std::process::Child,
    said: PathBuf,
}

impl Machine {
    fn start(world: &World, text: &str) -> Self {
        let said = world.at("said");
        let output = fs::File::create(&said).unwrap();
        let mut shell = world.shell(text);
        shell.stdout(output.try_clone().unwrap()).stderr(output).process_group(0);
        Machine { child: shell.spawn().unwrap(), said }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.said).unwrap()).into_owned()
    }

    /// Waits until `there` finds what it wants.
    fn wait(&mut self, what: &str, mut there: impl FnMut(&str) -> bool) {
        let begun = Instant::now();
        while !there(&self.said()) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: the machine ended: {ended:?}\n{}", self.said());
            assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}\n{}", self.said());
            thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn the_recipe_of_the_readme_boots_and_greets() {
    if tool::find("qemu-system-x86_64").is_none() {
        return;
    }
    let world = World::new();
    fs::create_dir(world.at("recipes/hello")).unwrap();
    fs::write(world.at("recipes/hello/recipe.toml"), block("README.md", "#:schema").text).unwrap();
    // As the paragraph below the recipe says.
    for command in
        ["proofmark lock recipes/hello", "proofmark build recipes/hello", "proofmark run out/hello-1"]
    {
        assert!(read("README.md").contains(&format!("`{command}`")), "{command}");
    }
    let made = "proofmark lock recipes/hello && proofmark build recipes/hello";
    Outcome::of(&mut world.shell(made)).succeeded();
    let mut machine = Machine::start(&world, "proofmark run out/hello-1");
    machine.wait("the greeting", |said| said.contains("Hello, world!"));
}

#[test]
fn the_debug_image_boots_and_takes_the_key_of_the_readme() {
    if ["qemu-system-x86_64", "ssh", "ssh-keygen"].iter().any(|name| tool::find(name).is_none()) {
        return;
    }
    let world = World::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let key = world.at("home/.ssh/id_ed25519");
    fs::create_dir(world.at("home/.ssh")).unwrap();
    let mut keygen = Command::new("ssh-keygen");
    Outcome::of(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).succeeded();
    let text = block("README.md", "proofmark build recipes/minimal --profile debug").text;
    let text = text.replace("2222:", &format!("{port}:")).replace("$HOME", "$READER");
    let mut machine = Machine::start(&world, &text);
    let known = world.at("known").display().to_string();
    machine.wait("a session", |_| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-p", &port, "-i"]).arg(&key).args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=20",
        ]);
        ssh.args(["-o", "StrictHostKeyChecking=accept-new", "-o", &format!("UserKnownHostsFile={known}")]);
        let outcome = Outcome::of(ssh.args(["root@127.0.0.1", "cat", "/etc/os-release"]));
        outcome.code == Some(0) && outcome.stdout.contains("IMAGE_ID=minimal")
    });
}

#[test]
fn the_block_for_ci_boots_as_printed() {
    let firmware = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    if tool::find("qemu-system-x86_64").is_none() || tool::file(&[firmware], "ovmf").is_none() {
        return;
    }
    // The lock's own check is a step of `ci/check`, and a lock of today has no OpenClaw.
    let world = World::new();
    let block = block("README.md", "proofmark lock --check recipes/openclaw");
    let outcome = Outcome::of(&mut world.shell(&block.text));
    assert_eq!(outcome.code, Some(0), "{}\n{}", outcome.stdout, outcome.stderr);
}
