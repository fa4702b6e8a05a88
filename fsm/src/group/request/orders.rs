//! What is done to a node once, and the pause of automation.

use super::{Reply, Request, refused};
use crate::group::record::{Node, Note, OperationKind, Pause};
use shared::api::ApiError;
use shared::ids::{NodeId, NodeName};

impl Request<'_> {
    /// A restart is an order to the keeper: Postgres is down because it has to be, which no rule takes for
    /// a failure as long as the keeper reports. The order is given by the rule `operation-goes-on`.
    pub(super) fn restart(&self, name: &NodeName) -> Result<Reply, ApiError> {
        let (id, _) = self.at_work(name)?;
        let note =
            Note::new("operation", "operator", format!("postgres of {name} is to be restarted"));
        let next = self.record.clone();
        Ok(self.accepted(next, OperationKind::Restart, Some(id), note.about(id)))
    }

    /// The present copy stays until the new one is complete, but the node streams nothing meanwhile.
    pub(super) fn reinit(&self, name: &NodeName) -> Result<Reply, ApiError> {
        let (id, _) = self.at_work(name)?;
        if self.record.primary == Some(id) {
            let message = format!(
                "{name} is the primary, which there is nothing to copy from; `pgtandem switchover` first"
            );
            return Err(refused("is_primary", message, &[name]));
        }
        self.keeps_enough(id, name)?;
        let note = Note::new("operation", "operator", format!("{name} is to be copied anew"));
        let next = self.record.clone();
        Ok(self.accepted(next, OperationKind::Reinit, Some(id), note.about(id)))
    }

    /// A node whose keeper takes orders.
    fn at_work(&self, name: &NodeName) -> Result<(NodeId, &Node), ApiError> {
        let (id, node) = self.named(name)?;
        self.free()?;
        if self.is_dead(id) {
            let message = format!("{name} does not answer; start its keeper first");
            return Err(refused("node_is_dead", message, &[name]));
        }
        if node.maintenance {
            let message = format!(
                "{name} is in maintenance, where its keeper leaves Postgres alone; `pgtandem maintenance off {name}` first"
            );
            return Err(refused("in_maintenance", message, &[name]));
        }
        if node.dropping {
            let message = format!("{name} is being dropped");
            return Err(refused("is_dropping", message, &[name]));
        }
        Ok((id, node))
    }

    pub(super) fn pause(&self) -> Reply {
        if self.record.paused.is_some() {
            return self.already("automation is paused already");
        }
        let mut next = self.record.clone();
        next.paused = Some(Pause { since: self.now.wall, withheld: None });
        let reason = "automation is paused: nobody is promoted unless an operator asks for it";
        self.done(next, Note::new("paused", "operator", reason))
    }

    pub(super) fn resume(&self) -> Reply {
        if self.record.paused.is_none() {
            return self.already("automation is not paused");
        }
        let mut next = self.record.clone();
        next.paused = None;
        self.done(next, Note::new("paused", "operator", "automation goes on"))
    }
}
