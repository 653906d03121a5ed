//! Yields files and folders that are whole or absent: written to a temporary name, synced, renamed.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Writes `bytes` to `path` atomically: a reader sees the old content or the new.
///
/// # Errors
/// The file system's error.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    sweep(folder);
    let mut file = tempfile::Builder::new().prefix(&temporary_prefix()).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    // A temporary file is private; the result gets the mode that the umask allows.
    fs::set_permissions(file.path(), permissions())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Accepts that a file to delete is already gone.
fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn permissions() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o644)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A folder that appears under its name only once it is complete.
#[derive(Debug)]
pub struct NewFolder {
    temporary: tempfile::TempDir,
    target: PathBuf,
}

impl NewFolder {
    /// Begins a folder that is to become `target`; an existing one stays until [`NewFolder::finish`].
    ///
    /// # Errors
    /// The file system's error.
    pub fn begin(target: &Path) -> io::Result<Self> {
        let folder = folder_of(target);
        fs::create_dir_all(folder)?;
        sweep(folder);
        let temporary = tempfile::Builder::new().prefix(&temporary_prefix()).tempdir_in(folder)?;
        Ok(NewFolder { temporary, target: target.to_owned() })
    }

    /// Returns the path to write to.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Renames the folder to its target in one step; the old folder is deleted. All files must be synced.
    ///
    /// # Errors
    /// The file system's error; the old folder is then still there.
    pub fn finish(self) -> io::Result<()> {
        self.exchange()?;
        Ok(())
    }

    /// Finishes like [`NewFolder::finish`], but deletes only files with these names from the old folder. If it holds anything
    /// else, it stays beside the new one, and its new name is returned.
    ///
    /// # Errors
    /// The file system's error; the old folder is then still there.
    pub(super) fn finish_over(self, known: &[OsString]) -> io::Result<Option<PathBuf>> {
        let kept = folder_of(&self.target).join(format!("proofmark-kept-{}", std::process::id()));
        let Some(temporary) = self.exchange()? else { return Ok(None) };
        let old = temporary.keep();
        let removed = known.iter().try_for_each(|name| fs::remove_file(old.join(name)).or_else(absent));
        if removed.and_then(|()| fs::remove_dir(&old)).is_ok() {
            return Ok(None);
        }
        // Under its temporary name, the next run would sweep it away.
        fs::rename(&old, &kept)?;
        Ok(Some(kept))
    }

    /// Exchanges the folders, and returns the old one, if any, which is deleted on drop.
    fn exchange(self) -> io::Result<Option<tempfile::TempDir>> {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o755))?;
        fs::File::open(self.path())?.sync_all()?;
        let exchanged = renameat_with(CWD, self.path(), CWD, &self.target, RenameFlags::EXCHANGE);
        let parent = fs::File::open(folder_of(&self.target))?;
        let old = match exchanged {
            // The old folder now has the temporary name.
            Ok(()) => Some(self.temporary),
            Err(rustix::io::Errno::NOENT) => {
                fs::rename(self.path(), &self.target)?;
                // Nothing is left to delete under that name.
                let _ = self.temporary.keep();
                None
            }
            Err(error) => return Err(error.into()),
        };
        parent.sync_all()?;
        Ok(old)
    }
}

/// Returns the prefix of this process's temporary names.
pub(super) fn temporary_prefix() -> String {
    format!(".proofmark-new-{}-", std::process::id())
}

/// Deletes what killed runs left behind: temporary files and folders of dead processes.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(".proofmark-new-"));
        let process =
            process.and_then(|rest| rest.split('-').next()).and_then(|number| number.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            // A leftover is untidy, not wrong: failing to delete it does not fail this run.
            let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_and_takes_the_place_of_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        for round in ["one", "two"] {
            let new = NewFolder::begin(&target).unwrap();
            fs::write(new.path().join(round), round).unwrap();
            assert!(!target.join(round).exists());
            new.finish().unwrap();
            let names: Vec<_> =
                fs::read_dir(&target).unwrap().flatten().map(|entry| entry.file_name()).collect();
            assert_eq!(names, [round]);
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_appears_in_a_folder_while_it_is_replaced_is_kept_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        fs::create_dir(&target).unwrap();
        for name in ["known", "mine"] {
            fs::write(target.join(name), name).unwrap();
        }
        let new = NewFolder::begin(&target).unwrap();
        fs::write(new.path().join("new"), "new").unwrap();
        let kept = new.finish_over(&["known".into(), "absent".into()]).unwrap().unwrap();
        assert_eq!(fs::read(kept.join("mine")).unwrap(), b"mine");
        assert!(target.join("new").exists() && !kept.join("known").exists());
        // Another run does not take it for a leftover.
        drop(NewFolder::begin(&target).unwrap());
        assert!(kept.join("mine").exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_is_not_finished_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        drop(NewFolder::begin(&root.path().join("out")).unwrap());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_swept_away() {
        let root = tempfile::tempdir().unwrap();
        // Process IDs on Linux are below 4 Mi (PID_MAX_LIMIT).
        let left = root.path().join(".proofmark-new-99999999-x");
        fs::create_dir(&left).unwrap();
        drop(NewFolder::begin(&root.path().join("out")).unwrap());
        assert!(!left.exists());
        let mine = root.path().join(format!("{}y", temporary_prefix()));
        for file in [&left, &mine] {
            fs::write(file, "half").unwrap();
        }
        write(&root.path().join("file"), b"whole").unwrap();
        assert!(!left.exists() && mine.exists());
    }
}
