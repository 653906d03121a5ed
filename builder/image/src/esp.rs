//! Yields an EFI system partition (FAT32) from a list of files.
//!
//! # Shape
//!
//! ```text
//! sector 0, 1     boot sector: geometry, volume ID, label; FSInfo: free clusters       sector = 512 bytes
//! sector 6, 7     copies of both
//! sector 32       two FATs, 4 bytes per cluster
//! cluster 2…      root, other directories by path, files by path; each a contiguous run
//! the rest        zeros
//! ```
//!
//! A cluster is one sector for up to 256 MiB of content, else 4 KiB. The partition is as large as its files
//! need, in whole MiB, and at least the 33 MiB that FAT32 requires. Every time stamp is 1980-01-01 00:00:00,
//! the earliest that FAT can hold.
//!
//! # Source
//!
//! UEFI 2.10 §13.3.1 (a system partition on a hard disk is FAT32) and §3.5.1.1 (`\EFI\BOOT\BOOTX64.EFI`);
//! *FAT32 File System Specification* 1.03, whose sections the constants name. `fsck.vfat`, mtools, the `fatfs`
//! crate and OVMF 2025.02 read it.
//!
//! The `fatfs` crate does not write it: version 0.3.6 puts a long name before `.` and `..`, which `fsck.vfat`
//! reports as damage, and needs a seekable device. Here the layout is known before the first byte, so the
//! files stream through. `fatfs` reads it in the tests.
//!
//! # Not here
//!
//! The partition's place on a disk (`disk`), what the files hold (`uki`), reading.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// Where firmware looks for the program to boot on a disk without boot entries (x86-64).
pub const BOOT_PATH: &str = "EFI/BOOT/BOOTX64.EFI";

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Sectors before the first FAT ("typically 32").
const RESERVED_SECTORS: u64 = 32;
/// "FAT Type Determination": fewer than 65525 clusters make a FAT16; stay 16 away from this limit.
const LEAST_CLUSTERS: u64 = 65_541;
/// "FAT Data Structure": the highest cluster number is below 0x0ffffff7.
const MOST_CLUSTERS: u64 = 0x0fff_fff4;
/// The most content for clusters of one sector ("FAT32 disk size to sectors per cluster").
const SMALL: u64 = 256 * MIB;
const ROOT: u32 = 2;
/// Marks the last cluster of a run.
const END_OF_CHAIN: u32 = 0x0fff_ffff;
/// A fixed disk, in the boot sector and in the first entry of the FAT.
const FIXED_DISK: u8 = 0xf8;
/// "FAT Directory Structure": length of an entry, attributes.
const ENTRY: usize = 32;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const LONG_NAME: u8 = 0x0f;
/// The number of characters that one long-name entry holds.
const LONG_NAME_PART: usize = 13;
/// "A FAT directory must not be larger than 65,536 × 32 bytes".
const MOST_ENTRIES: usize = 65_536;
/// 1980-01-01.
const DATE: u16 = 1 << 5 | 1;

/// A file in the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its path with `/` between components, for instance [`BOOT_PATH`].
    pub path: &'a str,
    /// Its bytes, at most 4 GiB - 1.
    pub content: &'a [u8],
}

/// The identity of a FAT volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The serial number.
    pub id: u32,
    /// The label, in uppercase, padded with spaces.
    pub label: [u8; 11],
}

/// Why no partition could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path has a component that FAT cannot hold or that means something else.
    #[error("ESP path {path:?} is not a plain relative FAT path")]
    Path {
        /// The path.
        path: String,
    },
    /// Two files share a path, or one is the other's directory; case is ignored.
    #[error("ESP path {path:?} occurs twice")]
    Twice {
        /// The path, in uppercase.
        path: String,
    },
    /// The label has characters that FAT does not allow.
    #[error("volume label {found:?}, expected capitals, digits, `_`, `-` and trailing blanks")]
    Label {
        /// The label.
        found: String,
    },
    /// A file is too large for FAT.
    #[error("ESP file {path:?} has {found} bytes, expected at most 4294967295")]
    FileSize {
        /// The path.
        path: String,
        /// Its length.
        found: usize,
    },
    /// A directory holds too many names.
    #[error("ESP directory {path:?} needs {found} entries, expected at most {expected}", expected = MOST_ENTRIES)]
    Directory {
        /// The path, in uppercase.
        path: String,
        /// Entries needed.
        found: usize,
    },
    /// The files together are too large for FAT32.
    #[error("ESP needs {found} sectors, expected at most {expected}", expected = u32::MAX)]
    Size {
        /// Sectors needed.
        found: u64,
    },
    /// Writing failed.
    #[error("cannot write the ESP")]
    Io(#[from] io::Error),
}

/// The clusters of a directory or file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    /// The first cluster, 0 for an empty file.
    first: u32,
    count: u32,
}

/// A name in a directory.
#[derive(Clone, Debug)]
struct Child<'a> {
    name: &'a str,
    target: Target<'a>,
}

#[derive(Clone, Debug)]
enum Target<'a> {
    /// A directory, by its key in the map of all directories.
    Directory(String),
    File(&'a [u8]),
}

/// Where everything in a partition goes.
#[derive(Clone, Debug)]
pub struct Esp<'a> {
    volume: Volume,
    /// Children sorted by name, by the directory's path in uppercase; the root is the empty path.
    directories: BTreeMap<String, BTreeMap<String, Child<'a>>>,
    /// Runs of directories and files, by path in uppercase.
    runs: BTreeMap<String, Run>,
    sectors: u64,
    fat_sectors: u64,
    sectors_per_cluster: u64,
    /// The clusters in use, including the root's.
    used: u32,
}

impl<'a> Esp<'a> {
    /// Lays out the partition that holds `files`; their order does not matter.
    ///
    /// # Errors
    ///
    /// A path that FAT cannot hold or that occurs twice; a file, a directory or a total that is too large; a
    /// malformed label.
    pub fn new(files: &[File<'a>], volume: Volume) -> Result<Self, Error> {
        check_label(&volume.label)?;
        let directories = tree(files)?;
        let content: u64 = files.iter().map(|file| file.content.len() as u64).sum();
        let sectors_per_cluster = if content <= SMALL { 1 } else { 8 };
        let cluster = sectors_per_cluster * SECTOR;

        let mut lengths: Vec<(String, u64)> = Vec::new();
        for (path, children) in &directories {
            let entries = 2 + children.values().map(|child| short_and_long(child.name)).sum::<usize>();
            if entries > MOST_ENTRIES {
                return Err(Error::Directory { path: path.clone(), found: entries });
            }
            lengths.push((path.clone(), (entries * ENTRY) as u64));
        }
        for (path, children) in &directories {
            for (name, child) in children {
                if let Target::File(content) = child.target {
                    lengths.push((join(path, name), content.len() as u64));
                }
            }
        }
        let used: u64 = lengths.iter().map(|(_, length)| length.div_ceil(cluster)).sum();
        let clusters = used.max(LEAST_CLUSTERS);
        // Rounding up to whole MiB may add `MIB / cluster` clusters.
        let fat_sectors = ((clusters + MIB / cluster + 2) * 4).div_ceil(SECTOR);
        let sectors = RESERVED_SECTORS + 2 * fat_sectors + clusters * sectors_per_cluster;
        let sectors = sectors.next_multiple_of(MIB / SECTOR);
        if sectors > u64::from(u32::MAX) || clusters + MIB / cluster > MOST_CLUSTERS {
            return Err(Error::Size { found: sectors });
        }
        let mut next = ROOT;
        let mut runs = BTreeMap::new();
        for (path, length) in lengths {
            // It fits: it is below the number of sectors, which fits in a u32.
            let count = length.div_ceil(cluster) as u32;
            runs.insert(path, Run { first: if count == 0 { 0 } else { next }, count });
            next += count;
        }
        let used = next - ROOT;
        Ok(Esp { volume, directories, runs, sectors, fat_sectors, sectors_per_cluster, used })
    }

    /// The size of the partition in bytes, a multiple of 1 MiB.
    pub fn bytes(&self) -> u64 {
        self.sectors * SECTOR
    }

    /// Writes the partition up to its last used cluster and returns the number of bytes written. The rest, up
    /// to [`Esp::bytes`], is zeros.
    ///
    /// # Errors
    ///
    /// A failed write.
    pub fn write(&self, out: &mut impl Write) -> Result<u64, Error> {
        let mut out = Counted { out, written: 0 };
        let boot = self.boot_sector();
        let information = self.information_sector();
        for sector in [0, 6] {
            out.zeros_to(sector * SECTOR)?;
            out.write(&boot)?;
            out.write(&information)?;
        }
        let fat = self.fat();
        for copy in [0, 1] {
            out.zeros_to((RESERVED_SECTORS + copy * self.fat_sectors) * SECTOR)?;
            out.write(&fat)?;
        }
        let data = (RESERVED_SECTORS + 2 * self.fat_sectors) * SECTOR;
        let cluster = self.sectors_per_cluster * SECTOR;
        let place = |run: Run| data + u64::from(run.first.saturating_sub(ROOT)) * cluster;
        for (path, children) in &self.directories {
            out.zeros_to(place(self.run(path)))?;
            out.write(&self.directory(path, children))?;
        }
        for (path, children) in &self.directories {
            for (name, child) in children {
                if let Target::File(content @ [_, ..]) = child.target {
                    out.zeros_to(place(self.run(&join(path, name))))?;
                    out.write(content)?;
                }
            }
        }
        out.zeros_to(data + u64::from(self.used) * cluster)?;
        Ok(out.written)
    }

    fn run(&self, path: &str) -> Run {
        self.runs.get(path).copied().unwrap_or_default()
    }

    /// The number of clusters in the data region.
    fn clusters(&self) -> u64 {
        (self.sectors - RESERVED_SECTORS - 2 * self.fat_sectors) / self.sectors_per_cluster
    }

    /// "Boot Sector and BPB".
    fn boot_sector(&self) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let mut set = |offset, bytes: &[u8]| put(&mut sector, offset, bytes);
        set(0, b"\xeb\x58\x90MSWIN4.1");
        set(11, &(SECTOR as u16).to_le_bytes());
        set(13, &[self.sectors_per_cluster as u8]);
        set(14, &(RESERVED_SECTORS as u16).to_le_bytes());
        set(16, &[2]);
        set(21, &[FIXED_DISK]);
        // Sectors per track and heads; 32 divides every size in MiB, as mtools requires.
        set(24, &32u16.to_le_bytes());
        set(26, &64u16.to_le_bytes());
        set(32, &(self.sectors as u32).to_le_bytes());
        set(36, &(self.fat_sectors as u32).to_le_bytes());
        set(44, &ROOT.to_le_bytes());
        set(48, &1u16.to_le_bytes());
        set(50, &6u16.to_le_bytes());
        set(64, &[0x80, 0, 0x29]);
        set(67, &self.volume.id.to_le_bytes());
        set(71, &self.volume.label);
        set(82, b"FAT32   ");
        set(510, &[0x55, 0xaa]);
        sector
    }

    /// "FSInfo Sector Structure".
    fn information_sector(&self) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let free = self.clusters() as u32 - self.used;
        put(&mut sector, 0, b"RRaA");
        put(&mut sector, 484, b"rrAa");
        put(&mut sector, 488, &free.to_le_bytes());
        put(&mut sector, 492, &(ROOT + self.used).to_le_bytes());
        put(&mut sector, 510, &[0x55, 0xaa]);
        sector
    }

    /// "FAT Data Structure": two reserved entries, then each cluster's successor.
    fn fat(&self) -> Vec<u8> {
        let mut next: Vec<u32> = (ROOT + 1..=ROOT + self.used).collect();
        for run in self.runs.values().filter(|run| run.count != 0) {
            let last = (run.first - ROOT + run.count - 1) as usize;
            if let Some(entry) = next.get_mut(last) {
                *entry = END_OF_CHAIN;
            }
        }
        let reserved = [0x0fff_ff00 | u32::from(FIXED_DISK), END_OF_CHAIN];
        reserved.into_iter().chain(next).flat_map(u32::to_le_bytes).collect()
    }

    /// "FAT Directory Structure" and "FAT Long Directory Entries".
    fn directory(&self, path: &str, children: &BTreeMap<String, Child<'_>>) -> Vec<u8> {
        let mut out = Vec::new();
        if path.is_empty() {
            out.extend(entry(&self.volume.label, VOLUME_LABEL, 0, 0));
        } else {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            // The root, as a parent, is written as 0.
            let parent = if parent.is_empty() { 0 } else { self.run(parent).first };
            out.extend(entry(b".          ", DIRECTORY, self.run(path).first, 0));
            out.extend(entry(b"..         ", DIRECTORY, parent, 0));
        }
        let mut taken: BTreeSet<[u8; 11]> =
            children.values().filter_map(|child| plain_short(child.name)).collect();
        for child in children.values() {
            let short = plain_short(child.name).unwrap_or_else(|| {
                let short = derived_short(child.name, &taken);
                taken.insert(short);
                out.extend(long_entries(child.name, &short));
                short
            });
            let (attributes, run, size) = match &child.target {
                Target::Directory(key) => (DIRECTORY, self.run(key), 0),
                Target::File(content) => {
                    (ARCHIVE, self.run(&join(path, &child.name.to_ascii_uppercase())), content.len() as u32)
                }
            };
            out.extend(entry(&short, attributes, run.first, size));
        }
        out
    }
}

/// Builds the bytes of the whole partition with `files`.
///
/// # Errors
///
/// Those of [`Esp::new`].
pub fn build(files: &[File<'_>], volume: Volume) -> Result<Vec<u8>, Error> {
    let esp = Esp::new(files, volume)?;
    let length = usize::try_from(esp.bytes()).map_err(|_| Error::Size { found: esp.sectors })?;
    let mut image = vec![0; length];
    esp.write(&mut image.as_mut_slice())?;
    Ok(image)
}

/// Sorts files into directories and checks their paths.
fn tree<'a>(files: &[File<'a>]) -> Result<BTreeMap<String, BTreeMap<String, Child<'a>>>, Error> {
    let mut directories: BTreeMap<String, BTreeMap<String, Child<'a>>> = BTreeMap::new();
    directories.insert(String::new(), BTreeMap::new());
    for &File { path, content } in files {
        let plain = |part: &str| {
            let good = |c: char| c.is_ascii() && !c.is_ascii_control() && !r#""*/:<>?\|"#.contains(c);
            !part.is_empty() && part.len() <= 255 && part.chars().all(good) && !part.ends_with(['.', ' '])
        };
        if !path.split('/').all(|part| plain(part) && !part.starts_with(' ')) {
            return Err(Error::Path { path: path.into() });
        }
        if u32::try_from(content.len()).is_err() {
            return Err(Error::FileSize { path: path.into(), found: content.len() });
        }
        let mut above = String::new();
        let mut components = path.split('/').peekable();
        while let Some(name) = components.next() {
            let key = name.to_ascii_uppercase();
            let full = join(&above, &key);
            let children = directories.entry(above).or_default();
            if components.peek().is_some() {
                let target = Target::Directory(full.clone());
                let child = children.entry(key).or_insert(Child { name, target });
                if matches!(child.target, Target::File(_)) {
                    return Err(Error::Twice { path: full });
                }
            } else if children.insert(key, Child { name, target: Target::File(content) }).is_some() {
                return Err(Error::Twice { path: full });
            }
            above = full;
        }
    }
    Ok(directories)
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The number of entries that a name takes.
fn short_and_long(name: &str) -> usize {
    1 + if plain_short(name).is_some() { 0 } else { name.len().div_ceil(LONG_NAME_PART) }
}

/// Whether a short name may contain the character.
fn is_short(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&byte)
}

/// The short form of a name that needs no long one: at most 8 and 3 characters, none lowercase.
fn plain_short(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let fits = (1..=8).contains(&base.len()) && extension.len() <= 3 && name.len() != base.len() + 1;
    (fits && base.bytes().chain(extension.bytes()).all(is_short))
        .then(|| padded(base.as_bytes(), extension.as_bytes()))
}

/// The short form beside a long name: `BASE~1.EXT`, with the first free number.
fn derived_short(name: &str, taken: &BTreeSet<[u8; 11]>) -> [u8; 11] {
    let trimmed = name.trim_start_matches('.');
    let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
    let short = |text: &str, most: usize| -> Vec<u8> {
        let kept = text.bytes().filter(|byte| !b" .".contains(byte)).map(|byte| byte.to_ascii_uppercase());
        kept.map(|byte| if is_short(byte) { byte } else { b'_' }).take(most).collect()
    };
    let extension = short(extension, 3);
    // A directory has fewer entries than there are numbers of six digits.
    for number in 1..=999_999u32 {
        let tail = format!("~{number}");
        let mut base = short(base, 8 - tail.len());
        base.extend(tail.bytes());
        let candidate = padded(&base, &extension);
        if !taken.contains(&candidate) {
            return candidate;
        }
    }
    unreachable!("a directory holds at most 65536 entries")
}

/// Eight and three bytes, padded with spaces.
fn padded(base: &[u8], extension: &[u8]) -> [u8; 11] {
    let mut short = [b' '; 11];
    put(&mut short, 0, base);
    put(&mut short, 8, extension);
    short
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    put(&mut entry, 0, name);
    put(&mut entry, 11, &[attributes]);
    // Dates of creation, access and modification; the times of day stay 0.
    for offset in [16, 18, 24] {
        put(&mut entry, offset, &DATE.to_le_bytes());
    }
    put(&mut entry, 20, &((cluster >> 16) as u16).to_le_bytes());
    put(&mut entry, 26, &(cluster as u16).to_le_bytes());
    put(&mut entry, 28, &size.to_le_bytes());
    entry
}

/// The entries of a long name, last part first.
fn long_entries(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let sum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let parts: Vec<&[u16]> = units.chunks(LONG_NAME_PART).collect();
    let mut out = Vec::with_capacity(parts.len() * ENTRY);
    for (index, part) in parts.iter().enumerate().rev() {
        let last = if index + 1 == parts.len() { 0x40 } else { 0 };
        let mut entry = [0; ENTRY];
        put(&mut entry, 0, &[(index as u8 + 1) | last]);
        put(&mut entry, 11, &[LONG_NAME, 0, sum]);
        // Terminated by one zero, then filled with 0xffff.
        let filled = part.iter().copied().chain([0]).chain(std::iter::repeat(0xffff));
        let offsets = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (offset, unit) in offsets.zip(filled) {
            put(&mut entry, offset, &unit.to_le_bytes());
        }
        out.extend(entry);
    }
    out
}

fn check_label(label: &[u8; 11]) -> Result<(), Error> {
    let text = label.trim_ascii_end();
    let good = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-".contains(byte);
    if !text.is_empty() && text.iter().all(good) {
        return Ok(());
    }
    Err(Error::Label { found: label.escape_ascii().to_string() })
}

/// Writes a field at an offset of the structures above.
fn put(block: &mut [u8], offset: usize, bytes: &[u8]) {
    let place = block.get_mut(offset..offset + bytes.len());
    place.expect("the field lies in its structure").copy_from_slice(bytes);
}

/// A writer that knows its position.
struct Counted<'w, W> {
    out: &'w mut W,
    written: u64,
}

impl<W: Write> Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes zeros up to a position, which is never before the current one.
    fn zeros_to(&mut self, position: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.written < position {
            let count =
                usize::try_from(position - self.written).map_or(ZEROS.len(), |rest| rest.min(ZEROS.len()));
            self.write(ZEROS.get(..count).unwrap_or(&ZEROS))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use fatfs::{FatType, FileSystem, FsOptions};

    use super::*;
    use proptest::prelude::*;

    const VOLUME: Volume = Volume { id: 0x1234_5678, label: *b"PROOFMARK  " };

    fn file<'a>(path: &'a str, content: &'a [u8]) -> File<'a> {
        File { path, content }
    }

    fn open(image: &mut [u8]) -> FileSystem<Cursor<&mut [u8]>> {
        FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap()
    }

    fn contents(image: &mut [u8], path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        open(image).root_dir().open_file(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn files_read_back_from_the_smallest_fat32() {
        let kernel = vec![7; 3_000_001];
        let files = [file(BOOT_PATH, &kernel), file("EFI/Long names work.txt", b"yes"), file("empty", b"")];
        let mut image = build(&files, VOLUME).unwrap();
        assert_eq!(image.len() as u64, 33 * MIB);
        for File { path, content } in files {
            assert_eq!(contents(&mut image, path), content, "{path}");
        }
        let filesystem = open(&mut image);
        assert_eq!(filesystem.fat_type(), FatType::Fat32);
        assert_eq!(filesystem.volume_id(), 0x1234_5678);
        assert_eq!(filesystem.volume_label(), "PROOFMARK");
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let files = [file(BOOT_PATH, b"MZ")];
        let image = build(&files, VOLUME).unwrap();
        assert!(image == build(&files, VOLUME).unwrap());
        assert!(image != build(&files, Volume { id: 1, ..VOLUME }).unwrap());
    }

    #[test]
    fn every_time_is_the_first_day() {
        let mut image = build(&[file(BOOT_PATH, b"MZ")], VOLUME).unwrap();
        let filesystem = open(&mut image);
        let directory = filesystem.root_dir().open_dir("EFI/BOOT").unwrap();
        for entry in directory.iter().map(Result::unwrap) {
            for time in [entry.created(), entry.modified()] {
                let (date, clock) = (time.date, time.time);
                assert_eq!((date.year, date.month, date.day), (1980, 1, 1));
                assert_eq!((clock.hour, clock.min, clock.sec, clock.millis), (0, 0, 0, 0));
            }
            assert_eq!(entry.accessed().year, 1980);
        }
    }

    #[test]
    fn the_order_of_the_files_does_not_matter() {
        let one = file("B/x", b"1");
        let two = file("a.txt", b"2");
        assert!(build(&[one, two], VOLUME).unwrap() == build(&[two, one], VOLUME).unwrap());
    }

    #[test]
    fn dots_come_first_and_the_root_is_cluster_0_to_its_children() {
        let image = build(&[file(BOOT_PATH, b"MZ")], VOLUME).unwrap();
        let esp = Esp::new(&[file(BOOT_PATH, b"MZ")], VOLUME).unwrap();
        let data = ((RESERVED_SECTORS + 2 * esp.fat_sectors) * SECTOR) as usize;
        let cluster = |number: usize| &image[data + (number - 2) * 512..][..512];
        let first_cluster = |entry: &[u8]| u16::from_le_bytes([entry[26], entry[27]]);
        for (number, parent) in [(3, 0), (4, 3)] {
            let directory = cluster(number);
            assert_eq!(directory[..11], *b".          ");
            assert_eq!(directory[32..43], *b"..         ");
            assert_eq!((first_cluster(directory), first_cluster(&directory[32..])), (number as u16, parent));
        }
        assert_eq!(cluster(4)[64..75], *b"BOOTX64 EFI");
        assert_eq!(&cluster(5)[..3], b"MZ\0");
    }

    #[test]
    fn what_is_written_ends_with_the_last_cluster() {
        let esp = Esp::new(&[file(BOOT_PATH, &[1; 513])], VOLUME).unwrap();
        let mut written = Vec::new();
        let count = esp.write(&mut written).unwrap();
        assert_eq!(count, written.len() as u64);
        assert_eq!(count, (RESERVED_SECTORS + 2 * esp.fat_sectors + 5) * SECTOR);
        written.resize(esp.bytes() as usize, 0);
        assert!(written == build(&[file(BOOT_PATH, &[1; 513])], VOLUME).unwrap());
    }

    #[test]
    fn the_free_clusters_are_counted() {
        let mut image = build(&[file(BOOT_PATH, &[1; 1000]), file("long name", b"x")], VOLUME).unwrap();
        let stated = u32::from_le_bytes(image[512 + 488..][..4].try_into().unwrap());
        let filesystem = open(&mut image);
        let total = filesystem.stats().unwrap().total_clusters();
        // Three directories, a file of two clusters and a file of one.
        assert_eq!(total - stated, 6);
        assert!(total as u64 >= LEAST_CLUSTERS);
    }

    #[test]
    fn short_names_beside_long_ones_are_unique() {
        let short =
            |name: &str, taken: &BTreeSet<[u8; 11]>| derived_short(name, taken).escape_ascii().to_string();
        let mut taken = BTreeSet::new();
        assert_eq!(short("a long name.conf", &taken), "ALONGN~1CON");
        taken.insert(*b"ALONGN~1CON");
        assert_eq!(short("a long name.conf", &taken), "ALONGN~2CON");
        taken.extend((1..10).map(|number| padded(format!("ALONGN~{number}").as_bytes(), b"CON")));
        assert_eq!(short("a long name.conf", &taken), "ALONG~10CON");
        assert_eq!(short(".hidden", &taken), "HIDDEN~1   ");
        assert_eq!(short("a+b.c.d", &taken), "A_BC~1  D  ");
        assert_eq!(plain_short("BOOTX64.EFI"), Some(*b"BOOTX64 EFI"));
        for name in ["bootx64.efi", "ABCDEFGHI", "A.EFIX", ".A", "A.B.C", "A B"] {
            assert_eq!(plain_short(name), None, "{name}");
        }
    }

    #[test]
    fn a_directory_of_too_many_names_is_refused() {
        let names: Vec<String> = (0..65_535).map(|number| number.to_string()).collect();
        let files: Vec<File<'_>> = names.iter().map(|name| file(name, b"")).collect();
        assert!(matches!(Esp::new(&files, VOLUME), Err(Error::Directory { found: 65_537, .. })));
        assert!(Esp::new(&files[1..], VOLUME).is_ok());
    }

    #[test]
    fn the_size_follows_the_content() {
        let length = |bytes: usize| Esp::new(&[file("a", &vec![0; bytes])], VOLUME).unwrap().bytes();
        assert_eq!(length(0), 33 * MIB);
        assert_eq!(length(32 << 20), 33 * MIB);
        assert_eq!(length(33 << 20), 34 * MIB);
        assert_eq!(length(64 << 20), 66 * MIB);
        assert_eq!(length(300 << 20), 301 * MIB);
    }

    #[test]
    fn a_partition_filled_to_the_brim_still_fits() {
        for bytes in [(33 << 20) + 400_000, (40 << 20) - 1, 50 << 20] {
            let content = vec![1; bytes];
            let mut image = build(&[file(BOOT_PATH, &content), file("x", b"y")], VOLUME).unwrap();
            assert!(contents(&mut image, BOOT_PATH) == content);
        }
    }

    #[test]
    fn many_files_in_one_directory_fit() {
        let names: Vec<String> =
            (0..600).map(|index| format!("loader/a rather long name {index:04}.conf")).collect();
        let files: Vec<File<'_>> = names.iter().map(|name| file(name, b"x")).collect();
        let mut image = build(&files, VOLUME).unwrap();
        assert_eq!(open(&mut image).root_dir().open_dir("loader").unwrap().iter().count(), 602);
    }

    #[test]
    fn content_beyond_256_mib_gets_clusters_of_4_kib() {
        let content = vec![0; (256 << 20) + 1];
        let esp = Esp::new(&[file(BOOT_PATH, &content)], VOLUME).unwrap();
        assert_eq!((esp.sectors_per_cluster, esp.bytes()), (8, 257 * MIB));
    }

    #[test]
    fn paths_that_fat_cannot_hold_are_refused() {
        let long = "a".repeat(256);
        for path in [
            "", "/a", "a/", "a//b", "..", "a/../b", "a:b", "a\\b", "a\0", "dot.", "blank ", " blank", "ü",
            &long,
        ] {
            let error = build(&[file(path, b"")], VOLUME).unwrap_err();
            assert!(matches!(error, Error::Path { .. }), "{path:?}: {error}");
        }
    }

    #[test]
    fn paths_that_differ_only_in_case_are_refused() {
        let files = [file("EFI/a", b""), file("efi/A", b"")];
        assert!(matches!(Esp::new(&files, VOLUME), Err(Error::Twice { .. })));
        let files = [file("EFI", b""), file("efi/A", b"")];
        assert!(matches!(Esp::new(&files, VOLUME), Err(Error::Twice { .. })));
    }

    #[test]
    fn a_label_outside_of_fats_alphabet_is_refused() {
        for label in [b"proofmark  ", b"           ", b"A B        ", b"A\0         "] {
            let error = build(&[], Volume { label: *label, ..VOLUME }).unwrap_err();
            assert!(matches!(error, Error::Label { .. }));
        }
    }

    #[test]
    fn a_failed_write_is_reported() {
        let esp = Esp::new(&[], VOLUME).unwrap();
        assert!(matches!(esp.write(&mut [0; 1000].as_mut_slice()), Err(Error::Io(_))));
    }

    #[test]
    fn more_than_fat_can_address_is_refused() {
        // All files share these bytes; 4096 of them are already 2 TiB.
        let content = vec![0; 512 << 20];
        let names: Vec<String> = (0..4200).map(|index| index.to_string()).collect();
        let files: Vec<File<'_>> = names.iter().map(|name| file(name, &content)).collect();
        assert!(matches!(Esp::new(&files, VOLUME), Err(Error::Size { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn any_set_of_files_reads_back(lengths in proptest::collection::vec(0usize..300_000, 0..24)) {
            let files: Vec<(String, Vec<u8>)> = lengths
                .iter()
                .enumerate()
                .map(|(index, length)| (format!("d{}/File {index}.bin", index % 3), vec![index as u8; *length]))
                .collect();
            let list: Vec<File<'_>> = files.iter().map(|(path, content)| file(path, content)).collect();
            let mut image = build(&list, VOLUME).unwrap();
            prop_assert_eq!(image.len() as u64, Esp::new(&list, VOLUME).unwrap().bytes());
            for (path, content) in &files {
                prop_assert!(&contents(&mut image, path) == content);
            }
        }
    }
}
