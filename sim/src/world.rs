//! The world: hosts, a monitor, a network and a clock, and one action after the other.

use crate::at;
use crate::ledger::{Ledger, Violation};
use crate::log::RecordId;
use crate::machine::{Machine, Machines};
use crate::monitor::Monitor;
use crate::node::SYSTEM;
use crate::random::Random;
use fsm::Millis;
use fsm::group::view::Probe;
use fsm::group::{Record, detector, join};
use shared::api::JoinRequest;
use shared::ids::{FormationId, GroupId, NodeId, NodeName};
use shared::report::{Answer, Data, Report};
use shared::settings::Settings;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The newest lines of the trace that are kept.
const TRACE: usize = 160;
/// A line that is among so many newest ones is not said again.
const REPEATS: usize = 6;
/// The monitor's place among the hosts.
pub const MONITOR: NodeId = NodeId(0);

/// A rule that is taken away, to see that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Everything as it is.
    None,
    /// Elections do not ask whether the witnesses cover the specs.
    IgnoreCovers,
    /// Specs of older epochs are dropped by the decision.
    DropInherited,
    /// A keeper that restarts has forgotten its newest assignment, and a seal with it.
    ForgetSeal,
    /// A node connects without the proof of rule 10.
    NoPrefixCheck,
    /// Late answers are taken, in whatever order.
    Unordered,
}

impl Mutation {
    /// All of them, and none.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::IgnoreCovers,
        Self::DropInherited,
        Self::ForgetSeal,
        Self::NoPrefixCheck,
        Self::Unordered,
    ];
}

/// A name that is none of a mutation's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of {names}", names = Mutation::ALL.map(|m| m.to_string()).join(", "))]
pub struct InvalidMutation(String);

/// As in the source, with small letters and hyphens: `ignore-covers`.
impl std::fmt::Display for Mutation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = format!("{self:?}");
        for (index, letter) in words.char_indices() {
            if letter.is_uppercase() && index > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Mutation {
    type Err = InvalidMutation;

    fn from_str(text: &str) -> Result<Self, InvalidMutation> {
        let named = Self::ALL.into_iter().find(|mutation| mutation.to_string() == text);
        named.ok_or_else(|| InvalidMutation(text.to_owned()))
    }
}

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
            sightings: None,
            trace: VecDeque::new(),
            next_commit: 1,
        };
        world.monitor.start(world.now);
        for number in 1..=nodes {
            world.join(number);
        }
        world
    }

    fn join(&mut self, number: u64) {
        let Ok(joined) = join::join(&self.monitor.record, &request(number), "secret", at(self.now))
        else {
            return;
        };
        if let Some(decision) = joined.decision {
            self.monitor.commit(*decision, self.now);
        }
        let mut machine = Machine::new(joined.node);
        machine.start_keeper(self.now);
        self.machines.insert(joined.node, machine);
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
        let up = |id: NodeId| self.machines.get(id).is_none_or(|machine| machine.up);
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
        if self.trace.len() >= TRACE {
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
        for id in self.ids() {
            let now = self.now;
            let Some(machine) = self.machines.get_mut(id) else { continue };
            if machine.up && machine.is_fenced(now) {
                machine.stop_postgres(false);
                self.say(|| format!("node {id} fences itself"));
            }
        }
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
        if !self.monitor.take_report(from, report, self.now) {
            return;
        }
        self.decide();
        if let Some(answer) = self.monitor.answer(from, nonce, self.now) {
            let answer = Box::new(answer);
            self.messages.push(Message::Answer { to: from, keeper, seq, answer });
        }
    }

    fn hear_answer(&mut self, to: NodeId, keeper: &str, seq: u64, answer: Answer) {
        if !self.reaches(MONITOR, to) {
            return;
        }
        let unordered = self.mutation == Mutation::Unordered;
        let own = self.machines.get_mut(to).and_then(|machine| machine.keeper.as_mut());
        let Some(own) = own.filter(|own| own.name == keeper || unordered) else { return };
        let sent = own.calls.iter().find(|call| call.0 == seq).map(|call| call.1);
        own.calls.retain(|call| call.0 != seq);
        if (seq < own.answered || sent.is_none()) && !unordered {
            return;
        }
        own.answered = seq;
        if let Some(sent) = sent {
            own.tenure.grant(answer.lease, answer.assignment.order, Millis(sent));
        }
        own.heard = Some(answer);
    }

    /// The monitor looks around and decides.
    pub fn decide(&mut self) {
        let before = self.monitor.record.revision;
        self.monitor.advance(self.now, &mut self.random, self.mutation);
        if self.monitor.record.revision != before {
            let record = &self.monitor.record;
            let line = format!(
                "monitor: {} epoch {} ticket {} primary {:?} specs {:?} confirmed {:?}",
                record.phase.name(),
                record.epoch,
                record.ticket,
                record.primary.map(|id| id.0),
                record
                    .specs
                    .iter()
                    .map(|s| (s.generation.0, s.primary.0, s.to_string()))
                    .collect::<Vec<_>>(),
                record.confirmed.map(|generation| generation.0),
            );
            self.say(|| line);
        }
    }

    /// The monitor probes whom it suspects, itself and through the peers, then decides.
    pub fn monitor_turn(&mut self) {
        if !self.monitor.up {
            return;
        }
        let timers = self.monitor.record.settings.timers();
        for id in self.ids() {
            if !detector::wants_probe(&self.monitor.view, id, &timers, Millis(self.now)) {
                continue;
            }
            let keeper = self.probe(MONITOR, id, |machine| machine.keeper.is_some());
            let postgres = self.probe(MONITOR, id, Machine::is_ready);
            let peers: BTreeMap<_, _> = self
                .ids()
                .into_iter()
                .filter(|peer| *peer != id && self.reaches(MONITOR, *peer))
                .filter(|peer| self.machines.get(*peer).is_some_and(|m| m.keeper.is_some()))
                .map(|peer| (peer, self.probe(peer, id, Machine::is_ready)))
                .collect();
            let evidence = self.monitor.view.nodes.entry(id).or_default();
            evidence.keeper = keeper;
            evidence.postgres = postgres;
            evidence.peers = peers;
        }
        self.decide();
    }

    fn probe(&self, from: NodeId, to: NodeId, there: impl Fn(&Machine) -> bool) -> Probe {
        let at = Millis(self.now);
        match self.machines.get(to) {
            Some(machine) if self.reaches(from, to) && there(machine) => Probe::Answered(at),
            Some(_) if self.reaches(from, to) => Probe::Refused(at),
            Some(_) | None => Probe::Silent(at),
        }
    }
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
        protocol: shared::PROTOCOL,
        formation: formation(),
        name: node_name(number),
        host: format!("host-{number}"),
        port: 5432,
        rest: format!("host-{number}:6432"),
        candidate_priority: 50,
        replication_quorum: true,
        zone: None,
        token: None,
        data: Data::Empty,
        standby: false,
        identity: None,
    }
}

/// The cluster's identity, for requests that bring one.
pub fn present() -> Data {
    Data::Present { system_identifier: SYSTEM }
}
