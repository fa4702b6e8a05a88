//! Standbys that stream from standbys: who may be streamed from, who may go there, and when.
//!
//! What an operator wishes and what a node is told now both stand in the record ([`Cascade`]); the rules that
//! move it are in `rules/cascade`. Whoever streams from a standby is in no sync set, so that no commit waits
//! for it, and every epoch begins with everybody at the primary.
//!
//! [`Cascade`]: shared::goal::Cascade

use super::detector::{Verdict, verdict};
use super::record::Record;
use super::sync::{is_close, is_fit};
use super::view::View;
use crate::Millis;
use shared::ids::NodeId;
use shared::report::{Data, Report};

/// After so many detours a node waits no longer than before: for sixteen node timeouts.
const MOST_DOUBLINGS: u8 = 4;

/// The standby that a node is to go to now, which streams from the primary as yet.
pub(super) fn is_to_cascade(
    record: &Record,
    view: &View,
    id: NodeId,
    now: Millis,
) -> Option<NodeId> {
    let node = record.nodes.get(&id)?;
    let direct = node.cascade.upstream.is_none() && record.primary != Some(id);
    let wish = node.cascade.wish.filter(|wish| direct && record.primary != Some(*wish))?;
    let stays = node.joined.is_some() || node.maintenance || node.dropping;
    if stays || leads_to(record, wish, id) || held_back(record, view, (id, wish), now).is_some() {
        return None;
    }
    let patience = record.settings.timers().node_timeout_ms;
    let doublings = u32::from(node.cascade.detours.min(MOST_DOUBLINGS));
    let own_patience = match node.cascade.detours {
        0 => 0,
        _ => patience.saturating_mul(1 << doublings),
    };
    let ready = verdict(view, wish, &record.settings.timers(), now) == Verdict::Good
        && verdict(view, id, &record.settings.timers(), now) == Verdict::Good
        && streams_for(view, wish, now) >= Some(patience)
        && streams_for(view, id, now) >= Some(own_patience)
        && is_close(record, view, id);
    ready.then_some(wish)
}

/// What keeps a node at the primary that is to replicate from a standby, where more than time has to pass.
pub(super) fn held_back(
    record: &Record,
    view: &View,
    (id, wish): (NodeId, NodeId),
    now: Millis,
) -> Option<String> {
    let unfit = || unfit_upstream(record, view, wish, now);
    if let Some(why) = unfit().or_else(|| unfit_downstream(view, id).map(str::to_owned)) {
        return Some(why);
    }
    if let Some(operation) = &record.operation {
        return Some(format!("operation {} is under way", operation.id));
    }
    let needed = !can_be_spared(record, view, id, now);
    needed.then(|| "too few others are there for commits to wait for".to_owned())
}

/// Whether the way from a node upwards, as told and as wished, comes to another.
pub(super) fn leads_to(record: &Record, from: NodeId, to: NodeId) -> bool {
    let mut at = Some(from);
    // No way is longer than there are nodes.
    for _ in 0..=record.nodes.len() {
        if at == Some(to) {
            return true;
        }
        at = at.and_then(|id| record.nodes.get(&id)?.cascade.wish);
    }
    false
}

/// Why nobody can stream from this node, where that is known at once.
pub(super) fn unfit_upstream(
    record: &Record,
    view: &View,
    id: NodeId,
    now: Millis,
) -> Option<String> {
    let name = record.name_of(id);
    let Some(node) = record.nodes.get(&id) else {
        return Some(format!("{name} is not part of the group any more"));
    };
    if node.maintenance {
        return Some(format!("{name} goes into maintenance"));
    }
    if node.dropping {
        return Some(format!("{name} is being dropped"));
    }
    if let Verdict::Dead(why) = verdict(view, id, &record.settings.timers(), now) {
        return Some(format!("{name} is dead: {why}"));
    }
    let report = view.report(id)?;
    if report.leaving {
        return Some(format!("the keeper of {name} has been asked to stop"));
    }
    if !report.cascades {
        return Some(format!(
            "the keeper of {name} is of a version that lets nobody stream from a standby; upgrade it"
        ));
    }
    if let Some(failed) = &report.failed {
        return Some(format!("{name} cannot run Postgres: {failed}"));
    }
    lacks_data(report).then(|| format!("{name} has no whole copy of the data"))
}

/// Why this node has to be at the primary, whoever it should stream from.
pub(super) fn unfit_downstream(view: &View, id: NodeId) -> Option<&'static str> {
    let report = view.report(id)?;
    if !report.cascades {
        return Some("its keeper is of a version that knows no cascading; upgrade it");
    }
    if report.needs_primary {
        return Some("it needs what only the primary has");
    }
    if report.stray.is_some() {
        return Some("its log is on a timeline that the group has not heard of");
    }
    lacks_data(report).then_some("it has no whole copy of the data")
}

/// Whether there is no copy of the data that has been made to its end.
fn lacks_data(report: &Report) -> bool {
    match report.data {
        Data::Present { .. } => false,
        Data::Empty | Data::Rebuilding | Data::Unusable => true,
    }
}

/// Whether commits can do without this node: enough others, that are to stay at the primary, can be waited
/// for. Nobody makes the group asynchronous by going elsewhere.
pub(super) fn can_be_spared(record: &Record, view: &View, id: NodeId, now: Millis) -> bool {
    if record.nodes.get(&id).is_some_and(|node| !node.replication_quorum) {
        return true;
    }
    let others = record.lasting_standbys().filter(|other| *other != id);
    let fit = others.filter(|other| is_fit(record, view, *other, now)).count();
    fit >= record.number_sync_standbys().max(1)
}

/// For how long a node has been streaming by its own reports.
fn streams_for(view: &View, id: NodeId, now: Millis) -> Option<u64> {
    let since = view.nodes.get(&id)?.streaming_since?;
    Some(now.since(since))
}

/// For how long a node has not been streaming by its own reports, as far as this monitor has watched.
pub(super) fn idle_for(view: &View, id: NodeId, now: Millis) -> Option<u64> {
    let since = view.nodes.get(&id)?.idle_since?;
    Some(now.since(since.max(view.watching_since)))
}
