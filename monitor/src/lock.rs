//! Only one monitor at a time in a data directory.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Held as long as this lives; the kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    /// The lock file.
    pub path: PathBuf,
    _file: File,
}

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("another monitor is running on {}", .0.display())]
    Taken(PathBuf),
    /// It cannot be locked.
    #[error("{} cannot be locked", path.display())]
    Failed {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Takes the directory.
pub fn take(dir: &Path) -> Result<Lock, LockError> {
    let path = dir.join("monitor.lock");
    let failed = |source: io::Error| LockError::Failed { path: path.clone(), source };
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { path, _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Taken(dir.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = take(dir.path()).unwrap();
        assert!(matches!(take(dir.path()), Err(LockError::Taken(_))));
        drop(held);
        take(dir.path()).unwrap();
    }
}
