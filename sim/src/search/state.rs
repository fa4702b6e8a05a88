//! One state of a search, and what each action makes of it.

use super::action::{Action, Fault, Request};
use super::{Budget, Search, fair};
use crate::ledger::Violation;
use crate::machine::Machine;
use crate::node::promote;
use crate::random::Random;
use crate::world::{MONITOR, Message, World};
use fsm::Millis;
use fsm::node::plan::Next;
use fsm::node::{Process, Step};
use shared::api;
use shared::ids::{NodeId, NodeName, Revision, TimelineId};
use shared::report::{Answer, Report};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// In one tick every timer runs out.
const TICK: u64 = 1_000_000;
/// More local steps in a row than any plan has.
const LOCAL_STEPS: usize = 24;

/// What is under way between a keeper and the monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wire {
    /// The keeper's newest report, and when it was sent. It is sent again and again.
    report: Option<(Report, u64)>,
    /// The monitor's newest answer that was not heard yet, to a report sent then.
    answer: Option<(Answer, u64)>,
    /// A copy of an answer, to a keeper process.
    late: Option<(String, Answer, u64)>,
}

/// A state.
#[derive(Clone, Debug)]
pub struct State {
    /// The world.
    pub world: World,
    wires: BTreeMap<NodeId, Wire>,
    left: Budget,
    guarded: bool,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let facts = |s: &Self| (s.world.now, s.world.monitor.up, s.left, s.world.violation());
        facts(self) == facts(other)
            && self.world.machines == other.world.machines
            && self.wires == other.wires
            && self.world.monitor.record == other.world.monitor.record
            && self.world.monitor.view == other.world.monitor.view
            && self.world.cut == other.world.cut
            && self.world.ledger == other.world.ledger
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.world.now, self.world.monitor.up, self.left).hash(hasher);
        self.world.machines.hash(hasher);
        self.wires.hash(hasher);
        self.world.monitor.record.hash(hasher);
        self.world.monitor.view.hash(hasher);
        self.world.cut.hash(hasher);
        self.world.ledger.hash(hasher);
    }
}

impl State {
    /// A group that has formed: one primary, from which the others stream, under a confirmed spec.
    pub fn formed(search: &Search) -> Self {
        let settings = search.settings.clone();
        let world = World::new(Random::none(), search.nodes, settings, search.mutation);
        let mut state = Self {
            world,
            wires: BTreeMap::new(),
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

    /// What may happen next.
    pub fn actions(&self, actions: &mut Vec<Action>) {
        let mut faults = vec![Fault::Monitor];
        let mut requests = vec![Request::Switchover(None)];
        requests.extend((0..=2).map(Request::Number));
        for machine in self.world.machines.values() {
            self.by_itself(machine, actions);
            self.faults_of(machine, &mut faults);
            self.requests_about(machine.id, &mut requests);
        }
        actions.push(Action::Look);
        actions.extend((self.left.ticks > 0).then_some(Action::Tick));
        let mut places = self.world.ids();
        places.push(MONITOR);
        for (index, a) in places.iter().enumerate() {
            for b in places.iter().skip(index + 1) {
                let (a, b) = (*a.min(b), *a.max(b));
                if self.world.cut.contains(&(a, b)) {
                    actions.push(Action::Mend(a, b));
                } else {
                    faults.push(Fault::Cut(a, b));
                }
            }
        }
        let mut left = self.left;
        faults.retain(|fault| *left.of_fault(*fault) > 0);
        requests.retain(|request| *left.of_request(*request) > 0);
        actions.extend(faults.into_iter().map(Action::Harm));
        actions.extend(requests.into_iter().map(Action::Ask));
    }

    fn by_itself(&self, machine: &Machine, actions: &mut Vec<Action>) {
        let node = machine.id;
        let wire = self.wires.get(&node);
        if !machine.up || machine.keeper.is_none() {
            actions.push(Action::Start(node));
        }
        if self.world.monitor.record.nodes.get(&node).is_some_and(|node| node.maintenance) {
            actions.push(Action::MaintenanceOver(node));
        }
        if !machine.up {
            return;
        }
        if machine.keeper.is_some() {
            actions.push(Action::Turn { node, hears: false });
            if wire.is_some_and(|wire| wire.answer.is_some()) {
                actions.push(Action::Turn { node, hears: true });
            }
            if wire.is_some_and(|wire| wire.late.is_some()) {
                actions.push(Action::Late(node));
            }
            actions.push(Action::Report(node));
        }
        match &machine.view.server {
            Some(server) if server.in_recovery => actions.push(Action::Stream(node)),
            Some(_) if self.left.writes > 0 => actions.push(Action::Write(node)),
            Some(_) | None => {}
        }
    }

    fn faults_of(&self, machine: &Machine, faults: &mut Vec<Fault>) {
        let node = machine.id;
        if machine.has_data() {
            faults.extend([false, true].map(|state| Fault::Disk { node, state }));
        }
        if !machine.up {
            return;
        }
        faults.push(Fault::Host(node));
        if machine.keeper.is_some() {
            faults.extend([Fault::Keeper(node), Fault::State(node)]);
            let wire = self.wires.get(&node);
            if wire.is_some_and(|wire| wire.answer.is_some() && wire.late.is_none()) {
                faults.push(Fault::Copy(node));
            }
        }
        let Some(server) = &machine.view.server else { return };
        faults.push(Fault::Postgres(node));
        if server.in_recovery {
            faults.push(Fault::PromoteByHand(node));
            if !machine.replay_stuck {
                faults.push(Fault::HoldReplay(node));
            }
        }
    }

    fn requests_about(&self, node: NodeId, requests: &mut Vec<Request>) {
        let Some(known) = self.world.monitor.record.nodes.get(&node) else { return };
        requests.extend([
            Request::Switchover(Some(node)),
            Request::Maintenance(node),
            Request::Drop(node),
            Request::Quorum(node, !known.replication_quorum),
        ]);
    }

    /// Makes it happen.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Turn { node, hears } => self.turn(node, hears),
            Action::Report(node) => self.report(node),
            Action::Look => self.world.monitor_turn(),
            Action::Stream(node) => self.world.postgres_turn(node),
            Action::Start(node) => self.world.restart(node),
            Action::Mend(a, b) => self.world.set_cut(a, b, false),
            Action::Late(node) => self.hear_late(node),
            Action::MaintenanceOver(node) => {
                if let Some(node) = self.name(node) {
                    let (on, allow_failover) = (false, false);
                    self.world.ask(&api::Action::Maintenance { node, on, allow_failover });
                }
            }
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

    fn harm(&mut self, fault: Fault) {
        match fault {
            Fault::Postgres(node) => self.world.crash_postgres(node),
            Fault::Keeper(node) => {
                self.world.crash_keeper(node);
                self.forget(node);
            }
            Fault::Host(node) => {
                self.world.crash_host(node);
                self.forget(node);
            }
            Fault::Monitor => self.world.monitor.start(self.world.now),
            Fault::Cut(a, b) => self.world.set_cut(a, b, true),
            Fault::Disk { node, state } => {
                self.world.wipe(node, state);
                self.forget(node);
            }
            Fault::State(node) => {
                self.world.crash_keeper(node);
                self.forget(node);
                if let Some(machine) = self.world.machines.get_mut(node) {
                    machine.persisted = None;
                    machine.claimed = false;
                }
            }
            Fault::Copy(node) => self.copy_answer(node),
            Fault::PromoteByHand(node) => self.promote_by_hand(node),
            Fault::HoldReplay(node) => {
                if let Some(machine) = self.world.machines.get_mut(node) {
                    machine.replay_stuck = true;
                }
            }
        }
    }

    /// A keeper process has ended, and its connections with it.
    fn forget(&mut self, node: NodeId) {
        self.wires.remove(&node);
    }

    fn name(&self, node: NodeId) -> Option<NodeName> {
        self.world.monitor.record.nodes.get(&node).map(|node| node.name.clone())
    }

    /// Whether the monitor takes the request.
    fn ask(&mut self, request: Request) -> bool {
        let name = |node| self.name(node);
        let action = match request {
            Request::Switchover(to) => Some(api::Action::Switchover { to: to.and_then(name) }),
            Request::Maintenance(node) => name(node).map(|node| api::Action::Maintenance {
                node,
                on: true,
                allow_failover: true,
            }),
            Request::Drop(node) => name(node).map(|node| api::Action::Drop { node, force: false }),
            Request::Number(number) => Some(api::Action::SetFormation {
                key: "number-sync-standbys".to_owned(),
                value: number.to_string(),
            }),
            Request::Quorum(node, on) => name(node).map(|node| api::Action::SetNode {
                node,
                key: "replication-quorum".to_owned(),
                value: on.to_string(),
            }),
        };
        let before = self.world.monitor.record.revision;
        if let Some(action) = action {
            self.world.ask(&action);
        }
        self.world.monitor.record.revision != before
    }

    fn copy_answer(&mut self, node: NodeId) {
        let keeper = self.world.machines.get(node).and_then(|machine| machine.keeper.as_ref());
        let (Some(keeper), Some(wire)) = (keeper, self.wires.get_mut(&node)) else { return };
        wire.late = wire.answer.clone().map(|(answer, sent)| (keeper.name.clone(), answer, sent));
    }

    fn hear_late(&mut self, node: NodeId) {
        let late = self.wires.get_mut(&node).and_then(|wire| wire.late.take());
        let Some((process, answer, sent)) = late else { return };
        self.hear(node, &process, answer, sent);
    }

    fn hear(&mut self, node: NodeId, process: &str, answer: Answer, sent: u64) {
        let machine = self.world.machines.get_mut(node);
        let keeper = machine.and_then(|machine| machine.keeper.as_mut());
        if let Some(keeper) = keeper.filter(|keeper| keeper.name == process) {
            keeper.tenure.grant(answer.lease, answer.assignment.order, Millis(sent));
            keeper.heard = Some(answer);
        }
    }

    /// PostgreSQL takes the number after its own.
    fn promote_by_hand(&mut self, node: NodeId) {
        let Some(machine) = self.world.machines.get_mut(node) else { return };
        let timeline = TimelineId(machine.log.timeline().0 + 1);
        machine.log.fork(timeline);
        machine.log.push_own(node);
        promote(&mut machine.view, timeline);
        machine.server.receiver = None;
        machine.server.waiting_from = machine.log.records().len();
        machine.refresh();
    }

    /// What a keeper does until somebody else could see it: the steps in between commute with
    /// everything that others do.
    fn turn(&mut self, node: NodeId, hears: bool) {
        if hears
            && let Some((answer, sent)) =
                self.wires.get_mut(&node).and_then(|wire| wire.answer.take())
        {
            let keeper = self.world.machines.get(node).and_then(|m| m.keeper.as_ref());
            let process = keeper.map(|keeper| keeper.name.clone()).unwrap_or_default();
            self.hear(node, &process, answer, sent);
        }
        for _ in 0..LOCAL_STEPS {
            let next = self.world.keeper_turn(node);
            self.collect();
            let more = match next {
                Some(Next::Do(step)) => !is_visible(&step),
                Some(Next::Wait(_)) => self.postgres_moves(node),
                Some(Next::Reached) | None => false,
            };
            if !more {
                return;
            }
        }
    }

    /// Postgres gets ready, or shows the signs of a seal, before anything else happens.
    fn postgres_moves(&mut self, node: NodeId) -> bool {
        let Some(machine) = self.world.machines.get(node) else { return false };
        let sealing = |machine: &Machine| {
            let unsealed = machine.view.server.as_ref().is_some_and(|s| s.in_recovery && !s.sealed);
            machine.view.file.upstream.is_none() && unsealed && !machine.replay_stuck
        };
        let starting = machine.view.server.is_none() && machine.view.process != Process::Stopped;
        if !starting && !sealing(machine) {
            return false;
        }
        self.world.postgres_turn(node);
        true
    }

    fn report(&mut self, node: NodeId) {
        let Some((report, sent)) = self.wires.get(&node).and_then(|wire| wire.report.clone())
        else {
            return;
        };
        let now = self.world.now;
        if !self.world.reaches(MONITOR, node) || !self.world.monitor.up {
            return;
        }
        if !self.world.monitor.take_report(node, report, now) {
            return;
        }
        if let Some(evidence) = self.world.monitor.view.nodes.get_mut(&node) {
            // Older than the report, if only by an instant.
            evidence.keeper = fsm::group::view::Probe::Unknown;
            evidence.postgres = fsm::group::view::Probe::Unknown;
            evidence.peers.clear();
            if let Some(report) = &mut evidence.report {
                report.seq = 0;
            }
        }
        self.world.decide();
        let Some(answer) = self.world.monitor.answer(node, 0, now) else { return };
        let answer =
            if self.is_joining() { answer } else { Answer { revision: Revision(0), ..answer } };
        let keeper = self.world.machines.get(node).and_then(|machine| machine.keeper.as_ref());
        let news = keeper.is_some_and(|keeper| {
            let mut tenure = keeper.tenure.clone();
            tenure.grant(answer.lease, answer.assignment.order, Millis(sent));
            tenure != keeper.tenure || keeper.heard.as_ref() != Some(&answer)
        });
        self.wires.entry(node).or_default().answer = news.then_some((answer, sent));
    }

    /// Takes what was said into the wires.
    fn collect(&mut self) {
        let now = self.world.now;
        for message in std::mem::take(&mut self.world.messages) {
            if let Message::Report(node, report) = message {
                let revision = if self.is_joining() { report.revision } else { Revision(0) };
                let report = Report { seq: 1, nonce: 0, revision, ..*report };
                let wire = self.wires.entry(node).or_default();
                wire.report = Some((report, now));
            }
        }
        for node in self.world.ids() {
            let machine = self.world.machines.get(node);
            let stale = machine.and_then(|m| m.keeper.as_ref()).is_some_and(|k| k.seq > 0);
            if stale
                && let Some(keeper) =
                    self.world.machines.get_mut(node).and_then(|machine| machine.keeper.as_mut())
            {
                keeper.seq = 0;
                keeper.calls.clear();
            }
        }
    }

    /// Whether the primary has to hear of a new node: then revisions are compared.
    fn is_joining(&self) -> bool {
        self.world.monitor.record.nodes.values().any(|node| node.joined.is_some())
    }

    /// Takes out what differs between ways to what is otherwise the same state: numbers of events,
    /// revisions and operations, which are only ever compared for being the same.
    pub fn tidy(&mut self) {
        for node in self.world.ids() {
            self.world.acknowledge(node);
        }
        self.collect();
        let joining = self.is_joining();
        let record = &mut self.world.monitor.record;
        if !joining {
            record.revision = Revision(1);
        }
        record.next_event = 1;
        record.next_operation = 1;
        record.finished.clear();
        if let Some(operation) = &mut record.operation {
            operation.id = 0;
        }
    }

    /// The violation, if there is one.
    pub fn violation(&self) -> Option<Violation> {
        self.world.violation()
    }

    /// All that has been under way is heard at once.
    pub(super) fn hear_everything(&mut self, node: NodeId) {
        let heard = self.wires.get(&node).is_some_and(|wire| wire.answer.is_some());
        self.act(Action::Turn { node, hears: heard });
    }

    /// No fault is left.
    pub(super) fn heal(&mut self) {
        self.left = Budget::default();
        for wire in self.wires.values_mut() {
            wire.late = None;
        }
        self.world.mend();
        for node in self.world.ids() {
            if let Some(machine) = self.world.machines.get_mut(node).filter(|m| m.replay_stuck) {
                machine.replay_stuck = false;
            }
        }
        self.tidy();
    }
}

/// Whether another process can see this step happen, or what it does to others.
fn is_visible(step: &Step) -> bool {
    match step {
        Step::Initialise
        | Step::Admit { .. }
        | Step::Clone { .. }
        | Step::Rewind { .. }
        | Step::Promote { .. }
        | Step::Block
        | Step::Set(_)
        | Step::Barrier(_)
        | Step::StopFast => true,
        Step::Adopt
        | Step::Configure(_)
        | Step::StartStandby
        | Step::StartPrimary
        | Step::StopImmediate
        | Step::ConfirmPromotion
        | Step::Checkpoint => false,
    }
}
