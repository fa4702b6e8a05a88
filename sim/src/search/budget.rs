//! What may go wrong in a search, and how often.

use super::action::{Fault, Request};
use std::fmt;
use std::str::FromStr;

/// How often each may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Commits that clients ask for.
    pub writes: u8,
    /// Postgres, a keeper, or a whole host goes down; it may come back.
    pub crashes: u8,
    /// Two places cannot reach each other any more; they may again.
    pub cuts: u8,
    /// The monitor is killed and started again.
    pub monitor_crashes: u8,
    /// Every timer runs out.
    pub ticks: u8,
    /// A disk is lost, with or without the keeper's state.
    pub lost_disks: u8,
    /// A keeper's state is lost, the data is not.
    pub lost_states: u8,
    /// An answer of the monitor arrives once more, or later.
    pub late: u8,
    /// An operator asks for a switchover, to whomever or to a named node.
    pub switchovers: u8,
    /// A node goes into maintenance.
    pub maintenances: u8,
    /// A node is dropped.
    pub drops: u8,
    /// `number_sync_standbys` is set to 0, 1 or 2, or a node leaves the quorum.
    pub changes: u8,
    /// A node joins.
    pub joins: u8,
    /// The operator accepts loss.
    pub overrides: u8,
    /// Somebody promotes a standby by hand.
    pub promotions: u8,
    /// The replay of a standby is held up.
    pub held: u8,
    /// A Postgres is to be restarted, or a standby copied anew.
    pub orders: u8,
    /// Automation is paused; it may go on.
    pub pauses: u8,
}

impl Budget {
    /// How often this may still happen.
    pub fn of_fault(&mut self, fault: Fault) -> &mut u8 {
        match fault {
            Fault::Postgres(_) | Fault::Keeper(_) | Fault::Host(_) => &mut self.crashes,
            Fault::Monitor => &mut self.monitor_crashes,
            Fault::Cut(..) => &mut self.cuts,
            Fault::Disk { .. } => &mut self.lost_disks,
            Fault::State(_) => &mut self.lost_states,
            Fault::Copy(_) => &mut self.late,
            Fault::PromoteByHand(_) => &mut self.promotions,
            Fault::HoldReplay(_) => &mut self.held,
        }
    }

    /// How often this may still be asked for.
    pub fn of_request(&mut self, request: Request) -> &mut u8 {
        match request {
            Request::Switchover(_) => &mut self.switchovers,
            Request::Maintenance(_) => &mut self.maintenances,
            Request::Drop(_) => &mut self.drops,
            Request::Number(_) | Request::Quorum(..) => &mut self.changes,
            Request::Join => &mut self.joins,
            Request::AcceptLoss { .. } => &mut self.overrides,
            Request::Restart(_) | Request::Copy(_) => &mut self.orders,
            Request::Pause => &mut self.pauses,
        }
    }
}

/// A word that is no bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of NAME=NUMBER with a name among {names}", names = NAMES.join(", "))]
pub struct InvalidBudget(String);

/// What can be bounded: writes, and each kind of what may go wrong or be asked for.
pub(super) const NAMES: [&str; 18] = [
    "writes",
    "crashes",
    "cuts",
    "monitor-crashes",
    "ticks",
    "lost-disks",
    "lost-states",
    "late",
    "switchovers",
    "maintenances",
    "drops",
    "changes",
    "joins",
    "overrides",
    "promotions",
    "held",
    "orders",
    "pauses",
];

impl Budget {
    fn counts(&mut self) -> [&mut u8; NAMES.len()] {
        [
            &mut self.writes,
            &mut self.crashes,
            &mut self.cuts,
            &mut self.monitor_crashes,
            &mut self.ticks,
            &mut self.lost_disks,
            &mut self.lost_states,
            &mut self.late,
            &mut self.switchovers,
            &mut self.maintenances,
            &mut self.drops,
            &mut self.changes,
            &mut self.joins,
            &mut self.overrides,
            &mut self.promotions,
            &mut self.held,
            &mut self.orders,
            &mut self.pauses,
        ]
    }
}

/// `writes=1,crashes=2`.
impl FromStr for Budget {
    type Err = InvalidBudget;

    fn from_str(text: &str) -> Result<Self, InvalidBudget> {
        let mut budget = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let invalid = || InvalidBudget(word.to_owned());
            let (name, number) = word.split_once('=').ok_or_else(invalid)?;
            let index = NAMES.iter().position(|known| *known == name).ok_or_else(invalid)?;
            let number = number.parse().map_err(|_| invalid())?;
            if let Some(count) = budget.counts().into_iter().nth(index) {
                *count = number;
            }
        }
        Ok(budget)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = *self;
        let words: Vec<_> = NAMES
            .iter()
            .zip(copy.counts())
            .filter(|(_, count)| **count > 0)
            .map(|(name, count)| format!("{name}={count}"))
            .collect();
        f.write_str(&words.join(","))
    }
}
