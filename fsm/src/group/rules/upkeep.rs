//! What happens beside the primary: readmissions, operations and reported states.

use super::{Change, Context, in_phase_for};
use crate::group::detector::{Verdict, verdict};
use crate::group::ranking::has_data;
use crate::group::record::{Node, Operation, OperationKind, Phase, Record};
use crate::group::request::configure::forget;
use crate::group::rules::election::begin;
use crate::group::sync::{desired, replica, streams};
use serde_json::json;
use shared::api::Outcome;
use shared::ids::NodeId;
use shared::report::Data;
use shared::state::NodeState;

/// Rules 2 and 11: a keeper without state, or a node whose data is being made anew, needs a fresh
/// ticket and an admission of its own.
pub(super) fn readmission(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let (id, keeper) = record.nodes.keys().find_map(|id| {
        let report = context.view.report(*id)?;
        let rebuilt = match report.data {
            Data::Empty | Data::Rebuilding => true,
            Data::Present { .. } | Data::Unusable => false,
        };
        let node = record.nodes.get(id)?;
        let known = node.stateless_keeper.as_deref() == Some(report.keeper.as_str());
        let stateless = report.accepted.is_none() || rebuilt;
        (stateless && !known && record.phase != Phase::Forming)
            .then(|| (*id, report.keeper.clone()))
    })?;
    let mut next = record.clone();
    // An election's seals carry its ticket: it starts afresh under the new one.
    next.ticket = next.ticket.next();
    if let Phase::Forwarding { election, .. } = &record.phase {
        next.phase = Phase::Electing(election.clone());
    }
    let ticket = next.ticket;
    let node = next.nodes.get_mut(&id)?;
    node.stateless_keeper = Some(keeper);
    node.admission = ticket;
    // Data comes from the primary only (rule 10).
    node.cascade.upstream = None;
    let reason = format!(
        "{} is admitted afresh: its keeper has no assignment yet, or it has no complete copy of the data",
        record.name_of(id)
    );
    Some(Change { next, notes: vec![context.note("node", reason).about(id)] })
}

/// A node that has joined may follow once the primary has heard of it.
pub(super) fn announced(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let (primary, report) = context.fresh_primary()?;
    if record.phase != Phase::Serving {
        return None;
    }
    let heard = |node: &Node| node.joined.is_some_and(|joined| report.revision >= joined);
    if !record.nodes.values().any(heard) {
        return None;
    }
    let mut next = record.clone();
    let mut notes = Vec::new();
    for (id, node) in next.nodes.iter_mut().filter(|(_, node)| heard(node)) {
        node.joined = None;
        let reason = if *id == primary {
            format!("{} has heard that it is part of the group", node.name)
        } else {
            format!("{} may follow: the primary has heard of it", node.name)
        };
        notes.push(context.note("node", reason).about(*id));
    }
    Some(Change { next, notes })
}

/// Maintenance or drop of a former primary, once another node serves; a restart or a new copy, once the
/// node may be away.
pub(super) fn operation_goes_on(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let operation = record.operation.as_ref()?;
    let id = operation.target?;
    let node = record.nodes.get(&id)?;
    if record.phase != Phase::Serving {
        return None;
    }
    let is_primary = record.primary == Some(id);
    let mut next = record.clone();
    let changed = next.nodes.get_mut(&id)?;
    let reason = match operation.kind {
        OperationKind::MaintenanceOn if !is_primary && !node.maintenance => {
            changed.maintenance = true;
            format!("{} goes into maintenance", node.name)
        }
        OperationKind::Drop if !is_primary && !node.dropping => {
            changed.dropping = true;
            format!("{} is being dropped", node.name)
        }
        OperationKind::Restart
            if node.orders.restart != operation.id && may_be_away(context, id) =>
        {
            changed.orders.restart = operation.id;
            format!("{} restarts postgres", node.name)
        }
        OperationKind::Reinit
            if !is_primary && node.orders.copy != operation.id && may_be_away(context, id) =>
        {
            changed.orders.copy = operation.id;
            format!("{} makes a new copy of the data", node.name)
        }
        OperationKind::MaintenanceOn
        | OperationKind::Drop
        | OperationKind::MaintenanceOff
        | OperationKind::Restart
        | OperationKind::Reinit
        | OperationKind::Switchover
        | OperationKind::Failover
        | OperationKind::AcceptTimeline
        | OperationKind::Promote => return None,
    };
    Some(Change { next, notes: vec![context.note("operation", reason).about(id)] })
}

/// Whether a node may be away without holding up commits: none wait for it, or there are too few others
/// that could be waited for.
fn may_be_away(context: &Context<'_>, id: NodeId) -> bool {
    let record = context.record;
    let needed = || {
        let wanted = desired(record, context.view, context.now.mono);
        wanted.is_some_and(|spec| spec.standbys.contains(&id))
    };
    record.primary == Some(id) || !record.is_sync_member(id) || needed()
}

/// So that the next failure during a pause is told, too.
pub(super) fn withheld_is_over(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    record.paused.as_ref()?.withheld.as_ref()?;
    let (id, report) = context.fresh_primary()?;
    // Its last report may be fresh and its host gone.
    let good = verdict(context.view, id, &context.timers, context.now.mono) == Verdict::Good;
    if !good || !report.postgres.running || report.failed.is_some() || report.leaving {
        return None;
    }
    let mut next = record.clone();
    next.paused.as_mut()?.withheld = None;
    let reason = format!("{} is well again: nothing would be done any more", record.name_of(id));
    Some(Change { next, notes: vec![context.note("paused", reason).about(id)] })
}

pub(super) fn dropped(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let id = record.nodes.iter().find_map(|(id, node)| {
        let said = context.view.report(*id)?.state == NodeState::Dropped;
        (said && node.dropping && record.primary != Some(*id)).then_some(*id)
    })?;
    let next = without(record, id);
    let reason = format!("{} has left the formation", record.name_of(id));
    Some(Change { next, notes: vec![context.note("node", reason).about(id)] })
}

/// The record without a node. A primary's place must be filled by an election; the specs still name
/// the node, since it may have acknowledged under them.
pub(crate) fn without(record: &Record, id: NodeId) -> Record {
    let mut next = record.clone();
    if let Some(node) = next.nodes.remove(&id) {
        next.dropped.insert(id, node.secret);
    }
    forget(&mut next, id);
    if next.nodes.is_empty() {
        // Nothing is left to protect; the next node begins a new cluster in a later epoch.
        next.primary = None;
        next.specs.clear();
        next.confirmed = None;
        next.system_identifier = None;
        next.phase = Phase::Forming;
        return next;
    }
    match record.phase {
        Phase::Serving | Phase::Promoting if record.primary == Some(id) => {
            begin(&next, "primary-dropped", None, false, None)
        }
        Phase::Forming
        | Phase::Serving
        | Phase::Promoting
        | Phase::Electing(_)
        | Phase::Forwarding { .. } => next,
    }
}

pub(super) fn operation_done(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let operation = record.operation.as_ref()?;
    let (outcome, reason) = outcome(context, operation)?;
    let mut next = record.clone();
    next.finish(outcome, &reason, context.now);
    let mut note = context.note("operation", format!("{}: {reason}", operation.kind.name()));
    note.node = operation.target;
    let note = note.evidence(json!({ "id": operation.id, "outcome": outcome }));
    Some(Change { next, notes: vec![note] })
}

/// Whether the operation has ended, and how.
fn outcome(context: &Context<'_>, operation: &Operation) -> Option<(Outcome, String)> {
    let record = context.record;
    let settled = record.phase == Phase::Serving
        && record.is_sync_settled()
        && context.fresh_primary().is_some_and(|(_, report)| report.postgres.running);
    let target = operation.target.and_then(|id| Some((id, record.nodes.get(&id)?)));
    // It was to hand over first, and is the primary of the next epoch all the same.
    let kept = record.phase == Phase::Serving
        && record.epoch > operation.old_epoch
        && operation.target.is_some()
        && operation.target == record.primary;
    match operation.kind {
        OperationKind::Switchover
        | OperationKind::Failover
        | OperationKind::AcceptTimeline
        | OperationKind::Promote => {
            // Done is when the next one could follow: all that live stream from the new primary.
            let settled = settled && followers_stream(context);
            // Writes that wait for a standby that is gone are another matter: the primary is there.
            let late = record.phase == Phase::Serving
                && in_phase_for(context) >= context.timers.stall_timeout_ms;
            if !(settled || late) || record.epoch == operation.old_epoch {
                return None;
            }
            let primary = record.primary?;
            let as_asked = match operation.target {
                Some(wanted) => wanted == primary,
                None => record.primary_name() != operation.old_primary,
            };
            let name = record.name_of(primary);
            Some(if as_asked && settled {
                (Outcome::Done, format!("{name} is the primary"))
            } else if as_asked {
                (Outcome::Done, format!("{name} is the primary; writes wait for its standbys"))
            } else {
                let why = operation.refused.as_deref();
                let why = why.unwrap_or("it was the best that could be had");
                (Outcome::Failed, format!("{name} was elected: {why}"))
            })
        }
        OperationKind::MaintenanceOn
        | OperationKind::MaintenanceOff
        | OperationKind::Restart
        | OperationKind::Reinit
            if target.is_none() =>
        {
            Some((Outcome::Failed, "the node has been dropped".to_owned()))
        }
        OperationKind::Restart | OperationKind::Reinit => ordered(context, operation, target?),
        OperationKind::MaintenanceOn | OperationKind::Drop if kept => {
            let (_, node) = target?;
            let reason = format!("{} was elected again: nobody else could take over", node.name);
            Some((Outcome::Failed, reason))
        }
        OperationKind::MaintenanceOn => {
            let (_, node) = target?;
            (node.reported_state == NodeState::Maintenance)
                .then(|| (Outcome::Done, format!("{} is in maintenance", node.name)))
        }
        OperationKind::MaintenanceOff => {
            let (id, node) = target?;
            if record.phase == Phase::Serving && record.primary == Some(id) {
                return Some((Outcome::Done, format!("{} is the primary", node.name)));
            }
            (node.reported_state == NodeState::Secondary)
                .then(|| (Outcome::Done, format!("{} follows the primary again", node.name)))
        }
        OperationKind::Drop => {
            if target.is_some() || !(settled || record.nodes.is_empty()) {
                return None;
            }
            Some((Outcome::Done, "the node has been dropped".to_owned()))
        }
    }
}

/// How a restart or a new copy goes: it is done when the node does again what it is there for.
fn ordered(
    context: &Context<'_>,
    operation: &Operation,
    (id, node): (NodeId, &Node),
) -> Option<(Outcome, String)> {
    let record = context.record;
    if verdict(context.view, id, &context.timers, context.now.mono).is_dead() {
        return Some((Outcome::Failed, format!("{} has died meanwhile", node.name)));
    }
    let report = context.view.report(id)?;
    let copies = operation.kind == OperationKind::Reinit;
    let (order, done) = if copies {
        (node.orders.copy, report.done.copy)
    } else {
        (node.orders.restart, report.done.restart)
    };
    let is_carried_out = order == operation.id && done >= order;
    // What keeps the old copy from running may be the reason for a new one.
    let is_old = copies && !is_carried_out;
    if let Some(failed) = report.failed.as_ref().filter(|_| !is_old) {
        return Some((Outcome::Failed, format!("{}: {failed}", node.name)));
    }
    if let Some(why) = no_source(context).filter(|_| copies) {
        return Some((Outcome::Failed, why));
    }
    let is_primary = record.phase == Phase::Serving && record.primary == Some(id);
    if is_primary && copies {
        let reason = format!("{} has become the primary, which is copied from nobody", node.name);
        return Some((Outcome::Failed, reason));
    }
    let serves = if is_primary {
        record.is_sync_settled() && report.in_force.is_some()
    } else {
        report.state == NodeState::Secondary && streams(record, context.view, id)
    };
    let reason = if copies {
        format!("{} follows with a new copy of the data", node.name)
    } else {
        format!("postgres of {} has been restarted", node.name)
    };
    (is_carried_out && serves).then_some((Outcome::Done, reason))
}

/// Why nothing can be copied from a primary that is not replaced either. A node that waited for it with its
/// Postgres down would be missing among the witnesses.
fn no_source(context: &Context<'_>) -> Option<String> {
    let record = context.record;
    let id = record.primary.filter(|_| record.phase == Phase::Serving)?;
    let gone = verdict(context.view, id, &context.timers, context.now.mono).is_dead();
    let lost = context.view.report(id).is_some_and(|report| !has_data(report));
    (gone || lost).then(|| format!("nothing can be copied from {}", record.name_of(id)))
}

/// Whether every living follower streams from whom it is told to, and has answered the primary where that is it.
fn followers_stream(context: &Context<'_>) -> bool {
    let record = context.record;
    record.nodes.iter().filter(|(id, _)| Some(**id) != record.primary).all(|(id, node)| {
        let gone = verdict(context.view, *id, &context.timers, context.now.mono).is_dead();
        let streams = match node.cascade.upstream {
            Some(_) => streams(record, context.view, *id),
            None => replica(record, context.view, *id).is_some_and(|row| row.flushed.is_some()),
        };
        gone || node.maintenance || node.dropping || streams
    })
}

/// All at once, so that many nodes that change together cost one transaction.
pub(super) fn node_state(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let mut changed = record.nodes.iter().filter_map(|(id, node)| {
        let report = context.view.report(*id)?;
        (report.state != node.reported_state).then_some((*id, node, report))
    });
    let first = changed.next()?;
    let mut next = record.clone();
    let mut notes = Vec::new();
    for (id, node, report) in std::iter::once(first).chain(changed) {
        let reason = format!("{} is now {}, was {}", node.name, report.state, node.reported_state);
        let mut note = context.note("node_state", reason).about(id);
        note = note.change(node.reported_state.as_str(), report.state.as_str());
        note.timeline = report.postgres.timeline;
        note.lsn = report.postgres.lsn;
        notes.push(note);
        let node = next.nodes.get_mut(&id)?;
        node.reported_state = report.state;
        node.state_changed_at = Some(context.now.wall);
    }
    Some(Change { next, notes })
}
