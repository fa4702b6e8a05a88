//! The machine on records and views that the simulator reaches: decisions are sound, repeat themselves
//! exactly, settle, and give every node a goal that its keeper can reach.

use crate::plan::{WAITS, samples};
use crate::rig::Rig;
use fsm::group::{Decision, Record, goals, rules};
use fsm::node::plan::Next;
use fsm::node::view::Persisted;
use shared::ids::NodeId;
use sim::{Walk, World, at, monitor, walk};
use std::collections::BTreeSet;

const SEEDS: u64 = 200;
const ACTIONS: usize = 3000;

/// Walks; after each action `look` sees the world and what was decided.
fn walks(nodes: u64, mut look: impl FnMut(&mut World, &[(Record, Decision)])) {
    let walk = Walk::new(nodes);
    for seed in 0..SEEDS {
        let mut world = walk.world(seed);
        world.monitor.decisions = Some(Vec::new());
        walk::converge(&mut world).unwrap();
        world.cascade();
        walk::converge(&mut world).unwrap();
        (world.faulty, world.hooks) = (true, true);
        for _ in 0..ACTIONS {
            walk::act(&mut world, 40);
            let decisions = world.monitor.decisions.replace(Vec::new()).unwrap();
            look(&mut world, &decisions);
        }
    }
}

#[test]
fn decisions_are_sound() {
    let mut rules_seen = BTreeSet::new();
    walks(3, |_, decisions| {
        for (before, decision) in decisions {
            monitor::check(before, decision).unwrap();
            rules_seen.extend(decision.events.iter().map(|event| event.rule.clone()));
        }
    });
    // What no walk here asks for: drops, pauses, keepers that are asked to stop, a lost record.
    let rare = [
        "adopted",
        "record-is-old",
        "latecomer",
        "primary-hands-over",
        "withheld-is-over",
        "dropped",
    ];
    let unseen: Vec<_> = rules::RULES
        .iter()
        .map(|rule| rule.name)
        .filter(|name| !rules_seen.contains(*name) && !rare.contains(name))
        .collect();
    assert_eq!(unseen, Vec::<&str>::new(), "rules that no walk has fired");
}

#[test]
fn events_have_no_gaps() {
    let walk = Walk::new(2);
    let mut world = walk.world(1);
    world.monitor.decisions = Some(Vec::new());
    let mut next = world.monitor.record.next_event;
    for _ in 0..ACTIONS {
        walk::act(&mut world, 30);
        for (_, decision) in world.monitor.decisions.replace(Vec::new()).unwrap() {
            for event in &decision.events {
                assert_eq!(event.id, next, "{event:?}");
                next += 1;
            }
        }
    }
    assert_eq!(world.monitor.record.next_event, next);
}

#[test]
fn a_settled_record_stays_as_it_is() {
    walks(3, |world, _| {
        if !world.monitor.up {
            return;
        }
        world.decide();
        world.monitor.decisions = Some(Vec::new());
        let (record, view) = (&world.monitor.record, &world.monitor.view);
        for tie_break in [0, 1, u64::MAX] {
            let decision = rules::step(record, view, at(world.now), tie_break);
            assert!(decision.is_none(), "{:?}", decision.map(|decision| decision.events));
        }
    });
}

#[test]
fn the_same_input_gives_the_same_decision() {
    walks(2, |world, _| {
        let (record, view) = (&world.monitor.record, &world.monitor.view);
        let decide = || rules::step(record, view, at(world.now + 200), 7);
        match (decide(), decide()) {
            (Some(one), Some(other)) => {
                assert_eq!(one.record, other.record);
                assert_eq!(one.events, other.events);
            }
            (None, None) => {}
            (one, other) => panic!("{one:?} and {other:?}"),
        }
    });
}

/// The monitor never assigns what a keeper cannot reach, whatever that finds on its node.
#[test]
fn every_assignment_can_be_reached() {
    let samples = samples();
    let mut tried = BTreeSet::new();
    let mut turn = 0_usize;
    walks(3, |world, decisions| {
        if decisions.is_empty() {
            return;
        }
        let record = &world.monitor.record;
        for id in record.nodes.keys() {
            let assignment = goals::assignment(record, &world.monitor.view, *id).unwrap();
            if !tried.insert(format!("{:?} {:?}", assignment.goal, assignment.lineage)) {
                continue;
            }
            // What the keeper had accepted before stays, as far as it goes.
            let known = world.machines.get(*id).and_then(|machine| machine.persisted.clone());
            let fresh = known.iter().all(|known| known.assignment.order <= assignment.order);
            let known = known.filter(|_| fresh);
            let mut persisted =
                Persisted::accept(known.as_ref(), &assignment).unwrap().or(known).unwrap();
            persisted.own = Some(*id);
            // An admission or promotion is of the node's own log, not of a sample.
            persisted.admitted = None;
            persisted.promoted = None;
            turn += 1;
            for (view, end) in samples.iter().skip(turn % 3).step_by(3) {
                try_sample(*id, &persisted, view, *end);
            }
        }
    });
    assert!(tried.len() > 200, "{} assignments", tried.len());
}

fn try_sample(
    id: NodeId,
    persisted: &Persisted,
    view: &fsm::node::LocalView,
    end: shared::lsn::Lsn,
) {
    let mut rig = Rig {
        view: view.clone(),
        persisted: persisted.clone(),
        end,
        monitor: true,
        lease: true,
        stuck: false,
    };
    let outcome = rig.run().unwrap_or_else(|why| panic!("node {id}: {why} {persisted:?} {view:?}"));
    match &outcome.plan.next {
        Next::Reached => {}
        Next::Wait(what) => {
            assert!(WAITS.contains(what), "node {id}: {outcome:?} {persisted:?} from {view:?}");
        }
        Next::Do(step) => panic!("{step:?} was not done"),
    }
}
