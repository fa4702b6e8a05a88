//! The monitor: a durable record, a volatile view, and the real rules. Every decision is checked
//! against the invariants of the record.

use crate::at;
use crate::ledger::Violation;
use crate::random::Random;
use crate::world::Mutation;
use fsm::Millis;
use fsm::group::record::Phase;
use fsm::group::{Decision, Record, View, goals, rules};
use shared::ids::NodeId;
use shared::report::{Answer, Lease, Report};
use std::sync::Arc;

/// More decisions in a row without anything new seen means that two rules undo each other.
const ROUNDS: usize = 32;

/// The monitor and its database.
#[derive(Clone, Debug)]
pub struct Monitor {
    /// Durable.
    pub record: Arc<Record>,
    /// Volatile.
    pub view: Arc<View>,
    /// The process runs.
    pub up: bool,
    /// All decisions with the record each was made on, where they are wanted.
    pub decisions: Option<Vec<(Record, Decision)>>,
    /// The first broken invariant.
    pub violation: Option<Violation>,
}

impl Monitor {
    /// A monitor that has not been started.
    pub fn new(record: Record) -> Self {
        Self {
            record: Arc::new(record),
            view: Arc::default(),
            up: false,
            decisions: None,
            violation: None,
        }
    }

    /// Starts the process: nothing is said before its ticket is durable.
    pub fn start(&mut self, now: u64) {
        let lease = self.record.settings.timers().lease_ms;
        self.view = Arc::new(View::starting(Millis(now), lease));
        self.up = true;
        let decision = self.record.monitor_started(at(now));
        self.commit(decision, now);
    }

    /// What is seen, to change it.
    pub fn view_mut(&mut self) -> &mut View {
        Arc::make_mut(&mut self.view)
    }

    /// Takes in a report; `None` where it is refused, as one of a second keeper process.
    pub fn take_report(&mut self, id: NodeId, report: Report, now: u64) -> bool {
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
    pub fn advance(&mut self, now: u64, random: &mut Random, mutation: Mutation) {
        if !self.up {
            return;
        }
        if let Some(primary) = self.record.primary {
            let members: Vec<_> =
                self.record.nodes.keys().copied().filter(|id| *id != primary).collect();
            self.view_mut().track_replicas(primary, &members, Millis(now));
        }
        for _ in 0..ROUNDS {
            let Some(decision) = self.step(now, random.draw(), mutation) else { return };
            let decided = decision.record.epoch > self.record.epoch;
            self.commit(decision, now);
            if decided && mutation == Mutation::DropInherited {
                let older = self.record.specs.len().saturating_sub(1);
                Arc::make_mut(&mut self.record).specs.drain(..older);
            }
        }
        self.accuse(format!("not settled after {ROUNDS} decisions in a row"));
    }

    fn step(&self, now: u64, tie_break: u64, mutation: Mutation) -> Option<Decision> {
        let blind = matches!(
            (mutation, &self.record.phase),
            (Mutation::IgnoreCovers, Phase::Serving | Phase::Electing(_))
        );
        if blind {
            let record = Record { specs: Vec::new(), ..Record::clone(&self.record) };
            let decision = rules::step(&record, &self.view, at(now), tie_break);
            let of_election = |decision: &Decision| decision.record.phase != self.record.phase;
            if let Some(mut decision) = decision.filter(of_election) {
                let mut specs = self.record.specs.clone();
                specs.append(&mut decision.record.specs);
                decision.record.specs = specs;
                return Some(decision);
            }
        }
        rules::step(&self.record, &self.view, at(now), tie_break)
    }

    /// Stores a decision, and looks whether it may be one.
    pub fn commit(&mut self, decision: Decision, now: u64) {
        if let Err(why) = check(&self.record, &decision) {
            self.accuse(why);
        }
        let next = Arc::new(decision.record.clone());
        if let Some(decisions) = &mut self.decisions {
            decisions.push((Record::clone(&self.record), decision));
        }
        if next.phase != self.record.phase || next.epoch != self.record.epoch {
            self.view_mut().phase_since = Millis(now);
        }
        if self.view.nodes.keys().any(|id| !next.nodes.contains_key(id)) {
            self.view_mut().nodes.retain(|id, _| next.nodes.contains_key(id));
        }
        self.record = next;
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
        })
    }
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
    let kept = before.specs.iter().all(|spec| after.specs.contains(spec));
    let confirmed = rules.contains(&"sync-confirmed");
    if !kept && !confirmed && !after.nodes.is_empty() {
        return Err(format!("a spec was dropped {}", because()));
    }
    if after.epoch > before.epoch && after.ticket <= before.ticket {
        return Err(format!("an epoch without a new ticket {}", because()));
    }
    Ok(())
}
