//! Copies and rewinds: long work in the background, with progress. The old data directory is kept
//! until a new copy is complete. How a copy is made is in `make`, what is looked at before it is put in
//! place in `check`.

mod check;
mod make;
mod unarchived;

use super::StepError;
use crate::clock;
use crate::create::{Errand, Way};
use crate::managed;
use crate::node::{Job, Made, Node, disk};
use fsm::node::{File, Step};
use postgres::backup::BackupOptions;
use postgres::conninfo::Source;
use postgres::datadir::DataDir;
use postgres::owner::Owner;
use postgres::rewind::{self, RewindOptions, Rewound};
use postgres::transfer::Progress;
use shared::ids::NodeId;
use shared::lsn::Position;
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
        let ways = self.ways();
        let bytes = upstream.data_size().await?.0;
        // This Postgres has ended, so nothing that it has acknowledged is beyond this (rule 11).
        let owes = Position { epoch: self.assignment()?.epoch, lsn: upstream.flush_lsn().await? };
        self.begin_rebuilding(Some(owes))?;
        let order = self.assignment()?.orders.copy;
        self.persist(|state| state.done.copy = order)?;
        let options = BackupOptions {
            max_rate: self.config.max_rate.clone(),
            slot: None,
            wal_dir: self.config.waldir.clone(),
            tablespaces,
        };
        let primary = self.assignment()?.member(from).map(|member| self.replicator_at(member));
        let primary = primary.ok_or(StepError::NotYet("an assignment that names the primary"))?;
        let errand = self.errand(source, options)?;
        let expected = check::Expected::of(self.assignment()?, &upstream, self.version()?).await?;
        let plan = make::Making {
            data_dir: self.instance.data_dir.clone(),
            errand,
            ways,
            expected,
            primary,
            bytes,
            patience: self.config.create_replica_patience,
        };
        let (sender, progress) = watch::channel(None);
        let task = tokio::spawn(async move { plan.run(&sender).await });
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
        let options = RewindOptions { restore_target_wal: self.offer_archive_to_rewind().await? };
        self.begin_rebuilding(None)?;
        let instance = self.instance.clone();
        let (sender, progress) = watch::channel(None);
        let task = tokio::spawn(async move {
            let mut child = rewind::start(&instance, &source, "postgres", options)
                .map_err(|error| error.to_string())?;
            let watched = follow(child.progress(), sender);
            let ended = child.wait().await;
            watched.abort();
            match ended {
                Ok(Rewound::Changed) => {
                    // What was rewound may have been a primary, and must not be one again.
                    prepare(&instance.data_dir, &instance.owner)
                        .map_err(|error| error.to_string())?;
                    sync(&instance.data_dir).await?;
                    Ok(Made::OfThePrimary)
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
    fn begin_rebuilding(&mut self, owes: Option<Position>) -> Result<(), StepError> {
        self.asked = None;
        self.persist(|state| {
            state.rebuilding = true;
            if let Some(persisted) = &mut state.persisted {
                persisted.promoted = None;
                persisted.admitted = None;
                persisted.restored = false;
                persisted.owes = owes.or(persisted.owes);
            }
        })?;
        Ok(())
    }

    /// The ways to try now. Where the last one did not lead to a standby that streams, a backup without its
    /// WAL for instance, the one behind it comes first.
    fn ways(&self) -> Vec<Way> {
        let mut ways = self.config.create_replica.clone();
        let last = self.state.made_by.as_ref();
        let place = ways.iter().position(|way| Some(&way.to_string()) == last);
        ways.rotate_left(place.map_or(0, |place| (place + 1) % self.config.create_replica.len()));
        ways
    }

    fn version(&self) -> Result<u32, StepError> {
        let version = self.instance.programs.version();
        Ok(version.map_err(|error| StepError::NotSo(error.to_string()))?.major)
    }

    fn errand(&self, source: Source, options: BackupOptions) -> Result<Errand, StepError> {
        let cluster = self.assignment()?.system_identifier.map(|id| id.0.to_string());
        let waldir = self.config.waldir.as_ref().map(|dir| dir.display().to_string());
        let text = |path: &Path| path.display().to_string();
        let mut environment = vec![
            ("PGTANDEM_PRIMARY_HOST", source.host.clone()),
            ("PGTANDEM_PRIMARY_PORT", source.port.to_string()),
            ("PGTANDEM_PRIMARY_USER", source.user.clone()),
            ("PGTANDEM_FORMATION", self.config.formation.to_string()),
            ("PGTANDEM_NODE", self.config.name.to_string()),
            ("PGTANDEM_BIN_DIR", text(self.instance.programs.dir())),
            ("PGPASSFILE", text(&self.passfile())),
        ];
        environment.extend(cluster.map(|id| ("PGTANDEM_SYSTEM_IDENTIFIER", id)));
        environment.extend(waldir.map(|dir| ("PGTANDEM_WALDIR", dir)));
        Ok(Errand {
            copy: self.instance.clone(),
            source,
            options,
            archive: self.config.archive.clone(),
            environment,
        })
    }

    /// pg_rewind asks the target's own configuration how WAL comes from the archive.
    async fn offer_archive_to_rewind(&mut self) -> Result<bool, StepError> {
        if self.config.archive.is_none() {
            return Ok(false);
        }
        let file = File { upstream: None, spec: None, current: true, restore: true };
        self.configure(&file).await?;
        Ok(true)
    }

    /// WAL that the upstream has no more may be in the archive.
    pub(super) async fn catch_up(&mut self) -> Result<(), StepError> {
        self.persist(|state| {
            if let Some(persisted) = &mut state.persisted {
                persisted.admitted = None;
            }
        })?;
        self.configure(&File { upstream: None, spec: None, current: true, restore: true }).await
    }

    fn begin_job(
        &mut self,
        step: Step,
        from: NodeId,
        progress: watch::Receiver<Option<(u64, u64)>>,
        task: tokio::task::JoinHandle<Result<Made, String>>,
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
            Ok(made) => {
                tracing::info!(duration_ms = took, "{name} is complete after {took} ms");
                self.warnings.remove("rebuild");
                self.backoff.succeeded(&step);
                if let Err(error) = self.take_up(made, from).await {
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

    /// What is restored from a backup is some older log, and nothing is known of where it ends: that is
    /// established first, and proved.
    async fn take_up(&mut self, made: Made, from: NodeId) -> Result<(), StepError> {
        match made {
            Made::OfThePrimary => self.admit_rebuilt(from).await,
            Made::Restored { way } => {
                self.persist(|state| {
                    state.rebuilding = false;
                    state.made_by = Some(way);
                    if let Some(persisted) = &mut state.persisted {
                        persisted.restored = true;
                    }
                })?;
                Ok(())
            }
        }
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
