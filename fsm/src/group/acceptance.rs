//! Timelines that somebody began by hand, and the election of a node that is on one: who is on which, and
//! what the record becomes where an operator has accepted one.
//!
//! The log of such a node is never a witness (rule 4), and no position of it stands beside those of the
//! others: it is elected because loss was accepted, under the conditions of rule 12, or not at all. With
//! the decision each timeline that it went through by hand gets an epoch of its own. The next elections,
//! proofs of rule 10 and rewinds are the ordinary ones.

use super::detector::verdict;
use super::election::{Choice, Waiting, choose_with_loss};
use super::record::{Election, Record};
use super::view::View;
use crate::Now;
use shared::history::{LineageEntry, Segment, Start};
use shared::ids::{NodeId, NodeName, TimelineId};
use shared::lsn::{Lsn, Position};
use shared::report::{Data, Report, Stray};
use std::collections::{BTreeMap, BTreeSet};

/// A node on a timeline that no epoch owns.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    /// The node.
    pub(crate) node: NodeId,
    /// What it says of its log.
    pub(crate) stray: &'a Stray,
    /// The timelines without an epoch, oldest first, each with the one before it and its end.
    pub(crate) timelines: Vec<(Segment, TimelineId)>,
}

impl Claim<'_> {
    /// Where the log left the group's history.
    pub(crate) fn fork(&self) -> Option<Segment> {
        self.timelines.first().map(|(before, _)| *before)
    }
}

/// The living nodes on timelines that no epoch owns, and that continue the group's history.
pub(crate) fn claims<'a>(record: &Record, view: &'a View, now: Now) -> Vec<Claim<'a>> {
    let timers = record.settings.timers();
    let lives = |id: &NodeId| !verdict(view, *id, &timers, now.mono).is_dead();
    record.nodes.keys().copied().filter(lives).filter_map(|id| claim(record, view, id)).collect()
}

fn claim<'a>(record: &Record, view: &'a View, node: NodeId) -> Option<Claim<'a>> {
    let report = view.report(node)?;
    let stray = report.stray.as_ref().filter(|_| is_of_the_group(record, report))?;
    let timelines = record.lineage.strays(&stray.history)?;
    Some(Claim { node, stray, timelines })
}

fn is_of_the_group(record: &Record, report: &Report) -> bool {
    match report.data {
        Data::Present { system_identifier } => record.system_identifier == Some(system_identifier),
        Data::Empty | Data::Rebuilding | Data::Unusable => false,
    }
}

/// What an election comes to whose operator has accepted a timeline; `None` where the node that is on it
/// can no longer be had: the election goes on as if nothing had been accepted.
pub(super) fn choose(
    record: &Record,
    view: &View,
    election: &Election,
    now: Now,
    witnesses: &BTreeMap<NodeId, Position>,
) -> Option<Choice> {
    let timeline = election.timeline?;
    let (candidate, loss) = (election.preferred?, election.loss?);
    if verdict(view, candidate, &record.settings.timers(), now.mono).is_dead() {
        return None;
    }
    let unanswered = Some(Choice::Wait(Waiting::Answers(BTreeSet::from([candidate]))));
    // What it said before it heard of this election is about another goal.
    let of_now = |ticket| ticket == record.ticket;
    let heard = |report: &&Report| report.accepted.is_some_and(|a| of_now(a.order.ticket));
    let Some(report) = view.report(candidate).filter(heard) else { return unanswered };
    let claim = claim(record, view, candidate)
        .filter(|claim| claim.stray.history.timeline == timeline && report.failed.is_none())?;
    let sealed = report.sealed.is_some_and(|sealed| of_now(sealed.ticket));
    let Some(end) = claim.stray.end.filter(|_| sealed) else { return unanswered };
    let epoch = claim.timelines.iter().fold(record.epoch, |epoch, _| epoch.next());
    let mut sealed = witnesses.clone();
    sealed.insert(candidate, Position { epoch, lsn: end });
    Some(choose_with_loss(record, view, loss.fenced, now, (candidate, sealed)))
}

/// The record in which the timelines of an elected node are epochs, where it was elected for one of them:
/// nobody else's position is of an epoch that has not been decided.
pub(super) fn taken_in(
    record: &Record,
    view: &View,
    (candidate, position): (NodeId, Position),
) -> Option<Record> {
    let claim = claim(record, view, candidate).filter(|_| position.epoch > record.epoch)?;
    let mut next = record.clone();
    for (before, timeline) in claim.timelines {
        let parent = next.lineage.epoch_of(before.timeline);
        next.epoch = next.epoch.next();
        next.lineage.0.push(LineageEntry {
            start: Some(Start { parent, lsn: before.end }),
            accepted: Some(candidate),
            ..LineageEntry::reserved(next.epoch, timeline)
        });
        next.highest_timeline = next.highest_timeline.max(timeline);
    }
    Some(next)
}

/// Who has more of the group's history than what lies before a fork, by the newest reports, and how many
/// bytes: at least that is given up where the timeline that begins there is accepted.
pub(crate) fn beyond(
    record: &Record,
    view: &View,
    (candidate, fork): (NodeId, Segment),
) -> Vec<(NodeName, Lsn, u64)> {
    let others = record.nodes.iter().filter(|(id, _)| **id != candidate);
    let further = others.filter_map(|(id, node)| {
        let report = view.report(*id).filter(|report| report.stray.is_none())?;
        let end = report.postgres.lsn.filter(|end| *end > fork.end)?;
        let timeline = report.postgres.timeline.filter(|timeline| *timeline >= fork.timeline)?;
        record.lineage.epoch_of(timeline)?;
        Some((node.name.clone(), end, end.bytes_since(fork.end)))
    });
    further.collect()
}
