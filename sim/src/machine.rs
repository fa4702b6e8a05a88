//! A host with an abstract Postgres and its keeper: what is on disk, and what is lost with a process.

use crate::log::Log;
use crate::node::{self, empty_view};
use crate::part::Part;
use fsm::Millis;
use fsm::node::consent::{Asked, Coming};
use fsm::node::lease::Tenure;
use fsm::node::view::Persisted;
use fsm::node::{Data, LocalView, Process};
use shared::goal::Orders;
use shared::ids::{Epoch, Gen, NodeId, Ticket, TimelineId};
use shared::lsn::Lsn;
use shared::report::Answer;
use shared::spec::Spec;
use std::collections::{BTreeMap, BTreeSet};

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a simulated machine")]
pub struct Machine {
    /// The node.
    pub id: NodeId,
    /// The host runs.
    pub up: bool,
    /// Files, process and what is seen of them; see [`Machine::refresh`].
    pub view: LocalView,
    /// The log on disk.
    pub log: Log,
    /// The keeper's durable state.
    pub persisted: Option<Persisted>,
    /// The state before the newest assignment, for a mutation.
    pub persisted_before: Option<Persisted>,
    /// The keeper has taken a lease by itself, and none has been granted since; durable.
    pub claimed: bool,
    /// The newest orders that the keeper has carried out; durable.
    pub done: Orders,
    /// Admission slots: whose, and of which ticket.
    pub slots: BTreeSet<(NodeId, Ticket)>,
    /// The timeline of the newest checkpoint.
    pub control: TimelineId,
    /// How many keeper processes there have been.
    pub processes: u64,
    /// The keeper, while it runs.
    pub keeper: Option<Keeper>,
    /// Postgres, as far as it is lost when it stops.
    pub server: ServerMemory,
    /// A copy or rewind under way.
    pub job: Option<Job>,
    /// Replay is held up: the signs of a seal do not come before a restart.
    pub replay_stuck: bool,
    /// Postgres does not start: a full disk, a file that is missing.
    pub cannot_start: bool,
    /// Its clocks.
    pub clock: Clock,
    /// What of it stands still.
    pub frozen: Frozen,
    /// What cannot be read for a while.
    pub hidden: Option<Data>,
    /// Records before this one have been recycled: nobody can stream them from here any more.
    pub wal_from: usize,
    /// It was told that it is not part of the formation any more.
    pub dropped: bool,
    /// The keeper has fenced its Postgres, for a mutation.
    pub was_fenced: bool,
    /// Where its log ended when the archive had no more for it.
    pub asked: Option<Lsn>,
    /// Its data was made from a backup: the next copy is made in another way.
    pub from_backup: bool,
}

/// The clocks of a host, made from the time of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clock {
    /// How fast they go, in thousandths.
    pub rate: u64,
    /// What the monotonic clock shows at the beginning of the world.
    pub offset: u64,
    /// How far the wall clock is from the monotonic one; it jumps.
    pub wall: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { rate: 1000, offset: 0, wall: 0 }
    }
}

impl Clock {
    /// The monotonic clock at this time of the world; it never goes back.
    pub fn read(self, world: u64) -> u64 {
        self.offset + world * self.rate / 1000
    }

    /// When the monotonic clock shows this.
    pub fn when(self, shown: u64) -> u64 {
        (shown.saturating_sub(self.offset) * 1000).div_ceil(self.rate.max(1))
    }
}

/// What stands still, and goes on later with the memory that it had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Frozen {
    /// Nothing.
    #[default]
    No,
    /// The postmaster (SIGSTOP), or the disk: the keeper's agent waits for an answer, while its link
    /// and its guard go on, and so do old sessions.
    Postgres,
    /// The keeper (SIGSTOP).
    Keeper,
    /// The whole host (a paused virtual machine).
    Host,
}

/// All hosts. Copies of a world share those that do not differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machines(BTreeMap<NodeId, Part<Machine>>);

impl Machines {
    /// A new host.
    pub fn insert(&mut self, id: NodeId, machine: Machine) {
        self.0.insert(id, Part::new(machine));
    }

    /// A host.
    pub fn get(&self, id: NodeId) -> Option<&Machine> {
        self.0.get(&id).map(|part| &**part)
    }

    /// A host, to change it.
    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Machine> {
        self.0.get_mut(&id).map(Part::change)
    }

    /// All nodes.
    pub fn keys(&self) -> impl Iterator<Item = &NodeId> {
        self.0.keys()
    }

    /// All hosts.
    pub fn values(&self) -> impl Iterator<Item = &Machine> {
        self.0.values().map(|part| &**part)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// All hosts with their nodes.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Machine)> {
        self.0.iter().map(|(id, machine)| (*id, &**machine))
    }
}

/// A keeper process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keeper {
    /// Random per process.
    pub name: String,
    /// Of the last report.
    pub seq: u64,
    /// Reports that wait for their answer, and since when.
    pub calls: Vec<(u64, u64)>,
    /// The newest answer.
    pub heard: Option<Answer>,
    /// When the report was sent that it answers, where it grants a lease.
    pub granted_at: Option<u64>,
    /// When this process took a lease by itself that nothing has made good yet.
    pub claimed_at: Option<u64>,
    /// The right to serve.
    pub tenure: Tenure,
    /// Since when the signs of a seal are waited for.
    pub sealing_since: Option<u64>,
    /// Since when Postgres gives no answer.
    pub silent_since: Option<u64>,
    /// When it went on after it had stood still, its right to serve over; until it has one again.
    pub woke: Option<u64>,
    /// When Postgres went down by itself.
    pub down_since: Option<Millis>,
    /// Since when it has been asked to stop.
    pub leaving_since: Option<u64>,
    /// What the hook said that was asked last.
    pub hook: Option<HookSaid>,
}

impl Keeper {
    /// Takes in an answer to the report that was sent at this time of its host's clock.
    pub fn hear(&mut self, answer: Answer, sent: Option<u64>) {
        if let Some(sent) = sent {
            self.tenure.grant(answer.lease, answer.assignment.order, Millis(sent));
        }
        self.granted_at = sent.filter(|_| answer.lease.is_some());
        self.heard = Some(answer);
    }
}

/// What has come of asking a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HookSaid {
    /// About which change, of which epoch.
    pub about: (Coming, Epoch),
    /// What it said.
    pub said: Asked,
    /// For how long that counts, where it is a refusal.
    pub until: u64,
}

/// What a running Postgres has in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerMemory {
    /// `pg_stat_replication`; a row outlives its peer.
    pub rows: BTreeMap<NodeId, Row>,
    /// A standby's walreceiver.
    pub receiver: Option<Receiver>,
    /// The live `synchronous_standby_names`, as a new connection shows it; `None` blocks.
    pub spec: Option<Spec>,
    /// The checkpointer, where it has not picked that up: its flag says whether commits wait at all.
    pub checkpointer: Option<Lag>,
    /// Up to where walsenders have released commits; never lowered.
    pub released: Lsn,
    /// Records before this one have no waiting client.
    pub waiting_from: usize,
    /// The barrier of a generation.
    pub barrier: Option<(Gen, Lsn)>,
}

/// A process that has not picked up the newest `synchronous_standby_names`
/// (docs/postgres-facts.md, sections 1, 2 and 11).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lag {
    /// What it runs under.
    pub under: Setting,
    /// It is held inside its read of the file, which said this.
    pub reading: Option<Setting>,
}

/// A value of `synchronous_standby_names`; `None` blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Setting(pub Option<Spec>);

impl ServerMemory {
    /// Commits wait for somebody: the checkpointer's flag.
    pub fn waits(&self) -> bool {
        let spec = self.checkpointer.as_ref().map_or(&self.spec, |lag| &lag.under.0);
        spec.as_ref().is_none_or(|spec| !spec.is_asynchronous())
    }

    /// What a walsender runs under.
    pub fn setting_of<'a>(&'a self, row: &'a Row) -> Option<&'a Spec> {
        row.lag.as_ref().map_or(&self.spec, |lag| &lag.under.0).as_ref()
    }

    /// Whether a walsender's `sync_priority` is not 0.
    pub fn counts(&self, node: NodeId, row: &Row) -> bool {
        self.setting_of(row).is_some_and(|spec| spec.standbys.contains(&node))
    }

    /// The file has been written and reloaded; no process has looked yet.
    pub fn fall_behind(&mut self, before: Option<&Spec>) {
        let lags = self.rows.values_mut().map(|row| &mut row.lag).chain([&mut self.checkpointer]);
        for lag in lags {
            lag.get_or_insert_with(|| Lag { under: Setting(before.cloned()), reading: None });
        }
    }
}

/// A walsender of a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// The ticket of its slot.
    pub slot: Ticket,
    /// What its standby has said it has flushed.
    pub flushed: Lsn,
    /// When that last moved or was up to date.
    pub moved: u64,
    /// The standby's wall clock when it last replied.
    pub replied: i64,
    /// Its walsender has not picked up the newest setting.
    pub lag: Option<Lag>,
}

/// A walreceiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receiver {
    /// The node it streams from.
    pub from: NodeId,
    /// The ticket of its slot, where it goes under the member name.
    pub slot: Option<Ticket>,
}

/// A copy or rewind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// The source.
    pub from: NodeId,
    /// The epoch it is for.
    pub epoch: Epoch,
    /// It is made from a backup.
    pub restores: bool,
}

impl Machine {
    /// A host with an empty data directory.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            up: true,
            view: empty_view(),
            log: Log::new(id),
            persisted: None,
            persisted_before: None,
            claimed: false,
            done: Orders::default(),
            slots: BTreeSet::new(),
            control: TimelineId(1),
            processes: 0,
            keeper: None,
            server: ServerMemory::default(),
            job: None,
            replay_stuck: false,
            cannot_start: false,
            clock: Clock::default(),
            frozen: Frozen::No,
            hidden: None,
            wal_from: 0,
            dropped: false,
            was_fenced: false,
            asked: None,
            from_backup: false,
        }
    }

    /// Starts the keeper at this time of the host's clock.
    pub fn start_keeper(&mut self, now: u64) {
        self.processes += 1;
        self.keeper = Some(Keeper {
            name: format!("keeper-{}-{}", self.id, self.processes),
            seq: 0,
            calls: Vec::new(),
            heard: None,
            granted_at: None,
            claimed_at: None,
            tenure: Tenure::default(),
            woke: None,
            sealing_since: None,
            silent_since: None,
            down_since: None,
            leaving_since: None,
            hook: None,
        });
        self.claim_lease(now);
        // A new keeper begins again with the signs of what the file says.
        self.view.sync = fsm::node::Sync::Unknown;
        self.view.settled = false;
        self.server.barrier = None;
        if let Some(server) = &mut self.view.server {
            server.sealed = false;
        }
    }

    /// Postgres is gone: crashed, or stopped by the guard.
    pub fn stop_postgres(&mut self, fast: bool) {
        if self.frozen == Frozen::Postgres {
            self.frozen = Frozen::No;
        }
        node::stop(&mut self.view, fast);
        self.server = ServerMemory::default();
        self.replay_stuck = false;
        self.refresh();
    }

    /// Makes the view show what the log is.
    pub fn refresh(&mut self) {
        let (history, end) = (self.log.history(), self.log.end());
        if let Data::Present { history: shown, clean_end, .. } = &mut self.view.data {
            shown.clone_from(&history);
            *clean_end = clean_end.map(|_| end);
        }
        let streaming = self.streams_as_admitted();
        if let Some(server) = &mut self.view.server {
            server.history = history;
            server.end = Some(end);
            server.streaming = server.in_recovery && streaming;
        }
    }

    fn streams_as_admitted(&self) -> bool {
        let own = || {
            let persisted = self.persisted.as_ref()?;
            Some(persisted.assignment.member(self.id)?.admission)
        };
        self.server.receiver.as_ref().is_some_and(|r| r.slot.is_some() && r.slot == own())
    }

    /// What the host's monotonic clock shows.
    pub fn time(&self, world: u64) -> u64 {
        self.clock.read(world)
    }

    /// What the host's wall clock shows.
    pub fn wall(&self, world: u64) -> i64 {
        i64::try_from(self.time(world)).unwrap_or(i64::MAX).saturating_add(self.clock.wall)
    }

    /// Whether the host does anything.
    pub fn runs(&self) -> bool {
        self.up && self.frozen != Frozen::Host
    }

    /// Whether its keeper's link and guard go on.
    pub fn is_guarded(&self) -> bool {
        self.up && self.keeper.is_some() && matches!(self.frozen, Frozen::No | Frozen::Postgres)
    }

    /// Whether its keeper does anything.
    pub fn is_kept(&self) -> bool {
        self.up && self.keeper.is_some() && self.frozen == Frozen::No
    }

    /// Whether a write could be acknowledged here.
    pub fn is_writable(&self) -> bool {
        self.view.is_writable()
    }

    /// Whether Postgres accepts connections.
    pub fn is_ready(&self) -> bool {
        self.view.process == Process::Running && self.view.server.is_some()
    }

    /// Whether there is a whole cluster on disk.
    pub fn has_data(&self) -> bool {
        matches!(self.view.data, Data::Present { .. })
    }
}
