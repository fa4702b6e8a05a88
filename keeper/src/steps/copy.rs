//! Copies and rewinds: long work in the background, with progress. The old data directory is kept
//! until a new copy is complete.

use super::StepError;
use crate::archive::queue::ask_again;
use crate::clock;
use crate::managed;
use crate::node::{Job, Node, disk};
use fsm::node::Step;
use postgres::backup::{self, BackupOptions};
use postgres::conninfo::Source;
use postgres::datadir::{Contents, DataDir};
use postgres::instance::Instance;
use postgres::owner::Owner;
use postgres::rewind::{self, RewindOptions, Rewound};
use postgres::session::primary::Tablespace;
use postgres::transfer::Progress;
use shared::ids::NodeId;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

impl Node {
    fn upstream_source(&self, from: NodeId) -> Result<Source, StepError> {
        let member = self.assignment()?.member(from).cloned();
        let member =
            member.ok_or_else(|| StepError::NotSo(format!("node {from} is not a member")))?;
        if let Some(passwords) = &self.state.passwords {
            let users = [(managed::REPLICATOR, passwords.replicator.as_str())];
            let owner = &self.instance.owner;
            disk(|| postgres::conninfo::write_passfile(&self.passfile(), &users, owner))?;
        }
        Ok(managed::source(self, &member))
    }

    /// Begins a fresh copy. An empty data directory is filled in place; otherwise the copy is made
    /// beside it and swapped in.
    pub(super) async fn begin_clone(&mut self, from: NodeId) -> Result<(), StepError> {
        let source = self.upstream_source(from)?;
        let upstream = self.confirm_upstream(from).await?;
        let tablespaces = upstream.tablespaces().await?;
        self.check_room_to_clone(&upstream, &tablespaces).await?;
        self.claim_tablespaces(&tablespaces)?;
        self.stop(true).await?;
        self.crashes.forget();
        self.claim_wal_dir()?;
        self.begin_rebuilding()?;
        let order = self.assignment()?.orders.copy;
        self.persist(|state| state.done.copy = order)?;
        let options = BackupOptions {
            max_rate: self.config.max_rate.clone(),
            slot: None,
            wal_dir: self.config.waldir.clone(),
            tablespaces,
        };
        let instance = self.instance.clone();
        let (sender, progress) = watch::channel(None);
        let archives = self.config.archive.is_some();
        let task = tokio::spawn(async move {
            clone(&instance, &source, options, sender).await?;
            if archives {
                disk(|| ask_again(&instance.data_dir)).map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        self.begin_job(Step::Clone { from }, from, progress, task)
    }

    /// Begins a rewind; a copy follows if it fails.
    pub(super) async fn begin_rewind(&mut self, from: NodeId) -> Result<(), StepError> {
        let source = self.upstream_source(from)?;
        let upstream = self.confirm_upstream(from).await?;
        // pg_rewind reads the control file, which has the new timeline only after a checkpoint.
        if upstream.checkpoint_timeline().await? != upstream.current_timeline().await? {
            return Err(StepError::NotYet("the checkpoint of the new primary"));
        }
        self.check_room_to_rewind(&upstream).await?;
        self.stop(false).await?;
        self.begin_rebuilding()?;
        let instance = self.instance.clone();
        let (sender, progress) = watch::channel(None);
        let task = tokio::spawn(async move {
            let mut child = rewind::start(&instance, &source, "postgres", RewindOptions::default())
                .map_err(|error| error.to_string())?;
            let watched = follow(child.progress(), sender);
            let ended = child.wait().await;
            watched.abort();
            match ended {
                Ok(Rewound::Changed) => {
                    // What was rewound may have been a primary, and must not be one again.
                    prepare(&instance.data_dir, &instance.owner)
                        .map_err(|error| error.to_string())?;
                    sync(&instance.data_dir).await
                }
                Ok(Rewound::NotRequired) => {
                    Err("pg_rewind sees no divergence although there is one".to_owned())
                }
                Err(error) => Err(error.to_string()),
            }
        });
        self.begin_job(Step::Rewind { from }, from, progress, task)
    }

    /// From here on the data directory counts as half-made, and what was proved of it is forgotten.
    fn begin_rebuilding(&mut self) -> Result<(), StepError> {
        self.persist(|state| {
            state.rebuilding = true;
            if let Some(persisted) = &mut state.persisted {
                persisted.promoted = None;
                persisted.admitted = None;
            }
        })?;
        Ok(())
    }

    fn begin_job(
        &mut self,
        step: Step,
        from: NodeId,
        progress: watch::Receiver<Option<(u64, u64)>>,
        task: tokio::task::JoinHandle<Result<(), String>>,
    ) -> Result<(), StepError> {
        let epoch = self.assignment()?.epoch;
        tracing::info!(node.id = self.id.0, "{} from node {from} begins", step.name());
        let began = clock::now();
        self.forget_server();
        self.job = Some(Job { step, purpose: (from, epoch), began, progress, task, outcome: None });
        Ok(())
    }

    /// Looks after the job: its end, or a goal that it does not serve any more. `true` while it goes
    /// on.
    pub async fn look_after_job(&mut self) -> bool {
        let wanted = self.persisted().and_then(|persisted| {
            let assignment = &persisted.assignment;
            Some((assignment.goal.upstream()?, assignment.epoch))
        });
        let Some(job) = &mut self.job else { return false };
        if wanted != Some(job.purpose) {
            tracing::info!("{} is given up: the goal has changed", job.step.name());
            self.job = None;
            return false;
        }
        if job.outcome.is_none() && !job.task.is_finished() {
            let progress = *job.progress.borrow();
            let (name, began) = (job.step.name(), job.began);
            self.show_step(name, progress, began);
            return true;
        }
        job.ended().await;
        let Some(ended) = job.outcome.take() else { return false };
        let (step, from, began) = (job.step.clone(), job.purpose.0, job.began);
        let name = step.name();
        self.job = None;
        self.hba = None;
        let took = clock::now().since(began);
        match ended {
            Ok(()) => {
                tracing::info!(duration_ms = took, "{name} is complete after {took} ms");
                self.warnings.remove("rebuild");
                self.backoff.succeeded(&step);
                if let Err(error) = self.admit_rebuilt(from).await {
                    tracing::warn!(
                        "{name} is complete, but the primary does not let this node in: {error}"
                    );
                }
            }
            Err(error) => {
                let text = format!("{name} failed: {}", error.trim());
                tracing::warn!("{text}");
                self.warnings.insert("rebuild", text);
                self.backoff.failed(&step, clock::now());
            }
        }
        false
    }

    /// A fresh copy, or a rewound one, is by its making a prefix of its source; it has to be: it is
    /// consistent only once it has streamed.
    async fn admit_rebuilt(&mut self, from: NodeId) -> Result<(), StepError> {
        let assignment = self.assignment()?;
        let admission = assignment
            .member(self.id)
            .map(|member| member.admission)
            .ok_or(StepError::NotYet("an assignment that names this node"))?;
        self.admit(from, admission).await
    }
}

/// Passes the progress on.
fn follow(
    mut from: watch::Receiver<Progress>,
    to: watch::Sender<Option<(u64, u64)>>,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while from.changed().await.is_ok() {
            let progress = *from.borrow();
            to.send_replace(Some((progress.done, progress.total)));
        }
    })
}

async fn clone(
    instance: &Instance,
    source: &Source,
    options: BackupOptions,
    progress: watch::Sender<Option<(u64, u64)>>,
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let empty = matches!(instance.data_dir.contents(), Contents::Missing | Contents::Empty);
    let path = instance.data_dir.path();
    let target = if empty { path.to_owned() } else { beside(path, "new") };
    if !empty {
        remove(&target).await.map_err(|error| text(&error))?;
    }
    let (old, wanted) = (instance.data_dir.clone(), options.clone());
    let emptied = tokio::task::spawn_blocking(move || make_way(&old, &wanted));
    emptied.await.map_err(|error| text(&error))?.map_err(|error| text(&error))?;
    let copy = Instance { data_dir: DataDir::new(&target), ..instance.clone() };
    let mut transfer =
        backup::start(&copy, source, &options).await.map_err(|error| text(&error))?;
    let watched = follow(transfer.progress(), progress);
    let ended = transfer.wait().await;
    watched.abort();
    ended.map_err(|error| text(&error))?;
    prepare(&copy.data_dir, &instance.owner).map_err(|error| text(&error))?;
    sync(&copy.data_dir).await?;
    if empty {
        return Ok(());
    }
    let old = beside(path, "old");
    remove(&old).await.map_err(|error| text(&error))?;
    swap(path, &target, &old).map_err(|error| {
        format!(
            "the new copy is complete in {}, but cannot be put in place: {error}",
            target.display()
        )
    })?;
    remove(&old).await.map_err(|error| text(&error))
}

/// What of the old copy lies elsewhere goes now, since both cannot be in one place. It was found to be
/// ours.
fn make_way(old: &DataDir, options: &BackupOptions) -> std::io::Result<()> {
    if let Some(dir) = &options.wal_dir {
        // Without it nobody writes there to see whether the disk answers.
        let link = old.wal_dir();
        if std::fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_symlink()) {
            std::fs::remove_file(&link)?;
        }
        postgres::storage::empty_wal_dir(dir)?;
    }
    let empty =
        |space: &Tablespace| postgres::storage::empty_tablespace(&space.location, &space.directory);
    options.tablespaces.iter().try_for_each(empty)
}

/// Nothing of a new copy may be lost after it has been started.
async fn sync(dir: &DataDir) -> Result<(), String> {
    let dir = dir.clone();
    let synced = tokio::task::spawn_blocking(move || postgres::storage::sync(&dir)).await;
    synced.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// A copy, or what was rewound, is a standby from its first start on, and connects to nobody before it
/// is told to.
fn prepare(dir: &DataDir, owner: &Owner) -> Result<(), postgres::durable::DurableError> {
    dir.set_standby(owner)?;
    Ok(())
}

pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".pgtandem-{what}"));
    path.with_file_name(name)
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
