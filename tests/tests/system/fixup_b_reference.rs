//! Compares the fix-ups with the tools that Debian runs, on real packages of trixie.
//!
//! Needs `apt-get`, `dpkg-deb`, `openssl` and trixie packages; `PROOFMARK_TRIXIE_DEBS` may name a folder that already
//! holds the packages. Without them, the tests fail when `CI` is `true`, and otherwise say that they did nothing.

// A test's helpers may panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rootfs::content::{Content, Packing, Sha256Digest};
use rootfs::fixup::{alternatives, ca_bundle, depmod, ld_cache, lint};
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Node, Origin, Tree};
use system_tests::debian;
use system_tests::tool::skipped;
use tempfile::TempDir;

const TARGET: &str = env!("CARGO_TARGET_TMPDIR");
const PACKAGES: [&str; 14] = [
    "base-files",
    "bash",
    "ca-certificates",
    "coreutils",
    "kmod",
    "libc-bin",
    "liblzma5",
    "libzstd1",
    "mawk",
    "openssl",
    "perl-base",
    "systemd",
    "udev",
    "util-linux",
];

/// The packages of trixie and their dependencies, unpacked, and a folder for this test's copies.
struct Root {
    source: PathBuf,
    scratch: TempDir,
    kernel: String,
}

fn run(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{shown}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{shown}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Archives of packages, and what tells them from others.
struct Archives {
    key: String,
    /// The folder that has them; `None` when they are to be downloaded.
    given: Option<PathBuf>,
    chosen: Vec<String>,
}

impl Archives {
    /// Those of `PROOFMARK_TRIXIE_DEBS`, or the packages with all that they depend on, and the kernel's.
    fn find() -> Result<Self, String> {
        if let Some(given) = std::env::var_os("PROOFMARK_TRIXIE_DEBS").map(PathBuf::from) {
            let key = format!("{:?}", debs_in(&given)?);
            return Ok(Archives { key, given: Some(given), chosen: Vec::new() });
        }
        let apt = debian::apt(TARGET).ok_or("no apt")?;
        let kernel = apt.dependency("linux-image-cloud-amd64")?;
        let chosen = apt.install(&[&PACKAGES[..], &[kernel.as_str()]].concat())?;
        Ok(Archives { key: format!("{chosen:?}"), given: None, chosen: chosen.into_keys().collect() })
    }

    /// Unpacks them into `folder`.
    fn unpack(self, folder: &Path) -> Result<(), String> {
        let debs = match self.given {
            Some(given) => given,
            None => {
                let debs = folder.join("debs");
                fs::create_dir_all(&debs).map_err(|error| error.to_string())?;
                let names = self.chosen.iter().map(String::as_str);
                let names: Vec<&str> = ["download"].into_iter().chain(names).collect();
                debian::apt(TARGET).ok_or("no apt")?.run("apt-get", &debs, &names)?;
                debs
            }
        };
        let root = folder.join("root");
        fs::create_dir_all(&root).map_err(|error| error.to_string())?;
        for package in debs_in(&debs)? {
            let script =
                "dpkg-deb --fsys-tarfile \"$1\" | tar -x --keep-directory-symlink --no-same-owner -C \"$2\"";
            run(Command::new("sh").args(["-c", script, "sh"]).arg(package).arg(&root))?;
        }
        Ok(())
    }
}

/// The package archives in a folder, sorted.
fn debs_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut packages: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
        .collect();
    packages.sort();
    Ok(packages)
}

/// The unpacked packages: the first test makes them, once for each choice of archives.
fn prepare() -> Result<Root, String> {
    let told = |error: std::io::Error| error.to_string();
    run(Command::new("openssl").arg("version"))?;
    let archives = Archives::find()?;
    let shared = Path::new(TARGET).join("fixup");
    fs::create_dir_all(&shared).map_err(told)?;
    let guard = File::create(shared.join("lock")).map_err(told)?;
    guard.lock().map_err(told)?;
    let source = shared.join(Sha256Digest::of(archives.key.as_bytes()).to_string());
    if !source.is_dir() {
        let new = shared.join("new");
        let _ = fs::remove_dir_all(&new);
        archives.unpack(&new)?;
        fs::rename(&new, &source).map_err(told)?;
    }
    let modules = fs::read_dir(source.join("root/usr/lib/modules")).map_err(told)?;
    let kernel = modules.flatten().next().ok_or("no kernel modules")?.file_name();
    let scratch = tempfile::tempdir_in(&shared).map_err(told)?;
    Ok(Root { source, scratch, kernel: kernel.to_string_lossy().into_owned() })
}

/// The root that all tests share, unchanged; `None` when it is unavailable here.
fn root() -> Option<Root> {
    prepare().map_err(|why| skipped(&why)).ok()
}

impl Root {
    fn path(&self) -> PathBuf {
        self.source.join("root")
    }

    /// A copy for a tool to change.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.scratch.path().join(name);
        run(Command::new("cp").arg("-a").arg(self.path()).arg(&to)).unwrap();
        to
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new(Origin::debian("base-files", "1"));
        add(&mut tree, &self.path(), &TreePath::root());
        tree
    }

    /// Runs a program of trixie with trixie's own loader and libraries.
    fn program(&self, root: &Path, name: &str, path: &str) -> Command {
        let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--argv0").arg(name).arg("--library-path");
        command.arg(root.join("usr/lib/x86_64-linux-gnu")).arg(root.join(path));
        command.env_clear().env("LC_ALL", "C").env("PATH", std::env::var_os("PATH").unwrap());
        command
    }
}

fn add(tree: &mut Tree, folder: &Path, at: &TreePath) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = at.join(entry.file_name().to_str().unwrap()).unwrap();
        let meta = entry.metadata().unwrap();
        let origin = Origin::debian("libc6", "2.41-12+deb13u4");
        let mode = meta.permissions().mode() as u16;
        let node = if meta.is_dir() {
            Node::directory(mode, origin)
        } else if meta.is_symlink() {
            Node::symlink(fs::read_link(entry.path()).unwrap().to_str().unwrap(), origin)
        } else {
            Node::file(mode, Content::pack(&fs::read(entry.path()).unwrap(), Packing::Zstd(1)), origin)
        };
        tree.insert(path.clone(), node).unwrap();
        if meta.is_dir() {
            add(tree, &entry.path(), &path);
        }
    }
}

fn place(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Fails with the first difference, without printing all of two large files.
fn assert_same(name: &str, own: &[u8], reference: &[u8]) {
    let at = own.iter().zip(reference).position(|(a, b)| a != b).unwrap_or(own.len().min(reference.len()));
    let near = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[at.saturating_sub(60)..bytes.len().min(at + 60)]).into_owned()
    };
    let (left, right) = (own.len(), reference.len());
    assert!(
        own == reference,
        "{name}: {left} and {right} bytes, differ at {at}:\nown       {:?}\nreference {:?}",
        near(own),
        near(reference)
    );
}

/// The name of the tool at the end of its cache.
fn generator_of(cache: &[u8]) -> String {
    let at = cache.windows(9).rposition(|window| window == b"ldconfig ").unwrap();
    String::from_utf8_lossy(&cache[at..]).into_owned()
}

#[test]
fn the_library_cache_is_the_one_of_ldconfig() {
    let Some(root) = root() else { return };
    for (name, prepare) in [("plain", false), ("hwcaps", true)] {
        let copy = root.copy(&format!("ldconfig-{name}"));
        let mut tree = root.tree();
        if prepare {
            // Folders of optimized libraries, an unused one, another directory, and a library without its soname link.
            let libraries = "usr/lib/x86_64-linux-gnu";
            let zlib = tree.resolve(&place(&format!("{libraries}/libz.so.1"))).unwrap();
            let bytes = tree.read(&zlib).unwrap().into_owned();
            let origin = || Origin::debian("libc6", "1");
            for to in [
                "usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libz.so.1.3.1",
                "usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v2/libz.so.1",
                "opt/lib/libz.so.1.9",
                "opt/lib/libz.so.1.10",
                "opt/lib/glibc-hwcaps/x86-64-v3/libz.so.1",
            ] {
                tree.insert(place(to), Node::file(0o644, Content::raw(bytes.clone()), origin())).unwrap();
                fs::create_dir_all(copy.join(to).parent().unwrap()).unwrap();
                fs::write(copy.join(to), &bytes).unwrap();
            }
            let unused = "usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v4";
            tree.insert(place(unused), Node::directory(0o755, origin())).unwrap();
            fs::create_dir_all(copy.join(unused)).unwrap();
            let conf = "/opt/lib # ours\n";
            fs::write(copy.join("etc/ld.so.conf.d/aa.conf"), conf).unwrap();
            tree.insert(place("etc/ld.so.conf.d/aa.conf"), Node::file(0o644, Content::raw(conf), origin()))
                .unwrap();
            let link = format!("{libraries}/liblzma.so.5");
            assert_eq!(tree.remove(&place(&link)), 1);
            fs::remove_file(copy.join(link)).unwrap();
        }
        let mut ldconfig = Command::new(copy.join("usr/sbin/ldconfig"));
        run(ldconfig.arg("-r").arg(&copy).args(["-C", "/etc/ld.so.cache"])).unwrap();
        let reference = fs::read(copy.join("etc/ld.so.cache")).unwrap();
        let start = Instant::now();
        let report = ld_cache::apply(&mut tree, &generator_of(&reference)).unwrap();
        eprintln!("ld_cache {name}: {} libraries in {:?}", report.libraries, start.elapsed());
        assert!(report.libraries > 50);
        assert_same("ld.so.cache", &tree.read(&place("etc/ld.so.cache")).unwrap(), &reference);
        for link in &report.links {
            let target = fs::read_link(copy.join(link.as_str())).unwrap();
            assert!(
                matches!(&tree.get(link).unwrap().kind, Kind::Symlink(own) if Path::new(&**own) == target)
            );
        }
        assert_eq!(report.links.len(), if prepare { 2 } else { 0 }, "{:?}", report.links);
    }
}

const INDEXES: [&str; 11] = [
    "modules.dep",
    "modules.dep.bin",
    "modules.alias",
    "modules.alias.bin",
    "modules.softdep",
    "modules.weakdep",
    "modules.symbols",
    "modules.symbols.bin",
    "modules.builtin.bin",
    "modules.builtin.alias.bin",
    "modules.devname",
];

fn compare_indexes(root: &Root, copy: &Path, tree: &Tree) {
    let mut depmod = root.program(copy, "depmod", "usr/bin/kmod");
    depmod.arg("-b").arg(copy).args(["-m", "/usr/lib/modules"]).arg(&root.kernel);
    run(&mut depmod).unwrap();
    for name in INDEXES {
        let at = format!("usr/lib/modules/{}/{name}", root.kernel);
        assert_same(name, &tree.read(&place(&at)).unwrap(), &fs::read(copy.join(&at)).unwrap());
    }
}

#[test]
fn the_index_of_all_modules_of_the_cloud_kernel_is_the_one_of_depmod() {
    let Some(root) = root() else { return };
    let mut tree = root.tree();
    let start = Instant::now();
    depmod::apply(&mut tree, &root.kernel).unwrap();
    eprintln!("depmod of all: {:?}", start.elapsed());
    compare_indexes(&root, &root.copy("depmod-all"), &tree);
}

#[test]
fn the_index_of_chosen_modules_is_the_one_of_depmod() {
    let Some(root) = root() else { return };
    let mut tree = root.tree();
    let start = Instant::now();
    let mut modules = depmod::Modules::open(&tree, &root.kernel).unwrap();
    let wanted = ["virtio_blk", "dm-verity", "erofs", "overlay", "virtio-net", "vfat", "nft_*", "ext4"];
    let selection = modules.select(&tree, &wanted).unwrap();
    let gone = modules.retain(&mut tree, &selection.modules);
    modules.index(&mut tree).unwrap();
    eprintln!("depmod of {} (without {gone}): {:?}", selection.modules.len(), start.elapsed());
    eprintln!("unmet {:?} builtin {:?}", selection.unmet, selection.builtin);
    assert!(selection.modules.contains("dm_bufio") && selection.modules.contains("libcrc32c"));
    let order = modules.load_order(&tree, &["dm-verity"]).unwrap();
    assert!(order.len() >= 3 && order.last().unwrap().name() == "dm-verity.ko.xz", "{order:?}");
    let copy = root.copy("depmod-chosen");
    let folder = format!("usr/lib/modules/{}", root.kernel);
    fs::remove_dir_all(copy.join(&folder).join("kernel")).unwrap();
    for name in modules.names() {
        let at = modules.path(name).unwrap().as_str();
        fs::create_dir_all(copy.join(at).parent().unwrap()).unwrap();
        fs::hard_link(root.path().join(at), copy.join(at)).unwrap();
    }
    compare_indexes(&root, &copy, &tree);
}

#[test]
fn certificates_are_as_update_ca_certificates_leaves_them() {
    let Some(root) = root() else { return };
    let copy = root.copy("certificates");
    let mut tree = root.tree();
    let own = root.scratch.path().join("own");
    fs::create_dir_all(&own).unwrap();
    let subject = "/C=DE/O=  Ünser   Örtchen  /OU=Two+OU=One/CN=Local (Test), CA";
    let (key, pem) = (own.join("key.pem"), own.join("Local (Test), CA.crt"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-utf8",
        "-multivalue-rdn",
        "-subj",
        subject,
    ]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&pem);
    run(&mut openssl).unwrap();
    let pem = fs::read(pem).unwrap();
    // One without its last newline, and two with the same subject.
    let short = pem.strip_suffix(b"\n").unwrap().to_vec();
    let local = [("Local (Test), CA", pem), ("Again", short)];
    for (name, bytes) in &local {
        let at = format!("usr/local/share/ca-certificates/{name}.crt");
        fs::create_dir_all(copy.join(&at).parent().unwrap()).unwrap();
        fs::write(copy.join(&at), bytes).unwrap();
    }
    let list: Vec<ca_bundle::LocalCertificate> = local
        .iter()
        .map(|(name, pem)| ca_bundle::LocalCertificate { name: (*name).to_owned(), pem: pem.clone() })
        .collect();
    let start = Instant::now();
    let report = ca_bundle::apply(&mut tree, &list).unwrap();
    eprintln!("ca_bundle: {} certificates in {:?}", report.certificates, start.elapsed());
    let conf = tree.read(&place("etc/ca-certificates.conf")).unwrap().into_owned();
    fs::write(copy.join("etc/ca-certificates.conf"), &conf).unwrap();
    fs::create_dir_all(copy.join("etc/ssl/certs")).unwrap();
    let mut update = Command::new("sh");
    update.arg(copy.join("usr/sbin/update-ca-certificates")).arg("--sysroot").arg(&copy);
    run(update.args(["--hooksdir", "/none"]).env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
        .unwrap();
    let certs = place("etc/ssl/certs");
    let bundle = "ca-certificates.crt";
    let reference = fs::read(copy.join("etc/ssl/certs").join(bundle)).unwrap();
    assert_same(bundle, &tree.read(&certs.join(bundle).unwrap()).unwrap(), &reference);
    let mut names: Vec<String> = fs::read_dir(copy.join("etc/ssl/certs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let own: Vec<&str> = tree.children(&certs).map(|(path, _)| path.name()).collect();
    assert_eq!(own, names);
    let sysroot = format!("{}//", copy.display());
    for name in names.iter().filter(|name| *name != bundle) {
        let target = fs::read_link(copy.join("etc/ssl/certs").join(name)).unwrap();
        let target = target.to_str().unwrap().replace(&sysroot, "/");
        let Kind::Symlink(link) = &tree.get(&certs.join(name).unwrap()).unwrap().kind else {
            panic!("{name}")
        };
        assert_eq!(**link, target, "{name}");
    }
}

#[test]
fn the_lint_finds_the_library_that_kmod_opens_at_run_time() {
    let Some(root) = root() else { return };
    let mut tree = root.tree();
    alternatives::apply(&mut tree, &[]).unwrap();
    let start = Instant::now();
    let before = lint::lint(&tree, &[]).unwrap();
    eprintln!("lint of {} paths: {:?}", tree.len(), start.elapsed());
    // All dependencies of these packages are there, so nothing fails to start.
    let errors: Vec<String> = before
        .findings
        .iter()
        .filter(|finding| finding.level() == lint::Level::Error)
        .map(lint::Finding::to_string)
        .collect();
    assert_eq!(errors, [""; 0]);
    let names = |report: &lint::Report| {
        report.findings.iter().filter(|finding| finding.to_string().contains("liblzma.so.5")).count()
    };
    assert_eq!(names(&before), 0);
    let libraries = place("usr/lib/x86_64-linux-gnu");
    let lzma: Vec<TreePath> = tree
        .children(&libraries)
        .map(|(path, _)| path.clone())
        .filter(|path| path.name().starts_with("liblzma.so"))
        .collect();
    for path in lzma {
        tree.remove(&path);
    }
    let after = lint::lint(&tree, &[]).unwrap();
    assert!(names(&after) >= 2, "{:?}", after.findings);
}

#[test]
fn awk_and_which_work_as_debian_registers_them() {
    let Some(root) = root() else { return };
    let mut tree = root.tree();
    alternatives::apply(&mut tree, &[]).unwrap();
    assert_eq!(tree.resolve(&place("usr/bin/awk")).unwrap(), place("usr/bin/mawk"));
    let copy = root.copy("alternatives");
    symlink("mawk", copy.join("usr/bin/awk")).unwrap();
    let answer = run(root.program(&copy, "awk", "usr/bin/awk").arg("BEGIN { print 6 * 7 }")).unwrap();
    assert_eq!(answer.trim(), "42");
}
