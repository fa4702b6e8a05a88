//! A decision: what the record becomes, with the events that say why.

use super::{Phase, Record};
use crate::Now;
use serde::{Deserialize, Serialize};
use shared::event::Event;
use shared::ids::{NodeId, TimelineId};
use shared::lsn::Lsn;

/// A new record and why: the rows of one transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The record after it; its revision is one above the one it was decided on.
    pub record: Record,
    /// What it says about it.
    pub events: Vec<Event>,
}

/// An event before it has its id.
#[derive(Clone, Debug)]
pub struct Note {
    /// See [`Event::kind`].
    pub kind: &'static str,
    /// The rule.
    pub rule: String,
    /// The node that it is about.
    pub node: Option<NodeId>,
    /// What was before.
    pub from: Option<String>,
    /// What is now.
    pub to: Option<String>,
    /// The timeline, where one is concerned.
    pub timeline: Option<TimelineId>,
    /// The location, where one is concerned.
    pub lsn: Option<Lsn>,
    /// A sentence.
    pub reason: String,
    /// The facts.
    pub evidence: serde_json::Value,
}

impl Note {
    /// A note with a sentence and nothing else.
    pub fn new(kind: &'static str, rule: &str, reason: impl Into<String>) -> Self {
        Self {
            kind,
            rule: rule.to_owned(),
            node: None,
            from: None,
            to: None,
            timeline: None,
            lsn: None,
            reason: reason.into(),
            evidence: serde_json::Value::Object(serde_json::Map::new()),
        }
    }

    /// Says which node it is about.
    #[must_use]
    pub fn about(self, node: NodeId) -> Self {
        Self { node: Some(node), ..self }
    }

    /// Says what changed into what.
    #[must_use]
    pub fn change(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        Self { from: Some(from.into()), to: Some(to.into()), ..self }
    }

    /// Adds the facts.
    #[must_use]
    pub fn evidence(self, evidence: serde_json::Value) -> Self {
        Self { evidence, ..self }
    }
}

impl Record {
    /// Makes the decision that takes `self` to `next`, with the events of `notes`.
    pub(crate) fn decide(&self, mut next: Self, notes: Vec<Note>, now: Now) -> Decision {
        next.revision = self.revision.next();
        let mut events = Vec::with_capacity(notes.len());
        for note in notes {
            let named =
                note.node.and_then(|id| next.nodes.get(&id).or_else(|| self.nodes.get(&id)));
            events.push(Event {
                id: next.next_event,
                at: now.wall,
                formation: next.formation.clone(),
                group: next.group,
                node: named.map(|node| node.name.clone()),
                node_id: note.node,
                epoch: next.epoch,
                kind: note.kind.to_owned(),
                rule: note.rule,
                from: note.from,
                to: note.to,
                timeline: note.timeline,
                lsn: note.lsn,
                reason: note.reason,
                evidence: note.evidence,
            });
            next.next_event += 1;
        }
        Decision { record: next, events }
    }

    /// The first decision of a monitor process: raises the ticket (rule 2), so that nothing said by
    /// an earlier process can be confused with what this one says; an election starts afresh.
    pub fn monitor_started(&self, now: Now) -> Decision {
        let mut next = self.clone();
        next.ticket = next.ticket.next();
        if let Phase::Forwarding { election, .. } = &self.phase {
            next.phase = Phase::Electing(election.clone());
        }
        let note = Note::new("monitor", "monitor-started", "the monitor was started");
        self.decide(
            next,
            vec![note.change(self.ticket.to_string(), self.ticket.next().to_string())],
            now,
        )
    }
}
