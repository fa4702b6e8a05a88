//! All that a keeper sees of its node at one instant, and what it has persisted.

use super::consent::Asked;
use crate::Millis;
use serde::{Deserialize, Serialize};
use shared::goal::{Assignment, Orders};
use shared::history::History;
use shared::ids::{Epoch, Gen, NodeId, SystemIdentifier, Ticket};
use shared::lsn::{Lsn, Position};
use shared::report::Promoted;
use shared::spec::Spec;

/// What a keeper knows for certain after a crash: written with fsync before it is acted upon.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Persisted {
    /// This node.
    pub own: Option<NodeId>,
    /// The newest assignment accepted (rule 2).
    pub assignment: Assignment,
    /// Sealed under this ticket, until an assignment with a higher one releases (rule 3).
    pub sealed: Option<Ticket>,
    /// The newest promotion of this node that was verified.
    pub promoted: Option<Promoted>,
    /// The admission under which this node's log was proved to be a prefix of its upstream's.
    pub admitted: Option<Admitted>,
    /// Where its primary was when this node gave up its data for a copy, which may be older: no commit
    /// that was acknowledged with this node's help is beyond it. As long as the log does not reach it
    /// the node is no witness (rule 11).
    #[serde(default)]
    pub owes: Option<Position>,
    /// The data was made from a backup, and has not been proved to be a prefix of anything yet.
    #[serde(default)]
    pub restored: bool,
}

/// A proof of rule 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Admitted {
    /// The upstream.
    pub upstream: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The ticket in the slot's name.
    pub admission: Ticket,
}

/// An assignment that must not be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an assignment with a lower ticket or generation than the one accepted before was refused")]
pub struct OutOfOrder;

impl Persisted {
    /// Of a keeper that knows nothing but this assignment.
    pub fn of(assignment: Assignment) -> Self {
        Self {
            own: None,
            assignment,
            sealed: None,
            promoted: None,
            admitted: None,
            owes: None,
            restored: false,
        }
    }

    /// Takes in an assignment: `None` if it is the one that is there; refused if it is older (rule 2).
    /// A seal is set with the goal that asks for it, and released only by a higher ticket (rule 3).
    pub fn accept(
        before: Option<&Self>,
        assignment: &Assignment,
    ) -> Result<Option<Self>, OutOfOrder> {
        use shared::goal::Goal;
        if before.is_some_and(|before| before.assignment == *assignment) {
            return Ok(None);
        }
        if before.is_some_and(|before| before.assignment.order > assignment.order) {
            return Err(OutOfOrder);
        }
        let held = before.and_then(|before| before.sealed);
        let ticket = assignment.order.ticket;
        let sealed = match &assignment.goal {
            Goal::Seal { .. } | Goal::FastForward { .. } => Some(ticket),
            Goal::Follow { .. } | Goal::Primary { .. } => held.filter(|held| *held >= ticket),
            Goal::Wait | Goal::Maintenance | Goal::Dropped => held,
        };
        let before = before.cloned().unwrap_or_else(|| Self::of(assignment.clone()));
        Ok(Some(Self { assignment: assignment.clone(), sealed, ..before }))
    }

    /// The spec whose barrier has been passed and that proofs by streaming are of (rule 12). A primary that is
    /// asked to drain has none in its goal: it goes on under the one that its file says.
    pub fn in_force(&self, file: &File, sync: Sync) -> Option<Spec> {
        use shared::goal::Goal;
        let spec = match &self.assignment.goal {
            Goal::Primary { spec, .. } => Some(spec),
            Goal::Seal { drain: true } => file.spec.as_ref(),
            Goal::Wait
            | Goal::Follow { .. }
            | Goal::Seal { drain: false }
            | Goal::FastForward { .. }
            | Goal::Maintenance
            | Goal::Dropped => None,
        }?;
        (sync == Sync::InForce(spec.generation)).then(|| spec.clone())
    }

    /// Where the log ends, as a witness says it (rule 4): `None` also where that is before what the node
    /// may have acknowledged.
    pub fn position(&self, view: &LocalView) -> Option<Position> {
        let (history, end) = view.established()?;
        let position = self.assignment.lineage.position(history, end)?;
        self.owes.is_none_or(|owed| position >= owed).then_some(position)
    }

    /// Whether the log is seen to be too short to make this node a witness, established or not.
    pub fn is_behind(&self, view: &LocalView) -> bool {
        let reached = || {
            let server = view.server.as_ref()?;
            self.assignment.lineage.position(&server.history, server.end?)
        };
        self.owes.is_some_and(|owed| reached().is_some_and(|at| at < owed))
    }
}

/// What a keeper sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each named where it is used")]
pub struct LocalView {
    /// On disk.
    pub data: Data,
    /// The postmaster.
    pub process: Process,
    /// What it answers; `None` while it accepts no connection.
    pub server: Option<Server>,
    /// What the managed configuration file says.
    pub file: File,
    /// The part of rule 9 that has been seen to hold since Postgres was started.
    pub sync: Sync,
    /// Some spec has been in force since Postgres was started.
    pub settled: bool,
    /// For how long the present step of a seal has been waiting for its signs; while WAL comes from the
    /// archive, since something came last.
    pub sealing_for_ms: u64,
    /// A checkpoint since the promotion has been completed.
    pub checkpointed: bool,
    /// An answer of the monitor has been received by this keeper process.
    pub heard: bool,
    /// A primary may start or go on without being told: lease or the conditions of rule 13.
    pub may_write: bool,
    /// The keeper has been asked to stop, and may stop Postgres.
    pub stopping: bool,
    /// Roles, include line and HBA block are there.
    pub adopted: bool,
    /// Postgres has gone down by itself more often than its restart budget allows.
    pub broken: bool,
    /// Why it can never stream from its upstream as it is.
    pub upstream_lacks: Option<Lack>,
    /// What the operator has asked for and has not been done yet.
    #[serde(default)]
    pub due: Option<Due>,
    /// What a hook says to the change of the role that the assignment asks for.
    #[serde(default)]
    pub hook: Asked,
    /// Whether an archive may have the WAL that comes next for this node.
    #[serde(default)]
    pub archive: Archive,
}

/// What is known of the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Archive {
    /// There is none.
    #[default]
    None,
    /// It has not been asked for what comes next.
    Unasked,
    /// It has been, and has not got it.
    Exhausted,
}

/// An order that is due ([`shared::goal::Orders`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Due {
    /// A restart of Postgres.
    Restart,
    /// A new copy.
    Copy,
}

impl Due {
    /// What is due of these orders where those are done; a copy ends with a start anyway.
    pub fn of(orders: Orders, done: Orders) -> Option<Self> {
        if orders.copy > done.copy {
            Some(Self::Copy)
        } else {
            (orders.restart > done.restart).then_some(Self::Restart)
        }
    }
}

/// What an upstream has said that it has not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lack {
    /// The WAL that comes next for this node.
    Wal,
    /// This node's admission slot: somebody has dropped it.
    Slot,
}

/// What a data directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Data {
    /// Nothing.
    Empty,
    /// A copy or rewind that has not been finished.
    Rebuilding,
    /// A cluster.
    Present {
        /// Whose.
        system_identifier: SystemIdentifier,
        /// Set up as a standby.
        standby_signal: bool,
        /// Its own history.
        history: History,
        /// Stopped cleanly as a primary: the end of its log.
        clean_end: Option<Lsn>,
    },
    /// Something else.
    Unusable,
}

/// The postmaster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Process {
    /// There is none.
    Stopped,
    /// It runs, and accepts no connection yet.
    Starting,
    /// It accepts connections.
    Running,
}

/// What a running Postgres answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Server {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// Its own history; on a primary with the timeline it writes to.
    pub history: History,
    /// Primary: `pg_current_wal_flush_lsn()`; standby: the greater of received and replayed.
    pub end: Option<Lsn>,
    /// Standby: the three signs of rule 3 were seen, in order; hence `end` is established.
    pub sealed: bool,
    /// Standby: a walreceiver streams through the admission slot.
    pub streaming: bool,
}

/// The managed configuration file, as far as it is decided here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct File {
    /// `primary_conninfo` and `primary_slot_name`.
    pub upstream: Option<Upstream>,
    /// `synchronous_standby_names`; `None` for the blocking setting.
    pub spec: Option<Spec>,
    /// The rest of it is as it should be: addresses, HBA rules, timings.
    pub current: bool,
    /// `restore_command`: WAL comes from the archive, and from nobody else.
    #[serde(default)]
    pub restore: bool,
}

/// Where a standby connects to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Upstream {
    /// Under the member name, through the slot of its admission.
    Member {
        /// The upstream's node.
        node: NodeId,
        /// The ticket in the slot's name.
        admission: Ticket,
    },
    /// Under a name that never counts, to fetch WAL while sealed.
    Fetch {
        /// The source.
        node: NodeId,
    },
}

/// How far rule 9 has got, on a running primary. Each value has been *seen*; a restart of Postgres
/// or of the keeper begins at `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sync {
    /// Nothing has been seen yet of what the file says.
    Unknown,
    /// The file says so and no process runs under another spec: nothing is acknowledged.
    Blocked,
    /// The file names this spec and every process runs under it.
    Set(Gen),
    /// The barrier has been passed: it is in force.
    InForce(Gen),
}

impl LocalView {
    /// The end of the node's log where it is established (rule 4), with the history it is on.
    pub fn established(&self) -> Option<(&History, Lsn)> {
        match (&self.server, &self.data) {
            (Some(server), _) if server.in_recovery && server.sealed => {
                server.end.map(|end| (&server.history, end))
            }
            (None, Data::Present { history, clean_end: Some(end), .. })
                if self.process == Process::Stopped =>
            {
                Some((history, *end))
            }
            (Some(_) | None, _) => None,
        }
    }

    /// The history of the log that is on disk, as the server says it, or else its files.
    pub fn history(&self) -> Option<&History> {
        match (&self.server, &self.data) {
            (Some(server), _) => Some(&server.history),
            (None, Data::Present { history, .. }) => Some(history),
            (None, Data::Empty | Data::Rebuilding | Data::Unusable) => None,
        }
    }

    /// Whether Postgres has been seen to take writes.
    pub fn is_writable(&self) -> bool {
        self.server.as_ref().is_some_and(|server| !server.in_recovery)
    }

    /// Whether Postgres may be taking writes, or will as soon as it has recovered. One that does not
    /// answer us, for it is frozen or has no connection left, may well answer others.
    pub fn is_primary(&self) -> bool {
        match (&self.server, &self.data) {
            (Some(server), _) => !server.in_recovery,
            (None, Data::Present { standby_signal, .. }) => {
                self.process != Process::Stopped && !standby_signal
            }
            // Its files were taken away: it goes on with those that it has open.
            (None, Data::Unusable | Data::Empty) => self.process != Process::Stopped,
            (None, Data::Rebuilding) => false,
        }
    }
}

/// How often Postgres may be started again before its keeper says that it cannot be run, and within
/// which time: a brief success does not reset it.
pub const RESTARTS: usize = 3;

/// Whether a Postgres that went down by itself has to be called failed: it has been starting for
/// longer than a failover would take, or has gone down too often.
pub fn is_failed(
    down_since: Option<Millis>,
    crashes: &[Millis],
    now: Millis,
    budget_ms: u64,
) -> bool {
    let slow = down_since.is_some_and(|since| now.since(since) > budget_ms);
    slow || down_since.is_some() && is_broken(crashes, now, budget_ms)
}

/// Whether Postgres has gone down by itself too often of late, however long each start took.
pub fn is_broken(crashes: &[Millis], now: Millis, budget_ms: u64) -> bool {
    let window = budget_ms.saturating_mul(100).max(30_000);
    crashes.iter().filter(|at| now.since(**at) <= window).count() > RESTARTS
}
