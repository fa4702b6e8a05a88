//! The machine's rules as rows: ordered, named, the first that fires wins. A row's name stands in the
//! events that it causes. Rows only look; what they come to is a whole new record.

mod cascade;
pub(crate) mod election;
mod quarantine;
mod serving;
pub(crate) mod upkeep;

use super::record::{Decision, Note, Phase, Record};
use super::view::View;
use crate::{Millis, Now};
use shared::ids::NodeId;
use shared::report::Report;
use shared::settings::Timers;

/// A row of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name; stands in the events it causes.
    pub name: &'static str,
    /// The phase it belongs to.
    pub phase: &'static str,
    /// When it fires.
    pub conditions: &'static str,
    /// The phase after it.
    pub next: &'static str,
    fire: fn(&Context<'_>) -> Option<Change>,
}

/// What a rule comes to.
#[derive(Debug)]
pub(crate) struct Change {
    /// The record after it.
    pub(crate) next: Record,
    /// Why.
    pub(crate) notes: Vec<Note>,
}

/// Everything that a rule may look at.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) record: &'a Record,
    pub(crate) view: &'a View,
    pub(crate) now: Now,
    pub(crate) tie_break: u64,
    pub(crate) timers: Timers,
    pub(crate) rule: &'static str,
}

impl Context<'_> {
    /// The primary and its newest report.
    pub(crate) fn primary(&self) -> Option<(NodeId, Option<&Report>)> {
        self.record.primary.map(|id| (id, self.view.report(id)))
    }

    /// A report of the primary that is no older than two intervals, on the record's epoch.
    pub(crate) fn fresh_primary(&self) -> Option<(NodeId, &Report)> {
        let id = self.record.primary?;
        let evidence = self.view.nodes.get(&id)?;
        let age = self.now.mono.since(evidence.reported_at);
        let report = evidence.report.as_ref()?;
        let accepted = report.accepted.is_some_and(|a| a.epoch == self.record.epoch);
        (accepted && age <= self.timers.report_interval_ms * 2).then_some((id, report))
    }

    /// A note of this rule.
    pub(crate) fn note(&self, kind: &'static str, reason: impl Into<String>) -> Note {
        Note::new(kind, self.rule, reason)
    }

    /// A note that the phase changes.
    pub(crate) fn phase_note(&self, next: &Record, reason: impl Into<String>) -> Note {
        self.note("phase", reason).change(self.record.phase.name(), next.phase.name())
    }
}

/// The way out of quarantine.
const ADOPTED: Rule = Rule {
    name: "adopted",
    phase: "any, in quarantine",
    conditions: "what the keepers know is one story, and nobody else can have been elected",
    next: "serving or electing, under a ticket above all that were heard",
    fire: quarantine::adopted,
};

/// All rules in order; the first that fires wins. In quarantine there is but one.
pub const RULES: &[Rule] = &[
    ADOPTED,
    Rule {
        name: "record-is-old",
        phase: "any",
        conditions: "a keeper has accepted a ticket, generation or epoch above the record's",
        next: "the same, in quarantine",
        fire: quarantine::record_is_old,
    },
    Rule {
        name: "latecomer",
        phase: "any",
        conditions: "a member that had not been heard since the monitor lost its record has said what it knows",
        next: "the same; the ticket is above the member's",
        fire: quarantine::latecomer,
    },
    Rule {
        name: "birth",
        phase: "forming",
        conditions: "a node that may become primary has reported an empty data directory, or a cluster that is not a standby",
        next: "promoting",
        fire: serving::birth,
    },
    Rule {
        name: "promoted",
        phase: "promoting",
        conditions: "the candidate has verified its promotion on the reserved timeline",
        next: "serving",
        fire: election::promoted,
    },
    Rule {
        name: "candidate-lost",
        phase: "promoting",
        conditions: "the candidate is dead, has lost its data, or cannot run Postgres",
        next: "electing",
        fire: election::candidate_lost,
    },
    Rule {
        name: "candidate-refused",
        phase: "promoting",
        conditions: "the candidate's pre_promote hook refuses, and the others could elect",
        next: "electing; the candidate is a witness still",
        fire: election::candidate_refused,
    },
    Rule {
        name: "primary-lost-its-data",
        phase: "serving",
        conditions: "the primary's data directory is empty, and the others could elect",
        next: "electing",
        fire: serving::primary_lost_its_data,
    },
    Rule {
        name: "primary-dead",
        phase: "serving",
        conditions: "the detector says that the primary is dead, and the others could elect",
        next: "electing",
        fire: serving::primary_dead,
    },
    Rule {
        name: "primary-cannot-run",
        phase: "serving",
        conditions: "the primary's keeper cannot run Postgres, and the others could elect",
        next: "electing",
        fire: serving::primary_cannot_run,
    },
    Rule {
        name: "primary-hands-over",
        phase: "serving",
        conditions: "the primary's keeper has been asked to stop, and a standby could take over",
        next: "electing, draining the old primary first",
        fire: serving::primary_hands_over,
    },
    Rule {
        name: "drained",
        phase: "electing",
        conditions: "the draining primary is sealed",
        next: "electing, sealing the standbys",
        fire: election::drained,
    },
    Rule {
        name: "drain-given-up",
        phase: "electing",
        conditions: "the draining primary is dead, or the drain timeout is over",
        next: "electing, sealing the standbys",
        fire: election::drain_given_up,
    },
    Rule {
        name: "elected",
        phase: "electing, forwarding",
        conditions: "the best candidate holds every commit that may have been acknowledged",
        next: "promoting",
        fire: election::elected,
    },
    Rule {
        name: "fast-forward",
        phase: "electing, forwarding",
        conditions: "the best candidate lacks what another sealed node has",
        next: "forwarding",
        fire: election::fast_forward,
    },
    Rule {
        name: "fast-forward-given-up",
        phase: "forwarding",
        conditions: "the choice is no longer this candidate and this source",
        next: "electing",
        fire: election::fast_forward_given_up,
    },
    Rule {
        name: "sync-confirmed",
        phase: "serving",
        conditions: "the primary reports the newest spec in force",
        next: "serving; all older specs are dropped",
        fire: serving::sync_confirmed,
    },
    // Before the spec is changed: whoever comes back may be waited for, and no commit goes without.
    Rule {
        name: "reattached",
        phase: "serving",
        conditions: "a node streams from a standby that is no upstream any more, or cannot stream from it, or commits need the node",
        next: "serving; the node follows the primary, under a higher ticket and a new admission",
        fire: cascade::reattached,
    },
    Rule {
        name: "sync-change",
        phase: "serving",
        conditions: "the fit standbys or the settings ask for another spec than the newest",
        next: "serving; the new spec is added behind the others",
        fire: serving::sync_change,
    },
    Rule {
        name: "cascaded",
        phase: "serving",
        conditions: "a node is to stream from a standby that streams, and no commit waits for the node",
        next: "serving; the node follows that standby, under a higher ticket and a new admission",
        fire: cascade::cascaded,
    },
    Rule {
        name: "readmission",
        phase: "any",
        conditions: "a keeper without state asks for its first assignment, or a node is to be copied anew",
        next: "the same; a higher ticket, a new admission for the node",
        fire: upkeep::readmission,
    },
    Rule {
        name: "announced",
        phase: "serving",
        conditions: "the primary has heard of a node that has joined",
        next: "serving; the node may follow",
        fire: upkeep::announced,
    },
    Rule {
        name: "operation-goes-on",
        phase: "serving",
        conditions: "the node of the operation is no longer the primary, or, for a restart or a new copy, no commit needs to wait for it",
        next: "serving; the node goes into maintenance, is being dropped, or gets its order",
        fire: upkeep::operation_goes_on,
    },
    Rule {
        name: "withheld-is-over",
        phase: "serving",
        conditions: "automation is paused, and the primary whose replacement was withheld is well again",
        next: "serving",
        fire: upkeep::withheld_is_over,
    },
    Rule {
        name: "dropped",
        phase: "any",
        conditions: "a node that is being dropped says that it has stopped for good",
        next: "the same, without the node",
        fire: upkeep::dropped,
    },
    Rule {
        name: "operation-done",
        phase: "serving",
        conditions: "what the operator asked for holds, or can no longer be had",
        next: "serving",
        fire: upkeep::operation_done,
    },
    Rule {
        name: "node-state",
        phase: "any",
        conditions: "keepers report other states than before",
        next: "the same",
        fire: upkeep::node_state,
    },
];

/// The next decision, if anything is to be decided. `tie_break` is chance, drawn by the caller.
pub fn step(record: &Record, view: &View, now: Now, tie_break: u64) -> Option<Decision> {
    let timers = record.settings.timers();
    let mut context = Context { record, view, now, tie_break, timers, rule: "" };
    if record.quarantined {
        context.rule = ADOPTED.name;
        let Change { next, notes } = (ADOPTED.fire)(&context)?;
        return Some(record.decide(next, notes, now));
    }
    let mut withheld = false;
    RULES.iter().find_map(|rule| {
        context.rule = rule.name;
        let mut change = (rule.fire)(&context)?;
        if withholds(record, &change) {
            // The first is the one that would be followed: told in turn, two of them would never end.
            if std::mem::replace(&mut withheld, true) {
                return None;
            }
            change = withhold(&context, &change)?;
        }
        Some(record.decide(change.next, change.notes, now))
    })
}

/// Whether a pause keeps this from happening: no election begins by itself.
fn withholds(record: &Record, change: &Change) -> bool {
    record.paused.is_some()
        && record.phase == Phase::Serving
        && change.next.phase.election().is_some()
}

/// What becomes of it: an event that says what would have been done, once.
fn withhold(context: &Context<'_>, change: &Change) -> Option<Change> {
    let mut next = context.record.clone();
    let pause = next.paused.as_mut()?;
    if pause.withheld.as_deref() == Some(context.rule) {
        return None;
    }
    pause.withheld = Some(context.rule.to_owned());
    let first = change.notes.first()?;
    let reason = format!("nothing is done while automation is paused; else: {}", first.reason);
    let mut note = context.note("paused", reason).evidence(first.evidence.clone());
    note.node = first.node;
    Some(Change { next, notes: vec![note] })
}

/// For how long the group has been in its phase.
pub(crate) fn in_phase_for(context: &Context<'_>) -> u64 {
    context.now.mono.since(Millis::max(context.view.phase_since, context.view.watching_since))
}

/// Whether the phase is one in which nodes are sealed and the choice is open.
pub(crate) fn is_choosing(phase: &Phase) -> bool {
    match phase {
        Phase::Electing(election) => !election.drain,
        Phase::Forwarding { .. } => true,
        Phase::Forming | Phase::Serving | Phase::Promoting => false,
    }
}
