//! What people are told: what is wanting, who would follow the primary and why, and what is at risk.

use crate::group::{healthy as world, name, primary, standbys};
use fsm::group::explain::{explain, succession};
use fsm::group::record::Node;
use fsm::group::whatif;
use shared::api::{Action, PredictedOutcome, Succession, Wanting};
use shared::ids::NodeId;
use sim::{World, at, walk};
use std::collections::BTreeSet;

fn node(world: &mut World, id: NodeId) -> &mut Node {
    world.monitor.record_mut().nodes.get_mut(&id).unwrap()
}

/// More than a node timeout goes by, and everybody does what is to be done.
fn rest(world: &mut World) {
    for _ in 0..400 {
        walk::turns(world);
    }
}

fn followed(world: &World) -> Succession {
    let (record, view) = (&world.monitor.record, &world.monitor.view);
    succession(record, view, &[], at(world.now)).unwrap()
}

fn wanting(world: &World) -> Vec<Wanting> {
    explain(&world.monitor.record, &world.monitor.view, None, at(world.now)).wanting
}

#[test]
fn nothing_is_wanting_of_a_healthy_group() {
    assert_eq!(wanting(&world(3)), []);
}

#[test]
fn the_first_thing_that_is_wanting_is_told() {
    let mut world = world(3);
    let (first, second) = (standbys(&world)[0], standbys(&world)[1]);
    node(&mut world, first).candidate_priority = 0;
    node(&mut world, first).maintenance = true;
    node(&mut world, second).candidate_priority = 0;
    let found: Vec<_> = wanting(&world).into_iter().map(|w| (w.node, w.rule)).collect();
    let of = |id| Some(name(&world, id));
    let rules = [
        (None, "primary-can-be-replaced".to_owned()),
        (of(first), "not-in-maintenance".to_owned()),
        (of(second), "may-be-promoted".to_owned()),
    ];
    assert_eq!(found, rules);
}

#[test]
fn everybody_has_a_place_and_a_reason() {
    let mut world = world(5);
    let [best, next, never, away] = standbys(&world)[..] else { panic!("four standbys") };
    node(&mut world, best).candidate_priority = 100;
    node(&mut world, never).candidate_priority = 0;
    let action = Action::Maintenance { node: name(&world, away), on: true, allow_failover: false };
    world.ask(&action);
    rest(&mut world);
    let succession = followed(&world);
    let rows: Vec<_> = succession
        .ranking
        .iter()
        .map(|row| (row.node.clone(), row.place, row.reason.clone()))
        .collect();
    let below = format!("its candidate priority, 50, is below {}'s, 100", name(&world, best));
    let expected = [
        (best, Some(1), "its candidate priority, 100, is the highest".to_owned()),
        (next, Some(2), below),
        (
            never,
            None,
            "never: its candidate priority is 0; `pgtandem promote` takes it all the same"
                .to_owned(),
        ),
        (away, None, "never: it is in maintenance".to_owned()),
    ];
    let expected = expected.map(|(id, place, reason)| (name(&world, id), place, reason));
    assert_eq!(rows, expected);
    assert_eq!(succession.prediction.primary, Some(name(&world, best)));
    assert_eq!(succession.prediction.bytes_at_risk, Some(0));
    let outage = succession.outage.unwrap();
    let node_timeout = world.monitor.record.settings.node_timeout_ms;
    assert!(outage.host_ms >= node_timeout && outage.processes_ms < node_timeout, "{outage:?}");
}

#[test]
fn equals_are_told_as_such() {
    let succession = followed(&world(3));
    let reasons: Vec<_> = succession.ranking.iter().map(|row| row.reason.as_str()).collect();
    assert!(reasons.iter().all(|reason| reason.contains("chance decides")), "{reasons:?}");
    assert_eq!(succession.prediction.alternatives.len(), 1);
    let other = &succession.prediction.alternatives[0];
    assert_ne!(other.primary, succession.prediction.primary);
    assert_eq!(other.outcome, PredictedOutcome::TakesWrites);
}

/// Two nodes, and commits wait for nobody: what was written last is on the primary alone.
#[test]
fn what_nobody_else_has_is_at_risk() {
    let mut world = world(2);
    let (old, standby) = (primary(&world), standbys(&world)[0]);
    let quorum = Action::SetNode {
        node: name(&world, standby),
        key: "replication-quorum".to_owned(),
        value: "false".to_owned(),
    };
    world.ask(&quorum);
    walk::converge(&mut world).unwrap();
    let rules: Vec<_> = wanting(&world).into_iter().map(|wanting| wanting.rule).collect();
    assert_eq!(rules, ["commits-are-elsewhere", "may-be-waited-for"]);
    world.write(old);
    for id in world.ids() {
        drop(world.keeper_turn(id));
    }
    while !world.messages.is_empty() {
        world.deliver();
    }
    let prediction = followed(&world).prediction;
    assert_eq!(prediction.outcome, PredictedOutcome::StandsStill);
    assert_eq!(prediction.primary, None);
    assert!(prediction.bytes_at_risk > Some(0), "{prediction:?}");
    assert_eq!(followed(&world).outage, None);

    // The same bytes are given up by whoever accepts it.
    let machine = world.machines.get_mut(old).unwrap();
    machine.keeper = None;
    machine.stop_postgres(false);
    world.monitor.view_mut().nodes.get_mut(&old).unwrap().closed = true;
    world.pass(1);
    world.monitor_turn();
    let (record, view) = (&world.monitor.record, &world.monitor.view);
    let action = Action::Failover { allow_data_loss: true, fenced: true };
    let accepted = whatif::ask(record, view, &action, at(world.now)).unwrap();
    assert_eq!(accepted.primary, Some(name(&world, standby)), "{accepted:?}");
    assert_eq!(accepted.bytes_at_risk, prediction.bytes_at_risk);
}

/// What died before stays dead, and is counted with those that die now.
#[test]
fn the_dead_stay_dead() {
    let mut world = world(3);
    let (first, second) = (standbys(&world)[0], standbys(&world)[1]);
    world.crash_host(first);
    rest(&mut world);
    let (record, view) = (&world.monitor.record, &world.monitor.view);
    let gone = BTreeSet::from([second]);
    let prediction = whatif::if_dies(record, view, &gone, at(world.now));
    assert_eq!(prediction.outcome, PredictedOutcome::Waits, "{prediction:?}");
    assert_eq!(prediction.primary, Some(name(&world, primary(&world))));
}
