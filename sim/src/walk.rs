//! A walk: a group forms, things go wrong for a while, then nothing does any more and the group has
//! to converge.

use crate::ledger::Violation;
use crate::log::RecordId;
use crate::random::Random;
use crate::world::{Mutation, World};
use fsm::group::Phase;
use fsm::group::election::covers;
use shared::ids::NodeId;
use shared::settings::Settings;

/// What a walk is made of.
#[derive(Clone, Debug)]
pub struct Walk {
    /// How many nodes.
    pub nodes: u64,
    /// How many actions there are while things go wrong.
    pub actions: usize,
    /// One of so many actions is a fault.
    pub calm: u64,
    /// Whether the group has to converge in the end.
    pub heals: bool,
    /// What is taken away.
    pub mutation: Mutation,
    /// The formation's settings.
    pub settings: Settings,
}

/// For how many rounds a group without faults may take to converge: more than ten drain timeouts.
const ROUNDS: usize = 3000;

/// How a walk went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Commits acknowledged.
    pub acknowledged: usize,
    /// Promotions.
    pub promotions: usize,
    /// Rounds until the group had converged after the faults.
    pub rounds: usize,
}

/// A promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Replays it.
    pub seed: u64,
    /// What happened.
    pub violation: Violation,
    /// The newest things that happened before.
    pub trace: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let trace = self.trace.join("\n");
        write!(f, "seed {}: {:?}\n{trace}", self.seed, self.violation)
    }
}

impl Walk {
    /// A walk with so many nodes, everything as it is shipped, with timers as short as they may be.
    pub fn new(nodes: u64) -> Self {
        let settings = Settings { node_timeout_ms: 300, ..Settings::default() };
        Self { nodes, actions: 3000, calm: 70, heals: true, mutation: Mutation::None, settings }
    }

    /// The world of a seed, before anything has happened.
    pub fn world(&self, seed: u64) -> World {
        World::new(Random::new(seed), self.nodes, self.settings.clone(), self.mutation)
    }

    /// Walks.
    pub fn run(&self, seed: u64) -> Result<Summary, Box<Failure>> {
        let mut world = self.world(seed);
        let outcome = self.run_in(&mut world);
        let (acknowledged, promotions) = world.ledger.counts();
        outcome
            .map(|rounds| Summary { acknowledged, promotions, rounds })
            .map_err(|violation| Box::new(Failure { seed, violation, trace: world.trace() }))
    }

    fn run_in(&self, world: &mut World) -> Result<usize, Violation> {
        converge(world)?;
        world.faulty = true;
        for _ in 0..self.actions {
            act(world, self.calm);
            world.violation().map_or(Ok(()), Err)?;
        }
        if !self.heals {
            return Ok(0);
        }
        world.mend();
        converge(world)
    }
}

/// One action, which may be a fault.
pub fn act(world: &mut World, calm: u64) {
    let ids = world.ids();
    let Some(id) = world.random.pick(&ids) else { return };
    match world.random.below(11) {
        0..=2 => drop(world.keeper_turn(id)),
        3..=5 => world.postgres_turn(id),
        6..=8 => world.deliver(),
        9 => world.monitor_turn(),
        _ => world.write(id),
    }
    let ms = if world.random.one_in(150) { world.random.below(400) } else { world.random.below(5) };
    world.pass(ms);
    if world.random.one_in(calm) {
        world.disturb();
    }
    if world.random.one_in(30) {
        world.deliver_late();
    }
    if world.random.one_in(40) && !world.messages.is_empty() {
        world.messages.swap_remove(0);
    }
}

/// A round in which everybody has a turn and nothing goes wrong.
pub fn round(world: &mut World) {
    world.end_maintenance();
    for id in world.ids() {
        drop(world.keeper_turn(id));
        world.postgres_turn(id);
    }
    while !world.messages.is_empty() {
        world.deliver();
    }
    world.monitor_turn();
    world.pass(10);
}

/// P3: without faults there soon is one primary, from which everybody else streams, and which takes
/// writes. Says after how many rounds.
pub fn converge(world: &mut World) -> Result<usize, Violation> {
    let mut probe = None;
    for rounds in 0..ROUNDS {
        round(world);
        world.violation().map_or(Ok(()), Err)?;
        let Some(primary) = settled(world) else {
            probe = None;
            continue;
        };
        match probe {
            None => probe = write(world, primary),
            Some(record) if world.ledger.is_acknowledged(record) => return Ok(rounds),
            Some(_) => {}
        }
    }
    // Nothing is promised where a lost disk took the only proof with it.
    if is_provable(world) { Err(Violation::Stuck(describe(world))) } else { Ok(ROUNDS) }
}

/// Whether the nodes that have their data could prove that they have every acknowledged commit.
pub fn is_provable(world: &World) -> bool {
    let record = &world.monitor.record;
    let witnesses = world
        .machines
        .values()
        .filter(|machine| machine.has_data())
        .filter_map(|machine| {
            let position = record.lineage.position(&machine.log.history(), machine.log.end())?;
            Some((machine.id, position))
        })
        .collect();
    covers(&record.specs, &witnesses)
}

fn write(world: &mut World, primary: NodeId) -> Option<RecordId> {
    world.write(primary);
    world.machines.get(primary)?.log.records().last().copied()
}

/// The primary that all others follow, if that is how it is.
pub fn settled(world: &World) -> Option<NodeId> {
    let record = &world.monitor.record;
    let primary = record.primary.filter(|_| record.phase == Phase::Serving)?;
    let serves =
        |id: NodeId| world.machines.get(id).is_some_and(super::machine::Machine::is_writable);
    let follows = |id: NodeId| {
        world.machines.get(id).is_some_and(|machine| {
            machine.view.server.as_ref().is_some_and(|server| server.streaming)
                && machine.server.receiver.as_ref().is_some_and(|r| r.from == primary)
        })
    };
    let all = world
        .ids()
        .into_iter()
        .all(|id| if id == primary { serves(id) } else { follows(id) && !serves(id) });
    (all && record.is_sync_settled() && record.operation.is_none()).then_some(primary)
}

/// The world, for a person who has to find out why.
pub fn describe(world: &World) -> String {
    let record = &world.monitor.record;
    let mut text = format!(
        "phase {:?}, primary {:?}, specs {:?}, operation {:?}, lineage {:?}",
        record.phase, record.primary, record.specs, record.operation, record.lineage
    );
    for (id, machine) in world.machines.iter() {
        let persisted = machine.persisted.as_ref();
        let plan = fsm::node::plan(&machine.view, persisted);
        text += &format!(
            "\nnode {id}: {:?}, goal {:?}, sealed {:?}, admitted {:?}, view {:?}, plan {plan:?}",
            machine.log.history(),
            persisted.map(|p| &p.assignment.goal),
            persisted.and_then(|p| p.sealed),
            persisted.and_then(|p| p.admitted),
            machine.view,
        );
    }
    text
}
