//! What the monitor wants of a node: the goal, with all its parameters, and the order in which
//! assignments count.

use crate::history::Lineage;
use crate::ids::{Epoch, Gen, NodeId, NodeName, SystemIdentifier, Ticket, TimelineId};
use crate::lsn::Position;
use crate::pgsettings::{NodeSettings, PostgresSettings};
use crate::settings::{Settings, Timers};
use crate::spec::Spec;
use crate::state::NodeState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a node shall be. Every goal can be reached from every situation; the keeper finds the steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Goal {
    /// Nothing is decided yet: touch nothing, start nothing.
    Wait,
    /// Be the primary of the assignment's epoch, promoting if need be (rule 7), under `spec` (rule 9).
    Primary {
        /// The timeline number reserved for the epoch; `None` for the first epoch, whose primary
        /// keeps the timeline that it has.
        timeline: Option<TimelineId>,
        /// The newest spec of the record.
        spec: Spec,
    },
    /// Stream from `upstream` through the slot of this node's present admission (rule 10). Whoever follows
    /// a standby is neither copied nor rewound: where it cannot stream it waits for the primary.
    Follow {
        /// Where from.
        upstream: Upstream,
    },
    /// Be sealed under the assignment's ticket and report the position (rule 3).
    Seal {
        /// A running primary first lets its standbys have everything (fast shutdown): a switchover.
        drain: bool,
    },
    /// Stay sealed, but fetch WAL from a peer until `target` is reached (rule 5).
    FastForward {
        /// The sealed node that has it.
        source: NodeId,
        /// Where that node's log ends.
        target: Position,
    },
    /// Hands off, except that the node must not be writable.
    Maintenance,
    /// No longer part of the formation: stop Postgres, for good.
    Dropped,
}

impl Goal {
    /// What a follower is told of its upstream.
    pub fn follows(&self) -> Option<&Upstream> {
        match self {
            Self::Follow { upstream } => Some(upstream),
            Self::Wait
            | Self::Primary { .. }
            | Self::Seal { .. }
            | Self::FastForward { .. }
            | Self::Maintenance
            | Self::Dropped => None,
        }
    }

    /// Whom a follower streams from.
    pub fn upstream(&self) -> Option<NodeId> {
        self.follows().map(Upstream::node)
    }

    /// The primary that a follower follows, at first hand or not.
    pub fn primary(&self) -> Option<NodeId> {
        self.follows().map(Upstream::primary)
    }

    /// Whom a node that has this goal takes for the primary: itself, or the one that it follows.
    pub fn primary_for(&self, own: NodeId) -> Option<NodeId> {
        let is_own = matches!(self, Self::Primary { .. });
        is_own.then_some(own).or(self.primary())
    }

    /// The spec of a primary.
    pub fn spec(&self) -> Option<&Spec> {
        match self {
            Self::Primary { spec, .. } => Some(spec),
            Self::Wait
            | Self::Follow { .. }
            | Self::Seal { .. }
            | Self::FastForward { .. }
            | Self::Maintenance
            | Self::Dropped => None,
        }
    }
}

/// Where a standby streams from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Upstream {
    /// The primary of the group.
    Primary {
        /// Its node.
        node: NodeId,
    },
    /// A standby (cascading). Told only to keepers that have said that they know it.
    Standby {
        /// Its node.
        node: NodeId,
        /// The primary of the group.
        primary: NodeId,
    },
}

impl Upstream {
    /// Whom to stream from.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Primary { node } | Self::Standby { node, .. } => *node,
        }
    }

    /// The primary of the group.
    pub fn primary(&self) -> NodeId {
        match self {
            Self::Primary { node } | Self::Standby { primary: node, .. } => *node,
        }
    }

    /// Whether it is a standby.
    pub fn is_standby(&self) -> bool {
        match self {
            Self::Primary { .. } => false,
            Self::Standby { .. } => true,
        }
    }
}

/// From whom a node streams, as long as it is not the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Cascade {
    /// The standby that it shall stream from whenever that can be had; `None`: the primary.
    pub wish: Option<NodeId>,
    /// The standby that it is told to stream from now; `None`: the primary.
    pub upstream: Option<NodeId>,
    /// How often, since the wish or the primary last changed, it had to go back to the primary although
    /// that standby was well: it waits longer each time.
    pub detours: u8,
}

/// A node of the group, as its peers need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The address of its Postgres.
    pub host: String,
    /// The port of its Postgres.
    pub port: u16,
    /// `host:port` of its keeper's REST interface.
    pub rest: String,
    /// The ticket that its admission slot carries.
    pub admission: Ticket,
}

/// What orders assignments: compared by ticket, then by generation (rule 2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Order {
    /// Raised at each start of the monitor, election and decision.
    pub ticket: Ticket,
    /// The newest generation of the record's specs.
    pub generation: Gen,
}

/// What a node's keeper is to do once, each by the number of the operation that asked for it: what is above
/// the number that the keeper has done is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Orders {
    /// Restart Postgres.
    pub restart: u64,
    /// Make a new copy of the primary's data, as a standby.
    pub copy: u64,
    /// Destroy the data, once the node has left.
    pub destroy: u64,
}

/// A goal with everything the keeper needs to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// Its place among all assignments to this node.
    pub order: Order,
    /// The epoch of the record; the one to promote into where the goal is to be its primary.
    pub epoch: Epoch,
    /// The goal as users see it.
    pub goal_state: NodeState,
    /// The goal.
    pub goal: Goal,
    /// All nodes of the group, this one included, in the order of their ids.
    pub members: Vec<Member>,
    /// All epochs so far.
    pub lineage: Lineage,
    /// The cluster that this group is; `None` before its birth.
    pub system_identifier: Option<SystemIdentifier>,
    /// The formation's timers.
    pub timers: Timers,
    /// A keeper that has been asked to stop may stop its Postgres now: nobody counts on it, or
    /// nobody could take over.
    pub may_stop: bool,
    /// The settings of PostgreSQL that the operator gave.
    #[serde(default)]
    pub settings: NodeSettings,
    /// What it is to do once.
    #[serde(default)]
    pub orders: Orders,
    /// What a monitor that has lost its record is told; `None` from one that did not say it yet.
    #[serde(default)]
    pub keepsake: Option<Box<Keepsake>>,
}

/// What operators have set, as far as keepers have no use for it: they keep it for a monitor that has
/// lost its record (docs/safety.md, rule 14).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keepsake {
    /// The formation's settings.
    pub settings: Settings,
    /// The settings of PostgreSQL, for all nodes and for each.
    pub postgres: PostgresSettings,
    /// Automation was switched off.
    pub paused: bool,
    /// What is set for each node.
    pub nodes: BTreeMap<NodeId, Standing>,
    /// The id that the next node gets: those of dropped nodes are never given again.
    pub next_node: NodeId,
}

/// What is set for a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Standing {
    /// Where it stands.
    pub zone: Option<String>,
    /// 0 to 100.
    pub candidate_priority: u8,
    /// Whether it may be in the sync set.
    pub replication_quorum: bool,
    /// Out of the keeper's hands.
    pub maintenance: bool,
    /// Being dropped.
    pub dropping: bool,
    /// From whom it streams.
    #[serde(default)]
    pub cascade: Cascade,
}

impl Assignment {
    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The same goal under the same parameters, whatever its place in the order.
    pub fn same_terms(&self, other: &Self) -> bool {
        Self { order: other.order, ..self.clone() } == *other
    }
}
