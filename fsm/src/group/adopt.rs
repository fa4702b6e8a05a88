//! The way out of quarantine (docs/safety.md, rule 14): from what the keepers offer, a record that a
//! monitor may decide on again, or what is still missing for one.
//!
//! What must hold: the new record says of each commit that may have been acknowledged by which nodes it
//! is held, as the lost one did. That is shown where all members have been heard, or where the primary
//! and enough of its standbys have (see `serve`). Numbers go on above all that were heard.
//!
//! Not here: how offers come (`view`), when this is asked (`rules`), and what is known of each node
//! (`adopt/story`).

mod nodes;
mod story;

pub use story::{Missing, contradicts};

use super::record::{Election, Phase, Record};
use super::view::View;
use crate::{Millis, Now};
use serde_json::{Value, json};
use shared::history::Start;
use shared::ids::{Epoch, Gen, NodeId, Ticket};
use shared::spec::Spec;
use std::collections::BTreeSet;
use story::{Story, Voice};

/// Tickets, and the numbers of orders, go on so far above the highest that was heard: an answer of the lost
/// monitor that still lies in a socket must be lower than all that is said from now on.
const GAP: u64 = 1000;

/// A record made from what the keepers know.
#[derive(Clone, Debug, PartialEq)]
pub struct Adopted {
    /// The record, out of quarantine.
    pub record: Record,
    /// Members that have not been heard: known by the word of the others.
    pub absent: BTreeSet<NodeId>,
    /// Who said what.
    pub evidence: Value,
}

/// The record that follows from the offers; else everything that is missing for one.
pub fn adopt(record: &Record, view: &View, now: Now) -> Result<Adopted, Vec<Missing>> {
    let story = Story::hear(record, view)?;
    let absent = story.absent();
    let primary = story.primary();
    let next = match primary {
        Some(primary) if absent.is_empty() => serve(&story, primary, now),
        Some(primary) => {
            let missing = unproven(&story, primary, view, now);
            if !missing.is_empty() {
                return Err(missing);
            }
            serve(&story, primary, now)
        }
        None if absent.is_empty() && story.epoch == Epoch(0) => {
            Record { phase: Phase::Forming, ..base(&story, now) }
        }
        None if absent.is_empty() => elect(&story, now),
        None => return Err(vec![story.unheard()]),
    };
    Ok(Adopted { record: next, absent, evidence: evidence(&story) })
}

/// What is missing for a proof that nobody but this primary can have been elected, while members are
/// missing: `required` of its standbys whose newest assignment is to follow it in its epoch, hence not to be
/// sealed. Whoever was elected would have had the seals of more of them than are left, or the primary's. The
/// seal that such a standby still remembers is of the decision that gave the epoch: no election ends in
/// "follow" under its own ticket.
fn unproven(story: &Story<'_>, primary: &Voice<'_>, view: &View, now: Now) -> Vec<Missing> {
    let Some(spec) = primary.spec_in_force().filter(|spec| spec.required > 0) else {
        return vec![story.unheard()];
    };
    let timers = primary.offer.assignment.timers;
    let fresh = |voice: &Voice<'_>| {
        let at = view.nodes.get(&voice.id).map_or(Millis(0), |evidence| evidence.reported_at);
        now.mono.since(at) <= timers.report_interval_ms.saturating_mul(2)
    };
    let follows = |voice: &&Voice<'_>| {
        spec.standbys.contains(&voice.id)
            && voice.offer.assignment.epoch == story.epoch
            && voice.offer.assignment.goal.upstream() == Some(primary.id)
            && voice.report.streaming
            && fresh(voice)
    };
    let witnesses = story.voices.values().filter(follows).count();
    if witnesses < spec.required || !fresh(primary) {
        return vec![story.unheard()];
    }
    // The others may be about to come: one record made from all is simpler than one without them.
    let waited = now.mono.since(view.watching_since);
    if waited < timers.node_timeout_ms { vec![story.expected()] } else { Vec::new() }
}

/// The primary goes on. Every acknowledged commit is on it: those of earlier epochs since it was elected,
/// those of its own since it wrote them. Where the spec in force is known, that is the one under which
/// they are on its standbys as well, and under which further ones come: what the lost monitor would have
/// confirmed (rule 9, iv). Else each member may have acknowledged alone, until the primary has put the
/// same terms in force under a new number.
fn serve(story: &Story<'_>, primary: &Voice<'_>, now: Now) -> Record {
    let mut next = base(story, now);
    next.primary = Some(primary.id);
    next.phase = Phase::Promoting;
    if let Some(promoted) = &primary.offer.promoted {
        next.phase = Phase::Serving;
        let entry = next.lineage.0.iter_mut().find(|entry| entry.epoch == promoted.epoch);
        if let Some(entry) = entry {
            entry.timeline = promoted.timeline;
            entry.start = Some(Start { parent: promoted.parent, lsn: promoted.start });
        }
        next.lineage.learn(&promoted.ancestors);
    }
    if let Some(spec) = primary.spec_in_force() {
        next.specs = vec![spec.clone()];
        next.confirmed = Some(spec.generation);
        return next;
    }
    alone(&mut next, story.members.keys().copied());
    let mut terms = spec_of(&mut next, primary.id);
    if let Some(spec) = primary.offer.assignment.goal.spec() {
        let standbys = spec.standbys.iter().copied().filter(|id| next.nodes.contains_key(id));
        terms.standbys = standbys.collect();
        terms.required = spec.required.min(terms.standbys.len());
    }
    next.specs.push(terms);
    next
}

/// Nobody serves: all are sealed under a ticket above all that were heard, and the best position wins
/// (rule 5). Each of them may have acknowledged alone, so that all seals are needed: also that of one which
/// has lost its data, and of one in maintenance. The lost monitor knew that such a node had left every spec;
/// nobody knows it now, and one that made its record in this way did not either.
fn elect(story: &Story<'_>, now: Now) -> Record {
    let mut next = base(story, now);
    next.primary = story.chosen();
    next.phase = Phase::Electing(Election {
        cause: "adopted".to_owned(),
        preferred: None,
        planned: false,
        cannot_fetch: BTreeSet::new(),
        drain: false,
        loss: None,
        timeline: None,
    });
    alone(&mut next, story.members.keys().copied());
    next
}

/// Each of them may have acknowledged alone.
fn alone(next: &mut Record, nodes: impl IntoIterator<Item = NodeId>) {
    for id in nodes {
        let spec = spec_of(next, id);
        next.specs.push(spec);
    }
}

/// The asynchronous spec of a node, under a number of its own.
fn spec_of(next: &mut Record, primary: NodeId) -> Spec {
    let generation = next.next_generation;
    next.next_generation = generation.next();
    Spec { generation, epoch: next.epoch, primary, required: 0, standbys: BTreeSet::new() }
}

/// All but who serves, and under which specs.
fn base(story: &Story<'_>, now: Now) -> Record {
    let mut next = story.record.clone();
    let reason = "given up: the monitor has lost what it knew of it";
    next.finish(shared::api::Outcome::Failed, reason, now);
    next.quarantined = false;
    next.epoch = story.epoch;
    next.specs.clear();
    next.confirmed = None;
    next.lineage.clone_from(&story.lineage);
    next.system_identifier = story.system_identifier;
    next.ticket = Ticket(story.highest_ticket().0.saturating_add(GAP));
    next.next_generation = Gen(story.highest_generation().0.saturating_add(1));
    next.highest_timeline = story.highest_timeline();
    // Few have heard of an order; of a ticket everybody has.
    let order = story.highest_order().saturating_add(GAP);
    next.next_operation = next.next_operation.max(order).max(next.ticket.0);
    nodes::take_settings(&mut next, story, now);
    nodes::take_nodes(&mut next, story);
    next
}

fn evidence(story: &Story<'_>) -> Value {
    let said = story.voices.values().map(|voice| {
        let assignment = &voice.offer.assignment;
        let said = json!({
            "epoch": assignment.epoch,
            "ticket": assignment.order.ticket,
            "generation": assignment.order.generation,
            "goal": assignment.goal_state,
            "sealed": voice.offer.sealed,
            "in_force": voice.report.in_force,
        });
        (story.name_of(voice.id), said)
    });
    json!({ "offers": said.collect::<serde_json::Map<_, _>>() })
}
