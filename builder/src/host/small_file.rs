//! Yields the bytes of a file of limited size.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::trust::bundle::MOST_BYTES;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too long.
    #[error("{} has more than {most} bytes, which no {what} has", path.display())]
    Long {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// The largest size in bytes.
        most: usize,
    },
}

/// The largest event log in bytes. Firmware reserves 64 KiB for one, and Linux adds little.
pub const LOG: usize = 4 << 20;
/// The largest evidence in bytes: a quote and a log as text in JSON, or a log as a list of records.
pub const EVIDENCE: usize = 4 * LOG;

/// Reads a file of at most [`MOST_BYTES`].
///
/// # Errors
/// [`Error`].
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    read_at_most(path, "file of this kind", MOST_BYTES)
}

/// Reads a file of at most so many bytes; `what` it should be is for the message.
///
/// # Errors
/// [`Error`].
pub fn read_at_most(path: &Path, what: &'static str, most: usize) -> Result<Vec<u8>, Error> {
    let cannot = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > most {
        return Err(Error::Long { path: path.to_owned(), what, most });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_an_endless_one_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(read_at_most(&path, "log", 10).unwrap(), [7; 10]);
        let error = read_at_most(&path, "log", 9).unwrap_err().to_string();
        assert_eq!(error, format!("{} has more than 9 bytes, which no log has", path.display()));
        assert!(matches!(read(Path::new("/dev/zero")), Err(Error::Long { most: MOST_BYTES, .. })));
        assert!(matches!(read(&folder.path().join("none")), Err(Error::Read { .. })));
    }
}
