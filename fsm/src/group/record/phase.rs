//! Where the group's machine stands.

use serde::{Deserialize, Serialize};
use shared::ids::{NodeId, TimelineId};
use shared::lsn::Position;
use std::collections::BTreeSet;

/// Where the machine stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// No primary yet.
    Forming,
    /// `Record::primary` is the primary of `Record::epoch`.
    Serving,
    /// The nodes are being sealed under `Record::ticket`.
    Electing(Election),
    /// The chosen candidate fetches what another sealed node has and it lacks.
    Forwarding {
        /// The election it belongs to.
        election: Election,
        /// Who fetches.
        candidate: NodeId,
        /// From whom.
        source: NodeId,
        /// Up to where.
        target: Position,
    },
    /// `Record::primary` has been elected and has not confirmed its promotion.
    Promoting,
}

impl Phase {
    /// The name for people and programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forming => "forming",
            Self::Serving => "serving",
            Self::Electing(_) => "electing",
            Self::Forwarding { .. } => "forwarding",
            Self::Promoting => "promoting",
        }
    }

    /// The election under way.
    pub fn election(&self) -> Option<&Election> {
        match self {
            Self::Electing(election) | Self::Forwarding { election, .. } => Some(election),
            Self::Forming | Self::Serving | Self::Promoting => None,
        }
    }
}

/// An election under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Election {
    /// Why it was begun: the rule.
    pub cause: String,
    /// The node that shall win if it can.
    pub preferred: Option<NodeId>,
    /// It was begun to replace a primary that serves: that one wins only if nobody else can.
    #[serde(default)]
    pub planned: bool,
    /// Candidates that have said that they cannot fetch what they lack.
    #[serde(default)]
    pub cannot_fetch: BTreeSet<NodeId>,
    /// The old primary is stopping by itself; the standbys still follow it.
    pub drain: bool,
    /// The operator accepted that acknowledged commits may be lost.
    pub loss: Option<LossAccepted>,
    /// And that they are, in favour of this timeline, which the preferred node is on.
    #[serde(default)]
    pub timeline: Option<TimelineId>,
}

/// What the operator accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LossAccepted {
    /// The operator stated that the old primary is fenced.
    pub fenced: bool,
}
