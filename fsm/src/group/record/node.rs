//! A data node, as the record has it.

use serde::{Deserialize, Serialize};
use shared::Timestamp;
use shared::goal::{Cascade, Orders};
use shared::ids::{NodeName, Revision, Ticket};
use shared::state::NodeState;

/// A data node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each named where it is used")]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// The address of its Postgres.
    pub host: String,
    /// The port of its Postgres.
    pub port: u16,
    /// `host:port` of its keeper's REST interface.
    pub rest: String,
    /// Where it stands.
    pub zone: Option<String>,
    /// 0 to 100; 0: never promoted by itself.
    pub candidate_priority: u8,
    /// Whether it may be in the sync set.
    pub replication_quorum: bool,
    /// Its bearer token; empty while its keeper has not come (`absent`).
    pub secret: String,
    /// Known by the word of others only, since the monitor lost its record: what its keeper has accepted
    /// has not been heard yet.
    #[serde(default)]
    pub absent: bool,
    /// The ticket that its admission slot carries (rule 10).
    pub admission: Ticket,
    /// The revision at which it joined, until the primary has heard of it: before that it does not
    /// follow. The primary's HBA rules have to let it in, and a primary that was alone has no lease.
    pub joined: Option<Revision>,
    /// The keeper process that was admitted without state last (rule 2).
    pub stateless_keeper: Option<String>,
    /// Being taken out of the keeper's hands, or taken.
    pub maintenance: bool,
    /// Being dropped.
    pub dropping: bool,
    /// From whom it streams while it is not the primary.
    #[serde(default)]
    pub cascade: Cascade,
    /// What its keeper is to do once, as long as the operation that asks for it is under way.
    #[serde(default)]
    pub orders: Orders,
    /// What its keeper last said.
    pub reported_state: NodeState,
    /// When that last changed.
    pub state_changed_at: Option<Timestamp>,
}
