//! How a keeper becomes one of a formation: what it says of its node, and the answer, which has its secret and
//! the passwords of our roles. Where the clients connect is here as well.

use crate::goal::Member;
use crate::ids::{FormationId, GroupId, NodeId, NodeName};
use crate::report::Data;
use crate::settings::Timers;
use serde::{Deserialize, Serialize};

/// `POST /v1/join`: a keeper registers its node, or says that it has moved. Joining again with the
/// same `node_id` and secret changes name, address and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// [`crate::PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Which formation.
    pub formation: FormationId,
    /// The node's name.
    pub name: NodeName,
    /// The address of its Postgres.
    pub host: String,
    /// The port of its Postgres.
    pub port: u16,
    /// `host:port` of its keeper's REST interface.
    pub rest: String,
    /// 0 to 100; 0: never promoted by itself.
    pub candidate_priority: u8,
    /// Whether it may be in the sync set.
    pub replication_quorum: bool,
    /// Where it stands.
    pub zone: Option<String>,
    /// A join token, where the monitor asks for one.
    pub token: Option<String>,
    /// What its data directory holds, and whether it is set up as a standby.
    pub data: Data,
    /// Whether `data` has a `standby.signal`.
    pub standby: bool,
    /// What an earlier join answered.
    pub identity: Option<Identity>,
    /// With the identity, for a monitor that has lost what it gave: the passwords that came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passwords: Option<RolePasswords>,
    /// Name, host, port and zone are those of that join: what an operator has set since stands.
    #[serde(default)]
    pub unchanged: bool,
}

impl JoinRequest {
    /// Of a node that nothing is known of yet, with an empty data directory, on this host.
    pub fn of_new_node(formation: FormationId, name: NodeName) -> Self {
        Self {
            protocol: crate::PROTOCOL,
            formation,
            name,
            host: "127.0.0.1".to_owned(),
            port: 5432,
            rest: "127.0.0.1:8008".to_owned(),
            candidate_priority: 50,
            replication_quorum: true,
            zone: None,
            token: None,
            data: Data::Empty,
            standby: false,
            identity: None,
            passwords: None,
            unchanged: false,
        }
    }
}

/// What a keeper proves itself with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The formation, within which the id counts.
    pub formation: FormationId,
    /// The id that the monitor gave.
    pub node_id: NodeId,
    /// The secret that came with it; the bearer token of reports.
    pub secret: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} {}, secret hidden)", self.formation, self.node_id)
    }
}

/// The answer to a join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// To be kept and sent with every report.
    pub identity: Identity,
    /// The node's group.
    pub group: GroupId,
    /// The passwords of the roles that pgtandem uses in Postgres, one set per formation.
    pub passwords: RolePasswords,
    /// The formation's timers.
    pub timers: Timers,
    /// All ways to reach the monitor.
    pub monitors: Vec<String>,
}

/// Passwords of the roles in the managed Postgres. Never printed: `Debug` hides them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolePasswords {
    /// Of `pgtandem_replicator`.
    pub replicator: String,
    /// Of `pgtandem_monitor`.
    pub monitor: String,
    /// Of `pgtandem_keeper`.
    pub keeper: String,
}

impl std::fmt::Debug for RolePasswords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RolePasswords(hidden)")
    }
}

/// `GET /v1/formations/{f}/members`: where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// All nodes.
    pub members: Vec<Member>,
}
