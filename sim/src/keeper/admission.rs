//! Rule 10: who is let in by whom, what an upstream confirms before, and what it has not got.

use crate::machine::Machine;
use crate::world::{Mutation, World};
use fsm::node::view::Lack;
use fsm::node::{Step, Upstream};
use shared::goal::Goal;
use shared::ids::{NodeId, Ticket};

impl World {
    pub(super) fn admit(&mut self, id: NodeId, upstream: NodeId, admission: Ticket) {
        if !self.confirms(id, upstream) {
            return;
        }
        if let Some(upstream) = self.machines.get_mut(upstream) {
            upstream.slots.insert((id, admission));
        }
        self.simple(id, &Step::Admit { upstream, admission });
    }

    fn confirms(&self, id: NodeId, from: NodeId) -> bool {
        let goal = self.machines.get(id).and_then(|m| m.persisted.as_ref());
        match goal.map(|persisted| &persisted.assignment.goal) {
            Some(Goal::Follow { upstream }) if upstream.is_standby() => {
                self.confirm_standby(id, from).is_some()
            }
            Some(_) | None => self.confirm_upstream(id, from).is_some(),
        }
    }

    /// The upstream itself confirms that it is the running primary of the assigned epoch (rule 10).
    pub(super) fn confirm_upstream(&self, id: NodeId, from: NodeId) -> Option<&Machine> {
        let assignment = &self.machines.get(id)?.persisted.as_ref()?.assignment;
        let timeline = assignment.lineage.entry(assignment.epoch)?.timeline;
        let upstream = self.machines.get(from).filter(|_| self.reaches(id, from))?;
        if self.mutation == Mutation::CloneFromAny {
            let other = |m: &&Machine| m.id != id && m.is_ready() && self.reaches(id, m.id);
            return self.machines.values().filter(other).find(|m| m.id != from).or(Some(upstream));
        }
        (upstream.is_writable() && upstream.log.timeline() == timeline).then_some(upstream)
    }

    /// A standby confirms that it streams, as it was admitted, what the primary of the assigned epoch writes.
    fn confirm_standby(&self, id: NodeId, from: NodeId) -> Option<&Machine> {
        let assignment = &self.machines.get(id)?.persisted.as_ref()?.assignment;
        let timeline = assignment.lineage.entry(assignment.epoch)?.timeline;
        let admission = assignment.member(from)?.admission;
        let upstream = self.machines.get(from).filter(|_| self.reaches(id, from))?;
        let streams = upstream.view.server.as_ref().is_some_and(|server| server.in_recovery)
            && upstream.server.receiver.as_ref().is_some_and(|r| r.slot == Some(admission));
        (streams && upstream.log.timeline() == timeline).then_some(upstream)
    }

    /// What the upstream says that it has not got.
    pub(super) fn upstream_lacks(&self, id: NodeId) -> Option<Lack> {
        let machine = self.machines.get(id)?;
        let waits = machine.view.server.as_ref().is_some_and(|s| s.in_recovery && !s.streaming);
        let upstream = machine.view.file.upstream.as_ref().filter(|_| waits)?;
        let (from, slot) = match upstream {
            Upstream::Member { node, admission } => (*node, Some((id, *admission))),
            Upstream::Fetch { node } => (*node, None),
        };
        let source = self.machines.get(from).filter(|m| m.is_ready() && self.reaches(id, from))?;
        if machine.log.records().len() < source.wal_from {
            return Some(Lack::Wal);
        }
        slot.filter(|slot| !source.slots.contains(slot)).map(|_| Lack::Slot)
    }

    pub(super) fn drop_old_slots(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(id) else { return };
        let Some(persisted) = &machine.persisted else { return };
        let assignment = &persisted.assignment;
        let lets_in = matches!(assignment.goal, Goal::Primary { .. } | Goal::Follow { .. });
        // One of a later admission than this node has heard of stays.
        machine.slots.retain(|(node, ticket)| {
            lets_in && assignment.member(*node).is_some_and(|m| *ticket >= m.admission)
        });
    }

    /// Rule 9, i: whoever was let in before, while this was a standby perhaps, is let out before anybody is
    /// counted.
    pub(super) fn end_old_admissions(&mut self, id: NodeId) {
        if self.mutation == Mutation::KeepsOldSlots {
            return;
        }
        let Some(machine) = self.machines.get_mut(id) else { return };
        let Some(persisted) = &machine.persisted else { return };
        let members = persisted.assignment.members.clone();
        let stands = |node: NodeId, ticket: Ticket| {
            // Whoever is no member any more is in no new spec.
            let member = members.iter().find(|member| member.id == node);
            member.is_none_or(|member| ticket >= member.admission)
        };
        machine.slots.retain(|(node, ticket)| stands(*node, *ticket));
        machine.server.rows.retain(|node, row| stands(*node, row.slot));
    }
}
