//! What an operator asked for that takes time: one at a time, recorded until it is done or cannot be.

use super::Record;
use crate::Now;
use serde::{Deserialize, Serialize};
use shared::Timestamp;
use shared::api::{OperationResult, Outcome};
use shared::goal::Orders;
use shared::ids::{Epoch, NodeId, NodeName};

/// How many finished operations are remembered for clients that ask late.
const FINISHED_KEPT: usize = 32;

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

impl Record {
    /// The operation's result as of now.
    pub fn result_of(
        &self,
        operation: &Operation,
        outcome: Outcome,
        reason: &str,
    ) -> OperationResult {
        OperationResult {
            id: operation.id,
            outcome,
            reason: reason.to_owned(),
            old_primary: operation.old_primary.clone(),
            new_primary: self.primary_name(),
            timeline: self.present_timeline().map(|entry| entry.timeline),
            started_at: operation.requested_at,
            finished_at: None,
        }
    }

    /// A finished operation, or the one under way, by id.
    pub fn operation_result(&self, id: u64) -> Option<OperationResult> {
        if let Some(operation) = self.operation.as_ref().filter(|operation| operation.id == id) {
            return Some(self.result_of(operation, Outcome::Accepted, "under way"));
        }
        self.finished.iter().find(|result| result.id == id).cloned()
    }

    /// Whether an operator has asked for something that takes this standby away for a while.
    pub(crate) fn is_to_be_away(&self, id: NodeId) -> bool {
        self.operation.as_ref().is_some_and(|operation| {
            operation.target == Some(id) && operation.kind.is_order() && self.primary != Some(id)
        })
    }

    /// Ends the operation under way, and with it what it ordered.
    pub(crate) fn finish(&mut self, outcome: Outcome, reason: &str, now: Now) {
        if let Some(operation) = self.operation.take() {
            if let Some(node) = operation.target.and_then(|id| self.nodes.get_mut(&id))
                && operation.kind.is_order()
            {
                node.orders = Orders { destroy: node.orders.destroy, ..Orders::default() };
            }
            let mut result = self.result_of(&operation, outcome, reason);
            result.finished_at = Some(now.wall);
            self.finished.push(result);
            if self.finished.len() > FINISHED_KEPT {
                self.finished.remove(0);
            }
        }
    }
}
