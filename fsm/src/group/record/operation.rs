//! What an operator asked for that takes time: one at a time, recorded until it is done or cannot be.

use serde::{Deserialize, Serialize};
use shared::Timestamp;
use shared::ids::{Epoch, NodeId, NodeName};

/// What an operator asked for and is not finished.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operation {
    /// Its number.
    pub id: u64,
    /// What it is.
    pub kind: OperationKind,
    /// The node that it is about.
    pub target: Option<NodeId>,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// The primary at that time.
    pub old_primary: Option<NodeName>,
    /// The epoch at that time.
    pub old_epoch: Epoch,
    /// The hook of its node has refused the promotion: what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What an operator can ask for that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// A planned change of the primary.
    Switchover,
    /// An election at once.
    Failover,
    /// A change of the primary to a named node.
    Promote,
    /// Out of the keeper's hands.
    MaintenanceOn,
    /// Back into the keeper's hands.
    MaintenanceOff,
    /// Out of the formation.
    Drop,
    /// Postgres is stopped and started again.
    Restart,
    /// A new copy of the data.
    Reinit,
    /// A timeline that was begun by hand becomes the group's.
    AcceptTimeline,
}

impl OperationKind {
    /// The name for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failover => "failover",
            Self::Promote => "promote",
            Self::MaintenanceOn => "maintenance on",
            Self::MaintenanceOff => "maintenance off",
            Self::Drop => "drop",
            Self::Restart => "restart",
            Self::Reinit => "reinit",
            Self::AcceptTimeline => "accept timeline",
        }
    }

    /// Whether it is something that a keeper does once.
    pub(crate) fn is_order(self) -> bool {
        match self {
            Self::Restart | Self::Reinit => true,
            Self::Switchover
            | Self::Failover
            | Self::Promote
            | Self::MaintenanceOn
            | Self::MaintenanceOff
            | Self::Drop
            | Self::AcceptTimeline => false,
        }
    }
}
