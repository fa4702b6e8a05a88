//! What goes wrong.

use crate::machine::{Frozen, ServerMemory};
use crate::node;
use crate::world::{MONITOR, Message, Mutation, World};
use fsm::Millis;
use fsm::group::Record;
use fsm::node::Data;
use shared::api::Action;
use shared::ids::{NodeId, TimelineId};
use std::collections::BTreeSet;

impl World {
    /// Everything runs and reaches everything, for a while.
    pub(crate) fn recover(&mut self) {
        self.cut.clear();
        self.start_monitor();
        self.thaw_monitor();
        for id in self.ids() {
            self.thaw(id);
            self.restart(id);
            if let Some(machine) = self.machines.get_mut(id) {
                machine.cannot_start = false;
            }
        }
    }

    /// Postgres goes down, and does not start again for a while.
    pub(crate) fn fill_disk(&mut self, id: NodeId) {
        self.crash_postgres(id);
        if let Some(machine) = self.machines.get_mut(id) {
            machine.cannot_start = true;
        }
    }

    /// A fault.
    pub fn crash_postgres(&mut self, id: NodeId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.view.server.is_some()) else {
            return;
        };
        let now = machine.time(now);
        let serves = machine.right_until().is_none_or(|until| now < until);
        machine.stop_postgres(false);
        if let Some(keeper) = &mut machine.keeper {
            keeper.down_since = Some(Millis(now));
        }
        let needs_standbys = machine.view.file.spec.as_ref().is_some_and(|s| !s.is_asynchronous());
        if serves && needs_standbys && machine.is_kept() {
            machine.claim_lease(now);
        }
        self.say(|| format!("node {id}: postgres crashes"));
    }

    /// A fault.
    pub fn crash_keeper(&mut self, id: NodeId) {
        if self.machines.get(id).is_none_or(|machine| machine.keeper.is_none()) {
            return;
        }
        self.end_keeper(id);
        self.say(|| format!("node {id}: the keeper crashes"));
        if self.random.one_in(2) {
            self.restart(id);
        }
    }

    /// A keeper process ends, and its connections with it.
    pub(crate) fn end_keeper(&mut self, id: NodeId) {
        let forgets = self.mutation == Mutation::ForgetSeal;
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.keeper = None;
        machine.job = None;
        if matches!(machine.frozen, Frozen::Keeper | Frozen::Postgres) {
            machine.frozen = Frozen::No;
        }
        if let Some(before) = machine.persisted_before.take().filter(|_| forgets) {
            machine.persisted = Some(before);
        }
        if self.reaches(MONITOR, id)
            && let Some(evidence) = self.monitor.view_mut().nodes.get_mut(&id)
        {
            evidence.closed = true;
        }
    }

    /// A fault.
    pub fn crash_host(&mut self, id: NodeId) {
        self.crash_keeper(id);
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.keeper = None;
        machine.stop_postgres(false);
        machine.up = false;
        machine.frozen = Frozen::No;
        self.say(|| format!("node {id}: the host is gone"));
    }

    /// The host runs again, with a new keeper where there is none.
    pub fn restart(&mut self, id: NodeId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id).filter(|machine| !machine.dropped) else {
            return;
        };
        if machine.up && machine.keeper.is_some() {
            return;
        }
        machine.up = true;
        let now = machine.time(now);
        machine.start_keeper(now);
        self.say(|| format!("node {id}: the keeper starts"));
    }

    /// The monitor's process is killed, and started again at once or later.
    pub fn crash_monitor(&mut self, at_once: bool) {
        self.say(|| "the monitor is killed".to_owned());
        self.monitor.up = false;
        self.frozen_since = None;
        if at_once {
            self.start_monitor();
        }
    }

    /// The monitor's database is lost; another monitor begins without one, and hears the keepers.
    pub(crate) fn lose_record(&mut self) {
        self.crash_monitor(false);
        let known = &self.monitor.record;
        let settings = known.settings.clone();
        let lost = Record::lost(known.formation.clone(), known.group, settings);
        *self.monitor.record_mut() = lost;
        // A report goes over a connection to the process that it was meant for; answers may be read late.
        let is_answer = |message: &Message| matches!(message, Message::Answer { .. });
        self.messages.retain(is_answer);
        self.late.retain(is_answer);
        self.say(|| "the monitor's record is lost".to_owned());
        self.start_monitor();
    }

    /// An operator says of the nodes that are gone for good that they are: the monitor that dropped them
    /// may have been lost before anybody else had heard of it.
    pub(crate) fn give_up_the_gone(&mut self) {
        let record = &self.monitor.record;
        let counts = |id| record.quarantined || record.nodes.contains_key(&id);
        let gone = self.machines.values().filter(|machine| machine.dropped && counts(machine.id));
        let gone: Vec<_> = gone.collect();
        let named = gone.into_iter().filter_map(|machine| {
            let persisted = machine.persisted.as_ref()?;
            Some(persisted.assignment.member(machine.id)?.name.clone())
        });
        for node in named.collect::<Vec<_>>() {
            self.ask(&Action::Drop { node, force: true, destroy: false });
        }
    }

    /// The monitor runs again.
    pub(crate) fn start_monitor(&mut self) {
        if !self.monitor.up {
            self.say(|| "the monitor starts".to_owned());
            self.monitor.start(self.monitor_now());
        }
    }

    /// The monitor's process stands still.
    pub(crate) fn freeze_monitor(&mut self) {
        if self.monitor.up && self.frozen_since.is_none() {
            self.frozen_since = Some(self.monitor_now());
            self.say(|| "the monitor stands still".to_owned());
        }
    }

    /// It goes on, and notices how long that was.
    pub(crate) fn thaw_monitor(&mut self) {
        let now = self.monitor_now();
        let Some(since) = self.frozen_since.take() else { return };
        if now.saturating_sub(since) > self.monitor.record.settings.node_timeout_ms / 2 {
            self.monitor.view_mut().woke(Millis(now));
        }
        self.say(|| "the monitor goes on".to_owned());
    }

    /// A keeper, or a whole host, stands still.
    pub(crate) fn freeze(&mut self, id: NodeId, what: Frozen) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.up && m.frozen == Frozen::No)
        else {
            return;
        };
        let now = machine.time(now);
        if what == Frozen::Postgres && !machine.is_ready() {
            return;
        }
        if what == Frozen::Host || machine.keeper.is_some() {
            machine.frozen = what;
            if let Some(keeper) = &mut machine.keeper {
                keeper.silent_since = (what == Frozen::Postgres).then_some(now);
            }
            self.say(|| format!("node {id}: {what:?} stands still"));
        }
    }

    /// It goes on with the memory that it had.
    pub(crate) fn thaw(&mut self, id: NodeId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.frozen != Frozen::No) else {
            return;
        };
        let slept = matches!(machine.frozen, Frozen::Keeper | Frozen::Host);
        machine.frozen = Frozen::No;
        machine.note_wake(slept, machine.time(now));
        self.say(|| format!("node {id}: goes on"));
    }

    /// Somebody sets the wall clock of a host, forward or back.
    pub(crate) fn set_wall_clock(&mut self, id: NodeId) {
        let forward = i64::try_from(self.random.below(4000)).unwrap_or(0);
        if let Some(machine) = self.machines.get_mut(id) {
            machine.clock.wall += forward - 2000;
        }
    }

    /// Every host has clocks of its own, up to 4.5 % fast or slow: two drift apart by less than a
    /// tenth.
    pub fn set_clocks(&mut self) {
        for id in self.ids() {
            let (rate, offset) = (955 + self.random.below(91), self.random.below(1_000_000));
            if let Some(machine) = self.machines.get_mut(id) {
                machine.clock.rate = rate;
                machine.clock.offset = offset;
            }
        }
        self.clock.rate = 955 + self.random.below(91);
        self.clock.offset = self.random.below(1_000_000);
        self.monitor.start(self.monitor_now());
    }

    /// A server recycles WAL that a standby may still need.
    pub(crate) fn recycle_wal(&mut self, id: NodeId) {
        if let Some(machine) = self.machines.get_mut(id).filter(|m| m.view.server.is_some()) {
            machine.wal_from = machine.log.records().len();
            self.say(|| format!("node {id}: recycles its WAL"));
        }
    }

    /// A keeper is asked to stop.
    pub(crate) fn ask_to_leave(&mut self, id: NodeId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id) else { return };
        let now = machine.time(now);
        if let Some(keeper) = &mut machine.keeper {
            keeper.leaving_since.get_or_insert(now);
            self.say(|| format!("node {id}: the keeper is asked to stop"));
        }
    }

    /// Somebody promotes a standby behind the keeper's back: PostgreSQL takes the number after its own.
    pub fn promote_by_hand(&mut self, id: NodeId) {
        let standby = |machine: &&mut crate::machine::Machine| {
            machine.runs() && machine.view.server.as_ref().is_some_and(|s| s.in_recovery)
        };
        let Some(machine) = self.machines.get_mut(id).filter(standby) else { return };
        let timeline = TimelineId(machine.log.timeline().0 + 1);
        machine.log.fork(timeline);
        machine.log.push_own(id);
        node::promote(&mut machine.view, timeline);
        machine.server.receiver = None;
        machine.server.waiting_from = machine.log.records().len();
        machine.refresh();
        self.say(|| format!("node {id}: is promoted by hand"));
    }

    fn places(&mut self) -> Option<(NodeId, NodeId)> {
        let mut places = self.ids();
        places.push(MONITOR);
        Some((self.random.pick(&places)?, self.random.pick(&places)?))
    }

    pub(crate) fn cut_something(&mut self) {
        if let Some((a, b)) = self.places().filter(|(a, b)| a != b) {
            self.set_cut(a, b, true);
            self.say(|| format!("{a} and {b} are cut from each other"));
        }
    }

    pub(crate) fn mend_something(&mut self) {
        self.start_monitor();
        let cuts: Vec<_> = self.cut.iter().copied().collect();
        if let Some((a, b)) = self.random.pick(&cuts) {
            self.set_cut(a, b, false);
            self.say(|| format!("{a} and {b} reach each other"));
        }
    }

    pub(crate) fn hold_up_replay(&mut self, id: NodeId) {
        if let Some(machine) = self.machines.get_mut(id)
            && machine.view.server.as_ref().is_some_and(|server| server.in_recovery)
        {
            machine.replay_stuck = true;
        }
    }

    /// Whether the others can still prove P1, and nothing was lost before.
    pub(crate) fn can_lose_disk(&self, id: NodeId) -> bool {
        let left: BTreeSet<_> = self
            .machines
            .values()
            .filter(|m| m.id != id && m.has_data() && self.monitor.record.nodes.contains_key(&m.id))
            .map(|machine| machine.id)
            .collect();
        let provable = self.monitor.record.specs.iter().all(|spec| spec.is_covered_by(&left));
        !self.disk_lost && left.len() >= 2 && provable
    }

    /// Once per walk, and only where the others can still prove P1.
    pub(crate) fn lose_disk(&mut self, id: NodeId) {
        if !self.can_lose_disk(id) {
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
            machine.view = node::empty_view();
            machine.view.data = Data::Empty;
            machine.hidden = None;
            machine.log = crate::log::Log::new(id);
            machine.slots.clear();
            machine.wal_from = 0;
            machine.server = ServerMemory::default();
            if with_state {
                machine.lose_state();
            }
        }
        self.say(|| format!("node {id}: the disk is lost, the keeper's state too: {with_state}"));
    }
}
