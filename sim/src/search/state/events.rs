//! What goes wrong, and what operators ask for.

use super::super::action::{Fault, Request};
use super::State;
use shared::api;
use shared::ids::{NodeId, NodeName};

impl State {
    pub(super) fn harm(&mut self, fault: Fault) {
        match fault {
            Fault::Postgres(node) => self.world.crash_postgres(node),
            Fault::Keeper(node) => {
                self.world.crash_keeper(node);
                self.forget(node);
            }
            Fault::Host(node) => {
                self.world.crash_host(node);
                self.forget(node);
            }
            Fault::Monitor => self.world.monitor.start(self.world.now),
            Fault::Cut(a, b) => self.world.set_cut(a, b, true),
            Fault::Disk { node, state } => {
                self.world.wipe(node, state);
                self.forget(node);
            }
            Fault::State(node) => {
                self.world.crash_keeper(node);
                self.forget(node);
                if let Some(machine) = self.world.machines.get_mut(node) {
                    machine.lose_state();
                }
            }
            Fault::Copy(node) => self.copy_answer(node),
            Fault::PromoteByHand(node) => self.world.promote_by_hand(node),
            Fault::HoldReplay(node) => {
                if let Some(machine) = self.world.machines.get_mut(node) {
                    machine.replay_stuck = true;
                }
            }
        }
    }

    /// Whether the monitor takes the request.
    pub(super) fn ask(&mut self, request: Request) -> bool {
        let name = |node| self.name(node);
        let action = match request {
            Request::Switchover(to) => Some(api::Action::Switchover { to: to.and_then(name) }),
            Request::Maintenance(node) => name(node).map(|node| api::Action::Maintenance {
                node,
                on: true,
                allow_failover: true,
            }),
            Request::Drop(node) => {
                name(node).map(|node| api::Action::Drop { node, force: false, destroy: false })
            }
            Request::Number(number) => Some(api::Action::SetFormation {
                key: "number-sync-standbys".to_owned(),
                value: number.to_string(),
            }),
            Request::Restart(node) => name(node).map(|node| api::Action::Restart { node }),
            Request::Copy(node) => name(node).map(|node| api::Action::Reinit { node }),
            Request::Pause => Some(api::Action::Pause),
            Request::Join => {
                return self.world.monitor.up && self.world.join(true).is_some();
            }
            Request::AcceptLoss { fenced } => {
                let before = self.world.monitor.record.revision;
                let old = self.world.monitor.record.primary.filter(|_| fenced);
                self.world.fail_over_with_loss(fenced);
                if let Some(old) = old {
                    self.forget(old);
                }
                return fenced || self.world.monitor.record.revision != before;
            }
            Request::Quorum(node, on) => name(node).map(|node| api::Action::SetNode {
                node,
                key: "replication-quorum".to_owned(),
                value: on.to_string(),
            }),
        };
        let before = self.world.monitor.record.revision;
        if let Some(action) = action {
            self.world.ask(&action);
        }
        self.world.monitor.record.revision != before
    }

    pub(super) fn name(&self, node: NodeId) -> Option<NodeName> {
        self.world.monitor.record.nodes.get(&node).map(|node| node.name.clone())
    }
}
