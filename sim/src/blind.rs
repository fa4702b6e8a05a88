//! A monitor without one of its rules: what it believes to hear and to see, and what it makes of the
//! decisions of `fsm`, which know nothing of it.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a mutation stands where it acts, and nothing else happens there without it"
)]

use crate::at;
use crate::world::Mutation;
use fsm::Millis;
use fsm::group::record::Phase;
use fsm::group::{Decision, Record, View, rules};
use shared::ids::{Epoch, Gen, NodeId, TimelineId};
use shared::lsn::Position;
use shared::report::{Data, Report, Sealed};
use shared::spec::Spec;
use std::collections::{BTreeMap, BTreeSet};

/// How old gets what a monitor decides on that reads twice.
const STALE_MS: u64 = 150;

/// Which rule is taken away, and what a monitor without it remembers.
#[derive(Clone, Debug, Default)]
pub struct Blind {
    /// What is taken away.
    pub mutation: Mutation,
    seals: BTreeMap<NodeId, Sealed>,
    specs: BTreeMap<Gen, Spec>,
    elected: Option<(Epoch, Position)>,
    read: Option<(u64, Record, View)>,
}

impl Blind {
    /// Whether decisions have to be valid: some of what is taken away is seen in them at once, and the
    /// question is what becomes of it.
    pub fn is_checked(&self) -> bool {
        !matches!(
            self.mutation,
            Mutation::PlainTimelines | Mutation::StaleView | Mutation::DropInherited
        )
    }

    /// What it takes a report for.
    pub fn hear(&mut self, record: &Record, id: NodeId, report: &mut Report) {
        match self.mutation {
            Mutation::OldSeals => {
                let sealed = report.sealed.filter(|sealed| sealed.position.is_some());
                self.seals.extend(sealed.map(|sealed| (id, sealed)));
            }
            Mutation::NoGenerations => {
                self.specs.extend(record.specs.iter().map(|spec| (spec.generation, spec.clone())));
                if let (Some(in_force), Some(newest)) = (&mut report.in_force, record.newest_spec())
                {
                    let said = self.specs.get(&in_force.generation);
                    if said.is_some_and(|said| said.same_terms(newest)) {
                        in_force.generation = newest.generation;
                    }
                }
            }
            Mutation::OldRecord => {
                if let Some(accepted) = report.accepted.as_mut() {
                    let newest = record.newest_spec().map_or(Gen(0), |spec| spec.generation);
                    accepted.order.ticket = accepted.order.ticket.min(record.ticket);
                    accepted.order.generation = accepted.order.generation.min(newest);
                    accepted.epoch = accepted.epoch.min(record.epoch);
                }
            }
            // Alive is alive, with data or without.
            Mutation::EmptyIsAlive if record.primary == Some(id) => {
                if matches!(report.data, Data::Empty | Data::Rebuilding) {
                    report.data = crate::world::present();
                    report.postgres.running = true;
                }
            }
            _ => {}
        }
    }

    /// What it decides.
    pub fn step(
        &mut self,
        record: &Record,
        view: &View,
        now: u64,
        tie_break: u64,
    ) -> Option<Decision> {
        if self.mutation == Mutation::StaleView {
            return self.step_as_of_before(record, view, now, tie_break);
        }
        let seen = self.see(record, view);
        if let Some(believed) = self.believe(record) {
            let decision = rules::step(&believed, &seen, at(now), tie_break);
            let elects = |decision: &Decision| decision.record.phase != record.phase;
            if let Some(mut decision) = decision.filter(elects) {
                restore(record, &mut decision.record);
                return Some(decision);
            }
        }
        let mut decision = rules::step(record, &seen, at(now), tie_break)?;
        if !self.allows(record, &seen, &decision.record) {
            return None;
        }
        if decision.record.epoch > record.epoch {
            self.elect(&mut decision.record, &seen);
        }
        if self.mutation == Mutation::CountsCascaded {
            count_cascaded(record, &mut decision.record);
        }
        Some(decision)
    }

    /// What was to be decided some time ago, to be stored over whatever has been decided since.
    fn step_as_of_before(
        &mut self,
        record: &Record,
        view: &View,
        now: u64,
        tie_break: u64,
    ) -> Option<Decision> {
        let fresh = self.read.take_if(|(since, ..)| now.saturating_sub(*since) < STALE_MS);
        let (since, old, seen) = fresh.unwrap_or_else(|| (now, record.clone(), view.clone()));
        let decision = rules::step(&old, &seen, at(now), tie_break);
        self.read = decision.is_none().then_some((since, old, seen));
        let mut decision = decision?;
        decision.record.revision = record.revision.next();
        Some(decision)
    }

    /// The record that elections are decided on, where it is not the real one.
    fn believe(&self, record: &Record) -> Option<Record> {
        let electing =
            matches!(record.phase, Phase::Serving | Phase::Electing(_) | Phase::Forwarding { .. });
        let mut believed = Some(record.clone()).filter(|_| electing)?;
        match self.mutation {
            Mutation::IgnoreCovers => believed.specs.clear(),
            Mutation::IgnorePending => {
                let confirmed = |spec: &Spec| Some(spec.generation) <= record.confirmed;
                let last = record.specs.iter().rposition(confirmed);
                believed.specs.truncate(last.unwrap_or(0) + 1);
            }
            Mutation::ZeroPriority if record.nodes.len() == 2 => {
                for node in believed.nodes.values_mut() {
                    node.candidate_priority = node.candidate_priority.max(1);
                }
            }
            Mutation::NoPause => believed.paused = None,
            Mutation::Unfenced => match &mut believed.phase {
                Phase::Electing(election) | Phase::Forwarding { election, .. } => {
                    election.loss.as_mut()?.fenced = true;
                }
                _ => return None,
            },
            _ => return None,
        }
        Some(believed)
    }

    /// What it believes to see.
    fn see(&self, record: &Record, view: &View) -> View {
        let mut view = view.clone();
        if self.mutation == Mutation::NoLeaseWait {
            view.leases_end = Millis(0);
        }
        let ticket = record.ticket;
        let nodes = record.nodes.keys();
        let furthest = nodes.filter_map(|id| view.sealed_position(*id, ticket)).max();
        for (id, evidence) in &mut view.nodes {
            let Some(report) = evidence.report.as_mut() else { continue };
            let present = report.sealed.filter(|sealed| sealed.ticket == ticket);
            match (self.mutation, present) {
                (Mutation::NoPositions, Some(sealed)) => {
                    let position = sealed.position.and(furthest);
                    report.sealed = Some(Sealed { position, ..sealed });
                }
                (Mutation::OnPathOnly, Some(sealed)) => {
                    let position = sealed.position.filter(|position| !self.left(*position));
                    report.sealed = Some(Sealed { position, ..sealed });
                }
                (Mutation::OldSeals, None) => {
                    let old = self.seals.get(id).and_then(|sealed| sealed.position);
                    let sealed = old.map(|old| Sealed { ticket, position: Some(old) });
                    report.sealed = sealed.or(report.sealed);
                }
                (Mutation::Unsealed, None) => {
                    let position = position_of(record, report);
                    let sealed = position.map(|_| Sealed { ticket, position });
                    report.sealed = sealed.or(report.sealed);
                }
                _ => {}
            }
        }
        view
    }

    /// Whether a log goes on past where the newest epoch was decided to begin.
    fn left(&self, position: Position) -> bool {
        self.elected
            .is_some_and(|(epoch, start)| position.epoch < epoch && position.lsn > start.lsn)
    }

    /// Whether it would come to this decision.
    fn allows(&self, record: &Record, view: &View, decided: &Record) -> bool {
        match self.mutation {
            Mutation::OwnWitnesses if decided.epoch > record.epoch => {
                let sealed = fsm::group::election::witnesses(record, view);
                let sealed: BTreeSet<_> = sealed.keys().copied().collect();
                let lossy = record.phase.election().is_some_and(|e| e.loss.is_some());
                lossy || record.specs.iter().all(|spec| spec.is_covered_by(&sealed))
            }
            Mutation::OnePending => {
                let pending = |spec: &&Spec| {
                    spec.epoch == record.epoch && Some(spec.generation) > record.confirmed
                };
                let more =
                    decided.epoch == record.epoch && decided.specs.len() > record.specs.len();
                !more || record.specs.iter().find(pending).is_none()
            }
            _ => true,
        }
    }

    /// What becomes of a decision that begins an epoch.
    fn elect(&mut self, decided: &mut Record, view: &View) {
        let primary = decided.primary;
        match self.mutation {
            Mutation::PlainTimelines => {
                let own = primary.and_then(|id| view.report(id)?.postgres.timeline);
                if let (Some(own), Some(entry)) = (own, decided.lineage.0.last_mut()) {
                    // What PostgreSQL would take by itself.
                    entry.timeline = TimelineId(own.0 + 1);
                }
            }
            Mutation::DropInherited => {
                let older = decided.specs.len().saturating_sub(1);
                decided.specs.drain(..older);
            }
            Mutation::OnPathOnly => {
                let sealed = primary.and_then(|id| view.report(id)?.sealed?.position);
                self.elected = sealed.map(|position| (decided.epoch, position));
            }
            _ => {}
        }
    }
}

/// Whoever may be in the sync set is in each new one.
fn count_cascaded(before: &Record, decided: &mut Record) {
    let cascaded = |(id, node): (&NodeId, &fsm::group::record::Node)| {
        (node.replication_quorum && node.cascade.upstream.is_some()).then_some(*id)
    };
    let more: Vec<_> = decided.nodes.iter().filter_map(cascaded).collect();
    let new = decided.specs.iter_mut().filter(|spec| spec.generation >= before.next_generation);
    for spec in new.filter(|spec| !spec.is_asynchronous()) {
        spec.standbys.extend(more.iter().copied());
    }
}

/// What was only believed is not stored.
fn restore(record: &Record, decided: &mut Record) {
    let new = std::mem::take(&mut decided.specs).into_iter();
    let new = new.filter(|spec| spec.generation >= record.next_generation);
    decided.paused.clone_from(&record.paused);
    decided.specs = record.specs.iter().cloned().chain(new).collect();
    for (id, node) in &mut decided.nodes {
        if let Some(before) = record.nodes.get(id) {
            node.candidate_priority = before.candidate_priority;
        }
    }
}

/// Where a node's log ended by its newest report, sealed or not.
fn position_of(record: &Record, report: &Report) -> Option<Position> {
    let epoch = record.lineage.epoch_of(report.postgres.timeline?)?;
    Some(Position { epoch, lsn: report.postgres.lsn? })
}
