//! Faults that need a look inside: processes of one server, and directories while they change.

use super::node::Node;
use super::process::signal;
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

impl Node {
    /// Stops the processes that send WAL to standbys (to one, or to all), so that what is written
    /// from now on stays here: not even the system's buffers get it. Returns how many there are.
    pub async fn hold_wal_back(&self, from: Option<&str>) -> Result<usize> {
        let sql = self.sql().await?;
        let query = "select pid, application_name from pg_stat_replication";
        let mut held = 0;
        for row in sql.query(query, &[]).await? {
            let (pid, name): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
            if from.is_none_or(|wanted| wanted == name) {
                signal(pid, Signal::STOP)?;
                held += 1;
            }
        }
        ensure!(held > 0, "{} sends WAL to nobody", self.name());
        Ok(held)
    }

    /// Removes the WAL files of a server that is down whose names are lower than this one.
    pub fn remove_wal_before(&self, name: &str) -> Result<()> {
        for entry in fs::read_dir(self.pgdata().join("pg_wal"))? {
            let entry = entry?;
            if entry.file_type()?.is_file() && *entry.file_name() < *OsStr::new(name) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// What a directory tree holds: to be compared with what it holds later. Access times and links
/// are not looked at.
pub fn contents(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    collect(dir, &mut found);
    found.sort();
    found
}

fn collect(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        found.push(format!(
            "{} inode {} mode {:o} owner {} size {} changed {}.{:09}",
            entry.path().display(),
            meta.ino(),
            meta.mode(),
            meta.uid(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
        ));
        if meta.is_dir() {
            collect(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touched_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), "1").unwrap();
        let before = contents(dir.path());
        assert_eq!(before, contents(dir.path()));
        fs::write(dir.path().join("a/b"), "2").unwrap();
        assert_ne!(before, contents(dir.path()));
    }
}
