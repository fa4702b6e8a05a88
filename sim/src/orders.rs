//! What is done to a node once, because an operator has ordered it: carried out by keepers as the real
//! ones do, and never to be called done before. With it the check of a pause: nobody is promoted unless
//! an operator asks for it.

use crate::machine::Machine;
use crate::world::World;
use fsm::group::record::{Operation, OperationKind, Phase};
use fsm::group::{Decision, Record};
use fsm::node::Step;
use fsm::node::view::Due;
use shared::api::Outcome;
use shared::goal::Orders;
use shared::ids::NodeId;
use std::collections::BTreeMap;

/// What operators wait for and no keeper has done yet, by the numbers of the operations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owed(BTreeMap<NodeId, Orders>);

impl Owed {
    /// Notes the orders that a decision begins and ends; says what is wrong with one that it ends.
    pub fn note(&mut self, before: &Record, after: &Record) -> Result<(), String> {
        let (old, new) = (before.operation.as_ref(), after.operation.as_ref());
        if old.map(|operation| operation.id) == new.map(|operation| operation.id) {
            return Ok(());
        }
        let ended = old.map_or(Ok(()), |operation| self.end(operation, after));
        let begun =
            new.and_then(|operation| Some((operation, operation.target?, kind(operation)?)));
        if let Some((operation, id, due)) = begun {
            *number(self.0.entry(id).or_default(), due) = operation.id;
        }
        ended
    }

    fn end(&mut self, operation: &Operation, after: &Record) -> Result<(), String> {
        let Some((id, due)) = operation.target.zip(kind(operation)) else { return Ok(()) };
        let owed = self.0.get_mut(&id).is_some_and(|orders| *number(orders, due) > 0);
        self.settle(id, due);
        let result = after.finished.iter().rfind(|result| result.id == operation.id);
        if owed && result.is_some_and(|result| result.outcome == Outcome::Done) {
            return Err(format!("{due:?} of node {id} is called done, and was not carried out"));
        }
        Ok(())
    }

    fn settle(&mut self, id: NodeId, due: Due) {
        if let Some(orders) = self.0.get_mut(&id) {
            *number(orders, due) = 0;
            if *orders == Orders::default() {
                self.0.remove(&id);
            }
        }
    }

    /// A keeper has carried out all such orders up to this one.
    fn carry_out(&mut self, id: NodeId, due: Due, done: u64) {
        if self.0.get_mut(&id).is_some_and(|orders| *number(orders, due) <= done) {
            self.settle(id, due);
        }
    }
}

fn kind(operation: &Operation) -> Option<Due> {
    match operation.kind {
        OperationKind::Restart => Some(Due::Restart),
        OperationKind::Reinit => Some(Due::Copy),
        OperationKind::Switchover
        | OperationKind::Failover
        | OperationKind::Promote
        | OperationKind::AcceptTimeline
        | OperationKind::MaintenanceOn
        | OperationKind::MaintenanceOff
        | OperationKind::Drop => None,
    }
}

fn number(orders: &mut Orders, due: Due) -> &mut u64 {
    match due {
        Due::Restart => &mut orders.restart,
        Due::Copy => &mut orders.copy,
    }
}

impl Machine {
    /// What an operator has ordered and the keeper has not done.
    pub(crate) fn due(&self) -> Option<Due> {
        Due::of(self.persisted.as_ref()?.assignment.orders, self.done)
    }

    /// The keeper's state is lost: it is a new one to the monitor, and remembers no order.
    pub(crate) fn lose_state(&mut self) {
        self.persisted = None;
        self.claimed = false;
        self.done = Orders::default();
    }
}

impl World {
    /// Postgres is stopped first, and that remembered then.
    pub(crate) fn restart_postgres(&mut self, id: NodeId) {
        self.send_all(id);
        self.simple(id, &Step::Restart);
        self.remember(id, Due::Restart);
    }

    /// An order has been carried out: its keeper remembers that, unless it ends just before.
    pub(crate) fn remember(&mut self, id: NodeId, due: Due) {
        if self.faulty && self.random.one_in(8) {
            self.crash_keeper(id);
            return;
        }
        let Some(machine) = self.machines.get_mut(id) else { return };
        let Some(persisted) = &machine.persisted else { return };
        let mut orders = persisted.assignment.orders;
        let done = *number(&mut orders, due);
        *number(&mut machine.done, due) = done;
        self.monitor.owed.carry_out(id, due, done);
    }
}

/// A group that serves begins no election during a pause, unless an operator asks for one; one that is
/// under way already goes on.
pub fn check_pause(before: &Record, decision: &Decision) -> Result<(), String> {
    let leaves = before.phase == Phase::Serving && decision.record.phase != Phase::Serving;
    let asked = decision.events.iter().any(|event| event.rule == "operator");
    if before.paused.is_some() && leaves && !asked {
        let rules: Vec<_> = decision.events.iter().map(|event| event.rule.as_str()).collect();
        return Err(format!("the primary is to be replaced during a pause, by {rules:?}"));
    }
    Ok(())
}
