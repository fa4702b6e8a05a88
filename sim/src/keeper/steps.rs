//! What the steps of a plan do to the node, as far as it takes more than the node alone.

use crate::machine::ServerMemory;
use crate::node::apply;
use crate::world::{Mutation, World};
use fsm::node::Step;
use shared::ids::{Epoch, Gen, NodeId};
use shared::spec::Spec;
use std::collections::BTreeSet;

impl World {
    pub(super) fn carry_out(&mut self, id: NodeId, step: &Step) {
        self.say(|| format!("node {id}: {step:?}"));
        match step {
            Step::Admit { upstream, admission } => self.admit(id, *upstream, *admission),
            Step::Rewind { from } if self.mutation == Mutation::NoPrefixCheck => {
                let own = self.machines.get(id).and_then(|m| m.persisted.as_ref());
                if let Some(admission) = own.and_then(|p| Some(p.assignment.member(id)?.admission))
                {
                    self.admit(id, *from, admission);
                }
            }
            Step::Clone { from } | Step::Rewind { from } => self.begin_job(id, *from, step),
            Step::Promote { timeline } => self.promote(id, *timeline),
            Step::StopFast => {
                self.send_all(id);
                self.simple(id, step);
            }
            Step::Restart => self.restart_postgres(id),
            Step::Barrier(spec) => self.barrier(id, spec),
            Step::Block => {
                self.end_old_admissions(id);
                self.change_sync(id, step);
            }
            Step::Set(_) => self.change_sync(id, step),
            Step::Initialise
            | Step::Adopt
            | Step::Configure(_)
            | Step::StartStandby
            | Step::StartPrimary
            | Step::StopImmediate
            | Step::ConfirmPromotion
            | Step::CatchUp
            | Step::Checkpoint => self.simple(id, step),
        }
        self.acknowledge(id);
    }

    pub(crate) fn simple(&mut self, id: NodeId, step: &Step) {
        let lags = self.lags;
        let Some(machine) = self.machines.get_mut(id) else { return };
        if matches!(step, Step::StartStandby | Step::StartPrimary) && machine.cannot_start {
            return;
        }
        let Some(persisted) = machine.persisted.as_mut() else { return };
        let history = machine.log.history();
        apply(&mut machine.view, persisted, step, &history);
        match step {
            Step::Initialise => machine.log = crate::log::Log::new(id),
            Step::Checkpoint => machine.control = machine.log.timeline(),
            Step::StartStandby
            | Step::StartPrimary
            | Step::StopFast
            | Step::StopImmediate
            | Step::Restart => {
                machine.server = ServerMemory::default();
                machine.server.waiting_from = machine.log.records().len();
                machine.replay_stuck = false;
            }
            Step::Configure(_) | Step::CatchUp | Step::Block | Step::Set(_) | Step::Adopt => {
                if let Some(keeper) = &mut machine.keeper {
                    keeper.sealing_since = None;
                }
            }
            Step::Admit { .. }
            | Step::Clone { .. }
            | Step::Rewind { .. }
            | Step::Promote { .. }
            | Step::ConfirmPromotion
            | Step::Barrier(_) => {}
        }
        // A reload, or a start, puts the file in force.
        let file = machine.view.file.spec.clone();
        let before = std::mem::replace(&mut machine.server.spec, file);
        let reloads = machine.view.server.is_some() && before != machine.server.spec;
        if reloads && lags {
            machine.server.fall_behind(before.as_ref());
        }
        machine.refresh();
    }

    fn promote(&mut self, id: NodeId, timeline: shared::ids::TimelineId) {
        let interrupted = if self.faulty { self.random.below(16) } else { 2 };
        let mutation = self.mutation;
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.log.fork(timeline);
        if interrupted == 0 {
            // The history file is there, and nothing on the new timeline yet.
            machine.stop_postgres(false);
            self.say(|| format!("node {id}: the promotion was interrupted early"));
            return;
        }
        machine.log.push_own(id);
        let epoch = machine.persisted.as_ref().map(|persisted| persisted.assignment.epoch);
        let log = machine.log.records().to_vec();
        if interrupted == 1 {
            machine.stop_postgres(false);
            self.say(|| format!("node {id}: the promotion was interrupted late"));
            return;
        }
        self.simple(id, &Step::Promote { timeline });
        if let Some(machine) = self.machines.get_mut(id) {
            machine.server.receiver = None;
            machine.server.waiting_from = machine.log.records().len();
            // What the history file says, not what the abstract step made of it.
            machine.refresh();
            if mutation == Mutation::PromotesOpen {
                let epoch = epoch.unwrap_or_default();
                machine.server.spec = Some(nobody(id, epoch));
            }
        }
        if let Some(epoch) = epoch {
            self.ledger.promote(epoch, &log);
        }
    }

    fn barrier(&mut self, id: NodeId, spec: &Spec) {
        let mutation = self.mutation;
        let Some(machine) = self.machines.get_mut(id) else { return };
        let barrier = match machine.server.barrier {
            Some((generation, barrier)) if generation == spec.generation => barrier,
            Some(_) | None => {
                machine.log.push_own(id);
                machine.refresh();
                machine.log.end()
            }
        };
        machine.server.barrier = Some((spec.generation, barrier));
        let rows = &machine.server.rows;
        let required = if mutation == Mutation::NoBarrier { 0 } else { spec.required };
        let counted = mutation == Mutation::CountConnected;
        let passed = spec.standbys.iter().filter_map(|id| rows.get(id));
        if passed.filter(|row| counted || row.flushed >= barrier).count() >= required {
            self.simple(id, &Step::Barrier(spec.clone()));
        }
    }
}

/// The asynchronous spec.
fn nobody(primary: NodeId, epoch: Epoch) -> Spec {
    Spec { generation: Gen(0), epoch, primary, required: 0, standbys: BTreeSet::new() }
}
