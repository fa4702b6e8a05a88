//! How a change of `synchronous_standby_names` reaches the processes of a primary, one after the other,
//! and what each of them releases meanwhile (docs/postgres-facts.md, sections 1 to 3, 6 and 11). Only in
//! worlds whose processes lag; elsewhere a change holds at once.

use crate::machine::{Lag, Machine, Setting};
use crate::world::{Mutation, World};
use fsm::node::{Step, Sync};
use shared::ids::NodeId;
use shared::spec::Spec;

impl World {
    /// Processes of a primary look at the file: at what it says now, or they are held while they read.
    pub fn pick_up(&mut self, id: NodeId) {
        if !self.lags {
            return;
        }
        let faulty = self.faulty;
        let Some(machine) = self.machines.get_mut(id) else { return };
        let server = &mut machine.server;
        let live = Setting(server.spec.clone());
        let senders = server.rows.values_mut().map(|row| &mut row.lag);
        for lag in senders.chain([&mut server.checkpointer]) {
            if lag.is_some() {
                let choice = if faulty { self.random.below(8) } else { 0 };
                *lag = lag.take().and_then(|lag| look(lag, &live, choice));
            }
        }
    }

    /// A standby has answered its walsender, which releases what its own setting says
    /// (`SyncRepReleaseWaiters`): the number is of that setting, who counts is what each walsender has
    /// picked up for itself.
    pub(crate) fn release_by(&mut self, id: NodeId, walsender: NodeId) {
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.is_writable()) else { return };
        let server = &mut machine.server;
        let Some(row) = server.rows.get(&walsender) else { return };
        let Some(spec) = server.setting_of(row).filter(|_| server.counts(walsender, row)) else {
            return;
        };
        let counted = server.rows.iter().filter(|(node, row)| server.counts(**node, row));
        let mut flushed: Vec<_> = counted.map(|(_, row)| row.flushed).collect();
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(bound) = spec.required.checked_sub(1).and_then(|last| flushed.get(last)) {
            server.released = server.released.max(*bound);
        }
        self.acknowledge(id);
    }

    /// Steps (i) and (ii) of rule 9: the file is written, and the step is done when its signs are
    /// there.
    pub(crate) fn change_sync(&mut self, id: NodeId, step: &Step) {
        if matches!(step, Step::Block) && self.mutation == Mutation::NoBlocking {
            if let Some(machine) = self.machines.get_mut(id) {
                machine.view.sync = Sync::Blocked;
            }
            return;
        }
        self.simple(id, step);
        let held = !self.lags && self.faulty && self.random.one_in(4);
        let mutation = self.mutation;
        let Some(machine) = self.machines.get_mut(id) else { return };
        let spec = if let Step::Set(spec) = step { Some(spec) } else { None };
        let missing = unseen(machine, spec, mutation);
        if held || missing.is_some() {
            machine.view.sync = Sync::Unknown;
        }
        // The keeper ends a walsender that does not show the sign; its standby connects again.
        for node in missing.into_iter().flatten() {
            if self.random.one_in(12)
                && let Some(machine) = self.machines.get_mut(id)
            {
                machine.server.rows.remove(&node);
            }
        }
    }
}

/// What becomes of a process that lags.
fn look(lag: Lag, live: &Setting, choice: u64) -> Option<Lag> {
    match (lag.reading, choice) {
        (_, 0) | (None, 1..=2) => None,
        // It takes what it read then, and looks again later.
        (Some(read), 1..=2) if read == *live => None,
        (Some(read), 1..=2) => Some(Lag { under: read, reading: None }),
        (None, 3) => Some(Lag { under: lag.under, reading: Some(live.clone()) }),
        (reading, _) => Some(Lag { under: lag.under, reading }),
    }
}

/// The walsenders that do not show the sign of the setting; `None` where all signs are there: those of
/// the walsenders, and that of the probe commit, which shows the checkpointer's flag.
fn unseen(machine: &Machine, spec: Option<&Spec>, mutation: Mutation) -> Option<Vec<NodeId>> {
    if mutation == Mutation::NoSigns {
        return None;
    }
    let server = &machine.server;
    let shown = |node: &NodeId, row| match spec {
        Some(spec) => !spec.standbys.contains(node) || server.counts(*node, row),
        None => !server.counts(*node, row),
    };
    let missing: Vec<_> =
        server.rows.iter().filter(|(node, row)| !shown(node, row)).map(|(node, _)| *node).collect();
    let probed = match spec {
        None => server.waits(),
        Some(spec) if spec.is_asynchronous() => !server.waits() || mutation == Mutation::NoProbe,
        Some(_) => true,
    };
    (!missing.is_empty() || !probed).then_some(missing)
}
