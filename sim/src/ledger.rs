//! What clients were told, and the logs that epochs were promoted with: P1 and P2 of
//! `docs/safety.md`, checked on both sides of each event.

use crate::log::RecordId;
use shared::ids::{Epoch, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Something that must never happen has happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// P1: an epoch was promoted with a log that lacks an acknowledged record.
    Lost {
        /// The record.
        record: RecordId,
        /// The epoch that acknowledged it.
        acknowledged: Epoch,
        /// The epoch that lacks it.
        promoted: Epoch,
    },
    /// P2: an older epoch acknowledged what a newer one's log does not have.
    TwoWriters {
        /// The record.
        record: RecordId,
        /// The old epoch.
        old: Epoch,
        /// The newer one, promoted before.
        new: Epoch,
    },
    /// A commit was acknowledged on a timeline that no epoch owns, or a node was promoted with one in its log.
    NoEpoch {
        /// Where.
        node: NodeId,
    },
    /// The record, or a decision about it, breaks an invariant.
    Record(String),
    /// P3: after the faults the group does not converge.
    Stuck(String),
}

/// All acknowledgements and promotions so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    acknowledged: BTreeMap<RecordId, Epoch>,
    promotions: Vec<(Epoch, BTreeSet<RecordId>)>,
    /// What an operator accepted to lose.
    forgiven: BTreeSet<RecordId>,
    losses: usize,
    /// What went wrong, the first thing only.
    pub violation: Option<Violation>,
}

impl Ledger {
    /// Notes a violation; the first one is kept.
    pub fn accuse(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// A client was told COMMIT.
    pub fn acknowledge(&mut self, record: RecordId, epoch: Epoch) {
        let lacking = self
            .promotions
            .iter()
            .find(|(promoted, log)| *promoted > epoch && !log.contains(&record))
            .map(|(promoted, _)| *promoted);
        if let Some(new) = lacking {
            self.accuse(Violation::TwoWriters { record, old: epoch, new });
        }
        self.acknowledged.insert(record, epoch);
    }

    /// A node left recovery on the timeline of this epoch, with this log.
    pub fn promote(&mut self, epoch: Epoch, log: &[RecordId]) {
        let log: BTreeSet<_> = log.iter().copied().filter(|record| record.is_commit()).collect();
        let lost = self
            .acknowledged
            .iter()
            .filter(|(record, _)| !self.forgiven.contains(record))
            .find(|(record, acknowledged)| **acknowledged < epoch && !log.contains(record))
            .map(|(record, acknowledged)| (*record, *acknowledged));
        if let Some((record, acknowledged)) = lost {
            self.accuse(Violation::Lost { record, acknowledged, promoted: epoch });
        }
        self.promotions.push((epoch, log));
    }

    /// An election by which the operator accepted a loss was decided for a log: what was acknowledged
    /// until then and is neither there nor with any of its witnesses is given up, and nothing else.
    pub fn forgive(&mut self, kept: &BTreeSet<RecordId>) {
        self.losses += 1;
        self.forgiven.extend(self.acknowledged.keys().filter(|record| !kept.contains(record)));
    }

    /// Whether an operator has given up anything.
    pub fn has_losses(&self) -> bool {
        self.losses > 0
    }

    /// Whether an operator accepted to lose this one.
    pub fn is_forgiven(&self, record: RecordId) -> bool {
        self.forgiven.contains(&record)
    }

    /// Whether a client was told COMMIT.
    pub fn is_acknowledged(&self, record: RecordId) -> bool {
        self.acknowledged.contains_key(&record)
    }

    /// How many commits were acknowledged, and how many promotions there were.
    pub fn counts(&self) -> (usize, usize) {
        (self.acknowledged.len(), self.promotions.len())
    }
}
