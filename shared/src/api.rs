//! The monitor's HTTP API under `/v1`, as JSON: what keepers and the operator's command send and get. Here are the
//! status and the errors, which everybody gets; the rest is in a module for each subject.

mod action;
mod explanation;
mod formations;
mod join;
mod timelines;

pub use action::{Action, OperationResult, Outcome};
pub use explanation::{
    Explanation, Outage, PredictedOutcome, PredictedStep, Prediction, Ranked, Succession, Wanting,
};
pub use formations::{
    CreateFormation, FormationSettings, FormationSummary, JoinToken, Ready, Storage,
};
pub use join::{Identity, JoinAnswer, JoinRequest, Members, RolePasswords};
pub use timelines::{StrayStatus, TimelineState, TimelineStatus, Timelines};

use crate::Timestamp;
use crate::ids::{
    Epoch, FormationId, Gen, GroupId, NodeId, NodeName, Revision, SystemIdentifier, Ticket,
    TimelineId,
};
use crate::lsn::Lsn;
use crate::report::{ArchiveWork, Lease, StepView};
use crate::state::NodeState;
use serde::{Deserialize, Serialize};

/// An error, as the body of every answer that is not 2xx, and as `--json` output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The exit code of the operator's command.
    pub code: u8,
    /// One word for programs, such as `no_candidate`.
    pub reason: String,
    /// A sentence for people: what is wrong and how to mend it.
    pub message: String,
    /// The nodes concerned.
    #[serde(default)]
    pub nodes: Vec<NodeName>,
}

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// One word for programs.
    pub code: String,
    /// The nodes concerned.
    pub nodes: Vec<NodeName>,
    /// A sentence for people.
    pub text: String,
}

/// `GET /v1/formations/{f}/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The formation.
    pub formation: FormationId,
    /// The group.
    pub group: GroupId,
    /// The record's revision.
    pub revision: Revision,
    /// The newest epoch.
    pub epoch: Epoch,
    /// The newest ticket.
    pub ticket: Ticket,
    /// The phase of the group's machine.
    pub phase: String,
    /// Whether automation is off.
    pub paused: bool,
    /// How many standbys each commit waits for, as the formation demands.
    pub number_sync_standbys: u32,
    /// The primary's name.
    pub primary: Option<NodeName>,
    /// Whether commits are being acknowledged.
    pub writable: bool,
    /// The synchronous standbys.
    pub sync: SyncStatus,
    /// The operation under way.
    pub operation: Option<OperationStatus>,
    /// What is left, at most, of the last lease that any primary was granted: the monitor counts from
    /// the answer that granted it, and a tenth more for clocks that drift, so that the primary's own
    /// count ends earlier. Of 0 ms: it has ended. `None`: there has never been a primary.
    #[serde(default)]
    pub lease_left: Option<Lease>,
    /// All nodes, by id.
    pub nodes: Vec<NodeStatus>,
    /// Things a person should know.
    pub warnings: Vec<String>,
    /// When this was so, by the monitor's clock.
    #[serde(default)]
    pub taken_at: Option<Timestamp>,
}

/// The synchronous standbys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// `synchronous_standby_names` of the newest confirmed spec; `None` before the first.
    pub in_force: Option<String>,
    /// Their names.
    pub members: Vec<NodeName>,
    /// How many of them a commit waits for.
    pub required: usize,
    /// A change under way.
    pub pending: Option<String>,
    /// The generation of the newest spec.
    pub generation: Option<Gen>,
}

/// An operation under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationStatus {
    /// Its id.
    pub id: u64,
    /// switchover, failover, promote, maintenance or drop.
    pub kind: String,
    /// The node that it is about.
    pub target: Option<NodeName>,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// The group's phase.
    pub phase: String,
    /// What it waits for.
    pub blocked_by: Vec<Blocker>,
}

/// A node in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The address of its Postgres.
    pub host: String,
    /// The port of its Postgres.
    pub port: u16,
    /// `host:port` of its keeper's REST interface, which load balancers ask; empty from a monitor that
    /// does not say it yet.
    #[serde(default)]
    pub rest: String,
    /// Where it stands.
    pub zone: Option<String>,
    /// What its keeper last said.
    pub reported_state: NodeState,
    /// What the monitor wants.
    pub goal_state: NodeState,
    /// primary, standby or none.
    pub role: String,
    /// The name of the node that it streams from.
    pub upstream: Option<NodeName>,
    /// The name of the standby that it shall stream from whenever that can be had; `None`: the primary.
    #[serde(default)]
    pub replicate_from: Option<NodeName>,
    /// 0 to 100.
    pub candidate_priority: u8,
    /// Whether it may be in the sync set.
    pub replication_quorum: bool,
    /// ok, bad or unknown.
    pub health: String,
    /// When health was last judged.
    pub health_checked_at: Option<Timestamp>,
    /// When its keeper was last heard.
    pub last_report_at: Option<Timestamp>,
    /// When its reported or goal state changed.
    pub state_changed_at: Option<Timestamp>,
    /// Whether its Postgres accepts connections.
    pub pg_running: bool,
    /// Whether its Postgres is a standby.
    pub in_recovery: Option<bool>,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// The end of its WAL.
    pub lsn: Option<Lsn>,
    /// Received.
    pub received_lsn: Option<Lsn>,
    /// Replayed.
    pub replayed_lsn: Option<Lsn>,
    /// Behind the primary, in bytes.
    pub lag_bytes: Option<u64>,
    /// Behind the primary, in milliseconds, as the primary last reported: `replay_lag` of
    /// pg_stat_replication, or for how long the standby's flush position has been behind without
    /// moving, whichever is more; 0 once it has replayed all. It is measured on what is written: it
    /// does not say how long catching up will take. `None` where nothing is measured: it does not
    /// stream, or the primary is not heard.
    #[serde(default)]
    pub lag_ms: Option<u64>,
    /// As pg_stat_replication shows it on the primary.
    pub sync_state: Option<String>,
    /// Its name in `synchronous_standby_names`.
    pub application_name: String,
    /// The slot that it streams from.
    pub slot_name: Option<String>,
    /// operator or shutdown.
    pub maintenance_cause: Option<String>,
    /// The cluster's identity.
    pub system_identifier: Option<SystemIdentifier>,
    /// Whether its log is off the group's history.
    pub diverged: Option<bool>,
    /// Such as 15.18.
    pub pg_version: Option<String>,
    /// Its keeper's version.
    pub keeper_version: Option<String>,
    /// The step under way.
    pub step: Option<StepView>,
    /// How far its archive is; `None` where it has none.
    #[serde(default)]
    pub archive: Option<ArchiveStatus>,
    /// Things a person should know.
    pub warnings: Vec<String>,
}

/// How far the archive of a node is, as its keeper last said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// The timeline of the last segment that is known there to be stored.
    pub timeline: Option<TimelineId>,
    /// Where that segment ends.
    pub lsn: Option<Lsn>,
    /// How much of the node's log comes after it; up to a segment is no more than what is not full yet.
    pub behind_bytes: Option<u64>,
    /// Files of `pg_wal` that wait: to be stored, or on a standby to be known as stored.
    pub waiting_files: u64,
    /// Since when the oldest of them does.
    pub waiting_since: Option<Timestamp>,
    /// The newest epoch of which this node has taken the backup after the promotion.
    pub backed_up_epoch: Option<Epoch>,
    /// What fails, and is tried again; empty where all is well.
    pub failing: Vec<ArchiveFailing>,
}

/// Something about an archive that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveFailing {
    /// What.
    pub work: ArchiveWork,
    /// Since when.
    pub since: Option<Timestamp>,
    /// What was said last.
    pub error: String,
}
