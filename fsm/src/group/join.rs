//! How a node becomes part of a group, or comes back under its identity.

use super::record::{Decision, Node, Note, Record};
use crate::Now;
use shared::api::{ApiError, JoinRequest};
use shared::goal::{Cascade, Orders};
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
        Some(identity) if identity.secret.is_empty() => {
            Err(refused("bad_secret", "a secret is needed".to_owned(), &request.name))
        }
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
        return stranger(record, request, id, secret, now);
    };
    if node.secret.is_empty() {
        return claimed(record, request, (id, node), secret, now);
    }
    if node.secret != secret {
        let message = format!("this is not the keeper that joined as node {id}");
        return Err(refused("bad_secret", message, &request.name));
    }
    let moved = if request.unchanged {
        Node { rest: rest_at(&request.rest, &request.host, &node.host), ..node.clone() }
    } else {
        check_unique(record, request, Some(id))?;
        addressed(node, request)
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

fn addressed(node: &Node, request: &JoinRequest) -> Node {
    Node {
        name: request.name.clone(),
        host: request.host.clone(),
        port: request.port,
        rest: request.rest.clone(),
        zone: request.zone.clone(),
        ..node.clone()
    }
}

/// A node that this monitor does not know. Only in quarantine it is taken in, under its own id: else
/// nothing is known of the group that it comes from.
fn stranger(
    record: &Record,
    request: &JoinRequest,
    id: NodeId,
    secret: &str,
    now: Now,
) -> Result<Joined, ApiError> {
    if was_dropped(record, id, secret) {
        let message = format!(
            "node {id} is not part of formation {} any more: it was dropped; remove its state directory to join as a new node",
            record.formation
        );
        return Err(refused("dropped", message, &request.name));
    }
    if !record.quarantined {
        return Err(refused("unknown_node", never_known(record, id), &request.name));
    }
    check_unique(record, request, None)?;
    let node = unheard(record, request, secret, now);
    let reason = format!(
        "{} has come back as node {id} to a monitor that does not know it, from {}:{}",
        request.name, request.host, request.port
    );
    Ok(entered(record, (id, node), Note::new("node", "joined", reason), now))
}

/// Whether a node is to stop for good. Of those that were dropped before secrets were kept, the number has
/// to be one that this monitor gave.
pub fn was_dropped(record: &Record, id: NodeId, secret: &str) -> bool {
    match record.dropped.get(&id) {
        Some(kept) => kept.is_empty() || kept == secret,
        None => !record.quarantined && !record.nodes.contains_key(&id) && id < record.next_node,
    }
}

/// How a node is told that it is none of this monitor's.
pub fn never_known(record: &Record, id: NodeId) -> String {
    format!(
        "this monitor never knew node {id} of formation {}; if the monitor's directory was lost, start the monitor on an empty one with `pgtandem-monitor run --adopt`; to join as a new node, remove the keeper's state directory and its data",
        record.formation
    )
}

/// A member that was known by the word of the others only.
fn claimed(
    record: &Record,
    request: &JoinRequest,
    (id, node): (NodeId, &Node),
    secret: &str,
    now: Now,
) -> Result<Joined, ApiError> {
    let same_place = node.host == request.host && node.port == request.port;
    if node.name != request.name && !same_place {
        let message = format!(
            "node {id} is {} at {}:{}, and this is {} at {}:{}",
            node.name, node.host, node.port, request.name, request.host, request.port
        );
        return Err(refused("bad_secret", message, &request.name));
    }
    check_unique(record, request, Some(id))?;
    let node = Node { secret: secret.to_owned(), ..addressed(node, request) };
    let reason = format!("the keeper of {} has come", node.name);
    Ok(entered(record, (id, node), Note::new("node", "joined", reason), now))
}

fn entered(record: &Record, (id, node): (NodeId, Node), note: Note, now: Now) -> Joined {
    let mut next = record.clone();
    next.next_node = next.next_node.max(id.next());
    next.nodes.insert(id, node);
    let decision = record.decide(next, vec![note.about(id)], now);
    Joined { node: id, decision: Some(Box::new(decision)) }
}

fn new(record: &Record, request: &JoinRequest, secret: &str, now: Now) -> Result<Joined, ApiError> {
    if let Some(why) = record.quarantine() {
        let message = format!(
            "{why}, so no new node can join yet; `pgtandem explain` says which keepers have to be heard first"
        );
        return Err(ApiError {
            code: 6,
            reason: "quarantine".to_owned(),
            message,
            nodes: Vec::new(),
        });
    }
    check_unique(record, request, None)?;
    let node = unheard(record, request, secret, now);
    let reason = format!("{} joined at {}:{}", request.name, request.host, request.port);
    let note = Note::new("node", "joined", reason);
    Ok(entered(record, (record.next_node, node), note, now))
}

/// A node of which nothing is known but what it says when it joins.
fn unheard(record: &Record, request: &JoinRequest, secret: &str, now: Now) -> Node {
    Node {
        name: request.name.clone(),
        host: request.host.clone(),
        port: request.port,
        rest: request.rest.clone(),
        zone: request.zone.clone(),
        candidate_priority: request.candidate_priority,
        replication_quorum: request.replication_quorum,
        secret: secret.to_owned(),
        absent: false,
        admission: record.ticket,
        joined: Some(record.revision.next()),
        stateless_keeper: None,
        maintenance: false,
        dropping: false,
        cascade: Cascade::default(),
        orders: Orders::default(),
        reported_state: NodeState::Init,
        state_changed_at: Some(now.wall),
    }
}
