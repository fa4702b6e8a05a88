//! How often Postgres has ended by itself of late, as what, and what it said: what the restart budget is
//! counted by, and what people are told. What follows from that is decided in `fsm::node::view`.

use fsm::Millis;

/// Longer than any window in which crashes are counted.
const KEPT_MS: u64 = 600_000;

/// The crashes of one node.
#[derive(Clone, Debug, Default)]
pub struct Crashes {
    recent: Vec<Crash>,
    /// Since when it is down, or could not be started, and has not been ready again.
    down_since: Option<Millis>,
    /// It has accepted connections since it was started.
    ready: bool,
    /// When somebody last stopped it.
    stopped: Option<Millis>,
    /// What it said when it ended last.
    why: Option<String>,
    /// It cannot be started whatever its data are like: what it said to that.
    unfit: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Crash {
    at: Millis,
    standby: bool,
}

impl Crashes {
    /// It has ended by itself; `why`, as far as it has said so.
    pub fn ended(&mut self, now: Millis, standby: bool, why: Option<String>) {
        self.recent.push(Crash { at: now, standby });
        self.recent.retain(|crash| now.since(crash.at) < KEPT_MS);
        self.down_since.get_or_insert(now);
        self.why = why;
        self.ready = false;
    }

    /// Somebody has stopped it who was not we. That is no crash, however often; it may be started by whoever
    /// stopped it (`pg_ctl restart`).
    pub fn stopped(&mut self, now: Millis) {
        self.down_since.get_or_insert(now);
        self.stopped = Some(now);
        (self.why, self.ready) = (None, false);
    }

    /// It cannot be started, or not even be tried.
    pub fn is_kept_down(&mut self, now: Millis) {
        self.down_since.get_or_insert(now);
    }

    /// Whether it can be started, apart from its data.
    pub fn checked(&mut self, outcome: Result<(), String>) {
        if outcome.is_ok() && self.unfit.is_some() {
            // Somebody has mended what ended it until now: none of that was for its data.
            for crash in &mut self.recent {
                crash.standby = false;
            }
        }
        self.unfit = outcome.err();
    }

    /// It is being started.
    pub fn is_starting(&mut self) {
        self.ready = false;
    }

    /// It accepts connections.
    pub fn is_ready(&mut self) {
        (self.down_since, self.unfit, self.ready) = (None, None, true);
    }

    /// A copy begins: what was before says nothing of it.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether it has ended, or will, without ever having accepted a connection.
    pub fn was_starting(&self) -> bool {
        !self.ready
    }

    /// Since when it is down.
    pub fn down_since(&self) -> Option<Millis> {
        self.down_since
    }

    /// When it last ended and we had not told it to.
    pub fn newest(&self) -> Option<Millis> {
        self.recent.last().map(|crash| crash.at).max(self.stopped)
    }

    /// When it ended by itself.
    pub fn times(&self) -> Vec<Millis> {
        self.recent.iter().map(|crash| crash.at).collect()
    }

    /// When it did so as a standby, for a reason that may lie in its data: none where it would not even
    /// get as far as those.
    pub fn times_as_standby(&self) -> Vec<Millis> {
        let standby = self.recent.iter().filter(|crash| crash.standby && self.unfit.is_none());
        standby.map(|crash| crash.at).collect()
    }

    /// Why it is down, in its own words.
    pub fn why(&self) -> Option<&str> {
        self.unfit.as_deref().or(self.why.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_it_from_its_data_says_nothing_of_them() {
        let mut crashes = Crashes::default();
        crashes.ended(Millis(1), false, Some("killed".to_owned()));
        crashes.ended(Millis(2), true, None);
        assert_eq!((crashes.times().len(), crashes.times_as_standby().len()), (2, 1));
        crashes.checked(Err("a syntax error".to_owned()));
        assert_eq!(crashes.times_as_standby(), []);
        assert_eq!(crashes.why(), Some("a syntax error"));
        crashes.is_ready();
        assert_eq!((crashes.down_since(), crashes.was_starting()), (None, false));
        assert_eq!(crashes.times().len(), 2, "a brief success does not give the budget back");
    }

    #[test]
    fn what_has_been_mended_is_held_against_nobody() {
        let mut crashes = Crashes::default();
        for at in 1..5 {
            crashes.ended(Millis(at), true, None);
            crashes.checked(Err("a syntax error".to_owned()));
        }
        crashes.ended(Millis(5), true, None);
        crashes.checked(Ok(()));
        assert_eq!(crashes.times_as_standby(), []);
        crashes.ended(Millis(6), true, None);
        crashes.checked(Ok(()));
        assert_eq!(crashes.times_as_standby(), [Millis(6)]);
    }

    #[test]
    fn a_server_that_is_stopped_again_and_again_has_not_crashed() {
        let mut crashes = Crashes::default();
        for at in 1..10 {
            crashes.stopped(Millis(at));
            assert_eq!(crashes.down_since(), Some(Millis(at)));
            crashes.is_ready();
        }
        assert_eq!((crashes.times(), crashes.times_as_standby()), (vec![], vec![]));
        assert_eq!((crashes.newest(), crashes.down_since()), (Some(Millis(9)), None));
    }
}
