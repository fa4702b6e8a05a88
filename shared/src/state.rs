//! The state names that users of pg_auto_failover know, shown for nodes (reported and goal).

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! states {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// What a node is, or should be, in one word. A projection for people: decisions are made
        /// from the facts behind it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum NodeState {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl NodeState {
            /// Every state.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name on the wire and on the screen.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

states! {
    /// Registered; nothing has been decided for it yet.
    Init => "init",
    /// The primary of a group without other nodes.
    Single => "single",
    /// Primary, nobody in the sync set.
    WaitPrimary => "wait_primary",
    /// Primary with synchronous standbys.
    Primary => "primary",
    /// Will follow when the primary is ready for it.
    WaitStandby => "wait_standby",
    /// Being cloned or rewound, or following but not yet streaming.
    Catchingup => "catchingup",
    /// Streaming from the primary.
    Secondary => "secondary",
    /// Sealed: takes part in an election.
    ReportLsn => "report_lsn",
    /// Fetches what it lacks from another sealed node before it is promoted.
    FastForward => "fast_forward",
    /// Being promoted.
    PreparePromotion => "prepare_promotion",
    /// A primary that stops for a switchover.
    Draining => "draining",
    /// A former primary, sealed.
    Demoted => "demoted",
    /// Fenced itself: its lease ran out.
    DemoteTimeout => "demote_timeout",
    /// Sealed, waiting for the primary that was elected.
    JoinSecondary => "join_secondary",
    /// A primary that hands over before its maintenance.
    PrepareMaintenance => "prepare_maintenance",
    /// Waits to leave the sync set before its maintenance.
    WaitMaintenance => "wait_maintenance",
    /// Left alone by its keeper.
    Maintenance => "maintenance",
    /// Removed from the formation.
    Dropped => "dropped",
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
