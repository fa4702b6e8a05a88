//! Elections (rules 5 and 6): who the witnesses are, whether they cover every spec that may be in
//! force, and which candidate wins. In which order candidates are looked at is in `ranking`.

use super::acceptance;
use super::detector::{Verdict, verdict};
use super::ranking::{has_data, is_eligible, lacks_room, rank};
use super::record::{Election, Record};
use super::view::View;
use crate::Now;
use shared::ids::NodeId;
use shared::lsn::Position;
use shared::spec::Spec;
use std::collections::{BTreeMap, BTreeSet};

/// What an election comes to, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This node holds every acknowledged commit: decide.
    Elect {
        /// The new primary.
        candidate: NodeId,
        /// The witnesses that prove it, with their positions.
        witnesses: BTreeMap<NodeId, Position>,
    },
    /// The preferred candidate lacks what `source` has: let it fetch first.
    Forward {
        /// Who fetches.
        candidate: NodeId,
        /// From whom.
        source: NodeId,
        /// Up to where.
        target: Position,
    },
    /// Nobody is elected yet.
    Wait(Waiting),
}

/// Why nobody is elected yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// These nodes are alive and have not answered; the grace is not over.
    Answers(BTreeSet<NodeId>),
    /// These witnesses are not enough; any of these further nodes would help.
    Witnesses(BTreeSet<NodeId>),
    /// The witnesses are enough, but none of them may be promoted or has everything.
    Candidate,
    /// With loss accepted: a primary that was cut off may still hold a lease.
    Lease,
    /// With loss accepted: these standbys could still acknowledge for the old primary.
    Fencing(BTreeSet<NodeId>),
}

/// Whether the witnesses satisfy every spec of the record (rule 5): each is covered, or some witness
/// has a record of a later epoch.
pub fn covers(specs: &[Spec], witnesses: &BTreeMap<NodeId, Position>) -> bool {
    let set: BTreeSet<_> = witnesses.keys().copied().collect();
    let newest = witnesses.values().map(|position| position.epoch).max();
    specs.iter().all(|spec| spec.is_covered_by(&set) || newest > Some(spec.epoch))
}

/// The nodes that would make `have` cover every spec if they joined it.
pub fn missing(record: &Record, have: &BTreeMap<NodeId, Position>) -> BTreeSet<NodeId> {
    let set: BTreeSet<_> = have.keys().copied().collect();
    let newest = have.values().map(|position| position.epoch).max();
    record
        .specs
        .iter()
        .filter(|spec| !spec.is_covered_by(&set) && newest <= Some(spec.epoch))
        .flat_map(|spec| spec.standbys.iter().copied().chain([spec.primary]))
        .filter(|id| !set.contains(id))
        .collect()
}

/// The nodes sealed in this election, with their positions; dead ones too, since a seal is durable.
pub fn witnesses(record: &Record, view: &View) -> BTreeMap<NodeId, Position> {
    record
        .nodes
        .keys()
        .filter_map(|id| Some((*id, view.sealed_position(*id, record.ticket)?)))
        .collect()
}

/// Whether an election without the present primary would find enough witnesses and a candidate among
/// the nodes that are alive: it is begun only then, since sealing stops all writes.
pub fn could_replace_primary(record: &Record, view: &View, now: Now) -> bool {
    let alive = successors(record, view, now);
    // The next one would fail for the same reason: the role would go round and round.
    let no_use = |id| is_short_of_room(record, view, now) && lacks_room(view, id);
    let candidate = alive.keys().any(|id| is_eligible(record, view, *id, None) && !no_use(*id));
    candidate && covers(&record.specs, &alive)
}

/// Whether an election would find enough witnesses, and a candidate that is not the one who was elected and
/// refuses. That one is a witness like the others.
pub(crate) fn could_elect_another(record: &Record, view: &View, now: Now) -> bool {
    let alive: BTreeMap<_, _> = living(record, view, now)
        .filter(|id| record.nodes.get(id).is_some_and(|node| !node.maintenance))
        .filter_map(|id| Some((id, last_position(record, view, id)?)))
        .collect();
    let another = |id: &NodeId| Some(*id) != record.primary && is_eligible(record, view, *id, None);
    alive.keys().any(another) && covers(&record.specs, &alive)
}

/// Whether the primary, though alive, has no room to write.
pub(crate) fn is_short_of_room(record: &Record, view: &View, now: Now) -> bool {
    record.primary.is_some_and(|id| {
        let dead = verdict(view, id, &record.settings.timers(), now.mono).is_dead();
        !dead && lacks_room(view, id)
    })
}

/// The nodes that would take part in an election without the present primary, with the positions to
/// expect of them.
pub(crate) fn successors(record: &Record, view: &View, now: Now) -> BTreeMap<NodeId, Position> {
    living(record, view, now)
        .filter(|id| Some(*id) != record.primary)
        .filter(|id| record.nodes.get(id).is_some_and(|node| !node.maintenance))
        .filter_map(|id| Some((id, last_position(record, view, id)?)))
        .collect()
}

/// The position to expect of a node before it is sealed: that of its log, by its last report.
pub(crate) fn last_position(record: &Record, view: &View, id: NodeId) -> Option<Position> {
    let report = view.report(id).filter(|report| has_data(report) && !report.behind)?;
    let timeline = report.postgres.timeline?;
    let entry = record.lineage.0.iter().find(|entry| entry.timeline == timeline)?;
    let is_proven = entry.accepted.is_none_or(|node| node == id);
    is_proven.then_some(Position { epoch: entry.epoch, lsn: report.postgres.lsn? })
}

/// The nodes that report.
fn living<'a>(record: &'a Record, view: &'a View, now: Now) -> impl Iterator<Item = NodeId> + 'a {
    let timers = record.settings.timers();
    record.nodes.keys().copied().filter(move |id| {
        view.report(*id).is_some()
            && match verdict(view, *id, &timers, now.mono) {
                Verdict::Good | Verdict::Suspect => true,
                Verdict::Unknown | Verdict::Dead(_) => false,
            }
    })
}

/// What the election comes to.
pub fn choose(
    record: &Record,
    view: &View,
    election: &Election,
    now: Now,
    tie_break: u64,
) -> Choice {
    let outstanding = outstanding(record, view, &witnesses(record, view), now);
    let best = best(record, view, election, now, tie_break);
    let patience = patience(record, election, &best, &outstanding);
    if !outstanding.is_empty() && now.mono.since(view.phase_since) < patience {
        return Choice::Wait(Waiting::Answers(outstanding));
    }
    best
}

/// How long living nodes that have not answered are waited for. Whoever asked for another primary
/// is better served by one that is slow to be sealed than by the old one; and whoever asked for a
/// certain one, by that.
fn patience(
    record: &Record,
    election: &Election,
    best: &Choice,
    outstanding: &BTreeSet<NodeId>,
) -> u64 {
    let timers = record.settings.timers();
    let old_one = match best {
        Choice::Elect { candidate, .. } => record.primary == Some(*candidate),
        Choice::Forward { .. } | Choice::Wait(_) => false,
    };
    let wanted = election.preferred.is_some_and(|node| outstanding.contains(&node));
    if election.planned && (old_one || wanted) {
        timers.node_timeout_ms.max(timers.election_grace_ms)
    } else {
        timers.election_grace_ms
    }
}

/// What the election comes to with the witnesses that there are.
fn best(record: &Record, view: &View, election: &Election, now: Now, tie_break: u64) -> Choice {
    let witnesses = witnesses(record, view);
    if let Some(choice) = acceptance::choose(record, view, election, now, &witnesses) {
        return choice;
    }
    let alive: BTreeSet<_> = living(record, view, now).collect();
    let ranked = rank(record, view, election, &witnesses, tie_break);
    let mut second_best = None;
    let mut without_proof = None;
    for (id, place) in ranked.iter().filter(|(id, _)| alive.contains(id)) {
        let position = place.position;
        let source = best_source(record, view, &witnesses, &alive, position);
        if let Some((source, target)) = source.filter(|_| !election.cannot_fetch.contains(id)) {
            return Choice::Forward { candidate: *id, source, target };
        }
        let proof: BTreeMap<_, _> =
            witnesses.iter().filter(|(_, w)| **w <= position).map(|(id, w)| (*id, *w)).collect();
        let furthest = alive.iter().all(|id| !witnesses.contains_key(id) || proof.contains_key(id));
        if !covers(&record.specs, &proof) {
            without_proof = without_proof.or(Some((*id, proof)));
        } else if furthest {
            return Choice::Elect { candidate: *id, witnesses: proof };
        } else {
            second_best = second_best.or(Some((*id, proof)));
        }
    }
    // Somebody alive has more, cannot be fetched from and cannot be elected: it holds nothing that
    // was acknowledged, since the proof stands without it.
    if let Some((candidate, witnesses)) = second_best {
        return Choice::Elect { candidate, witnesses };
    }
    // Whoever accepted a certain timeline accepted no other loss.
    let loss = election.loss.filter(|_| election.timeline.is_none());
    if let (Some(loss), Some((candidate, proof))) = (loss, without_proof) {
        return choose_with_loss(record, view, loss.fenced, now, (candidate, proof));
    }
    if covers(&record.specs, &witnesses) {
        return Choice::Wait(Waiting::Candidate);
    }
    Choice::Wait(Waiting::Witnesses(missing(record, &witnesses)))
}

/// The living nodes that have not answered. A former primary that is sealed counts as having
/// answered even while its position is being established: it need not be waited for.
fn outstanding(
    record: &Record,
    view: &View,
    witnesses: &BTreeMap<NodeId, Position>,
    now: Now,
) -> BTreeSet<NodeId> {
    living(record, view, now)
        .filter(|id| !witnesses.contains_key(id))
        .filter(|id| record.nodes.get(id).is_some_and(|node| !node.maintenance))
        .filter(|id| {
            view.report(*id).is_some_and(|report| {
                let sealed = report.sealed.is_some_and(|sealed| sealed.ticket == record.ticket);
                let can_say = has_data(report) && !report.behind;
                can_say && !(sealed && record.primary == Some(*id))
            })
        })
        .collect()
}

/// The furthest living witness that has more than `position`, if the log that ends there is a
/// prefix of its own, so that the candidate can fetch the rest.
fn best_source(
    record: &Record,
    view: &View,
    witnesses: &BTreeMap<NodeId, Position>,
    alive: &BTreeSet<NodeId>,
    position: Position,
) -> Option<(NodeId, Position)> {
    let serves = |id: &NodeId| {
        alive.contains(id) && view.report(*id).is_some_and(|report| report.postgres.running)
    };
    witnesses
        .iter()
        .filter(|(id, ahead)| **ahead > position && serves(id))
        .filter(|(_, ahead)| record.lineage.is_prefix(position, ahead.epoch))
        .max_by_key(|(_, ahead)| **ahead)
        .map(|(id, ahead)| (*id, *ahead))
}

/// Rule 12: without proof, wait until no lease can be held any more; and the old primary must not
/// be able to prove itself by standbys that are not sealed, unless the operator says it is fenced. A
/// standby that is down counts for nobody: it waits for the monitor's answer when it starts.
pub(super) fn choose_with_loss(
    record: &Record,
    view: &View,
    fenced: bool,
    now: Now,
    (candidate, proof): (NodeId, BTreeMap<NodeId, Position>),
) -> Choice {
    let old = record.primary;
    // Sealed is enough, even where the log has no position: it acknowledges nothing any more.
    let silent = |id: &NodeId| is_sealed(record, view, *id) || is_gone(view, *id);
    let sealed = old.is_none_or(|id| id == candidate || is_sealed(record, view, id));
    // One that is down holds no lease, but may start by itself and count on whoever streams (C14).
    let gone = old.is_none_or(|id| sealed || is_gone(view, id));
    if !fenced && !sealed {
        let free: BTreeSet<_> = record
            .specs
            .iter()
            .filter(|spec| Some(spec.primary) == old && !spec.is_asynchronous())
            .filter(|spec| {
                spec.standbys.iter().filter(|id| !is_sealed(record, view, **id)).count()
                    >= spec.required
            })
            .flat_map(|spec| spec.standbys.iter().copied())
            .filter(|id| !silent(id))
            .collect();
        if !free.is_empty() || (view.unlimited_lease && !gone) {
            return Choice::Wait(Waiting::Fencing(free));
        }
    }
    if !fenced && !gone && now.mono < view.leases_end {
        return Choice::Wait(Waiting::Lease);
    }
    Choice::Elect { candidate, witnesses: proof }
}

/// Whether a node has said that it is sealed in this election.
fn is_sealed(record: &Record, view: &View, id: NodeId) -> bool {
    let sealed = view.report(id).and_then(|report| report.sealed);
    sealed.is_some_and(|sealed| sealed.ticket == record.ticket)
}

/// Whether a node's host answers and neither its keeper nor its Postgres is there.
fn is_gone(view: &View, id: NodeId) -> bool {
    use super::view::Probe;
    view.nodes.get(&id).is_some_and(|evidence| {
        let since = evidence.reported_at;
        matches!(evidence.keeper.newer_than(since), Probe::Refused(_))
            && matches!(evidence.postgres.newer_than(since), Probe::Refused(_))
    })
}
