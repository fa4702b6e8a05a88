//! What is foreseen against what then happens: in a simulated group, from random situations.

use crate::group::name;
use fsm::group::status::is_writable;
use fsm::group::{Phase, explain, whatif};
use shared::api::{Action, PredictedOutcome, Prediction};
use shared::ids::{NodeId, NodeName};
use shared::settings::Settings;
use sim::machine::Machine;
use sim::random::Random;
use sim::{Walk, World, at, walk};
use std::collections::{BTreeMap, BTreeSet};

/// How many situations each comparison is made in.
const SITUATIONS: u64 = 300;
/// Rounds of 10 ms without a decision, after which none is to come: several node timeouts.
const QUIET: usize = 150;
/// More rounds than any change of the primary takes.
const ROUNDS: usize = 3000;

fn names(world: &World, ids: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeName> {
    ids.into_iter().map(|id| name(world, id)).collect()
}

/// Everybody's turn comes again and again, until nothing is decided any more. Nobody ends a maintenance.
fn drive(world: &mut World) {
    let mut quiet = 0;
    for _ in 0..ROUNDS {
        let before = world.monitor.record.revision;
        walk::turns(world);
        quiet = if world.monitor.record.revision == before { quiet + 1 } else { 0 };
        if quiet > QUIET {
            assert_eq!(world.violation(), None);
            return;
        }
    }
    panic!("no end: {}", walk::describe(world));
}

/// Its keeper and its Postgres are gone, and its host refuses connections to them.
fn kill_processes(world: &mut World, id: NodeId) {
    let machine: &mut Machine = world.machines.get_mut(id).unwrap();
    machine.keeper = None;
    machine.stop_postgres(false);
    if let Some(evidence) = world.monitor.view_mut().nodes.get_mut(&id) {
        evidence.closed = true;
    }
    end_walsenders(world, id);
}

/// Its host is off.
fn power_off(world: &mut World, id: NodeId) {
    world.crash_host(id);
    end_walsenders(world, id);
}

/// The walsenders that were for a dead node end, or give up in time, which the simulator leaves out.
fn end_walsenders(world: &mut World, id: NodeId) {
    for peer in world.ids() {
        if let Some(machine) = world.machines.get_mut(peer) {
            machine.server.rows.remove(&id);
        }
    }
}

fn set_node(world: &mut World, id: NodeId, key: &str, value: &str) {
    let node = name(world, id);
    world.ask(&Action::SetNode { node, key: key.to_owned(), value: value.to_owned() });
}

/// A group at rest, in a situation drawn from the seed.
fn situation(chance: &mut Random, seed: u64) -> World {
    let nodes = 2 + chance.below(4);
    // Nobody is too late for an election: what is foreseen is what comes of it if all do their part.
    let settings =
        Settings { node_timeout_ms: 300, election_grace_ms: Some(300), ..Settings::default() };
    let mut world = Walk { settings, ..Walk::new(nodes) }.world(seed);
    walk::converge(&mut world).unwrap();
    for id in world.ids() {
        let priority = chance.pick(&["0", "50", "50", "100"]).unwrap();
        set_node(&mut world, id, "candidate-priority", priority);
        if chance.one_in(4) {
            set_node(&mut world, id, "replication-quorum", "false");
        }
    }
    if chance.one_in(2) {
        let value = chance.below(3).to_string();
        let key = "number-sync-standbys".to_owned();
        world.ask(&Action::SetFormation { key, value });
    }
    drive(&mut world);
    let primary = world.monitor.record.primary.unwrap();
    let standbys: Vec<_> = world.ids().into_iter().filter(|id| *id != primary).collect();
    if chance.one_in(4) {
        let node = name(&world, chance.pick(&standbys).unwrap());
        world.ask(&Action::Maintenance { node, on: true, allow_failover: false });
        drive(&mut world);
    }
    if chance.one_in(3) {
        let id = chance.pick(&standbys).unwrap();
        if chance.one_in(2) {
            power_off(&mut world, id);
        } else {
            kill_processes(&mut world, id);
        }
        drive(&mut world);
    }
    if chance.one_in(2) {
        fall_behind(&mut world, chance, primary, &standbys);
    }
    world
}

/// Some standbys get what is written now, others do not; everybody has reported how far it is.
fn fall_behind(world: &mut World, chance: &mut Random, primary: NodeId, standbys: &[NodeId]) {
    for _ in 0..3 {
        world.write(primary);
        for id in standbys {
            if chance.one_in(2) {
                world.postgres_turn(*id);
            }
        }
    }
    for _ in 0..2 {
        for id in world.ids() {
            drop(world.keeper_turn(id));
        }
        while !world.messages.is_empty() {
            world.deliver();
        }
        world.monitor_turn();
    }
}

/// What is there in the end, as a prediction has it; without a primary the sync set means nothing.
#[derive(Debug, PartialEq, Eq)]
struct End {
    primary: Option<NodeName>,
    writable: bool,
    settled: bool,
    members: BTreeSet<NodeName>,
    required: usize,
    blocked_by: BTreeSet<String>,
}

impl End {
    fn of(world: &World) -> Self {
        let (record, view) = (&world.monitor.record, &world.monitor.view);
        let now = at(world.now);
        let serves = |id: &NodeId| {
            record.phase == Phase::Serving
                && world.machines.get(*id).is_some_and(Machine::is_writable)
        };
        let confirmed = record.specs.iter().find(|spec| Some(spec.generation) == record.confirmed);
        let confirmed = confirmed.filter(|_| record.primary.is_some_and(|id| serves(&id)));
        let blocked = explain::blockers(record, view, now);
        Self {
            primary: record.primary.filter(serves).map(|id| name(world, id)),
            writable: is_writable(record, view, now),
            settled: confirmed.is_some() && record.is_sync_settled(),
            members: confirmed
                .map(|spec| names(world, spec.standbys.iter().copied()))
                .unwrap_or_default(),
            required: confirmed.map_or(0, |spec| spec.required),
            blocked_by: blocked.into_iter().map(|blocker| blocker.code).collect(),
        }
    }

    fn foreseen(prediction: &Prediction) -> Self {
        let sync = prediction.primary.as_ref().map(|_| &prediction.sync);
        let members = sync.map(|sync| sync.members.iter().cloned().collect());
        Self {
            primary: prediction.primary.clone(),
            writable: prediction.writable,
            settled: sync.is_some_and(|s| s.in_force.is_some() && s.pending.is_none()),
            members: members.unwrap_or_default(),
            required: sync.map_or(0, |sync| sync.required),
            blocked_by: prediction.blocked_by.iter().map(|b| b.code.clone()).collect(),
        }
    }
}

/// The way that it went, of those that were foreseen: more than one only where chance decides.
fn way<'a>(prediction: &'a Prediction, end: &End) -> Option<&'a Prediction> {
    let mut ways = std::iter::once(prediction).chain(&prediction.alternatives);
    ways.find(|way| End::foreseen(way) == *end)
}

/// How many situations ended how.
#[derive(Debug, Default)]
struct Tally(BTreeMap<String, usize>);

impl Tally {
    fn count(&mut self, what: impl std::fmt::Debug) {
        *self.0.entry(format!("{what:?}")).or_default() += 1;
    }

    /// A comparison that never met such a case would say nothing about it.
    #[track_caller]
    fn has(&self, what: impl std::fmt::Debug) {
        assert!(self.0.contains_key(&format!("{what:?}")), "never {what:?}: {self:?}");
    }
}

#[test]
fn deaths_end_as_foreseen() {
    let mut tally = Tally::default();
    for seed in 0..SITUATIONS {
        let mut chance = Random::new(seed);
        let mut world = situation(&mut chance, seed);
        let (record, view) = (&world.monitor.record, &world.monitor.view);
        let primary = record.primary.unwrap();
        let dies = |id: &NodeId| if *id == primary { 3 } else { 1 };
        let gone: BTreeSet<_> =
            world.ids().into_iter().filter(|id| chance.below(4) < dies(id)).collect();
        let prediction = whatif::if_dies(record, view, &gone, at(world.now));
        let with_their_hosts = chance.one_in(2);
        for id in &gone {
            if with_their_hosts {
                power_off(&mut world, *id);
            } else {
                kill_processes(&mut world, *id);
            }
        }
        drive(&mut world);
        let end = End::of(&world);
        assert!(
            way(&prediction, &end).is_some(),
            "seed {seed}, {:?} die\nforeseen: {prediction:#?}\nseen: {end:#?}\n{}",
            names(&world, gone),
            walk::describe(&world)
        );
        tally.count(prediction.outcome);
        tally.count(("chance decides", !prediction.alternatives.is_empty()));
        let fetches = prediction.steps.iter().any(|step| step.rule == "fast-forward");
        tally.count(("the candidate fetches", fetches));
    }
    for outcome in
        [PredictedOutcome::TakesWrites, PredictedOutcome::Waits, PredictedOutcome::StandsStill]
    {
        tally.has(outcome);
    }
    tally.has(("chance decides", true));
    tally.has(("the candidate fetches", true));
}

fn request(chance: &mut Random, world: &World) -> Action {
    let ids = world.ids();
    let node = name(world, chance.pick(&ids).unwrap());
    match chance.below(10) {
        0..=1 => Action::Switchover { to: None },
        2..=3 => Action::Switchover { to: Some(node) },
        4 => Action::Promote { node },
        5 => Action::Failover { allow_data_loss: false, fenced: false },
        6 => Action::Maintenance { node, on: true, allow_failover: true },
        7 => Action::Drop { node, force: false, destroy: false },
        _ => Action::Failover { allow_data_loss: true, fenced: true },
    }
}

#[test]
fn requests_end_as_foreseen() {
    let mut tally = Tally::default();
    for seed in 0..SITUATIONS {
        let mut chance = Random::new(!seed);
        let mut world = situation(&mut chance, seed);
        if chance.one_in(4) {
            let primary = world.monitor.record.primary.unwrap();
            kill_processes(&mut world, primary);
            drive(&mut world);
        }
        let action = request(&mut chance, &world);
        let (record, view) = (&world.monitor.record, &world.monitor.view);
        let before = record.revision;
        let foreseen = whatif::ask(record, view, &action, at(world.now));
        let id = record.next_operation;
        world.ask(&action);
        let prediction = match foreseen {
            Ok(prediction) => prediction,
            Err(refused) => {
                assert_eq!(world.monitor.record.revision, before, "{action:?}: {refused:?}");
                tally.count("refused");
                continue;
            }
        };
        drive(&mut world);
        let end = End::of(&world);
        let result = world.monitor.record.operation_result(id);
        let failed = result.as_ref().is_some_and(|r| r.outcome == shared::api::Outcome::Failed);
        let going_on = world.monitor.record.operation.is_some();
        let as_foreseen = way(&prediction, &end).is_some_and(|way| {
            failed == (way.outcome == PredictedOutcome::Fails)
                && going_on == (way.outcome == PredictedOutcome::DoesNotEnd)
        });
        assert!(
            as_foreseen,
            "seed {seed}, {action:?}\nforeseen: {prediction:#?}\nseen: {end:#?} {result:?}\n{}",
            walk::describe(&world)
        );
        tally.count(prediction.outcome);
    }
    for outcome in [
        PredictedOutcome::TakesWrites,
        PredictedOutcome::Waits,
        PredictedOutcome::DoesNotEnd,
        PredictedOutcome::ChangesNothing,
    ] {
        tally.has(outcome);
    }
    tally.has("refused");
}
