//! What an operator may ask for in quarantine: to do without a member that is lost for good.

use super::{Reply, Request, refused, unknown_node};
use crate::group::record::Note;
use shared::api::{Action, ApiError};
use shared::ids::{NodeId, NodeName};

impl Request<'_> {
    pub(super) fn in_quarantine(&self, action: &Action, why: &str) -> Result<Reply, ApiError> {
        if let Action::Drop { node, force: true, destroy: false } = action {
            return self.give_up(node);
        }
        let message = format!(
            "{why}, so it decides nothing until the keepers have been heard; `pgtandem explain` says what is missing"
        );
        Err(refused("quarantine", message, &[]))
    }

    /// The record may not know it: the keepers name it.
    fn give_up(&self, name: &NodeName) -> Result<Reply, ApiError> {
        let known = self.record.node_named(name).map(|(id, _)| id);
        let id = known.or_else(|| self.named_by_keepers(name));
        let id = id.ok_or_else(|| unknown_node(self.record, name))?;
        if self.view.report(id).is_some() {
            let message = format!("{name} is heard: there is no need to give up what it has");
            return Err(refused("node_is_heard", message, &[name]));
        }
        let mut next = self.record.clone();
        let secret = next.nodes.remove(&id).map(|node| node.secret);
        next.dropped.insert(id, secret.unwrap_or_default());
        let reason = format!("{name} is given up by the operator, with what only it has");
        Ok(self.done(next, Note::new("node", "operator", reason).about(id)))
    }

    fn named_by_keepers(&self, name: &NodeName) -> Option<NodeId> {
        let offers = self.record.nodes.keys().filter_map(|id| self.view.offer(*id));
        let members = offers.flat_map(|(_, offer)| &offer.assignment.members);
        let mut found = members.filter(|member| member.name == *name);
        found.next().map(|member| member.id)
    }
}
