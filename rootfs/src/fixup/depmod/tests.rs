//! Tests of the index of modules, and of what a recipe chooses.

use super::alias::normal_alias;
use super::*;
use crate::fixup::module::tests::module;

const VERSION: &str = "6.12-test";

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn add(tree: &mut Tree, place: &str, bytes: impl Into<Vec<u8>>) {
    let node = Node::file(0o644, Content::raw(bytes), Origin::debian("linux", "1"));
    tree.insert(path(&format!("usr/lib/modules/{VERSION}/{place}")), node).unwrap();
}

fn tree() -> Tree {
    let mut tree = Tree::new(Origin::debian("linux", "1"));
    let info = ["depends=dm-bufio,dm-mod", "softdep=pre: sha256 md5-alias", "alias=pci:v[0-9]-*"];
    add(&mut tree, "kernel/md/dm-verity.ko", module(&info, &[], &["bufio_new", "dm_new"]));
    add(&mut tree, "kernel/md/dm-bufio.ko", module(&["depends=dm-mod"], &["bufio_new"], &["dm_new"]));
    let dm = ["depends=", "alias=devname:mapper/control", "alias=char-major-10-236"];
    add(&mut tree, "kernel/md/dm-mod.ko", module(&dm, &["dm_new"], &["printk"]));
    add(&mut tree, "kernel/crypto/md5.ko", module(&["alias=md5-alias"], &[], &[]));
    add(&mut tree, "kernel/net/other.ko", module(&[], &[], &[]));
    add(&mut tree, "modules.order", "kernel/net/other.ko\nkernel/md/dm-mod.ko\n");
    add(&mut tree, "modules.builtin", "kernel/lib/sha256.ko\nkernel/fs/ext4.ko\n");
    add(&mut tree, "modules.builtin.modinfo", "ext4.alias=fs-ext4\0ext4.license=GPL\0");
    tree
}

fn text(tree: &Tree, name: &str) -> String {
    let place = path(&format!("usr/lib/modules/{VERSION}/{name}"));
    String::from_utf8_lossy(&tree.read(&place).unwrap()).into_owned()
}

#[test]
fn the_index_names_dependencies_aliases_and_devices() {
    let mut tree = tree();
    apply(&mut tree, VERSION).unwrap();
    let dep = text(&tree, "modules.dep");
    assert!(dep.starts_with("kernel/net/other.ko:\nkernel/md/dm-mod.ko:\n"), "{dep}");
    assert!(dep.contains("kernel/md/dm-verity.ko: kernel/md/dm-bufio.ko kernel/md/dm-mod.ko\n"), "{dep}");
    assert!(text(&tree, "modules.alias").contains("alias pci:v[0-9]-* dm_verity\n"));
    assert!(text(&tree, "modules.softdep").contains("softdep dm_verity pre: sha256 md5-alias\n"));
    assert!(text(&tree, "modules.symbols").contains("alias symbol:dm_new dm_mod\n"));
    assert!(text(&tree, "modules.devname").ends_with("dm_mod mapper/control c10:236\n"));
    let dep_bin = tree.read(&path(&format!("usr/lib/modules/{VERSION}/modules.dep.bin"))).unwrap();
    assert_eq!(&dep_bin[..8], [0xb0, 0x07, 0xf4, 0x57, 0, 2, 0, 1]);
}

#[test]
fn a_selection_holds_its_dependencies_and_the_rest_is_removed() {
    let mut tree = tree();
    let mut modules = Modules::open(&tree, VERSION).unwrap();
    let selection = modules.select(&tree, &["dm-verity", "ext4"]).unwrap();
    let names: Vec<&str> = selection.modules.iter().map(String::as_str).collect();
    assert_eq!(names, ["dm_bufio", "dm_mod", "dm_verity", "md5"]);
    let builtin: Vec<&str> = selection.builtin.iter().map(String::as_str).collect();
    assert_eq!(builtin, ["ext4", "sha256"]);
    assert_eq!(modules.retain(&mut tree, &selection.modules), 1);
    assert!(tree.get(&path("usr/lib/modules/6.12-test/kernel/net")).is_none());
    modules.index(&mut tree).unwrap();
    assert!(!text(&tree, "modules.dep").contains("other"));
    let globbed = modules.select(&tree, &["dm-m*"]).unwrap();
    assert_eq!(globbed.modules, BTreeSet::from(["dm_mod".to_owned()]));
}

#[test]
fn dependencies_are_loaded_first() {
    let tree = tree();
    let mut modules = Modules::open(&tree, VERSION).unwrap();
    let order = modules.load_order(&tree, &["dm-verity", "dm_mod"]).unwrap();
    let names: Vec<&str> = order.iter().map(TreePath::name).collect();
    assert_eq!(names, ["dm-mod.ko", "dm-bufio.ko", "dm-verity.ko"]);
}

#[test]
fn an_unknown_module_is_refused_with_similar_names() {
    let tree = tree();
    let mut modules = Modules::open(&tree, VERSION).unwrap();
    let error = modules.select(&tree, &["dm-verty"]).unwrap_err();
    assert_eq!(error.to_string(), "the kernel has no module dm-verty (there is dm_verity)");
    assert!(matches!(modules.select(&tree, &["zz*"]), Err(Error::Unknown { .. })));
    assert!(matches!(modules.select(&tree, &["zz["]), Err(Error::Pattern(_))));
    assert_eq!(modules.load_order(&tree, &["ext4"]), Err(Error::BuiltIn("ext4".into())));
}

#[test]
fn modules_that_cannot_be_indexed_are_refused() {
    assert!(matches!(Modules::open(&tree(), "5.0"), Err(Error::NoModules(_))));
    let mut twice = tree();
    add(&mut twice, "updates/dm-mod.ko", module(&[], &[], &[]));
    assert!(matches!(Modules::open(&twice, VERSION), Err(Error::Duplicate { .. })));
    let mut lost = tree();
    add(&mut lost, "kernel/lost.ko", module(&["depends=gone"], &[], &[]));
    let mut modules = Modules::open(&lost, VERSION).unwrap();
    assert!(matches!(modules.select(&lost, &["lost"]), Err(Error::MissingDependency { .. })));
    let mut damaged = tree();
    add(&mut damaged, "kernel/bad.ko", "no module");
    assert!(matches!(apply(&mut damaged, VERSION), Err(Error::Module { .. })));
    let mut foreign = tree();
    add(&mut foreign, "kernel/foreign.ko", module(&["alias=ä"], &[], &[]));
    assert!(matches!(apply(&mut foreign, VERSION), Err(Error::NotAscii(_))));
    let mut circle = tree();
    add(&mut circle, "kernel/x.ko", module(&["depends=y"], &["x"], &["y"]));
    add(&mut circle, "kernel/y.ko", module(&["depends=x"], &["y"], &["x"]));
    assert_eq!(apply(&mut circle, VERSION), Err(Error::Cycle(vec!["x".into(), "y".into()])));
    let mut modules = Modules::open(&circle, VERSION).unwrap();
    assert!(matches!(modules.load_order(&circle, &["x"]), Err(Error::Cycle(_))));
}

#[test]
fn aliases_are_normalised_outside_brackets() {
    assert_eq!(normal_alias("a-b[0-9]-c").as_deref(), Some("a_b[0-9]_c"));
    assert_eq!(normal_alias("a]"), None);
    assert_eq!(normal_alias("a[0"), None);
}
