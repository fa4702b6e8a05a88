//! How long a step that failed waits before it is tried again. The first time it waits a moment, then
//! twice as long each time: what a person has to mend takes minutes, and what mends itself takes little.
//!
//! Each step is counted by itself, and all of them anew when the node is told something else. Not here:
//! steps that only wait for something ([`crate::steps::StepError::NotYet`]).

use fsm::Millis;
use fsm::node::Step;
use shared::goal::Assignment;
use shared::ids::Ticket;
use shared::state::NodeState;
use std::collections::BTreeMap;

/// After the first failure.
const FIRST_MS: u64 = 100;
/// What is cheap, and may wait for another node that is about to get ready.
const LONGEST_MS: u64 = 1000;
/// A start of Postgres, a copy, a rewind: they cost something here and elsewhere.
const LONGEST_OF_HEAVY_MS: u64 = 5000;

/// The failures.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    told: Option<(Ticket, NodeState)>,
    failures: BTreeMap<&'static str, Failures>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    until: Millis,
}

impl Backoff {
    /// What the node is told; something new is tried at once.
    pub fn told(&mut self, assignment: &Assignment) {
        let told = Some((assignment.order.ticket, assignment.goal_state));
        if self.told != told {
            *self = Self { told, failures: BTreeMap::new() };
        }
    }

    /// A step has failed, also later than it was carried out: Postgres that ended while it was starting,
    /// a copy that did not get to its end.
    pub fn failed(&mut self, step: &Step, now: Millis) {
        let failures =
            self.failures.entry(step.name()).or_insert(Failures { count: 0, until: now });
        let pause = FIRST_MS.saturating_mul(1 << failures.count.min(16)).min(longest(step));
        *failures = Failures { count: failures.count.saturating_add(1), until: now.plus(pause) };
    }

    /// A step has succeeded.
    pub fn succeeded(&mut self, step: &Step) {
        self.failures.remove(step.name());
    }

    /// For how long a step is to wait; 0: not at all.
    pub fn left(&self, step: &Step, now: Millis) -> u64 {
        self.failures.get(step.name()).map_or(0, |failures| failures.until.since(now))
    }
}

/// Whether more is to come of a step when it has been carried out.
pub fn is_heavy(step: &Step) -> bool {
    match step {
        Step::StartStandby | Step::StartPrimary | Step::Clone { .. } | Step::Rewind { .. } => true,
        Step::Initialise
        | Step::Adopt
        | Step::CatchUp
        | Step::Configure(_)
        | Step::StopFast
        | Step::StopImmediate
        | Step::Restart
        | Step::Admit { .. }
        | Step::Promote { .. }
        | Step::ConfirmPromotion
        | Step::Block
        | Step::Set(_)
        | Step::Barrier(_)
        | Step::Checkpoint => false,
    }
}

fn longest(step: &Step) -> u64 {
    if is_heavy(step) { LONGEST_OF_HEAVY_MS } else { LONGEST_MS }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a step waits after each of so many failures.
    fn pauses(step: &Step, failures: u64) -> Vec<u64> {
        let mut backoff = Backoff::default();
        let now = Millis(1000);
        let pause = |_| {
            backoff.failed(step, now);
            backoff.left(step, now)
        };
        (0..failures).map(pause).collect()
    }

    #[test]
    fn it_doubles_up_to_a_limit() {
        assert_eq!(pauses(&Step::Checkpoint, 6), [100, 200, 400, 800, 1000, 1000]);
        let heavy = pauses(&Step::StartStandby, 80);
        assert_eq!(heavy[..7], [100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(heavy.last(), Some(&5000));
    }

    #[test]
    fn each_step_counts_by_itself_and_success_ends_it() {
        let mut backoff = Backoff::default();
        backoff.failed(&Step::StartStandby, Millis(1000));
        assert_eq!(backoff.left(&Step::StartPrimary, Millis(1000)), 0);
        assert_eq!(backoff.left(&Step::StartStandby, Millis(1040)), 60);
        assert_eq!(backoff.left(&Step::StartStandby, Millis(1100)), 0);
        backoff.failed(&Step::StartStandby, Millis(1100));
        backoff.succeeded(&Step::StartStandby);
        assert_eq!(backoff.left(&Step::StartStandby, Millis(1100)), 0);
    }
}
