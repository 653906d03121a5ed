//! Yields what one archive adds to an image: its entries, in the order in which it names them.
//!
//! # Shape
//! The cache keeps it between builds as one file, all numbers little-endian:
//! ```text
//! "PFMLAYR1" | u32 CRC-32C of the rest | u64 length of the index | index (JSON) | frames and raw bytes, end to end
//! ```
//! The checksum detects accidents only: a cache is as trustworthy as its folder.
//!
//! # Not here
//! Reading an archive (`deb`, `npm`), merging layers (`merge`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::content::{Blob, Clusters, Content, Form, Sha256Digest};
use crate::omit::{Omitted, Tally};
use crate::path::TreePath;
use crate::tree::{Kind, Node, Origin};

const MAGIC: &[u8; 8] = b"PFMLAYR1";
const HEADER: usize = 8 + 4 + 8;

/// The entries of one archive.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Path and node, in the order of the archive.
    pub entries: Vec<(TreePath, Node)>,
    /// Texts of the archive that stay out of the image, by name, such as a package's `control`.
    pub notes: BTreeMap<String, String>,
    /// What each omit rule left out, in the order of the rules.
    pub omitted: Tally,
}

/// Why bytes are not a cached layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a layer of this version, or damaged: {0}")]
pub struct Damaged(&'static str);

#[derive(Serialize, Deserialize)]
struct Index<'a> {
    notes: BTreeMap<String, String>,
    omitted: Vec<(u64, u64)>,
    #[serde(borrow)]
    rows: Vec<Row<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    p: Cow<'a, str>,
    m: u16,
    u: u32,
    g: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    x: BTreeMap<Box<str>, String>,
    k: KindRow,
}

#[derive(Serialize, Deserialize)]
enum KindRow {
    D,
    /// Length of the file, digest, offset and length of the bytes, ends of its frames (none: raw).
    F(u64, String, u64, u64, Vec<u32>),
    S(String),
    L(String),
    C(u32, u32),
    B(u32, u32),
    P,
}

impl Layer {
    /// Encodes the layer as a cache file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut data: Vec<u8> = Vec::new();
        let rows: Vec<Row<'_>> = self
            .entries
            .iter()
            .map(|(path, node)| {
                let k = match &node.kind {
                    Kind::Directory => KindRow::D,
                    Kind::File(content) => {
                        let (bytes, ends) = match content.form() {
                            Form::Raw(blob) => (&**blob, &[][..]),
                            Form::Clusters(clusters) => (&**clusters.frames_blob(), clusters.ends()),
                        };
                        let start = data.len() as u64;
                        data.extend_from_slice(bytes);
                        let digest = content.sha256().to_string();
                        KindRow::F(content.len(), digest, start, bytes.len() as u64, ends.to_vec())
                    }
                    Kind::Symlink(target) => KindRow::S(target.to_string()),
                    Kind::HardLink(target) => KindRow::L(target.as_str().to_owned()),
                    Kind::CharDevice { major, minor } => KindRow::C(*major, *minor),
                    Kind::BlockDevice { major, minor } => KindRow::B(*major, *minor),
                    Kind::Fifo => KindRow::P,
                };
                let x = node.xattrs.iter().map(|(name, value)| (name.clone(), hex::encode(value))).collect();
                Row { p: path.as_str().into(), m: node.mode, u: node.uid, g: node.gid, x, k }
            })
            .collect();
        // Rows hold nothing that JSON cannot: strings, integers, lists.
        let omitted = self.omitted.by_rule().iter().map(|omitted| (omitted.files, omitted.bytes)).collect();
        let index = Index { notes: self.notes.clone(), omitted, rows };
        let index = serde_json::to_vec(&index).unwrap_or_default();
        let mut out = Vec::with_capacity(HEADER + index.len() + data.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(index.len() as u64).to_le_bytes());
        out.extend_from_slice(&index);
        out.extend_from_slice(&data);
        let sum = crc32c::crc32c(out.get(12..).unwrap_or(&[]));
        if let Some(place) = out.get_mut(8..12) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        out
    }

    /// Reads a file that [`Layer::to_bytes`] wrote; the contents share `file`.
    ///
    /// # Errors
    /// [`Damaged`]: unpack the archive again.
    pub fn from_blob(file: &Blob, origin: &Origin) -> Result<Layer, Damaged> {
        let header = file.first_chunk::<HEADER>().ok_or(Damaged("too short"))?;
        let [m0, m1, m2, m3, m4, m5, m6, m7, c0, c1, c2, c3, index @ ..] = *header;
        if [m0, m1, m2, m3, m4, m5, m6, m7] != *MAGIC {
            return Err(Damaged("magic"));
        }
        if crc32c::crc32c(file.get(12..).unwrap_or(&[])) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(Damaged("checksum"));
        }
        let length = usize::try_from(u64::from_le_bytes(index)).map_err(|_| Damaged("index length"))?;
        let start = HEADER.checked_add(length).ok_or(Damaged("index length"))?;
        let index = file.get(HEADER..start).ok_or(Damaged("index length"))?;
        let index: Index<'_> = serde_json::from_slice(index).map_err(|_| Damaged("index"))?;
        let data = file.slice(start..file.len()).ok_or(Damaged("data"))?;
        let path = |text: &str| TreePath::new(text).map_err(|_| Damaged("path"));
        let mut entries = Vec::with_capacity(index.rows.len());
        for row in index.rows {
            let kind = match row.k {
                KindRow::D => Kind::Directory,
                KindRow::F(len, digest, start, bytes, ends) => {
                    let sha256 = Sha256Digest::parse(&digest).ok_or(Damaged("digest"))?;
                    let end = start.checked_add(bytes).ok_or(Damaged("range"))?;
                    let blob = data.slice(start as usize..end as usize).ok_or(Damaged("range"))?;
                    let form = if ends.is_empty() {
                        Form::Raw(blob)
                    } else {
                        let clusters = Clusters::new(len as usize, blob, Arc::from(ends));
                        Form::Clusters(clusters.map_err(|_| Damaged("clusters"))?)
                    };
                    Kind::File(Content::from_parts(sha256, form))
                }
                KindRow::S(target) => Kind::Symlink(target.into()),
                KindRow::L(target) => Kind::HardLink(path(&target)?),
                KindRow::C(major, minor) => Kind::CharDevice { major, minor },
                KindRow::B(major, minor) => Kind::BlockDevice { major, minor },
                KindRow::P => Kind::Fifo,
            };
            let mut xattrs = BTreeMap::new();
            for (name, value) in row.x {
                xattrs.insert(name, hex::decode(value).map_err(|_| Damaged("attribute"))?.into());
            }
            let node = Node { mode: row.m, uid: row.u, gid: row.g, xattrs, kind, origin: origin.clone() };
            entries.push((path(&row.p)?, node));
        }
        let omitted = index.omitted.into_iter().map(|(files, bytes)| Omitted { files, bytes }).collect();
        let omitted = Tally::from_rules(omitted);
        Ok(Layer { entries, notes: index.notes, omitted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Packing;

    fn layer() -> Layer {
        let origin = Origin::debian("x", "1");
        let content = Content::pack(&[b'a'; 300_000], Packing::Zstd(3));
        let path = |text| TreePath::new(text).unwrap();
        let mut attributed = Node::file(0o4755, Content::raw("b"), origin.clone()).owned_by(3, 4);
        attributed.xattrs.insert("security.capability".into(), vec![0, 255].into());
        let kinds = |kind| Node { kind, ..attributed.clone() };
        Layer {
            entries: vec![
                (path("d"), Node::directory(0o700, origin.clone())),
                (path("d/big"), Node::file(0o644, content, origin.clone())),
                (path("d/sm\\x2dall\""), attributed.clone()),
                (path("d/link"), Node::symlink("../x", origin.clone())),
                (path("d/hard"), kinds(Kind::HardLink(path("d/big")))),
                (path("d/c"), kinds(Kind::CharDevice { major: 1, minor: 3 })),
                (path("d/b"), kinds(Kind::BlockDevice { major: 8, minor: 1 })),
                (path("d/p"), kinds(Kind::Fifo)),
            ],
            notes: BTreeMap::from([("control".to_owned(), "Package: x\n".to_owned())]),
            omitted: {
                let mut omitted = Tally::new(2);
                omitted.count(1, 7);
                omitted
            },
        }
    }

    #[test]
    fn a_kept_layer_reads_back_as_it_was() {
        let bytes = layer().to_bytes();
        let read = Layer::from_blob(&Blob::new(bytes.clone()), &Origin::debian("x", "1")).unwrap();
        assert_eq!(format!("{:?}", read), format!("{:?}", layer()));
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(*read.entries[1].1.content().unwrap().read().unwrap(), [b'a'; 300_000]);
    }

    #[test]
    fn a_damaged_layer_is_refused_wherever_the_damage_is() {
        let bytes = layer().to_bytes();
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Layer::from_blob(&Blob::new(damaged), &Origin::fix_up("x")).is_err(), "byte {at}");
            let short = Blob::new(bytes[..at].to_vec());
            assert!(Layer::from_blob(&short, &Origin::fix_up("x")).is_err(), "cut at {at}");
        }
    }
}
