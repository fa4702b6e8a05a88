//! A record that is not to be trusted, the way out, and members that come back later (rule 14).

use super::{Change, Context};
use crate::group::adopt::{adopt, contradicts};
use crate::group::record::{Phase, Record};
use serde_json::json;
use shared::ids::{Gen, NodeId};
use shared::report::Accepted;

/// What a node has accepted that this record never gave.
fn ahead(context: &Context<'_>, id: NodeId) -> Option<Accepted> {
    let record = context.record;
    let accepted = context.view.report(id)?.accepted?;
    // Of a member that was not heard when the record was made anew, only a later epoch is news: nobody
    // can have been elected, but numbers may have been raised.
    let expected = record.nodes.get(&id).is_some_and(|node| node.absent);
    let numbers = accepted.order.ticket > record.ticket
        || accepted.order.generation >= record.next_generation;
    (accepted.epoch > record.epoch || (numbers && !expected)).then_some(accepted)
}

pub(super) fn record_is_old(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let (id, accepted) = record.nodes.keys().find_map(|id| Some((*id, ahead(context, *id)?)))?;
    let next = Record { quarantined: true, ..record.clone() };
    let reason = format!(
        "{} has accepted ticket {} and epoch {}, which this monitor never gave: its database is an old copy, and it decides nothing until it has heard what the keepers know",
        record.name_of(id),
        accepted.order.ticket,
        accepted.epoch
    );
    Some(Change { next, notes: vec![context.note("monitor", reason).about(id)] })
}

/// The only rule in quarantine.
pub(super) fn adopted(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    if !record.quarantined {
        return None;
    }
    let adopted = adopt(record, context.view, context.now).ok()?;
    let next = adopted.record;
    let goes_on = match next.primary.filter(|_| next.phase.election().is_none()) {
        Some(primary) => {
            format!("{} goes on as the primary of epoch {}", next.name_of(primary), next.epoch)
        }
        None => format!("a primary after epoch {} is to be elected", next.epoch),
    };
    let absent = if adopted.absent.is_empty() {
        String::new()
    } else {
        format!(
            "; not heard, and known by the word of the others: {}",
            next.names_of(&adopted.absent)
        )
    };
    let reason = format!("what the keepers know is one story: {goes_on}{absent}");
    let note = context.note("monitor", reason).evidence(adopted.evidence);
    let note = note.change(record.ticket.to_string(), next.ticket.to_string());
    Some(Change { next, notes: vec![note] })
}

/// A member that was not heard when the record was made anew has come: numbers go on above its own.
pub(super) fn latecomer(context: &Context<'_>) -> Option<Change> {
    let record = context.record;
    let absent = record.nodes.iter().filter(|(_, node)| node.absent).map(|(id, _)| *id);
    let (id, accepted, done) = absent.into_iter().find_map(|id| {
        let report = context.view.report(id)?;
        let Some(accepted) = report.accepted else { return Some((id, None, report.done)) };
        let (_, offer) = context.view.offer(id)?;
        let fits = contradicts(record, &offer.assignment).is_none();
        fits.then_some((id, Some(accepted), report.done))
    })?;
    let mut next = record.clone();
    next.nodes.get_mut(&id)?.absent = false;
    // An order of a lower number would pass for one that it has carried out.
    let newest = done.restart.max(done.copy);
    next.next_operation = next.next_operation.max(newest.saturating_add(1));
    if let Some(accepted) = accepted {
        let order = accepted.order;
        next.next_generation = next.next_generation.max(Gen(order.generation.0.saturating_add(1)));
        if order.ticket >= record.ticket {
            // An election's seals carry its ticket: it starts afresh under the new one.
            next.ticket = order.ticket.next();
            if let Phase::Forwarding { election, .. } = &record.phase {
                next.phase = Phase::Electing(election.clone());
            }
        }
    }
    let reason = format!(
        "{} is back: it had not been heard since the monitor lost its record",
        record.name_of(id)
    );
    let note = context.note("node", reason).about(id);
    Some(Change { next, notes: vec![note.evidence(json!({ "accepted": accepted }))] })
}
