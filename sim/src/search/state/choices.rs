//! What may happen next in a state, as far as the budget goes.

use super::super::action::{Action, Fault, Request};
use super::State;
use crate::machine::Machine;
use crate::world::MONITOR;
use shared::ids::NodeId;

impl State {
    /// What may happen next.
    pub fn actions(&self, actions: &mut Vec<Action>) {
        let mut faults = vec![Fault::Monitor];
        let mut requests = vec![Request::Switchover(None), Request::Join, Request::Pause];
        requests.extend([false, true].map(|fenced| Request::AcceptLoss { fenced }));
        requests.extend((0..=2).map(Request::Number));
        for machine in self.world.machines.values() {
            self.by_itself(machine, actions);
            self.faults_of(machine, &mut faults);
            self.requests_about(machine.id, &mut requests);
        }
        actions.push(Action::Look);
        actions.extend(self.world.monitor.record.paused.as_ref().map(|_| Action::Resume));
        actions.extend((self.left.ticks > 0).then_some(Action::Tick));
        let mut places = self.world.ids();
        places.push(MONITOR);
        for (index, a) in places.iter().enumerate() {
            for b in places.iter().skip(index + 1) {
                let (a, b) = (*a.min(b), *a.max(b));
                if self.world.cut.contains(&(a, b)) {
                    actions.push(Action::Mend(a, b));
                } else {
                    faults.push(Fault::Cut(a, b));
                }
            }
        }
        let mut left = self.left;
        faults.retain(|fault| *left.of_fault(*fault) > 0);
        requests.retain(|request| *left.of_request(*request) > 0);
        actions.extend(faults.into_iter().map(Action::Harm));
        actions.extend(requests.into_iter().map(Action::Ask));
    }

    fn by_itself(&self, machine: &Machine, actions: &mut Vec<Action>) {
        let node = machine.id;
        if !machine.up || machine.keeper.is_none() {
            actions.push(Action::Start(node));
        }
        if self.world.monitor.record.nodes.get(&node).is_some_and(|node| node.maintenance) {
            actions.push(Action::MaintenanceOver(node));
        }
        if !machine.up {
            return;
        }
        if machine.keeper.is_some() {
            actions.push(Action::Turn { node, hears: false });
            if self.answer(node).is_some() {
                actions.push(Action::Turn { node, hears: true });
            }
            if self.late.contains_key(&node) {
                actions.push(Action::Late(node));
            }
        }
        let walsenders = machine.server.rows.iter().filter(|(_, row)| row.lag.is_some());
        actions.extend(walsenders.map(|(id, _)| Action::PickUp { node, walsender: Some(*id) }));
        if machine.server.checkpointer.is_some() {
            actions.push(Action::PickUp { node, walsender: None });
        }
        match &machine.view.server {
            Some(server) if server.in_recovery => actions.push(Action::Stream(node)),
            Some(_) if self.left.writes > 0 => actions.push(Action::Write(node)),
            Some(_) | None => {}
        }
    }

    fn faults_of(&self, machine: &Machine, faults: &mut Vec<Fault>) {
        let node = machine.id;
        if machine.has_data() {
            faults.extend([false, true].map(|state| Fault::Disk { node, state }));
        }
        if !machine.up {
            return;
        }
        faults.push(Fault::Host(node));
        if machine.keeper.is_some() {
            faults.extend([Fault::Keeper(node), Fault::State(node)]);
            if !self.late.contains_key(&node) {
                faults.push(Fault::Copy(node));
            }
        }
        let Some(server) = &machine.view.server else { return };
        faults.push(Fault::Postgres(node));
        if server.in_recovery {
            faults.push(Fault::PromoteByHand(node));
            if !machine.replay_stuck {
                faults.push(Fault::HoldReplay(node));
            }
        }
    }

    fn requests_about(&self, node: NodeId, requests: &mut Vec<Request>) {
        let Some(known) = self.world.monitor.record.nodes.get(&node) else { return };
        requests.extend([
            Request::Switchover(Some(node)),
            Request::Maintenance(node),
            Request::Drop(node),
            Request::Restart(node),
            Request::Copy(node),
            Request::Quorum(node, !known.replication_quorum),
        ]);
    }
}
