//! What must be so before a copy or a rewind begins: from then on the old data counts as lost, so what
//! would fail half-way must not begin. A refusal says what is missing, and is tried again.

use super::StepError;
use crate::node::{Node, disk};
use postgres::datadir::DataDir;
use postgres::session::Session;
use postgres::session::primary::Tablespace;
use postgres::storage;
use std::fs;
use std::path::{Path, PathBuf};

/// What comes in addition while it goes on: WAL, and files that are not part of a database. Four WAL
/// segments of the default size.
const MARGIN: u64 = 64 << 20;

impl Node {
    /// A copy is made beside what is there, so it needs all its room anew.
    pub(super) async fn check_room_to_clone(
        &self,
        upstream: &Session,
        tablespaces: &[Tablespace],
    ) -> Result<(), StepError> {
        let (data, _) = upstream.data_size().await?;
        for Tablespace { location, size, .. } in tablespaces {
            // What is there goes first.
            let there = disk(|| tree_size(location));
            has_room("a tablespace of a copy", location, size.saturating_sub(there))?;
        }
        let target = self.instance.data_dir.path();
        let wal = MARGIN + self.size_of_unarchived(upstream).await?;
        match &self.config.waldir {
            Some(dir) => {
                has_room("a copy", target, data)?;
                // What is there goes first.
                has_room("the WAL of a copy", dir, wal.saturating_sub(size_of(dir)))
            }
            None => has_room("a copy", target, data + wal),
        }
    }

    /// What comes with a copy for the archive.
    async fn size_of_unarchived(&self, upstream: &Session) -> Result<u64, StepError> {
        if self.config.archive.is_none() {
            return Ok(0);
        }
        Ok(upstream.unarchived().await?.iter().map(|file| file.bytes).sum())
    }

    /// A rewind brings all WAL of its source, in place of the own, and what has changed since the fork,
    /// which nobody knows before.
    pub(super) async fn check_room_to_rewind(&self, upstream: &Session) -> Result<(), StepError> {
        let (_, wal) = upstream.data_size().await?;
        let dir = self.instance.data_dir.wal_dir();
        let dir = disk(|| fs::canonicalize(&dir)).unwrap_or(dir);
        has_room("a rewind", &dir, wal.saturating_sub(size_of(&dir)) + MARGIN)
    }

    /// A copy empties the WAL directory that the configuration names, if it is this node's.
    pub(super) fn claim_wal_dir(&mut self) -> Result<(), StepError> {
        let Some(dir) = self.config.waldir.clone() else { return Ok(()) };
        let claimed = self.state.wal_dir.as_ref() == Some(&dir);
        let links = || self.copies().map(|copy| copy.wal_dir());
        if !claimed && !disk(|| is_empty(&dir) || leads_to(links(), &dir)) {
            let text = format!(
                "{} is not empty, and nothing says that it is the WAL directory of this node: empty it, or name another one with --waldir",
                dir.display()
            );
            return Err(StepError::NotSo(text));
        }
        self.persist(|state| state.wal_dir = Some(dir))?;
        Ok(())
    }

    /// The same of the tablespaces: every node has them in the same places.
    pub(super) fn claim_tablespaces(
        &mut self,
        tablespaces: &[Tablespace],
    ) -> Result<(), StepError> {
        let links = || self.copies().into_iter().flat_map(|copy| storage::tablespace_links(&copy));
        for Tablespace { location, directory, .. } in tablespaces {
            let claimed = self.state.tablespaces.contains(location);
            if !claimed && !disk(|| is_empty(location) || leads_to(links(), location)) {
                let text = format!(
                    "{} is not empty, and nothing says that it is a tablespace of this node: empty it",
                    location.display()
                );
                return Err(StepError::NotSo(text));
            }
            let checked = disk(|| storage::check_tablespace(location, directory));
            checked.map_err(|error| StepError::NotSo(error.to_string()))?;
        }
        let all = tablespaces.iter().map(|space| space.location.clone());
        self.persist(|state| state.tablespaces.extend(all))?;
        Ok(())
    }

    /// Where this node has data, or a copy that was not completed.
    fn copies(&self) -> [DataDir; 2] {
        let path = self.instance.data_dir.path();
        [path.to_owned(), super::copy::beside(path, "new")].map(DataDir::new)
    }
}

fn has_room(what: &str, path: &Path, need: u64) -> Result<(), StepError> {
    let found = disk(|| storage::room_in(path.to_owned()));
    let free = found.map_err(|error| StepError::NotSo(error.to_string()))?.free;
    if free >= need {
        return Ok(());
    }
    Err(StepError::NoRoom { what: what.to_owned(), path: path.to_owned(), need, free })
}

/// The files right in a directory.
fn size_of(dir: &Path) -> u64 {
    let entries = disk(|| fs::read_dir(dir)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

fn is_empty(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn leads_to(links: impl IntoIterator<Item = PathBuf>, dir: &Path) -> bool {
    let Ok(dir) = fs::canonicalize(dir) else { return false };
    links.into_iter().any(|link| fs::canonicalize(link).is_ok_and(|to| to == dir))
}

/// All files in a directory, and below.
pub(in crate::steps) fn tree_size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => tree_size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
