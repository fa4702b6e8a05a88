//! Why things are as they are, and what would happen if.

use super::{Blocker, SyncStatus};
use crate::ids::NodeName;
use serde::{Deserialize, Serialize};

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
