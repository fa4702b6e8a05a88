//! The monitor: a durable record, a volatile view, and the real rules. Every decision is checked
//! against the invariants of the record.

use crate::at;
use crate::blind::Blind;
use crate::ledger::Violation;
use crate::orders::{Owed, check_pause};
use crate::part::Part;
use crate::random::Random;
use crate::world::Mutation;
use fsm::Millis;
use fsm::group::{Decision, Record, View, goals, rules};
use shared::ids::{Epoch, NodeId};
use shared::lsn::Position;
use shared::report::{Answer, Lease, Report};

/// More decisions in a row without anything new seen means that two rules undo each other.
const ROUNDS: usize = 32;

/// The monitor and its database.
#[derive(Clone, Debug)]
pub struct Monitor {
    /// Durable.
    pub record: Part<Record>,
    /// Volatile.
    pub view: Part<View>,
    /// The process runs.
    pub up: bool,
    /// All decisions with the record each was made on, where they are wanted.
    pub decisions: Option<Vec<(Record, Decision)>>,
    /// The first broken invariant.
    pub violation: Option<Violation>,
    /// Elections with accepted loss that nobody has looked at yet.
    pub losses: Vec<Loss>,
    /// What has been ordered and not been done.
    pub owed: Owed,
    /// Whether a rule is taken away, and which.
    pub blind: Blind,
    /// The record was changed behind its back, or lost.
    pub tampered: bool,
}

/// An election in which the operator gave something up.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The epoch that it gave.
    pub epoch: Epoch,
    /// The primary before it.
    pub old: Option<NodeId>,
    /// Those whose logs it was decided on, each up to where it was known to go.
    pub witnesses: Vec<(NodeId, Position)>,
}

impl Monitor {
    /// A monitor that has not been started.
    pub fn new(record: Record) -> Self {
        Self {
            record: Part::new(record),
            view: Part::default(),
            up: false,
            decisions: None,
            violation: None,
            losses: Vec::new(),
            owed: Owed::default(),
            blind: Blind::default(),
            tampered: false,
        }
    }

    /// Starts the process: nothing is said before its ticket is durable.
    pub fn start(&mut self, now: u64) {
        let lease = self.record.settings.timers().lease_ms;
        self.view = Part::new(View::starting(Millis(now), lease));
        self.up = true;
        let decision = self.record.monitor_started(at(now));
        self.commit(decision, now);
    }

    /// The record, to change it behind its back.
    pub fn record_mut(&mut self) -> &mut Record {
        self.tampered = true;
        self.record.change()
    }

    /// What is seen, to change it.
    pub fn view_mut(&mut self) -> &mut View {
        self.view.change()
    }

    /// Takes in a report; `None` where it is refused, as one of a second keeper process.
    pub fn take_report(&mut self, id: NodeId, mut report: Report, now: u64) -> bool {
        self.blind.hear(&self.record, id, &mut report);
        let fresh = self.record.settings.timers().report_interval_ms * 2;
        let duplicate = self.view.nodes.get(&id).is_some_and(|evidence| {
            let other = evidence.report.as_ref().is_some_and(|r| r.keeper != report.keeper);
            other && !evidence.closed && Millis(now).since(evidence.reported_at) <= fresh
        });
        if !self.record.nodes.contains_key(&id) || duplicate {
            return false;
        }
        self.view_mut().take_report(id, report, Millis(now));
        true
    }

    /// Decides what is to be decided.
    pub fn advance(&mut self, now: u64, random: &mut Random) {
        if !self.up {
            return;
        }
        if let Some(primary) = self.record.primary {
            let members: Vec<_> =
                self.record.nodes.keys().copied().filter(|id| *id != primary).collect();
            self.view_mut().track_replicas(primary, &members, Millis(now));
        }
        let timers = self.record.settings.timers();
        self.view_mut().doubt(&timers, Millis(now));
        let mut reasons = Vec::new();
        for _ in 0..ROUNDS {
            let Some(decision) = self.step(now, random.draw()) else { return };
            reasons = decision.events.iter().map(|event| event.reason.clone()).collect();
            self.commit(decision, now);
        }
        self.accuse(format!(
            "not settled after {ROUNDS} decisions in a row, the last: {reasons:?}"
        ));
    }

    fn step(&mut self, now: u64, tie_break: u64) -> Option<Decision> {
        if self.blind.mutation == Mutation::None {
            rules::step(&self.record, &self.view, at(now), tie_break)
        } else {
            self.blind.step(&self.record, &self.view, now, tie_break)
        }
    }

    /// Stores a decision, and looks whether it may be one.
    pub fn commit(&mut self, decision: Decision, now: u64) {
        if let Err(why) = check(&self.record, &decision)
            && self.blind.is_checked()
        {
            self.accuse(why);
        }
        if let Err(why) = self.owed.note(&self.record, &decision.record) {
            self.accuse(why);
        }
        // It would be mended, but it must not come to that by itself.
        if decision.events.iter().any(|event| event.rule == "record-is-old") && !self.tampered {
            self.accuse("the record is older than what keepers know".to_owned());
        }
        self.losses.extend(loss(&self.record, &decision));
        let next = decision.record.clone();
        if let Some(decisions) = &mut self.decisions {
            decisions.push((Record::clone(&self.record), decision));
        }
        if next.phase != self.record.phase || next.epoch != self.record.epoch {
            self.view_mut().phase_since = Millis(now);
        }
        if self.record.quarantined && !next.quarantined {
            let ms = next.settings.timers().lease_ms;
            self.view_mut().note_lease(Some(Lease::For { ms }), Millis(now));
        }
        if self.view.nodes.keys().any(|id| !next.nodes.contains_key(id)) {
            self.view_mut().nodes.retain(|id, _| next.nodes.contains_key(id));
        }
        self.record = Part::new(next);
        for id in self.record.nodes.keys() {
            if goals::assignment(&self.record, &self.view, *id).is_none() {
                self.violation.get_or_insert(Violation::Record(format!("no goal for node {id}")));
            }
        }
    }

    fn accuse(&mut self, why: String) {
        self.violation.get_or_insert(Violation::Record(why));
    }

    /// The answer to a report.
    pub fn answer(&mut self, id: NodeId, nonce: u64, now: u64) -> Option<Answer> {
        if self.record.quarantined || self.record.nodes.get(&id).is_some_and(|node| node.absent) {
            return None;
        }
        let assignment = goals::assignment(&self.record, &self.view, id)?;
        let lease = goals::lease(&self.record, id);
        match lease {
            Some(Lease::For { ms }) => {
                let end = self.view.leases_end.max(Millis(now + ms + ms / 10));
                if end != self.view.leases_end || self.view.unlimited_lease {
                    let view = self.view_mut();
                    view.leases_end = end;
                    view.unlimited_lease = false;
                }
            }
            Some(Lease::Unlimited) => self.view_mut().unlimited_lease = true,
            None => {}
        }
        Some(Answer {
            nonce,
            revision: self.record.revision,
            assignment,
            lease,
            flushed: Vec::new(),
            sync_members: Vec::new(),
            monitors: Vec::new(),
            wants_catalogue: false,
            archived: shared::report::Archived::default(),
        })
    }
}

/// The recorded loss of an election.
fn loss(before: &Record, decision: &Decision) -> Option<Loss> {
    let event = decision.events.iter().find(|event| event.rule == "elected")?;
    event.evidence.get("given_up").filter(|given_up| !given_up.is_null())?;
    let named = event.evidence.get("witnesses")?.as_object()?;
    let witnesses = before.nodes.iter().filter_map(|(id, node)| {
        let position = named.get(node.name.as_str())?.clone();
        Some((*id, serde_json::from_value(position).ok()?))
    });
    let (epoch, old) = (decision.record.epoch, before.primary);
    Some(Loss { epoch, old, witnesses: witnesses.collect() })
}

/// Who is elected may be: a priority of 0 is for operators to overrule.
fn check_elected(before: &Record, after: &Record) -> Result<(), String> {
    let Some(election) = before.phase.election() else { return Ok(()) };
    let Some((id, node)) = after.primary.and_then(|id| Some((id, before.nodes.get(&id)?))) else {
        return Err("a primary that is no node was elected".to_owned());
    };
    let asked_for = election.preferred == Some(id);
    if node.maintenance || (node.candidate_priority == 0 && !asked_for) {
        return Err(format!("{} was elected and may not be a primary", node.name));
    }
    Ok(())
}

/// What holds of every decision.
pub fn check(before: &Record, decision: &Decision) -> Result<(), String> {
    let after = &decision.record;
    let rules: Vec<_> = decision.events.iter().map(|event| event.rule.as_str()).collect();
    let because = || format!("by {rules:?} at revision {}", before.revision);
    after.validate().map_err(|error| format!("{error}, {}", because()))?;
    if after.revision != before.revision.next() {
        return Err(format!("revision {} after {}", after.revision, before.revision));
    }
    let lowered = after.ticket < before.ticket
        || after.epoch < before.epoch
        || after.next_generation < before.next_generation
        || after.next_node < before.next_node
        || after.next_operation < before.next_operation
        || after.highest_timeline < before.highest_timeline;
    if lowered {
        return Err(format!("a number was lowered {}", because()));
    }
    let ids: Vec<_> = decision.events.iter().map(|event| event.id).collect();
    let expected: Vec<_> = (before.next_event..after.next_event).collect();
    if ids != expected || ids.is_empty() {
        return Err(format!("events {ids:?} instead of {expected:?} {}", because()));
    }
    check_pause(before, decision)?;
    let kept = before.specs.iter().all(|spec| after.specs.contains(spec));
    // A record that was not to be trusted is made anew.
    let confirmed = rules.contains(&"sync-confirmed") || rules.contains(&"adopted");
    if !kept && !confirmed && !after.nodes.is_empty() {
        return Err(format!("a spec was dropped {}", because()));
    }
    if after.epoch > before.epoch {
        if after.ticket <= before.ticket {
            return Err(format!("an epoch without a new ticket {}", because()));
        }
        return if before.quarantined { Ok(()) } else { check_elected(before, after) };
    }
    Ok(())
}
