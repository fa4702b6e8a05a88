//! The reports that are held, and when and what they are answered.
//!
//! A report is answered at once where the keeper does not have the node's present assignment, else
//! when that changes, else at its deadline, which renews the lease. The revision in an answer is the
//! one at which the assignment last changed; the keeper repeats it.

use super::command::{Incoming, ReportRefused, ReportReply};
use crate::secret;
use fsm::Millis;
use fsm::group::{Record, View};
use fsm::group::{goals, join};
use shared::goal::Assignment;
use shared::ids::{NodeId, Revision};
use shared::lsn::Lsn;
use shared::report::{Answer, Archived, Report};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// The refused process comes again and again; one line of log in ten seconds says enough.
const COMPLAINT_INTERVAL_MS: u64 = 10_000;

/// What a node is to be told.
struct Told {
    assignment: Assignment,
    /// The record's revision when it last changed.
    since: Revision,
    /// An answer with it has been sent to the keeper process that reports now.
    delivered: bool,
}

/// A report that waits for its answer.
struct Held {
    report: Report,
    deadline: Millis,
    reply: oneshot::Sender<ReportReply>,
}

/// The answers of a group.
pub(super) struct Answers {
    told: BTreeMap<NodeId, Told>,
    held: BTreeMap<NodeId, Held>,
    /// Answers that are due whatever they say: a newer report of the same keeper has come.
    due: Vec<(NodeId, Held)>,
    /// When a second keeper process was last complained of.
    complained: Option<Millis>,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self { told: BTreeMap::new(), held: BTreeMap::new(), due: Vec::new(), complained: None }
    }

    /// Takes a report that may come in, to be answered; refuses it otherwise.
    pub(super) fn admit(
        &mut self,
        record: &Record,
        view: &View,
        incoming: Box<Incoming>,
        now: Millis,
    ) -> bool {
        let Incoming { node, secret, report, deadline, reply } = *incoming;
        if let Some(refused) = refusal(record, view, node, (&secret, &report), now) {
            if refused == ReportRefused::Duplicate
                && self.complained.is_none_or(|at| now.since(at) > COMPLAINT_INTERVAL_MS)
            {
                self.complained = Some(now);
                tracing::warn!(
                    formation.id = %record.formation,
                    node.id = node.0,
                    "a second keeper process reports for node {node} and is refused: is the same \
                     state directory in use twice?"
                );
            }
            // Nobody listens if the keeper has gone.
            drop(reply.send(Err(refused)));
            return false;
        }
        let known = view.report(node);
        if known.is_none_or(|known| known.keeper != report.keeper)
            && let Some(told) = self.told.get_mut(&node)
        {
            told.delivered = false;
        }
        let late = known.is_some_and(|k| k.keeper == report.keeper && k.seq >= report.seq);
        let held = Held { report, deadline, reply };
        if late {
            self.due.push((node, held));
            return false;
        }
        if let Some(older) = self.held.insert(node, held) {
            self.due.push((node, older));
        }
        true
    }

    /// Follows the assignments.
    pub(super) fn refresh(&mut self, record: &Record, view: &View) {
        self.told.retain(|id, _| record.nodes.contains_key(id));
        for id in record.nodes.keys() {
            let Some(assignment) = goals::assignment(record, view, *id) else {
                self.told.remove(id);
                continue;
            };
            if self.told.get(id).is_none_or(|told| told.assignment != assignment) {
                let told = Told { assignment, since: record.revision, delivered: false };
                self.told.insert(*id, told);
            }
        }
    }

    /// Answers what is due.
    pub(super) fn answer(&mut self, record: &Record, view: &mut View, now: Millis) {
        let due: Vec<_> = self
            .held
            .iter()
            .filter(|(id, held)| {
                held.deadline <= now
                    || self.is_news(**id, &held.report)
                    || gets_no_orders(record, **id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(held) = self.held.remove(&id) {
                self.due.push((id, held));
            }
        }
        for (id, held) in std::mem::take(&mut self.due) {
            let reply = self.reply(record, view, (id, &held.report), now);
            // Nobody listens if the keeper has gone; it is told again when it is back.
            if held.reply.send(reply).is_ok()
                && let Some(told) = self.told.get_mut(&id)
            {
                told.delivered = true;
            }
        }
    }

    /// Answers everything: the process ends.
    pub(super) fn answer_all(&mut self, record: &Record, view: &mut View, now: Millis) {
        self.due.extend(std::mem::take(&mut self.held));
        self.answer(record, view, now);
    }

    /// When the next answer is due.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.held.values().map(|held| held.deadline).min()
    }

    fn is_news(&self, id: NodeId, report: &Report) -> bool {
        self.told.get(&id).is_none_or(|told| !told.delivered || report.revision < told.since)
    }

    fn reply(
        &self,
        record: &Record,
        view: &mut View,
        (id, report): (NodeId, &Report),
        now: Millis,
    ) -> ReportReply {
        if gets_no_orders(record, id) {
            return Err(ReportRefused::Quarantine);
        }
        let told = self.told.get(&id).ok_or(ReportRefused::Dropped)?;
        let lease = goals::lease(record, id);
        view.note_lease(lease, now);
        Ok(Box::new(Answer {
            nonce: report.nonce,
            revision: told.since,
            assignment: told.assignment.clone(),
            lease,
            flushed: flushed(record, view, id),
            sync_members: sync_members(record),
            monitors: Vec::new(),
            wants_catalogue: view.wants_catalogue(report),
            archived: archived(record, view),
        }))
    }
}

/// Whether what this node has accepted has to be heard before anything is said to it.
fn gets_no_orders(record: &Record, id: NodeId) -> bool {
    record.quarantined || record.nodes.get(&id).is_some_and(|node| node.absent)
}

/// Why a report may not come in.
fn refusal(
    record: &Record,
    view: &View,
    node: NodeId,
    (given, report): (&str, &Report),
    now: Millis,
) -> Option<ReportRefused> {
    let known = match record.nodes.get(&node) {
        Some(known) if !known.secret.is_empty() => known,
        None if join::was_dropped(record, node, given) => return Some(ReportRefused::Dropped),
        Some(_) | None => return Some(ReportRefused::Unknown),
    };
    if !secret::equal(given, &known.secret) {
        return Some(ReportRefused::Secret);
    }
    let evidence = view.nodes.get(&node)?;
    let other = evidence.report.as_ref().filter(|last| last.keeper != report.keeper);
    let fresh = record.settings.timers().report_interval_ms.saturating_mul(2);
    let alive = !evidence.closed && now.since(evidence.reported_at) <= fresh;
    (other.is_some() && alive).then_some(ReportRefused::Duplicate)
}

/// The members of the sync set in force.
fn sync_members(record: &Record) -> Vec<NodeId> {
    let in_force = record.specs.iter().find(|spec| Some(spec.generation) == record.confirmed);
    in_force.map(|spec| spec.standbys.iter().copied().collect()).unwrap_or_default()
}

/// What the primary has in the archive.
fn archived(record: &Record, view: &View) -> Archived {
    let report = record.primary.and_then(|primary| view.report(primary));
    report
        .and_then(|report| report.archive.as_ref())
        .map(|archive| archive.archived)
        .unwrap_or_default()
}

/// Up to where the other nodes have the log.
fn flushed(record: &Record, view: &View, id: NodeId) -> Vec<(NodeId, Lsn)> {
    let others = record.nodes.keys().copied().filter(|other| *other != id);
    others.filter_map(|other| Some((other, view.report(other)?.postgres.lsn?))).collect()
}
