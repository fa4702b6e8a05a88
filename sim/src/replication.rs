//! What Postgres does by itself: getting ready, connecting, streaming, acknowledging.

use crate::log::{RecordId, location};
use crate::machine::{Machine, Receiver, Row};
use crate::node::{become_ready, show_signs};
use crate::world::{Mutation, World};
use fsm::Millis;
use fsm::node::Upstream;
use shared::ids::{Epoch, NodeId};
use shared::lsn::Lsn;

impl World {
    /// A client writes where it can; it waits for its COMMIT.
    pub fn write(&mut self, id: NodeId) {
        let commit = self.fresh_commit();
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.runs() && m.is_writable())
        else {
            return;
        };
        if self.fenced.contains_key(&id) {
            return;
        }
        machine.log.push(commit);
        machine.refresh();
        self.acknowledge(id);
    }

    /// One thing that a node's Postgres does by itself.
    pub fn postgres_turn(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(id).filter(|machine| machine.runs()) else {
            return;
        };
        if machine.view.server.is_none() {
            become_ready(&mut machine.view);
            machine.refresh();
            if let Some(keeper) = machine.keeper.as_mut().filter(|_| machine.view.server.is_some())
            {
                keeper.down_since = None;
            }
            return;
        }
        if machine.is_writable() {
            self.pick_up(id);
            self.acknowledge(id);
            self.archive_from(id);
            return;
        }
        self.standby_turn(id);
    }

    fn standby_turn(&mut self, id: NodeId) {
        let early = self.mutation == Mutation::EarlySeal;
        let Some(machine) = self.machines.get_mut(id) else { return };
        let wanted = receiver_of(machine);
        if !machine.replay_stuck && machine.server.receiver != wanted {
            // The startup process ends a walreceiver whose settings have changed.
            machine.server.receiver = None;
        }
        if early && wanted.is_none() {
            show_signs(&mut machine.view);
        }
        let upstream = machine.server.receiver.clone();
        match (upstream, wanted) {
            (Some(receiver), _) => self.stream(id, &receiver),
            (None, Some(wanted)) => self.connect(id, wanted),
            (None, None) => {
                self.fetch_from_archive(id);
                if let Some(machine) = self.machines.get_mut(id).filter(|m| !m.replay_stuck) {
                    show_signs(&mut machine.view);
                }
            }
        }
        if let Some(machine) = self.machines.get_mut(id) {
            machine.refresh();
        }
    }

    /// PostgreSQL refuses a slot that does not exist, and a timeline that it does not know; the flush
    /// position of a standby counts from its first reply on, whatever its log holds (C5).
    fn connect(&mut self, id: NodeId, wanted: Receiver) {
        let from = wanted.from;
        let now = self.now;
        let reached = self.reaches(id, from);
        let Some((own, replied)) = self.machines.get(id).map(|m| (m.log.end(), m.wall(now))) else {
            return;
        };
        let Some(upstream) = self.machines.get_mut(from).filter(|m| reached && m.is_ready()) else {
            return;
        };
        if let Some(slot) = &wanted.slot {
            if !upstream.slots.contains(&(id, *slot)) {
                return;
            }
            let moved = upstream.time(now);
            let row = Row { slot: *slot, flushed: own, moved, replied, lag: None };
            upstream.server.rows.insert(id, row);
        }
        if let Some(machine) = self.machines.get_mut(id) {
            machine.server.receiver = Some(wanted);
        }
    }

    fn stream(&mut self, id: NodeId, receiver: &Receiver) {
        let from = receiver.from;
        let now = self.now;
        if self.machines.get(from).is_some_and(|source| source.up && !source.runs()) {
            // Nothing comes, and nothing says that nothing will.
            return;
        }
        let source = self.machines.get(from).filter(|m| m.is_ready() && self.reaches(id, from));
        // A restarted upstream has no walsender for this receiver any more.
        let source = source.filter(|source| {
            let row = source.server.rows.get(&id);
            receiver.slot.is_none() || row.map(|row| &row.slot) == receiver.slot.as_ref()
        });
        let recycled = source.map_or(0, |source| source.wal_from);
        let Some(log) = source.map(|source| source.log.clone()) else {
            if let Some(machine) = self.machines.get_mut(id) {
                machine.server.receiver = None;
            }
            return;
        };
        let Some(machine) = self.machines.get_mut(id) else { return };
        if !machine.log.can_follow(&log) || machine.log.records().len() < recycled {
            machine.server.receiver = None;
            return;
        }
        for _ in 0..=self.random.below(3) {
            // What no client waits for comes with the next that one does.
            while machine.log.take_from(&log) && !machine.log.ends_with_commit() {}
        }
        let flushed = machine.log.end();
        let stamp = machine.wall(now);
        if let Some(upstream) = self.machines.get_mut(from).filter(|_| receiver.slot.is_some()) {
            let (end, now) = (upstream.log.end(), upstream.time(now));
            if let Some(row) = upstream.server.rows.get_mut(&id) {
                if flushed > row.flushed || flushed >= end {
                    row.moved = now;
                }
                row.flushed = flushed;
                row.replied = stamp;
            }
        }
        if self.lags && receiver.slot.is_some() {
            self.release_by(from, id);
        }
    }

    /// A fast stop of a primary: its standbys get everything, if they can be reached.
    pub fn send_all(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.is_writable()) else { return };
        // The shutdown checkpoint.
        machine.log.push_own(id);
        machine.refresh();
        let log = machine.log.clone();
        for peer in self.ids() {
            let reached = self.reaches(id, peer);
            let Some(standby) = self.machines.get_mut(peer).filter(|m| reached && m.runs()) else {
                continue;
            };
            let follows = standby.server.receiver.as_ref().is_some_and(|r| r.from == id);
            if follows && standby.log.can_follow(&log) {
                while standby.log.take_from(&log) {}
                standby.refresh();
            }
        }
    }

    /// Releases the clients whose commits are where the live spec wants them.
    pub fn acknowledge(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get(id).filter(|m| m.is_writable()) else { return };
        let Some(bound) = (if self.lags { Some(freed(machine)) } else { released(machine) }) else {
            return;
        };
        let records = machine.log.records();
        let released: Vec<_> = records
            .iter()
            .enumerate()
            .skip(machine.server.waiting_from)
            .take_while(|(index, _)| location(index + 1) <= bound)
            .map(|(_, record)| *record)
            .collect();
        if released.is_empty() {
            return;
        }
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.server.waiting_from += released.len();
        let released: Vec<_> = released.into_iter().filter(|record| record.is_commit()).collect();
        let timeline = machine.log.timeline();
        let waits = machine.server.waits();
        let over = machine.is_fenced(machine.time(self.now));
        let unguarded = !machine.is_guarded() || machine.claimed || over;
        let all = matches!(self.mutation, Mutation::NoLease | Mutation::StartsAlone);
        if !waits && unguarded && self.ledger.has_losses() && !all {
            // Asynchronous, and the keeper cannot act, or has only just been started again and has no
            // lease but its first: docs/safety.md, "A pause" and "The keeper runs".
            return;
        }
        // A monitor that has lost its record knows none; the node was told once.
        let own = self.machines.get(id).and_then(|machine| machine.persisted.as_ref());
        let told =
            own.map(|own| &own.assignment.lineage).filter(|_| self.monitor.record.quarantined);
        let lineage = told.unwrap_or(&self.monitor.record.lineage);
        let Some(epoch) = lineage.epoch_of(timeline) else {
            if !released.is_empty() {
                self.ledger.accuse(crate::ledger::Violation::NoEpoch { node: id });
            }
            return;
        };
        self.note_acknowledged(id, epoch, &released);
    }

    fn note_acknowledged(&mut self, id: NodeId, epoch: Epoch, records: &[RecordId]) {
        for record in records {
            self.ledger.acknowledge(*record, epoch);
        }
        if let (Some(first), Some(last)) = (records.first(), records.last()) {
            self.say(|| format!("node {id} acknowledges {first:?}..={last:?} in epoch {epoch}"));
        }
    }

    /// Replies that have come in since a primary's keeper last looked.
    pub fn note_replies(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(id) else { return };
        let now = Millis(machine.time(self.now));
        let Some(keeper) = machine.keeper.as_mut() else { return };
        for (node, row) in &machine.server.rows {
            keeper.tenure.saw_reply(*node, row.replied, now);
        }
    }
}

/// The walreceiver that the file asks for.
fn receiver_of(machine: &Machine) -> Option<Receiver> {
    match machine.view.file.upstream.as_ref()? {
        Upstream::Member { node, admission } => {
            Some(Receiver { from: *node, slot: Some(*admission) })
        }
        Upstream::Fetch { node } => Some(Receiver { from: *node, slot: None }),
    }
}

/// Up to where commits are released while every process is at its own pace: by walsenders that were
/// answered, or by the checkpointer's flag.
fn freed(machine: &Machine) -> Lsn {
    if machine.server.waits() { machine.server.released } else { machine.log.end() }
}

/// Up to where commits are released, where every process runs under what the file says.
fn released(machine: &Machine) -> Option<Lsn> {
    let spec = machine.server.spec.as_ref()?;
    if spec.is_asynchronous() {
        return Some(machine.log.end());
    }
    let mut flushed: Vec<_> =
        spec.standbys.iter().filter_map(|id| Some(machine.server.rows.get(id)?.flushed)).collect();
    flushed.sort_unstable_by(|a, b| b.cmp(a));
    flushed.get(spec.required.checked_sub(1)?).copied()
}
