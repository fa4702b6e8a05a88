//! What the tests of the group's machine have in common: a node, and a group that nothing is wrong with.

use fsm::group::record::Node;
use fsm::group::request::{Reply, apply};
use shared::api::{Action, ApiError};
use shared::goal::{Cascade, Orders};
use shared::ids::{NodeId, NodeName, Ticket};
use shared::settings::Settings;
use shared::state::NodeState;
use sim::{Walk, World, at, walk};

/// A healthy group of so many, whose timers are the default ones.
pub fn healthy(nodes: u64) -> World {
    let settings = Settings { node_timeout_ms: 3000, ..Settings::default() };
    let mut world = Walk { settings, ..Walk::new(nodes) }.world(1);
    walk::converge(&mut world).unwrap();
    world
}

pub fn primary(world: &World) -> NodeId {
    world.monitor.record.primary.unwrap()
}

pub fn standbys(world: &World) -> Vec<NodeId> {
    let ids = world.monitor.record.nodes.keys().copied();
    ids.filter(|id| *id != primary(world)).collect()
}

pub fn name(world: &World, id: NodeId) -> NodeName {
    world.monitor.record.nodes[&id].name.clone()
}

/// What an operator is answered.
pub fn ask(world: &World, action: &Action) -> Result<Reply, ApiError> {
    apply(&world.monitor.record, &world.monitor.view, action, at(world.now))
}

/// Asks, and takes what was decided.
pub fn done(world: &mut World, action: &Action) {
    match ask(world, action) {
        Ok(Reply::Decided(decision, _)) => world.monitor.commit(*decision, world.now),
        other => panic!("{action:?}: {other:?}"),
    }
    assert_eq!(world.monitor.violation, None);
}

/// A standby as the record has it.
pub fn node(id: NodeId) -> Node {
    Node {
        name: format!("n{id}").parse().unwrap(),
        host: format!("host-{id}"),
        port: 5432,
        rest: format!("host-{id}:6432"),
        zone: None,
        candidate_priority: 50,
        replication_quorum: true,
        secret: "secret".to_owned(),
        admission: Ticket(1),
        joined: None,
        stateless_keeper: None,
        maintenance: false,
        dropping: false,
        cascade: Cascade::default(),
        orders: Orders::default(),
        absent: false,
        reported_state: NodeState::Secondary,
        state_changed_at: None,
    }
}
