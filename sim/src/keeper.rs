//! A keeper's turn: take the newest assignment, look, plan, report, act. The plan is the real one.

mod admission;
mod copy;
mod report;
mod right;
mod steps;

use crate::machine::{Frozen, Machine};
use crate::world::{Mutation, World};
use fsm::node::plan::Next;
use fsm::node::view::Persisted;
use fsm::node::{Plan, Process, plan};
use shared::ids::{Gen, NodeId};
use shared::state::NodeState;

/// How long a keeper that was asked to stop waits for the monitor's consent; shorter than the real one,
/// as all timers are.
const STOP_PATIENCE_MS: u64 = 3000;

impl World {
    /// One turn of a node's keeper; says what it found to do.
    pub fn keeper_turn(&mut self, id: NodeId) -> Option<Next> {
        let mutation = self.mutation;
        if self.machines.get(id).is_some_and(|machine| machine.frozen == Frozen::Postgres) {
            self.repeat_report(id);
        }
        let machine = self.machines.get_mut(id).filter(|machine| machine.is_kept())?;
        let now = machine.time(self.now);
        if let Some(line) = machine.take_assignment(self.mutation) {
            self.say(|| line);
        }
        let copying = self.look_after_job(id);
        self.note_replies(id);
        let lacks = self.upstream_lacks(id);
        self.look_at_archive(id);
        let machine = self.machines.get_mut(id)?;
        machine.view.upstream_lacks = lacks;
        machine.look(now);
        machine.view.may_write |= mutation == Mutation::StartsAlone;
        if matches!(mutation, Mutation::IgnoresOrders | Mutation::SaysDone) {
            machine.view.due = None;
        }
        self.ask_hook(id, now);
        let machine = self.machines.get(id)?;
        let plan = if copying {
            Plan { state: NodeState::Catchingup, next: Next::Wait("the copy") }
        } else {
            planned(machine, mutation)
        };
        self.note_look(id, &plan);
        self.send_report(id, &plan);
        match &plan.next {
            Next::Do(step) => self.carry_out(id, step),
            Next::Reached => self.drop_old_slots(id),
            Next::Wait(_) => {}
        }
        if plan.next == Next::Reached {
            self.leave(id);
        }
        Some(plan.next)
    }

    /// A keeper that was asked to stop has nothing left to do.
    fn leave(&mut self, id: NodeId) {
        let stops = self.machines.get(id).is_some_and(|machine| {
            let leaving = machine.keeper.as_ref().is_some_and(|k| k.leaving_since.is_some());
            leaving && machine.view.stopping && machine.view.process == Process::Stopped
        });
        if stops {
            self.say(|| format!("node {id}: the keeper ends as asked"));
            self.end_keeper(id);
        }
    }
}

impl Machine {
    /// Accepts the newest assignment; says what it is.
    fn take_assignment(&mut self, mutation: Mutation) -> Option<String> {
        let answer = self.keeper.as_ref()?.heard.clone()?;
        self.make_good();
        let before = self.persisted.clone();
        let mut known = before.clone().filter(|_| mutation != Mutation::Unordered);
        if let Some(known) = known.as_mut().filter(|_| mutation == Mutation::NoGenerations) {
            known.assignment.order.generation = Gen(0);
        }
        let Ok(Some(mut next)) = Persisted::accept(known.as_ref(), &answer.assignment) else {
            return None;
        };
        next.own = Some(self.id);
        if let Some(before) = before.as_ref().filter(|_| mutation == Mutation::Unordered) {
            if before.assignment == next.assignment {
                return None;
            }
            next.promoted.clone_from(&before.promoted);
            next.admitted = before.admitted;
        }
        let (order, goal) = (next.assignment.order, next.assignment.goal.clone());
        let line = format!("node {}: told {order:?} {goal:?}", self.id);
        self.persisted_before = before.filter(|_| mutation == Mutation::ForgetSeal);
        self.persisted = Some(next);
        Some(line)
    }

    /// What the keeper sees.
    fn look(&mut self, now: u64) {
        self.note_wake(false, now);
        self.refresh();
        self.unclaim(now);
        self.view.due = self.due();
        let in_force = self.spec_in_force();
        let primary = self.persisted.as_ref().is_some_and(|p| p.assignment.goal.spec().is_some());
        let alone = self.view.file.spec.as_ref().is_some_and(|spec| !spec.is_asynchronous());
        let lease_ms = self.lease_ms();
        let writable = self.view.is_primary();
        let accepted = self.persisted.as_ref().map(|persisted| persisted.assignment.order);
        let Some(keeper) = self.keeper.as_mut() else { return };
        if let Some(accepted) = accepted.filter(|_| !primary && !writable) {
            keeper.tenure.end(accepted);
        }
        let heard = keeper.heard.is_some();
        let running = self.view.process != Process::Stopped;
        let consent = keeper.heard.as_ref().is_some_and(|answer| answer.assignment.may_stop);
        self.view.stopping = keeper
            .leaving_since
            .is_some_and(|since| consent || !heard || now.saturating_sub(since) > STOP_PATIENCE_MS);
        self.view.heard = heard;
        self.view.may_write =
            keeper.holds(in_force.as_ref(), lease_ms, now) && (heard || alone || running);
        let sealing = self.view.file.upstream.is_none()
            && self.view.server.as_ref().is_some_and(|s| s.in_recovery && !s.sealed);
        if sealing {
            let since = *keeper.sealing_since.get_or_insert(now);
            self.view.sealing_for_ms = now.saturating_sub(since);
        } else {
            keeper.sealing_since = None;
            self.view.sealing_for_ms = 0;
        }
    }
}

/// The real plan, or what is left of it without a rule.
fn planned(machine: &Machine, mutation: Mutation) -> Plan {
    let persisted = machine.persisted.as_ref();
    let serves = persisted.is_some_and(|p| p.assignment.goal.spec().is_some());
    if mutation == Mutation::FencedStays && machine.was_fenced && !serves {
        let next = Next::Wait("to be the primary again");
        return Plan { state: NodeState::DemoteTimeout, next };
    }
    plan(&machine.view, persisted)
}
