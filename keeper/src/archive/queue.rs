//! What waits in `pg_wal` to be archived: PostgreSQL keeps a `.ready` file for each, and makes it `.done`
//! when our gate has ended with 0.

use postgres::datadir::DataDir;
use postgres::durable;
use postgres::owner::Owner;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// PostgreSQL's marks.
const READY: &str = "ready";
const DONE: &str = "done";

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// How many files.
    pub waiting: u64,
    /// For how long the oldest has; by the wall clock, for people.
    pub oldest: Option<Duration>,
}

/// Looks. Blocks.
pub fn look(dir: &DataDir) -> io::Result<Queue> {
    let mut queue = Queue::default();
    for entry in fs::read_dir(status_dir(dir))? {
        let entry = entry?;
        if !has_mark(&entry.path(), READY) {
            continue;
        }
        queue.waiting += 1;
        // It may be done by now.
        let since = entry.metadata().and_then(|found| found.modified());
        let age = since.ok().and_then(|since| since.elapsed().ok());
        queue.oldest = queue.oldest.max(age);
    }
    Ok(queue)
}

/// Whether a file has been archived, or need not be. One look at a directory entry.
pub fn is_done(dir: &DataDir, file: &str) -> bool {
    status_dir(dir).join(format!("{file}.{DONE}")).exists()
}

/// In a fresh copy: whatever is marked as done was marked by the copying, which archives nothing. Asked
/// about again it is kept until it is known to be stored, as if it had been streamed. Blocks.
pub fn ask_again(dir: &DataDir) -> io::Result<()> {
    for entry in fs::read_dir(status_dir(dir))? {
        let path = entry?.path();
        if has_mark(&path, DONE) {
            fs::rename(&path, path.with_extension(READY))?;
        }
    }
    fs::File::open(status_dir(dir))?.sync_all()
}

/// In a copy by `pg_basebackup`: its last segment has no mark, since it was not received to its end. Where its
/// records do go up to there, the standby begins to stream with the next one, and PostgreSQL would notice only
/// when it wants to remove the file that nobody was asked about it: long after later ones were stored. Blocks.
pub fn ask_about_the_last(dir: &DataDir, owner: &Owner) -> io::Result<()> {
    for entry in fs::read_dir(dir.wal_dir())? {
        let name = entry?.file_name();
        let segment = name
            .to_str()
            .filter(|name| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(segment) = segment.filter(|segment| !is_done(dir, segment)) {
            let mark = status_dir(dir).join(format!("{segment}.{READY}"));
            durable::write(&mark, b"", 0o600, owner).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn status_dir(dir: &DataDir) -> PathBuf {
    dir.wal_dir().join("archive_status")
}

fn has_mark(path: &std::path::Path, mark: &str) -> bool {
    path.extension().is_some_and(|extension| extension == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::new(scratch.path());
        let status = status_dir(&dir);
        assert!(look(&dir).is_err());
        fs::create_dir_all(&status).unwrap();
        assert_eq!(look(&dir).unwrap(), Queue::default());
        for name in ["000000010000000000000001.done", "00000002.history.ready"] {
            fs::write(status.join(name), "").unwrap();
        }
        let queue = look(&dir).unwrap();
        assert!(is_done(&dir, "000000010000000000000001") && !is_done(&dir, "00000002.history"));
        assert!(queue.waiting == 1 && queue.oldest.is_some(), "{queue:?}");
        ask_again(&dir).unwrap();
        assert_eq!(look(&dir).unwrap().waiting, 2);
        assert!(status.join("000000010000000000000001.ready").exists());
        for name in ["000000010000000000000001", "000000010000000000000002", "00000003.history"] {
            fs::write(dir.wal_dir().join(name), "").unwrap();
        }
        ask_about_the_last(&dir, &Owner::current()).unwrap();
        assert_eq!(look(&dir).unwrap().waiting, 3);
        assert!(status.join("000000010000000000000002.ready").exists());
    }
}
