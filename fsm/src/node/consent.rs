//! What an operator's hooks have to say before the role of this node changes: whether one is to be asked, and
//! for how long a refusal counts.
//!
//! A hook is begun when the assignment comes, beside whatever has to be done first, and is waited for only by
//! the step that changes the role. Nothing else waits for it: neither the lease, nor the guard, nor a report.
//! Not here: how it is run, and within which time (`keeper/src/hooks/`).

use super::view::{LocalView, Persisted};
use serde::{Deserialize, Serialize};
use shared::goal::Goal;

/// For how long the first refusal of a promotion counts before the hook is asked again: long enough for another
/// node to be elected meanwhile, short enough where there is no other.
const FIRST_HOLD_MS: u64 = 5000;
/// For how long the later ones do at most. Where every candidate refuses, each of them costs an election.
const LONGEST_HOLD_MS: u64 = 60_000;

/// What has come of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Asked {
    /// There is nobody to ask, or nothing against it.
    #[default]
    Clear,
    /// The hook has not answered yet.
    Running,
    /// It refuses.
    Refused,
}

/// A change of the role that a hook may come before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coming {
    /// This node is to be promoted (rule 7).
    Promotion,
    /// This primary is to stop, so that another can take over.
    Demotion,
}

/// Which change the assignment asks for and has not been made yet.
pub fn coming(view: &LocalView, persisted: &Persisted) -> Option<Coming> {
    let epoch = persisted.assignment.epoch;
    let promoted = persisted.promoted.as_ref().is_some_and(|promoted| promoted.epoch == epoch);
    match &persisted.assignment.goal {
        Goal::Seal { drain: true } if view.is_primary() => Some(Coming::Demotion),
        // One that may have begun is not to be called back.
        Goal::Primary { timeline: Some(_), .. } if !promoted && !view.is_primary() => {
            Some(Coming::Promotion)
        }
        Goal::Seal { .. }
        | Goal::Primary { .. }
        | Goal::Wait
        | Goal::Follow { .. }
        | Goal::FastForward { .. }
        | Goal::Maintenance
        | Goal::Dropped => None,
    }
}

/// How many of the refusals before count still when the hook is asked about another promotion, so long after the last
/// of them has ceased to count: none where the group had time to do without this node.
pub fn still_in_a_row(refusals: u32, over_for_ms: u64) -> u32 {
    if over_for_ms > LONGEST_HOLD_MS { 0 } else { refusals }
}

/// For how long a refusal counts, after so many in a row.
pub fn hold_ms(refusals: u32) -> u64 {
    let doubled = 2_u64.saturating_pow(refusals.saturating_sub(1).min(16));
    FIRST_HOLD_MS.saturating_mul(doubled).min(LONGEST_HOLD_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_count_longer_each_time_and_never_for_ever() {
        let seconds: Vec<_> = [1, 2, 3, 4, 5, 4000].map(|count| hold_ms(count) / 1000).into();
        assert_eq!(seconds, [5, 10, 20, 40, 60, 60]);
        assert_eq!(still_in_a_row(3, 30_000), 3);
        assert_eq!(still_in_a_row(3, 3_600_000), 0, "last night's batch");
    }
}
