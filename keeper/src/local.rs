//! Looking at the node: files, process, and what Postgres answers. Facts only.

use crate::archive::Fetched;
use crate::clock;
use crate::managed;
use crate::node::{Checkpoint, Node, disk};
use crate::pgsettings::Given;
use fsm::node::consent::Asked;
use fsm::node::view::{Due, RESTARTS, is_broken};
use fsm::node::{Data, File, LocalView, Process, Server, Step};
use postgres::config::ManagedConfig;
use postgres::control::ClusterState;
use postgres::datadir::Contents;
use postgres::pidfile::PidStatus;
use postgres::postmaster::Postmaster;
use postgres::session::SessionError;
use postgres::session::primary::Walsender;
use postgres::timelines;
use shared::history::History;
use shared::ids::{NodeId, TimelineId};
use shared::report::{PostgresView, Replica};
use std::time::Duration;

/// How long a look waits for Postgres; what is said later is asked for again.
pub(crate) const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// A control file that cannot be read is not read again sooner: that takes a process.
const READ_AGAIN_MS: u64 = 500;

/// What a look came to: the view that plans are made from, and the rest, for the report.
#[derive(Debug)]
pub struct Look {
    /// For the plan.
    pub view: LocalView,
    /// For people and the detector.
    pub postgres: PostgresView,
    /// A primary's standbys.
    pub walsenders: Vec<Walsender>,
}

impl Look {
    /// The members that stream from this primary.
    pub fn streaming(&self) -> impl Iterator<Item = (NodeId, &Walsender)> {
        let streams = self.walsenders.iter().filter(|sender| sender.state == "streaming");
        streams.filter_map(|sender| Some((managed::member_of(&sender.application_name)?, sender)))
    }
}

/// What a look needs to know that the node does not.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, as in a view")]
pub struct Circumstances {
    /// An answer has been received by this process.
    pub heard: bool,
    /// A primary may start or go on.
    pub may_write: bool,
    /// Postgres is to be stopped for good.
    pub stopping: bool,
    /// There is no room on its disks: no wonder that it does not run.
    pub full: bool,
    /// What the archive has said, where there is one.
    pub fetched: Option<Fetched>,
    /// The postmaster that the guard has stopped.
    pub fenced: Option<i32>,
}

impl Node {
    /// Looks.
    pub async fn look(&mut self, circumstances: Circumstances) -> Look {
        self.take_address();
        let postmaster = self.find_postmaster(circumstances.may_write, circumstances.fenced).await;
        let mut postgres = PostgresView::default();
        let mut walsenders = Vec::new();
        let mut process = Process::Stopped;
        let mut server = None;
        if let Some(postmaster) = &postmaster {
            process = status(postmaster).await;
            postgres.pid = Some(postmaster.pid());
        }
        // One that is starting says so itself; asking it would only fill its log.
        if process == Process::Running {
            let asked = self.ask(&mut postgres, &mut walsenders);
            match tokio::time::timeout(LOOK_LIMIT, asked).await {
                Ok(Ok(answer)) => {
                    server = Some(answer);
                    self.note_ready();
                }
                Ok(Err(error)) => {
                    tracing::debug!("postgres does not answer: {error}");
                    self.session = None;
                }
                // It may be about to be stopped: what the monitor wants comes before what it says.
                Err(_) => {
                    tracing::debug!("postgres does not answer in time");
                    (postgres.running, self.session) = (false, None);
                }
            }
        }
        let data = self.data(postmaster.is_some()).await;
        if postmaster.is_none() && matches!(data, Data::Present { .. }) {
            self.look_beneath().await;
        }
        if data == Data::Unusable && server.is_none() {
            self.crashes.is_kept_down(clock::now());
        }
        if let (None, Data::Present { history, clean_end, standby_signal, .. }) = (&server, &data) {
            postgres.in_recovery = standby_signal.then_some(true);
            postgres.timeline = Some(history.timeline);
            postgres.lsn = *clean_end;
        }
        let file = self.file();
        let upstream_lacks = self.upstream_lacks(&file, server.as_ref()).await;
        let archive = self.look_at_archive(&file, server.as_ref(), circumstances.fetched);
        if server.as_ref().is_some_and(|server| server.streaming) {
            self.leads_somewhere();
        }
        let view = LocalView {
            data,
            process,
            server,
            file,
            sync: self.seen.sync,
            settled: self.seen.settled,
            sealing_for_ms: self.seen.sealing_since.map_or(0, |since| clock::now().since(since)),
            checkpointed: self.is_checkpointed(&postgres).await,
            heard: circumstances.heard,
            may_write: circumstances.may_write,
            stopping: circumstances.stopping,
            adopted: self.is_adopted(),
            broken: !circumstances.full && self.is_broken(),
            upstream_lacks,
            due: self
                .persisted()
                .and_then(|persisted| Due::of(persisted.assignment.orders, self.state.done))
                .or_else(|| self.listens_elsewhere().then_some(Due::Restart)),
            // Said by those who run them.
            hook: Asked::Clear,
            archive,
        };
        Look { view, postgres, walsenders }
    }

    /// The postmaster, found or known; notices when it has ended by itself, which it has not if the
    /// guard stopped it because it may not write.
    pub(crate) async fn find_postmaster(
        &mut self,
        may_write: bool,
        fenced: Option<i32>,
    ) -> Option<Postmaster> {
        if let Some(running) = self.running() {
            return Some(running);
        }
        let ended = self.postmaster.borrow().clone();
        if let Some(ended) = ended {
            self.postmaster.send_replace(None);
            self.forget_server();
            let is_primary = self.persisted().is_some_and(|p| p.assignment.goal.spec().is_some());
            // It stops it a little before the right ends.
            let by_guard = fenced == Some(ended.pid());
            if !by_guard && (may_write || !is_primary) {
                self.note_crash(&ended).await;
            }
        }
        match Postmaster::adopt(&self.instance).await {
            Ok(Some(found)) => {
                tracing::info!(pid = found.pid(), "postmaster {} was found running", found.pid());
                self.forget_server();
                self.postmaster.send_replace(Some(found.clone()));
                Some(found)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!("cannot look for a running postgres: {error}");
                None
            }
        }
    }

    /// Whether somebody has stopped it, or is restarting it: it has shut down in order, or runs again.
    async fn was_stopped(&self, ended: &Postmaster) -> bool {
        if matches!(Postmaster::adopt(&self.instance).await, Ok(Some(_))) {
            return true;
        }
        if let Some(told) = ended.was_told_to_end() {
            return told;
        }
        let control = self.instance.control_data().await;
        control.is_ok_and(|control| control.state.is_clean())
    }

    async fn note_crash(&mut self, ended: &Postmaster) {
        let now = clock::now();
        if self.was_stopped(ended).await {
            tracing::warn!(
                node.id = self.id.0,
                "somebody has stopped or restarted postgres of node {}, who was not its keeper",
                self.id
            );
            self.crashes.stopped(now);
            return;
        }
        let standby = disk(|| self.instance.data_dir.is_standby());
        let why = ended.last_words().await;
        let starting = self.crashes.was_starting();
        tracing::warn!(
            node.id = self.id.0,
            "postgres of node {} has ended by itself: {}",
            self.id,
            why.as_deref().unwrap_or("it has not said why")
        );
        self.crashes.ended(now, standby, why);
        if starting || self.crashes.times().len() > RESTARTS {
            let step = if standby { Step::StartStandby } else { Step::StartPrimary };
            self.backoff.failed(&step, now);
        }
        if starting {
            let outcome = self.instance.check_start().await;
            self.crashes.checked(outcome.map_err(|error| error.to_string()));
        }
    }

    fn note_ready(&mut self) {
        self.crashes.is_ready();
        for step in [Step::StartStandby, Step::StartPrimary] {
            self.backoff.succeeded(&step);
        }
    }

    async fn ask(
        &mut self,
        postgres: &mut PostgresView,
        walsenders: &mut Vec<Walsender>,
    ) -> Result<Server, SessionError> {
        let mut recovery = self.session().await?.recovery().await?;
        if self.seen.version.is_none() {
            self.seen.version = Some(self.session().await?.server_version().await?);
        }
        postgres.running = true;
        postgres.version.clone_from(&self.seen.version);
        postgres.in_recovery = Some(recovery.in_recovery);
        if !recovery.in_recovery {
            return self.ask_primary(postgres, walsenders).await;
        }
        let was_sealed = self.seen.sealed;
        let sealed = self.look_for_seal().await?;
        if sealed && !was_sealed {
            // Until the signs were there more could come: what was seen before them is not the end.
            recovery = self.session().await?.recovery().await?;
        }
        let own = self.persisted().map(|persisted| persisted.assignment.clone());
        let slot = own
            .as_ref()
            .and_then(|a| a.member(self.id))
            .map(|m| self.id.admission_slot(m.admission));
        let streaming = recovery.receiver.as_ref().is_some_and(|receiver| {
            receiver.status == "streaming"
                && receiver.slot_name.is_some()
                && receiver.slot_name == slot
        });
        let history = self
            .own_history()
            .await
            .unwrap_or(History { ancestors: Vec::new(), timeline: TimelineId(0) });
        let end = recovery.receive_lsn.max(recovery.replay_lsn);
        postgres.lsn = end;
        postgres.received = recovery.receive_lsn;
        postgres.replayed = recovery.replay_lsn;
        let receiver = recovery.receiver.as_ref().filter(|_| streaming);
        postgres.upstream_end = receiver.and_then(|receiver| receiver.latest_end_lsn);
        postgres.timeline = end.map(|end| history.timeline_at(end));
        Ok(Server { in_recovery: true, history, end, sealed, streaming })
    }

    async fn ask_primary(
        &mut self,
        postgres: &mut PostgresView,
        walsenders: &mut Vec<Walsender>,
    ) -> Result<Server, SessionError> {
        let session = self.session().await?;
        let timeline = session.current_timeline().await?;
        let end = session.flush_lsn().await?;
        *walsenders = session.replication().await?;
        let names = session.setting("synchronous_standby_names").await?;
        postgres.timeline = Some(timeline);
        postgres.lsn = Some(end);
        if let Some(names) = names {
            self.check_source(&names);
            postgres.synchronous_standby_names = Some(names.value);
        }
        let history = disk(|| read_history(self, timeline));
        Ok(Server { in_recovery: false, history, end: Some(end), sealed: false, streaming: false })
    }

    /// An operator's ALTER SYSTEM wins over any included file: then nothing we write counts.
    fn check_source(&mut self, names: &postgres::session::settings::Setting) {
        let ours =
            names.source_file.as_deref().is_none_or(|file| file.ends_with(postgres::config::FILE));
        if ours {
            self.warnings.remove("alter system");
        } else {
            let text = "synchronous_standby_names is set elsewhere than in pgtandem.conf, so the sync set cannot be managed; take it back with ALTER SYSTEM RESET synchronous_standby_names";
            self.warnings.insert("alter system", text.to_owned());
        }
    }

    /// The three signs of rule 3, on a new connection; once seen they hold until something changes.
    async fn look_for_seal(&mut self) -> Result<bool, SessionError> {
        if self.seen.sealed || self.file().upstream.is_some() {
            return Ok(self.seen.sealed);
        }
        self.seen.sealing_since.get_or_insert(clock::now());
        let session = self.connect().await?;
        let signs = session.seal_signs().await?;
        self.seen.sealed = signs.is_sealed();
        self.session = Some(session);
        Ok(self.seen.sealed)
    }

    async fn own_history(&mut self) -> Option<History> {
        if self.seen.control.is_none() {
            self.read_control().await;
        }
        let control = self.seen.control.clone()?;
        match disk(|| timelines::own_history(&self.instance.data_dir, &control)) {
            Ok(history) => Some(history),
            Err(error) => {
                tracing::warn!("cannot read the timeline history: {error}");
                None
            }
        }
    }

    async fn read_control(&mut self) {
        let now = clock::now();
        if self.unreadable.as_ref().is_some_and(|(at, _)| now.since(*at) < READ_AGAIN_MS) {
            return;
        }
        match self.instance.control_data().await {
            Ok(control) => {
                self.seen.control = Some(control);
                self.unreadable = None;
            }
            Err(error) => {
                let text = error.to_string();
                if self.unreadable.as_ref().is_none_or(|(_, known)| *known != text) {
                    tracing::warn!("cannot read the control file: {text}");
                }
                self.unreadable = Some((now, text));
            }
        }
    }

    /// It is there, and cannot be used.
    fn is_unusable(&mut self, why: &str) -> Data {
        let text = format!("the data directory cannot be used: {why}");
        self.warnings.insert("data directory", text);
        Data::Unusable
    }

    async fn data(&mut self, running: bool) -> Data {
        if self.state.rebuilding {
            return Data::Rebuilding;
        }
        match disk(|| self.instance.data_dir.contents()) {
            Contents::Missing | Contents::Empty => {
                self.warnings.remove("data directory");
                return Data::Empty;
            }
            Contents::Unusable { reason: why } => return self.is_unusable(&why),
            Contents::Cluster { .. } => {}
        }
        let history = self.own_history().await;
        let (Some(history), Some(control)) = (history, self.seen.control.clone()) else {
            let why = self.unreadable.as_ref().map(|(_, why)| why.clone());
            return self.is_unusable(&why.unwrap_or("its timeline history cannot be read".into()));
        };
        self.warnings.remove("data directory");
        let standby_signal = disk(|| self.instance.data_dir.is_standby());
        let clean = !running && !standby_signal && control.state == ClusterState::ShutDown;
        if clean && self.seen.clean_end.is_none() {
            match self.instance.end_of_wal_after_clean_shutdown().await {
                Ok(end) => self.seen.clean_end = Some(end),
                Err(error) => tracing::warn!("cannot find the end of the log: {error}"),
            }
        }
        Data::Present {
            system_identifier: control.system_identifier,
            standby_signal,
            history,
            clean_end: self.seen.clean_end.filter(|_| clean),
        }
    }

    /// What the managed file says, and whether it is what would be written now.
    pub fn file(&self) -> File {
        let found = disk(|| ManagedConfig::read(&self.instance.data_dir)).ok().flatten();
        let unwritten = File { upstream: None, spec: None, current: false, restore: false };
        let Some(found) = found else { return unwritten };
        let file = managed::read(&found);
        let current = self.persisted().is_some_and(|persisted| {
            let rules = managed::hba_rules(self.config.hba, &persisted.assignment.members);
            let given = self.settings_to_write(&persisted.assignment, &Given::read(&found));
            managed::render(self, &persisted.assignment, &file, &given) == found
                && self.hba.as_ref() == Some(&rules)
        });
        File { current, ..file }
    }

    fn is_broken(&self) -> bool {
        let budget = self.persisted().map_or(0, |p| p.assignment.timers.restart_budget_ms);
        is_broken(&self.crashes.times_as_standby(), clock::now(), budget)
    }

    fn is_adopted(&self) -> bool {
        disk(|| ManagedConfig::read(&self.instance.data_dir)).is_ok_and(|found| found.is_some())
    }

    async fn is_checkpointed(&mut self, postgres: &PostgresView) -> bool {
        if postgres.in_recovery != Some(false) {
            return false;
        }
        match &mut self.seen.checkpoint {
            Checkpoint::Running(task) if task.is_finished() => {
                let done = (&mut *task).await.unwrap_or_default();
                self.seen.checkpoint = if done { Checkpoint::Done } else { Checkpoint::Unknown };
                done
            }
            Checkpoint::Done | Checkpoint::Running(_) => true,
            Checkpoint::Unknown => {
                let control = self.instance.control_data().await.ok();
                let done =
                    control.is_some_and(|control| Some(control.timeline) == postgres.timeline);
                if done {
                    self.seen.checkpoint = Checkpoint::Done;
                }
                done
            }
        }
    }

    /// A primary's members, for the report.
    pub fn replicas(&mut self, look: &Look) -> Vec<Replica> {
        let now = clock::now();
        let end = look.postgres.lsn.unwrap_or_default();
        let mut replicas = Vec::new();
        for sender in &look.walsenders {
            let Some(node) = managed::member_of(&sender.application_name) else { continue };
            let flushed = sender.flush_lsn.unwrap_or_default();
            let moved = self.seen.moved.entry(node).or_insert((flushed, now));
            if flushed > moved.0 || flushed >= end {
                *moved = (flushed, now);
            }
            replicas.push(Replica {
                node,
                state: sender.state.clone(),
                slot: sender.slot_name.clone(),
                flushed: sender.flush_lsn,
                replayed: sender.replay_lsn,
                sync_state: sender.sync_state.clone(),
                stalled_ms: now.since(moved.1),
                replay_lag_ms: sender.replay_lag_ms.and_then(|ms| u64::try_from(ms).ok()),
            });
        }
        replicas
    }
}

async fn status(postmaster: &Postmaster) -> Process {
    match postmaster.status().await {
        Ok(Some(PidStatus::Ready | PidStatus::Standby)) => Process::Running,
        Ok(Some(PidStatus::Starting | PidStatus::Stopping) | None) | Err(_) => Process::Starting,
    }
}

fn read_history(node: &Node, timeline: TimelineId) -> History {
    let path = node.instance.data_dir.wal_dir().join(format!("{:08X}.history", timeline.0));
    let content = std::fs::read_to_string(path).unwrap_or_default();
    History::parse(timeline, &content).unwrap_or(History { ancestors: Vec::new(), timeline })
}
