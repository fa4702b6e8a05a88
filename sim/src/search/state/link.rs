//! Between keepers and the monitor: the report that the monitor holds of each, what it would answer to it, and the
//! answers that are late.

use super::State;
use crate::part::Part;
use crate::world::{MONITOR, Message, Mutation};
use fsm::Millis;
use fsm::group::goals;
use fsm::group::view::Probe;
use shared::goal::Assignment;
use shared::ids::{NodeId, Revision};
use shared::report::{Answer, Report};

impl State {
    /// What the monitor would answer now to the report that it holds of this keeper process, and when
    /// that report was sent; `None` where it would be nothing new.
    pub(super) fn answer(&self, node: NodeId) -> Option<(Answer, u64)> {
        let monitor = &self.world.monitor;
        let keeper = self.world.machines.get(node)?.keeper.as_ref()?;
        let evidence = monitor.view.nodes.get(&node)?;
        let held = evidence.report.as_ref().is_some_and(|report| report.keeper == keeper.name);
        if !held || !monitor.up || !self.world.reaches(MONITOR, node) {
            return None;
        }
        let sent = evidence.reported_at.0;
        let revision = if self.is_joining() { monitor.record.revision } else { Revision(0) };
        let answer = Answer {
            nonce: 0,
            revision,
            // No search loses a record: what is kept for that would only tell states apart.
            assignment: Assignment {
                keepsake: None,
                ..goals::assignment(&monitor.record, &monitor.view, node)?
            },
            lease: goals::lease(&monitor.record, node),
            flushed: Vec::new(),
            sync_members: Vec::new(),
            monitors: Vec::new(),
            wants_catalogue: false,
            archived: shared::report::Archived::default(),
        };
        let mut tenure = keeper.tenure.clone();
        tenure.grant(answer.lease, answer.assignment.order, Millis(sent));
        let news = tenure != keeper.tenure || keeper.heard.as_ref() != Some(&answer);
        news.then_some((answer, sent))
    }

    pub(super) fn hear(&mut self, node: NodeId, process: &str, answer: Answer, sent: u64) {
        let unordered = matches!(self.world.mutation, Mutation::Unordered | Mutation::NoNonce);
        let machine = self.world.machines.get_mut(node);
        let keeper = machine.and_then(|machine| machine.keeper.as_mut());
        if let Some(keeper) = keeper.filter(|keeper| keeper.name == process) {
            let older = keeper.heard.as_ref().is_some_and(|heard| answer.is_older_than(heard));
            if !older || unordered {
                keeper.hear(answer, Some(sent));
                // While time stands still nobody can tell whether the report was sent after a claim; that it
                // was, which ends the claim, is the stronger adversary.
                keeper.granted_at = keeper.granted_at.map(|sent| sent + 1);
            }
        }
    }

    pub(super) fn copy_answer(&mut self, node: NodeId) {
        let keeper = self.world.machines.get(node).and_then(|machine| machine.keeper.as_ref());
        let Some(keeper) = keeper else { return };
        let again = || Some((keeper.heard.clone()?, self.world.now));
        let Some((answer, sent)) = self.answer(node).or_else(again) else { return };
        self.late.insert(node, (keeper.name.clone(), Part::new(answer), sent));
    }

    pub(super) fn deliver_late(&mut self, node: NodeId) {
        let Some((process, answer, sent)) = self.late.remove(&node) else { return };
        let machine = self.world.machines.get(node);
        let present = machine.and_then(|m| m.keeper.as_ref()).map(|keeper| keeper.name.clone());
        // Without a nonce, a process that remembers nothing takes what was meant for another.
        let mutation = self.world.mutation;
        let forgetful = machine.is_some_and(|machine| machine.persisted.is_none());
        let taken = mutation == Mutation::Unordered || mutation == Mutation::NoNonce && forgetful;
        let process = present.filter(|_| taken).unwrap_or(process);
        self.hear(node, &process, Answer::clone(&answer), sent);
    }

    /// A report arrives, and the monitor decides.
    pub(super) fn report(&mut self, node: NodeId, report: &Report) {
        let now = self.world.now;
        if !self.world.reaches(MONITOR, node) || !self.world.monitor.up {
            return;
        }
        if !self.world.monitor.record.nodes.contains_key(&node) {
            self.world.dismiss(node);
            return;
        }
        if !self.world.monitor.take_report(node, report.clone(), now) {
            return;
        }
        if let Some(evidence) = self.world.monitor.view_mut().nodes.get_mut(&node) {
            // Older than the report, if only by an instant.
            evidence.keeper = Probe::Unknown;
            evidence.postgres = Probe::Unknown;
            evidence.peers.clear();
            if let Some(report) = &mut evidence.report {
                report.seq = 0;
            }
        }
        self.world.decide();
    }

    /// Keeps what was said.
    pub(super) fn collect(&mut self) {
        for message in std::mem::take(&mut self.world.messages) {
            if let Message::Report(node, report) = message {
                let revision = if self.is_joining() { report.revision } else { Revision(0) };
                let report = Report { seq: 1, nonce: 0, revision, ..*report };
                self.said.insert(node, Part::new(report));
            }
        }
        for node in self.world.ids() {
            let machine = self.world.machines.get(node);
            let stale = machine.and_then(|m| m.keeper.as_ref()).is_some_and(|k| k.seq > 0);
            if stale
                && let Some(keeper) =
                    self.world.machines.get_mut(node).and_then(|machine| machine.keeper.as_mut())
            {
                keeper.seq = 0;
                keeper.calls.clear();
            }
        }
    }

    /// A keeper process has ended, and its connections with it.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.said.remove(&node);
        if !matches!(self.world.mutation, Mutation::Unordered | Mutation::NoNonce) {
            self.late.remove(&node);
        }
    }
}
