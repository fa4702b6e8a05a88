//! Archives and the backups in them: what a primary has written there, who is restored from it, and who
//! catches up. Only in walks.

use crate::log::Log;
use crate::machine::Machine;
use crate::node::finish_restore;
use crate::world::World;
use fsm::node::Archive;
use shared::ids::NodeId;

impl World {
    /// A primary may bring its log to the archive, whether or not it still is the group's.
    pub(crate) fn archive_from(&mut self, id: NodeId) {
        if !self.archives || !self.random.one_in(12) {
            return;
        }
        if let Some(machine) = self.machines.get(id).filter(|machine| machine.is_writable()) {
            self.archive = Some(machine.log.clone());
        }
    }

    /// A backup of some moment.
    pub(crate) fn backup(&mut self) -> Option<Log> {
        let records = self.archive.as_ref()?.records().len();
        let count = u64::try_from(records).unwrap_or(1).max(1);
        let kept = usize::try_from(1 + self.random.below(count)).unwrap_or(records);
        self.archive.as_ref().map(|log| log.up_to(kept))
    }

    /// A standby that reads from the archive takes what comes next for it.
    pub(crate) fn fetch_from_archive(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(id) else { return };
        let Some(log) = self.archive.as_ref().filter(|_| machine.view.file.restore) else { return };
        for _ in 0..=self.random.below(3) {
            if has_more(machine, log) {
                machine.log.take_from(log);
            }
        }
        machine.refresh();
    }

    /// What a keeper knows of the archive.
    pub(crate) fn look_at_archive(&mut self, id: NodeId) {
        if !self.archives {
            return;
        }
        let Some(machine) = self.machines.get_mut(id) else { return };
        let more = self.archive.as_ref().is_some_and(|log| has_more(machine, log));
        let end = machine.log.end();
        if machine.view.file.restore {
            machine.asked = Some(end).filter(|_| machine.is_ready() && !more);
        }
        machine.view.archive =
            if machine.asked >= Some(end) { Archive::Exhausted } else { Archive::Unasked };
    }
}

fn has_more(machine: &Machine, log: &Log) -> bool {
    machine.log.can_follow(log) && machine.log.records().len() < log.records().len()
}

impl Machine {
    /// A copy has been made from a backup.
    pub(crate) fn restore(&mut self, backup: Log) {
        let Some(persisted) = self.persisted.as_mut() else { return };
        finish_restore(&mut self.view, persisted, &backup.history());
        self.control = backup.timeline();
        self.log = backup;
        self.wal_from = self.log.records().len();
        self.slots.clear();
        self.asked = None;
        self.from_backup = true;
        self.refresh();
    }
}
