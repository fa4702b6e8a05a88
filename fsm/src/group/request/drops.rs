//! Nodes that are to leave for good.

use super::{Reply, Request, refused};
use crate::group::record::{Note, OperationKind, Phase, Record};
use crate::group::rules::election::begin;
use crate::group::rules::upkeep::without;
use shared::api::{ApiError, Outcome};
use shared::ids::{NodeId, NodeName};

impl Request<'_> {
    pub(super) fn drop_by_force(&self, name: &NodeName) -> Result<Reply, ApiError> {
        let (id, _) = self.named(name)?;
        let mut next = without(self.record, id);
        if next.operation.as_ref().is_some_and(|operation| operation.target == Some(id)) {
            next.finish(Outcome::Failed, "the node was dropped", self.now);
        }
        let note = Note::new("node", "operator", format!("{name} is dropped by force")).about(id);
        Ok(if next.operation.is_some() {
            self.done(next, note)
        } else {
            self.accepted(next, OperationKind::Drop, Some(id), note)
        })
    }

    pub(super) fn drop_node(&self, name: &NodeName, destroy: bool) -> Result<Reply, ApiError> {
        let (id, node) = self.named(name)?;
        if node.dropping {
            return Ok(self.already(format!("{name} is being dropped already")));
        }
        if self.record.phase != Phase::Forming {
            self.free()?;
        }
        if self.is_dead(id) {
            let message = format!("{name} does not answer; --force drops it all the same");
            return Err(refused("node_is_dead", message, &[name]));
        }
        if self.record.primary == Some(id) {
            if self.somebody_can_take_over().is_err() {
                let message = format!(
                    "{name} is the primary and nobody can take over; --force drops it all the same"
                );
                return Err(refused("is_primary", message, &[name]));
            }
            let mut next = begin(self.record, OperationKind::Drop.name(), None, true, None);
            order_destruction(&mut next, id, destroy);
            let note =
                Note::new("phase", "operator", format!("{name} hands over before it is dropped"))
                    .about(id)
                    .change(self.record.phase.name(), next.phase.name());
            return Ok(self.accepted(next, OperationKind::Drop, Some(id), note));
        }
        let mut next = self.record.clone();
        if let Some(node) = next.nodes.get_mut(&id) {
            node.dropping = true;
        }
        order_destruction(&mut next, id, destroy);
        let and = if destroy { ", and its data destroyed" } else { "" };
        let note = Note::new("node", "operator", format!("{name} is to be dropped{and}")).about(id);
        Ok(self.accepted(next, OperationKind::Drop, Some(id), note))
    }
}

/// Its keeper destroys the data of a node once that has left.
fn order_destruction(next: &mut Record, id: NodeId, destroy: bool) {
    let order = next.next_operation;
    if let Some(node) = next.nodes.get_mut(&id) {
        node.orders.destroy = if destroy { order } else { 0 };
    }
}
