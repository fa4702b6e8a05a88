//! A keeper's turn, up to the next step that somebody else could see.

use super::State;
use crate::machine::Machine;
use fsm::node::plan::Next;
use fsm::node::{Process, Step};
use shared::ids::NodeId;

/// More local steps in a row than any plan has.
const LOCAL_STEPS: usize = 24;

impl State {
    /// What a keeper does until somebody else could see it: the steps in between commute with
    /// everything that others do.
    pub(super) fn turn(&mut self, node: NodeId, hears: bool) {
        if hears && let Some((answer, sent)) = self.answer(node) {
            // The lease is noted on the other side as well.
            drop(self.world.monitor.answer(node, 0, self.world.now));
            let keeper = self.world.machines.get(node).and_then(|m| m.keeper.as_ref());
            let process = keeper.map(|keeper| keeper.name.clone()).unwrap_or_default();
            self.hear(node, &process, answer, sent);
        }
        self.act_locally(node);
        if let Some(report) = self.said.get(&node).cloned() {
            self.report(node, &report);
        }
    }

    fn act_locally(&mut self, node: NodeId) {
        for _ in 0..LOCAL_STEPS {
            let next = self.world.keeper_turn(node);
            self.collect();
            let more = match next {
                Some(Next::Do(step)) => !is_visible(&step),
                Some(Next::Wait(_)) => self.postgres_moves(node),
                Some(Next::Reached) | None => false,
            };
            if !more {
                return;
            }
        }
    }

    /// Postgres gets ready, or shows the signs of a seal, before anything else happens.
    fn postgres_moves(&mut self, node: NodeId) -> bool {
        let Some(machine) = self.world.machines.get(node) else { return false };
        let sealing = |machine: &Machine| {
            let unsealed = machine.view.server.as_ref().is_some_and(|s| s.in_recovery && !s.sealed);
            machine.view.file.upstream.is_none() && unsealed && !machine.replay_stuck
        };
        let starting = machine.view.server.is_none() && machine.view.process != Process::Stopped;
        if !starting && !sealing(machine) {
            return false;
        }
        self.world.postgres_turn(node);
        true
    }
}

/// Whether another process can see this step happen, or what it does to others.
fn is_visible(step: &Step) -> bool {
    match step {
        Step::Initialise
        | Step::Admit { .. }
        | Step::Clone { .. }
        | Step::Rewind { .. }
        | Step::Promote { .. }
        | Step::Block
        | Step::Set(_)
        | Step::Barrier(_)
        | Step::StopFast
        | Step::Restart => true,
        Step::Adopt
        | Step::CatchUp
        | Step::Configure(_)
        | Step::StartStandby
        | Step::StartPrimary
        | Step::StopImmediate
        | Step::ConfirmPromotion
        | Step::Checkpoint => false,
    }
}
