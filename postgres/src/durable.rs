//! Files that are either the old or the new content after a crash, and the new one once a call has
//! returned. All functions block on the disk: call them on a blocking thread.
//!
//! Not here: what the files say.

use crate::owner::{Owner, OwnerError};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Whether a call changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The file is new.
    Changed,
    /// It was so already (and is now known to be on disk).
    Unchanged,
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// What the operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It could not be given to its owner.
    #[error(transparent)]
    Owner(#[from] OwnerError),
}

impl DurableError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Replaces the content of a file: a temporary file beside it, fsync, rename, fsync of the directory.
/// A symbolic link is followed, so that it stays one.
pub fn write(
    path: &Path,
    content: &[u8],
    mode: u32,
    owner: &Owner,
) -> Result<Written, DurableError> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = parent(path);
    if fs::read(path).is_ok_and(|present| present == content) {
        // An earlier call may have ended between its rename and its fsync.
        let file = File::open(path).map_err(DurableError::io("open", path))?;
        file.sync_all().map_err(DurableError::io("sync", path))?;
        sync_dir(dir)?;
        return Ok(Written::Unchanged);
    }
    let temporary = temporary_beside(path);
    remove_if_there(&temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(DurableError::io("create", &temporary))?;
    // The mode above was subject to the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(DurableError::io("set the mode of", &temporary))?;
    owner.chown(&temporary)?;
    file.write_all(content).map_err(DurableError::io("write", &temporary))?;
    file.sync_all().map_err(DurableError::io("sync", &temporary))?;
    drop(file);
    fs::rename(&temporary, path).map_err(DurableError::io("rename to", path))?;
    sync_dir(dir)?;
    Ok(Written::Changed)
}

/// Removes a file; `Unchanged` where there was none.
pub fn remove(path: &Path) -> Result<Written, DurableError> {
    let written = remove_if_there(path)?;
    sync_dir(parent(path))?;
    Ok(written)
}

/// Creates a directory, and its parents, where it is missing; sets mode and owner of a new one.
pub fn create_dir(path: &Path, mode: u32, owner: &Owner) -> Result<Written, DurableError> {
    if path.is_dir() {
        return Ok(Written::Unchanged);
    }
    fs::create_dir_all(path).map_err(DurableError::io("create directory", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(DurableError::io("set the mode of", path))?;
    owner.chown(path)?;
    sync_dir(parent(path))?;
    Ok(Written::Changed)
}

/// Makes the entries of a directory durable.
pub fn sync_dir(dir: &Path) -> Result<(), DurableError> {
    let handle = File::open(dir).map_err(DurableError::io("open directory", dir))?;
    handle.sync_all().map_err(DurableError::io("sync directory", dir))
}

/// Makes everything durable that was written to the file system that `path` is on (syncfs(2)): one call
/// where a copy of a data directory would need one for each of its thousand files.
pub fn sync_file_system(path: &Path) -> Result<(), DurableError> {
    let handle = File::open(path).map_err(DurableError::io("open", path))?;
    rustix::fs::syncfs(&handle).map_err(|error| DurableError::io("sync", path)(error.into()))
}

fn remove_if_there(path: &Path) -> Result<Written, DurableError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Written::Changed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Written::Unchanged),
        Err(error) => Err(DurableError::io("remove", path)(error)),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Always the same name, so that an interrupted call leaves nothing that the next one does not clear.
fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".pgtandem-new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_once_and_keeps_links() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::current();
        let path = dir.path().join("a");
        assert_eq!(write(&path, b"1", 0o600, &owner).unwrap(), Written::Changed);
        assert_eq!(write(&path, b"1", 0o600, &owner).unwrap(), Written::Unchanged);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(write(&link, b"2", 0o644, &owner).unwrap(), Written::Changed);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
        assert_eq!(remove(&path).unwrap(), Written::Changed);
        assert_eq!(remove(&path).unwrap(), Written::Unchanged);
    }

    #[test]
    fn errors_name_the_file() {
        let error = write(Path::new("/nonexistent/x"), b"", 0o600, &Owner::current()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
