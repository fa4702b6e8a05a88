//! The node as the keeper holds it: its configuration, its durable state, the running Postgres, and
//! what has been seen since that was started.
//!
//! Owned by the agent's task alone; the guard and the link get copies of what they need. What waits
//! for the disk here does so on the agent's task, never on theirs.

use crate::backoff::Backoff;
use crate::clock;
use crate::config::Config;
use crate::crashes::Crashes;
use crate::pgsettings::Desk;
use crate::state::{State, StateError, Store};
use crate::steps;
use crate::upstream::Question;
use crate::watchdog::Watchdog;
use fsm::Millis;
use fsm::node::view::Persisted;
use fsm::node::{Step, Sync};
use postgres::control::ControlData;
use postgres::instance::Instance;
use postgres::postmaster::{Postmaster, Signal};
use postgres::session::{Session, SessionError, Target};
use shared::ids::{Gen, NodeId};
use shared::lsn::Lsn;
use shared::report::StepView;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a question to the local Postgres may take before it counts as not answering.
pub const SQL_LIMIT: Duration = Duration::from_secs(3);

/// The node.
#[derive(Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What it was told at its start.
    pub config: Config,
    /// Its Postgres.
    pub instance: Instance,
    /// What is known for certain after a crash.
    pub state: State,
    store: Store,
    /// The running postmaster, also for the guard.
    pub postmaster: watch::Sender<Option<Postmaster>>,
    /// The connection for questions.
    pub session: Option<Session>,
    /// What was seen since Postgres was started.
    pub seen: Seen,
    /// Long work under way.
    pub job: Option<Job>,
    /// When it went down by itself, and why.
    pub crashes: Crashes,
    /// Steps that have failed.
    pub backoff: Backoff,
    /// When the control file could not be read, and why.
    pub unreadable: Option<(Millis, String)>,
    /// The HBA rules that were written last.
    pub hba: Option<Vec<String>>,
    /// How far the server is with the operator's settings.
    pub settings: Desk,
    /// The step under way.
    pub step: watch::Sender<Option<StepView>>,
    /// What a person should know, by subject.
    pub warnings: BTreeMap<&'static str, String>,
    /// Disarmed when it is dropped with the node.
    pub watchdog: Option<Watchdog>,
    /// Where the log ended when the archive had no more for it.
    pub asked: Option<Lsn>,
}

/// What was seen since Postgres was started, stopped or reconfigured.
#[derive(Debug)]
pub struct Seen {
    /// How far rule 9 has got.
    pub sync: Sync,
    /// Some spec has been in force.
    pub settled: bool,
    /// The barrier of a generation.
    pub barrier: Option<(Gen, Lsn)>,
    /// The waiting probe commit of rule 9.
    pub probe: Option<ProbeTask>,
    /// The signs of a seal.
    pub sealed: bool,
    /// Since when they are waited for.
    pub sealing_since: Option<Millis>,
    /// A checkpoint since the promotion.
    pub checkpoint: Checkpoint,
    /// The control file, as long as nobody changes it.
    pub control: Option<ControlData>,
    /// Where the log of a cleanly stopped primary ends.
    pub clean_end: Option<Lsn>,
    /// `server_version`.
    pub version: Option<String>,
    /// When each standby's flush position was seen to move, or to be up to date.
    pub moved: BTreeMap<NodeId, (Lsn, Millis)>,
    /// When the slots were last looked after.
    pub slots_at: Option<Millis>,
    /// What an upstream was asked from which nothing comes.
    pub question: Option<Question>,
    /// How WAL comes from the archive, while it shall.
    pub fetching: Option<Fetching>,
}

/// Since when WAL comes from the archive.
#[derive(Clone, Copy, Debug)]
pub struct Fetching {
    /// Since when it shall.
    pub since: Millis,
    /// What had come when something came last.
    pub came: (u64, Option<Lsn>),
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            sync: Sync::Unknown,
            settled: false,
            barrier: None,
            probe: None,
            sealed: false,
            sealing_since: None,
            checkpoint: Checkpoint::Unknown,
            control: None,
            clean_end: None,
            version: None,
            moved: BTreeMap::new(),
            slots_at: None,
            question: None,
            fetching: None,
        }
    }
}

/// Whether pg_rewind would see the present timeline in the control file.
#[derive(Debug)]
pub enum Checkpoint {
    /// Not looked yet.
    Unknown,
    /// Being written.
    Running(JoinHandle<bool>),
    /// Yes.
    Done,
}

/// A probe commit that waits in a backend of its own.
#[derive(Debug)]
pub struct ProbeTask {
    /// The backend.
    pub pid: i32,
    /// Ends with whether it was released without a warning.
    pub task: JoinHandle<bool>,
}

impl Drop for ProbeTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Long work in the background: a copy or a rewind.
#[derive(Debug)]
pub struct Job {
    /// What it is a part of.
    pub step: Step,
    /// The upstream's node and the epoch it is for; it is given up when these change.
    pub purpose: (NodeId, shared::ids::Epoch),
    /// When it began.
    pub began: Millis,
    /// Done and total, in bytes.
    pub progress: watch::Receiver<Option<(u64, u64)>>,
    /// Itself.
    pub task: JoinHandle<Result<Made, String>>,
    /// How it ended.
    pub outcome: Option<Result<Made, String>>,
}

/// What a copy or a rewind has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A prefix of the primary, by its making.
    OfThePrimary,
    /// Something older, in this way.
    Restored {
        /// As the operator has named it.
        way: String,
    },
}

impl Job {
    /// Waits for its end. May be given up and asked again.
    pub async fn ended(&mut self) {
        if self.outcome.is_none() {
            let ended = (&mut self.task).await;
            self.outcome = Some(ended.unwrap_or_else(|error| Err(error.to_string())));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs something that waits for the disk.
pub fn disk<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

impl Node {
    /// A node that has joined as `id`.
    pub fn new(id: NodeId, config: Config, instance: Instance, store: Store, state: State) -> Self {
        Self {
            id,
            config,
            instance,
            state,
            store,
            postmaster: watch::Sender::new(None),
            session: None,
            seen: Seen::default(),
            job: None,
            crashes: Crashes::default(),
            backoff: Backoff::default(),
            unreadable: None,
            hba: None,
            settings: Desk::default(),
            step: watch::Sender::new(None),
            warnings: BTreeMap::new(),
            watchdog: None,
            asked: None,
        }
    }

    /// The password file of PostgreSQL's own programs.
    pub fn passfile(&self) -> PathBuf {
        self.store.dir().join("pgpass")
    }

    /// Changes the durable state, durably.
    pub fn persist(&mut self, change: impl FnOnce(&mut State)) -> Result<(), StateError> {
        let mut next = self.state.clone();
        change(&mut next);
        if next != self.state {
            disk(|| self.store.save(&next))?;
            self.state = next;
        }
        Ok(())
    }

    /// What `fsm::node` remembers.
    pub fn persisted(&self) -> Option<&Persisted> {
        self.state.persisted.as_ref()
    }

    /// The running postmaster.
    pub fn running(&self) -> Option<Postmaster> {
        self.postmaster.borrow().clone().filter(Postmaster::is_alive)
    }

    /// Where the keeper's own sessions connect.
    pub fn target(&self) -> Target {
        let running = self.running();
        let instance = running.as_ref().map_or(&self.instance, Postmaster::instance);
        let target = Target::socket(instance, crate::managed::KEEPER, "postgres");
        match &self.state.passwords {
            Some(passwords) => target.password(&passwords.keeper),
            None => target,
        }
    }

    /// A new connection: it shows the settings that are in force now.
    pub async fn connect(&self) -> Result<Session, SessionError> {
        Session::connect(&self.target(), SQL_LIMIT).await
    }

    /// The connection for questions, opened when there is none.
    pub async fn session(&mut self) -> Result<&Session, SessionError> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = Some(self.connect().await?);
        }
        self.session.as_ref().ok_or(SessionError::Answer("a connection"))
    }

    /// Postgres was started or has ended: nothing that was seen of it counts any more.
    pub fn forget_server(&mut self) {
        self.session = None;
        self.seen = Seen::default();
        self.settings.forget_server();
    }

    /// Tells Postgres to read its configuration again; the signs of a seal have to be seen anew.
    pub fn reload(&mut self) {
        self.seen.sealed = false;
        self.seen.sealing_since = None;
        self.seen.fetching = None;
        self.settings.reloads();
        if let Some(postmaster) = self.running()
            && let Err(error) = postmaster.signal(Signal::Reload)
        {
            tracing::warn!("cannot make postgres reload: {error}");
        }
    }

    /// Says what the keeper is waiting for, or what goes on for as long as it takes.
    pub fn show_step(&self, name: &str, progress: Option<(u64, u64)>, since: Millis) {
        let (name, elapsed_ms) = (name.to_owned(), clock::now().since(since));
        self.step.send_replace(Some(StepView { name, progress, elapsed_ms, limit_ms: None }));
    }

    /// Says what the keeper is doing.
    pub fn show_work(&self, step: &Step, since: Millis) {
        let (name, elapsed_ms) = (step.name().to_owned(), clock::now().since(since));
        let limit = steps::limit(step).and_then(|limit| u64::try_from(limit.as_millis()).ok());
        self.step.send_replace(Some(StepView {
            name,
            progress: None,
            elapsed_ms,
            limit_ms: limit,
        }));
    }
}
