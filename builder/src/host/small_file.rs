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
    #[error("{} is longer than {MOST_BYTES} bytes", path.display())]
    Long {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a file of at most [`MOST_BYTES`].
///
/// # Errors
/// [`Error`].
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let cannot = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    let most = MOST_BYTES as u64;
    file.take(most + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > most {
        return Err(Error::Long { path: path.to_owned() });
    }
    Ok(bytes)
}
