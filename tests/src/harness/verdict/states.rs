//! Is every node what it should be?

use shared::api::{NodeStatus, Status};
use shared::ids::NodeName;
use shared::state::NodeState;
use std::collections::BTreeSet;

/// What is not at rest, where these nodes are up. Nodes that are down are not looked at.
pub fn unsettled(status: &Status, up: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    let known: BTreeSet<_> = status.nodes.iter().map(|node| node.name.as_str()).collect();
    for name in up.iter().filter(|name| !known.contains(name.as_str())) {
        wrong.push(format!("{name} is not in the group"));
    }
    let is_up = |node: &&NodeStatus| up.iter().any(|name| name == node.name.as_str());
    for node in status.nodes.iter().filter(is_up) {
        wrong.extend(restless(node));
    }
    let primaries: Vec<_> =
        status.nodes.iter().filter(is_up).filter(|node| is_primary(node)).collect();
    match primaries.as_slice() {
        [one] if status.primary.as_ref() == Some(&one.name) => {}
        [one] => wrong.push(format!("{} is a primary, and the group's is another", one.name)),
        [] => wrong.push("no node is a primary".to_owned()),
        several => wrong.push(format!("{} nodes are primaries", several.len())),
    }
    if status.phase != "serving" {
        wrong.push(format!("the group is {}", status.phase));
    }
    if let Some(operation) = &status.operation {
        wrong.push(format!("operation {} is under way", operation.kind));
    }
    wrong.extend(incomplete_sync(status, up));
    wrong
}

fn restless(node: &NodeStatus) -> Option<String> {
    let at_rest = is_primary(node)
        || matches!(node.goal_state, NodeState::Secondary | NodeState::Maintenance);
    if node.reported_state != node.goal_state || !at_rest {
        return Some(format!(
            "{} is {}, to be {}",
            node.name, node.reported_state, node.goal_state
        ));
    }
    // As the primary sees it: a standby may believe that it streams a moment too soon.
    if node.goal_state == NodeState::Secondary && node.sync_state.is_none() {
        return Some(format!("{} does not stream from the primary", node.name));
    }
    (node.health != "ok").then(|| format!("{}'s health is {}", node.name, node.health))
}

/// The primary waits for every standby that counts, for a node that is down only where
/// `number_sync_standbys` demands more than are up, and nothing is about to change.
fn incomplete_sync(status: &Status, up: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    let members: BTreeSet<_> = status.sync.members.iter().map(NodeName::as_str).collect();
    let counts = |node: &&NodeStatus| {
        node.goal_state == NodeState::Secondary
            && node.replication_quorum
            && (node.upstream.is_none() || node.upstream == status.primary)
            && up.iter().any(|name| name == node.name.as_str())
    };
    for node in status.nodes.iter().filter(counts) {
        if !members.contains(node.name.as_str()) {
            wrong.push(format!("{} is not in the sync set {members:?}", node.name));
        }
    }
    let is_up = |name: &&NodeName| up.iter().any(|up| up == name.as_str());
    let (live, gone): (Vec<_>, Vec<_>) = status.sync.members.iter().partition(is_up);
    let enough = live.len() >= status.sync.required || status.number_sync_standbys == 0;
    if enough && !gone.is_empty() {
        wrong.push(format!("{gone:?} is in the sync set and down"));
    }
    if enough && !status.writable {
        wrong.push("the group is not writable".to_owned());
    }
    if let Some(pending) = &status.sync.pending {
        wrong.push(format!("the sync set is about to become {pending:?}"));
    }
    wrong
}

/// Where the primary waits for others than the monitor says.
pub fn sync_disagreement(status: &Status, live: &str) -> Option<String> {
    let in_force = status.sync.in_force.clone().unwrap_or_default();
    (in_force != live)
        .then(|| format!("the primary waits for {live:?}, the monitor says {in_force:?}"))
}

/// The names of the nodes that follow the primary.
pub fn standbys(status: &Status) -> Vec<String> {
    let follows = |node: &&NodeStatus| node.goal_state == NodeState::Secondary;
    status.nodes.iter().filter(follows).map(|node| node.name.to_string()).collect()
}

fn is_primary(node: &NodeStatus) -> bool {
    [NodeState::Single, NodeState::WaitPrimary, NodeState::Primary].contains(&node.reported_state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(id: u64, reported: &str, goal: &str) -> Value {
        json!({
            "id": id, "name": format!("node{id}"), "host": "127.0.0.1", "port": 5432, "zone": null,
            "reported_state": reported, "goal_state": goal, "role": "none", "upstream": null,
            "candidate_priority": 50, "replication_quorum": true, "health": "ok",
            "health_checked_at": null, "last_report_at": null, "state_changed_at": null,
            "pg_running": true, "in_recovery": null, "timeline": 1, "lsn": null,
            "received_lsn": null, "replayed_lsn": null, "lag_bytes": null, "sync_state": "quorum",
            "application_name": format!("pgtandem_{id}"), "slot_name": null,
            "maintenance_cause": null, "system_identifier": null, "diverged": null,
            "pg_version": null, "keeper_version": null, "step": null, "warnings": []
        })
    }

    fn status(nodes: &[Value]) -> Status {
        serde_json::from_value(json!({
            "formation": "default", "group": 0, "revision": 9, "epoch": 1, "ticket": 2,
            "phase": "serving", "paused": false, "number_sync_standbys": 0, "primary": "node1",
            "writable": true, "operation": null, "nodes": nodes, "warnings": [],
            "sync": {
                "in_force": "ANY 1 (pgtandem_2)", "members": ["node2"], "required": 1,
                "pending": null, "generation": 3
            }
        }))
        .unwrap()
    }

    fn up() -> Vec<String> {
        ["node1", "node2"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_settled_group() {
        let nodes = [node(1, "primary", "primary"), node(2, "secondary", "secondary")];
        assert_eq!(unsettled(&status(&nodes), &up()), Vec::<String>::new());
        let nodes = [&nodes[..], &[node(3, "primary", "demoted")]].concat();
        assert_eq!(unsettled(&status(&nodes), &up()), Vec::<String>::new(), "node3 is down");
    }

    #[test]
    fn what_is_not_settled_is_seen() {
        let primary = node(1, "primary", "primary");
        for nodes in [
            vec![primary.clone()],
            vec![primary.clone(), node(2, "catchingup", "secondary")],
            vec![primary.clone(), node(2, "catchingup", "catchingup")],
            vec![primary.clone(), node(2, "primary", "primary")],
            vec![node(1, "secondary", "secondary"), node(2, "secondary", "secondary")],
            vec![node(1, "secondary", "secondary"), node(2, "primary", "primary")],
        ] {
            assert_ne!(unsettled(&status(&nodes), &up()), Vec::<String>::new(), "{nodes:?}");
        }
    }

    #[test]
    fn a_standby_that_does_not_stream_is_seen() {
        let nodes = [node(1, "primary", "primary"), node(2, "secondary", "secondary")];
        let mut status = status(&nodes);
        for node in &mut status.nodes {
            node.sync_state = None;
        }
        assert_eq!(unsettled(&status, &up()), ["node2 does not stream from the primary"]);
    }

    #[test]
    fn an_unfinished_sync_set_is_seen() {
        let nodes = [node(1, "primary", "primary"), node(2, "secondary", "secondary")];
        let mut pending = status(&nodes);
        pending.sync.pending = Some(String::new());
        assert_eq!(unsettled(&pending, &up()).len(), 1);
        let mut incomplete = status(&nodes);
        incomplete.sync.members.clear();
        incomplete.sync.required = 0;
        assert_eq!(unsettled(&incomplete, &up()).len(), 1);
        let mut asleep = status(&nodes);
        asleep.writable = false;
        assert_eq!(unsettled(&asleep, &up()).len(), 1);
        let down = [node(1, "primary", "primary"), node(2, "secondary", "secondary")];
        let mut waiting = status(&down);
        assert_eq!(unsettled(&waiting, &up()[..1]).len(), 1, "node2 is down and waited for");
        waiting.number_sync_standbys = 1;
        assert_eq!(unsettled(&waiting, &up()[..1]), Vec::<String>::new(), "it is demanded");
        let status = status(&nodes);
        assert_eq!(sync_disagreement(&status, "ANY 1 (pgtandem_2)"), None);
        assert!(sync_disagreement(&status, "").is_some());
    }
}
