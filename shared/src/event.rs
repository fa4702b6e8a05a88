//! The history of a formation: one event for each thing that was decided or noticed.

use crate::Timestamp;
use crate::ids::{Epoch, FormationId, GroupId, NodeId, NodeName, TimelineId};
use crate::lsn::Lsn;
use serde::{Deserialize, Serialize};

/// One entry of the history. Durable, complete, ids without gaps per formation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// From 1, per formation.
    pub id: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// The formation.
    pub formation: FormationId,
    /// The group.
    pub group: GroupId,
    /// The name of the node that it is about, where it is about one.
    pub node: Option<NodeName>,
    /// The same node's id.
    pub node_id: Option<NodeId>,
    /// The epoch after it.
    pub epoch: Epoch,
    /// What kind of thing happened, such as `phase`, `node_state`, `sync`, `setting`, `operation`.
    pub kind: String,
    /// The rule of the group's machine.
    pub rule: String,
    /// What was before.
    pub from: Option<String>,
    /// What is now.
    pub to: Option<String>,
    /// The timeline, where one is concerned.
    pub timeline: Option<TimelineId>,
    /// The location, where one is concerned.
    pub lsn: Option<Lsn>,
    /// A sentence that a DBA understands.
    pub reason: String,
    /// The facts that the decision was made from.
    pub evidence: serde_json::Value,
}
