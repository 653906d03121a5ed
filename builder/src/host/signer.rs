//! Yields signatures by keys that only their owner can read, or that a command holds.
//!
//! # Shape
//! ```text
//! file      PKCS #8 PEM (ECDSA P-256), or the one-line key of a log or witness; mode 0600 or stricter
//! command   a program that gets a file with the message as its last argument, and prints the signature
//!           (DER, or DER in base64) on stdout: a way to use key services and hardware
//! ```
//! A key is never in an argument, in the environment, or in a message. A command's signature is verified with
//! the public key before it is used.
//!
//! # Not here
//! What is signed: `trust::envelope`, `trust::transparency::note`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::tool;
use crate::advice::{Advice, Advised};
use crate::trust::envelope::{self, Envelope, SigningKey, VerifyingKey, pae};

/// Longest key file, in bytes.
const MOST_BYTES: u64 = 64 << 10;
/// Time limit of a command: people may have to touch hardware.
const PATIENCE: Duration = Duration::from_secs(120);
/// Mode bits that grant access to others than the owner.
const OTHERS: u32 = 0o077;

/// Why a signature cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system operation failed.
    #[error("cannot {deed} {}", path.display())]
    Io {
        /// The operation that failed.
        deed: &'static str,
        /// The path it failed on.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// Others than the owner have access to the key.
    #[error("{} has mode {mode:04o}: users other than its owner can read or change it", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The key belongs to another user.
    #[error("{} belongs to user {owner}, not to user {user}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The current user.
        user: u32,
    },
    /// The file does not hold such a key.
    #[error("{} holds no usable key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: envelope::Error,
    },
    /// The command failed.
    #[error("the signing command failed")]
    Command(#[from] tool::Error),
    /// The command's signature does not verify with the public key.
    #[error("the signing command printed no valid signature for the public key")]
    Answer,
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        let Error::Readable { path, .. } = self else { return None };
        let hint = format!("run `chmod 600 {}`, and consider who may have read it", path.display());
        Some(Advice::failed(hint))
    }
}

/// Reads a secret that only its owner may be able to read.
///
/// # Errors
/// [`Error::Io`], [`Error::Readable`], [`Error::Foreign`].
pub fn secret(path: &Path) -> Result<String, Error> {
    let io = |source| Error::Io { deed: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let user = rustix::process::geteuid().as_raw();
    if owner != user && owner != 0 {
        return Err(Error::Foreign { path: path.to_owned(), owner, user });
    }
    if mode & OTHERS != 0 {
        return Err(Error::Readable { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// Writes a secret to a new file that only its owner can read.
///
/// # Errors
/// [`Error::Io`].
pub fn keep_secret(path: &Path, text: &str) -> Result<(), Error> {
    let io = |source| Error::Io { deed: "write", path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)
}

/// Returns 32 unpredictable bytes.
///
/// # Errors
/// [`Error::Io`].
pub fn random() -> Result<[u8; 32], Error> {
    let path = Path::new("/dev/urandom");
    let io = |source| Error::Io { deed: "read", path: path.to_owned(), source };
    let mut bytes = [0; 32];
    File::open(path).map_err(io)?.read_exact(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// A signer.
#[derive(Debug)]
pub enum Signer {
    /// A key in memory.
    Key(SigningKey),
    /// A program that holds the key.
    Command {
        /// Path of the program, and the arguments before the message's path.
        command: Vec<OsString>,
        /// Its environment.
        environment: BTreeMap<OsString, OsString>,
        /// The public half of its key.
        public: VerifyingKey,
    },
}

impl Signer {
    /// Loads the key in a file.
    ///
    /// # Errors
    /// [`Error`].
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let key = SigningKey::from_pem(&secret(path)?);
        Ok(Signer::Key(key.map_err(|source| Error::Key { path: path.to_owned(), source })?))
    }

    /// Returns the public half.
    pub fn public(&self) -> VerifyingKey {
        match self {
            Signer::Key(key) => key.public(),
            Signer::Command { public, .. } => public.clone(),
        }
    }

    /// Signs a payload, and returns its envelope.
    ///
    /// # Errors
    /// [`Error::Command`], [`Error::Answer`], [`Error::Io`].
    pub fn envelope(&self, kind: &str, payload: Vec<u8>) -> Result<Envelope, Error> {
        let message = pae(kind, &payload);
        let signature = match self {
            Signer::Key(key) => key.sign(&message),
            Signer::Command { command, environment, .. } => ask(command, environment, &message)?,
        };
        let envelope = Envelope { kind: kind.to_owned(), payload, signature };
        envelope.verify(&self.public()).map_err(|_| Error::Answer)?;
        Ok(envelope)
    }
}

/// Returns a signing command's output for a message.
fn ask(
    command: &[OsString],
    environment: &BTreeMap<OsString, OsString>,
    message: &[u8],
) -> Result<Vec<u8>, Error> {
    let folder = std::env::temp_dir();
    let io = |source| Error::Io { deed: "write in", path: folder.clone(), source };
    let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(io)?;
    file.write_all(message).map_err(io)?;
    file.flush().map_err(io)?;
    let (program, arguments) = command.split_first().ok_or(Error::Answer)?;
    let run = tool::Run {
        program: program.into(),
        arguments: arguments.iter().cloned().chain([file.path().into()]).collect(),
        environment: environment.clone(),
        folder: folder.clone(),
        limit: PATIENCE,
    };
    let output = tool::run(&run)?.stdout;
    // DER begins with 0x30, and base64 of DER does not.
    if output.first() == Some(&0x30) && STANDARD.decode(output.trim_ascii()).is_err() {
        return Ok(output);
    }
    STANDARD.decode(output.trim_ascii()).map_err(|_| Error::Answer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::trust::envelope::IN_TOTO;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[5; 32]).unwrap()
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("key.pem");
        keep_secret(&path, &key().to_secret_pem().unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(keep_secret(&path, ""), Err(Error::Io { .. })));
        assert_eq!(Signer::from_file(&path).unwrap().public(), key().public());
        for mode in [0o640, 0o604, 0o620, 0o660, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(Signer::from_file(&path), Err(Error::Readable { mode: found, .. }) if found == mode)
            );
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        Signer::from_file(&path).unwrap();
        let empty = root.path().join("empty");
        keep_secret(&empty, "").unwrap();
        assert!(matches!(Signer::from_file(&empty), Err(Error::Key { .. })));
        assert!(matches!(Signer::from_file(&root.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
    }

    /// Makes a command that prints a fixed output, and keeps the message.
    fn command(root: &Path, prints: &[u8]) -> Signer {
        fs::write(root.join("prints"), prints).unwrap();
        let script = format!("cat {0}/prints; cp \"$1\" {0}/message", root.display());
        let command = ["/bin/sh", "-c", &script, "sign"].map(OsString::from).to_vec();
        let environment = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]);
        Signer::Command { command, environment, public: key().public() }
    }

    #[test]
    fn a_command_signs_and_is_not_believed_unchecked() {
        let root = tempfile::tempdir().unwrap();
        let message = pae(IN_TOTO, b"{}");
        let good = key().sign(&message);
        let text = format!("{}\n", STANDARD.encode(&good));
        for prints in [good.clone(), text.into_bytes()] {
            let signer = command(root.path(), &prints);
            let envelope = signer.envelope(IN_TOTO, b"{}".to_vec()).unwrap();
            assert_eq!(envelope.signature, good);
            assert_eq!(fs::read(root.path().join("message")).unwrap(), message);
        }
        for prints in [key().sign(b"other"), b"no".to_vec(), Vec::new()] {
            let error = command(root.path(), &prints).envelope(IN_TOTO, b"{}".to_vec()).unwrap_err();
            assert!(matches!(error, Error::Answer), "{error}");
        }
        let missing =
            Signer::Command { command: Vec::new(), environment: BTreeMap::new(), public: key().public() };
        assert!(missing.envelope(IN_TOTO, b"{}".to_vec()).is_err());
    }
}
