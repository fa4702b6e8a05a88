//! From the start of an election to the confirmed promotion.

use super::{Change, Context, in_phase_for, is_choosing};
use crate::group::acceptance::{beyond, claims, taken_in};
use crate::group::detector::{Verdict, verdict};
use crate::group::election::{Choice, choose, could_elect_another};
use crate::group::record::{Election, LossAccepted, Note, Phase, Record};
use crate::group::sync;
use serde_json::json;
use shared::api::Outcome;
use shared::history::{LineageEntry, Start};
use shared::ids::{NodeId, TimelineId};
use shared::lsn::Position;
use shared::report::Data;
use std::collections::{BTreeMap, BTreeSet};

/// Begins an election: raises the ticket first (rule 2), so that a seal counts in this one only.
pub(crate) fn begin(
    record: &Record,
    cause: &str,
    preferred: Option<NodeId>,
    drain: bool,
    loss: Option<LossAccepted>,
) -> Record {
    let mut next = record.clone();
    next.ticket = next.ticket.next();
    let cause = cause.to_owned();
    let cannot_fetch = BTreeSet::new();
    let (planned, timeline) = (drain, None);
    next.phase = Phase::Electing(Election {
        cause,
        preferred,
        planned,
        cannot_fetch,
        drain,
        loss,
        timeline,
    });
    next
}

pub(super) fn drained(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let Phase::Electing(election) = &record.phase else { return None };
    let primary = record.primary?;
    if !election.drain {
        return None;
    }
    let position = context.view.sealed_position(primary, record.ticket)?;
    let next = seal_everybody(record, election);
    let reason =
        format!("{} has stopped cleanly, its log ends at {position}", record.name_of(primary));
    let mut note = context.phase_note(&next, reason).about(primary);
    note.lsn = Some(position.lsn);
    Some(Change { next, notes: vec![note] })
}

pub(super) fn drain_given_up(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let Phase::Electing(election) = &record.phase else { return None };
    let primary = record.primary?;
    if !election.drain {
        return None;
    }
    let why = match verdict(context.view, primary, &context.timers, context.now.mono) {
        Verdict::Dead(why) => {
            format!("{} died while it was stopping: {why}", record.name_of(primary))
        }
        Verdict::Good | Verdict::Unknown | Verdict::Suspect
            if in_phase_for(context) >= context.timers.drain_timeout_ms =>
        {
            format!(
                "{} has not stopped within the drain timeout of {} ms",
                record.name_of(primary),
                context.timers.drain_timeout_ms
            )
        }
        Verdict::Good | Verdict::Unknown | Verdict::Suspect => return None,
    };
    let mut next = seal_everybody(record, election);
    // The standbys were told to follow under the ticket so far (rule 2).
    next.ticket = next.ticket.next();
    let note = context.phase_note(&next, why).about(primary);
    Some(Change { next, notes: vec![note] })
}

fn seal_everybody(record: &Record, election: &Election) -> Record {
    let mut next = record.clone();
    next.phase = Phase::Electing(Election { drain: false, ..election.clone() });
    next
}

fn choice(context: &Context<'_>) -> Option<(Election, Choice)> {
    let record = context.record;
    if !is_choosing(&record.phase) {
        return None;
    }
    let mut election = record.phase.election()?.clone();
    if let Phase::Forwarding { candidate, .. } = &record.phase
        && context.view.report(*candidate).is_some_and(|report| report.failed.is_some())
    {
        election.cannot_fetch.insert(*candidate);
    }
    let choice = choose(record, context.view, &election, context.now, context.tie_break);
    Some((election, choice))
}

pub(super) fn elected(context: &Context<'_>) -> Option<Change> {
    let (election, Choice::Elect { candidate, witnesses }) = choice(context)? else { return None };
    let position = witnesses.get(&candidate).copied();
    let accepted =
        position.and_then(|own| taken_in(context.record, context.view, (candidate, own)));
    let record = accepted.as_ref().unwrap_or(context.record);
    let next = decide_for(record, context, candidate, &witnesses);
    // Where a timeline was accepted and its node is gone, nothing was given up for anybody else.
    let loss = election.loss.is_some() && election.timeline.is_some() == accepted.is_some();
    let (lost, reason) = if accepted.is_some() {
        let timeline = election.timeline.unwrap_or_default();
        let reason = format!(
            "{} is elected with what it has on timeline {timeline}: the operator accepted that timeline",
            record.name_of(candidate)
        );
        (Some(without_the_fork(context, candidate)), reason)
    } else {
        let lost = lost_by(record, &election, &witnesses);
        let reason = sentence(record, candidate, &witnesses, lost.as_ref());
        (lost, reason)
    };
    let mut note = context.phase_note(&next, reason).about(candidate).evidence(json!({
        "cause": election.cause,
        "witnesses": named(record, &witnesses),
        "specs": record.specs.iter().map(|spec| record.describe_spec(spec)).collect::<Vec<_>>(),
        "data_loss_accepted": loss,
        "given_up": lost,
    }));
    note.lsn = position.map(|position| position.lsn);
    note.timeline = next.present_timeline().map(|entry| entry.timeline);
    let mut notes = vec![note];
    if record.nodes.get(&candidate).is_some_and(|node| node.dropping) {
        let reason = format!("{} is not dropped: {NEEDED}", record.name_of(candidate));
        notes.push(context.note("operation", reason).about(candidate));
    }
    if let Some(spec) = next.newest_spec() {
        let note = context
            .note("sync", format!("the new primary starts under {}", next.describe_spec(spec)));
        notes.push(note.about(candidate));
    }
    Some(Change { next, notes })
}

/// Why a node is not dropped after all.
const NEEDED: &str = "nobody else can be the primary";

/// Rule 6: ticket, epoch, primary, reserved timeline and start spec in one; nothing is dropped.
fn decide_for(
    record: &Record,
    context: &Context<'_>,
    candidate: NodeId,
    witnesses: &BTreeMap<NodeId, Position>,
) -> Record {
    let mut next = record.clone();
    next.ticket = next.ticket.next();
    next.epoch = next.epoch.next();
    next.primary = Some(candidate);
    if let Some(node) = next.nodes.get_mut(&candidate).filter(|node| node.dropping) {
        node.dropping = false;
        node.orders.destroy = 0;
        if next.operation.as_ref().is_some_and(|operation| operation.target == Some(candidate)) {
            next.finish(Outcome::Failed, NEEDED, context.now);
        }
    }
    let timeline = reserve_timeline(&mut next, context);
    next.lineage.0.push(LineageEntry::reserved(next.epoch, timeline));
    for node in next.nodes.values_mut() {
        node.admission = next.ticket;
        // An epoch begins with everybody at the primary: whoever goes to a standby has proved its log there.
        (node.cascade.upstream, node.cascade.detours) = (None, 0);
    }
    let alive: BTreeSet<_> = witnesses
        .keys()
        .copied()
        .filter(|id| !verdict(context.view, *id, &context.timers, context.now.mono).is_dead())
        .filter(|id| next.quorum_standbys().any(|standby| standby == *id))
        .filter(|id| context.view.report(*id).is_some_and(|report| !report.leaving))
        .filter(|id| follows_at_once(record, *id, candidate, witnesses))
        .collect();
    let spec = sync::strictest(&next, candidate, lasting(&next, candidate, alive));
    next.next_generation = next.next_generation.next();
    next.specs.push(spec);
    next.phase = Phase::Promoting;
    next
}

/// Without those that go to another standby as soon as they can, where the others are enough.
fn lasting(record: &Record, candidate: NodeId, alive: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let primary = Some(candidate);
    let direct: BTreeSet<_> =
        alive.iter().copied().filter(|id| record.is_direct_below(primary, *id)).collect();
    let enough = record.number_sync_standbys_below(primary).max(1);
    if direct.len() >= enough { direct } else { alive }
}

/// Whether a witness can stream from the candidate without a rewind, and was not the primary: that
/// one has been stopped and takes a while.
fn follows_at_once(
    record: &Record,
    id: NodeId,
    candidate: NodeId,
    witnesses: &BTreeMap<NodeId, Position>,
) -> bool {
    let (Some(own), Some(new)) = (witnesses.get(&id), witnesses.get(&candidate)) else {
        return false;
    };
    own <= new && record.lineage.is_prefix(*own, new.epoch)
}

/// Rule 8, the one place where timeline numbers are given out: above all that were reserved or seen,
/// leaving one out each time. `pg_promote` by hand takes the next number after a node's own, which is
/// therefore never one of ours.
fn reserve_timeline(next: &mut Record, context: &Context<'_>) -> TimelineId {
    let seen = context
        .view
        .nodes
        .values()
        .filter_map(|evidence| evidence.report.as_ref()?.postgres.timeline)
        .max()
        .unwrap_or_default();
    let highest = next.highest_timeline.max(seen);
    next.highest_timeline = TimelineId(highest.0.saturating_add(2));
    next.highest_timeline
}

/// The nodes whose logs an election with accepted loss does without.
fn lost_by(
    record: &Record,
    election: &Election,
    witnesses: &BTreeMap<NodeId, Position>,
) -> Option<Vec<String>> {
    election.loss?;
    let given_up = super::super::election::missing(record, witnesses);
    (!given_up.is_empty()).then(|| given_up.iter().map(|id| record.name_of(*id)).collect())
}

/// The nodes that have more than what an accepted timeline continues.
fn without_the_fork(context: &Context<'_>, candidate: NodeId) -> Vec<String> {
    let claims = claims(context.record, context.view, context.now);
    let own = claims.iter().find(|claim| claim.node == candidate);
    let fork = own.and_then(super::super::acceptance::Claim::fork);
    let given_up = fork.map(|fork| beyond(context.record, context.view, (candidate, fork)));
    given_up.unwrap_or_default().into_iter().map(|(name, _, _)| name.to_string()).collect()
}

fn sentence(
    record: &Record,
    candidate: NodeId,
    witnesses: &BTreeMap<NodeId, Position>,
    lost: Option<&Vec<String>>,
) -> String {
    let name = record.name_of(candidate);
    let sealed: BTreeSet<_> = witnesses.keys().copied().collect();
    match lost {
        None => format!(
            "{name} is elected: {} sealed their logs, which together hold every acknowledged commit, and {name} has all of it",
            record.names_of(&sealed)
        ),
        Some(given_up) => format!(
            "{name} is elected although commits acknowledged by {} may be missing: the operator accepted data loss",
            given_up.join(", ")
        ),
    }
}

fn named(record: &Record, witnesses: &BTreeMap<NodeId, Position>) -> serde_json::Value {
    witnesses.iter().map(|(id, position)| (record.name_of(*id), json!(position))).collect()
}

pub(super) fn fast_forward(context: &Context<'_>) -> Option<Change> {
    let (election, Choice::Forward { candidate, source, target }) = choice(context)? else {
        return None;
    };
    let phase = Phase::Forwarding { election, candidate, source, target };
    if context.record.phase == phase {
        return None;
    }
    let next = Record { phase, ..context.record.clone() };
    let reason = format!(
        "{} is the best candidate and first fetches from {} what it lacks, up to {target}",
        next.name_of(candidate),
        next.name_of(source),
    );
    let mut note = context.phase_note(&next, reason).about(candidate);
    note.lsn = Some(target.lsn);
    Some(Change { next, notes: vec![note] })
}

pub(super) fn fast_forward_given_up(context: &Context<'_>) -> Option<Change> {
    let Phase::Forwarding { candidate, source, .. } = &context.record.phase else { return None };
    let (election, Choice::Wait(_)) = choice(context)? else { return None };
    // While it fetches, the candidate is not sealed at a position: that alone is no reason.
    let alive = |id| {
        let verdict = verdict(context.view, id, &context.timers, context.now.mono);
        !verdict.is_dead() && context.view.report(id).is_some_and(crate::group::ranking::has_data)
    };
    if alive(*candidate) && alive(*source) {
        return None;
    }
    let next = Record { phase: Phase::Electing(election), ..context.record.clone() };
    let reason = format!(
        "{} cannot fetch from {} any more",
        next.name_of(*candidate),
        next.name_of(*source)
    );
    let note = context.phase_note(&next, reason).about(*candidate);
    Some(Change { next, notes: vec![note] })
}

/// Rule 6, end: the lineage entry is written from the candidate's report, with the real start.
pub(super) fn promoted(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    if record.phase != Phase::Promoting {
        return None;
    }
    let (primary, report) = context.primary()?;
    let report = report?;
    let promoted = report.promoted.as_ref().filter(|promoted| promoted.epoch == record.epoch)?;
    let mut next = record.clone();
    let first = next.lineage.0.first().map(|entry| entry.epoch) == Some(record.epoch);
    let entry = next.lineage.0.iter_mut().find(|entry| entry.epoch == record.epoch)?;
    if first {
        entry.timeline = promoted.timeline;
        next.highest_timeline = promoted.timeline;
    } else if entry.timeline != promoted.timeline {
        return None;
    }
    entry.start = Some(Start { parent: promoted.parent, lsn: promoted.start });
    next.lineage.learn(&promoted.ancestors);
    if next.system_identifier.is_none()
        && let Data::Present { system_identifier } = report.data
    {
        next.system_identifier = Some(system_identifier);
    }
    next.phase = Phase::Serving;
    let reason = format!(
        "{} is the primary of epoch {} on timeline {}",
        record.name_of(primary),
        record.epoch,
        promoted.timeline
    );
    let mut note: Note = context.phase_note(&next, reason).about(primary);
    note.timeline = Some(promoted.timeline);
    note.lsn = Some(promoted.start);
    Some(Change { next, notes: vec![note] })
}

pub(super) fn candidate_lost(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    if record.phase != Phase::Promoting {
        return None;
    }
    let (candidate, report) = context.primary()?;
    // The first primary of a group is the only one that could be.
    record.lineage.0.first().filter(|first| first.epoch != record.epoch)?;
    let why = match verdict(context.view, candidate, &context.timers, context.now.mono) {
        Verdict::Dead(why) => why,
        Verdict::Good | Verdict::Unknown | Verdict::Suspect => {
            let report = report?;
            match (&report.failed, report.data) {
                (Some(failed), _) => failed.clone(),
                (None, Data::Empty | Data::Rebuilding | Data::Unusable) => {
                    "its data directory has no complete cluster".to_owned()
                }
                (None, Data::Present { .. }) => return None,
            }
        }
    };
    let next = begin(record, context.rule, None, false, None);
    let reason = format!("{} was elected and has been lost: {why}", record.name_of(candidate));
    let note = context.phase_note(&next, reason).about(candidate);
    Some(Change { next, notes: vec![note] })
}

/// The ticket is raised first, so that nobody takes the election for the one before; what was reserved for the
/// candidate stays reserved, and its spec stays among those to be covered, since it may have changed its mind.
pub(super) fn candidate_refused(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    if record.phase != Phase::Promoting {
        return None;
    }
    let (candidate, report) = context.primary()?;
    let report = report?;
    // What it said of an earlier epoch it may not say of this one.
    report.accepted.filter(|accepted| accepted.epoch == record.epoch)?;
    let why = report.vetoes.clone()?;
    // Else it is asked again, which takes no election.
    if !could_elect_another(record, context.view, context.now) {
        return None;
    }
    let mut next = begin(record, context.rule, None, false, None);
    let name = record.name_of(candidate);
    let said = format!("the pre_promote hook of {name} refuses: {why}");
    if let Some(operation) = next.operation.as_mut().filter(|it| it.target == Some(candidate)) {
        operation.refused = Some(said.clone());
    }
    let reason = format!("{name} was elected and is not promoted: {said}");
    let evidence = json!({ "candidate": name, "why": why });
    let note = context.phase_note(&next, reason).about(candidate).evidence(evidence);
    Some(Change { next, notes: vec![note] })
}
