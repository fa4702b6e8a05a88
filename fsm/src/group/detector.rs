//! The failure detector: evidence in, verdict out.
//!
//! A node is *dead* when its keeper has been silent for the node timeout and half a report interval (or its
//! host refuses connections to it), its Postgres does not answer the monitor, and no peer can reach it. A
//! monitor that has not watched for as long judges nobody for being silent.

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
    let long_enough = silence >= patience(timers) || matches!(keeper, Probe::Refused(_));
    if long_enough && !reached {
        Verdict::Dead(format!("{why}; last heard {silence} ms ago"))
    } else {
        Verdict::Suspect
    }
}

/// For how long a node may be silent. What is shorter than the node timeout, if only a little, is to cost
/// nobody its place; but the last report before it may be a whole interval old, and the first after it needs
/// its time. Half an interval on average is fair to both.
fn patience(timers: &Timers) -> u64 {
    timers.node_timeout_ms.saturating_add(timers.report_interval_ms / 2)
}

fn undecided(evidence: &Evidence, silence: u64, timers: &Timers) -> Verdict {
    if evidence.report.is_none() && silence < timers.node_timeout_ms {
        Verdict::Unknown
    } else {
        Verdict::Suspect
    }
}

impl View {
    /// Notices that most nodes have fallen silent at once. It is likelier that the monitor has been cut off
    /// than that they are all gone, so it watches for another node timeout before it judges anybody. To
    /// be called at every look.
    pub fn doubt(&mut self, timers: &Timers, now: Millis) {
        // Whoever has been gone for long was not lost with the others.
        let recent = timers.node_timeout_ms.saturating_mul(2);
        let known = |evidence: &&Evidence| now.since(evidence.reported_at) < recent;
        let (silent, heard): (Vec<_>, Vec<_>) = self
            .nodes
            .values()
            .filter(known)
            .partition(|evidence| is_silent(evidence, timers, now));
        let doubting = silent.len() > heard.len();
        if doubting && !self.doubting {
            self.woke(now);
        }
        self.doubting = doubting;
    }
}

/// Whether nothing has come of a node for a while, not even a refusal of its host.
fn is_silent(evidence: &Evidence, timers: &Timers, now: Millis) -> bool {
    let late = now.since(evidence.reported_at) > timers.report_interval_ms * 2;
    match evidence.keeper.newer_than(evidence.reported_at) {
        Probe::Answered(_) | Probe::Refused(_) => false,
        Probe::Unknown | Probe::Silent(_) => late,
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
        assert_eq!(judge(silent(4200), 4249), Verdict::Suspect);
        assert!(judge(silent(4200), 4250).is_dead());
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
        assert!(verdict(&view, NodeId(1), &timers, Millis(53_250)).is_dead());
    }

    /// Three nodes, of which so many were last heard at 10,000 and the others at 11,000.
    fn three(silent: u64) -> View {
        let mut view = View::starting(Millis(0), 0);
        for id in 1..=3 {
            let at = if id <= silent { 10_000 } else { 11_000 };
            let evidence = Evidence { reported_at: Millis(at), ..Evidence::default() };
            view.nodes.insert(NodeId(id), evidence);
        }
        view
    }

    #[test]
    fn a_monitor_that_loses_most_nodes_at_once_doubts_itself() {
        let timers = Settings::default().timers();
        let mut view = three(1);
        view.doubt(&timers, Millis(11_500));
        assert_eq!(view.watching_since, Millis(0), "one of three is a loss like any other");
        let mut view = three(2);
        view.doubt(&timers, Millis(11_000));
        assert_eq!(view.watching_since, Millis(0), "not silent for long enough");
        view.doubt(&timers, Millis(11_100));
        assert_eq!(view.watching_since, Millis(11_100));
        view.doubt(&timers, Millis(12_000));
        assert_eq!(view.watching_since, Millis(11_100), "once");
    }

    #[test]
    fn who_has_been_gone_for_long_is_not_lost_with_others() {
        let timers = Settings::default().timers();
        let mut view = three(1);
        for (id, at) in [(2, 60_000), (3, 61_000)] {
            view.nodes.get_mut(&NodeId(id)).unwrap().reported_at = Millis(at);
        }
        view.doubt(&timers, Millis(61_500));
        assert_eq!(view.watching_since, Millis(0));
    }
}
