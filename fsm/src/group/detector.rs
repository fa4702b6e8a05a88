//! The failure detector: evidence in, verdict out.
//!
//! A node is *dead* when its keeper has been silent for the node timeout (or its host refuses
//! connections to it), its Postgres does not answer the monitor, and no peer can reach it. A monitor
//! that has not watched for a whole node timeout judges nobody for being silent.

use super::view::{Evidence, Probe, View};
use crate::Millis;
use shared::ids::NodeId;
use shared::settings::Timers;

/// What the detector says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its keeper reports.
    Good,
    /// Not heard since the monitor started, and it is too early to judge.
    Unknown,
    /// Something is odd: probe it.
    Suspect,
    /// Gone: why.
    Dead(String),
}

impl Verdict {
    /// Whether the node is to be counted on.
    pub fn is_dead(&self) -> bool {
        match self {
            Self::Dead(_) => true,
            Self::Good | Self::Unknown | Self::Suspect => false,
        }
    }

    /// The word in `status`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Unknown | Self::Suspect => "unknown",
            Self::Dead(_) => "bad",
        }
    }
}

/// Judges a node.
pub fn verdict(view: &View, id: NodeId, timers: &Timers, now: Millis) -> Verdict {
    let nothing = Evidence::default();
    let evidence = view.nodes.get(&id).unwrap_or(&nothing);
    // Silence only counts while somebody listened.
    let last = evidence.reported_at.max(view.watching_since);
    let silence = now.since(last);
    if !evidence.closed && evidence.report.is_some() && silence <= timers.report_interval_ms * 2 {
        return Verdict::Good;
    }
    let keeper = evidence.keeper.newer_than(last);
    let postgres = evidence.postgres.newer_than(last);
    let why = match (keeper, postgres) {
        (Probe::Refused(_), Probe::Refused(_)) => {
            return Verdict::Dead(
                "its host refuses connections to its keeper and its Postgres".into(),
            );
        }
        (Probe::Refused(_), Probe::Silent(_)) => {
            "its keeper is gone and its Postgres does not answer"
        }
        (Probe::Unknown | Probe::Silent(_), Probe::Refused(_)) => {
            "its keeper is silent and its Postgres is gone"
        }
        (Probe::Unknown | Probe::Silent(_), Probe::Silent(_)) => {
            "its keeper is silent and its Postgres does not answer"
        }
        (Probe::Answered(_), _) | (_, Probe::Unknown | Probe::Answered(_)) => {
            return undecided(evidence, silence, timers);
        }
    };
    let reached = evidence.peers.values().any(|probe| match probe.newer_than(last) {
        Probe::Answered(_) => true,
        Probe::Unknown | Probe::Refused(_) | Probe::Silent(_) => false,
    });
    let long_enough = silence >= timers.node_timeout_ms || matches!(keeper, Probe::Refused(_));
    if long_enough && !reached {
        Verdict::Dead(format!("{why}; last heard {silence} ms ago"))
    } else {
        Verdict::Suspect
    }
}

fn undecided(evidence: &Evidence, silence: u64, timers: &Timers) -> Verdict {
    if evidence.report.is_none() && silence < timers.node_timeout_ms {
        Verdict::Unknown
    } else {
        Verdict::Suspect
    }
}

/// Whether a node should be probed now, by the monitor and by its peers.
pub fn wants_probe(view: &View, id: NodeId, timers: &Timers, now: Millis) -> bool {
    match verdict(view, id, timers, now) {
        Verdict::Suspect | Verdict::Dead(_) => true,
        Verdict::Good | Verdict::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::settings::Settings;

    fn judge(evidence: Evidence, now: u64) -> Verdict {
        let mut view = View::starting(Millis(0), 0);
        view.nodes.insert(NodeId(1), evidence);
        verdict(&view, NodeId(1), &Settings::default().timers(), Millis(now))
    }

    fn silent_since(ms: u64, keeper: Probe, postgres: Probe) -> Evidence {
        Evidence { reported_at: Millis(ms), closed: true, keeper, postgres, ..Evidence::default() }
    }

    #[test]
    fn refused_by_both_is_dead_at_once() {
        let at = Millis(1001);
        let dead = judge(silent_since(1000, Probe::Refused(at), Probe::Refused(at)), 1002);
        assert!(dead.is_dead(), "{dead:?}");
    }

    #[test]
    fn a_postgres_that_answers_is_never_dead() {
        let at = Millis(90_000);
        for keeper in [Probe::Refused(at), Probe::Silent(at), Probe::Unknown] {
            assert_eq!(
                judge(silent_since(1000, keeper, Probe::Answered(at)), 90_001),
                Verdict::Suspect
            );
        }
    }

    #[test]
    fn silence_takes_the_node_timeout() {
        let silent = |at| silent_since(1000, Probe::Silent(Millis(at)), Probe::Silent(Millis(at)));
        assert_eq!(judge(silent(3900), 3999), Verdict::Suspect);
        assert!(judge(silent(3900), 4000).is_dead());
    }

    #[test]
    fn a_peer_that_reaches_it_stays_the_verdict() {
        let mut evidence =
            silent_since(1000, Probe::Silent(Millis(3900)), Probe::Silent(Millis(3900)));
        evidence.peers.insert(NodeId(2), Probe::Answered(Millis(3900)));
        assert_eq!(judge(evidence, 10_000), Verdict::Suspect);
    }

    #[test]
    fn a_monitor_that_just_woke_judges_nobody_for_silence() {
        let mut view = View::starting(Millis(0), 0);
        view.nodes.insert(
            NodeId(1),
            silent_since(1000, Probe::Silent(Millis(50_100)), Probe::Silent(Millis(50_100))),
        );
        view.woke(Millis(50_000));
        let timers = Settings::default().timers();
        assert_eq!(verdict(&view, NodeId(1), &timers, Millis(51_000)), Verdict::Suspect);
        assert!(verdict(&view, NodeId(1), &timers, Millis(53_000)).is_dead());
    }
}
