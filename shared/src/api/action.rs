//! What an operator can ask for, and how it went.

use crate::Timestamp;
use crate::ids::{NodeName, Revision, TimelineId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `POST /v1/formations/{f}/actions`: everything that an operator can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Hands over to `to`, or to the best candidate.
    Switchover {
        /// The new primary.
        to: Option<NodeName>,
    },
    /// Elects a new primary without waiting for the detector.
    Failover {
        /// Promotes even where acknowledged commits may be missing; for this one election.
        allow_data_loss: bool,
        /// The operator states that the old primary cannot be reached by clients any more.
        fenced: bool,
    },
    /// Makes this node the primary, whatever its priority.
    Promote {
        /// The new primary.
        node: NodeName,
    },
    /// Takes a node out of the keeper's hands, or gives it back.
    Maintenance {
        /// Which.
        node: NodeName,
        /// In or out.
        on: bool,
        /// A primary hands over first.
        allow_failover: bool,
    },
    /// Changes a setting of a node.
    SetNode {
        /// Which.
        node: NodeName,
        /// Such as candidate-priority.
        key: String,
        /// As text.
        value: String,
    },
    /// Changes a setting of the formation.
    SetFormation {
        /// Such as node-timeout.
        key: String,
        /// As text; "default" takes it back.
        value: String,
    },
    /// Changes settings of PostgreSQL.
    Configure {
        /// For this node only; `None`: for all that have no own value.
        #[serde(default)]
        node: Option<NodeName>,
        /// The new values; `None` takes one back.
        changes: BTreeMap<String, Option<String>>,
        /// Only if nothing has been set since this revision.
        #[serde(default)]
        if_revision: Option<Revision>,
        /// Who asks, for the events.
        #[serde(default)]
        by: Option<String>,
    },
    /// Restarts a node's Postgres; that is not taken for a failure.
    Restart {
        /// Which.
        node: NodeName,
    },
    /// Makes a new copy of the primary's data on a standby.
    Reinit {
        /// Which.
        node: NodeName,
    },
    /// Nobody is promoted unless an operator asks for it.
    Pause,
    /// Ends the pause.
    Resume,
    /// Removes a node for good.
    Drop {
        /// Which.
        node: NodeName,
        /// Without its consent: it is dead.
        force: bool,
        /// Its keeper removes its data once it has left.
        #[serde(default)]
        destroy: bool,
    },
    /// Makes the timeline that a node was promoted to by hand the group's, whatever the others have.
    AcceptTimeline {
        /// Which.
        timeline: TimelineId,
        /// Why, for the events.
        reason: String,
        /// The operator states that the old primary cannot be reached by clients any more.
        #[serde(default)]
        fenced: bool,
    },
}

/// How an operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As asked.
    Done,
    /// Recorded, and going on.
    Accepted,
    /// A rule forbids it; nothing was changed.
    Refused,
    /// The caller's patience ended; the operation goes on.
    Timeout,
    /// It ended otherwise than asked.
    Failed,
}

/// `GET /v1/formations/{f}/operations/{id}`, and the answer to an action.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OperationResult {
    /// Per formation; 0 for what was done at once or was so already.
    pub id: u64,
    /// How it went.
    pub outcome: Outcome,
    /// In a sentence.
    pub reason: String,
    /// The primary before.
    pub old_primary: Option<NodeName>,
    /// The primary after.
    pub new_primary: Option<NodeName>,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}
