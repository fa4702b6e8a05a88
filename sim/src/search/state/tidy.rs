//! Two ways to what is otherwise the same state: what differs between them is taken out.

use super::State;
use crate::machine::Machine;
use shared::ids::Revision;

impl State {
    /// Takes out what differs between ways to what is otherwise the same state: numbers of events,
    /// revisions and operations, which are only ever compared for being the same.
    pub fn tidy(&mut self) {
        for node in self.world.ids() {
            self.world.acknowledge(node);
        }
        self.collect();
        let joining = self.is_joining();
        if !joining {
            self.forget_revisions();
        }
        let newest_order = self.newest_order();
        let monitor = &mut self.world.monitor;
        if monitor.record.next_event == 1 {
            return;
        }
        let record = monitor.record.change();
        if !joining {
            record.revision = Revision(1);
        }
        record.next_event = 1;
        record.finished.clear();
        record.next_operation = newest_order + 1;
    }

    /// Orders are compared with those that a keeper has carried out: no number is given twice.
    fn newest_order(&self) -> u64 {
        let record = &self.world.monitor.record;
        let given = record.nodes.values().map(|node| node.orders);
        let kept = self.world.machines.values().filter_map(|m| m.persisted.as_ref());
        let heard = kept.map(|persisted| persisted.assignment.orders);
        let done = self.world.machines.values().map(|machine| machine.done);
        let all = given.chain(heard).chain(done);
        let newest = all.map(|orders| orders.restart.max(orders.copy)).max();
        newest.max(record.operation.as_ref().map(|operation| operation.id)).unwrap_or(0)
    }

    /// Answers from now on are told apart by their orders only.
    fn forget_revisions(&mut self) {
        for node in self.world.ids() {
            let heard = |machine: &Machine| Some(machine.keeper.as_ref()?.heard.as_ref()?.revision);
            if self.world.machines.get(node).and_then(heard) <= Some(Revision(0)) {
                continue;
            }
            let machine = self.world.machines.get_mut(node);
            if let Some(heard) = machine
                .and_then(|machine| machine.keeper.as_mut())
                .and_then(|keeper| keeper.heard.as_mut())
            {
                heard.revision = Revision(0);
            }
        }
        for (_, answer, _) in self.late.values_mut() {
            if answer.revision > Revision(0) {
                answer.change().revision = Revision(0);
            }
        }
    }

    /// Whether the primary has to hear of a new node: then revisions are compared.
    pub(super) fn is_joining(&self) -> bool {
        self.world.monitor.record.nodes.values().any(|node| node.joined.is_some())
    }
}
