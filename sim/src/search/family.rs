//! The searches of `make check-deep`: each kind of fault alone and in pairs, as far as they can be
//! completed, and the two that are part of every test run.

use super::{Budget, InvalidBudget, Known, Search};
use crate::world::Mutation;
use shared::settings::Settings;
use std::fmt;
use std::sync::Arc;

/// A search by its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// How many data nodes.
    pub nodes: u64,
    /// `number_sync_standbys`.
    pub required: u32,
    /// A [`Budget`].
    pub bounds: &'static str,
    /// See [`Search::lags`].
    pub lags: bool,
    /// See [`Search::guarded`].
    pub guarded: bool,
}

/// What is searched on every test run: both complete and counted.
pub const QUICK: [(Member, usize); 2] = [
    (member(2, 1, "writes=1,crashes=1,changes=1,switchovers=1"), 1_276_371),
    (member(3, 1, "writes=1,crashes=1,cuts=1"), 1_130_485),
];

/// The family.
pub const DEEP: &[Member] = &[
    member(2, 1, "writes=1,crashes=1"),
    member(2, 1, "writes=1,cuts=1"),
    member(2, 1, "writes=1,monitor-crashes=1"),
    member(2, 1, "writes=1,lost-disks=1"),
    member(2, 1, "writes=1,lost-states=1"),
    member(2, 1, "writes=1,late=1"),
    member(2, 1, "writes=1,switchovers=1"),
    member(2, 1, "writes=1,maintenances=1"),
    member(2, 1, "writes=1,drops=1"),
    member(2, 1, "writes=1,joins=1"),
    member(2, 1, "writes=1,changes=1"),
    member(2, 1, "writes=1,overrides=1"),
    member(2, 1, "writes=1,promotions=1"),
    member(2, 1, "writes=1,held=1"),
    member(2, 1, "writes=1,ticks=1"),
    member(2, 1, "writes=1,crashes=1,cuts=1"),
    member(2, 1, "writes=1,crashes=1,monitor-crashes=1"),
    member(2, 1, "writes=1,crashes=1,lost-states=1"),
    member(2, 1, "writes=1,crashes=1,late=1"),
    member(2, 1, "writes=1,crashes=1,switchovers=1"),
    member(2, 1, "writes=1,crashes=1,drops=1"),
    member(2, 1, "writes=1,crashes=1,changes=1"),
    member(2, 1, "writes=1,crashes=1,overrides=1"),
    member(2, 1, "writes=1,crashes=1,promotions=1"),
    member(2, 1, "writes=1,crashes=1,held=1"),
    member(2, 1, "writes=1,crashes=1,ticks=1"),
    member(2, 1, "writes=1,cuts=1,monitor-crashes=1"),
    member(2, 1, "writes=1,cuts=1,lost-disks=1"),
    member(2, 1, "writes=1,cuts=1,lost-states=1"),
    member(2, 1, "writes=1,cuts=1,late=1"),
    member(2, 1, "writes=1,cuts=1,switchovers=1"),
    member(2, 1, "writes=1,cuts=1,drops=1"),
    member(2, 1, "writes=1,cuts=1,changes=1"),
    member(2, 1, "writes=1,cuts=1,overrides=1"),
    member(2, 1, "writes=1,cuts=1,promotions=1"),
    member(2, 1, "writes=1,cuts=1,held=1"),
    member(2, 1, "writes=1,cuts=1,ticks=1"),
    member(2, 1, "writes=1,monitor-crashes=1,lost-disks=1"),
    member(2, 1, "writes=1,monitor-crashes=1,lost-states=1"),
    member(2, 1, "writes=1,monitor-crashes=1,late=1"),
    member(2, 1, "writes=1,monitor-crashes=1,switchovers=1"),
    member(2, 1, "writes=1,monitor-crashes=1,drops=1"),
    member(2, 1, "writes=1,monitor-crashes=1,joins=1"),
    member(2, 1, "writes=1,monitor-crashes=1,changes=1"),
    member(2, 1, "writes=1,monitor-crashes=1,overrides=1"),
    member(2, 1, "writes=1,monitor-crashes=1,promotions=1"),
    member(2, 1, "writes=1,monitor-crashes=1,held=1"),
    member(2, 1, "writes=1,monitor-crashes=1,ticks=1"),
    member(2, 1, "writes=1,lost-disks=1,lost-states=1"),
    member(2, 1, "writes=1,lost-disks=1,late=1"),
    member(2, 1, "writes=1,lost-disks=1,switchovers=1"),
    member(2, 1, "writes=1,lost-disks=1,drops=1"),
    member(2, 1, "writes=1,crashes=1,changes=1").lagging(),
    member(2, 1, "writes=1,overrides=1,ticks=1").guarded(),
    member(3, 1, "writes=1,crashes=1"),
    member(3, 1, "writes=1,cuts=1"),
    member(3, 1, "writes=1,monitor-crashes=1"),
    member(3, 1, "writes=1,lost-states=1"),
    member(3, 1, "writes=1,late=1"),
    member(3, 1, "writes=1,changes=1"),
    member(3, 1, "writes=1,promotions=1"),
    member(3, 1, "writes=1,held=1"),
    member(3, 2, "writes=1,crashes=1"),
    member(3, 2, "writes=1,cuts=1"),
    member(3, 2, "writes=1,monitor-crashes=1"),
    member(3, 2, "writes=1,lost-states=1"),
    member(3, 2, "writes=1,late=1"),
    member(3, 2, "writes=1,changes=1"),
    member(3, 2, "writes=1,promotions=1"),
    member(3, 2, "writes=1,held=1"),
    member(3, 2, "writes=1,changes=1").lagging(),
    member(3, 1, "writes=1,switchovers=1"),
    member(3, 1, "writes=1,crashes=1,cuts=1"),
    member(3, 1, "writes=1,crashes=1,monitor-crashes=1"),
];

const fn member(nodes: u64, required: u32, bounds: &'static str) -> Member {
    Member { nodes, required, bounds, lags: false, guarded: false }
}

impl Member {
    const fn lagging(self) -> Self {
        Self { lags: true, ..self }
    }

    const fn guarded(self) -> Self {
        Self { guarded: true, ..self }
    }

    /// The search; `finds_back`: P3 is asked of every state, too.
    pub fn search(&self, finds_back: bool) -> Result<Search, InvalidBudget> {
        let number_sync_standbys = Some(self.required);
        Ok(Search {
            nodes: self.nodes,
            settings: Settings { number_sync_standbys, ..Settings::default() },
            budget: self.bounds.parse::<Budget>()?,
            mutation: Mutation::None,
            guarded: self.guarded,
            lags: self.lags,
            finds_back: finds_back.then(|| Arc::new(Known::new())),
        })
    }
}

/// A row of the table in `docs/proof.md`, up to the figures.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, required, bounds, lags, guarded } = self;
        write!(f, "| {nodes} | {required} | {bounds}")?;
        if *lags {
            f.write_str(", reloads one by one")?;
        }
        if *guarded {
            f.write_str(", guarded")?;
        }
        f.write_str(" |")
    }
}
