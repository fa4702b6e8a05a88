//! Whom commits wait for, by the record: how many, and which nodes could be among them. Who of them is fit is seen
//! in a view (`sync`).

use super::Record;
use shared::ids::NodeId;

impl Record {
    /// How many standbys each commit waits for: what is set, else 1 from the third data node on, and
    /// never more than there are nodes that could be waited for.
    pub fn number_sync_standbys(&self) -> usize {
        self.number_sync_standbys_below(self.primary)
    }

    /// The same, were this node the primary. Whoever streams from a standby counts: it comes back where it is
    /// needed, and nothing is demanded less because it is elsewhere.
    pub fn number_sync_standbys_below(&self, primary: Option<NodeId>) -> usize {
        let standbys = self.eligible_standbys_below(primary).count();
        let wanted = match self.settings.number_sync_standbys {
            Some(number) => usize::try_from(number).unwrap_or(usize::MAX),
            None => usize::from(self.nodes.len() >= 3),
        };
        wanted.min(standbys)
    }

    /// The nodes that may be in the sync set of the present primary.
    pub fn quorum_standbys(&self) -> impl Iterator<Item = NodeId> {
        self.quorum_standbys_below(self.primary)
    }

    /// The same, were this node the primary. Whoever streams from a standby is not among them: commits on
    /// the primary wait for its own walsenders only.
    pub fn quorum_standbys_below(&self, primary: Option<NodeId>) -> impl Iterator<Item = NodeId> {
        let upstream = |id| self.nodes.get(&id).and_then(|node| node.cascade.upstream);
        self.eligible_standbys_below(primary).filter(move |id| upstream(*id).is_none())
    }

    /// The nodes that commits could wait for, were this one the primary: now, or as soon as those that stream from
    /// a standby have come to the primary.
    pub(crate) fn eligible_standbys_below(
        &self,
        primary: Option<NodeId>,
    ) -> impl Iterator<Item = NodeId> {
        self.nodes
            .iter()
            .filter(move |(id, node)| {
                Some(**id) != primary
                    && node.replication_quorum
                    && !node.maintenance
                    && !node.dropping
            })
            .map(|(id, _)| *id)
    }

    /// Whether a node is to stream from the primary, were this one the primary: nobody wishes otherwise, or
    /// it wishes for this very node.
    pub fn is_direct_below(&self, primary: Option<NodeId>, id: NodeId) -> bool {
        let wish = self.nodes.get(&id).and_then(|node| node.cascade.wish);
        wish.is_none_or(|wish| Some(wish) == primary || !self.nodes.contains_key(&wish))
    }

    /// The nodes that may be in the sync set of the present primary now and later: without those that go to
    /// another standby as soon as they can.
    pub fn lasting_standbys(&self) -> impl Iterator<Item = NodeId> {
        self.quorum_standbys().filter(|id| self.is_direct_below(self.primary, *id))
    }

    /// Whether a node stands in any spec that may be in force, as one that acknowledges.
    pub fn is_sync_member(&self, id: NodeId) -> bool {
        self.specs.iter().any(|spec| spec.standbys.contains(&id))
    }
}
