//! Copies and rewinds, which take their time and may break off.

use crate::machine::{Job, Machine, ServerMemory};
use crate::node::{begin_copy, finish_copy};
use crate::world::{Mutation, World};
use fsm::node::Step;
use fsm::node::view::Due;
use shared::ids::NodeId;
use shared::lsn::Position;

impl World {
    pub(super) fn begin_job(&mut self, id: NodeId, from: NodeId, step: &Step) {
        let checkpointed = |m: &Machine| m.control == m.log.timeline();
        let rewind = matches!(step, Step::Rewind { .. });
        if self.confirm_upstream(id, from).is_none_or(|m| rewind && !checkpointed(m)) {
            return;
        }
        let end = self.confirm_upstream(id, from).map(|upstream| upstream.log.end());
        let trusts = self.mutation == Mutation::TrustsBackups;
        let again = self.machines.get(id).is_some_and(|machine| machine.from_backup);
        let restores = !rewind && self.archives && !again && self.random.one_in(2);
        if let Some(machine) = self.machines.get_mut(id)
            && let Some(persisted) = machine.persisted.as_mut()
        {
            let epoch = persisted.assignment.epoch;
            machine.server = ServerMemory::default();
            machine.replay_stuck = false;
            begin_copy(&mut machine.view, persisted);
            if let Some(lsn) = end.filter(|_| !rewind && !trusts) {
                persisted.owes = Some(Position { epoch, lsn });
            }
            machine.job = Some(Job { from, epoch, restores });
            if !rewind {
                if let Some(keeper) = &mut machine.keeper {
                    keeper.down_since = None;
                }
                self.remember(id, Due::Copy);
            }
        }
    }

    pub(super) fn look_after_job(&mut self, id: NodeId) -> bool {
        let Some(machine) = self.machines.get_mut(id) else { return false };
        let wanted = machine.persisted.as_ref().and_then(|persisted| {
            let assignment = &persisted.assignment;
            Some((assignment.goal.upstream()?, assignment.epoch))
        });
        let Some(job) = machine.job.clone() else { return false };
        if wanted != Some((job.from, job.epoch)) {
            machine.job = None;
            return false;
        }
        if self.random.one_in(3) {
            return true;
        }
        let source = self
            .confirm_upstream(id, job.from)
            .map(|m| (m.log.clone(), m.view.file.clone(), m.wal_from));
        let broken = self.faulty && self.random.one_in(6);
        let backup = self.backup();
        let Some(machine) = self.machines.get_mut(id) else { return false };
        let restores = job.restores && backup.is_some();
        machine.job = None;
        let (Some((log, file, wal_from)), false) = (source, broken) else { return false };
        if let Some(backup) = backup.filter(|_| restores) {
            machine.restore(backup);
            self.say(|| format!("node {id}: restored from a backup"));
            return false;
        }
        if let Some(persisted) = machine.persisted.as_mut() {
            machine.view.file = file;
            finish_copy(&mut machine.view, persisted, job.from, &log.history());
            let slot = persisted.admitted.map(|admitted| (id, admitted.admission));
            machine.control = log.timeline();
            machine.log = log;
            machine.asked = None;
            machine.from_backup = false;
            machine.wal_from = wal_from;
            machine.slots.clear();
            machine.refresh();
            if let Some(source) = self.machines.get_mut(job.from) {
                source.slots.extend(slot);
            }
        }
        false
    }
}
