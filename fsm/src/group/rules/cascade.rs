//! Who streams from whom, where that is not the primary. Each move is a new admission under a higher ticket
//! (rule 10): the slot of the old one is dropped, and the log is proved anew.

use super::{Change, Context};
use crate::group::cascade::{
    can_be_spared, idle_for, is_to_cascade, unfit_downstream, unfit_upstream,
};
use crate::group::record::{Node, OperationKind, Phase, Record};
use shared::goal::Cascade;
use shared::ids::NodeId;

/// Why a node goes back to the primary.
struct Reason {
    text: String,
    /// The standby was well: the node waits longer before it goes there again.
    detour: bool,
}

impl Reason {
    fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), detour: false }
    }
}

/// Back to the primary: at once where it is known that no stream can come any more, else after the node
/// timeout without one. Nothing is copied; the primary keeps WAL for every node.
pub(super) fn reattached(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    if record.phase != Phase::Serving {
        return None;
    }
    if let Some(change) = forgotten(context) {
        return Some(change);
    }
    let (id, node, upstream, reason) = record.nodes.iter().find_map(|(id, node)| {
        let upstream = node.cascade.upstream?;
        Some((*id, node, upstream, reason(context, (*id, node), upstream)?))
    })?;
    let mut next = attached(record, id, None);
    if let Some(node) = next.nodes.get_mut(&id).filter(|_| reason.detour) {
        node.cascade.detours = node.cascade.detours.saturating_add(1);
    }
    let (from, to) = (record.name_of(upstream), record.primary.map(|id| record.name_of(id)));
    let to = to.unwrap_or_default();
    let text = format!("{} is to stream from the primary {to}: {}", node.name, reason.text);
    let note = context.note("upstream", text).about(id).change(from, to);
    Some(Change { next, notes: vec![note] })
}

/// A wish for a node that has left.
fn forgotten(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let gone = |wish: &NodeId| !record.nodes.contains_key(wish);
    let (id, node, wish) = record
        .nodes
        .iter()
        .find_map(|(id, node)| Some((*id, node, node.cascade.wish.filter(gone)?)))?;
    let mut next = match node.cascade.upstream {
        Some(_) => attached(record, id, None),
        None => record.clone(),
    };
    next.nodes.get_mut(&id)?.cascade = Cascade::default();
    // Its name has gone with it; "node 4" might be taken for the name of another.
    let text = format!(
        "replicate-from of {} is none from now on: the standby that it named, of id {wish}, has left the formation",
        node.name
    );
    let note = context.note("setting", text).about(id).change(format!("id {wish}"), "none");
    Some(Change { next, notes: vec![note] })
}

fn reason(context: &Context<'_>, (id, node): (NodeId, &Node), upstream: NodeId) -> Option<Reason> {
    let Context { record, view, timers, .. } = context;
    let now = context.now.mono;
    let name = record.name_of(upstream);
    if node.cascade.wish != Some(upstream) {
        return Some(Reason::plain(format!("it is not to replicate from {name} any more")));
    }
    if let Some(why) = unfit_upstream(record, view, upstream, now) {
        return Some(Reason::plain(why));
    }
    let is_copied = record.operation.as_ref().is_some_and(|operation| {
        operation.kind == OperationKind::Reinit && operation.target == Some(id)
    });
    if is_copied {
        return Some(Reason::plain("it is to be copied anew"));
    }
    if let Some(why) = unfit_downstream(view, id) {
        let detour = view.report(id).is_some_and(|report| report.needs_primary);
        return Some(Reason { text: why.to_owned(), detour });
    }
    let too_long = |id| idle_for(view, id, now).filter(|ms| *ms >= timers.node_timeout_ms);
    if let Some(ms) = too_long(upstream) {
        return Some(Reason::plain(format!("{name} has not been streaming for {ms} ms")));
    }
    if let Some(ms) = too_long(id) {
        let text = format!("it has not been streaming from {name} for {ms} ms");
        return Some(Reason { text, detour: true });
    }
    let needed = !can_be_spared(record, view, id, now);
    needed.then(|| Reason::plain("too few others are there for commits to wait for"))
}

/// To the standby that it shall stream from, once it has left the sync set (`sync`).
pub(super) fn cascaded(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    if record.phase != Phase::Serving {
        return None;
    }
    let (id, upstream) =
        record.nodes.keys().filter(|id| !record.is_sync_member(**id)).find_map(|id| {
            Some((*id, is_to_cascade(record, context.view, *id, context.now.mono)?))
        })?;
    let next = attached(record, id, Some(upstream));
    let (own, name) = (record.name_of(id), record.name_of(upstream));
    let from = record.primary.map(|id| record.name_of(id)).unwrap_or_default();
    let text = format!("{own} is to stream from {name}, and no commit waits for it");
    let note = context.note("upstream", text).about(id).change(from, name);
    Some(Change { next, notes: vec![note] })
}

/// The record with this node at a standby, or at the primary. An admission is for one upstream only.
fn attached(record: &Record, id: NodeId, upstream: Option<NodeId>) -> Record {
    let mut next = record.clone();
    next.ticket = next.ticket.next();
    let ticket = next.ticket;
    if let Some(node) = next.nodes.get_mut(&id) {
        node.admission = ticket;
        node.cascade.upstream = upstream;
    }
    next
}
