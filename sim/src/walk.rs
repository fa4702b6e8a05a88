//! A walk: groups form, things go wrong for a while, then nothing does any more and each group has to
//! converge. A walk comes from its seed: each step draws from a generator of its own, so that what goes
//! wrong in one step can be left out and the others stay what they are.

use crate::disturb::{EVERYTHING, Mix};
use crate::ledger::Violation;
use crate::log::RecordId;
use crate::machine::Machine;
use crate::random::Random;
use crate::world::{Mutation, World};
use fsm::group::election::covers;
use fsm::group::{Phase, Record};
use shared::goal::Cascade;
use shared::ids::NodeId;
use shared::lsn::Position;
use shared::settings::Settings;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What a walk is made of.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent things that can go wrong")]
pub struct Walk {
    /// How many nodes a group begins with.
    pub nodes: u64,
    /// How many groups there are beside each other, below one monitor process.
    pub groups: u64,
    /// How many actions there are while things go wrong.
    pub actions: usize,
    /// One of so many actions is a fault.
    pub calm: u64,
    /// What may happen.
    pub mix: Mix,
    /// The processes of a Postgres pick up a new sync spec at different moments.
    pub lags: bool,
    /// Hooks before changes of the role take their time, and refuse promotions.
    pub hooks: bool,
    /// Messages are lost, and arrive late.
    pub loses_messages: bool,
    /// Standbys stream from standbys before anything goes wrong.
    pub cascades: bool,
    /// Whether the groups have to converge in the end.
    pub heals: bool,
    /// What is taken away.
    pub mutation: Mutation,
    /// The formations' settings.
    pub settings: Settings,
}

/// For how many rounds a group without faults may take to converge: more than ten drain timeouts.
const ROUNDS: usize = 3000;
/// After so many rounds an operator looks whether the group can prove anything at all.
const PATIENCE: usize = 400;
/// A shortened trace is looked for in so many walks at most, and no longer than this.
const SHORTER: usize = 400;
const SHORTENING: Duration = Duration::from_secs(20);

/// How a walk went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Commits acknowledged.
    pub acknowledged: usize,
    /// Promotions.
    pub promotions: usize,
    /// Rounds until the groups had converged after the faults.
    pub rounds: usize,
    /// Things that went wrong.
    pub disturbances: usize,
    /// How often a node was sent to a standby.
    pub cascaded: usize,
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
    /// The steps in which something went wrong.
    pub disturbed: Vec<usize>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let trace = self.trace.join("\n");
        write!(f, "seed {}: {:?}\n{trace}", self.seed, self.violation)
    }
}

/// One way through a walk.
#[derive(Debug)]
struct Course {
    worlds: Vec<World>,
    disturbed: Vec<usize>,
}

impl Walk {
    /// A walk with so many nodes, everything as it is shipped, with timers as short as they may be.
    pub fn new(nodes: u64) -> Self {
        let settings = Settings { node_timeout_ms: 300, ..Settings::default() };
        Self {
            nodes,
            groups: 1,
            actions: 3000,
            calm: 70,
            mix: EVERYTHING,
            lags: true,
            hooks: true,
            loses_messages: true,
            cascades: false,
            heals: true,
            mutation: Mutation::None,
            settings,
        }
    }

    /// The world of a seed, before anything has happened.
    pub fn world(&self, seed: u64) -> World {
        World::new(Random::new(seed), self.nodes, self.settings.clone(), self.mutation)
    }

    /// Walks.
    pub fn run(&self, seed: u64) -> Result<Summary, Box<Failure>> {
        let found = self.run_without(seed, &BTreeSet::new(), 0);
        found.map_err(|failure| {
            // Once more, with a trace.
            let again = self.run_without(seed, &BTreeSet::new(), 160);
            again.err().unwrap_or(failure)
        })
    }

    /// Walks without what goes wrong in these steps; so many lines of the trace are kept.
    pub fn run_without(
        &self,
        seed: u64,
        without: &BTreeSet<usize>,
        keeps: usize,
    ) -> Result<Summary, Box<Failure>> {
        let mut course = self.begin(seed, keeps);
        let outcome = self.go(&mut course, seed, without);
        let counts = course.worlds.iter().map(|world| world.ledger.counts());
        let (acknowledged, promotions) = counts.fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
        let disturbances = course.disturbed.len();
        let cascaded = course.worlds.iter().map(|world| world.monitor.cascaded).sum();
        let summary = |rounds| Summary { acknowledged, promotions, rounds, disturbances, cascaded };
        outcome.map(summary).map_err(|(violation, group)| {
            let trace = course.worlds.get(group).map(World::trace).unwrap_or_default();
            let disturbed = course.disturbed;
            Box::new(Failure { seed, violation, trace, disturbed })
        })
    }

    /// The same failure with as little going wrong as can be found.
    pub fn shorten(&self, failure: &Failure) -> Failure {
        let seed = failure.seed;
        let same = std::mem::discriminant(&failure.violation);
        let mut best = failure.clone();
        let mut without = BTreeSet::new();
        let began = Instant::now();
        let mut tries = 0;
        let mut size = best.disturbed.len().div_ceil(2);
        while size > 0 && tries < SHORTER && began.elapsed() < SHORTENING {
            let mut found = false;
            for chunk in best.disturbed.clone().chunks(size) {
                tries += 1;
                if began.elapsed() > SHORTENING {
                    break;
                }
                let more: BTreeSet<_> = without.iter().chain(chunk).copied().collect();
                if let Err(shorter) = self.run_without(seed, &more, 400)
                    && std::mem::discriminant(&shorter.violation) == same
                    && tries < SHORTER
                {
                    (best, without, found) = (*shorter, more, true);
                    break;
                }
            }
            if !found {
                size /= 2;
            }
            size = size.min(best.disturbed.len());
        }
        best
    }

    fn begin(&self, seed: u64, keeps: usize) -> Course {
        let worlds = (0..self.groups).map(|group| {
            let mut world = self.world(seed ^ group.wrapping_mul(0xA5A5_5A5A_1234_5678));
            world.keeps = keeps;
            world.set_clocks();
            world.lags = self.lags;
            world.hooks = self.hooks;
            world.archives = true;
            world
        });
        Course { worlds: worlds.collect(), disturbed: Vec::new() }
    }

    fn go(
        &self,
        course: &mut Course,
        seed: u64,
        without: &BTreeSet<usize>,
    ) -> Result<usize, (Violation, usize)> {
        for (group, world) in course.worlds.iter_mut().enumerate() {
            converge(world).map_err(|violation| (violation, group))?;
            if self.cascades {
                world.cascade();
                converge(world).map_err(|violation| (violation, group))?;
            }
            world.faulty = true;
        }
        for index in 0..self.actions {
            let group = index.checked_rem(course.worlds.len()).unwrap_or(0);
            self.step(course, seed, index, without);
            let violation = course.worlds.get(group).and_then(World::violation);
            violation.map_or(Ok(()), |violation| Err((violation, group)))?;
        }
        let mut rounds = 0;
        for (group, world) in course.worlds.iter_mut().enumerate().filter(|_| self.heals) {
            world.random = Random::of_step(seed, usize::MAX - group);
            world.mend();
            rounds += converge(world).map_err(|violation| (violation, group))?;
        }
        Ok(rounds)
    }

    fn step(&self, course: &mut Course, seed: u64, index: usize, without: &BTreeSet<usize>) {
        let group = index.checked_rem(course.worlds.len()).unwrap_or(0);
        let Some(world) = course.worlds.get_mut(group) else { return };
        world.random = Random::of_step(seed, index);
        turn(world);
        let mut chance = Random::of_step(!seed, index);
        let harm = Harm::draw(&mut chance, self.calm, self.loses_messages);
        if harm.is_none() {
            return;
        }
        if without.contains(&index) {
            return;
        }
        course.disturbed.push(index);
        world.random = chance;
        if harm.common {
            // One process serves all groups.
            let at_once = world.random.one_in(2);
            course.worlds.iter_mut().for_each(|world| world.crash_monitor(at_once));
        } else {
            harm.apply(world, self.mix);
        }
    }
}

/// What goes wrong in a step.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent things that go wrong")]
struct Harm {
    common: bool,
    disturbs: bool,
    late: bool,
    loses: bool,
}

impl Harm {
    fn draw(chance: &mut Random, calm: u64, messages: bool) -> Self {
        Self {
            common: chance.one_in(calm * 40),
            disturbs: chance.one_in(calm),
            late: messages && chance.one_in(30),
            loses: messages && chance.one_in(40),
        }
    }

    fn is_none(self) -> bool {
        !(self.common || self.disturbs || self.late || self.loses)
    }

    fn apply(self, world: &mut World, mix: Mix) {
        if self.disturbs {
            world.disturb(mix);
        }
        if self.late {
            world.deliver_late();
        }
        if self.loses && !world.messages.is_empty() {
            world.messages.swap_remove(0);
        }
    }
}

/// One action, which may be a fault.
pub fn act(world: &mut World, calm: u64) {
    turn(world);
    Harm::draw(&mut world.random, calm, true).apply(world, EVERYTHING);
}

/// Somebody does something, and time passes: sometimes up to the very end of a lease.
fn turn(world: &mut World) {
    let ids = world.ids();
    let Some(id) = world.random.pick(&ids) else { return };
    match world.random.below(11) {
        0..=2 => drop(world.keeper_turn(id)),
        3..=5 => world.postgres_turn(id),
        6..=8 => world.deliver(),
        9 => world.monitor_turn(),
        _ => world.write(id),
    }
    // Everybody has as many turns within a lease, however many there are.
    let pace = 1 + 9 / world.machines.count().max(1);
    let ms = match world.random.below(600) {
        0..=1 => world.random.below(400),
        2..=3 => world.until_lease_edge(),
        _ => world.random.below(pace),
    };
    world.pass(ms);
}

/// A round in which everybody has a turn and nothing goes wrong; nodes leave maintenance.
pub fn round(world: &mut World) {
    world.end_maintenance();
    turns(world);
}

/// Everybody has a turn, and nothing goes wrong.
pub fn turns(world: &mut World) {
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
    // Whether a commit that nobody can vouch for was one does not matter: the next may be.
    let mut probes = Vec::new();
    for rounds in 0..ROUNDS {
        round(world);
        // A node that could be elected may just have been being copied.
        let looks = rounds == PATIENCE || rounds == 3 * PATIENCE;
        if looks && !is_provable(world) {
            // Nothing is promised where a disk or a node is lost for good, and the only proof with it;
            // an operator can accept the loss, as long as there is a log of the group left.
            if !could_be_elected(world) {
                return Ok(rounds);
            }
            world.fail_over_with_loss(false);
        } else if rounds == 2 * PATIENCE && world.monitor.record.phase.election().is_some() {
            // As the operator is told: the old primary could not be shown to be silent.
            world.fail_over_with_loss(true);
            world.mend();
        }
        if rounds > PATIENCE {
            world.give_up_the_gone();
        }
        world.violation().map_or(Ok(()), Err)?;
        let Some(primary) = settled(world) else {
            probes.clear();
            continue;
        };
        if probes.iter().any(|record| world.ledger.is_acknowledged(*record)) {
            return Ok(rounds);
        }
        probes.extend(write(world, primary));
    }
    Err(Violation::Stuck(describe(world)))
}

/// Whether the nodes that have their data could prove that they have every acknowledged commit.
pub fn is_provable(world: &World) -> bool {
    covers(&world.monitor.record.specs, &positions(world).collect())
}

/// Whether there is a node that could be elected if nothing had to be proved. One that somebody has
/// promoted by hand has no log of the group.
fn could_be_elected(world: &World) -> bool {
    positions(world).next().is_some()
}

/// Where the logs of the group's nodes end, without those that owe something.
fn positions(world: &World) -> impl Iterator<Item = (NodeId, Position)> {
    let record = &world.monitor.record;
    world
        .machines
        .values()
        .filter(|machine| machine.has_data() && is_member(world, machine.id))
        .filter_map(|machine| {
            let position = record.lineage.position(&machine.log.history(), machine.log.end())?;
            let owed = machine.persisted.as_ref().and_then(|persisted| persisted.owes);
            owed.is_none_or(|owed| position >= owed).then_some((machine.id, position))
        })
}

fn is_member(world: &World, id: NodeId) -> bool {
    world.monitor.record.nodes.contains_key(&id)
}

fn write(world: &mut World, primary: NodeId) -> Option<RecordId> {
    world.write(primary);
    world.machines.get(primary)?.log.records().last().copied()
}

/// The primary that all others follow, if that is how it is. Its log has a position: else it could be no witness
/// when its turn comes to be replaced, and nobody could be proved to follow it.
pub fn settled(world: &World) -> Option<NodeId> {
    let record = &world.monitor.record;
    let primary = record.primary.filter(|_| record.phase == Phase::Serving)?;
    let log = &world.machines.get(primary)?.log;
    record.lineage.position(&log.history(), log.end())?;
    let serves = |id: NodeId| world.machines.get(id).is_some_and(Machine::is_writable);
    let follows = |id: NodeId| {
        let upstream = record.nodes.get(&id).and_then(|node| node.cascade.upstream);
        let upstream = upstream.unwrap_or(primary);
        world.machines.get(id).is_some_and(|machine| {
            machine.view.server.as_ref().is_some_and(|server| server.streaming)
                && machine.server.receiver.as_ref().is_some_and(|r| r.from == upstream)
        }) && is_where_wished(record, id)
    };
    let all = world.ids().into_iter().all(|id| match id {
        id if id == primary => serves(id),
        id => !serves(id) && (follows(id) || !is_member(world, id)),
    });
    (all && record.is_sync_settled() && record.operation.is_none()).then_some(primary)
}

/// Whether a node streams from where the operator wishes, unless commits need it: all is well, so that nothing
/// else keeps it from there.
fn is_where_wished(record: &Record, id: NodeId) -> bool {
    let Some(node) = record.nodes.get(&id) else { return true };
    let Cascade { wish, upstream, .. } = node.cascade;
    let wished = wish.filter(|wish| record.primary != Some(*wish));
    let others = record.nodes.iter().filter(|(other, node)| {
        let direct = node.cascade.wish.is_none_or(|wish| record.primary == Some(wish));
        **other != id && record.primary != Some(**other) && node.replication_quorum && direct
    });
    let needed = node.replication_quorum && others.count() < record.number_sync_standbys().max(1);
    upstream == wished || (needed && upstream.is_none())
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
            "\nnode {id}: {:?}, slots {:?}, WAL from record {}, goal {:?}, sealed {:?}, admitted {:?}, view {:?}, plan {plan:?}",
            machine.log.history(),
            machine.slots,
            machine.wal_from,
            persisted.map(|p| &p.assignment.goal),
            persisted.and_then(|p| p.sealed),
            persisted.and_then(|p| p.admitted),
            machine.view,
        );
    }
    text
}
