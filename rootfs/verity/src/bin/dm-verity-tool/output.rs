//! The file or device that holds a hash area, written whole or not at all.
//!
//! # Shape
//!
//! ```text
//! hash offset 0:  the file is the hash area and nothing else
//! otherwise:      bytes before the offset | hash area | bytes after it     (the outer parts are kept)
//! ```
//!
//! A new file is written next to the old one, flushed to the disk and renamed over it; a block device cannot
//! be renamed and is written in place.
//!
//! # Not here
//!
//! The content of the area: see the library.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use dm_verity_tool::{HashOffset, HashTree};

/// Writes the hash area at its offset.
pub fn write(path: &Path, tree: &HashTree, offset: HashOffset) -> anyhow::Result<()> {
    let result = match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => write_device(path, tree, offset),
        Ok(metadata) if metadata.is_file() => replace(path, Some(metadata.permissions()), tree, offset),
        Ok(_) => bail!("{} is neither a file nor a block device", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace(path, None, tree, offset),
        Err(error) => Err(error.into()),
    };
    result.with_context(|| format!("cannot write {}", path.display()))
}

fn write_device(path: &Path, tree: &HashTree, offset: HashOffset) -> anyhow::Result<()> {
    let mut device = OpenOptions::new().write(true).open(path)?;
    device.seek(SeekFrom::Start(offset.bytes()))?;
    let mut stream = BufWriter::with_capacity(1 << 20, &device);
    tree.write_to(&mut stream, offset)?;
    stream.flush()?;
    drop(stream);
    Ok(device.sync_all()?)
}

fn replace(
    path: &Path,
    permissions: Option<Permissions>,
    tree: &HashTree,
    offset: HashOffset,
) -> anyhow::Result<()> {
    // A symbolic link stays one: its target is replaced.
    let path = if permissions.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
    let folder = folder(&path);
    // Like any new file, it gets the permissions of the umask.
    let beside = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(".dm-verity-").permissions(beside).tempfile_in(&folder)?;
    let old = match offset {
        HashOffset::ZERO => None,
        _ if permissions.is_some() => Some(File::open(&path)?),
        _ => None,
    };
    if let Some(old) = &old {
        io::copy(&mut old.take(offset.bytes()), file.as_file_mut())?;
    }
    file.as_file().set_len(offset.bytes())?;
    file.as_file_mut().seek(SeekFrom::Start(offset.bytes()))?;
    tree.write_to(file.as_file_mut(), offset)?;
    if let Some(mut old) = old {
        old.seek(SeekFrom::Start(offset.bytes() + tree.length(offset)))?;
        io::copy(&mut old, file.as_file_mut())?;
    }
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(File::open(&folder)?.sync_all()?)
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
