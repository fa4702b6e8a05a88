//! How a node becomes part of a group, or comes back under its identity.

use super::record::{Decision, Node, Note, Record};
use crate::Now;
use shared::api::{ApiError, JoinRequest};
use shared::goal::Orders;
use shared::ids::{NodeId, NodeName};
use shared::report::Data;
use shared::state::NodeState;

/// A join that was not refused.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The node.
    pub node: NodeId,
    /// To be stored; `None` where nothing changed.
    pub decision: Option<Box<Decision>>,
}

/// Registers a node, or updates the address and name of one that shows its identity. `secret` is
/// given to a new node. The token has been checked before.
pub fn join(
    record: &Record,
    request: &JoinRequest,
    secret: &str,
    now: Now,
) -> Result<Joined, ApiError> {
    if let Data::Present { system_identifier } = request.data
        && let Some(own) = record.system_identifier.filter(|own| *own != system_identifier)
    {
        let message = format!(
            "the data directory of {} holds another cluster: its system identifier is {system_identifier}, that of formation {} is {own}; give an empty directory, or join another formation",
            request.name, record.formation
        );
        return Err(refused("other_cluster", message, &request.name));
    }
    if request.candidate_priority > 100 {
        let message = format!(
            "candidate priority must be from 0 to 100, and is {}",
            request.candidate_priority
        );
        return Err(ApiError {
            code: 1,
            reason: "bad_value".to_owned(),
            message,
            nodes: Vec::new(),
        });
    }
    match &request.identity {
        Some(identity) => known(record, request, identity.node_id, &identity.secret, now),
        None => new(record, request, secret, now),
    }
}

fn refused(reason: &str, message: String, node: &NodeName) -> ApiError {
    ApiError { code: 3, reason: reason.to_owned(), message, nodes: vec![node.clone()] }
}

fn check_unique(
    record: &Record,
    request: &JoinRequest,
    own: Option<NodeId>,
) -> Result<(), ApiError> {
    for (id, node) in record.nodes.iter().filter(|(id, _)| Some(**id) != own) {
        if node.name == request.name {
            let message = format!(
                "the name {} is taken by node {id} at {}:{}; choose another --name, or drop that node first",
                node.name, node.host, node.port
            );
            return Err(refused("duplicate_name", message, &node.name));
        }
        if node.host == request.host && node.port == request.port {
            let message = format!(
                "{}:{} is the address of node {}; choose another --host or --port, or drop that node first",
                node.host, node.port, node.name
            );
            return Err(refused("duplicate_address", message, &node.name));
        }
    }
    Ok(())
}

/// The address of a keeper's REST interface where the host is called otherwise; one that is reached elsewhere
/// than its Postgres stays.
pub(super) fn rest_at(rest: &str, from: &str, to: &str) -> String {
    let bracketed = |host: &str| {
        if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
    };
    let port = rest.strip_prefix(&bracketed(from)).and_then(|rest| rest.strip_prefix(':'));
    port.map_or_else(|| rest.to_owned(), |port| format!("{}:{port}", bracketed(to)))
}

fn known(
    record: &Record,
    request: &JoinRequest,
    id: NodeId,
    secret: &str,
    now: Now,
) -> Result<Joined, ApiError> {
    let Some(node) = record.nodes.get(&id) else {
        let message = format!(
            "node {id} is not part of formation {} any more: it was dropped; remove its state directory to join as a new node",
            record.formation
        );
        return Err(refused("dropped", message, &request.name));
    };
    if node.secret != secret {
        let message = format!("this is not the keeper that joined as node {id}");
        return Err(refused("bad_secret", message, &request.name));
    }
    let moved = if request.unchanged {
        Node { rest: rest_at(&request.rest, &request.host, &node.host), ..node.clone() }
    } else {
        check_unique(record, request, Some(id))?;
        Node {
            name: request.name.clone(),
            host: request.host.clone(),
            port: request.port,
            rest: request.rest.clone(),
            zone: request.zone.clone(),
            ..node.clone()
        }
    };
    if moved == *node {
        return Ok(Joined { node: id, decision: None });
    }
    let reason = format!("{} is now {} at {}:{}", node.name, moved.name, moved.host, moved.port);
    let mut next = record.clone();
    next.nodes.insert(id, moved);
    let decision = record.decide(next, vec![Note::new("node", "moved", reason).about(id)], now);
    Ok(Joined { node: id, decision: Some(Box::new(decision)) })
}

fn new(record: &Record, request: &JoinRequest, secret: &str, now: Now) -> Result<Joined, ApiError> {
    check_unique(record, request, None)?;
    let id = record.next_node;
    let mut next = record.clone();
    next.next_node = id.next();
    let node = Node {
        name: request.name.clone(),
        host: request.host.clone(),
        port: request.port,
        rest: request.rest.clone(),
        zone: request.zone.clone(),
        candidate_priority: request.candidate_priority,
        replication_quorum: request.replication_quorum,
        secret: secret.to_owned(),
        admission: record.ticket,
        joined: Some(record.revision.next()),
        stateless_keeper: None,
        maintenance: false,
        dropping: false,
        orders: Orders::default(),
        reported_state: NodeState::Init,
        state_changed_at: Some(now.wall),
    };
    next.nodes.insert(id, node);
    let reason = format!("{} joined at {}:{}", request.name, request.host, request.port);
    let decision = record.decide(next, vec![Note::new("node", "joined", reason).about(id)], now);
    Ok(Joined { node: id, decision: Some(Box::new(decision)) })
}
