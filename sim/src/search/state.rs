//! One state of a search, and what each action makes of it.

use super::action::{Action, Fault, Request};
use super::{Budget, Search, fair};
use crate::ledger::Violation;
use crate::machine::Machine;
use crate::part::Part;
use crate::random::Random;
use crate::world::{MONITOR, Message, Mutation, World};
use fsm::Millis;
use fsm::group::goals;
use fsm::group::view::Probe;
use fsm::node::plan::Next;
use fsm::node::{Process, Step};
use shared::api;
use shared::goal::Assignment;
use shared::ids::{NodeId, NodeName, Revision};
use shared::report::{Answer, Report};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// In one tick every timer runs out.
const TICK: u64 = 1_000_000;
/// More local steps in a row than any plan has.
const LOCAL_STEPS: usize = 24;

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

    /// What may happen next.
    pub fn actions(&self, actions: &mut Vec<Action>) {
        let mut faults = vec![Fault::Monitor];
        let mut requests = vec![Request::Switchover(None), Request::Join, Request::Pause];
        requests.extend([false, true].map(|fenced| Request::AcceptLoss { fenced }));
        requests.extend((0..=2).map(Request::Number));
        for machine in self.world.machines.values() {
            self.by_itself(machine, actions);
            self.faults_of(machine, &mut faults);
            self.requests_about(machine.id, &mut requests);
        }
        actions.push(Action::Look);
        actions.extend(self.world.monitor.record.paused.as_ref().map(|_| Action::Resume));
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
            if self.answer(node).is_some() {
                actions.push(Action::Turn { node, hears: true });
            }
            if self.late.contains_key(&node) {
                actions.push(Action::Late(node));
            }
        }
        let walsenders = machine.server.rows.iter().filter(|(_, row)| row.lag.is_some());
        actions.extend(walsenders.map(|(id, _)| Action::PickUp { node, walsender: Some(*id) }));
        if machine.server.checkpointer.is_some() {
            actions.push(Action::PickUp { node, walsender: None });
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
            if !self.late.contains_key(&node) {
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
            Request::Restart(node),
            Request::Copy(node),
            Request::Quorum(node, !known.replication_quorum),
        ]);
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
                    machine.lose_state();
                }
            }
            Fault::Copy(node) => self.copy_answer(node),
            Fault::PromoteByHand(node) => self.world.promote_by_hand(node),
            Fault::HoldReplay(node) => {
                if let Some(machine) = self.world.machines.get_mut(node) {
                    machine.replay_stuck = true;
                }
            }
        }
    }

    /// A keeper process has ended, and its connections with it.
    fn forget(&mut self, node: NodeId) {
        self.said.remove(&node);
        if !matches!(self.world.mutation, Mutation::Unordered | Mutation::NoNonce) {
            self.late.remove(&node);
        }
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
            Request::Drop(node) => {
                name(node).map(|node| api::Action::Drop { node, force: false, destroy: false })
            }
            Request::Number(number) => Some(api::Action::SetFormation {
                key: "number-sync-standbys".to_owned(),
                value: number.to_string(),
            }),
            Request::Restart(node) => name(node).map(|node| api::Action::Restart { node }),
            Request::Copy(node) => name(node).map(|node| api::Action::Reinit { node }),
            Request::Pause => Some(api::Action::Pause),
            Request::Join => {
                return self.world.monitor.up && self.world.join(true).is_some();
            }
            Request::AcceptLoss { fenced } => {
                let before = self.world.monitor.record.revision;
                let old = self.world.monitor.record.primary.filter(|_| fenced);
                self.world.fail_over_with_loss(fenced);
                if let Some(old) = old {
                    self.forget(old);
                }
                return fenced || self.world.monitor.record.revision != before;
            }
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
        let Some(keeper) = keeper else { return };
        let again = || Some((keeper.heard.clone()?, self.world.now));
        let Some((answer, sent)) = self.answer(node).or_else(again) else { return };
        self.late.insert(node, (keeper.name.clone(), Part::new(answer), sent));
    }

    fn deliver_late(&mut self, node: NodeId) {
        let Some((process, answer, sent)) = self.late.remove(&node) else { return };
        let machine = self.world.machines.get(node);
        let present = machine.and_then(|m| m.keeper.as_ref()).map(|keeper| keeper.name.clone());
        // Without a nonce, a process that remembers nothing takes what was meant for another.
        let mutation = self.world.mutation;
        let forgetful = machine.is_some_and(|machine| machine.persisted.is_none());
        let taken = mutation == Mutation::Unordered || mutation == Mutation::NoNonce && forgetful;
        let process = present.filter(|_| taken).unwrap_or(process);
        self.hear(node, &process, Answer::clone(&answer), sent);
    }

    /// What the monitor would answer now to the report that it holds of this keeper process, and when
    /// that report was sent; `None` where it would be nothing new.
    fn answer(&self, node: NodeId) -> Option<(Answer, u64)> {
        let monitor = &self.world.monitor;
        let keeper = self.world.machines.get(node)?.keeper.as_ref()?;
        let evidence = monitor.view.nodes.get(&node)?;
        let held = evidence.report.as_ref().is_some_and(|report| report.keeper == keeper.name);
        if !held || !monitor.up || !self.world.reaches(MONITOR, node) {
            return None;
        }
        let sent = evidence.reported_at.0;
        let revision = if self.is_joining() { monitor.record.revision } else { Revision(0) };
        let answer = Answer {
            nonce: 0,
            revision,
            // No search loses a record: what is kept for that would only tell states apart.
            assignment: Assignment {
                keepsake: None,
                ..goals::assignment(&monitor.record, &monitor.view, node)?
            },
            lease: goals::lease(&monitor.record, node),
            flushed: Vec::new(),
            sync_members: Vec::new(),
            monitors: Vec::new(),
            wants_catalogue: false,
            archived: shared::report::Archived::default(),
        };
        let mut tenure = keeper.tenure.clone();
        tenure.grant(answer.lease, answer.assignment.order, Millis(sent));
        let news = tenure != keeper.tenure || keeper.heard.as_ref() != Some(&answer);
        news.then_some((answer, sent))
    }

    fn hear(&mut self, node: NodeId, process: &str, answer: Answer, sent: u64) {
        let unordered = matches!(self.world.mutation, Mutation::Unordered | Mutation::NoNonce);
        let machine = self.world.machines.get_mut(node);
        let keeper = machine.and_then(|machine| machine.keeper.as_mut());
        if let Some(keeper) = keeper.filter(|keeper| keeper.name == process) {
            let older = keeper.heard.as_ref().is_some_and(|heard| answer.is_older_than(heard));
            if !older || unordered {
                keeper.hear(answer, Some(sent));
                // While time stands still nobody can tell whether the report was sent after a claim; that it
                // was, which ends the claim, is the stronger adversary.
                keeper.granted_at = keeper.granted_at.map(|sent| sent + 1);
            }
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

    /// What a keeper does until somebody else could see it: the steps in between commute with
    /// everything that others do.
    fn turn(&mut self, node: NodeId, hears: bool) {
        if hears && let Some((answer, sent)) = self.answer(node) {
            // The lease is noted on the other side as well.
            drop(self.world.monitor.answer(node, 0, self.world.now));
            let keeper = self.world.machines.get(node).and_then(|m| m.keeper.as_ref());
            let process = keeper.map(|keeper| keeper.name.clone()).unwrap_or_default();
            self.hear(node, &process, answer, sent);
        }
        self.act_locally(node);
        if let Some(report) = self.said.get(&node).cloned() {
            self.report(node, &report);
        }
    }

    fn act_locally(&mut self, node: NodeId) {
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

    /// A report arrives, and the monitor decides.
    fn report(&mut self, node: NodeId, report: &Report) {
        let now = self.world.now;
        if !self.world.reaches(MONITOR, node) || !self.world.monitor.up {
            return;
        }
        if !self.world.monitor.record.nodes.contains_key(&node) {
            self.world.dismiss(node);
            return;
        }
        if !self.world.monitor.take_report(node, report.clone(), now) {
            return;
        }
        if let Some(evidence) = self.world.monitor.view_mut().nodes.get_mut(&node) {
            // Older than the report, if only by an instant.
            evidence.keeper = Probe::Unknown;
            evidence.postgres = Probe::Unknown;
            evidence.peers.clear();
            if let Some(report) = &mut evidence.report {
                report.seq = 0;
            }
        }
        self.world.decide();
    }

    /// Keeps what was said.
    fn collect(&mut self) {
        for message in std::mem::take(&mut self.world.messages) {
            if let Message::Report(node, report) = message {
                let revision = if self.is_joining() { report.revision } else { Revision(0) };
                let report = Report { seq: 1, nonce: 0, revision, ..*report };
                self.said.insert(node, Part::new(report));
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
        if !joining {
            self.forget_revisions();
        }
        let newest_order = self.newest_order();
        let monitor = &mut self.world.monitor;
        if monitor.record.next_event == 1 {
            return;
        }
        let record = monitor.record.change();
        if !joining {
            record.revision = Revision(1);
        }
        record.next_event = 1;
        record.finished.clear();
        record.next_operation = newest_order + 1;
    }

    /// Orders are compared with those that a keeper has carried out: no number is given twice.
    fn newest_order(&self) -> u64 {
        let record = &self.world.monitor.record;
        let given = record.nodes.values().map(|node| node.orders);
        let kept = self.world.machines.values().filter_map(|m| m.persisted.as_ref());
        let heard = kept.map(|persisted| persisted.assignment.orders);
        let done = self.world.machines.values().map(|machine| machine.done);
        let all = given.chain(heard).chain(done);
        let newest = all.map(|orders| orders.restart.max(orders.copy)).max();
        newest.max(record.operation.as_ref().map(|operation| operation.id)).unwrap_or(0)
    }

    /// Answers from now on are told apart by their orders only.
    fn forget_revisions(&mut self) {
        for node in self.world.ids() {
            let heard = |machine: &Machine| Some(machine.keeper.as_ref()?.heard.as_ref()?.revision);
            if self.world.machines.get(node).and_then(heard) <= Some(Revision(0)) {
                continue;
            }
            let machine = self.world.machines.get_mut(node);
            if let Some(heard) = machine
                .and_then(|machine| machine.keeper.as_mut())
                .and_then(|keeper| keeper.heard.as_mut())
            {
                heard.revision = Revision(0);
            }
        }
        for (_, answer, _) in self.late.values_mut() {
            if answer.revision > Revision(0) {
                answer.change().revision = Revision(0);
            }
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
        | Step::StopFast
        | Step::Restart => true,
        Step::Adopt
        | Step::CatchUp
        | Step::Configure(_)
        | Step::StartStandby
        | Step::StartPrimary
        | Step::StopImmediate
        | Step::ConfirmPromotion
        | Step::Checkpoint => false,
    }
}
