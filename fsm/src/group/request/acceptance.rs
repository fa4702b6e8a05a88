//! `accept timeline`: the operator takes what a node has on a timeline of its own for the truth.

use super::{Reply, Request, bad_value, refused};
use crate::group::acceptance::{Claim, beyond, claims};
use crate::group::record::{LossAccepted, Note, OperationKind, Phase, Record};
use crate::group::rules::election::begin;
use serde_json::json;
use shared::api::{ApiError, Outcome};
use shared::history::Segment;
use shared::ids::TimelineId;

/// A reason is a sentence, not a report.
const LONGEST_REASON: usize = 500;

impl Request<'_> {
    pub(super) fn accept_timeline(
        &self,
        timeline: TimelineId,
        why: &str,
        loss: LossAccepted,
    ) -> Result<Reply, ApiError> {
        if why.is_empty() || why.len() > LONGEST_REASON {
            let message = format!("a reason has 1 to {LONGEST_REASON} characters");
            return Err(bad_value("bad_value", message));
        }
        let present = self.record.present_timeline().map(|entry| entry.timeline);
        if present == Some(timeline) && self.record.phase == Phase::Serving {
            return Ok(self.already(format!("timeline {timeline} is the group's present one")));
        }
        if let Some(reply) = self.still_accepts(timeline, loss) {
            return Ok(reply);
        }
        if let Some(epoch) = self.record.lineage.epoch_of(timeline) {
            let message = format!(
                "timeline {timeline} is that of epoch {epoch} of this group: there is nothing to accept; `pgtandem timelines` shows the others"
            );
            return Err(refused("is_known", message, &[]));
        }
        let claims = claims(self.record, self.view, self.now);
        let claim = self.only_one(timeline, &claims)?;
        match self.record.phase {
            Phase::Serving | Phase::Electing(_) | Phase::Forwarding { .. } => {}
            Phase::Forming | Phase::Promoting => self.free()?,
        }
        let Some(fork) = claim.fork() else {
            return Err(refused("unknown_timeline", "its beginning is not known", &[]));
        };
        Ok(self.accepts(claim, fork, why, loss))
    }

    /// The election for it is under way: what is new is what the operator says about the old primary.
    fn still_accepts(&self, timeline: TimelineId, loss: LossAccepted) -> Option<Reply> {
        let election = self.record.phase.election().filter(|e| e.timeline == Some(timeline))?;
        let id = self.record.operation.as_ref()?.id;
        let reason = format!("the operator accepts timeline {timeline}, as before");
        let result = self.result(id, Outcome::Accepted, reason.clone());
        if election.loss == Some(loss) {
            return Some(Reply::Already(result));
        }
        let mut election = election.clone();
        election.loss = Some(loss);
        let next = Record { phase: Phase::Electing(election), ..self.record.clone() };
        let fenced = if loss.fenced { "" } else { " not" };
        let note = Note::new(
            "operation",
            "operator",
            format!("{reason}, and says that the old primary is{fenced} fenced"),
        );
        let decision = self.record.decide(next, vec![note], self.now);
        Some(Reply::Decided(Box::new(decision), result))
    }

    /// One number may be on two nodes that were promoted apart from each other, with the same files.
    fn only_one<'a>(
        &self,
        timeline: TimelineId,
        claims: &'a [Claim<'a>],
    ) -> Result<&'a Claim<'a>, ApiError> {
        let on: Vec<_> =
            claims.iter().filter(|claim| claim.stray.history.timeline == timeline).collect();
        let ids = on.iter().map(|claim| claim.node).collect();
        let nodes: Vec<_> =
            on.iter().filter_map(|claim| self.record.nodes.get(&claim.node)).collect();
        let names: Vec<_> = nodes.iter().map(|node| &node.name).collect();
        match on.as_slice() {
            [claim] if nodes.iter().all(|node| !node.dropping) => Ok(claim),
            [] => {
                let message = format!(
                    "no node that answers is on a timeline {timeline} of its own; `pgtandem timelines` shows which there are"
                );
                Err(refused("unknown_timeline", message, &[]))
            }
            [_] => {
                let message = format!("{} is being dropped", self.record.names_of(&ids));
                Err(refused("is_dropping", message, &names))
            }
            [_, _, ..] => {
                let message = format!(
                    "{} are each on a timeline {timeline} of their own; stop the keepers of all but the one that is meant, and ask again",
                    self.record.names_of(&ids)
                );
                Err(refused("ambiguous_timeline", message, &names))
            }
        }
    }

    fn accepts(&self, claim: &Claim<'_>, fork: Segment, why: &str, loss: LossAccepted) -> Reply {
        let (id, timeline) = (claim.node, claim.stray.history.timeline);
        let kind = OperationKind::AcceptTimeline;
        let mut next = begin(self.record, kind.name(), Some(id), false, Some(loss));
        if let Phase::Electing(election) = &mut next.phase {
            election.timeline = Some(timeline);
        }
        if let Some(node) = next.nodes.get_mut(&id) {
            node.maintenance = false;
        }
        // It may be waiting for the very primary that is given up.
        let reason = format!("given up for timeline {timeline}, which the operator accepted");
        next.finish(Outcome::Failed, &reason, self.now);
        let given_up = beyond(self.record, self.view, (id, fork));
        let lost: Vec<_> =
            given_up.iter().map(|(name, _, bytes)| format!("{bytes} bytes of {name}")).collect();
        let lost =
            if lost.is_empty() { "nothing that is known of".to_owned() } else { lost.join(", ") };
        let sentence = format!(
            "the operator accepts timeline {timeline} of {}, which left timeline {} at {}, and gives up {lost}: {why}",
            self.record.name_of(id),
            fork.timeline,
            fork.end
        );
        let given_up: Vec<_> = given_up
            .iter()
            .map(|(node, lsn, bytes)| json!({ "node": node, "lsn": lsn, "bytes": bytes }))
            .collect();
        let mut note = Note::new("phase", "operator", sentence)
            .about(id)
            .change(self.record.phase.name(), next.phase.name())
            .evidence(json!({
                "accepted_timeline": timeline,
                "continues": { "timeline": fork.timeline, "lsn": fork.end },
                "why": why,
                "fenced": loss.fenced,
                "given_up": given_up,
            }));
        (note.timeline, note.lsn) = (Some(timeline), Some(fork.end));
        self.accepted(next, kind, Some(id), note)
    }
}
