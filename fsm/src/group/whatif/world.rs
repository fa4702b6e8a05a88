//! A small world for one question: the present record and view, some nodes that have died, the others
//! at the monitor's orders, and a clock. The rules are the real ones.

use super::node::Surroundings;
use crate::group::detector::{Verdict, verdict};
use crate::group::goals::lease;
use crate::group::record::{Decision, Phase, Record};
use crate::group::rules;
use crate::group::status::is_writable;
use crate::group::view::{Evidence, Probe, View};
use crate::{Millis, Now};
use shared::Span;
use shared::api::PredictedStep;
use shared::ids::NodeId;
use shared::settings::Timers;
use std::collections::BTreeSet;

/// More decisions than any course of events takes: two rules that undo each other must end.
const DECISIONS: usize = 200;
/// More looks than the longest quiet needs.
const LOOKS: usize = 2000;
/// A quiet is watched with so many looks at the least, whatever the timers are.
const LOOKS_IN_QUIET: u64 = 40;

/// The world.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) record: Record,
    pub(super) view: View,
    pub(super) now: Now,
    /// What would be decided.
    pub(super) steps: Vec<PredictedStep>,
    /// Since when commits are acknowledged without a break.
    pub(super) writable_since: Option<Millis>,
    /// The primary before the last election in which acknowledged commits were given up.
    pub(super) gave_up: Option<NodeId>,
    began: Millis,
    tie_break: u64,
    living: BTreeSet<NodeId>,
    gone: BTreeSet<NodeId>,
}

impl World {
    /// The present, in which these nodes have just died. Who reports goes on to do so; of whoever does
    /// not, nothing more is heard.
    pub(super) fn begin(
        (record, view): (&Record, &View),
        gone: &BTreeSet<NodeId>,
        now: Now,
        tie_break: u64,
    ) -> Self {
        let timers = record.settings.timers();
        let reports = |id: &NodeId| verdict(view, *id, &timers, now.mono) == Verdict::Good;
        let living = record.nodes.keys().copied().filter(reports);
        Self {
            living: living.filter(|id| !gone.contains(id)).collect(),
            gone: gone.clone(),
            record: record.clone(),
            view: view.clone(),
            now,
            steps: Vec::new(),
            writable_since: None,
            gave_up: None,
            began: now.mono,
            tie_break,
        }
    }

    /// Whether a node does what it is told.
    pub(super) fn is_living(&self, id: NodeId) -> bool {
        self.living.contains(&id) && self.record.nodes.contains_key(&id)
    }

    /// How long it is since the beginning.
    pub(super) fn since_began(&self, at: Millis) -> u64 {
        at.since(self.began)
    }

    /// Goes on until nothing is decided any more.
    pub(super) fn run(&mut self) {
        let mut quiet_since = self.now.mono;
        let mut decisions = 0;
        // What was asked for has been decided, or somebody has died.
        let mut news = true;
        for _ in 0..LOOKS {
            // All that follows from what has been seen is decided before anybody has done its part.
            while let Some(decision) =
                rules::step(&self.record, &self.view, self.now, self.tie_break)
            {
                self.adopt(decision);
                decisions += 1;
                if decisions == DECISIONS {
                    return;
                }
                news = true;
            }
            if news {
                quiet_since = self.now.mono;
            } else {
                let quiet = self.longest_wait();
                if self.now.mono.since(quiet_since) > quiet {
                    return;
                }
                self.pass(self.tick(quiet));
            }
            news = false;
            self.look();
        }
    }

    /// The decision holds.
    pub(super) fn adopt(&mut self, decision: Decision) {
        let Decision { record, events } = decision;
        if record.phase != self.record.phase || record.epoch != self.record.epoch {
            self.view.phase_since = self.now.mono;
        }
        self.view.nodes.retain(|id, _| record.nodes.contains_key(id));
        let before = std::mem::replace(&mut self.record, record).primary;
        let after_ms = self.since_began(self.now.mono);
        for event in events {
            if event.evidence.get("given_up").is_some_and(|given_up| !given_up.is_null()) {
                self.gave_up = before;
            }
            // What nodes say of themselves is no decision.
            if event.kind != "node_state" {
                let (rule, node, reason) = (event.rule, event.node, event.reason);
                self.steps.push(PredictedStep { after_ms, rule, node, reason });
            }
        }
    }

    /// Everybody who lives has done what it was told, and has said so; the monitor looks at it.
    fn look(&mut self) {
        let now = self.now.mono;
        let primary = self.record.primary.filter(|id| self.living.contains(id));
        let others = self.living.iter().copied().filter(|id| Some(*id) != primary);
        // The primary once more: it sees who streams from it.
        let turns: Vec<_> = primary.into_iter().chain(others).chain(primary).collect();
        for id in turns {
            self.obey(id);
        }
        let silent: Vec<_> =
            self.record.nodes.keys().copied().filter(|id| !self.living.contains(id)).collect();
        for id in silent {
            let evidence = self.view.nodes.entry(id).or_default();
            stay_silent(evidence, self.gone.contains(&id), now);
        }
        if let Some(primary) = self.record.primary {
            let members: Vec<_> =
                self.record.nodes.keys().copied().filter(|id| *id != primary).collect();
            self.view.track_replicas(primary, &members, now);
        }
        self.view.doubt(&self.timers(), now);
        if is_writable(&self.record, &self.view, self.now) {
            self.writable_since.get_or_insert(now);
        } else {
            self.writable_since = None;
        }
    }

    fn obey(&mut self, id: NodeId) {
        let Self { record, view, living, gone, .. } = self;
        let Some(report) = (Surroundings { record, view, living, gone }).obeyed(id) else { return };
        let evidence = self.view.nodes.entry(id).or_default();
        evidence.report = Some(report);
        evidence.reported_at = self.now.mono;
        evidence.closed = false;
        evidence.note_stream(self.now.mono);
        self.view.note_lease(lease(&self.record, id), self.now.mono);
    }

    fn timers(&self) -> Timers {
        self.record.settings.timers()
    }

    /// The longest that a rule may wait for something without anything being decided: for a monitor
    /// that doubts itself, twice the node timeout.
    fn longest_wait(&self) -> u64 {
        let Timers {
            node_timeout_ms, stall_timeout_ms, election_grace_ms, drain_timeout_ms, ..
        } = self.timers();
        let wait = node_timeout_ms.saturating_mul(2).max(stall_timeout_ms).max(election_grace_ms);
        match &self.record.phase {
            Phase::Electing(election) if election.drain => wait.max(drain_timeout_ms),
            // Rule 12: until no lease can be held any more.
            Phase::Electing(_) | Phase::Forwarding { .. } => {
                wait.max(self.view.leases_end.since(self.now.mono))
            }
            Phase::Forming | Phase::Serving | Phase::Promoting => wait,
        }
    }

    /// Short enough for a rule to fire about when it would.
    fn tick(&self, quiet: u64) -> u64 {
        let interval = self.timers().report_interval_ms;
        (interval / 2).max(quiet / 400).min((quiet / LOOKS_IN_QUIET).max(1)).max(1)
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus(ms);
        let span = Span::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX));
        self.now.wall = self.now.wall.checked_add_signed(span).unwrap_or(self.now.wall);
    }
}

/// Nothing is heard of a node: not at all where it has died, else no more than was heard last.
fn stay_silent(evidence: &mut Evidence, gone: bool, now: Millis) {
    evidence.closed = true;
    if gone {
        (evidence.keeper, evidence.postgres) = (Probe::Silent(now), Probe::Silent(now));
        evidence.peers.clear();
        return;
    }
    for probe in [&mut evidence.keeper, &mut evidence.postgres] {
        *probe = said_again(*probe, now);
    }
    for probe in evidence.peers.values_mut() {
        *probe = said_again(*probe, now);
    }
}

fn said_again(probe: Probe, now: Millis) -> Probe {
    match probe {
        Probe::Answered(_) => Probe::Answered(now),
        Probe::Refused(_) => Probe::Refused(now),
        Probe::Silent(_) | Probe::Unknown => Probe::Silent(now),
    }
}
