//! Tests of writer and reader together: the reader returns what the writer was given.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::content::{CLUSTER, Content, Form, Packing, SMALL};
use crate::path::TreePath;
use crate::tree::{Kind, Node, Origin, Tree};

const PACKINGS: [Packing; 2] = [Packing::Raw, Packing::Zstd(3)];

fn origin() -> Origin {
    Origin::fix_up("test")
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn options(packing: Packing) -> Options {
    Options { uuid: [7; 16], mtime: 1_700_000_000, label: Label::new("root").unwrap(), packing }
}

fn write(tree: &Tree, packing: Packing) -> Vec<u8> {
    let image = Image::new(tree, &options(packing)).unwrap();
    let mut out = Vec::new();
    image
        .write_to(|bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
    assert_eq!(out.len() as u64, image.size());
    assert_eq!(out.len() % 4096, 0);
    out
}

fn read(image: &[u8]) -> Tree {
    Reader::new(image).unwrap().tree(&origin(), u64::MAX).unwrap()
}

/// One line per path with everything that the file system records; hard links name the first path of their file.
fn dump(tree: &Tree) -> Vec<String> {
    let mut first: BTreeMap<TreePath, TreePath> = BTreeMap::new();
    tree.iter()
        .map(|(path, node)| {
            let mut end = path.clone();
            while let Some(Node { kind: Kind::HardLink(target), .. }) = tree.get(&end) {
                end = target.clone();
            }
            let node = if end == *path { node } else { tree.get(&end).unwrap() };
            let kind = match &node.kind {
                Kind::File(content) => {
                    let same = first.entry(end).or_insert_with(|| path.clone());
                    let bytes = content.read().unwrap();
                    assert_eq!(crate::content::Sha256Digest::of(&bytes), content.sha256());
                    format!("file {} {} as {same}", bytes.len(), content.sha256())
                }
                other => format!("{other:?}"),
            };
            format!("{path} {:o} {}:{} {:?} {kind}", node.mode, node.uid, node.gid, node.xattrs)
        })
        .collect()
}

fn assert_reads_back(tree: &Tree) {
    for packing in PACKINGS {
        let image = write(tree, packing);
        assert_eq!(dump(&read(&image)), dump(tree), "{packing:?}");
    }
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    // Compressible or not, depending on the seed, which recurs throughout.
    let mut state = u64::from(seed) + 1;
    (0..len)
        .map(|index| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if seed.is_multiple_of(3) {
                (state >> 33) as u8
            } else {
                b"every good boy does fine "[index % 25] ^ seed & 7
            }
        })
        .collect()
}

fn file(len: usize, seed: u8, packing: Packing) -> Node {
    Node::file(0o644, Content::pack(&bytes(len, seed), packing), origin())
}

const SIZES: [usize; 18] = [
    0,
    1,
    31,
    32,
    33,
    4031,
    4032,
    4033,
    4095,
    4096,
    4097,
    8192,
    SMALL - 1,
    SMALL,
    CLUSTER - 1,
    CLUSTER,
    CLUSTER + 1,
    2 * CLUSTER + 4097,
];

#[test]
fn files_of_every_boundary_size_read_back() {
    for packing in PACKINGS {
        let mut tree = Tree::new(origin());
        for (index, &len) in SIZES.iter().enumerate() {
            for seed in 0..3 {
                let node = file(len, seed + 3 * index as u8, packing).owned_by(u32::from(seed) * 40_000, 5);
                tree.insert(path(&format!("d/{len}-{seed}")), node).unwrap();
            }
        }
        assert_reads_back(&tree);
    }
}

#[test]
fn all_kinds_of_nodes_read_back() {
    let mut tree = Tree::new(origin());
    let mut put = |name: &str, node: Node| tree.insert(path(name), node).unwrap();
    let with = |kind| Node { kind, ..Node::directory(0o600, origin()) };
    put("dev/null", with(Kind::CharDevice { major: 1, minor: 3 }));
    put("dev/disk", with(Kind::BlockDevice { major: 259, minor: 70_000 }));
    put("dev/pipe", with(Kind::Fifo).owned_by(70_000, 1));
    put("bin/tool", file(5000, 1, Packing::Raw));
    put("bin/alias", with(Kind::HardLink(path("bin/tool"))));
    put("a/first", with(Kind::HardLink(path("bin/alias"))));
    for len in [1, 63, 64, 4000, 4032, 4033, 4095] {
        put(&format!("link/{len}"), Node::symlink(&"t".repeat(len), origin()));
    }
    for (name, len) in [("none", 0), ("small", 20), ("large", 5000), ("huge", 65535)] {
        let mut node = file(3000, 2, Packing::Raw);
        node.xattrs.insert("security.capability".into(), vec![1; 20].into());
        node.xattrs.insert("user.x".into(), vec![len as u8; len].into());
        node.xattrs.insert("system.posix_acl_access".into(), vec![9; 28].into());
        put(&format!("x/{name}"), node);
    }
    let mut node = Node::directory(0o1777, origin());
    node.xattrs.insert("trusted.overlay.opaque".into(), (*b"y").into());
    put("x/dir", node);
    assert_reads_back(&tree);
    let image = write(&tree, Packing::Raw);
    let nodes = Reader::new(&image).unwrap().walk().unwrap();
    assert_eq!(nodes[&path("bin/tool")].nlink, 3);
    assert_eq!(nodes[&path("a/first")].nid, nodes[&path("bin/tool")].nid);
    assert_eq!(nodes[&TreePath::root()].nlink, 2 + 5);
    assert_eq!(nodes[&path("dev")].nlink, 2);
}

#[test]
fn directories_of_many_blocks_and_odd_names_read_back() {
    let mut tree = Tree::new(origin());
    for index in 0..3000 {
        let name = format!("many/{index:04}{}", "n".repeat(index % 250));
        tree.insert(path(&name), file(index % 70, index as u8, Packing::Raw)).unwrap();
    }
    for name in ["!", "+x", "-", ".a", "..a", "...", "ü", "~", "a b", &"x".repeat(255)] {
        tree.insert(path(&format!("odd/{name}")), file(3, 1, Packing::Raw)).unwrap();
    }
    let deep = vec!["d"; 1000].join("/");
    tree.insert(path(&deep), Node::directory(0o700, origin())).unwrap();
    assert_reads_back(&tree);
}

#[test]
fn equal_files_share_their_data() {
    for packing in PACKINGS {
        let sizes = |copies: usize| {
            let mut tree = Tree::new(origin());
            for copy in 0..copies {
                for (index, len) in [20_000, SMALL + 20_000, 3 * CLUSTER].into_iter().enumerate() {
                    for seed in [0, 1] {
                        let node = file(len, seed + 3 * index as u8, packing);
                        tree.insert(path(&format!("{copy}/{len}-{seed}")), node).unwrap();
                    }
                }
            }
            assert_reads_back(&tree);
            write(&tree, packing).len()
        };
        let (one, four) = (sizes(1), sizes(4));
        assert!(four < one + 3 * 6 * 4096, "{packing:?}: {one} and {four}");
    }
}

#[test]
fn equal_files_compressed_differently_read_back() {
    let mut tree = Tree::new(origin());
    for (index, packing) in
        [Packing::Zstd(19), Packing::Raw, Packing::Zstd(1), Packing::Zstd(19)].into_iter().enumerate()
    {
        tree.insert(path(&index.to_string()), file(3 * CLUSTER + 5, 1, packing)).unwrap();
    }
    assert_reads_back(&tree);
}

#[test]
fn one_tree_gives_one_image_with_any_number_of_threads() {
    let mut tree = Tree::new(origin());
    for index in 0..200 {
        let node = file(SIZES[index % SIZES.len()], index as u8, Packing::Zstd(3));
        tree.insert(path(&format!("{}/{index}", index % 7)), node).unwrap();
    }
    for packing in PACKINGS {
        let images: Vec<Vec<u8>> = [1, 2, 7]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| write(&tree, packing))
            })
            .collect();
        assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// A changed pin changes every user's image: say why in the commit.
#[test]
fn the_image_of_a_small_tree_is_pinned() {
    let digest = |packing| crate::content::Sha256Digest::of(&write(&sample(), packing)).to_string();
    assert_eq!(digest(Packing::Raw), "d07265d1a2356f83c8e51301412f9550a506425066da2197632ec0880e50320e");
    assert_eq!(digest(Packing::Zstd(3)), "b813405ff6f680eab44d6ce37beab4d78f87605219d06cde2ad9c318e17063f4");
}

#[test]
fn exactly_the_used_features_are_declared() {
    let incompat = |image: &[u8]| u32::from_le_bytes(image[1024 + 80..1024 + 84].try_into().unwrap());
    let mut tree = Tree::new(origin());
    tree.insert(path("tiny"), file(3, 1, Packing::Raw)).unwrap();
    assert_eq!(incompat(&write(&tree, Packing::Zstd(3))), 0);
    tree.insert(path("large"), file(CLUSTER, 1, Packing::Zstd(3))).unwrap();
    assert_eq!(incompat(&write(&tree, Packing::Raw)), 0);
    assert_eq!(incompat(&write(&tree, Packing::Zstd(3))), 0x3);
    tree.insert(path("small"), file(100, 1, Packing::Raw)).unwrap();
    assert_eq!(incompat(&write(&tree, Packing::Zstd(3))), 0x23);
}

#[test]
fn a_tree_that_erofs_cannot_hold_is_refused() {
    let refused = |name: &str, node: Node| {
        let mut tree = Tree::new(origin());
        tree.insert(path(name), node).unwrap();
        Image::new(&tree, &options(Packing::Raw)).unwrap_err().to_string()
    };
    let with = |kind| Node { kind, ..Node::directory(0o600, origin()) };
    assert!(
        refused("l", with(Kind::HardLink(path("none")))).contains("points to /none, which is not a regular")
    );
    assert!(refused("l", with(Kind::HardLink(path("l")))).contains("points to /l, which is not a regular"));
    assert!(refused("l", with(Kind::HardLink(TreePath::root()))).contains("not a regular"));
    assert!(refused("s", with(Kind::Symlink("".into()))).contains("has 0 bytes"));
    assert!(refused("s", with(Kind::Symlink("x".repeat(4096).into()))).contains("has 4096 bytes"));
    assert!(refused("d", with(Kind::CharDevice { major: 4096, minor: 0 })).contains("4096:0 of /d"));
    assert!(refused("d", with(Kind::BlockDevice { major: 0, minor: 1 << 20 })).contains("does not fit"));
    let xattr = |name: &str, len: usize| {
        let mut node = file(1, 1, Packing::Raw);
        node.xattrs.insert(name.into(), vec![0; len].into());
        refused("f", node)
    };
    assert!(xattr("nonsense", 1).contains("cannot encode"));
    assert!(xattr("user.", 1).contains("cannot encode"));
    assert!(xattr("system.posix_acl_access.x", 1).contains("cannot encode"));
    assert!(xattr(&format!("user.{}", "x".repeat(256)), 1).contains("255 bytes"));
    assert!(xattr("user.x", 65536).contains("65535 bytes"));
    let mut node = file(1, 1, Packing::Raw);
    for index in 0..5 {
        node.xattrs.insert(format!("user.{index}").into(), vec![0; 60_000].into());
    }
    assert!(refused("f", node).contains("total size"));
    let mut tree = Tree::new(origin());
    tree.edit(&TreePath::root()).unwrap().kind = Kind::Fifo;
    assert!(matches!(Image::new(&tree, &options(Packing::Raw)), Err(WriteError::Root)));
    let mut tree = Tree::new(origin());
    tree.insert(path("a/b"), file(1, 1, Packing::Raw)).unwrap();
    tree.edit(&path("a")).unwrap().kind = Kind::Fifo;
    assert!(matches!(Image::new(&tree, &options(Packing::Raw)), Err(WriteError::Orphan(_))));
}

#[test]
fn a_damaged_file_or_a_full_sink_stops_the_writer() {
    let mut tree = Tree::new(origin());
    let clusters =
        crate::content::Clusters::new(CLUSTER, crate::content::Blob::new(vec![7u8; 10]), [10u32].into());
    let content =
        Content::from_parts(crate::content::Sha256Digest([0; 32]), Form::Clusters(clusters.unwrap()));
    tree.insert(path("f"), Node::file(0o644, content, origin())).unwrap();
    let image = Image::new(&tree, &options(Packing::Raw)).unwrap();
    assert!(matches!(image.write_to(|_| Ok(())), Err(WriteError::Content(_))));
    let image = Image::new(&tree, &options(Packing::Zstd(3))).unwrap();
    let full = image.write_to(|_| Err(std::io::ErrorKind::StorageFull.into()));
    assert!(matches!(full, Err(WriteError::Sink(_))));
}

/// A small tree with every structure the reader follows.
fn sample() -> Tree {
    let mut tree = Tree::new(origin());
    tree.insert(path("a/b/c"), file(300, 1, Packing::Raw)).unwrap();
    tree.insert(path("a/clusters"), file(CLUSTER + 9000, 1, Packing::Zstd(3))).unwrap();
    tree.insert(path("a/link"), Node::symlink("b/c", origin())).unwrap();
    let link = Node { kind: Kind::HardLink(path("a/clusters")), ..Node::directory(0, origin()) };
    tree.insert(path("z"), link).unwrap();
    let mut node = file(5000, 3, Packing::Raw);
    node.xattrs.insert("user.x".into(), (*b"value").into());
    tree.insert(path("x"), node).unwrap();
    tree
}

fn attempt(image: &[u8]) -> Result<Vec<String>, ReadError> {
    Reader::new(image)?.tree(&origin(), 1 << 24).map(|tree| dump(&tree))
}

/// Corrects the checksum of the superblock, so that the checks after it are reached.
fn sign(image: &mut [u8]) {
    let sum = format::checksum(&image[1024..4096]);
    image[1028..1032].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn a_damaged_superblock_is_refused() {
    let image = write(&sample(), Packing::Zstd(3));
    let refused = |at: usize, value: u8| {
        let mut image = image.clone();
        image[1024 + at] = value;
        if at != 4 {
            sign(&mut image);
        }
        Reader::new(&image).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(0, 0).starts_with("magic number at byte 1024 of the image: expected"));
    assert!(refused(4, image[1028] ^ 1).starts_with("checksum"));
    assert!(refused(12, 9).contains("block size"));
    assert!(refused(13, 1).contains("extensions"));
    assert!(refused(80, 0x27).contains("feature 0x4"));
    assert!(refused(84, 9).contains("compression 0x1"));
    assert!(refused(90, 1).contains("directory block"));
    assert!(refused(38, 0xff).contains("the image has"));
    assert!(refused(99, 0xff).contains("inode"));
    assert!(Reader::new(&image[..4095]).unwrap_err().to_string().contains("superblock"));
    assert!(Reader::new(&image[..image.len() - 4096]).unwrap_err().to_string().contains("image has"));
}

#[test]
fn a_directory_that_contains_itself_is_refused() {
    let mut tree = Tree::new(origin());
    tree.insert(path("a/b"), Node::directory(0o755, origin())).unwrap();
    let mut image = write(&tree, Packing::Raw);
    // Entry "b" of /a becomes an entry for /a.
    let reader = Reader::new(&image).unwrap();
    let nodes = reader.walk().unwrap();
    let (a, b) = (nodes[&path("a")].nid.0, nodes[&path("a/b")].nid.0);
    let at = 4096 + a as usize * 32 + 32 + 2 * 12;
    assert_eq!(image[at..at + 8], b.to_le_bytes());
    image[at..at + 8].copy_from_slice(&a.to_le_bytes());
    assert_eq!(attempt(&image).unwrap_err(), ReadError::Again { nid: a, path: path("a/b") });
}

#[test]
fn a_size_without_data_is_refused_before_anything_is_allocated() {
    for packing in PACKINGS {
        let tree = sample();
        let image = write(&tree, packing);
        let nodes = Reader::new(&image).unwrap().walk().unwrap();
        for (path, inode) in nodes.iter().filter(|(_, inode)| inode.size > 0) {
            let mut image = image.clone();
            let at = 4096 + inode.nid.0 as usize * 32 + 8;
            image[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(attempt(&image).is_err(), "{path}");
        }
    }
}

#[test]
fn many_names_of_one_inode_cost_one_inode() {
    let mut tree = Tree::new(origin());
    let mut node = file(1, 1, Packing::Raw);
    node.xattrs.insert("user.x".into(), vec![1; 60_000].into());
    tree.insert(path("f"), node).unwrap();
    for index in 0..500 {
        let link = Node { kind: Kind::HardLink(path("f")), ..Node::directory(0, origin()) };
        tree.insert(path(&format!("l{index}")), link).unwrap();
    }
    let image = write(&tree, Packing::Raw);
    let nodes = Reader::new(&image).unwrap().walk().unwrap();
    assert!(std::sync::Arc::ptr_eq(&nodes[&path("f")], &nodes[&path("l499")]));
    assert_reads_back(&tree);
}

#[test]
fn more_than_the_limit_is_refused() {
    let image = write(&sample(), Packing::Zstd(3));
    let reader = Reader::new(&image).unwrap();
    let all = (300 + CLUSTER + 9000 + 5000 + "b/c".len()) as u64;
    assert!(reader.tree(&origin(), all).is_ok());
    assert!(matches!(reader.tree(&origin(), all - 1), Err(ReadError::Limit { .. })));
}

#[test]
fn a_wrong_number_of_links_is_refused() {
    let mut image = write(&sample(), Packing::Zstd(3));
    let nid = Reader::new(&image).unwrap().walk().unwrap()[&path("z")].nid.0 as usize;
    image[4096 + nid * 32 + 6] = 3;
    assert!(attempt(&image).unwrap_err().to_string().starts_with("number of links"));
}

#[test]
fn no_changed_byte_of_the_structures_makes_the_reader_panic() {
    for packing in PACKINGS {
        let image = write(&sample(), packing);
        for at in (1024..1160).chain((4096..4096 + 1024).step_by(3)) {
            for change in [1, 0xff] {
                let mut image = image.clone();
                image[at] ^= change;
                if at < 4096 {
                    sign(&mut image);
                }
                let _ = attempt(&image);
            }
        }
    }
}

fn nodes() -> impl Strategy<Value = Vec<(Vec<u8>, u8, u8, u8)>> {
    prop::collection::vec((prop::collection::vec(0..6u8, 1..5), 0..12u8, any::<u8>(), any::<u8>()), 0..60)
}

fn random_tree(nodes: Vec<(Vec<u8>, u8, u8, u8)>, packing: Packing) -> Tree {
    let names = ["a", "b-", "lib", ".x", "long-name-long-name-long-name", "ß"];
    let mut tree = Tree::new(origin());
    let mut files: Vec<TreePath> = Vec::new();
    for (parts, kind, size, seed) in nodes {
        let text: Vec<&str> = parts.iter().map(|&part| names[usize::from(part)]).collect();
        let path = path(&text.join("/"));
        let len = SIZES[usize::from(size) % SIZES.len()];
        let mut node = match kind {
            0 => Node::directory(u16::from(seed), origin()),
            1 => Node::symlink(&"t".repeat(1 + usize::from(size) * 16), origin()),
            2 => Node { kind: Kind::Fifo, ..Node::directory(0o600, origin()) },
            3 => {
                let kind = Kind::CharDevice { major: size.into(), minor: u32::from(seed) << 9 };
                Node { kind, ..Node::directory(0o600, origin()) }
            }
            4 if !files.is_empty() => {
                let target = files[usize::from(size) % files.len()].clone();
                Node { kind: Kind::HardLink(target), ..Node::directory(0, origin()) }
            }
            _ => file(len, seed % 5, packing),
        };
        if seed.is_multiple_of(4) {
            node.xattrs.insert("user.seed".into(), vec![seed; usize::from(size) * 20].into());
        }
        node = node.owned_by(u32::from(seed) * 300, size.into());
        let is_file = matches!(node.kind, Kind::File(_) | Kind::HardLink(_));
        if tree.insert(path.clone(), node).is_ok() && is_file {
            files.push(path);
        }
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_read_back(nodes in nodes(), zstd in any::<bool>()) {
        let packing = PACKINGS[usize::from(zstd)];
        assert_reads_back(&random_tree(nodes, packing));
    }

    #[test]
    fn random_damage_never_makes_the_reader_panic(
        damage in prop::collection::vec((any::<u16>(), any::<u8>()), 1..9),
        zstd in any::<bool>(),
    ) {
        let mut image = write(&sample(), PACKINGS[usize::from(zstd)]);
        for (at, value) in damage {
            let at = usize::from(at) % image.len();
            image[at] = value;
        }
        sign(&mut image);
        let _ = attempt(&image);
    }
}

#[test]
fn reading_a_file_needs_only_the_blocks_of_its_place() {
    for packing in PACKINGS {
        let mut tree = Tree::new(origin());
        for (index, &len) in SIZES.iter().enumerate() {
            for seed in 0..4 {
                // Some files are equal, so that they share their blocks.
                let seed = seed.min(2) + 3 * index as u8;
                tree.insert(path(&format!("{packing:?}/{len}-{index}-{seed}")), file(len, seed, packing))
                    .unwrap_or(());
                tree.insert(path(&format!("again/{len}-{seed}")), file(len, seed, packing)).unwrap_or(());
            }
        }
        let image = Image::new(&tree, &options(packing)).unwrap();
        let places = image.places();
        assert_eq!(places.len(), tree.len());
        let bytes = write(&tree, packing);
        let inodes = Reader::new(&bytes).unwrap().walk().unwrap();
        // All inodes lie before all data.
        let head = places.iter().filter(|place| !place.data.is_empty()).map(|place| place.data.start).min();
        let head = 4096 * head.unwrap() as usize;
        for ((path, node), place) in tree.iter().zip(places) {
            let inode = &inodes[path];
            assert!(place.inode.contains(&(1 + (inode.nid.0 * 32 / 4096) as u32)), "{path}");
            let Some(content) = node.content() else { continue };
            let mut masked = vec![0; bytes.len()];
            masked[..head].copy_from_slice(&bytes[..head]);
            let data = 4096 * place.data.start as usize..4096 * place.data.end as usize;
            masked[data.clone()].copy_from_slice(&bytes[data]);
            // The reader looks at the packed inode's index only, which lies before all data.
            let found = Reader::new(&masked).unwrap().read(inode, u64::MAX).unwrap().into_owned();
            assert!(found == content.read().unwrap().into_owned(), "{path} in {place:?}");
        }
    }
}
