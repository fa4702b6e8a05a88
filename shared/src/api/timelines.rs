//! What became of the group's history: each epoch with its timeline, and those that nobody was elected for.

use crate::Timestamp;
use crate::ids::{Epoch, FormationId, GroupId, NodeName, TimelineId};
use crate::lsn::Lsn;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
