//! Whether what was seen on a real node fits the model: observations are sorted into classes, and the
//! model says which classes there are and which can follow which. Nothing of that is written down
//! here, it is learnt from walks through made-up worlds.
//!
//! Not in a class: positions and timelines, which the plan compares and the ledger judges; and what a
//! node is told from outside (heard, may write, stopping), which may change at any time.

use crate::node::{apply, begin_copy};
use crate::random::Random;
use crate::walk::{Walk, act, round};
use crate::world::World;
use fsm::node::plan::Next;
use fsm::node::view::{Lack, Persisted};
use fsm::node::{Data, LocalView, Plan, Process, Step, Sync, Upstream};
use fsm::trace::Outcome;
use shared::history::History;
use shared::ids::{Gen, NodeId, TimelineId};
use shared::settings::Settings;
use shared::spec::Spec;
use std::collections::{HashMap, HashSet, VecDeque};

mod happenings;

/// What a walk is made of: many short ones see more than a long one.
const ACTIONS: usize = 1500;
/// One of so many actions is a fault.
const CALM: u64 = 20;
/// One of so many is followed by something that the walks of other tests leave out.
const HAPPENINGS: u64 = 12;
/// A group forms, or recovers, within this many rounds; if not, little is learnt from it.
const ROUNDS: usize = 60;

/// An observation, as far as it is told apart from others here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "the facts of a view, which has as many")]
pub struct Class {
    /// On disk.
    pub data: DataClass,
    /// The postmaster.
    pub process: Process,
    /// What it answers.
    pub server: ServerClass,
    /// Whom the file connects to.
    pub upstream: UpstreamClass,
    /// Whom the file waits for.
    pub spec: SpecClass,
    /// The rest of the file is as it should be.
    pub current: bool,
    /// How far rule 9 has got.
    pub sync: SyncClass,
    /// Some spec has been in force since the start.
    pub settled: bool,
    /// See [`LocalView::checkpointed`].
    pub checkpointed: bool,
    /// See [`LocalView::adopted`].
    pub adopted: bool,
    /// See [`LocalView::broken`].
    pub broken: bool,
    /// See [`LocalView::upstream_lacks`].
    pub upstream_lacks: Option<Lack>,
}

/// See [`Data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataClass {
    /// Nothing.
    Empty,
    /// Half of a copy.
    Rebuilding,
    /// A standby.
    Standby,
    /// A primary, running or crashed.
    Primary,
    /// A primary that was stopped cleanly.
    CleanPrimary,
    /// A standby whose log is said to end like that of a primary.
    CleanStandby,
    /// Something else.
    Unusable,
}

/// See [`fsm::node::Server`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerClass {
    /// It answers nothing.
    None,
    /// In recovery.
    Recovery {
        /// The signs of a seal were seen.
        sealed: bool,
        /// It streams as it was admitted.
        streaming: bool,
    },
    /// It takes writes.
    Primary,
}

/// See [`Upstream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamClass {
    /// Nobody.
    None,
    /// Under the member name.
    Member,
    /// To fetch.
    Fetch,
}

/// The spec in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpecClass {
    /// Nobody can acknowledge.
    Blocking,
    /// Of the epoch that the node was told of last.
    OwnEpoch,
    /// Of another, or of a node that was told nothing.
    OtherEpoch,
}

/// See [`Sync`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncClass {
    /// Nothing was seen.
    Unknown,
    /// All processes block.
    Blocked,
    /// All run under the spec of the file.
    Set,
    /// It is in force.
    InForce,
    /// What was seen is not what the file says.
    Contradiction,
}

impl Class {
    /// The class of a view.
    pub fn of(view: &LocalView, persisted: Option<&Persisted>) -> Self {
        Self {
            data: data_class(&view.data),
            process: view.process,
            server: match &view.server {
                None => ServerClass::None,
                Some(server) if server.in_recovery => {
                    ServerClass::Recovery { sealed: server.sealed, streaming: server.streaming }
                }
                Some(_) => ServerClass::Primary,
            },
            upstream: match view.file.upstream {
                None => UpstreamClass::None,
                Some(Upstream::Member { .. }) => UpstreamClass::Member,
                Some(Upstream::Fetch { .. }) => UpstreamClass::Fetch,
            },
            spec: spec_class(view.file.spec.as_ref(), persisted),
            current: view.file.current,
            sync: sync_class(view.sync, view.file.spec.as_ref()),
            settled: view.settled,
            checkpointed: view.checkpointed,
            adopted: view.adopted,
            broken: view.broken,
            upstream_lacks: view.upstream_lacks,
        }
    }
}

fn data_class(data: &Data) -> DataClass {
    match data {
        Data::Empty => DataClass::Empty,
        Data::Rebuilding => DataClass::Rebuilding,
        Data::Unusable => DataClass::Unusable,
        Data::Present { standby_signal, clean_end, .. } => match (standby_signal, clean_end) {
            (true, None) => DataClass::Standby,
            (true, Some(_)) => DataClass::CleanStandby,
            (false, None) => DataClass::Primary,
            (false, Some(_)) => DataClass::CleanPrimary,
        },
    }
}

fn spec_class(spec: Option<&Spec>, persisted: Option<&Persisted>) -> SpecClass {
    match (spec, persisted) {
        (None, _) => SpecClass::Blocking,
        (Some(spec), Some(known)) if known.assignment.epoch == spec.epoch => SpecClass::OwnEpoch,
        (Some(_), _) => SpecClass::OtherEpoch,
    }
}

fn sync_class(sync: Sync, spec: Option<&Spec>) -> SyncClass {
    let named = |generation: Gen| spec.is_some_and(|spec| spec.generation == generation);
    match sync {
        Sync::Unknown => SyncClass::Unknown,
        Sync::Blocked if spec.is_none() => SyncClass::Blocked,
        Sync::Set(generation) if named(generation) => SyncClass::Set,
        Sync::InForce(generation) if named(generation) => SyncClass::InForce,
        Sync::Blocked | Sync::Set(_) | Sync::InForce(_) => SyncClass::Contradiction,
    }
}

/// What a keeper of a world looked at.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    node: NodeId,
    class: Class,
    /// The step that it took then.
    step: Option<&'static str>,
}

impl World {
    /// Notes what a keeper has looked at, where somebody wants to know.
    pub(crate) fn note_look(&mut self, id: NodeId, plan: &Plan) {
        let (Some(sightings), Some(machine)) = (&mut self.sightings, self.machines.get(id)) else {
            return;
        };
        let step = match &plan.next {
            Next::Do(step) => Some(step.name()),
            Next::Wait(_) | Next::Reached => None,
        };
        let class = Class::of(&machine.view, machine.persisted.as_ref());
        sightings.push(Sighting { node: id, class, step });
    }

    fn classes(&self) -> Vec<(NodeId, Class)> {
        let class = |(id, machine): (NodeId, &crate::machine::Machine)| {
            (id, Class::of(&machine.view, machine.persisted.as_ref()))
        };
        self.machines.iter().map(class).collect()
    }
}

/// What has been learnt of the model so far.
#[derive(Clone, Debug, Default)]
pub struct Model {
    classes: HashSet<Class>,
    /// What happens by itself: each class, and those that came right after it.
    moves: HashMap<Class, HashSet<Class>>,
    /// What has come of steps, done or interrupted.
    steps: HashMap<(Class, &'static str), HashSet<Class>>,
    walks: u64,
}

impl Model {
    /// How many walks were made.
    pub fn walks(&self) -> u64 {
        self.walks
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Whether the model has shown this class.
    pub fn knows(&self, class: &Class) -> bool {
        self.classes.contains(class)
    }

    /// Whether one of some classes can become another one without a step of the keeper.
    pub fn leads(&self, from: &[Class], to: &Class) -> bool {
        let mut seen: HashSet<_> = from.iter().copied().collect();
        let mut next: VecDeque<_> = from.iter().copied().collect();
        while let Some(class) = next.pop_front() {
            if class == *to {
                return true;
            }
            let more = self.moves.get(&class).into_iter().flatten().copied();
            next.extend(more.filter(|class| seen.insert(*class)));
        }
        false
    }

    /// What a step may have made of a node, at once.
    pub fn after(
        &self,
        view: &LocalView,
        persisted: Option<&Persisted>,
        (step, outcome): (&Step, Outcome),
    ) -> Vec<Class> {
        let done = effect(view, persisted, step);
        match outcome {
            Outcome::Done => vec![done],
            Outcome::NotYet | Outcome::Failed => {
                let before = Class::of(view, persisted);
                let known = self.steps.get(&(before, step.name()));
                known.into_iter().flatten().copied().chain([done, before]).collect()
            }
        }
    }

    /// Makes another walk.
    pub fn learn(&mut self) {
        let mut random = Random::new(self.walks);
        let number = u32::try_from(random.below(3)).ok().filter(|_| random.one_in(2));
        let mut walk = Walk::new(1 + self.walks % 4);
        walk.settings = Settings { number_sync_standbys: number, ..walk.settings };
        let mut world = walk.world(self.walks);
        self.walks += 1;
        world.sightings = Some(Vec::new());
        if random.one_in(4) {
            self.watch(&mut world, |world| happenings::bring_cluster(world, &mut random));
        }
        self.rounds(&mut world);
        world.faulty = true;
        // Where files are lost again and again little else is learnt.
        let files = random.one_in(2);
        for _ in 0..ACTIONS {
            self.watch(&mut world, |world| act(world, CALM));
            if random.one_in(HAPPENINGS) {
                self.watch(&mut world, |world| happenings::happen(world, &mut random, files));
            }
            if world.violation().is_some() {
                return;
            }
        }
        world.mend();
        self.rounds(&mut world);
    }

    fn rounds(&mut self, world: &mut World) {
        for _ in 0..ROUNDS {
            self.watch(world, round);
        }
    }

    fn watch(&mut self, world: &mut World, what: impl FnOnce(&mut World)) {
        let before = world.classes();
        what(world);
        let sightings = world.sightings.replace(Vec::new()).unwrap_or_default();
        for ((id, begun), (_, ended)) in before.into_iter().zip(world.classes()) {
            let mut from = begun;
            let mut step = None;
            for sighting in sightings.iter().filter(|sighting| sighting.node == id) {
                self.note(from, step, sighting.class);
                (from, step) = (sighting.class, sighting.step);
            }
            self.note(from, step, ended);
        }
    }

    fn note(&mut self, from: Class, step: Option<&'static str>, to: Class) {
        self.classes.insert(to);
        match step {
            Some(step) => self.steps.entry((from, step)).or_default().insert(to),
            None => self.moves.entry(from).or_default().insert(to),
        };
    }
}

/// What a step makes of a node.
fn effect(view: &LocalView, persisted: Option<&Persisted>, step: &Step) -> Class {
    let Some(persisted) = persisted else { return Class::of(view, None) };
    let (mut view, mut persisted) = (view.clone(), persisted.clone());
    match step {
        Step::Clone { .. } | Step::Rewind { .. } => begin_copy(&mut view, &mut persisted),
        Step::Initialise
        | Step::Adopt
        | Step::Configure(_)
        | Step::StartStandby
        | Step::StartPrimary
        | Step::StopFast
        | Step::StopImmediate
        | Step::Restart
        | Step::Admit { .. }
        | Step::CatchUp
        | Step::Promote { .. }
        | Step::ConfirmPromotion
        | Step::Block
        | Step::Set(_)
        | Step::Barrier(_)
        | Step::Checkpoint => {
            // Whose history it is makes no difference to a class.
            let history = History { ancestors: Vec::new(), timeline: TimelineId(1) };
            apply(&mut view, &mut persisted, step, &history);
        }
    }
    Class::of(&view, Some(&persisted))
}
