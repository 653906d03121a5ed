//! Yields the fixed structures of EROFS as bytes, and back; no policy, no placement.
//!
//! # Shape
//! All integers are little-endian. One struct here is one struct of the specification.
//!
//! # Source
//! Linux `fs/erofs/erofs_fs.h`, 6.12; the names are the ones there.
//!
//! # Not here
//! Where a structure lies: `writer`. Whether what was read makes sense: `reader`.

/// Bytes of a block, and its logarithm.
pub(super) const BLOCK: usize = 4096;
pub(super) const BLOCK_BITS: u8 = 12;

/// `EROFS_SUPER_OFFSET`.
pub(super) const SUPER_OFFSET: usize = 1024;
/// `EROFS_SUPER_MAGIC_V1` (`include/uapi/linux/magic.h`).
pub(super) const SUPER_MAGIC: u32 = 0xe0f5_e1e2;
/// Bytes of `struct erofs_super_block`.
pub(super) const SUPER_SIZE: usize = 128;

/// `EROFS_FEATURE_COMPAT_SB_CHKSUM`.
pub(super) const COMPAT_SB_CHKSUM: u32 = 0x1;
/// `EROFS_FEATURE_COMPAT_MTIME`.
pub(super) const COMPAT_MTIME: u32 = 0x2;

/// `EROFS_FEATURE_INCOMPAT_ZERO_PADDING`.
pub(super) const INCOMPAT_ZERO_PADDING: u32 = 0x1;
/// `EROFS_FEATURE_INCOMPAT_COMPR_CFGS`, which is `…_BIG_PCLUSTER` too.
pub(super) const INCOMPAT_COMPR_CFGS: u32 = 0x2;
/// `EROFS_FEATURE_INCOMPAT_FRAGMENTS`, which is `…_DEDUPE` too.
pub(super) const INCOMPAT_FRAGMENTS: u32 = 0x20;
/// The features that the writer uses and the reader knows.
pub(super) const INCOMPAT_KNOWN: u32 = INCOMPAT_ZERO_PADDING | INCOMPAT_COMPR_CFGS | INCOMPAT_FRAGMENTS;

/// Bytes of an inode slot, the unit of node numbers.
pub(super) const SLOT: usize = 32;
/// Bytes of `struct erofs_inode_compact` and `…_extended`.
pub(super) const COMPACT_SIZE: usize = 32;
pub(super) const EXTENDED_SIZE: usize = 64;

/// `EROFS_INODE_FLAT_PLAIN`: data in whole blocks.
pub(super) const FLAT_PLAIN: u16 = 0;
/// `EROFS_INODE_COMPRESSED_FULL`: data in physical clusters, 8 bytes of index a logical cluster.
pub(super) const COMPRESSED_FULL: u16 = 1;
/// `EROFS_INODE_FLAT_INLINE`: data in whole blocks, the rest after the inode.
pub(super) const FLAT_INLINE: u16 = 2;

/// `Z_EROFS_COMPRESSION_ZSTD`.
pub(super) const COMPRESSION_ZSTD: u8 = 3;
/// `Z_EROFS_ADVISE_BIG_PCLUSTER_1`.
pub(super) const ADVISE_BIG_PCLUSTER_1: u16 = 0x2;
/// `Z_EROFS_FRAGMENT_INODE_BIT`, as a bit of the 64-bit map header.
pub(super) const FRAGMENT_INODE: u64 = 1 << 63;
/// `Z_EROFS_LI_D0_CBLKCNT`.
pub(super) const D0_CBLKCNT: u16 = 1 << 11;
/// `Z_EROFS_PCLUSTER_MAX_DSIZE`.
pub(super) const PCLUSTER_MAX_DSIZE: usize = 12 * 1024 * 1024;
/// `Z_EROFS_LCLUSTER_TYPE_PLAIN`, `…_HEAD1`, `…_NONHEAD`.
pub(super) const LCLUSTER_PLAIN: u16 = 0;
pub(super) const LCLUSTER_HEAD1: u16 = 1;
pub(super) const LCLUSTER_NONHEAD: u16 = 2;
/// Bytes of `struct z_erofs_map_header`, and of one lcluster index.
pub(super) const MAP_HEADER_SIZE: usize = 8;
pub(super) const INDEX_SIZE: usize = 8;

/// Bytes of `struct erofs_dirent`.
pub(super) const DIRENT_SIZE: usize = 12;
/// `EROFS_NAME_LEN`.
pub(super) const NAME_LEN: usize = 255;

/// Bytes of `struct erofs_xattr_ibody_header`, and of `struct erofs_xattr_entry`.
pub(super) const XATTR_HEADER_SIZE: usize = 12;
pub(super) const XATTR_ENTRY_SIZE: usize = 4;
/// The prefixes that `EROFS_XATTR_INDEX_…` stand for. Two of them are whole names.
pub(super) const XATTR_PREFIXES: [(u8, &str); 5] = [
    (1, "user."),
    (2, "system.posix_acl_access"),
    (3, "system.posix_acl_default"),
    (4, "trusted."),
    (6, "security."),
];

/// `S_IFMT` and the types below it (`include/uapi/linux/stat.h`).
pub(super) const S_IFMT: u16 = 0o170_000;
pub(super) const S_IFIFO: u16 = 0o010_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;

/// A volume name: at most 16 bytes, padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Label([u8; 16]);

impl Label {
    /// Takes a name; `None` if it is longer than 16 bytes or has a NUL.
    pub fn new(name: &str) -> Option<Self> {
        let mut label = [0; 16];
        label.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (!name.contains('\0')).then_some(Label(label))
    }
}

/// Reads integers from the front of bytes; past the end it reads zeros, so the caller checks the length.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *field
    }

    pub(super) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// `struct erofs_super_block`, without the fields that are always zero here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SuperBlock {
    pub magic: u32,
    pub checksum: u32,
    pub feature_compat: u32,
    pub blkszbits: u8,
    pub sb_extslots: u8,
    pub root_nid: u16,
    pub inos: u64,
    pub build_time: u64,
    pub build_time_nsec: u32,
    pub blocks: u32,
    pub meta_blkaddr: u32,
    pub xattr_blkaddr: u32,
    pub uuid: [u8; 16],
    pub volume_name: Label,
    pub feature_incompat: u32,
    pub available_compr_algs: u16,
    pub dirblkbits: u8,
    pub packed_nid: u64,
}

impl SuperBlock {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPER_SIZE);
        out.extend(self.magic.to_le_bytes());
        out.extend(self.checksum.to_le_bytes());
        out.extend(self.feature_compat.to_le_bytes());
        out.extend([self.blkszbits, self.sb_extslots]);
        out.extend(self.root_nid.to_le_bytes());
        out.extend(self.inos.to_le_bytes());
        out.extend(self.build_time.to_le_bytes());
        out.extend(self.build_time_nsec.to_le_bytes());
        out.extend(self.blocks.to_le_bytes());
        out.extend(self.meta_blkaddr.to_le_bytes());
        out.extend(self.xattr_blkaddr.to_le_bytes());
        out.extend(self.uuid);
        out.extend(self.volume_name.0);
        out.extend(self.feature_incompat.to_le_bytes());
        out.extend(self.available_compr_algs.to_le_bytes());
        out.extend([0; 4]); // extra_devices, devt_slotoff
        out.extend([self.dirblkbits, 0]); // xattr_prefix_count
        out.extend([0; 4]); // xattr_prefix_start
        out.extend(self.packed_nid.to_le_bytes());
        out.resize(SUPER_SIZE, 0);
        out
    }

    pub(super) fn from_bytes(bytes: &[u8; SUPER_SIZE]) -> Self {
        let mut fields = Fields(bytes);
        SuperBlock {
            magic: fields.u32(),
            checksum: fields.u32(),
            feature_compat: fields.u32(),
            blkszbits: fields.u8(),
            sb_extslots: fields.u8(),
            root_nid: fields.u16(),
            inos: fields.u64(),
            build_time: fields.u64(),
            build_time_nsec: fields.u32(),
            blocks: fields.u32(),
            meta_blkaddr: fields.u32(),
            xattr_blkaddr: fields.u32(),
            uuid: fields.take(),
            volume_name: Label(fields.take()),
            feature_incompat: fields.u32(),
            available_compr_algs: fields.u16(),
            dirblkbits: {
                let _devices: [u8; 4] = fields.take();
                fields.u8()
            },
            packed_nid: {
                let _prefixes: [u8; 5] = fields.take();
                fields.u64()
            },
        }
    }
}

/// The checksum of the superblock: CRC-32C without the final inversion, from [`SUPER_OFFSET`] to the end of the
/// block, the checksum field being zero (`erofs_superblock_csum_verify`, `fs/erofs/super.c`).
pub(super) fn checksum(superblock_to_end_of_block: &[u8]) -> u32 {
    let mut sum = !0;
    for (range, zeroed) in [(0..4, false), (4..8, true), (8..superblock_to_end_of_block.len(), false)] {
        let part = superblock_to_end_of_block.get(range).unwrap_or(&[]);
        sum = !crc32c::crc32c_append(!sum, if zeroed { &[0; 4] } else { part });
    }
    sum
}

/// `struct z_erofs_zstd_cfgs` after its length, as it follows the superblock.
pub(super) fn zstd_cfgs(window_log: u32) -> [u8; 8] {
    // ZSTD_WINDOWLOG_ABSOLUTEMIN is 10.
    [6, 0, 0, window_log.saturating_sub(10) as u8, 0, 0, 0, 0]
}

/// `struct erofs_inode_compact` or `struct erofs_inode_extended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawInode {
    /// One of [`FLAT_PLAIN`], [`COMPRESSED_FULL`], [`FLAT_INLINE`], or something unknown.
    pub layout: u16,
    pub xattr_icount: u16,
    pub mode: u16,
    pub nlink: u32,
    pub size: u64,
    /// `i_u`: block address, compressed blocks, or device number.
    pub u: u32,
    pub ino: u32,
    pub uid: u32,
    pub gid: u32,
}

impl RawInode {
    /// Bytes of the smaller form that holds the inode; in both the time is the build time.
    pub(super) fn len(&self) -> usize {
        let compact = u16::try_from(self.nlink).is_ok()
            && u16::try_from(self.uid).is_ok()
            && u16::try_from(self.gid).is_ok()
            && u32::try_from(self.size).is_ok();
        if compact { COMPACT_SIZE } else { EXTENDED_SIZE }
    }

    pub(super) fn write(&self, mtime: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let extended = self.len() == EXTENDED_SIZE;
        out.extend((self.layout << 1 | u16::from(extended)).to_le_bytes());
        out.extend(self.xattr_icount.to_le_bytes());
        out.extend(self.mode.to_le_bytes());
        if extended {
            out.extend([0; 2]);
            out.extend(self.size.to_le_bytes());
            out.extend(self.u.to_le_bytes());
            out.extend(self.ino.to_le_bytes());
            out.extend(self.uid.to_le_bytes());
            out.extend(self.gid.to_le_bytes());
            out.extend(mtime.to_le_bytes());
            out.extend([0; 4]);
            out.extend(self.nlink.to_le_bytes());
            out.resize(start + EXTENDED_SIZE, 0);
        } else {
            out.extend((self.nlink as u16).to_le_bytes());
            out.extend((self.size as u32).to_le_bytes());
            out.extend([0; 4]);
            out.extend(self.u.to_le_bytes());
            out.extend(self.ino.to_le_bytes());
            out.extend((self.uid as u16).to_le_bytes());
            out.extend((self.gid as u16).to_le_bytes());
            out.resize(start + COMPACT_SIZE, 0);
        }
    }

    /// Whether the format of an inode that starts with these two bytes is the extended one.
    pub(super) fn is_extended(format: u16) -> bool {
        format & 1 != 0
    }

    /// Reads the form that the first two bytes name; returns the modification time of an extended one.
    pub(super) fn read(bytes: &[u8]) -> (Self, Option<u64>) {
        let mut fields = Fields(bytes);
        let format = fields.u16();
        let (xattr_icount, mode) = (fields.u16(), fields.u16());
        let layout = format >> 1;
        if Self::is_extended(format) {
            let _reserved = fields.u16();
            let (size, u, ino) = (fields.u64(), fields.u32(), fields.u32());
            let (uid, gid, mtime) = (fields.u32(), fields.u32(), fields.u64());
            let _nanoseconds = fields.u32();
            let nlink = fields.u32();
            (RawInode { layout, xattr_icount, mode, nlink, size, u, ino, uid, gid }, Some(mtime))
        } else {
            let (nlink, size) = (fields.u16().into(), fields.u32().into());
            let _reserved = fields.u32();
            let (u, ino) = (fields.u32(), fields.u32());
            let (uid, gid) = (fields.u16().into(), fields.u16().into());
            (RawInode { layout, xattr_icount, mode, nlink, size, u, ino, uid, gid }, None)
        }
    }
}

/// One `struct z_erofs_lcluster_index` of an extent that starts where a logical cluster does.
pub(super) fn lcluster(kind: u16, u: u32) -> [u8; INDEX_SIZE] {
    (u64::from(kind) | u64::from(u) << 32).to_le_bytes()
}

/// The `di_u` of a NONHEAD logical cluster: its distance from its head (in the first one, the blocks of the physical
/// cluster instead), and its distance from the next head.
pub(super) fn deltas(back: u16, ahead: u16) -> u32 {
    u32::from(back) | u32::from(ahead) << 16
}

/// Linux `new_encode_dev` (`include/linux/kdev_t.h`); `None` for numbers too large for it.
pub(super) fn encode_dev(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20).then_some((minor & 0xff) | major << 8 | (minor & !0xff) << 12)
}

/// Linux `new_decode_dev`.
pub(super) fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev & 0xfff00) >> 8, (dev & 0xff) | (dev >> 12 & 0xfff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_specification_and_read_back() {
        let superblock = SuperBlock {
            magic: SUPER_MAGIC,
            checksum: 1,
            feature_compat: 2,
            blkszbits: 3,
            sb_extslots: 4,
            root_nid: 5,
            inos: 6,
            build_time: 7,
            build_time_nsec: 8,
            blocks: 9,
            meta_blkaddr: 10,
            xattr_blkaddr: 11,
            uuid: [12; 16],
            volume_name: Label::new("root").unwrap(),
            feature_incompat: 13,
            available_compr_algs: 14,
            dirblkbits: 15,
            packed_nid: 16,
        };
        let bytes: [u8; SUPER_SIZE] = superblock.to_bytes().try_into().unwrap();
        assert_eq!(SuperBlock::from_bytes(&bytes), superblock);
        let compact = RawInode {
            layout: 2,
            xattr_icount: 3,
            mode: 4,
            nlink: 5,
            size: 6,
            u: 7,
            ino: 8,
            uid: 9,
            gid: 10,
        };
        for (inode, len, time) in [
            (compact, 32, None),
            (RawInode { uid: 65536, ..compact }, 64, Some(99)),
            (RawInode { gid: 65536, ..compact }, 64, Some(99)),
            (RawInode { nlink: 65536, ..compact }, 64, Some(99)),
            (RawInode { size: 1 << 32, ..compact }, 64, Some(99)),
        ] {
            let mut bytes = Vec::new();
            inode.write(99, &mut bytes);
            assert_eq!(bytes.len(), len);
            assert_eq!(inode.len(), len);
            assert_eq!(RawInode::read(&bytes), (inode, time));
        }
    }

    #[test]
    fn device_numbers_read_back_and_too_large_ones_are_refused() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (259, 256), (4095, (1 << 20) - 1)] {
            assert_eq!(decode_dev(encode_dev(major, minor).unwrap()), (major, minor));
        }
        assert_eq!(encode_dev(4096, 0), None);
        assert_eq!(encode_dev(0, 1 << 20), None);
    }

    #[test]
    fn a_label_of_more_than_16_bytes_is_refused() {
        assert!(Label::new("0123456789abcdef").is_some());
        assert!(Label::new("0123456789abcdefg").is_none());
        assert!(Label::new("a\0b").is_none());
    }
}
