//! An EFI system partition (FAT32) from a list of files.
//!
//! # Shape
//!
//! ```text
//! sector 0       boot sector: geometry, volume id, label        sector = 512 bytes
//! reserved       FSInfo, copy of both at 6
//! 2 × FAT        4 bytes a cluster
//! clusters       one sector each, up to 256 MiB of content, else 4 KiB; at least 65541 of them
//! ```
//!
//! The image is as large as its files need, at least the 33 MiB that make a FAT a FAT32, in whole MiB. Every time
//! stamp is 1980-01-01 00:00:00, the first that FAT can hold.
//!
//! # Source
//!
//! UEFI 2.10 §13.3.1 (a system partition on a hard disk is FAT32) and §3.5.1.1 (`\EFI\BOOT\BOOTX64.EFI`);
//! *FAT32 File System Specification* 1.03 §"FAT Type Determination". `fsck.vfat`, mtools and OVMF 2025.02 read it.
//!
//! # Not here
//!
//! Where it lies on a disk (`disk`), what the files hold (`uki`).

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read, Seek, Write};

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

/// Where a firmware looks for the program of a disk without boot entries (x86-64).
pub const BOOT_PATH: &str = "EFI/BOOT/BOOTX64.EFI";

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Fewer than 65525 clusters make a FAT16; the specification asks to stay 16 away from the border.
const LEAST_CLUSTERS: u64 = 65_541;
/// Most clusters of a FAT32.
const MOST_CLUSTERS: u64 = 0x0fff_fff4;
/// Content up to which clusters are one sector.
const SMALL: u64 = 256 * MIB;
/// `fatfs` reserves 8 sectors for FAT32; as many again for later versions.
const RESERVED_SECTORS: u64 = 16;
/// Bytes of a directory entry.
const DIRECTORY_ENTRY: u64 = 32;
/// Characters that one entry of a long name holds.
const LONG_NAME_PART: usize = 13;

/// A file of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its path with `/` between components, for instance [`BOOT_PATH`].
    pub path: &'a str,
    /// Its bytes, at most 4 GiB - 1.
    pub content: &'a [u8],
}

/// What a FAT carries to be told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The serial number.
    pub id: u32,
    /// The label, in capitals, filled with blanks.
    pub label: [u8; 11],
}

/// Why no partition could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path has a component that FAT cannot hold or that means something else.
    #[error("ESP path {path:?} is not a plain relative path of FAT")]
    Path {
        /// The path.
        path: String,
    },
    /// Two files share a path, or one is the other's directory; capitals do not count.
    #[error("ESP path {path:?} occurs twice")]
    Twice {
        /// The path.
        path: String,
    },
    /// The label has characters that FAT does not allow.
    #[error("volume label {found:?}, expected capitals, digits, `_`, `-` and blanks at its end")]
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
    /// The files together are too large for FAT32.
    #[error("ESP files need {found} sectors, expected at most {expected}")]
    Size {
        /// Most sectors of a volume.
        expected: u64,
        /// Sectors needed.
        found: u64,
    },
    /// The place to write into has another size than [`size`] gives.
    #[error("place for the ESP has {found} bytes, expected {expected}")]
    Place {
        /// The partition's size.
        expected: u64,
        /// The size found.
        found: u64,
    },
    /// Writing failed.
    #[error("cannot write the ESP")]
    Io(#[from] io::Error),
}

/// Gives the size in bytes of the partition that holds `files`, a multiple of 1 MiB.
///
/// # Errors
///
/// A path that FAT cannot hold or that occurs twice, a file or a sum of files that is too large.
pub fn size(files: &[File<'_>]) -> Result<u64, Error> {
    geometry(files).map(|geometry| geometry.bytes)
}

struct Geometry {
    bytes: u64,
    cluster: u32,
}

fn geometry(files: &[File<'_>]) -> Result<Geometry, Error> {
    let directories = check(files)?;
    let content: u64 = files.iter().map(|file| file.content.len() as u64).sum();
    let cluster = if content <= SMALL { SECTOR } else { 8 * SECTOR };
    // A directory holds the entries of its children, "." and ".."; the root its label.
    let entries = |directory: &str| -> u64 {
        let children = files.iter().map(|file| file.path).chain(directories.iter().map(String::as_str));
        let children =
            children.filter(|child| parent(child).eq_ignore_ascii_case(directory) && !child.is_empty());
        children.map(|child| 1 + name(child).len().div_ceil(LONG_NAME_PART) as u64).sum::<u64>() + 2
    };
    let clusters_of_directories: u64 =
        directories.iter().map(|directory| (entries(directory) * DIRECTORY_ENTRY).div_ceil(cluster)).sum();
    let clusters_of_files: u64 = files.iter().map(|file| (file.content.len() as u64).div_ceil(cluster)).sum();
    // What the FATs need is computed from a few clusters more, since the sum is rounded up below.
    let clusters = (clusters_of_directories + clusters_of_files).max(LEAST_CLUSTERS) + MIB / cluster;
    let fats = 2 * ((clusters + 2) * 4).div_ceil(SECTOR);
    let sectors = RESERVED_SECTORS + fats + (clusters - MIB / cluster) * (cluster / SECTOR);
    let bytes = (sectors * SECTOR).next_multiple_of(MIB);
    let most = u64::from(u32::MAX);
    if bytes / SECTOR > most || clusters > MOST_CLUSTERS {
        return Err(Error::Size { expected: most, found: bytes / SECTOR });
    }
    Ok(Geometry { bytes, cluster: cluster as u32 })
}

/// Checks the paths and gives all directories, the root (an empty path) included.
fn check(files: &[File<'_>]) -> Result<BTreeSet<String>, Error> {
    let mut directories = BTreeSet::from([String::new()]);
    let mut paths = BTreeSet::new();
    for File { path, content } in files {
        let plain = |part: &str| {
            let good = |c: char| !c.is_control() && c.is_ascii() && !r#""*/:<>?\|"#.contains(c);
            !part.is_empty() && part.len() <= 255 && part.chars().all(good) && !part.ends_with(['.', ' '])
        };
        if !path.split('/').all(plain) {
            return Err(Error::Path { path: (*path).into() });
        }
        if u32::try_from(content.len()).is_err() {
            return Err(Error::FileSize { path: (*path).into(), found: content.len() });
        }
        if !paths.insert(path.to_ascii_uppercase()) {
            return Err(Error::Twice { path: (*path).into() });
        }
        let mut above = *path;
        while !above.is_empty() {
            above = parent(above);
            directories.insert(above.to_ascii_uppercase());
        }
    }
    match paths.intersection(&directories).next() {
        Some(path) => Err(Error::Twice { path: path.clone() }),
        None => Ok(directories),
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Writes the partition with `files` into `place`, whose size is that of [`size`].
///
/// The place must read as zeros where it was never written, as a new file does.
///
/// # Errors
///
/// Those of [`size`], a malformed label, a place of another size, a failed write.
pub fn write(
    place: &mut (impl Read + Write + Seek),
    files: &[File<'_>],
    volume: Volume,
) -> Result<(), Error> {
    let geometry = geometry(files)?;
    check_label(&volume.label)?;
    let found = place.seek(io::SeekFrom::End(0))?;
    if found != geometry.bytes {
        return Err(Error::Place { expected: geometry.bytes, found });
    }
    place.rewind()?;
    let format = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(geometry.cluster)
        .volume_id(volume.id)
        .volume_label(volume.label);
    fatfs::format_volume(&mut *place, format)?;
    place.rewind()?;
    let options = FsOptions::new().time_provider(&FirstDay).update_accessed_date(false);
    let filesystem = FileSystem::new(&mut *place, options)?;
    // Counts the free clusters once; from here on the count is kept and written at the end.
    filesystem.stats()?;
    for file in files {
        let mut directory = filesystem.root_dir();
        let mut components = file.path.split('/').peekable();
        while let Some(component) = components.next() {
            if components.peek().is_some() {
                directory = directory.create_dir(component)?;
            } else {
                directory.create_file(component)?.write_all(file.content)?;
            }
        }
    }
    filesystem.unmount()?;
    Ok(())
}

/// Gives the bytes of the partition with `files`.
///
/// # Errors
///
/// Those of [`write`].
pub fn build(files: &[File<'_>], volume: Volume) -> Result<Vec<u8>, Error> {
    let size = size(files)?;
    let length =
        usize::try_from(size).map_err(|_| Error::Size { expected: u64::MAX, found: size / SECTOR })?;
    let mut image = vec![0; length];
    write(&mut Cursor::new(image.as_mut_slice()), files, volume)?;
    Ok(image)
}

fn check_label(label: &[u8; 11]) -> Result<(), Error> {
    let text = label.trim_ascii_end();
    let good = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-".contains(byte);
    if !text.is_empty() && text.iter().all(good) {
        return Ok(());
    }
    Err(Error::Label { found: label.escape_ascii().to_string() })
}

/// The clock of the volume, which stands still.
#[derive(Debug)]
struct FirstDay;

impl TimeProvider for FirstDay {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

#[cfg(test)]
mod tests {
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
        let entry = directory.iter().map(Result::unwrap).find(|entry| entry.is_file()).unwrap();
        let first = FirstDay.get_current_date_time();
        assert_eq!((entry.created(), entry.modified(), entry.accessed()), (first, first, first.date));
    }

    #[test]
    fn the_size_follows_the_content() {
        let length = |bytes: usize| size(&[file("a", &vec![0; bytes])]).unwrap();
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
            (0..120).map(|index| format!("loader/a rather long name {index:04}.conf")).collect();
        let files: Vec<File<'_>> = names.iter().map(|name| file(name, b"x")).collect();
        let mut image = build(&files, VOLUME).unwrap();
        assert_eq!(open(&mut image).root_dir().open_dir("loader").unwrap().iter().count(), 122);
    }

    #[test]
    fn content_beyond_256_mib_gets_clusters_of_4_kib() {
        let content = vec![0; (256 << 20) + 1];
        let geometry = geometry(&[file(BOOT_PATH, &content)]).unwrap();
        assert_eq!((geometry.cluster, geometry.bytes), (4096, 257 * MIB));
    }

    #[test]
    fn paths_that_fat_cannot_hold_are_refused() {
        let long = "a".repeat(256);
        for path in
            ["", "/a", "a/", "a//b", "..", "a/../b", "a:b", "a\\b", "a\0", "dot.", "blank ", "ü", &long]
        {
            let error = build(&[file(path, b"")], VOLUME).unwrap_err();
            assert!(matches!(error, Error::Path { .. }), "{path:?}: {error}");
        }
    }

    #[test]
    fn paths_that_differ_only_in_case_are_refused() {
        let files = [file("EFI/a", b""), file("efi/A", b"")];
        assert!(matches!(size(&files), Err(Error::Twice { .. })));
        let files = [file("EFI", b""), file("efi/A", b"")];
        assert!(matches!(size(&files), Err(Error::Twice { .. })));
    }

    #[test]
    fn a_label_outside_of_fats_alphabet_is_refused() {
        for label in [b"proofmark  ", b"           ", b"A B        ", b"A\0         "] {
            let error = build(&[], Volume { label: *label, ..VOLUME }).unwrap_err();
            assert!(matches!(error, Error::Label { .. }));
        }
    }

    #[test]
    fn a_place_of_another_size_is_refused() {
        let mut place = vec![0; 32 << 20];
        let error = write(&mut Cursor::new(place.as_mut_slice()), &[], VOLUME).unwrap_err();
        assert_eq!(error.to_string(), "place for the ESP has 33554432 bytes, expected 34603008");
    }

    #[test]
    fn a_failing_place_is_reported() {
        struct Full(Cursor<Vec<u8>>);
        impl Read for Full {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer)
            }
        }
        impl Seek for Full {
            fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
                self.0.seek(to)
            }
        }
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut place = Full(Cursor::new(vec![0; 33 << 20]));
        assert!(matches!(write(&mut place, &[], VOLUME), Err(Error::Io(_))));
    }

    #[test]
    fn more_than_fat_can_address_is_refused() {
        // Views of the same bytes; 4096 of them are 2 TiB and more.
        let content = vec![0; 512 << 20];
        let names: Vec<String> = (0..4200).map(|index| index.to_string()).collect();
        let files: Vec<File<'_>> = names.iter().map(|name| file(name, &content)).collect();
        assert!(matches!(size(&files), Err(Error::Size { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn any_set_of_files_reads_back(lengths in proptest::collection::vec(0usize..2_000_000, 0..24)) {
            let files: Vec<(String, Vec<u8>)> = lengths
                .iter()
                .enumerate()
                .map(|(index, length)| (format!("d{}/File {index}.bin", index % 3), vec![index as u8; *length]))
                .collect();
            let list: Vec<File<'_>> = files.iter().map(|(path, content)| file(path, content)).collect();
            let mut image = build(&list, VOLUME).unwrap();
            prop_assert_eq!(image.len() as u64, size(&list).unwrap());
            for (path, content) in &files {
                prop_assert!(&contents(&mut image, path) == content);
            }
        }
    }
}
