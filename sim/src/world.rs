//! The world: hosts, a monitor, a network and a clock, and one action after the other.

use crate::at;
use crate::ledger::{Ledger, Violation};
use crate::log::{Log, RecordId};
use crate::machine::{Clock, Frozen, Machine, Machines};
use crate::monitor::Monitor;
use crate::node::SYSTEM;
use crate::random::Random;
use fsm::Millis;
use fsm::group::view::Probe;
use fsm::group::{Record, detector, join};
use shared::api::{Identity, JoinRequest};
use shared::ids::{Epoch, FormationId, GroupId, NodeId, NodeName};
use shared::report::{Answer, Data, Report};
use shared::settings::Settings;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The newest lines of the trace that are kept.
const TRACE: usize = 160;
/// A line that is among so many newest ones is not said again.
const REPEATS: usize = 6;
/// What every node proves itself with.
const SECRET: &str = "secret";
/// The monitor's place among the hosts.
pub const MONITOR: NodeId = NodeId(0);

pub use crate::mutation::{InvalidMutation, Mutation};

/// Something under way between two hosts.
#[derive(Clone, Debug)]
pub enum Message {
    /// To the monitor.
    Report(NodeId, Box<Report>),
    /// From the monitor, to one keeper process, for one report.
    Answer {
        /// To whom.
        to: NodeId,
        /// To which process.
        keeper: String,
        /// The report that it answers.
        seq: u64,
        /// What it says.
        answer: Box<Answer>,
    },
}

/// Everything.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a simulated world")]
pub struct World {
    /// Milliseconds.
    pub now: u64,
    /// Chance.
    pub random: Random,
    /// The monitor.
    pub monitor: Monitor,
    /// The hosts.
    pub machines: Machines,
    /// Under way.
    pub messages: Vec<Message>,
    /// Copies of messages that arrive much later than their originals.
    pub late: Vec<Message>,
    /// Pairs of places that cannot reach each other.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// What was promised.
    pub ledger: Ledger,
    /// What is taken away.
    pub mutation: Mutation,
    /// Steps may be interrupted.
    pub faulty: bool,
    /// A disk has been lost already.
    pub disk_lost: bool,
    /// The processes of a Postgres pick up a new sync spec one after the other.
    pub lags: bool,
    /// Hooks before changes of the role take their time, and refuse promotions.
    pub hooks: bool,
    /// There is an archive.
    pub archives: bool,
    /// What is in it: also what a primary wrote there that nobody followed any more, since not every
    /// archive asks.
    pub archive: Option<Log>,
    /// The monitor's clock.
    pub clock: Clock,
    /// Since when the monitor's process stands still, on its clock.
    pub frozen_since: Option<u64>,
    /// Old primaries that an operator has made sure no client reaches, until they have heard of an
    /// epoch after this one.
    pub fenced: BTreeMap<NodeId, Epoch>,
    /// How often nodes have joined, for new names.
    pub joins: u64,
    /// Under which of these each node has joined.
    pub numbers: BTreeMap<NodeId, u64>,
    /// How many of the newest lines of the trace are kept; none where nobody reads them.
    pub keeps: usize,
    /// What keepers have looked at, where somebody wants to know.
    pub sightings: Option<Vec<crate::fit::Sighting>>,
    trace: VecDeque<String>,
    next_commit: u64,
}

impl World {
    /// So many nodes that have joined, and a monitor that has started.
    pub fn new(random: Random, nodes: u64, settings: Settings, mutation: Mutation) -> Self {
        let record = Record::new(formation(), GroupId(0), settings);
        let mut world = Self {
            now: 1000,
            random,
            monitor: Monitor::new(record),
            machines: Machines::default(),
            messages: Vec::new(),
            late: Vec::new(),
            cut: BTreeSet::new(),
            ledger: Ledger::default(),
            mutation,
            faulty: false,
            disk_lost: false,
            lags: false,
            hooks: false,
            archives: false,
            archive: None,
            clock: Clock::default(),
            frozen_since: None,
            fenced: BTreeMap::new(),
            joins: 0,
            numbers: BTreeMap::new(),
            keeps: TRACE,
            sightings: None,
            trace: VecDeque::new(),
            next_commit: 1,
        };
        world.monitor.blind.mutation = mutation;
        world.monitor.start(world.now);
        for _ in 1..=nodes {
            world.join(true);
        }
        world
    }

    /// Another node joins, in the quorum or not.
    pub fn join(&mut self, replication_quorum: bool) -> Option<NodeId> {
        self.joins += 1;
        let request = JoinRequest { replication_quorum, ..request(self.joins) };
        let now = self.monitor_now();
        let joined = join::join(&self.monitor.record, &request, SECRET, at(now)).ok()?;
        // Its number was given by a monitor that was lost before anybody else had heard of it.
        if self.machines.get(joined.node).is_some() {
            return None;
        }
        self.numbers.insert(joined.node, self.joins);
        if let Some(decision) = joined.decision {
            self.monitor.commit(*decision, now);
        }
        let mut machine = Machine::new(joined.node);
        machine.start_keeper(self.now);
        self.machines.insert(joined.node, machine);
        Some(joined.node)
    }

    /// What the monitor's clock shows.
    pub fn monitor_now(&self) -> u64 {
        self.clock.read(self.now)
    }

    /// Whether the monitor does anything.
    pub fn is_watched(&self) -> bool {
        self.monitor.up && self.frozen_since.is_none()
    }

    /// A commit that has not been before.
    pub fn fresh_commit(&mut self) -> RecordId {
        self.next_commit += 1;
        RecordId::Commit(self.next_commit)
    }

    /// All nodes.
    pub fn ids(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    /// Whether two places can reach each other.
    pub fn reaches(&self, a: NodeId, b: NodeId) -> bool {
        let up = |id: NodeId| self.machines.get(id).is_none_or(Machine::runs);
        up(a) && up(b) && !self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Cuts two places from each other, or joins them again.
    pub fn set_cut(&mut self, a: NodeId, b: NodeId, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if cut {
            self.cut.insert(pair);
        } else {
            self.cut.remove(&pair);
        }
    }

    /// Adds a line to the trace.
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.keeps == 0 {
            return;
        }
        if self.trace.len() >= self.keeps {
            self.trace.pop_front();
        }
        let text = text();
        // What is tried again and again stands there once.
        if !self.trace.iter().rev().take(REPEATS).any(|line| line.get(7..) == Some(&text)) {
            self.trace.push_back(format!("{:>6} {text}", self.now));
        }
    }

    /// The newest lines.
    pub fn trace(&self) -> Vec<String> {
        self.trace.iter().cloned().collect()
    }

    /// What went wrong, if something has.
    pub fn violation(&self) -> Option<Violation> {
        self.ledger.violation.clone().or_else(|| self.monitor.violation.clone())
    }

    /// Time passes; a primary whose right to serve has ended is stopped at once (rule 12).
    pub fn pass(&mut self, ms: u64) {
        self.now += ms;
        if self.mutation == Mutation::NoLease {
            return;
        }
        let alone = self.mutation == Mutation::StartsAlone;
        let over = |machine: &Machine| {
            let heard = machine.keeper.as_ref().is_some_and(|keeper| keeper.heard.is_some());
            machine.is_guarded() && machine.is_fenced(machine.time(self.now)) && (heard || !alone)
        };
        let fenced: Vec<_> =
            self.machines.iter().filter(|(_, m)| over(m)).map(|(id, _)| id).collect();
        for id in fenced {
            if let Some(machine) = self.machines.get_mut(id) {
                machine.stop_postgres(false);
                machine.was_fenced = true;
                self.say(|| format!("node {id} fences itself"));
            }
        }
    }

    /// How long it is to the end of some lease, or just before or after it.
    pub fn until_lease_edge(&mut self) -> u64 {
        let held = self.machines.values().filter_map(|machine| {
            let until = machine.right_until().filter(|_| machine.is_writable())?;
            Some(machine.clock.when(until))
        });
        let awaited = self.clock.when(self.monitor.view.leases_end.0);
        let ahead: Vec<_> = held.chain([awaited]).filter(|at| *at > self.now).collect();
        let edge = self.random.pick(&ahead).map_or(0, |at| at - self.now);
        (edge + self.random.below(3)).saturating_sub(1)
    }

    /// One message arrives, whichever it is.
    pub fn deliver(&mut self) {
        let count = u64::try_from(self.messages.len()).unwrap_or(0);
        if count == 0 {
            return;
        }
        let index = usize::try_from(self.random.below(count)).unwrap_or(0);
        let message = self.messages.swap_remove(index);
        if self.faulty && self.random.one_in(8) {
            self.late.push(message.clone());
        }
        self.receive(message);
    }

    /// A copy arrives that has been under way for long, or one is lost.
    pub fn deliver_late(&mut self) {
        let count = u64::try_from(self.late.len()).unwrap_or(0);
        if count > 0 {
            let index = usize::try_from(self.random.below(count)).unwrap_or(0);
            let message = self.late.swap_remove(index);
            if self.random.one_in(2) {
                self.receive(message);
            }
        }
    }

    fn receive(&mut self, message: Message) {
        // What comes to a process that stands still waits in its socket.
        let waits = match &message {
            Message::Report(..) => self.frozen_since.is_some(),
            Message::Answer { to, .. } => {
                let asleep = |frozen| matches!(frozen, Frozen::Keeper | Frozen::Host);
                self.machines.get(*to).is_some_and(|machine| asleep(machine.frozen))
            }
        };
        if waits {
            self.late.push(message);
            return;
        }
        match message {
            Message::Report(from, report) => self.hear_report(from, *report),
            Message::Answer { to, keeper, seq, answer } => {
                self.hear_answer(to, &keeper, seq, *answer);
            }
        }
    }

    fn hear_report(&mut self, from: NodeId, report: Report) {
        if !self.monitor.up || !self.reaches(MONITOR, from) {
            return;
        }
        let (keeper, seq, nonce) = (report.keeper.clone(), report.seq, report.nonce);
        if self.monitor.record.nodes.get(&from).is_none_or(|node| node.secret.is_empty()) {
            self.hear_stranger(from);
            return;
        }
        if !self.monitor.take_report(from, report, self.monitor_now()) {
            return;
        }
        self.decide();
        if let Some(answer) = self.monitor.answer(from, nonce, self.monitor_now()) {
            let answer = Box::new(answer);
            self.messages.push(Message::Answer { to: from, keeper, seq, answer });
        }
    }

    fn hear_answer(&mut self, to: NodeId, keeper: &str, seq: u64, answer: Answer) {
        if !self.reaches(MONITOR, to) {
            return;
        }
        let stateless = self.machines.get(to).is_some_and(|machine| machine.persisted.is_none());
        let unordered = self.mutation == Mutation::Unordered
            || (stateless && self.mutation == Mutation::NoNonce);
        let own = self.machines.get_mut(to).and_then(|machine| machine.keeper.as_mut());
        let Some(own) = own.filter(|own| own.name == keeper || unordered) else { return };
        let sent = own.calls.iter().find(|call| call.0 == seq).map(|call| call.1);
        own.calls.retain(|call| call.0 != seq);
        if sent.is_none() && !unordered {
            return;
        }
        let older = own.heard.as_ref().is_some_and(|heard| answer.is_older_than(heard));
        if older && !unordered {
            return;
        }
        own.hear(answer, sent);
    }

    /// A keeper that the monitor does not know joins again, under its own identity.
    fn hear_stranger(&mut self, id: NodeId) {
        let formation = self.monitor.record.formation.clone();
        let identity = Identity { formation, node_id: id, secret: SECRET.to_owned() };
        let number = self.numbers.get(&id).copied().unwrap_or(id.0);
        let request = JoinRequest { identity: Some(identity), ..request(number) };
        let now = self.monitor_now();
        match join::join(&self.monitor.record, &request, SECRET, at(now)) {
            Ok(joined) => {
                if let Some(decision) = joined.decision {
                    self.monitor.commit(*decision, now);
                }
            }
            Err(error) if error.reason == "dropped" => self.dismiss(id),
            Err(error) => self.say(|| format!("node {id} is not taken: {}", error.reason)),
        }
    }

    /// A node that is not part of the formation any more hears so, and stops for good.
    pub(crate) fn dismiss(&mut self, id: NodeId) {
        let promotes = self.mutation == Mutation::DroppedPromotes;
        if let Some(machine) = self.machines.get_mut(id) {
            machine.stop_postgres(true);
            if promotes {
                crate::node::start(&mut machine.view, false);
            }
            machine.keeper = None;
            machine.job = None;
            machine.dropped = true;
            self.say(|| format!("node {id}: told that it was dropped"));
        }
    }

    /// The monitor looks around and decides.
    pub fn decide(&mut self) {
        let before = self.monitor.record.revision;
        let now = self.monitor_now();
        self.monitor.advance(now, &mut self.random);
        self.forgive();
        self.lift_fences();
        if self.monitor.record.revision != before && self.keeps > 0 {
            let line = outline(&self.monitor.record);
            self.say(|| line);
        }
    }

    /// The monitor probes whom it suspects, itself and through the peers, then decides.
    pub fn monitor_turn(&mut self) {
        if !self.is_watched() {
            return;
        }
        let timers = self.monitor.record.settings.timers();
        for id in self.ids() {
            if !detector::wants_probe(&self.monitor.view, id, &timers, Millis(self.monitor_now())) {
                continue;
            }
            let keeper =
                self.probe(MONITOR, id, |machine| machine.keeper.is_some(), Machine::is_kept);
            let postgres = self.probe(MONITOR, id, Machine::is_ready, |_| true);
            let peers: BTreeMap<_, _> = self
                .ids()
                .into_iter()
                .filter(|peer| *peer != id && self.reaches(MONITOR, *peer))
                .filter(|peer| self.machines.get(*peer).is_some_and(Machine::is_kept))
                .map(|peer| (peer, self.probe(peer, id, Machine::is_ready, |_| true)))
                .collect();
            let evidence = self.monitor.view_mut().nodes.entry(id).or_default();
            evidence.keeper = keeper;
            evidence.postgres = postgres;
            evidence.peers = peers;
        }
        self.decide();
    }

    fn probe(
        &self,
        from: NodeId,
        to: NodeId,
        there: impl Fn(&Machine) -> bool,
        answers: impl Fn(&Machine) -> bool,
    ) -> Probe {
        let at = Millis(self.monitor_now());
        match self.machines.get(to).filter(|_| self.reaches(from, to)) {
            Some(machine) if !there(machine) => Probe::Refused(at),
            Some(machine) if answers(machine) => Probe::Answered(at),
            Some(_) | None => Probe::Silent(at),
        }
    }
}

fn outline(record: &Record) -> String {
    let specs: Vec<_> =
        record.specs.iter().map(|s| (s.generation.0, s.primary.0, s.to_string())).collect();
    format!(
        "monitor: {} epoch {} ticket {} primary {:?} specs {specs:?} confirmed {:?}",
        record.phase.name(),
        record.epoch,
        record.ticket,
        record.primary.map(|id| id.0),
        record.confirmed.map(|generation| generation.0),
    )
}

fn formation() -> FormationId {
    #[expect(clippy::expect_used, reason = "a constant")]
    "default".parse().expect("a valid name")
}

fn node_name(number: u64) -> NodeName {
    #[expect(clippy::expect_used, reason = "letters and digits only")]
    format!("n{number}").parse().expect("a valid name")
}

/// What a new node sends to join.
pub fn request(number: u64) -> JoinRequest {
    JoinRequest {
        host: format!("host-{number}"),
        rest: format!("host-{number}:6432"),
        ..JoinRequest::of_new_node(formation(), node_name(number))
    }
}

/// The cluster's identity, for requests that bring one.
pub fn present() -> Data {
    Data::Present { system_identifier: SYSTEM }
}
