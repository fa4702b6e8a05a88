//! The storage under a data directory: whether a write gets down to the disk, and how much room there is.
//! Everything here blocks, on a frozen disk for ever.

use crate::datadir::DataDir;
use crate::durable::{self, DurableError};
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
/// cluster yet nothing is written: what makes one wants the directory empty. A disk that is full answers.
pub fn probe(data_dir: &DataDir, owner: &Owner) -> io::Result<()> {
    if !data_dir.join("PG_VERSION").try_exists()? {
        return Ok(());
    }
    directories(data_dir).iter().try_for_each(|dir| match write(dir, owner) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        outcome => outcome,
    })
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
    directories(data_dir).into_iter().chain(tablespaces(data_dir)).map(room_in).collect()
}

/// The room in the file system of a directory, or of its nearest parent that is there.
pub fn room_in(path: PathBuf) -> io::Result<Room> {
    let existing = path.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Room { path, free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
}

/// The data directory, and the WAL directory where it is a symbolic link to elsewhere.
fn directories(data_dir: &DataDir) -> Vec<PathBuf> {
    std::iter::once(data_dir.path().to_path_buf()).chain(linked(&data_dir.wal_dir())).collect()
}

/// The tablespaces that lie elsewhere.
pub fn tablespaces(data_dir: &DataDir) -> Vec<PathBuf> {
    tablespace_links(data_dir).iter().filter_map(|link| linked(link)).collect()
}

/// What leads to the tablespaces of a cluster.
pub fn tablespace_links(data_dir: &DataDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir.join("pg_tblspc")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Where a symbolic link leads.
fn linked(path: &Path) -> Option<PathBuf> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    is_link.then(|| fs::canonicalize(path).ok()).flatten()
}

/// Makes a whole cluster durable: the data directory, and what lies elsewhere of it.
pub fn sync(data_dir: &DataDir) -> Result<(), DurableError> {
    let mut all = directories(data_dir).into_iter().chain(tablespaces(data_dir));
    all.try_for_each(|dir| durable::sync_file_system(&dir))
}

/// What PostgreSQL and we keep in a WAL directory: segments, the histories of timelines, backups and
/// files that are being made of them, and two directories.
fn belongs_to_wal(name: &str) -> bool {
    let digits = name.bytes().take_while(u8::is_ascii_hexdigit).count();
    digits == 24
        || (digits == 8 && name.ends_with(".history"))
        || ["archive_status", "summaries", PROBE].contains(&name)
        || name.starts_with("xlogtemp.")
}

/// Empties a WAL directory for the next copy. The caller knows that it is this cluster's; where there
/// is anything else in it, nothing is removed.
pub fn empty_wal_dir(dir: &Path) -> io::Result<()> {
    empty(dir, belongs_to_wal, "a WAL directory")
}

/// The same of a tablespace; `own` is what this version of PostgreSQL has in it.
pub fn empty_tablespace(dir: &Path, own: &str) -> io::Result<()> {
    empty(dir, |name| name == own, "the tablespace")
}

/// Whether there is nothing else in it.
pub fn check_tablespace(dir: &Path, own: &str) -> io::Result<()> {
    entries(dir, |name| name == own, "the tablespace").map(drop)
}

/// Empties a data directory that an initdb of ours has not made to its end.
pub fn empty_half_made(dir: &Path) -> io::Result<()> {
    empty(dir, |_| true, "the data directory")
}

fn empty(dir: &Path, belongs: impl Fn(&str) -> bool, what: &str) -> io::Result<()> {
    for entry in entries(dir, belongs, what)? {
        let is_dir = entry.file_type()?.is_dir();
        let path = entry.path();
        if is_dir { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}

/// What is in a directory; an error where something does not belong there.
fn entries(
    dir: &Path,
    belongs: impl Fn(&str) -> bool,
    what: &str,
) -> io::Result<Vec<fs::DirEntry>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    let strange = entries.iter().find(|entry| !belongs(&entry.file_name().to_string_lossy()));
    match strange {
        Some(strange) => {
            let path = strange.path();
            Err(io::Error::other(format!("{} is no part of {what}", path.display())))
        }
        None => Ok(entries),
    }
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
    fn only_wal_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let wal = temp.path().join("wal");
        empty_wal_dir(&wal).unwrap();
        let files = ["000000010000000000000001", "00000003.history", "xlogtemp.17", PROBE];
        for name in files {
            fs::create_dir_all(wal.join("archive_status")).unwrap();
            fs::write(wal.join(name), "").unwrap();
        }
        fs::write(wal.join("archive_status/000000010000000000000001.done"), "").unwrap();
        fs::write(wal.join("letter"), "").unwrap();
        let refused = empty_wal_dir(&wal).unwrap_err().to_string();
        assert!(refused.contains("letter"), "{refused}");
        assert_eq!(fs::read_dir(&wal).unwrap().count(), 6);
        fs::remove_file(wal.join("letter")).unwrap();
        empty_wal_dir(&wal).unwrap();
        assert_eq!(fs::read_dir(&wal).unwrap().count(), 0);
    }

    #[test]
    fn only_the_own_tablespace_is_removed() {
        const OWN: &str = "PG_15_202209061";
        let temp = tempfile::tempdir().unwrap();
        let space = temp.path().join("space");
        empty_tablespace(&space, OWN).unwrap();
        for name in ["PG_15_202209061/5", "PG_16_202307071", "lost+found"] {
            fs::create_dir_all(space.join(name)).unwrap();
        }
        for strange in ["PG_16_202307071", "lost+found"] {
            assert!(check_tablespace(&space, OWN).is_err());
            assert!(empty_tablespace(&space, OWN).is_err());
            assert_eq!(fs::read_dir(space.join(OWN)).unwrap().count(), 1);
            fs::remove_dir(space.join(strange)).unwrap();
        }
        check_tablespace(&space, OWN).unwrap();
        empty_tablespace(&space, OWN).unwrap();
        assert_eq!(fs::read_dir(&space).unwrap().count(), 0);
    }

    #[test]
    fn the_room_of_a_tablespace() {
        let temp = tempfile::tempdir().unwrap();
        let (data, space) = (temp.path().join("data"), temp.path().join("space"));
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        fs::create_dir(&space).unwrap();
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc/16385")).unwrap();
        let room = room(&DataDir::new(&data)).unwrap();
        assert_eq!(room.iter().map(|room| &room.path).collect::<Vec<_>>(), [&data, &space]);
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
