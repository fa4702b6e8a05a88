//! The data directory as files: whether there is a cluster, whether it would start as a standby, how
//! much room is left. All functions block on the disk.
//!
//! Not here: timeline history files ([`crate::timelines`]), the control file ([`crate::control`]).

use crate::durable::{self, DurableError, Written};
use crate::owner::Owner;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The mode of what we write into a data directory, as the server's own files have it.
pub(crate) const FILE_MODE: u32 = 0o600;

/// What a data directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The directory does not exist.
    Missing,
    /// Nothing: `initdb` and `pg_basebackup` accept it.
    Empty,
    /// A cluster: it has `PG_VERSION`, `global/pg_control` and a WAL directory.
    Cluster {
        /// From `PG_VERSION`.
        major: u32,
    },
    /// Something else.
    Unusable {
        /// In words.
        reason: String,
    },
}

/// The path of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Names one; nothing is looked at. Made absolute, since programs are not run in the present
    /// working directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path: std::path::absolute(&path).unwrap_or(path) }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as the operating system shows it for a process in it; as given where it does not
    /// exist.
    pub fn canonical(&self) -> PathBuf {
        fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone())
    }

    /// A file in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// `pg_wal`.
    pub fn wal_dir(&self) -> PathBuf {
        self.join("pg_wal")
    }

    /// Looks at what is there.
    pub fn contents(&self) -> Contents {
        let unusable = |reason: String| Contents::Unusable { reason };
        let mut entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Contents::Missing,
            Err(error) => return unusable(format!("cannot be read: {error}")),
        };
        if entries.next().is_none() {
            return Contents::Empty;
        }
        let version = match fs::read_to_string(self.join("PG_VERSION")) {
            Ok(text) => text,
            Err(error) => return unusable(format!("not empty, and PG_VERSION: {error}")),
        };
        let Ok(major) = version.trim().parse() else {
            return unusable(format!("PG_VERSION says '{}'", version.trim()));
        };
        for needed in ["global/pg_control", "pg_wal", "base"] {
            if !self.join(needed).exists() {
                return unusable(format!("PG_VERSION says {major}, but {needed} is missing"));
            }
        }
        Contents::Cluster { major }
    }

    /// Whether it would start as a standby.
    pub fn is_standby(&self) -> bool {
        self.join("standby.signal").exists()
    }

    /// Makes it start as a standby, durably. A `recovery.signal` would be ignored beside it.
    pub fn set_standby(&self, owner: &Owner) -> Result<Written, DurableError> {
        durable::write(&self.join("standby.signal"), b"", FILE_MODE, owner)
    }

    /// Makes it start as a primary, durably.
    pub fn clear_standby(&self) -> Result<Written, DurableError> {
        durable::remove(&self.join("standby.signal"))
    }

    /// Bytes that an unprivileged user may still write on the file system of the directory, or of its
    /// nearest existing parent.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let existing = self.path.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        let stat = rustix::fs::statvfs(existing)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Creates the directory with the mode that the server wants, where it is missing.
    pub fn create(&self, owner: &Owner) -> Result<Written, DurableError> {
        durable::create_dir(&self.path, 0o700, owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_told_apart() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path().join("data"));
        assert_eq!(dir.contents(), Contents::Missing);
        assert!(dir.free_bytes().unwrap() > 0);
        dir.create(&Owner::current()).unwrap();
        assert_eq!(dir.contents(), Contents::Empty);
        fs::write(dir.join("x"), "").unwrap();
        assert!(matches!(dir.contents(), Contents::Unusable { .. }));
        fs::write(dir.join("PG_VERSION"), "15\n").unwrap();
        let Contents::Unusable { reason } = dir.contents() else { panic!("not a cluster") };
        assert!(reason.contains("pg_control"), "{reason}");
        fs::create_dir_all(dir.join("global")).unwrap();
        fs::create_dir_all(dir.join("pg_wal")).unwrap();
        fs::create_dir_all(dir.join("base")).unwrap();
        fs::write(dir.join("global/pg_control"), "").unwrap();
        assert_eq!(dir.contents(), Contents::Cluster { major: 15 });
    }

    #[test]
    fn the_standby_signal() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path());
        assert!(!dir.is_standby());
        assert_eq!(dir.set_standby(&Owner::current()).unwrap(), Written::Changed);
        assert_eq!(dir.set_standby(&Owner::current()).unwrap(), Written::Unchanged);
        assert!(dir.is_standby());
        assert_eq!(dir.clear_standby().unwrap(), Written::Changed);
        assert!(!dir.is_standby());
    }
}
