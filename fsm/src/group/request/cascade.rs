//! `replicate-from`: from which standby a node shall stream.

use super::{Request, bad_value, refused, unknown_node};
use crate::group::cascade::{held_back, leads_to};
use crate::group::record::Node;
use shared::api::ApiError;
use shared::ids::{NodeId, NodeName};

impl Request<'_> {
    /// What a value says; the names are the present ones, the wish is for the node.
    pub(super) fn wish(
        &self,
        id: NodeId,
        node: &Node,
        value: &str,
    ) -> Result<Option<NodeId>, ApiError> {
        let value = value.trim();
        let by_name: Option<NodeName> = value.parse().ok();
        let found = by_name.as_ref().and_then(|name| self.record.node_named(name));
        // A node may be called so.
        let means_none = ["", "none", "primary"].iter().any(|it| it.eq_ignore_ascii_case(value));
        if found.is_none() && means_none {
            return Ok(None);
        }
        let Some((from, upstream)) = found else {
            return Err(match by_name {
                Some(name) => unknown_node(self.record, &name),
                None => bad_value("bad_value", format!("'{value}' is neither a node nor none")),
            });
        };
        self.may_replicate((id, node), (from, upstream))?;
        Ok(Some(from))
    }

    /// What is to be said where a wish cannot be had at once.
    pub(super) fn not_yet(&self, id: NodeId, node: &Node) -> Option<String> {
        let Request { record, view, now } = self;
        let (own, wish) = (&node.name, node.cascade.wish?);
        if record.primary == Some(wish) {
            let name = record.name_of(wish);
            return Some(format!(
                "{name} is the primary, so {own} is a direct standby as long as it is"
            ));
        }
        if record.primary == Some(id) {
            return Some(format!("{own} is the primary, so it counts from the next one on"));
        }
        let why = held_back(record, view, (id, wish), now.mono)?;
        Some(format!("{own} stays at the primary for now: {why}"))
    }

    fn may_replicate(
        &self,
        (id, node): (NodeId, &Node),
        (from, upstream): (NodeId, &Node),
    ) -> Result<(), ApiError> {
        let (own, name) = (&node.name, &upstream.name);
        if id == from {
            let message = format!("{own} cannot replicate from itself");
            return Err(refused("itself", message, &[own]));
        }
        if leads_to(self.record, from, id) {
            let message = format!(
                "{own} cannot replicate from {name}, which is to replicate from {own}, or from one that does; set replicate-from of {name} to none first"
            );
            return Err(refused("cycle", message, &[own, name]));
        }
        if let Some(leaving) = [node, upstream].into_iter().find(|node| node.dropping) {
            let message = format!("{} is being dropped", leaving.name);
            return Err(refused("is_dropping", message, &[&leaving.name]));
        }
        self.leaves_enough((id, node), from)
    }

    /// Whoever replicates from a standby leaves the sync set.
    fn leaves_enough(&self, (id, node): (NodeId, &Node), from: NodeId) -> Result<(), ApiError> {
        let record = self.record;
        if record.primary == Some(id) || record.primary == Some(from) || !node.replication_quorum {
            return Ok(());
        }
        let demanded = record.number_sync_standbys();
        let left = record.lasting_standbys().filter(|standby| *standby != id).count();
        if left >= demanded.max(1) {
            return Ok(());
        }
        let name = &node.name;
        let message = if demanded > 0 {
            format!(
                "{name} would leave the sync set, and {left} standbys would be left for number-sync-standbys {demanded}; set number-sync-standbys lower first, or replication-quorum of {name} to false"
            )
        } else {
            format!(
                "{name} would leave the sync set, and commits would wait for no standby; if that is meant, set replication-quorum of {name} to false first"
            )
        };
        Err(refused("too_few_standbys", message, &[name]))
    }
}
