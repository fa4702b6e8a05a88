//! One state of a search, and what each action makes of it.

mod choices;
mod events;
mod link;
mod tidy;
mod turn;

use super::action::Action;
use super::{Budget, Search, fair};
use crate::ledger::Violation;
use crate::part::Part;
use crate::random::Random;
use crate::world::World;
use shared::api;
use shared::ids::NodeId;
use shared::report::{Answer, Report};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// In one tick every timer runs out.
const TICK: u64 = 1_000_000;

/// An answer that was copied on its way, to one keeper process, and counts from that moment on: the
/// original may not be heard, so it may also just be late. Reports are not: they come over a
/// connection, one after the other, and end with it.
type Late = (String, Part<Answer>, u64);

/// A state.
#[derive(Clone, Debug)]
pub struct State {
    /// The world.
    pub world: World,
    /// The newest report of each keeper.
    said: BTreeMap<NodeId, Part<Report>>,
    late: BTreeMap<NodeId, Late>,
    left: Budget,
    guarded: bool,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let facts = |s: &Self| (s.world.now, s.world.monitor.up, s.left, s.world.violation());
        facts(self) == facts(other)
            && self.world.machines == other.world.machines
            && self.said == other.said
            && self.late == other.late
            && self.world.monitor.record == other.world.monitor.record
            && self.world.monitor.view == other.world.monitor.view
            && self.world.cut == other.world.cut
            && self.world.ledger == other.world.ledger
            && self.world.fenced == other.world.fenced
            && self.world.monitor.owed == other.world.monitor.owed
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.world.now, self.world.monitor.up, self.left).hash(hasher);
        self.world.machines.hash(hasher);
        self.said.hash(hasher);
        self.late.hash(hasher);
        self.world.monitor.record.hash(hasher);
        self.world.monitor.view.hash(hasher);
        self.world.cut.hash(hasher);
        self.world.ledger.hash(hasher);
        self.world.fenced.hash(hasher);
        self.world.monitor.owed.hash(hasher);
    }
}

impl State {
    /// A group that has formed: one primary, from which the others stream, under a confirmed spec.
    pub fn formed(search: &Search) -> Self {
        let settings = search.settings.clone();
        let mut world = World::new(Random::none(), search.nodes, settings, search.mutation);
        world.lags = search.lags;
        // Nobody reads it: the way to a state is told by its actions.
        world.keeps = 0;
        let mut state = Self {
            world,
            said: BTreeMap::new(),
            late: BTreeMap::new(),
            left: Budget::default(),
            guarded: search.guarded,
        };
        fair::settle(&mut state);
        state.left = search.budget;
        state
    }

    /// A number for it.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// What is wrong with it.
    pub fn complaint(&self) -> String {
        match self.world.violation() {
            Some(violation) => format!("{violation:?}"),
            None => fair::converges(self, None).err().unwrap_or_else(|| "nothing".to_owned()),
        }
    }

    /// Makes it happen.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Turn { node, hears } => self.turn(node, hears),
            Action::Look => self.world.monitor_turn(),
            Action::Stream(node) => self.world.postgres_turn(node),
            Action::Start(node) => self.world.restart(node),
            Action::Mend(a, b) => self.world.set_cut(a, b, false),
            Action::Late(node) => self.deliver_late(node),
            Action::MaintenanceOver(node) => {
                if let Some(node) = self.name(node) {
                    let (on, allow_failover) = (false, false);
                    self.world.ask(&api::Action::Maintenance { node, on, allow_failover });
                }
            }
            Action::Resume => self.world.resume(),
            Action::PickUp { node, walsender } => self.pick_up(node, walsender),
            Action::Write(node) => {
                self.left.writes -= 1;
                self.world.write(node);
            }
            Action::Tick => {
                self.left.ticks -= 1;
                self.tick();
            }
            Action::Harm(fault) => {
                *self.left.of_fault(fault) -= 1;
                self.harm(fault);
            }
            Action::Ask(request) => {
                // What is refused is as if it had not been asked.
                if self.ask(request) {
                    *self.left.of_request(request) -= 1;
                }
            }
        }
        self.tidy();
    }

    /// Every timer runs out.
    pub fn tick(&mut self) {
        if self.guarded {
            self.world.pass(TICK);
        } else {
            self.world.now += TICK;
        }
    }

    fn pick_up(&mut self, node: NodeId, walsender: Option<NodeId>) {
        let Some(machine) = self.world.machines.get_mut(node) else { return };
        match walsender {
            Some(id) => {
                if let Some(row) = machine.server.rows.get_mut(&id) {
                    row.lag = None;
                }
            }
            None => machine.server.checkpointer = None,
        }
    }

    /// The violation, if there is one.
    pub fn violation(&self) -> Option<Violation> {
        self.world.violation()
    }

    /// No fault is left.
    pub(super) fn heal(&mut self) {
        self.left = Budget::default();
        self.late.clear();
        self.world.mend();
        for node in self.world.ids() {
            if let Some(machine) = self.world.machines.get_mut(node).filter(|m| m.replay_stuck) {
                machine.replay_stuck = false;
            }
        }
        self.tidy();
    }
}
