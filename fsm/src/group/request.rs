//! What an operator asks for: validated against the record, then a decision or a refusal.

use super::detector::{Verdict, verdict};
use super::election::{could_replace_primary, missing};
use super::ranking::{has_data, lacks_room};
use super::record::{Decision, LossAccepted, Node, Note, Operation, OperationKind, Phase, Record};
use super::rules::election::begin;
use super::sync::replica;
use super::view::View;
use crate::Now;
use configure::Wish;
use shared::api::{Action, ApiError, OperationResult, Outcome};
use shared::ids::{NodeId, NodeName};
use shared::lsn::Lsn;
use shared::report::Replica;
use std::collections::BTreeMap;

mod acceptance;
mod cascade;
pub(super) mod configure;
mod drops;
mod orders;
mod quarantine;
mod values;

pub use values::parse_duration;

/// What became of a request that was not refused.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It was so already, nothing is to be stored.
    Already(OperationResult),
    /// To be stored; the result says whether it is done or only accepted.
    Decided(Box<Decision>, OperationResult),
}

/// A switchover to a node that is further behind than this would stop writes for long: one WAL
/// segment of the default size.
const MAX_LAG: u64 = 16 * 1024 * 1024;

/// A request in front of the record.
struct Request<'a> {
    record: &'a Record,
    view: &'a View,
    now: Now,
}

/// Applies a request.
pub fn apply(record: &Record, view: &View, action: &Action, now: Now) -> Result<Reply, ApiError> {
    let request = Request { record, view, now };
    if let Some(why) = record.quarantine() {
        return request.in_quarantine(action, why);
    }
    match action {
        Action::Switchover { to: None } => request.change_primary(OperationKind::Switchover, None),
        Action::Switchover { to: Some(name) } => {
            request.change_primary(OperationKind::Switchover, Some(name))
        }
        Action::Promote { node } => request.change_primary(OperationKind::Promote, Some(node)),
        Action::Failover { allow_data_loss, fenced } => request.failover(*allow_data_loss, *fenced),
        Action::Maintenance { node, on: true, allow_failover } => {
            request.maintenance_on(node, *allow_failover)
        }
        Action::Maintenance { node, on: false, .. } => request.maintenance_off(node),
        Action::SetNode { node, key, value } => request.set_node(node, key, value),
        Action::SetFormation { key, value } => request.set_formation(key, value),
        Action::Configure { node, changes, if_revision, by } => request.configure(&Wish {
            node: node.as_ref(),
            changes,
            if_revision: *if_revision,
            by: by.as_deref(),
        }),
        Action::Drop { node, force: true, destroy: false } => request.drop_by_force(node),
        Action::Drop { node, force: false, destroy } => request.drop_node(node, *destroy),
        Action::Drop { node, force: true, destroy: true } => Err(refused(
            "by_force",
            format!(
                "whoever is dropped by force is not asked to destroy anything; run `pgtandem-keeper drop --destroy` where {node} is"
            ),
            &[node],
        )),
        Action::AcceptTimeline { timeline, reason, fenced } => {
            request.accept_timeline(*timeline, reason.trim(), LossAccepted { fenced: *fenced })
        }
        Action::Restart { node } => request.restart(node),
        Action::Reinit { node } => request.reinit(node),
        Action::Pause => Ok(request.pause()),
        Action::Resume => Ok(request.resume()),
    }
}

fn refused(reason: &str, message: impl Into<String>, nodes: &[&NodeName]) -> ApiError {
    let nodes = nodes.iter().copied().cloned().collect();
    ApiError { code: 3, reason: reason.to_owned(), message: message.into(), nodes }
}

fn bad_value(reason: &str, message: impl Into<String>) -> ApiError {
    ApiError { code: 1, reason: reason.to_owned(), message: message.into(), nodes: Vec::new() }
}

/// There is no node of this name.
pub fn unknown_node(record: &Record, name: &NodeName) -> ApiError {
    let known: Vec<_> = record.nodes.values().map(|node| node.name.to_string()).collect();
    let formation = &record.formation;
    let known = known.join(", ");
    bad_value(
        "unknown_node",
        format!("there is no node {name} in formation {formation}; it has {known}"),
    )
}

impl Request<'_> {
    fn named(&self, name: &NodeName) -> Result<(NodeId, &Node), ApiError> {
        self.record.node_named(name).ok_or_else(|| unknown_node(self.record, name))
    }

    /// One operation at a time, and none on top of an election.
    fn free(&self) -> Result<(), ApiError> {
        let busy = |message: String| ApiError {
            code: 6,
            reason: "busy".to_owned(),
            message,
            nodes: Vec::new(),
        };
        if let Some(operation) = &self.record.operation {
            return Err(busy(format!(
                "operation {} ({}) is under way; wait until it ends",
                operation.id,
                operation.kind.name()
            )));
        }
        match self.record.phase {
            Phase::Serving => Ok(()),
            Phase::Forming => Err(refused("no_primary", "the group has no primary yet", &[])),
            Phase::Electing(_) | Phase::Forwarding { .. } | Phase::Promoting => Err(busy(format!(
                "the group is {}; wait until it serves",
                self.record.phase.name()
            ))),
        }
    }

    fn is_dead(&self, id: NodeId) -> bool {
        verdict(self.view, id, &self.record.settings.timers(), self.now.mono).is_dead()
    }

    fn already(&self, reason: impl Into<String>) -> Reply {
        Reply::Already(self.result(0, Outcome::Done, reason.into()))
    }

    fn result(&self, id: u64, outcome: Outcome, reason: String) -> OperationResult {
        OperationResult {
            id,
            outcome,
            reason,
            old_primary: self.record.primary_name(),
            new_primary: self.record.primary_name(),
            timeline: self.record.present_timeline().map(|entry| entry.timeline),
            started_at: self.now.wall,
            finished_at: (outcome == Outcome::Done).then_some(self.now.wall),
        }
    }

    /// A change that holds at once.
    fn done(&self, next: Record, note: Note) -> Reply {
        let reason = note.reason.clone();
        let decision = self.record.decide(next, vec![note], self.now);
        Reply::Decided(Box::new(decision), self.result(0, Outcome::Done, reason))
    }

    /// A change that takes time: recorded as the operation under way.
    fn accepted(
        &self,
        mut next: Record,
        kind: OperationKind,
        target: Option<NodeId>,
        note: Note,
    ) -> Reply {
        let operation = Operation {
            id: next.next_operation,
            kind,
            target,
            requested_at: self.now.wall,
            old_primary: self.record.primary_name(),
            old_epoch: self.record.epoch,
            refused: None,
        };
        next.next_operation += 1;
        let id = operation.id;
        next.operation = Some(operation);
        let reason = note.reason.clone();
        let decision = self.record.decide(next, vec![note], self.now);
        Reply::Decided(Box::new(decision), self.result(id, Outcome::Accepted, reason))
    }

    fn change_primary(
        &self,
        kind: OperationKind,
        to: Option<&NodeName>,
    ) -> Result<Reply, ApiError> {
        let target = to.map(|name| self.named(name)).transpose()?;
        if let Some((id, node)) = target
            && Some(id) == self.record.primary
            && self.record.phase == Phase::Serving
        {
            return Ok(self.already(format!("{} is the primary already", node.name)));
        }
        self.free()?;
        let drain = self
            .record
            .primary
            .is_some_and(|id| !self.is_dead(id) && self.view.report(id).is_some_and(has_data));
        if !drain {
            self.could_elect()?;
        } else if let Some((id, node)) = target {
            self.can_take_over(id, node)?;
        } else {
            self.somebody_can_take_over()?;
        }
        let target = target.map(|(id, _)| id);
        let next = begin(self.record, kind.name(), target, drain, None);
        let reason = match target {
            Some(id) => format!("the operator asked for a {} to {}", kind.name(), next.name_of(id)),
            None => format!("the operator asked for a {}", kind.name()),
        };
        let note = Note::new("phase", "operator", reason)
            .change(self.record.phase.name(), next.phase.name());
        Ok(self.accepted(next, kind, target, note))
    }

    fn could_elect(&self) -> Result<(), ApiError> {
        if could_replace_primary(self.record, self.view, self.now) {
            return Ok(());
        }
        let missing = missing(self.record, &BTreeMap::new());
        Err(refused(
            "not_enough_witnesses",
            format!(
                "the nodes that report cannot prove that they have every acknowledged commit; any of {} may be needed. `pgtandem failover --allow-data-loss` promotes without proof",
                self.record.names_of(&missing)
            ),
            &[],
        ))
    }

    /// The primary's row of a standby that streams: by both their words, since a row outlives its peer.
    fn live_replica(&self, id: NodeId) -> Option<&Replica> {
        let budget = self.record.settings.timers().stall_timeout_ms;
        let streams = self.view.report(id).is_some_and(|report| report.streaming);
        replica(self.record, self.view, id).filter(|row| streams && row.stalled_ms < budget)
    }

    /// The primary's row of a standby that streams and is close enough.
    fn close_replica(&self, id: NodeId) -> Option<&Replica> {
        let replica = self.live_replica(id)?;
        let end = self.view.report(self.record.primary?)?.postgres.lsn?;
        // One that has just connected has not answered yet: the old primary waits for it anyway.
        let near = |flushed: Lsn| end.bytes_since(flushed) <= MAX_LAG;
        replica.flushed.is_none_or(near).then_some(replica)
    }

    fn can_take_over(&self, id: NodeId, node: &Node) -> Result<(), ApiError> {
        let why = if node.maintenance {
            "is in maintenance"
        } else if node.dropping {
            "is being dropped"
        } else if self.is_dead(id) {
            "is dead"
        } else if lacks_room(self.view, id) {
            "has too little room on its disk"
        } else if node.cascade.upstream.is_some() {
            "replicates from another standby (`pgtandem set node` sets replicate-from to none)"
        } else if self.live_replica(id).is_none() {
            "is not streaming from the primary"
        } else if self.close_replica(id).is_none() {
            "is more than 16 MB behind the primary"
        } else {
            return Ok(());
        };
        let message = format!("{} {why}, so it cannot take over now", node.name);
        Err(refused("not_a_candidate", message, &[&node.name]))
    }

    fn somebody_can_take_over(&self) -> Result<(), ApiError> {
        let found = self.record.nodes.iter().any(|(id, node)| {
            Some(*id) != self.record.primary
                && node.candidate_priority > 0
                && self.can_take_over(*id, node).is_ok()
        });
        if found {
            return Ok(());
        }
        let message = "no standby with a candidate priority above 0 is alive, streaming and close behind the primary";
        Err(refused("no_candidate", message, &[]))
    }

    fn failover(&self, allow_data_loss: bool, fenced: bool) -> Result<Reply, ApiError> {
        let loss = allow_data_loss.then_some(LossAccepted { fenced });
        if !allow_data_loss {
            return self.change_primary(OperationKind::Failover, None);
        }
        if let Phase::Electing(election) | Phase::Forwarding { election, .. } = &self.record.phase {
            // The election under way goes on with what the operator accepts.
            let mut election = election.clone();
            (election.loss, election.timeline) = (loss, None);
            let next = Record { phase: Phase::Electing(election), ..self.record.clone() };
            let note = Note::new(
                "operation",
                "operator",
                "the operator accepts data loss in this election",
            );
            if let Some(operation) = &self.record.operation {
                let id = operation.id;
                let decision = self.record.decide(next, vec![note.clone()], self.now);
                let result = self.result(id, Outcome::Accepted, note.reason);
                return Ok(Reply::Decided(Box::new(decision), result));
            }
            return Ok(self.accepted(next, OperationKind::Failover, None, note));
        }
        let primary = self.record.primary;
        let healthy = primary.is_some_and(|id| {
            let verdict = verdict(self.view, id, &self.record.settings.timers(), self.now.mono);
            verdict == Verdict::Good && self.view.report(id).is_some_and(has_data)
        });
        if healthy {
            return self.change_primary(OperationKind::Failover, None);
        }
        if self.record.phase != Phase::Serving {
            self.free()?;
        }
        let mut next = begin(self.record, OperationKind::Failover.name(), None, false, loss);
        // It may be waiting for the very primary that is gone.
        next.finish(Outcome::Failed, "given up for a failover with accepted loss", self.now);
        let note = Note::new(
            "phase",
            "operator",
            "the operator asked for a failover and accepts data loss",
        )
        .change(self.record.phase.name(), next.phase.name());
        Ok(self.accepted(next, OperationKind::Failover, None, note))
    }

    fn maintenance_on(&self, name: &NodeName, allow_failover: bool) -> Result<Reply, ApiError> {
        let (id, node) = self.named(name)?;
        if node.maintenance {
            return Ok(self.already(format!("{name} is in maintenance already")));
        }
        self.free()?;
        if self.record.primary == Some(id) {
            if !allow_failover {
                let message = format!("{name} is the primary; --allow-failover hands over first");
                return Err(refused("is_primary", message, &[name]));
            }
            self.somebody_can_take_over()?;
            let next = begin(self.record, OperationKind::MaintenanceOn.name(), None, true, None);
            let note =
                Note::new("phase", "operator", format!("{name} hands over before its maintenance"))
                    .about(id)
                    .change(self.record.phase.name(), next.phase.name());
            return Ok(self.accepted(next, OperationKind::MaintenanceOn, Some(id), note));
        }
        self.keeps_enough(id, name)?;
        let mut next = self.record.clone();
        if let Some(node) = next.nodes.get_mut(&id) {
            node.maintenance = true;
        }
        let note = Note::new("operation", "operator", format!("{name} is to go into maintenance"))
            .about(id);
        Ok(self.accepted(next, OperationKind::MaintenanceOn, Some(id), note))
    }

    /// Refuses to take away a standby that `number_sync_standbys` needs.
    fn keeps_enough(&self, id: NodeId, name: &NodeName) -> Result<(), ApiError> {
        let demanded = self.record.number_sync_standbys();
        let eligible = self.record.eligible_standbys_below(self.record.primary);
        let left = eligible.filter(|standby| *standby != id).count();
        if demanded > 0 && left < demanded {
            let message = format!(
                "without {name}, {left} standbys would be left for number-sync-standbys {demanded}, and all writes would wait; set number-sync-standbys lower first"
            );
            return Err(refused("too_few_standbys", message, &[name]));
        }
        Ok(())
    }

    fn maintenance_off(&self, name: &NodeName) -> Result<Reply, ApiError> {
        let (id, node) = self.named(name)?;
        if !node.maintenance {
            return Ok(self.already(format!("{name} is not in maintenance")));
        }
        let mut next = self.record.clone();
        if let Some(node) = next.nodes.get_mut(&id) {
            node.maintenance = false;
        }
        let note =
            Note::new("operation", "operator", format!("{name} is to leave maintenance")).about(id);
        let replaces = self
            .record
            .operation
            .as_ref()
            .is_some_and(|o| o.kind == OperationKind::MaintenanceOn && o.target == Some(id));
        if replaces {
            next.finish(Outcome::Failed, "maintenance was switched off again", self.now);
        }
        if next.operation.is_some() {
            // Nothing that is under way is hindered by one node more, and it may be waiting for this one.
            return Ok(self.done(next, note));
        }
        Ok(self.accepted(next, OperationKind::MaintenanceOff, Some(id), note))
    }
}
