//! The things that may happen to a world in a walk, each with its weight.

use crate::machine::Frozen;
use crate::world::World;
use shared::api::Action;
use shared::ids::NodeId;

/// A group does not grow beyond this.
const MOST_NODES: usize = 7;

/// Something that goes wrong, or that an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Postgres ends by itself.
    CrashPostgres,
    /// A keeper ends by itself.
    CrashKeeper,
    /// A host ends.
    CrashHost,
    /// A host, or its keeper, starts again.
    Restart,
    /// The monitor is killed.
    KillMonitor,
    /// The monitor's record is lost, and made anew from what the keepers know.
    LoseRecord,
    /// Two places cannot reach each other.
    Cut,
    /// Two places reach each other again.
    Mend,
    /// The replay of a standby is held up.
    HoldReplay,
    /// A disk is lost, once at most.
    LoseDisk,
    /// Everything runs, for a while.
    Recover,
    /// Postgres ends and does not start again.
    FillDisk,
    /// A Postgres gives no answer.
    FreezePostgres,
    /// A keeper stands still.
    FreezeKeeper,
    /// A host stands still.
    FreezeHost,
    /// The monitor stands still.
    FreezeMonitor,
    /// Something that stands still goes on.
    Thaw,
    /// Somebody sets a wall clock.
    SetWallClock,
    /// WAL is recycled that somebody may need.
    RecycleWal,
    /// Somebody promotes a standby by hand.
    PromoteByHand,
    /// A keeper is asked to stop.
    Leave,
    /// A node joins.
    Join,
    /// An operator asks for another primary.
    Switchover,
    /// An operator asks for a primary by name.
    SwitchoverTo,
    /// The same, by another name.
    Promote,
    /// An operator asks for a failover.
    Failover,
    /// An operator asks for a failover whatever it costs.
    FailoverWithLoss,
    /// The same, and the old primary is fenced.
    FailoverFenced,
    /// A node goes into maintenance, or comes back.
    Maintenance,
    /// `number-sync-standbys` is set.
    SetNumber,
    /// A candidate priority is set.
    SetPriority,
    /// A node leaves the quorum, or comes back.
    SetQuorum,
    /// A node is to replicate from another, or from the primary again.
    SetUpstream,
    /// A node is dropped.
    Drop,
    /// A node that is gone is dropped by force.
    DropByForce,
    /// An operator has Postgres restarted.
    OrderRestart,
    /// An operator has a standby copied anew.
    OrderCopy,
    /// Automation is paused.
    Pause,
    /// It goes on.
    Resume,
}

/// What may happen, with its weight.
pub type Mix = &'static [(u64, Disturbance)];

/// Everything.
pub const EVERYTHING: Mix = &[
    (2, Disturbance::CrashPostgres),
    (2, Disturbance::CrashKeeper),
    (3, Disturbance::CrashHost),
    (2, Disturbance::Restart),
    (1, Disturbance::KillMonitor),
    (2, Disturbance::Cut),
    (2, Disturbance::Mend),
    (1, Disturbance::HoldReplay),
    (1, Disturbance::LoseDisk),
    (3, Disturbance::Recover),
    (3, Disturbance::FillDisk),
    (1, Disturbance::FreezePostgres),
    (1, Disturbance::FreezeKeeper),
    (1, Disturbance::FreezeHost),
    (1, Disturbance::FreezeMonitor),
    (4, Disturbance::Thaw),
    (1, Disturbance::SetWallClock),
    (1, Disturbance::RecycleWal),
    (1, Disturbance::PromoteByHand),
    (1, Disturbance::Leave),
    (1, Disturbance::Join),
    (1, Disturbance::Switchover),
    (1, Disturbance::SwitchoverTo),
    (1, Disturbance::Promote),
    (1, Disturbance::Failover),
    (1, Disturbance::FailoverWithLoss),
    (1, Disturbance::FailoverFenced),
    (1, Disturbance::Maintenance),
    (1, Disturbance::SetNumber),
    (1, Disturbance::SetPriority),
    (1, Disturbance::SetQuorum),
    (2, Disturbance::SetUpstream),
    (1, Disturbance::Drop),
    (1, Disturbance::DropByForce),
    (1, Disturbance::OrderRestart),
    (1, Disturbance::OrderCopy),
    (1, Disturbance::Pause),
    // Automation is to be seen at work most of the time.
    (4, Disturbance::Resume),
];

/// The sync spec changes again and again while nodes come and go.
pub const SYNC_CHANGES: Mix = &[
    (6, Disturbance::SetNumber),
    (4, Disturbance::SetQuorum),
    (4, Disturbance::CrashHost),
    (2, Disturbance::Restart),
    (2, Disturbance::FreezeHost),
    (2, Disturbance::Thaw),
    (2, Disturbance::Cut),
    (2, Disturbance::Recover),
];

/// Primaries are cut off, and operators accept losses.
pub const LOSSES: Mix = &[
    (4, Disturbance::FailoverWithLoss),
    (6, Disturbance::Cut),
    (2, Disturbance::Mend),
    (3, Disturbance::SetNumber),
    (2, Disturbance::Recover),
    (1, Disturbance::CrashHost),
];

/// Primaries change, and nodes are lost and copied.
pub const CHANGES: Mix = &[
    (1, Disturbance::LoseDisk),
    (4, Disturbance::CrashHost),
    (3, Disturbance::Restart),
    (5, Disturbance::Cut),
    (3, Disturbance::Mend),
    (2, Disturbance::Recover),
    (1, Disturbance::Switchover),
];

/// The monitor's record is lost again and again, in the middle of everything.
pub const LOST_RECORDS: Mix = &[
    (6, Disturbance::LoseRecord),
    (2, Disturbance::KillMonitor),
    (2, Disturbance::CrashPostgres),
    (2, Disturbance::CrashKeeper),
    (3, Disturbance::CrashHost),
    (3, Disturbance::Restart),
    (2, Disturbance::Cut),
    (2, Disturbance::Mend),
    (3, Disturbance::Recover),
    (1, Disturbance::FreezeKeeper),
    (1, Disturbance::FreezeHost),
    (3, Disturbance::Thaw),
    (1, Disturbance::PromoteByHand),
    (1, Disturbance::Join),
    (2, Disturbance::Switchover),
    (2, Disturbance::Failover),
    (1, Disturbance::Maintenance),
    (1, Disturbance::SetNumber),
    (1, Disturbance::SetQuorum),
    (2, Disturbance::SetUpstream),
    (1, Disturbance::Drop),
    (1, Disturbance::DropByForce),
    (3, Disturbance::OrderRestart),
    (2, Disturbance::OrderCopy),
    (1, Disturbance::Pause),
    (3, Disturbance::Resume),
];

/// Standbys stream from standbys, which come and go, and are promoted.
pub const CASCADES: Mix = &[
    (30, Disturbance::SetUpstream),
    (2, Disturbance::SetNumber),
    (1, Disturbance::SetQuorum),
    (1, Disturbance::SetPriority),
    (2, Disturbance::CrashPostgres),
    (1, Disturbance::CrashKeeper),
    (4, Disturbance::CrashHost),
    (3, Disturbance::Restart),
    (4, Disturbance::Cut),
    (3, Disturbance::Mend),
    (3, Disturbance::Recover),
    (1, Disturbance::HoldReplay),
    (1, Disturbance::FreezePostgres),
    (2, Disturbance::FreezeKeeper),
    (1, Disturbance::FreezeHost),
    (4, Disturbance::Thaw),
    (1, Disturbance::RecycleWal),
    (1, Disturbance::PromoteByHand),
    (1, Disturbance::LoseDisk),
    (1, Disturbance::Leave),
    (1, Disturbance::Join),
    (2, Disturbance::Switchover),
    (2, Disturbance::SwitchoverTo),
    (1, Disturbance::Failover),
    (1, Disturbance::Drop),
    (1, Disturbance::Maintenance),
    (1, Disturbance::OrderRestart),
    (1, Disturbance::OrderCopy),
    (1, Disturbance::KillMonitor),
];

/// The names of the mixes.
pub const MIXES: [(&str, Mix); 6] = [
    ("lost-records", LOST_RECORDS),
    ("everything", EVERYTHING),
    ("sync-changes", SYNC_CHANGES),
    ("losses", LOSSES),
    ("changes", CHANGES),
    ("cascades", CASCADES),
];

impl World {
    /// One thing happens, whichever it is.
    pub fn disturb(&mut self, mix: Mix) {
        let ids = self.ids();
        let Some(id) = self.random.pick(&ids) else { return };
        let mut left = self.random.below(mix.iter().map(|(weight, _)| weight).sum());
        for (weight, disturbance) in mix {
            if left < *weight {
                self.happen(*disturbance, id);
                return;
            }
            left -= weight;
        }
    }

    fn happen(&mut self, disturbance: Disturbance, id: NodeId) {
        match disturbance {
            Disturbance::CrashPostgres => self.crash_postgres(id),
            Disturbance::CrashKeeper => self.crash_keeper(id),
            Disturbance::CrashHost => self.crash_host(id),
            Disturbance::Restart => self.restart(id),
            Disturbance::KillMonitor => {
                let at_once = self.random.one_in(2);
                self.crash_monitor(at_once);
            }
            Disturbance::LoseRecord => self.lose_record(),
            Disturbance::Cut => self.cut_something(),
            Disturbance::Mend => self.mend_something(),
            Disturbance::HoldReplay => self.hold_up_replay(id),
            Disturbance::LoseDisk => self.lose_disk(id),
            Disturbance::Recover => self.recover(),
            Disturbance::FillDisk => self.fill_disk(id),
            Disturbance::FreezePostgres => self.freeze(id, Frozen::Postgres),
            Disturbance::FreezeKeeper => self.freeze(id, Frozen::Keeper),
            Disturbance::FreezeHost => self.freeze(id, Frozen::Host),
            Disturbance::FreezeMonitor => self.freeze_monitor(),
            Disturbance::Thaw => {
                self.thaw_monitor();
                self.thaw(id);
            }
            Disturbance::SetWallClock => self.set_wall_clock(id),
            Disturbance::RecycleWal => self.recycle_wal(id),
            Disturbance::PromoteByHand => self.promote_by_hand(id),
            Disturbance::Leave => self.ask_to_leave(id),
            Disturbance::Join => self.join_another(),
            Disturbance::Switchover
            | Disturbance::SwitchoverTo
            | Disturbance::Promote
            | Disturbance::Failover
            | Disturbance::FailoverWithLoss
            | Disturbance::FailoverFenced
            | Disturbance::Maintenance
            | Disturbance::SetNumber
            | Disturbance::SetPriority
            | Disturbance::SetQuorum
            | Disturbance::SetUpstream
            | Disturbance::Drop
            | Disturbance::DropByForce
            | Disturbance::OrderRestart
            | Disturbance::OrderCopy => self.request(disturbance, id),
            Disturbance::Pause => self.ask(&Action::Pause),
            Disturbance::Resume => self.resume(),
        }
    }

    fn join_another(&mut self) {
        if self.is_watched() && self.monitor.record.nodes.len() < MOST_NODES {
            let quorum = !self.random.one_in(3);
            if let Some(id) = self.join(quorum) {
                self.say(|| format!("node {id} joins, in the quorum: {quorum}"));
            }
        }
    }

    /// What an operator asks for.
    fn request(&mut self, disturbance: Disturbance, id: NodeId) {
        let Some(node) = self.name_of(id) else { return };
        let on = self.random.one_in(2);
        let priority = self.random.pick(&["0", "50", "90"]).unwrap_or("50");
        let number = self.random.below(3).to_string();
        let gone = self.machines.get(id).is_some_and(|machine| !machine.up);
        let spare = self.monitor.record.nodes.len() > 2;
        match disturbance {
            Disturbance::Switchover => self.ask(&Action::Switchover { to: None }),
            Disturbance::SwitchoverTo => self.ask(&Action::Switchover { to: Some(node) }),
            Disturbance::Promote => self.ask(&Action::Promote { node }),
            Disturbance::FailoverWithLoss => self.fail_over_with_loss(false),
            Disturbance::FailoverFenced => self.fail_over_with_loss(true),
            Disturbance::Maintenance => {
                self.ask(&Action::Maintenance { node, on, allow_failover: true });
            }
            Disturbance::SetNumber => self.set_formation("number-sync-standbys", &number),
            Disturbance::SetPriority => self.set_node(id, "candidate-priority", priority),
            Disturbance::SetQuorum => {
                self.set_node(id, "replication-quorum", if on { "true" } else { "false" });
            }
            Disturbance::SetUpstream => self.set_upstream(id),
            Disturbance::Drop if spare => {
                self.ask(&Action::Drop { node, force: false, destroy: false });
            }
            Disturbance::DropByForce if spare && gone => {
                self.ask(&Action::Drop { node, force: true, destroy: false });
            }
            Disturbance::OrderRestart => self.ask(&Action::Restart { node }),
            Disturbance::OrderCopy => self.ask(&Action::Reinit { node }),
            Disturbance::Failover => {
                self.ask(&Action::Failover { allow_data_loss: false, fenced: false });
            }
            Disturbance::Drop
            | Disturbance::DropByForce
            | Disturbance::CrashPostgres
            | Disturbance::CrashKeeper
            | Disturbance::CrashHost
            | Disturbance::Restart
            | Disturbance::KillMonitor
            | Disturbance::LoseRecord
            | Disturbance::Cut
            | Disturbance::Mend
            | Disturbance::HoldReplay
            | Disturbance::LoseDisk
            | Disturbance::Recover
            | Disturbance::FillDisk
            | Disturbance::FreezePostgres
            | Disturbance::FreezeKeeper
            | Disturbance::FreezeHost
            | Disturbance::FreezeMonitor
            | Disturbance::Thaw
            | Disturbance::SetWallClock
            | Disturbance::RecycleWal
            | Disturbance::PromoteByHand
            | Disturbance::Leave
            | Disturbance::Join
            | Disturbance::Pause
            | Disturbance::Resume => {}
        }
    }
}
