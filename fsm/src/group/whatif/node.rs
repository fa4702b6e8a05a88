//! A node that does at once what it is told: the report that follows from the last one and from the
//! assignment.
//!
//! What its keeper would do step by step (`fsm::node`) is not here, nor whether it would succeed: a copy
//! is complete as soon as there is a primary to copy. A node that cannot run Postgres goes on to say so.

use crate::group::election::last_position;
use crate::group::goals::{assignment, goal_of};
use crate::group::record::Record;
use crate::group::view::View;
use shared::goal::{Assignment, Goal, Upstream};
use shared::ids::{NodeId, SystemIdentifier, TimelineId};
use shared::lsn::{Lsn, Position};
use shared::report::{Accepted, Data, InForce, Promoted, Replica, Report, Sealed};
use shared::spec::Spec;
use shared::state::NodeState;
use std::collections::BTreeSet;

/// What a report is made from.
pub(super) struct Surroundings<'a> {
    pub(super) record: &'a Record,
    pub(super) view: &'a View,
    /// The nodes that do what they are told.
    pub(super) living: &'a BTreeSet<NodeId>,
    /// The nodes that have died.
    pub(super) gone: &'a BTreeSet<NodeId>,
}

impl Surroundings<'_> {
    /// The next report of a living node; `None` for one that is not told anything.
    pub(super) fn obeyed(&self, id: NodeId) -> Option<Report> {
        let assignment = assignment(self.record, self.view, id)?;
        let last = self.view.report(id)?;
        let mut report = Report {
            seq: last.seq.saturating_add(1),
            revision: self.record.revision,
            accepted: Some(Accepted { order: assignment.order, epoch: assignment.epoch }),
            step: None,
            ..last.clone()
        };
        if report.failed.is_some() {
            return Some(report);
        }
        match &assignment.goal {
            Goal::Wait => report.state = assignment.goal_state,
            Goal::Primary { timeline, spec } => {
                self.serve(id, &mut report, (&assignment, *timeline, spec));
            }
            Goal::Follow { upstream: Upstream::Primary { node } } => {
                self.follow(*node, &mut report, &assignment);
            }
            Goal::Follow { upstream: Upstream::Standby { node, .. } } => {
                self.cascade(*node, &mut report);
            }
            Goal::Seal { drain } => self.seal(id, &mut report, (&assignment, *drain)),
            Goal::FastForward { source, target } => {
                self.fetch(*source, &mut report, (&assignment, *target));
            }
            Goal::Maintenance => {
                become_standby(&mut report);
                report.state = NodeState::Maintenance;
            }
            Goal::Dropped => {
                become_standby(&mut report);
                report.postgres.running = false;
                report.state = NodeState::Dropped;
            }
        }
        Some(report)
    }

    fn serve(
        &self,
        id: NodeId,
        report: &mut Report,
        (assignment, reserved, spec): (&Assignment, Option<TimelineId>, &Spec),
    ) {
        let is_first = reserved.is_none() && assignment.system_identifier.is_none();
        match report.data {
            Data::Present { .. } => {}
            Data::Empty if is_first => {
                report.data = Data::Present { system_identifier: SystemIdentifier(0) };
                report.postgres.timeline = Some(TimelineId(1));
                report.postgres.lsn = Some(Lsn(1));
            }
            // Nothing is ever initialised empty under an existing identity (rule 11).
            Data::Empty | Data::Rebuilding | Data::Unusable => return,
        }
        let promoted = report.promoted.as_ref().is_some_and(|p| p.epoch == assignment.epoch);
        if !promoted {
            self.promote(id, report, (assignment, reserved));
        }
        report.sealed = None;
        report.streaming = false;
        report.postgres.running = true;
        report.postgres.in_recovery = Some(false);
        report.replicas = self.replicas(id, report, promoted);
        let streams = |standby: &&NodeId| {
            let shown = report.replicas.iter().any(|replica| replica.node == **standby);
            shown && self.living.contains(standby)
        };
        let wanted = InForce { epoch: spec.epoch, generation: spec.generation };
        // The barrier is passed once; what is in force stays so.
        let holds = report.in_force == Some(wanted)
            || spec.standbys.iter().filter(streams).count() >= spec.required;
        report.in_force = holds.then_some(wanted);
        report.state = assignment.goal_state;
    }

    fn promote(
        &self,
        id: NodeId,
        report: &mut Report,
        (assignment, reserved): (&Assignment, Option<TimelineId>),
    ) {
        let before = last_position(self.record, self.view, id);
        let timeline = reserved.or(report.postgres.timeline).unwrap_or(TimelineId(1));
        let start = report.postgres.lsn.unwrap_or_default();
        report.promoted = Some(Promoted {
            epoch: assignment.epoch,
            timeline,
            parent: before.filter(|_| reserved.is_some()).map(|position| position.epoch),
            start,
            ancestors: Vec::new(),
        });
        report.postgres.timeline = Some(timeline);
        // The first record of the new timeline.
        report.postgres.lsn = Some(Lsn(start.0.saturating_add(1)));
        report.in_force = None;
        report.stray = None;
    }

    /// A primary's rows: of those that stream from it, and of those that it showed before and that
    /// nothing is known of.
    fn replicas(&self, id: NodeId, report: &Report, went_on: bool) -> Vec<Replica> {
        let rest = report.replicas.iter().filter(|replica| {
            let known = self.living.contains(&replica.node) || self.gone.contains(&replica.node);
            went_on && !known
        });
        let follows = |other: &NodeId| {
            let node = self.record.nodes.get(other);
            let goal = node.map(|node| goal_of(self.record, *other, node).0);
            let streams = self.view.report(*other).is_some_and(|report| report.streaming);
            streams && goal.and_then(|goal| goal.upstream()) == Some(id)
        };
        let row = |other: NodeId| {
            let admission = self.record.nodes.get(&other)?.admission;
            Some(Replica {
                node: other,
                state: "streaming".to_owned(),
                slot: Some(other.admission_slot(admission)),
                flushed: report.postgres.lsn,
                replayed: report.postgres.lsn,
                sync_state: String::new(),
                stalled_ms: 0,
                replay_lag_ms: None,
            })
        };
        let living = self.living.iter().copied().filter(follows).filter_map(row);
        living.chain(rest.cloned()).collect()
    }

    /// Streams from the primary of the epoch, or has all that one had when it stopped as planned.
    fn follow(&self, upstream: NodeId, report: &mut Report, assignment: &Assignment) {
        become_standby(report);
        report.promoted = None;
        let source = self.view.report(upstream).filter(|source| {
            let promoted = source.promoted.as_ref().is_some_and(|p| p.epoch == assignment.epoch);
            promoted && self.living.contains(&upstream)
        });
        let Some(source) = source else {
            report.state = NodeState::Catchingup;
            return;
        };
        let serves = source.postgres.running && source.postgres.in_recovery == Some(false);
        if serves {
            report.data = source.data;
            report.stray = None;
        }
        if let Data::Present { .. } = report.data {
            report.postgres.timeline = source.postgres.timeline;
            report.postgres.lsn = source.postgres.lsn;
            report.postgres.running = true;
        }
        report.streaming = serves;
        report.state = if serves { NodeState::Secondary } else { NodeState::Catchingup };
    }

    /// Streams from a standby that streams, and has what that one has.
    fn cascade(&self, upstream: NodeId, report: &mut Report) {
        become_standby(report);
        report.promoted = None;
        let source = self.view.report(upstream);
        let source = source.filter(|source| source.streaming && self.living.contains(&upstream));
        let Some(source) = source else {
            report.state = NodeState::Catchingup;
            return;
        };
        report.postgres.timeline = source.postgres.timeline;
        report.postgres.lsn = source.postgres.lsn;
        report.streaming = true;
        report.state = NodeState::Secondary;
    }

    fn seal(&self, id: NodeId, report: &mut Report, (assignment, drain): (&Assignment, bool)) {
        let served = report.promoted.is_some();
        become_standby(report);
        report.state = if served { NodeState::Demoted } else { NodeState::ReportLsn };
        let Data::Present { .. } = report.data else {
            report.state = assignment.goal_state;
            return;
        };
        // A drained primary stays down (rule 3).
        report.postgres.running = !(drain && served);
        let position = last_position(self.record, self.view, id);
        report.sealed = Some(Sealed { ticket: assignment.order.ticket, position });
        if let Some(stray) = &mut report.stray {
            stray.end = report.postgres.lsn;
        }
    }

    fn fetch(
        &self,
        source: NodeId,
        report: &mut Report,
        (assignment, target): (&Assignment, Position),
    ) {
        become_standby(report);
        report.state = NodeState::FastForward;
        if self.living.contains(&source) {
            let timeline = self.record.lineage.entry(target.epoch).map(|entry| entry.timeline);
            report.postgres.timeline = timeline;
            report.postgres.lsn = Some(target.lsn);
            let ticket = assignment.order.ticket;
            report.sealed = Some(Sealed { ticket, position: Some(target) });
        }
    }
}

/// It writes to nothing and acknowledges nothing any more.
fn become_standby(report: &mut Report) {
    report.sealed = None;
    report.in_force = None;
    report.replicas.clear();
    report.streaming = false;
    report.needs_primary = false;
    report.postgres.in_recovery = Some(true);
}
