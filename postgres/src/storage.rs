//! The storage under a data directory: whether a write gets down to the disk, and how much room there is.
//! Everything here blocks, on a frozen disk for ever.

use crate::datadir::DataDir;
use crate::owner::Owner;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file that is written to. Base backups and `pg_rewind` leave out what begins like this
/// (`PG_TEMP_FILE_PREFIX`).
const PROBE: &str = "pgsql_tmp.pgtandem-probe";
/// One page. It is overwritten in place, so that a full disk is no failure.
const PAGE: [u8; 8192] = [0; 8192];

/// The room in a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// A directory in it.
    pub path: PathBuf,
    /// What everybody may still take, in bytes.
    pub free: u64,
    /// Its size, in bytes.
    pub total: u64,
}

/// Writes a page to each file system of a cluster and waits until it is on the disk. Where there is no
/// cluster yet nothing is written: what makes one wants the directory empty.
pub fn probe(data_dir: &DataDir, owner: &Owner) -> io::Result<()> {
    if !data_dir.join("PG_VERSION").try_exists()? {
        return Ok(());
    }
    directories(data_dir).iter().try_for_each(|dir| write(dir, owner))
}

fn write(dir: &Path, owner: &Owner) -> io::Result<()> {
    let path = dir.join(PROBE);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    owner.chown(&path).map_err(io::Error::other)?;
    file.write_all(&PAGE)?;
    file.sync_data()
}

/// The room in each file system of a cluster.
pub fn room(data_dir: &DataDir) -> io::Result<Vec<Room>> {
    directories(data_dir).into_iter().map(room_in).collect()
}

fn room_in(path: PathBuf) -> io::Result<Room> {
    let stat = rustix::fs::statvfs(&path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Room { path, free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
}

/// The data directory, and the WAL directory where it is a symbolic link to elsewhere.
fn directories(data_dir: &DataDir) -> Vec<PathBuf> {
    let wal = data_dir.wal_dir();
    let linked = fs::symlink_metadata(&wal).is_ok_and(|meta| meta.is_symlink());
    let wal = linked.then(|| fs::canonicalize(&wal).ok()).flatten();
    std::iter::once(data_dir.path().to_path_buf()).chain(wal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wal_directory_elsewhere_is_looked_at_too() {
        let temp = tempfile::tempdir().unwrap();
        let (data, wal) = (temp.path().join("data"), temp.path().join("wal"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&wal).unwrap();
        std::os::unix::fs::symlink(&wal, data.join("pg_wal")).unwrap();
        let data_dir = DataDir::new(&data);
        probe(&data_dir, &Owner::current()).unwrap();
        assert!(!data.join(PROBE).exists(), "the directory is to become a cluster");
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        probe(&data_dir, &Owner::current()).unwrap();
        probe(&data_dir, &Owner::current()).unwrap();
        assert!(data.join(PROBE).exists() && wal.join(PROBE).exists());
        let room = room(&data_dir).unwrap();
        assert_eq!(room.len(), 2);
        assert!(room.iter().all(|room| room.free > 0 && room.total >= room.free));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("PG_VERSION"), "15\n").unwrap();
        std::os::unix::fs::symlink(temp.path().join("gone"), temp.path().join(PROBE)).unwrap();
        let dir = DataDir::new(temp.path());
        fs::create_dir(temp.path().join("gone")).unwrap();
        assert!(probe(&dir, &Owner::current()).is_err());
    }
}
