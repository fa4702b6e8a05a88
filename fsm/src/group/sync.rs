//! The sync set: which spec the primary should have (rule 9 is how it gets it).
//!
//! `number_sync_standbys = 0`: one standby while any is fit, asynchronous when none is. From 1 on:
//! that many always; writes wait rather than lose durability.

use super::cascade::is_to_cascade;
use super::detector::verdict;
use super::record::Record;
use super::view::{Evidence, View, is_streaming};
use crate::Millis;
use shared::ids::NodeId;
use shared::report::Replica;
use shared::spec::Spec;
use std::collections::BTreeSet;

/// A standby further behind than this would hold up commits for long while it catches up: one WAL
/// segment of the default size.
const MAX_LAG_TO_JOIN: u64 = 16 * 1024 * 1024;

/// The spec that the present primary should have now, with the next generation.
pub fn desired(record: &Record, view: &View, now: Millis) -> Option<Spec> {
    let primary = record.primary?;
    let fit: BTreeSet<_> =
        record.quorum_standbys().filter(|id| is_fit(record, view, *id, now)).collect();
    Some(strictest(record, primary, fit))
}

/// The strictest spec for `primary` that the `fit` standbys allow.
pub fn strictest(record: &Record, primary: NodeId, fit: BTreeSet<NodeId>) -> Spec {
    let mut standbys = fit;
    standbys.remove(&primary);
    let number = record.number_sync_standbys_below(Some(primary));
    let required = if number == 0 { standbys.len().min(1) } else { number };
    if standbys.len() < required {
        // Writes wait for as many as are demanded: for whichever of the present members comes back
        // first; where these are too few, for others as well.
        let members = record.newest_spec().map(|spec| spec.standbys.clone()).unwrap_or_default();
        let eligible = record.quorum_standbys_below(Some(primary));
        let (present, others): (Vec<_>, Vec<_>) = eligible.partition(|id| members.contains(id));
        standbys.extend(present);
        let lacking = required.saturating_sub(standbys.len());
        let more = others.into_iter().filter(|id| !standbys.contains(id)).take(lacking);
        standbys.extend(more.collect::<Vec<_>>());
    }
    Spec {
        generation: record.next_generation,
        epoch: record.epoch,
        primary,
        required: required.min(standbys.len()),
        standbys,
    }
}

/// Whether a standby can be waited for: alive, streaming through its present admission, and neither
/// far behind nor stalled. A present member is given the stall budget before it is let go.
pub(super) fn is_fit(record: &Record, view: &View, id: NodeId, now: Millis) -> bool {
    let timers = record.settings.timers();
    let nothing = Evidence::default();
    let evidence = view.nodes.get(&id).unwrap_or(&nothing);
    let unwilling = evidence.report.as_ref().is_some_and(|r| r.leaving || r.failed.is_some());
    if verdict(view, id, &timers, now).is_dead() || unwilling || record.is_to_be_away(id) {
        return false;
    }
    // It leaves first, and then goes: no commit is to wait for it meanwhile.
    if is_to_cascade(record, view, id, now).is_some() {
        return false;
    }
    let member = record.newest_spec().is_some_and(|spec| spec.standbys.contains(&id));
    match replica(record, view, id) {
        Some(replica) if member => replica.stalled_ms < timers.stall_timeout_ms,
        Some(_) => is_close(record, view, id),
        None => {
            let absent = evidence.absent_since.unwrap_or(view.phase_since).max(view.phase_since);
            member && now.since(absent) < timers.stall_timeout_ms
        }
    }
}

/// Whether a standby streams from the primary, close behind it, and goes on doing so.
pub(super) fn is_close(record: &Record, view: &View, id: NodeId) -> bool {
    let stall_timeout_ms = record.settings.timers().stall_timeout_ms;
    replica(record, view, id).is_some_and(|replica| {
        replica.stalled_ms < stall_timeout_ms && lag(record, view, replica) <= MAX_LAG_TO_JOIN
    })
}

/// The primary's row of a standby that streams from its admission slot.
pub(crate) fn replica<'a>(record: &Record, view: &'a View, id: NodeId) -> Option<&'a Replica> {
    let slot = id.admission_slot(record.nodes.get(&id)?.admission);
    let report = view.report(record.primary?)?;
    report.replicas.iter().find(|replica| {
        replica.node == id
            && is_streaming(replica)
            && replica.slot.as_deref() == Some(slot.as_str())
    })
}

/// Whether a node streams from whom it is told to: from the primary by the primary's word, from a standby by its
/// own, under its present admission.
pub(crate) fn streams(record: &Record, view: &View, id: NodeId) -> bool {
    let Some(node) = record.nodes.get(&id).filter(|node| node.cascade.upstream.is_some()) else {
        return replica(record, view, id).is_some();
    };
    view.report(id).is_some_and(|report| {
        let is_present = report.accepted.is_some_and(|a| a.order.ticket >= node.admission);
        report.streaming && is_present
    })
}

fn lag(record: &Record, view: &View, replica: &Replica) -> u64 {
    let end = record.primary.and_then(|id| view.report(id)).and_then(|report| report.postgres.lsn);
    match (end, replica.flushed) {
        (Some(end), Some(flushed)) => end.bytes_since(flushed),
        _ => u64::MAX,
    }
}
