//! Yields the partition table of a disk and the places of its partitions, from their sizes.
//!
//! # Shape
//!
//! ```text
//! LBA 0          protective MBR                                    LBA = 512 bytes
//! LBA 1          header (92 bytes): disk GUID, first and last usable LBA, CRC of the entries
//! LBA 2..=33     128 entries of 128 bytes
//! 1 MiB          partitions, each from a multiple of 1 MiB, in the order given
//! last 33 LBA    entries, then the header again
//! ```
//!
//! Writing takes two steps, since partitions are far larger than tables: [`Layout::new`] says where
//! everything goes, then the caller streams partitions to their offsets and puts [`Layout::head`] and
//! [`Layout::tail`] at the ends. The firmware measures the table (PCR 5, RTMR1), so it never changes after
//! the build.
//!
//! # Source
//!
//! UEFI 2.10 §5.2.3 (protective MBR), §5.3 (GPT); *Discoverable Partitions Specification* (types, attributes).
//! `sgdisk -v`, `sfdisk --verify` and OVMF 2025.02 accept it.
//!
//! The `gpt` crate does not write the table: it wants the whole disk as a seekable device, draws random GUIDs
//! before it takes ours and has no verity type.
//!
//! # Not here
//!
//! What the partitions hold, sparse files (`pipeline`), disks with sectors of 4 KiB, resizing.

use std::fmt;

use uuid::Uuid;

/// Bytes of a logical block.
pub const SECTOR: u64 = 512;
/// Alignment of partitions and of the disk's size.
pub const ALIGNMENT: u64 = 1 << 20;
/// Length of [`Layout::head`].
pub const HEAD: usize = 34 * SECTOR as usize;
/// Length of [`Layout::tail`].
pub const TAIL: usize = 33 * SECTOR as usize;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const HEADER: usize = 92;
const ENTRY: usize = 128;
/// The entries that we write, and the most that we read: the 16 KiB that every partitioner reserves.
const ENTRIES: usize = 128;
const ENTRIES_SIZE: usize = ENTRY * ENTRIES;
const FIRST_USABLE: Lba = Lba(34);
/// UTF-16 units of a partition's name.
const NAME: usize = 36;
/// Attribute bit 60: mount read-only.
const READ_ONLY: u64 = 1 << 60;
/// Attribute bit 63: do not mount automatically.
const NO_AUTO: u64 = 1 << 63;

/// A logical block address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lba(pub u64);

impl Lba {
    /// Its offset in bytes.
    pub fn offset(self) -> u64 {
        self.0.saturating_mul(SECTOR)
    }
}

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LBA {}", self.0)
    }
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The EFI system partition.
    Esp,
    /// The root filesystem (x86-64).
    Root,
    /// The dm-verity hash tree of the root filesystem (x86-64).
    RootVerity,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::Esp, Kind::Root, Kind::RootVerity];

    /// Its type GUID in the Discoverable Partitions Specification.
    pub const fn type_guid(self) -> Uuid {
        match self {
            Kind::Esp => Uuid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b),
            Kind::Root => Uuid::from_u128(0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709),
            Kind::RootVerity => Uuid::from_u128(0x2c7357ed_ebd2_46d9_aec1_23d437ec2bf5),
        }
    }

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Esp => "esp",
            Kind::Root => "root-x86-64",
            Kind::RootVerity => "root-x86-64-verity",
        }
    }

    /// Its attribute flags: root and hash tree are read-only; the running system does not mount the ESP.
    pub const fn attributes(self) -> u64 {
        match self {
            Kind::Esp => NO_AUTO,
            Kind::Root | Kind::RootVerity => READ_ONLY,
        }
    }
}

/// What a GUID is derived for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The disk.
    Disk,
    /// A partition of the disk.
    Partition(Kind),
    /// The filesystem in the root partition.
    Filesystem,
    /// The superblock of the hash tree.
    HashTree,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Role::Disk => "disk",
            Role::Partition(Kind::Esp) => "partition esp",
            Role::Partition(Kind::Root) => "partition root",
            Role::Partition(Kind::RootVerity) => "partition root-verity",
            Role::Filesystem => "filesystem",
            Role::HashTree => "hash tree",
        }
    }
}

/// The namespace of all derived GUIDs: the UUIDv5 of this URL.
const NAMESPACE_URL: &[u8] = b"https://github.com/proofmark/proofmark";

/// Derives the GUID of a role from the recipe's digest (UUIDv5 over digest and role).
pub fn guid(recipe: &[u8; 32], role: Role) -> Uuid {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, NAMESPACE_URL);
    Uuid::new_v5(&namespace, &[recipe.as_slice(), role.name().as_bytes()].concat())
}

/// Derives the ESP's FAT serial number from the recipe's digest: the first field of the partition's GUID.
pub fn volume_id(recipe: &[u8; 32]) -> u32 {
    guid(recipe, Role::Partition(Kind::Esp)).as_fields().0
}

/// A partition to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is for; determines type, name and attributes.
    pub kind: Kind,
    /// Its own GUID.
    pub guid: Uuid,
    /// Its size in bytes, at least 1; rounded up to whole sectors.
    pub bytes: u64,
}

/// A partition and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: Partition,
    /// Its first block.
    pub first: Lba,
    /// Its last block.
    pub last: Lba,
}

/// Why partitions could not be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are more partitions than the table holds.
    #[error("{found} partitions, expected at most {expected}", expected = ENTRIES)]
    Count {
        /// How many were given.
        found: usize,
    },
    /// A partition has no bytes.
    #[error("partition {name} is empty", name = kind.name())]
    Empty {
        /// Which one.
        kind: Kind,
    },
    /// A GUID is nil or used twice.
    #[error("GUID {found} of {name} is nil or used already")]
    Guid {
        /// What it is for.
        name: &'static str,
        /// The GUID.
        found: Uuid,
    },
    /// The disk would exceed 2^64 bytes.
    #[error("partition {name} ends beyond the largest disk", name = kind.name())]
    TooLarge {
        /// Which one.
        kind: Kind,
    },
}

/// Where everything on a disk goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    disk: Uuid,
    partitions: Vec<Placed>,
    /// Blocks of the whole disk.
    blocks: u64,
}

impl Layout {
    /// Places `partitions` in the order given.
    ///
    /// # Errors
    ///
    /// Too many or too large partitions, an empty one, a GUID that is nil or used twice.
    pub fn new(disk: Uuid, partitions: &[Partition]) -> Result<Self, Error> {
        if partitions.len() > ENTRIES {
            return Err(Error::Count { found: partitions.len() });
        }
        if disk.is_nil() {
            return Err(Error::Guid { name: "disk", found: disk });
        }
        let mut guids = vec![disk];
        let mut end = ALIGNMENT;
        let mut placed = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            let Partition { kind, guid, bytes } = partition;
            if guid.is_nil() || guids.contains(&guid) {
                return Err(Error::Guid { name: kind.name(), found: guid });
            }
            guids.push(guid);
            if bytes == 0 {
                return Err(Error::Empty { kind });
            }
            let too_large = Error::TooLarge { kind };
            let start = end;
            let last_byte = start.checked_add(bytes - 1).ok_or(too_large.clone())?;
            placed.push(Placed { partition, first: Lba(start / SECTOR), last: Lba(last_byte / SECTOR) });
            end = last_byte
                .checked_add(1)
                .and_then(|end| end.checked_next_multiple_of(ALIGNMENT))
                .ok_or(too_large)?;
        }
        // The backup table takes the last MiB, so the disk's size is also a whole number of MiB.
        let last = partitions.last().map_or(Kind::Esp, |partition| partition.kind);
        let bytes = end.checked_add(ALIGNMENT).ok_or(Error::TooLarge { kind: last })?;
        Ok(Layout { disk, partitions: placed, blocks: bytes / SECTOR })
    }

    /// Grows the disk to `bytes` bytes, rounded down to whole MiB; `None` if the partitions do not fit.
    pub fn grown_to(mut self, bytes: u64) -> Option<Self> {
        let blocks = bytes / ALIGNMENT * (ALIGNMENT / SECTOR);
        if blocks < self.blocks {
            return None;
        }
        self.blocks = blocks;
        Some(self)
    }

    /// The partitions with their places, in the order given.
    pub fn partitions(&self) -> &[Placed] {
        &self.partitions
    }

    /// The disk's GUID.
    pub fn disk(&self) -> Uuid {
        self.disk
    }

    /// Bytes of the whole disk, a multiple of [`ALIGNMENT`].
    pub fn bytes(&self) -> u64 {
        self.blocks * SECTOR
    }

    /// Where [`Layout::tail`] goes, in bytes.
    pub fn tail_offset(&self) -> u64 {
        self.bytes() - TAIL as u64
    }

    /// The first 34 blocks: protective MBR, header, entries.
    pub fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let entries = self.entries();
        put(&mut head, 0, &self.protective_mbr());
        put(&mut head, SECTOR as usize, &self.header(&entries, Lba(1), self.last_block(), Lba(2)));
        put(&mut head, 2 * SECTOR as usize, &entries);
        head
    }

    /// The last 33 blocks: entries and header.
    pub fn tail(&self) -> [u8; TAIL] {
        let mut tail = [0; TAIL];
        let entries = self.entries();
        put(&mut tail, 0, &entries);
        let header = self.header(&entries, self.last_block(), Lba(1), Lba(self.last_usable().0 + 1));
        put(&mut tail, ENTRIES_SIZE, &header);
        tail
    }

    fn last_block(&self) -> Lba {
        Lba(self.blocks - 1)
    }

    fn last_usable(&self) -> Lba {
        Lba(self.blocks - 34)
    }

    fn entries(&self) -> [u8; ENTRIES_SIZE] {
        let mut entries = [0; ENTRIES_SIZE];
        for (index, placed) in self.partitions.iter().enumerate() {
            let Placed { partition, first, last } = placed;
            let at = ENTRY * index;
            put(&mut entries, at, &partition.kind.type_guid().to_bytes_le());
            put(&mut entries, at + 16, &partition.guid.to_bytes_le());
            put(&mut entries, at + 32, &first.0.to_le_bytes());
            put(&mut entries, at + 40, &last.0.to_le_bytes());
            put(&mut entries, at + 48, &partition.kind.attributes().to_le_bytes());
            for (position, unit) in partition.kind.name().encode_utf16().take(NAME).enumerate() {
                put(&mut entries, at + 56 + 2 * position, &unit.to_le_bytes());
            }
        }
        entries
    }

    fn header(&self, entries: &[u8; ENTRIES_SIZE], this: Lba, other: Lba, entries_at: Lba) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        put(&mut header, 0, SIGNATURE);
        put(&mut header, 8, &REVISION.to_le_bytes());
        put(&mut header, 12, &(HEADER as u32).to_le_bytes());
        put(&mut header, 24, &this.0.to_le_bytes());
        put(&mut header, 32, &other.0.to_le_bytes());
        put(&mut header, 40, &FIRST_USABLE.0.to_le_bytes());
        put(&mut header, 48, &self.last_usable().0.to_le_bytes());
        put(&mut header, 56, &self.disk.to_bytes_le());
        put(&mut header, 72, &entries_at.0.to_le_bytes());
        put(&mut header, 80, &(ENTRIES as u32).to_le_bytes());
        put(&mut header, 84, &(ENTRY as u32).to_le_bytes());
        put(&mut header, 88, &crc32fast::hash(entries).to_le_bytes());
        let crc = crc32fast::hash(&header);
        put(&mut header, 16, &crc.to_le_bytes());
        header
    }

    /// One partition over the whole disk, of the type that makes old tools leave it alone.
    fn protective_mbr(&self) -> [u8; SECTOR as usize] {
        let mut mbr = [0; SECTOR as usize];
        let blocks = u32::try_from(self.blocks - 1).unwrap_or(u32::MAX);
        put(&mut mbr, 446, &[0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
        put(&mut mbr, 454, &1u32.to_le_bytes());
        put(&mut mbr, 458, &blocks.to_le_bytes());
        put(&mut mbr, 510, &[0x55, 0xaa]);
        mbr
    }
}

/// Writes a field at an offset of the layout above.
fn put(block: &mut [u8], offset: usize, bytes: &[u8]) {
    let place = block.get_mut(offset..offset + bytes.len());
    place.expect("the field lies in its block").copy_from_slice(bytes);
}

/// Why a partition table was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There are fewer bytes than the table needs.
    #[error("{what} has {found} bytes, expected at least {expected}")]
    Truncated {
        /// `head`, `tail` or `disk`.
        what: &'static str,
        /// Bytes needed.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// A field has a value that is not allowed.
    #[error("GPT {field} at byte {offset:#x} of the disk: expected {expected}, found {found}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its offset.
        offset: u64,
        /// What is allowed.
        expected: String,
        /// The value found.
        found: String,
    },
}

/// An entry of a table that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The type.
    pub type_guid: Uuid,
    /// The partition's own GUID.
    pub guid: Uuid,
    /// The first block.
    pub first: Lba,
    /// The last block.
    pub last: Lba,
    /// The attribute flags.
    pub attributes: u64,
    /// The name.
    pub name: String,
}

impl Entry {
    /// What it is for, if it is a kind that we write.
    pub fn kind(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_guid() == self.type_guid)
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        (self.last.0 - self.first.0 + 1) * SECTOR
    }
}

/// A partition table that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The disk's GUID.
    pub disk: Uuid,
    /// The first block that partitions may use.
    pub first_usable: Lba,
    /// The last block that partitions may use.
    pub last_usable: Lba,
    /// The used entries, in the table's order.
    pub entries: Vec<Entry>,
}

impl Table {
    /// Reads the table at the start of a disk of `disk_bytes` bytes; `head` holds at least its first [`HEAD`]
    /// bytes.
    ///
    /// # Errors
    ///
    /// Too few bytes; a field, checksum or partition that contradicts the specification, the disk's size, or
    /// the 128 entries of 128 bytes that partitioners write.
    pub fn read(head: &[u8], disk_bytes: u64) -> Result<Self, ReadError> {
        let input = Input::new("head", head, 0, HEAD)?;
        let blocks = blocks(disk_bytes)?;
        input.demand("MBR signature", 510, 0xaa55, input.u16(510))?;
        input.demand("MBR partition type", 450, 0xee, input.u8(450))?;
        input.demand("MBR first block", 454, 1, input.u32(454))?;
        let header = SECTOR as usize;
        let entries = Block { offset: 2 * header, lba: Lba(2) };
        input.table(Block { offset: header, lba: Lba(1) }, entries, Lba(blocks - 1), blocks)
    }

    /// Reads the copy at the end of a disk of `disk_bytes` bytes; `tail` holds its last [`TAIL`] bytes.
    ///
    /// # Errors
    ///
    /// Those of [`Table::read`].
    pub fn read_backup(tail: &[u8], disk_bytes: u64) -> Result<Self, ReadError> {
        let blocks = blocks(disk_bytes)?;
        let input = Input::new("tail", tail, blocks * SECTOR - TAIL as u64, TAIL)?;
        let entries = Block { offset: 0, lba: Lba(blocks - 33) };
        input.table(Block { offset: ENTRIES_SIZE, lba: Lba(blocks - 1) }, entries, Lba(1), blocks)
    }
}

/// The number of blocks of a disk, if it is large enough for both tables.
fn blocks(disk_bytes: u64) -> Result<u64, ReadError> {
    let least = (HEAD + TAIL) as u64 + SECTOR;
    if disk_bytes < least {
        return Err(ReadError::Truncated { what: "disk", expected: least, found: disk_bytes });
    }
    if !disk_bytes.is_multiple_of(SECTOR) {
        let (expected, found) = ("a multiple of 512".into(), disk_bytes.to_string());
        return Err(ReadError::Field { field: "disk size", offset: 0, expected, found });
    }
    Ok(disk_bytes / SECTOR)
}

/// The place of a structure in the input and on the disk.
#[derive(Clone, Copy)]
struct Block {
    offset: usize,
    lba: Lba,
}

/// The bytes of a table, with checked length.
#[derive(Clone, Copy)]
struct Input<'a> {
    bytes: &'a [u8],
    /// Offset of the first byte on the disk.
    start: u64,
}

impl<'a> Input<'a> {
    fn new(what: &'static str, bytes: &'a [u8], start: u64, needed: usize) -> Result<Self, ReadError> {
        match bytes.get(..needed) {
            Some(bytes) => Ok(Input { bytes, start }),
            None => Err(ReadError::Truncated { what, expected: needed as u64, found: bytes.len() as u64 }),
        }
    }

    fn table(self, header: Block, entries: Block, other: Lba, blocks: u64) -> Result<Table, ReadError> {
        let at = |field: usize| header.offset + field;
        let signature = self.array::<8>(at(0));
        if &signature != SIGNATURE {
            return Err(self.field("signature", at(0), "EFI PART", signature.escape_ascii()));
        }
        self.demand("revision", at(8), REVISION, self.u32(at(8)))?;
        self.demand("header size", at(12), HEADER as u32, self.u32(at(12)))?;
        let mut copy = self.array::<HEADER>(at(0));
        put(&mut copy, 16, &[0; 4]);
        self.demand("header CRC", at(16), crc32fast::hash(&copy), self.u32(at(16)))?;
        self.demand("reserved field", at(20), 0, self.u32(at(20)))?;
        self.demand("own block", at(24), header.lba.0, self.u64(at(24)))?;
        self.demand("other header's block", at(32), other.0, self.u64(at(32)))?;
        let first_usable = Lba(self.u64(at(40)));
        let last_usable = Lba(self.u64(at(48)));
        if first_usable < FIRST_USABLE {
            return Err(self.field("first usable block", at(40), "at least 34", first_usable.0));
        }
        if last_usable < first_usable || last_usable.0 > blocks - 34 {
            let expected = format!("{} to {}", first_usable.0, blocks - 34);
            return Err(self.field("last usable block", at(48), expected, last_usable.0));
        }
        self.demand("entries' block", at(72), entries.lba.0, self.u64(at(72)))?;
        self.demand("number of entries", at(80), ENTRIES as u32, self.u32(at(80)))?;
        self.demand("size of an entry", at(84), ENTRY as u32, self.u32(at(84)))?;
        let crc = crc32fast::hash(&self.array::<ENTRIES_SIZE>(entries.offset));
        self.demand("entries' CRC", at(88), crc, self.u32(at(88)))?;

        let mut table = Table { disk: self.uuid(at(56)), first_usable, last_usable, entries: Vec::new() };
        for index in 0..ENTRIES {
            let offset = entries.offset + ENTRY * index;
            if !self.uuid(offset).is_nil() {
                let entry = self.entry(offset, &table)?;
                table.entries.push(entry);
            }
        }
        Ok(table)
    }

    fn entry(self, at: usize, table: &Table) -> Result<Entry, ReadError> {
        let first = Lba(self.u64(at + 32));
        let last = Lba(self.u64(at + 40));
        let (from, to) = (table.first_usable, table.last_usable);
        if first < from || first > to {
            return Err(self.field("first block", at + 32, format!("{} to {}", from.0, to.0), first.0));
        }
        if last < first || last > to {
            return Err(self.field("last block", at + 40, format!("{} to {}", first.0, to.0), last.0));
        }
        if let Some(other) = table.entries.iter().find(|other| first <= other.last && other.first <= last) {
            let expected = format!("blocks outside {} to {}", other.first.0, other.last.0);
            return Err(self.field("partition", at + 32, expected, format!("{} to {}", first.0, last.0)));
        }
        let guid = self.uuid(at + 16);
        if guid.is_nil() || table.disk == guid || table.entries.iter().any(|other| other.guid == guid) {
            return Err(self.field("partition GUID", at + 16, "a unique GUID", guid));
        }
        let mut units = [0; NAME];
        for (position, unit) in units.iter_mut().enumerate() {
            *unit = self.u16(at + 56 + 2 * position);
        }
        let length = units.iter().position(|unit| *unit == 0).unwrap_or(NAME);
        let (text, rest) = units.split_at(length);
        let name = String::from_utf16(text).ok().filter(|_| rest.iter().all(|unit| *unit == 0));
        let name = name.ok_or_else(|| {
            let found = self.array::<72>(at + 56).escape_ascii().to_string();
            self.field("name", at + 56, "UTF-16, filled with zeros", found)
        })?;
        Ok(Entry { type_guid: self.uuid(at), guid, first, last, attributes: self.u64(at + 48), name })
    }

    fn demand<T: PartialEq + fmt::Display>(
        self,
        field: &'static str,
        offset: usize,
        expected: T,
        found: T,
    ) -> Result<(), ReadError> {
        if expected == found { Ok(()) } else { Err(self.field(field, offset, expected, found)) }
    }

    fn field(
        self,
        field: &'static str,
        offset: usize,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> ReadError {
        let offset = self.start + offset as u64;
        ReadError::Field { field, offset, expected: expected.to_string(), found: found.to_string() }
    }

    /// The bytes at an offset, within the length that [`Input::new`] checked.
    fn array<const N: usize>(self, offset: usize) -> [u8; N] {
        let bytes = self.bytes.get(offset..offset + N).and_then(|bytes| bytes.try_into().ok());
        bytes.expect("the field lies in the checked length")
    }

    fn u8(self, offset: usize) -> u8 {
        u8::from_le_bytes(self.array(offset))
    }

    fn u16(self, offset: usize) -> u16 {
        u16::from_le_bytes(self.array(offset))
    }

    fn u32(self, offset: usize) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    fn u64(self, offset: usize) -> u64 {
        u64::from_le_bytes(self.array(offset))
    }

    fn uuid(self, offset: usize) -> Uuid {
        Uuid::from_bytes_le(self.array(offset))
    }
}

#[cfg(test)]
mod tests;
