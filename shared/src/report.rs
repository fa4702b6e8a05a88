//! The one call that a keeper makes again and again: the report, and its answer.

use crate::goal::{Assignment, Order, Orders};
use crate::history::{History, Segment};
use crate::ids::{Epoch, Gen, NodeId, Revision, SystemIdentifier, Ticket, TimelineId};
use crate::lsn::{Lsn, Position};
use crate::pgsettings::{Catalogue, SettingsReport};
use crate::state::NodeState;
use serde::{Deserialize, Serialize};

/// What a keeper observed and what holds on its node. Facts only; the monitor decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each named where it is used")]
pub struct Report {
    /// [`crate::PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Random per keeper process: a restarted keeper counts `seq` from 1 again.
    pub keeper: String,
    /// Counts the reports of this process; a lower one than the last is late and ignored.
    pub seq: u64,
    /// Repeated in the answer; a keeper without state acts on no other answer (rule 2).
    pub nonce: u64,
    /// The assignment that the keeper has persisted; `None`: it has no state.
    pub accepted: Option<Accepted>,
    /// The revision of the newest answer that this keeper process has taken in; 0: none.
    pub revision: Revision,
    /// The node in one word.
    pub state: NodeState,
    /// Whether this node is sealed, under which ticket and at which position.
    pub sealed: Option<Sealed>,
    /// The spec whose barrier was passed (rule 9, iv), since this Postgres was started.
    pub in_force: Option<InForce>,
    /// The newest promotion that this node has verified.
    pub promoted: Option<Promoted>,
    /// What the data directory holds.
    pub data: Data,
    /// What is known of Postgres.
    pub postgres: PostgresView,
    /// On a primary, its connected standbys.
    pub replicas: Vec<Replica>,
    /// On a standby, whether it streams, by its admission slot, from the upstream it was told.
    pub streaming: bool,
    /// Why Postgres cannot be run here, once the restart budget is spent.
    pub failed: Option<String>,
    /// For how long Postgres, or its storage, has been asked and has given no answer; 0: it answers.
    #[serde(default)]
    pub silent_ms: u64,
    /// The keeper has been asked to stop: hand over, or leave the sync set.
    pub leaving: bool,
    /// The room in each file system that Postgres writes to.
    #[serde(default)]
    pub room: Vec<Room>,
    /// The step under way.
    pub step: Option<StepView>,
    /// Things a person should know, one sentence each.
    pub warnings: Vec<String>,
    /// The keeper's version.
    pub keeper_version: String,
    /// How far its server is with the settings that the operator gave.
    #[serde(default)]
    pub settings: SettingsReport,
    /// What its server says of all settings, where the last answer asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<Box<Catalogue>>,
    /// The newest of its orders that it has carried out.
    #[serde(default)]
    pub done: Orders,
    /// All that it knows of the group, where the last answer was that the monitor is in quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Box<Offer>>,
    /// Its log goes on on a timeline that no epoch owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stray: Option<Stray>,
    /// Why it is not to be promoted for now: what its `pre_promote` hook has said. It is a witness all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vetoes: Option<String>,
    /// Its copy is older than what it may have acknowledged before: no witness until it has caught up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub behind: bool,
    /// How far its archive is, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveView>,
    /// This keeper knows the goal to follow a standby, and lets others follow its own. Keepers of before do
    /// not say it.
    #[serde(default)]
    pub cascades: bool,
    /// It is told to follow a standby, and needs what only the primary has: WAL that the standby lacks, a copy,
    /// a rewind.
    #[serde(default)]
    pub needs_primary: bool,
}

/// What is stored in the archive: PostgreSQL archives history files first, then segments in the order of
/// the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Archived {
    /// The last segment.
    pub segment: Option<ArchivedUpTo>,
    /// The newest timeline whose history file is stored.
    pub history: Option<TimelineId>,
}

/// Up to where the log is in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArchivedUpTo {
    /// On which timeline.
    pub timeline: TimelineId,
    /// The end of the last segment.
    pub end: Lsn,
}

/// How far the archive of a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveView {
    /// What is known here to be stored.
    pub archived: Archived,
    /// How many files wait in `pg_wal`.
    pub waiting: u64,
    /// For how long the oldest of them does.
    pub oldest_ms: Option<u64>,
    /// The newest epoch of which this node has taken the backup after the promotion; 0: none.
    pub backed_up: Epoch,
    /// What fails.
    pub failing: Vec<ArchiveFailure>,
}

/// Something about an archive that fails, and is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArchiveFailure {
    /// What.
    pub work: ArchiveWork,
    /// Since it failed first.
    pub ms: u64,
    /// What was said last.
    pub error: String,
}

/// What is done with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchiveWork {
    /// A file is stored.
    Push,
    /// A file is fetched.
    Get,
    /// The backup after a promotion is taken.
    Backup,
}

/// What a keeper has persisted of its group: from the offers of all of them a monitor that has lost its
/// record makes another (docs/safety.md, rule 14).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// The newest assignment that it has accepted.
    pub assignment: Assignment,
    /// The seal that it keeps, whether or not its signs have been seen.
    pub sealed: Option<Ticket>,
    /// The newest promotion of this node that was verified, also while it does not run.
    pub promoted: Option<Promoted>,
}

impl Report {
    /// Of a keeper process that has been told nothing yet, and whose data directory is empty.
    pub fn of_new_node(keeper: &str) -> Self {
        Self {
            protocol: crate::PROTOCOL,
            keeper: keeper.to_owned(),
            seq: 0,
            nonce: 0,
            accepted: None,
            revision: Revision(0),
            state: NodeState::Init,
            sealed: None,
            in_force: None,
            promoted: None,
            data: Data::Empty,
            postgres: PostgresView::default(),
            replicas: Vec::new(),
            streaming: false,
            failed: None,
            silent_ms: 0,
            leaving: false,
            room: Vec::new(),
            step: None,
            warnings: Vec::new(),
            keeper_version: String::new(),
            settings: SettingsReport::default(),
            catalogue: None,
            offer: None,
            done: Orders::default(),
            stray: None,
            vetoes: None,
            behind: false,
            archive: None,
            cascades: true,
            needs_primary: false,
        }
    }
}

/// A log that left the group's history on a timeline of its own: somebody has promoted this node by hand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stray {
    /// The timelines that it went through.
    pub history: History,
    /// Where it ends; `None` while that is not established (rule 4).
    pub end: Option<Lsn>,
}

/// What a keeper has persisted of its assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Accepted {
    /// Its place in the order.
    pub order: Order,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A durable seal (rule 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sealed {
    /// The election that it belongs to.
    pub ticket: Ticket,
    /// Where the log ends; `None` while that is not established (rule 4): no witness.
    pub position: Option<Position>,
}

/// A spec in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InForce {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its generation.
    pub generation: Gen,
}

/// A verified promotion: out of recovery, on the timeline that was reserved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Promoted {
    /// The epoch.
    pub epoch: Epoch,
    /// The timeline number that Postgres took.
    pub timeline: TimelineId,
    /// The epoch that its last record before belonged to; `None` at birth.
    pub parent: Option<Epoch>,
    /// Where the timeline begins.
    pub start: Lsn,
    /// The timelines before it: among them may be one whose promotion was interrupted before it was
    /// reported, and which the lineage knows the start of only from here.
    #[serde(default)]
    pub ancestors: Vec<Segment>,
}

/// What a data directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Data {
    /// Nothing: the node can be cloned to, and is no witness (rule 11).
    Empty,
    /// A copy or a rewind that has not been finished.
    Rebuilding,
    /// A cluster.
    Present {
        /// Whose.
        system_identifier: SystemIdentifier,
    },
    /// Something that cannot be read, or that is not a cluster.
    Unusable,
}

/// What is known of the local Postgres; for people and for the detector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct PostgresView {
    /// Whether it accepts connections.
    pub running: bool,
    /// Whether it is a standby; `None` while unknown.
    pub in_recovery: Option<bool>,
    /// Its process id.
    pub pid: Option<i32>,
    /// `server_version`, such as 15.18.
    pub version: Option<String>,
    /// The timeline of its last record.
    pub timeline: Option<TimelineId>,
    /// The end of WAL on disk.
    pub lsn: Option<Lsn>,
    /// `pg_last_wal_receive_lsn()`.
    pub received: Option<Lsn>,
    /// `pg_last_wal_replay_lsn()`.
    pub replayed: Option<Lsn>,
    /// On a standby that streams, where the upstream's log ended when it last said so:
    /// `latest_end_lsn` of `pg_stat_wal_receiver`.
    pub upstream_end: Option<Lsn>,
    /// The live `synchronous_standby_names`.
    pub synchronous_standby_names: Option<String>,
}

/// The room in a file system.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Room {
    /// A directory in it.
    pub path: String,
    /// What PostgreSQL may still take, in bytes.
    pub free: u64,
    /// Its size, in bytes.
    pub total: u64,
}

/// Below this, four WAL segments of the default size, nobody is made a primary who need not be.
const ROOM_TO_SERVE: u64 = 64 << 20;

impl Room {
    /// Whether there is enough to take writes for a while.
    pub fn suffices(&self) -> bool {
        self.free >= ROOM_TO_SERVE
    }
}

impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MB of {} MB free", self.free >> 20, self.total >> 20)
    }
}

/// A row of pg_stat_replication that belongs to a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// Which.
    pub node: NodeId,
    /// `state`, such as streaming.
    pub state: String,
    /// The slot that it holds.
    pub slot: Option<String>,
    /// What it has flushed.
    pub flushed: Option<Lsn>,
    /// What it has replayed.
    pub replayed: Option<Lsn>,
    /// `sync_state`, for people only.
    pub sync_state: String,
    /// For how long its flush position has been behind the primary's without moving.
    pub stalled_ms: u64,
    /// `replay_lag`, for people only: how long its newest answers took to say that what the primary
    /// wrote is replayed. `None` where nothing was written lately.
    #[serde(default)]
    pub replay_lag_ms: Option<u64>,
}

/// The step a keeper is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepView {
    /// Its name, or what is waited for.
    pub name: String,
    /// How far it is, where that is known: done and total, in bytes.
    pub progress: Option<(u64, u64)>,
    /// For how long it has been under way.
    pub elapsed_ms: u64,
    /// How long one attempt may take before it is given up and made again; `None`: as long as it takes, as
    /// of copies, and of waits for something that may come at any time.
    #[serde(default)]
    pub limit_ms: Option<u64>,
}

/// The answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// The report's nonce.
    pub nonce: u64,
    /// The record's revision from which the assignment was made.
    pub revision: Revision,
    /// What the node shall be.
    pub assignment: Assignment,
    /// The primary's lease, from the sending of the report (rule 12); `None`: not granted.
    pub lease: Option<Lease>,
    /// Up to where the members have the log, for their retention slots.
    pub flushed: Vec<(NodeId, Lsn)>,
    /// The members of the sync set in force.
    #[serde(default)]
    pub sync_members: Vec<NodeId>,
    /// Where the monitor can be reached from now on, where that has changed.
    pub monitors: Vec<String>,
    /// The monitor does not know yet which settings this version of PostgreSQL has: the next report
    /// shall say.
    #[serde(default)]
    pub wants_catalogue: bool,
    /// What the primary says is stored in the archive: the others need not keep it.
    #[serde(default)]
    pub archived: Archived,
}

impl Answer {
    /// Whether this was decided before the other. Two calls may be under way, and which answer comes
    /// first is the network's choice.
    pub fn is_older_than(&self, other: &Self) -> bool {
        (self.assignment.order, self.revision) < (other.assignment.order, other.revision)
    }
}

/// For how long a primary may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Lease {
    /// So many milliseconds from the sending of the report.
    For {
        /// How many.
        ms: u64,
    },
    /// Until another node is ready to take over: there is none.
    Unlimited,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a keeper of before does not say must not be taken for a yes.
    #[test]
    fn a_report_of_an_older_keeper_is_one_without_cascading() {
        let mut report = serde_json::to_value(Report::of_new_node("k")).unwrap();
        let fields = report.as_object_mut().unwrap();
        assert!(fields.remove("cascades").is_some() && fields.remove("needs_primary").is_some());
        let report: Report = serde_json::from_value(report).unwrap();
        assert!(!report.cascades && !report.needs_primary);
    }
}
