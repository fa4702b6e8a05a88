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
<<<<<<< HEAD
=======

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

/// `GET /v1/formations/{f}/timelines`: what became of the group's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timelines {
    /// The formation.
    pub formation: FormationId,
    /// The group.
    pub group: GroupId,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Each epoch and its timeline, oldest first.
    pub timelines: Vec<TimelineStatus>,
    /// The timelines that no epoch owns and that nodes are on: somebody promoted them by hand.
    pub strays: Vec<StrayStatus>,
}

/// What became of a timeline number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimelineState {
    /// The newest one, which the primary writes to, or wrote to last.
    Present,
    /// The present one goes through it.
    Passed,
    /// It was begun, and the present one does not go through it.
    Abandoned,
    /// Reserved for the promotion that is under way.
    Promoting,
    /// Reserved for a promotion that nobody has confirmed.
    NeverBegun,
}

/// An epoch and its timeline, in [`Timelines`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineStatus {
    /// The epoch.
    pub epoch: Epoch,
    /// The timeline number.
    pub timeline: TimelineId,
    /// What became of it.
    pub state: TimelineState,
    /// Who was elected for it; of an accepted one, who was on it.
    pub primary: Option<NodeName>,
    /// When that was decided.
    pub decided_at: Option<Timestamp>,
    /// Since when its primary served.
    pub since: Option<Timestamp>,
    /// The timeline that it continues.
    pub parent: Option<TimelineId>,
    /// Where.
    pub fork_lsn: Option<Lsn>,
    /// Why there had to be a new one: the rule, or what the operator asked for.
    pub rule: Option<String>,
    /// The same in a sentence.
    pub reason: Option<String>,
    /// Somebody began it by hand, and an operator accepted it.
    pub accepted: bool,
    /// It was decided although acknowledged commits may have been missing.
    pub data_loss_accepted: bool,
    /// The nodes whose logs end on it, by their newest reports.
    pub nodes: Vec<NodeName>,
}

/// A timeline that no epoch owns, in [`Timelines`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayStatus {
    /// Its number.
    pub timeline: TimelineId,
    /// The node that is on it.
    pub node: NodeName,
    /// The timeline that it left.
    pub parent: TimelineId,
    /// Where.
    pub fork_lsn: Lsn,
    /// Where its log ends, as last reported.
    pub lsn: Option<Lsn>,
    /// The nodes that have more of the group's history than what it continues, and how many bytes:
    /// `pgtandem accept timeline` gives them up.
    pub would_give_up: BTreeMap<NodeName, u64>,
}

/// `GET /v1/formations/{f}/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The state of affairs, a sentence each.
    pub sentences: Vec<String>,
    /// What stands in the way of what is wanted.
    pub blocked_by: Vec<Blocker>,
    /// For the group and for each node the first thing that is not as it should be.
    #[serde(default)]
    pub wanting: Vec<Wanting>,
    /// What would come of it if the primary died now; only of a whole group.
    #[serde(default)]
    pub succession: Option<Succession>,
    /// What would come of it if the nodes of `if_dies` died now.
    #[serde(default)]
    pub prediction: Option<Prediction>,
}

/// The first of the things that should hold which does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanting {
    /// Of which node; `None`: of the group.
    pub node: Option<NodeName>,
    /// One word for programs.
    pub rule: String,
    /// A sentence for people.
    pub text: String,
}

/// Who would follow the primary if it died now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The other nodes, in the order in which an election looks at them; last those that it does not
    /// look at.
    pub ranking: Vec<Ranked>,
    /// What would happen.
    pub prediction: Prediction,
    /// For how long writes would wait; `None` where they would not go on by themselves.
    pub outage: Option<Outage>,
}

/// A node's place in an election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranked {
    /// Which.
    pub node: NodeName,
    /// From 1; `None`: it is never looked at.
    pub place: Option<usize>,
    /// Why, in a sentence.
    pub reason: String,
    /// Behind the primary, in bytes, by the newest reports of both.
    pub lag_bytes: Option<u64>,
}

/// For how long writes would wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Where the primary's host dies, and says nothing any more.
    pub host_ms: u64,
    /// Where its processes die, and its host goes on to refuse connections to them.
    pub processes_ms: u64,
    /// From how many changes of the primary this is known; 0: it is what is typical.
    pub changes: usize,
}

/// What would happen: in `explain` with `if_dies`, and the answer of
/// `POST /v1/formations/{f}/predictions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// What would be decided, in order.
    pub steps: Vec<PredictedStep>,
    /// How it would end.
    pub outcome: PredictedOutcome,
    /// The same in a sentence.
    pub reason: String,
    /// Who would be the primary, and alive.
    pub primary: Option<NodeName>,
    /// What would happen with each other primary that there might be as well, where nothing but chance
    /// would decide.
    pub alternatives: Vec<Self>,
    /// The synchronous standbys in the end.
    pub sync: SyncStatus,
    /// Whether commits would be acknowledged in the end.
    pub writable: bool,
    /// After how long, from now, by the timers alone: what nodes need for their part comes on top.
    pub writable_after_ms: Option<u64>,
    /// What it would wait for in the end.
    pub blocked_by: Vec<Blocker>,
    /// How much of the WAL that may have been acknowledged the new primary would lack, at least; where
    /// nobody would be promoted, the best that is left. `None`: nobody could be.
    pub bytes_at_risk: Option<u64>,
}

/// A decision that would be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictedStep {
    /// When, from now.
    pub after_ms: u64,
    /// By which rule.
    pub rule: String,
    /// About which node.
    pub node: Option<NodeName>,
    /// In a sentence.
    pub reason: String,
}

/// How it would end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PredictedOutcome {
    /// With a primary that takes writes.
    #[serde(rename = "would_take_writes")]
    TakesWrites,
    /// With a primary whose commits wait for standbys.
    #[serde(rename = "would_wait")]
    Waits,
    /// Without a primary.
    #[serde(rename = "would_stand_still")]
    StandsStill,
    /// What was asked for would end otherwise than asked.
    #[serde(rename = "would_fail")]
    Fails,
    /// What was asked for would not end by itself.
    #[serde(rename = "would_not_end")]
    DoesNotEnd,
    /// It is so already.
    #[serde(rename = "would_change_nothing")]
    ChangesNothing,
}

/// `GET /v1/formations/{f}/settings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormationSettings {
    /// The formation.
    pub formation: FormationId,
    /// What is set.
    pub settings: Settings,
    /// What is in force.
    pub timers: Timers,
    /// How many standbys each commit waits for, in force.
    pub number_sync_standbys: u32,
}

/// `POST /v1/formations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateFormation {
    /// Its name.
    pub name: FormationId,
    /// Its settings.
    #[serde(default)]
    pub settings: Settings,
}

/// `GET /v1/formations`, and the answer to [`CreateFormation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormationSummary {
    /// Its name.
    pub name: FormationId,
    /// How many nodes it has.
    pub nodes: usize,
    /// Its primary.
    pub primary: Option<NodeName>,
    /// Its phase.
    pub phase: String,
}

/// `GET /v1/formations/{f}/tokens`; the token itself is only in the answer to its creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Names it for revocation.
    pub id: String,
    /// What a keeper gives with `--join-token`.
    pub token: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// `GET /v1/formations/{f}/members`: where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// All nodes.
    pub members: Vec<Member>,
}

/// The body of `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether requests are served.
    pub ready: bool,
    /// The product's version.
    pub version: String,
    /// The newest migration applied.
    pub schema_version: i64,
    /// When the process started.
    pub started_at: Timestamp,
    /// Its database.
    pub storage: Storage,
}

/// The monitor's database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// embedded or external.
    pub kind: String,
    /// The postmaster's process id, where it is embedded.
    pub pid: Option<i32>,
}
>>>>>>> hC
