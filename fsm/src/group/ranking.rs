//! Who may be promoted, and in which order an election looks at those who may: one order for the
//! election and for whoever is told about it.
//!
//! Not here: whether the first of them has every commit (`election`).

use super::record::{Election, Phase, Record};
use super::view::View;
use shared::ids::NodeId;
use shared::lsn::Position;
use shared::report::{Data, Report};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Spreads the ids, so that each `tie_break` gives another order of them.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
/// What `SPREAD` takes to the largest number.
const FIRST: u64 = 0x0E21_7C1E_66C8_8CC3;

/// Why a node is not promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bar {
    /// It is not part of the group, or has never reported.
    Unheard,
    /// It has no whole copy of the data.
    NoData,
    /// Somebody has promoted it by hand: its log goes on, or is about to, on a timeline that no epoch owns.
    Strayed,
    /// Its keeper cannot run Postgres: why.
    CannotRun(String),
    /// Its keeper has been asked to stop.
    Leaving,
    /// It is in maintenance.
    Maintenance,
    /// Its candidate priority is 0, and nobody has asked for it.
    Priority,
    /// Its `pre_promote` hook refuses: why.
    Vetoed(String),
}

/// A node's place in an election: the greatest is looked at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::struct_excessive_bools, reason = "what comes first, one after the other")]
pub(crate) struct Rank {
    /// The operator has asked for it.
    pub(crate) preferred: bool,
    /// It is not being dropped: where nobody else can, it stays.
    pub(crate) remains: bool,
    /// It is not a primary that is to be replaced.
    pub(crate) replaces: bool,
    /// There is room on its disks.
    pub(crate) has_room: bool,
    /// Its candidate priority.
    pub(crate) priority: u8,
    /// Where its log ends.
    pub(crate) position: Position,
    /// It is fetching already: among equals, it goes on.
    pub(crate) begun: bool,
    /// Chance.
    pub(crate) chance: u64,
}

/// In which respect one node comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merit {
    /// The operator has asked for it.
    Preferred,
    /// The other one is being dropped.
    Remains,
    /// The other one is the primary that is to be replaced.
    Replaces,
    /// The other one's disks are full.
    Room,
    /// Its candidate priority is higher.
    Priority,
    /// Its log goes further.
    Position,
    /// It is fetching already.
    Begun,
    /// None: they are equal.
    Chance,
}

impl Rank {
    /// What this one has before the one that is looked at after it.
    pub(crate) fn merit_over(&self, next: &Self) -> Merit {
        let Self { preferred, remains, replaces, has_room, priority, position, begun, chance: _ } =
            *self;
        if preferred != next.preferred {
            Merit::Preferred
        } else if remains != next.remains {
            Merit::Remains
        } else if replaces != next.replaces {
            Merit::Replaces
        } else if has_room != next.has_room {
            Merit::Room
        } else if priority != next.priority {
            Merit::Priority
        } else if position != next.position {
            Merit::Position
        } else if begun != next.begun {
            Merit::Begun
        } else {
            Merit::Chance
        }
    }
}

/// Whether a report is of a node that has a whole copy of the data and can be asked to run it.
pub(crate) fn has_data(report: &Report) -> bool {
    match report.data {
        Data::Present { .. } => report.failed.is_none(),
        Data::Empty | Data::Rebuilding | Data::Unusable => false,
    }
}

/// Whether the disks of a node that reports are full.
pub(crate) fn lacks_room(view: &View, id: NodeId) -> bool {
    view.report(id).is_some_and(|report| report.room.iter().any(|room| !room.suffices()))
}

/// What keeps a node from being promoted; a preferred one may be at any priority.
pub(crate) fn bar(
    record: &Record,
    view: &View,
    id: NodeId,
    preferred: Option<NodeId>,
) -> Option<Bar> {
    let (Some(node), Some(report)) = (record.nodes.get(&id), view.report(id)) else {
        return Some(Bar::Unheard);
    };
    if node.maintenance {
        Some(Bar::Maintenance)
    } else if node.candidate_priority == 0 && preferred != Some(id) {
        Some(Bar::Priority)
    } else if let Some(failed) = &report.failed {
        Some(Bar::CannotRun(failed.clone()))
    } else if !has_data(report) {
        Some(Bar::NoData)
    } else if report.stray.is_some() {
        Some(Bar::Strayed)
    } else if report.leaving {
        Some(Bar::Leaving)
    } else {
        report.vetoes.clone().map(Bar::Vetoed)
    }
}

/// Whether a node may be promoted.
pub(crate) fn is_eligible(
    record: &Record,
    view: &View,
    id: NodeId,
    preferred: Option<NodeId>,
) -> bool {
    bar(record, view, id, preferred).is_none()
}

/// Those of these nodes that may be promoted, the first to be looked at first.
pub(crate) fn rank(
    record: &Record,
    view: &View,
    election: &Election,
    positions: &BTreeMap<NodeId, Position>,
    tie_break: u64,
) -> Vec<(NodeId, Rank)> {
    let mut ranked: Vec<_> = positions
        .iter()
        .filter(|(id, _)| is_eligible(record, view, **id, election.preferred))
        .map(|(id, position)| {
            let node = record.nodes.get(id);
            let rank = Rank {
                preferred: election.preferred == Some(*id),
                remains: node.is_some_and(|node| !node.dropping),
                replaces: !(election.planned && record.primary == Some(*id)),
                has_room: !lacks_room(view, *id),
                priority: node.map_or(0, |node| node.candidate_priority),
                position: *position,
                begun: is_fetching(&record.phase, *id),
                chance: (id.0 ^ tie_break).wrapping_mul(SPREAD),
            };
            (*id, rank)
        })
        .collect();
    ranked.sort_by_key(|(_, rank)| Reverse(*rank));
    ranked
}

fn is_fetching(phase: &Phase, id: NodeId) -> bool {
    match phase {
        Phase::Forwarding { candidate, .. } => *candidate == id,
        Phase::Forming | Phase::Serving | Phase::Electing(_) | Phase::Promoting => false,
    }
}

/// The chance by which this node wins wherever nothing but chance decides.
pub(crate) fn chance_for(id: NodeId) -> u64 {
    id.0 ^ FIRST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_can_favour_anybody() {
        for id in [1, 2, 3, 77, u64::MAX].map(NodeId) {
            assert_eq!((id.0 ^ chance_for(id)).wrapping_mul(SPREAD), u64::MAX);
        }
    }
}
