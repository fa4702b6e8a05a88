//! What goes wrong, and what operators ask for.

use crate::at;
use crate::machine::ServerMemory;
use crate::world::{MONITOR, Mutation, World};
use fsm::Millis;
use fsm::group::record::OperationKind;
use fsm::group::request::{self, Reply};
use fsm::node::Data;
use shared::api::Action;
use shared::ids::{NodeId, NodeName};
use std::collections::BTreeSet;

impl World {
    /// One fault, or one request of an operator.
    pub fn disturb(&mut self) {
        let ids = self.ids();
        let Some(id) = self.random.pick(&ids) else { return };
        match self.random.below(26) {
            0..=1 => self.crash_postgres(id),
            2..=3 => self.crash_keeper(id),
            4..=6 => self.crash_host(id),
            7..=8 => self.restart(id),
            9 => self.crash_monitor(),
            10..=11 => self.cut_something(),
            12..=13 => self.mend_something(),
            14 => self.hold_up_replay(id),
            15 => self.lose_disk(id),
            16..=18 => self.recover(),
            19 => self.fill_disk(id),
            _ => self.ask_something(id),
        }
    }

    /// Everything runs and reaches everything, for a while.
    fn recover(&mut self) {
        self.cut.clear();
        if !self.monitor.up {
            self.monitor.start(self.now);
        }
        for id in self.ids() {
            self.restart(id);
            if let Some(machine) = self.machines.get_mut(id) {
                machine.cannot_start = false;
            }
        }
    }

    /// Postgres goes down, and does not start again for a while.
    fn fill_disk(&mut self, id: NodeId) {
        self.crash_postgres(id);
        if let Some(machine) = self.machines.get_mut(id) {
            machine.cannot_start = true;
        }
    }

    /// A fault.
    pub fn crash_postgres(&mut self, id: NodeId) {
        let now = Millis(self.now);
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.view.server.is_some()) else {
            return;
        };
        machine.stop_postgres(false);
        if let Some(keeper) = &mut machine.keeper {
            keeper.down_since = Some(now);
        }
        self.say(|| format!("node {id}: postgres crashes"));
    }

    /// A fault.
    pub fn crash_keeper(&mut self, id: NodeId) {
        let forgets = self.mutation == Mutation::ForgetSeal;
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.keeper.is_some()) else {
            return;
        };
        machine.keeper = None;
        machine.job = None;
        if let Some(before) = machine.persisted_before.take().filter(|_| forgets) {
            machine.persisted = Some(before);
        }
        if self.reaches(MONITOR, id)
            && let Some(evidence) = self.monitor.view_mut().nodes.get_mut(&id)
        {
            evidence.closed = true;
        }
        self.say(|| format!("node {id}: the keeper crashes"));
        if self.random.one_in(2) {
            self.restart(id);
        }
    }

    /// A fault.
    pub fn crash_host(&mut self, id: NodeId) {
        self.crash_keeper(id);
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.keeper = None;
        machine.stop_postgres(false);
        machine.up = false;
        self.say(|| format!("node {id}: the host is gone"));
    }

    /// The host runs again, with a new keeper where there is none.
    pub fn restart(&mut self, id: NodeId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id) else { return };
        if machine.up && machine.keeper.is_some() {
            return;
        }
        machine.up = true;
        machine.start_keeper(now);
        self.say(|| format!("node {id}: the keeper starts"));
    }

    fn crash_monitor(&mut self) {
        self.say(|| "the monitor restarts".to_owned());
        self.monitor.up = false;
        if self.random.one_in(2) {
            self.monitor.start(self.now);
        }
    }

    fn places(&mut self) -> Option<(NodeId, NodeId)> {
        let mut places = self.ids();
        places.push(MONITOR);
        Some((self.random.pick(&places)?, self.random.pick(&places)?))
    }

    fn cut_something(&mut self) {
        if let Some((a, b)) = self.places().filter(|(a, b)| a != b) {
            self.set_cut(a, b, true);
            self.say(|| format!("{a} and {b} are cut from each other"));
        }
    }

    fn mend_something(&mut self) {
        if !self.monitor.up {
            self.monitor.start(self.now);
        }
        let cuts: Vec<_> = self.cut.iter().copied().collect();
        if let Some((a, b)) = self.random.pick(&cuts) {
            self.set_cut(a, b, false);
            self.say(|| format!("{a} and {b} reach each other"));
        }
    }

    fn hold_up_replay(&mut self, id: NodeId) {
        if let Some(machine) = self.machines.get_mut(id)
            && machine.view.server.as_ref().is_some_and(|server| server.in_recovery)
        {
            machine.replay_stuck = true;
        }
    }

    /// Once per walk, and only where the others can still prove P1.
    fn lose_disk(&mut self, id: NodeId) {
        let left: BTreeSet<_> = self
            .machines
            .values()
            .filter(|machine| machine.id != id && machine.has_data())
            .map(|machine| machine.id)
            .collect();
        let provable = self.monitor.record.specs.iter().all(|spec| spec.is_covered_by(&left));
        if self.disk_lost || left.len() < 2 || !provable {
            return;
        }
        self.disk_lost = true;
        let with_state = self.random.one_in(2);
        self.wipe(id, with_state);
        self.restart(id);
    }

    /// A disk is lost, with the keeper's state or without.
    pub fn wipe(&mut self, id: NodeId, with_state: bool) {
        self.crash_keeper(id);
        if let Some(machine) = self.machines.get_mut(id) {
            machine.keeper = None;
            machine.stop_postgres(false);
            machine.view = crate::node::empty_view();
            machine.view.data = Data::Empty;
            machine.log = crate::log::Log::new(id);
            machine.slots.clear();
            machine.server = ServerMemory::default();
            if with_state {
                machine.persisted = None;
                machine.claimed = false;
            }
        }
        self.say(|| format!("node {id}: the disk is lost, the keeper's state too: {with_state}"));
    }

    fn name_of(&self, id: NodeId) -> Option<NodeName> {
        self.monitor.record.nodes.get(&id).map(|node| node.name.clone())
    }

    fn ask_something(&mut self, id: NodeId) {
        let Some(node) = self.name_of(id) else { return };
        let on = self.random.one_in(2);
        let priority = self.random.pick(&["0", "50", "90"]).unwrap_or("50");
        let number = self.random.below(3).to_string();
        let action = match self.random.below(7) {
            0 => Action::Switchover { to: None },
            1 => Action::Switchover { to: Some(node) },
            2 => Action::Promote { node },
            3 => Action::Failover { allow_data_loss: false, fenced: false },
            4 => Action::Maintenance { node, on, allow_failover: true },
            5 => Action::SetFormation { key: "number-sync-standbys".to_owned(), value: number },
            _ => Action::SetNode {
                node,
                key: "candidate-priority".to_owned(),
                value: priority.to_owned(),
            },
        };
        self.ask(&action);
    }

    /// An operator's request.
    pub fn ask(&mut self, action: &Action) {
        if !self.monitor.up {
            return;
        }
        let record = &self.monitor.record;
        let reply = request::apply(record, &self.monitor.view, action, at(self.now));
        self.say(|| {
            format!("operator: {action:?}: {}", reply.as_ref().err().map_or("fine", |e| &e.reason))
        });
        if let Ok(Reply::Decided(decision, _)) = reply {
            self.monitor.commit(*decision, self.now);
            self.decide();
        }
    }

    /// All faults end: everything runs and reaches everything, and nothing is set so that nobody may
    /// become primary.
    pub fn mend(&mut self) {
        self.faulty = false;
        self.late.clear();
        self.say(|| "all faults end".to_owned());
        self.recover();
        for id in self.ids() {
            let barred = self.monitor.record.nodes.get(&id).filter(|n| n.candidate_priority == 0);
            let Some(node) = barred.map(|node| node.name.clone()) else { continue };
            let (key, value) = ("candidate-priority".to_owned(), "50".to_owned());
            self.ask(&Action::SetNode { node, key, value });
        }
        let (key, value) = ("number-sync-standbys".to_owned(), "default".to_owned());
        self.ask(&Action::SetFormation { key, value });
    }

    /// Nodes leave maintenance as soon as they may.
    pub fn end_maintenance(&mut self) {
        let record = &self.monitor.record;
        let going = |id: &NodeId| {
            record.operation.as_ref().is_some_and(|operation| {
                operation.kind == OperationKind::MaintenanceOn && operation.target == Some(*id)
            })
        };
        let node = record
            .nodes
            .iter()
            .find(|(id, node)| node.maintenance && (record.operation.is_none() || going(id)))
            .map(|(_, node)| node.name.clone());
        if let Some(node) = node {
            self.ask(&Action::Maintenance { node, on: false, allow_failover: false });
        }
    }
}
