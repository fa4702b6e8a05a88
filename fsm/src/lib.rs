//! Everything that decides, as pure functions: the group's state machine and the failure detector
//! (run by the monitor), the keeper's plan and its lease rule (run by the keepers).
//!
//! Time, chance and settings are arguments; there is no clock, no file, no lock and no unordered map
//! in this crate, so that the model checker and the simulator run the very functions that the
//! services run. The rules are those of `docs/safety.md`. What the services write down of their
//! decisions, to be decided again elsewhere, is in [`trace`].

pub mod group;
pub mod node;
pub mod pgsettings;
pub mod trace;

use serde::{Deserialize, Serialize};
use shared::Timestamp;

/// A monotonic time in milliseconds, of one process; never compared across processes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// The milliseconds from `earlier` to this; 0 where that lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This many milliseconds earlier.
    #[must_use]
    pub fn minus(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// This many milliseconds later.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// The time of a decision: what it is decided by, and what is written into its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Durations are measured on this.
    pub mono: Millis,
    /// People read this.
    pub wall: Timestamp,
}
