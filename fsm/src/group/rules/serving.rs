//! Birth, the reasons for an election, and the sync set of a serving primary.

use super::{Change, Context};
use crate::group::detector::{Verdict, verdict};
use crate::group::election::could_replace_primary;
use crate::group::goals::somebody_could_take_over;
use crate::group::record::{Note, Phase, Record};
use crate::group::rules::election::begin;
use crate::group::sync;
use serde_json::json;
use shared::history::LineageEntry;
use shared::ids::NodeId;
use shared::report::Data;
use shared::spec::Spec;
use std::collections::BTreeSet;

/// The first primary: the first node that can be one. It starts alone, hence asynchronous.
pub(super) fn birth(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    if record.phase != Phase::Forming {
        return None;
    }
    let (id, adopted) = founder(context)?;
    let mut next = record.clone();
    next.ticket = next.ticket.next();
    next.epoch = next.epoch.next();
    next.primary = Some(id);
    let timeline = shared::ids::TimelineId(next.highest_timeline.0.max(1));
    next.lineage = shared::history::Lineage(vec![LineageEntry::reserved(next.epoch, timeline)]);
    next.highest_timeline = timeline;
    for node in next.nodes.values_mut() {
        node.admission = next.ticket;
    }
    next.specs = vec![Spec {
        generation: next.next_generation,
        epoch: next.epoch,
        primary: id,
        required: 0,
        standbys: BTreeSet::new(),
    }];
    next.next_generation = next.next_generation.next();
    next.confirmed = None;
    next.phase = Phase::Promoting;
    let reason = if adopted {
        format!("{} brings its cluster and becomes the first primary", record.name_of(id))
    } else {
        format!("{} creates a new cluster and becomes the first primary", record.name_of(id))
    };
    let note = context.phase_note(&next, reason).about(id);
    Some(Change { next, notes: vec![note] })
}

/// Who begins the group, and whether with a cluster of its own: one that brings data before one that
/// does not, one that may be a primary before one that is not to be, then the first to join.
fn founder(context: &Context<'_>) -> Option<(NodeId, bool)> {
    let candidates = context.record.nodes.iter().filter_map(|(id, node)| {
        let report = context.view.report(*id)?;
        let adopted = match report.data {
            Data::Empty => false,
            Data::Present { .. } if report.postgres.in_recovery != Some(true) => true,
            Data::Present { .. } | Data::Rebuilding | Data::Unusable => return None,
        };
        let fit = !node.dropping && !node.maintenance;
        fit.then_some((!adopted, node.candidate_priority == 0, *id))
    });
    candidates.min().map(|(empty, _, id)| (id, !empty))
}

pub(super) fn primary_lost_its_data(context: &Context<'_>) -> Option<Change> {
    let (primary, report) = serving_primary(context)?;
    match report?.data {
        Data::Empty | Data::Rebuilding => {}
        Data::Present { .. } | Data::Unusable => return None,
    }
    elect(context, primary, "its data directory is empty")
}

pub(super) fn primary_dead(context: &Context<'_>) -> Option<Change> {
    let (primary, _) = serving_primary(context)?;
    match verdict(context.view, primary, &context.timers, context.now.mono) {
        Verdict::Dead(why) => elect(context, primary, &format!("it is dead: {why}")),
        Verdict::Good | Verdict::Unknown | Verdict::Suspect => None,
    }
}

pub(super) fn primary_cannot_run(context: &Context<'_>) -> Option<Change> {
    let (primary, report) = serving_primary(context)?;
    let failed = report?.failed.clone()?;
    elect(context, primary, &failed)
}

pub(super) fn primary_hands_over(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let (primary, report) = serving_primary(context)?;
    if !report?.leaving || !somebody_could_take_over(record, context.view, primary) {
        return None;
    }
    let next = begin(record, context.rule, None, true, None);
    let reason =
        format!("{}'s keeper was asked to stop, so it hands over first", record.name_of(primary));
    let note = context.phase_note(&next, reason).about(primary);
    Some(Change { next, notes: vec![note] })
}

fn serving_primary<'a>(
    context: &'a Context<'_>,
) -> Option<(NodeId, Option<&'a shared::report::Report>)> {
    if context.record.phase == Phase::Serving { context.primary() } else { None }
}

fn elect(context: &Context<'_>, primary: NodeId, why: &str) -> Option<Change> {
    let record = context.record;
    if !could_replace_primary(record, context.view, context.now) {
        return None;
    }
    let next = begin(record, context.rule, None, false, None);
    let reason =
        format!("a new primary is needed, {} is not one any more: {why}", record.name_of(primary));
    let evidence = json!({ "primary": record.name_of(primary), "why": why });
    let note = context.phase_note(&next, reason).about(primary).evidence(evidence);
    Some(Change { next, notes: vec![note] })
}

/// Rule 9, iv: only the newest generation of the present epoch counts; then the others go.
pub(super) fn sync_confirmed(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    if record.phase != Phase::Serving || record.is_sync_settled() {
        return None;
    }
    let (primary, report) = context.primary()?;
    let newest = record.newest_spec()?;
    report?.in_force.filter(|in_force| {
        in_force.epoch == record.epoch && in_force.generation == newest.generation
    })?;
    let mut next = record.clone();
    next.specs = vec![newest.clone()];
    next.confirmed = Some(newest.generation);
    let reason = if newest.is_asynchronous() {
        "commits wait for no standby".to_owned()
    } else {
        format!("commits now wait for {}", record.describe_spec(newest))
    };
    let stages = context.view.stages(context.now.mono);
    let (reason, evidence) = match stages {
        Some(stages) => (format!("{reason}; {stages}"), json!({ "stages_ms": stages })),
        None => (reason, json!({})),
    };
    let before = record
        .specs
        .iter()
        .find(|spec| Some(spec.generation) == record.confirmed)
        .map_or_else(|| "none".to_owned(), |spec| record.describe_spec(spec));
    let note = context
        .note("sync", reason)
        .about(primary)
        .change(before, record.describe_spec(newest))
        .evidence(evidence);
    Some(Change { next, notes: vec![note] })
}

/// Rule 9: appended durably before it is assigned, and only on a fresh report of the primary, since a
/// primary that died unaware must not leave an asynchronous spec behind.
pub(super) fn sync_change(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    if record.phase != Phase::Serving {
        return None;
    }
    let (primary, report) = context.fresh_primary()?;
    if report.leaving || report.failed.is_some() || !report.postgres.running {
        return None;
    }
    let wanted = sync::desired(record, context.view, context.now.mono)?;
    let newest = record.newest_spec()?;
    if wanted.same_terms(newest) {
        return None;
    }
    let mut next = record.clone();
    next.next_generation = next.next_generation.next();
    let note: Note = context
        .note("sync", format!("the sync set is to become {}", record.describe_spec(&wanted)))
        .about(primary)
        .change(record.describe_spec(newest), record.describe_spec(&wanted))
        .evidence(json!({
            "number_sync_standbys": record.number_sync_standbys(),
            "replicas": report.replicas,
        }));
    next.specs.push(wanted);
    Some(Change { next: Record { ..next }, notes: vec![note] })
}
