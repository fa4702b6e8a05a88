//! What operators ask for.

use crate::at;
use crate::log::RecordId;
use crate::world::World;
use fsm::group::record::Phase;
use fsm::group::request::{self, Reply};
use shared::api::Action;
use shared::ids::{NodeId, NodeName};
use std::collections::BTreeSet;

impl World {
    pub(crate) fn name_of(&self, id: NodeId) -> Option<NodeName> {
        self.monitor.record.nodes.get(&id).map(|node| node.name.clone())
    }

    /// An operator's request.
    pub fn ask(&mut self, action: &Action) {
        if !self.is_watched() {
            return;
        }
        let now = self.monitor_now();
        let record = &self.monitor.record;
        let reply = request::apply(record, &self.monitor.view, action, at(now));
        self.say(|| {
            format!("operator: {action:?}: {}", reply.as_ref().err().map_or("fine", |e| &e.reason))
        });
        if let Ok(Reply::Decided(decision, _)) = reply {
            self.monitor.commit(*decision, now);
            self.decide();
        }
    }

    /// A failover whatever it costs. Who says that the old primary is fenced has made it so: its host
    /// is off, and no client reaches it before it has heard of its successor.
    pub(crate) fn fail_over_with_loss(&mut self, fenced: bool) {
        let old = self.monitor.record.primary.filter(|_| fenced && self.is_watched());
        if let Some(old) = old {
            self.crash_host(old);
            self.fenced.insert(old, self.monitor.record.epoch);
            self.say(|| format!("node {old}: an operator fences it"));
        }
        self.ask(&Action::Failover { allow_data_loss: true, fenced });
    }

    /// What the newest elections with accepted loss gave up need not be there any more.
    pub(crate) fn forgive(&mut self) {
        for loss in std::mem::take(&mut self.monitor.losses) {
            let kept: BTreeSet<RecordId> = loss
                .witnesses
                .iter()
                .filter_map(|(id, position)| Some((self.machines.get(*id)?, position.lsn)))
                .flat_map(|(machine, end)| machine.log.records_to(end))
                .collect();
            self.ledger.forgive(&kept);
            self.say(|| format!("epoch {} begins with accepted loss", loss.epoch));
        }
    }

    /// A fence is lifted from a node that serves all the same, or has heard of a later epoch.
    pub(crate) fn lift_fences(&mut self) {
        let record = &self.monitor.record;
        let machines = &self.machines;
        self.fenced.retain(|id, epoch| {
            let serves = record.phase == Phase::Serving
                && record.primary == Some(*id)
                && record.epoch == *epoch;
            let knows = machines
                .get(*id)
                .and_then(|machine| machine.persisted.as_ref())
                .is_some_and(|persisted| persisted.assignment.epoch > *epoch);
            !serves && !knows
        });
    }

    pub(crate) fn set_node(&mut self, id: NodeId, key: &str, value: &str) {
        if let Some(node) = self.name_of(id) {
            self.ask(&Action::SetNode { node, key: key.to_owned(), value: value.to_owned() });
        }
    }

    /// One of so many wishes is for the primary again.
    pub(crate) fn set_upstream(&mut self, id: NodeId) {
        let ids = self.ids();
        let other = self.random.pick(&ids).and_then(|other| self.name_of(other));
        let wish = other.filter(|_| !self.random.one_in(4)).map(|name| name.to_string());
        self.set_node(id, "replicate-from", wish.as_deref().unwrap_or("none"));
    }

    /// Every standby but the first is to replicate from one before it.
    pub fn cascade(&mut self) {
        let primary = self.monitor.record.primary;
        let mut before: Vec<NodeId> = Vec::new();
        for id in self.ids().into_iter().filter(|id| Some(*id) != primary) {
            let upstream = self.random.pick(&before).and_then(|other| self.name_of(other));
            if let Some(upstream) = upstream {
                self.set_node(id, "replicate-from", upstream.as_str());
            }
            before.push(id);
        }
    }

    pub(crate) fn set_formation(&mut self, key: &str, value: &str) {
        self.ask(&Action::SetFormation { key: key.to_owned(), value: value.to_owned() });
    }

    /// All faults end: everything runs and reaches everything, automation is not paused, and nothing is set
    /// so that nobody may become primary.
    pub fn mend(&mut self) {
        self.faulty = false;
        self.late.clear();
        self.say(|| "all faults end".to_owned());
        self.recover();
        self.resume();
        for id in self.ids() {
            // Whoever was asked to stop is asked to stay.
            if let Some(keeper) = self.machines.get_mut(id).and_then(|m| m.keeper.as_mut()) {
                keeper.leaving_since = None;
            }
            if self.monitor.record.nodes.get(&id).is_some_and(|n| n.candidate_priority == 0) {
                self.set_node(id, "candidate-priority", "50");
            }
            if self.monitor.record.nodes.get(&id).is_some_and(|n| !n.replication_quorum) {
                self.set_node(id, "replication-quorum", "true");
            }
        }
        self.set_formation("number-sync-standbys", "default");
    }

    /// A pause ends.
    pub fn resume(&mut self) {
        if self.monitor.record.paused.is_some() {
            self.ask(&Action::Resume);
        }
    }

    /// Nodes leave maintenance as soon as they may.
    pub fn end_maintenance(&mut self) {
        let nodes = self.monitor.record.nodes.values();
        let node = nodes.filter(|node| node.maintenance).map(|node| node.name.clone()).next();
        if let Some(node) = node {
            self.ask(&Action::Maintenance { node, on: false, allow_failover: false });
        }
    }
}
