//! The settings of a formation. One of them, `node-timeout`, is what people set; the other timers
//! follow from it unless set alone, and the relations that safety and calm need are checked here.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is stored: `None` follows the default or `node-timeout`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// How many standbys every commit waits for; `None`: 0 with up to two data nodes, else 1.
    pub number_sync_standbys: Option<u32>,
    /// Silence after which a node may be considered gone, in milliseconds.
    pub node_timeout_ms: u64,
    /// How often a keeper reports at least.
    pub report_interval_ms: Option<u64>,
    /// How long a primary may go on after its last proof that it still is the primary.
    pub lease_ms: Option<u64>,
    /// How long a crashed postmaster may take to come back before a failover is faster.
    pub restart_budget_ms: Option<u64>,
    /// How long a standby may hold up commits before it leaves the sync set.
    pub stall_timeout_ms: Option<u64>,
    /// How long an election that could be decided waits for nodes that have not answered.
    pub election_grace_ms: Option<u64>,
    /// How long a switchover may take to stop the old primary before it is given up.
    pub drain_timeout_ms: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            number_sync_standbys: None,
            node_timeout_ms: 3000,
            report_interval_ms: None,
            lease_ms: None,
            restart_budget_ms: None,
            stall_timeout_ms: None,
            election_grace_ms: None,
            drain_timeout_ms: None,
        }
    }
}

/// The timers in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timers {
    /// See [`Settings::node_timeout_ms`].
    pub node_timeout_ms: u64,
    /// 1/6 of the node timeout: some five reports may be lost before a node is suspected.
    pub report_interval_ms: u64,
    /// 2/3 of the node timeout: a cut-off primary has stopped before anyone is promoted for silence.
    pub lease_ms: u64,
    /// 1/3 of the node timeout.
    pub restart_budget_ms: u64,
    /// The node timeout.
    pub stall_timeout_ms: u64,
    /// 1/6 of the node timeout.
    pub election_grace_ms: u64,
    /// Ten node timeouts: a fast shutdown with much dirty memory takes its time.
    pub drain_timeout_ms: u64,
}

/// Timers that do not work together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// A timer outside its range.
    #[error("{name} must be between {min} ms and {max} ms, and is {value} ms")]
    Range {
        /// Which.
        name: &'static str,
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
        /// What it would be.
        value: u64,
    },
    /// Two timers in the wrong order.
    #[error("{lesser} ({lesser_ms} ms) must be at most {share}{greater} ({greater_ms} ms): {why}")]
    Relation {
        /// The one that must be smaller.
        lesser: &'static str,
        /// Its value.
        lesser_ms: u64,
        /// The one that must be larger.
        greater: &'static str,
        /// Its value.
        greater_ms: u64,
        /// By how much: such as `half of `.
        share: &'static str,
        /// The reason.
        why: &'static str,
    },
}

impl Settings {
    /// The timers in force: what is set, and for the rest what follows from `node-timeout`.
    pub fn timers(&self) -> Timers {
        let node = self.node_timeout_ms;
        Timers {
            node_timeout_ms: node,
            report_interval_ms: self.report_interval_ms.unwrap_or(node / 6),
            lease_ms: self.lease_ms.unwrap_or(node * 2 / 3),
            restart_budget_ms: self.restart_budget_ms.unwrap_or(node / 3),
            stall_timeout_ms: self.stall_timeout_ms.unwrap_or(node),
            election_grace_ms: self.election_grace_ms.unwrap_or(node / 6),
            drain_timeout_ms: self.drain_timeout_ms.unwrap_or(node * 10),
        }
    }

    /// Checks the ranges and relations that safety and calm need.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        let timers = self.timers();
        let range = |name, value, min, max| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(InvalidSettings::Range { name, min, max, value })
            }
        };
        range("node-timeout", timers.node_timeout_ms, 300, 3_600_000)?;
        range("report-interval", timers.report_interval_ms, 50, 600_000)?;
        range("restart-budget", timers.restart_budget_ms, 0, 3_600_000)?;
        range("stall-timeout", timers.stall_timeout_ms, 100, 3_600_000)?;
        range("election-grace", timers.election_grace_ms, 0, 600_000)?;
        range("drain-timeout", timers.drain_timeout_ms, 1000, 86_400_000)?;
        relations(&timers).iter().try_for_each(Relation::check)
    }
}

/// A timer under its name.
type Timer = (&'static str, u64);

/// `lesser` is at most `share` of `greater`.
struct Relation {
    lesser: Timer,
    greater: Timer,
    /// Numerator, denominator, and in words.
    share: (u64, u64, &'static str),
    why: &'static str,
}

impl Relation {
    fn check(&self) -> Result<(), InvalidSettings> {
        let ((lesser, lesser_ms), (greater, greater_ms)) = (self.lesser, self.greater);
        let (numerator, denominator, share) = self.share;
        if lesser_ms.saturating_mul(denominator) <= greater_ms.saturating_mul(numerator) {
            return Ok(());
        }
        let why = self.why;
        Err(InvalidSettings::Relation { lesser, lesser_ms, greater, greater_ms, share, why })
    }
}

/// What must hold between the timers. `restart-budget` is free: how long to wait for a crashed
/// PostgreSQL is a matter of taste, and its keeper reports all the while.
fn relations(timers: &Timers) -> [Relation; 6] {
    let node_timeout = ("node-timeout", timers.node_timeout_ms);
    let report_interval = ("report-interval", timers.report_interval_ms);
    let lease = ("lease", timers.lease_ms);
    [
        Relation {
            lesser: lease,
            greater: node_timeout,
            share: (9, 10, "nine tenths of "),
            why: "a primary that has been cut off must have stopped before another is promoted",
        },
        Relation {
            lesser: report_interval,
            greater: lease,
            share: (1, 2, "half of "),
            why: "one lost report must not cost the primary its lease",
        },
        Relation {
            lesser: report_interval,
            greater: node_timeout,
            share: (1, 3, "a third of "),
            why: "a silent node is probed after two of them, and a probe may take the last third",
        },
        Relation {
            lesser: report_interval,
            greater: ("stall-timeout", timers.stall_timeout_ms),
            share: (1, 2, "half of "),
            why: "a standby must not leave the sync set for one report that is late",
        },
        Relation {
            lesser: ("election-grace", timers.election_grace_ms),
            greater: node_timeout,
            share: (1, 1, ""),
            why: "a node that has been silent for as long counts as gone, and need not be waited for",
        },
        Relation {
            lesser: node_timeout,
            greater: ("drain-timeout", timers.drain_timeout_ms),
            share: (1, 1, ""),
            why: "a primary that falls silent while it stops must be found gone, not be given up before",
        },
    ]
}

impl Timers {
    /// [`Timers::lease_ms`] as a duration.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// [`Timers::report_interval_ms`] as a duration.
    pub fn report_interval(&self) -> Duration {
        Duration::from_millis(self.report_interval_ms)
    }

    /// [`Timers::node_timeout_ms`] as a duration.
    pub fn node_timeout(&self) -> Duration {
        Duration::from_millis(self.node_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_valid() {
        for node_timeout_ms in [1000, 3000, 10_000] {
            Settings { node_timeout_ms, ..Settings::default() }.validate().unwrap();
        }
    }

    #[test]
    fn a_lease_that_outlives_the_node_timeout_is_refused() {
        let settings = Settings { lease_ms: Some(3000), ..Settings::default() };
        assert!(matches!(
            settings.validate(),
            Err(InvalidSettings::Relation { lesser: "lease", .. })
        ));
        let settings = Settings { report_interval_ms: Some(1500), ..Settings::default() };
        assert!(settings.validate().is_err());
    }

    fn relation(change: impl FnOnce(&mut Settings)) -> Option<(&'static str, &'static str)> {
        let mut settings = Settings::default();
        change(&mut settings);
        match settings.validate() {
            Ok(()) => None,
            Err(InvalidSettings::Relation { lesser, greater, .. }) => Some((lesser, greater)),
            Err(error @ InvalidSettings::Range { .. }) => panic!("{error}"),
        }
    }

    #[test]
    fn each_relation_is_checked_and_its_limit_is_allowed() {
        assert_eq!(relation(|s| s.lease_ms = Some(2700)), None);
        assert_eq!(relation(|s| s.lease_ms = Some(2701)), Some(("lease", "node-timeout")));
        assert_eq!(relation(|s| s.report_interval_ms = Some(1000)), None);
        let late = |s: &mut Settings| s.report_interval_ms = Some(1001);
        assert_eq!(relation(late), Some(("report-interval", "lease")));
        let late = |s: &mut Settings| {
            (s.lease_ms, s.report_interval_ms) = (Some(2700), Some(1001));
        };
        assert_eq!(relation(late), Some(("report-interval", "node-timeout")));
        assert_eq!(relation(|s| s.stall_timeout_ms = Some(1000)), None);
        let stalled = |s: &mut Settings| s.stall_timeout_ms = Some(999);
        assert_eq!(relation(stalled), Some(("report-interval", "stall-timeout")));
        assert_eq!(relation(|s| s.election_grace_ms = Some(3000)), None);
        let slow = |s: &mut Settings| s.election_grace_ms = Some(3001);
        assert_eq!(relation(slow), Some(("election-grace", "node-timeout")));
        assert_eq!(relation(|s| s.drain_timeout_ms = Some(3000)), None);
        let hasty = |s: &mut Settings| s.drain_timeout_ms = Some(2999);
        assert_eq!(relation(hasty), Some(("node-timeout", "drain-timeout")));
        assert_eq!(relation(|s| s.restart_budget_ms = Some(600_000)), None);
    }

    /// A timer that was set alone goes on to count when `node-timeout` changes.
    #[test]
    fn what_was_set_before_is_part_of_it() {
        let shorter = |s: &mut Settings| (s.lease_ms, s.node_timeout_ms) = (Some(2000), 1000);
        assert_eq!(relation(shorter), Some(("lease", "node-timeout")));
        let longer = |s: &mut Settings| {
            (s.drain_timeout_ms, s.node_timeout_ms) = (Some(5000), 10_000);
        };
        assert_eq!(relation(longer), Some(("node-timeout", "drain-timeout")));
        let settings = Settings { lease_ms: Some(2900), ..Settings::default() };
        assert_eq!(
            settings.validate().unwrap_err().to_string(),
            "lease (2900 ms) must be at most nine tenths of node-timeout (3000 ms): a primary that has been cut off must have stopped before another is promoted"
        );
    }

    /// Whatever `node-timeout` may be, what follows from it fits.
    #[test]
    fn the_defaults_fit_everywhere() {
        for node_timeout_ms in (300..=3_600_000).step_by(301) {
            let settings = Settings { node_timeout_ms, ..Settings::default() };
            assert_eq!(settings.validate(), Ok(()), "{node_timeout_ms}");
        }
    }
}
