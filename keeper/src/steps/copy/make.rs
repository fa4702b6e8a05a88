//! Making a copy: way after way, until one has brought what can be put in place.
//!
//! What must hold: a program that makes no progress is ended with all that it has begun, and whatever it
//! left is not put in place; the old data directory stays until the new one has been checked.

use super::check::{self, Expected};
use super::{beside, prepare, sync, unarchived};
use crate::archive::queue::{ask_about_the_last, ask_again};
use crate::create::{Errand, MakesCopies as _, Way};
use crate::node::Made;
use postgres::backup::BackupOptions;
use postgres::datadir::{Contents, DataDir};
use postgres::durable;
use postgres::instance::Instance;
use postgres::session::Target;
use postgres::session::primary::Tablespace;
use postgres::storage;
use postgres::transfer::{Progress, Transfer};
use program::causes::in_full;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long a program has to end by itself before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// A copy is looked at this many times before it is given up.
const LOOKS: u32 = 20;
/// Where nothing is told, all files are looked at: not more often.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// All that the making of a copy needs.
#[derive(Debug)]
pub(super) struct Making {
    /// Where it shall be in the end.
    pub(super) data_dir: DataDir,
    /// What it is made of.
    pub(super) errand: Errand,
    /// How, one after the other.
    pub(super) ways: Vec<Way>,
    /// What it has to be.
    pub(super) expected: Expected,
    /// The primary, as it is asked what is not archived yet.
    pub(super) primary: Target,
    /// About how large it will be.
    pub(super) bytes: u64,
    /// For how long nothing may come.
    pub(super) patience: Duration,
}

type Shown = watch::Sender<Option<(u64, u64)>>;

impl Making {
    /// Makes it; an error says what was wrong with each way.
    pub(super) async fn run(mut self, shown: &Shown) -> Result<Made, String> {
        let mut reasons = Vec::new();
        for way in self.ways.clone() {
            match self.by(&way, shown).await {
                Ok(()) if way.is_of_the_primary() => return Ok(Made::OfThePrimary),
                Ok(()) => return Ok(Made::Restored { way: way.to_string() }),
                Err(why) => {
                    let why = format!("{}: {}", way.name(), why.trim());
                    tracing::warn!("no copy could be made by {why}");
                    reasons.push(why);
                }
            }
        }
        Err(reasons.join("; "))
    }

    async fn by(&mut self, way: &Way, shown: &Shown) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let path = self.data_dir.path().to_owned();
        let empty = matches!(self.data_dir.contents(), Contents::Missing | Contents::Empty);
        let target = if empty { path.clone() } else { beside(&path, "new") };
        if !empty {
            remove(&target).await.map_err(|error| text(&error))?;
        }
        self.errand.copy.data_dir = DataDir::new(&target);
        let (old, errand) = (self.data_dir.clone(), self.errand.clone());
        blocking(move || make_way(&old, &errand).map_err(|error| text(&error))).await?;
        tracing::info!("a copy is made by {}", way.name());
        self.fill(way, shown).await?;
        self.finish(way).await?;
        if empty {
            return Ok(());
        }
        let old = beside(&path, "old");
        remove(&old).await.map_err(|error| text(&error))?;
        swap(&path, &target, &old).map_err(|error| {
            format!(
                "the new copy is complete in {}, but cannot be put in place: {error}",
                target.display()
            )
        })?;
        remove(&old).await.map_err(|error| text(&error))
    }

    /// Runs the program for as long as something comes of it.
    async fn fill(&self, way: &Way, shown: &Shown) -> Result<(), String> {
        let command = way.command(&self.errand).ok_or("the archive has no backups to restore")?;
        let mut transfer =
            Transfer::start(command, way.name(), way.reader()).map_err(|error| in_full(&error))?;
        let mut seen = self.mark(&transfer).await;
        let mut since = Instant::now();
        let pause = (self.patience / LOOKS).min(LONGEST_LOOK);
        loop {
            tokio::select! {
                ended = transfer.wait() => return ended.map(drop).map_err(|error| in_full(&error)),
                () = sleep(pause) => {}
            }
            let now = self.mark(&transfer).await;
            let (told, _, bytes) = now;
            let known = told != Progress::default();
            shown.send_replace(Some(if known {
                way.in_bytes(told, self.bytes)
            } else {
                (bytes, self.bytes.max(bytes))
            }));
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= self.patience {
                transfer.cancel(END_PATIENCE).await;
                let seconds = self.patience.as_secs();
                return Err(format!("it has made no progress for {seconds} s, and was ended"));
            }
        }
    }

    /// What changes while a copy is made: what is told, what is said, what is written.
    async fn mark(&self, transfer: &Transfer) -> (Progress, u64, u64) {
        let told = *transfer.progress().borrow();
        let options = &self.errand.options;
        let spaces = options.tablespaces.iter().map(|space| space.location.clone());
        let mut all: Vec<PathBuf> = options.wal_dir.iter().cloned().chain(spaces).collect();
        all.push(self.errand.copy.data_dir.path().to_owned());
        let written = tokio::task::spawn_blocking(move || {
            all.iter().map(|dir| super::super::room::tree_size(dir)).sum()
        });
        (told, transfer.lines(), written.await.unwrap_or_default())
    }

    /// What is common to all ways: it is looked at, and becomes a standby that nothing is lost of.
    async fn finish(&self, way: &Way) -> Result<(), String> {
        let copy = &self.errand.copy;
        check::check(copy, &self.expected, way.is_of_the_primary()).await?;
        if !way.is_of_the_primary() {
            let (copy, expected) = (copy.clone(), self.expected.clone());
            let BackupOptions { wal_dir, tablespaces, .. } = self.errand.options.clone();
            blocking(move || {
                check::check_tablespaces(&copy.data_dir, &tablespaces)?;
                check::tidy(&copy, &expected, wal_dir.as_deref())
            })
            .await?;
        }
        prepare(&copy.data_dir, &copy.owner).map_err(|error| error.to_string())?;
        if self.errand.archive.is_some() {
            let (dir, owner, whole) =
                (copy.data_dir.clone(), copy.owner.clone(), way.is_of_the_primary());
            blocking(move || {
                let last = || ask_about_the_last(&dir, &owner);
                let asked = ask_again(&dir).and_then(|()| if whole { last() } else { Ok(()) });
                asked.map_err(|error| error.to_string())
            })
            .await?;
            self.bring_unarchived().await?;
        }
        sync(&copy.data_dir).await
    }

    /// Whatever way it was made, it has only what is later than itself.
    async fn bring_unarchived(&self) -> Result<(), String> {
        let copy = &self.errand.copy;
        let control = copy.control_data().await.map_err(|error| error.to_string())?;
        let history = self.expected.history()?;
        let brought = unarchived::bring(copy, &control, &history, &self.primary).await;
        let brought = brought.map_err(|error| error.to_string())?;
        if brought > 0 {
            tracing::info!("{brought} files that are not archived yet were brought as well");
        }
        Ok(())
    }
}

/// What of the old copy lies elsewhere goes now, since both cannot be in one place. It was found to be
/// ours. The directories that are to be filled are there then, and empty.
fn make_way(old: &DataDir, errand: &Errand) -> std::io::Result<()> {
    let options = &errand.options;
    if let Some(dir) = &options.wal_dir {
        // Without it nobody writes there to see whether the disk answers.
        let link = old.wal_dir();
        if std::fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_symlink()) {
            std::fs::remove_file(&link)?;
        }
        storage::empty_wal_dir(dir)?;
    }
    let empty = |space: &Tablespace| storage::empty_tablespace(&space.location, &space.directory);
    options.tablespaces.iter().try_for_each(empty)?;
    let Instance { data_dir, owner, .. } = &errand.copy;
    data_dir.create(owner).map_err(std::io::Error::other)?;
    let spaces = options.tablespaces.iter().map(|space| &space.location);
    for dir in options.wal_dir.iter().chain(spaces) {
        durable::create_dir(dir, 0o700, owner).map_err(std::io::Error::other)?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

fn swap(data: &Path, new: &Path, old: &Path) -> std::io::Result<()> {
    std::fs::rename(data, old)?;
    if let Err(error) = std::fs::rename(new, data) {
        std::fs::rename(old, data)?;
        return Err(error);
    }
    let parent = data.parent().unwrap_or(Path::new("/"));
    std::fs::File::open(parent)?.sync_all()
}

async fn remove(path: &Path) -> std::io::Result<()> {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
