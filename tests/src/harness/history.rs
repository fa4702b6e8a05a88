//! What the writers tried and what they were told. Pure: the verdict's tests make histories up.
//!
//! Writers insert rows, one [`Attempt`] for each; callers share registers and lists ([`operations`]).

pub mod operations;

use anyhow::{Result, ensure};
use operations::Operation;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How an attempt ended, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T = Reign> {
    /// The client was told COMMIT, without a warning.
    Acknowledged(T),
    /// The client was told that it was not done.
    Refused(String),
    /// Nobody can tell: the connection was lost, or the wait for the standbys was cut short.
    Unknown(String),
}

impl<T> Outcome<T> {
    /// With what an acknowledgement says read from it. What cannot be read tells nothing.
    #[must_use]
    pub fn read<U>(self, read: impl FnOnce(T) -> Option<U>) -> Outcome<U> {
        match self {
            Self::Acknowledged(answer) => match read(answer) {
                Some(answer) => Outcome::Acknowledged(answer),
                None => Outcome::Unknown("the answer cannot be read".to_owned()),
            },
            Self::Refused(why) => Outcome::Refused(why),
            Self::Unknown(why) => Outcome::Unknown(why),
        }
    }
}

/// Which server, on which timeline, told the client COMMIT. A timeline number is given to one
/// promotion only, so this names a reign: a node that is promoted again begins another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reign {
    /// Grows with every promotion.
    pub timeline: u32,
    /// The port of the server that answered.
    pub port: u16,
}

/// One attempt to insert one row.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Who tried.
    pub writer: i32,
    /// The row; with the writer, unique.
    pub id: i64,
    /// When it was sent.
    pub started: Instant,
    /// When the answer was there.
    pub ended: Instant,
    /// The answer.
    pub outcome: Outcome,
}

impl Attempt {
    /// By whom it was acknowledged.
    pub fn acknowledged_by(&self) -> Option<Reign> {
        match &self.outcome {
            Outcome::Acknowledged(reign) => Some(*reign),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }
}

/// All attempts of a test.
#[derive(Clone, Debug)]
pub struct History {
    attempts: Vec<Attempt>,
    operations: Vec<Operation>,
    ended: Instant,
}

impl History {
    /// Of attempts in any order, made until `ended`.
    pub fn new(mut attempts: Vec<Attempt>, ended: Instant) -> Self {
        attempts.sort_by_key(|attempt| attempt.ended);
        Self { attempts, operations: Vec::new(), ended }
    }

    /// The same, with what callers did besides, in any order.
    #[must_use]
    pub fn with_operations(mut self, mut operations: Vec<Operation>) -> Self {
        operations.sort_by_key(|operation| operation.started);
        self.operations = operations;
        self
    }

    /// What callers did, by the time it was sent.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// All attempts, by the time of their answers.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Those that were acknowledged, with by whom, by the time of their answers.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&Attempt, Reign)> {
        self.attempts.iter().filter_map(|attempt| Some((attempt, attempt.acknowledged_by()?)))
    }

    /// All that was acknowledged, rows and operations: when it was sent, when the answer was there,
    /// and by whom.
    pub fn answers(&self) -> impl Iterator<Item = (Instant, Instant, Reign)> {
        let rows = self.acknowledged().map(|(row, reign)| (row.started, row.ended, reign));
        let answered = |operation: &Operation| {
            let (reply, ended) = operation.reply()?;
            Some((operation.started, ended, reply.reign))
        };
        rows.chain(self.operations.iter().filter_map(answered))
    }

    /// The longest time without an acknowledgement, whoever wrote: among the pauses that ended after
    /// `since`, the one up to the end of the history included.
    pub fn outage_since(&self, since: Instant) -> Duration {
        let ends = self.acknowledged().map(|(attempt, _)| attempt.ended).chain([self.ended]);
        let (mut last, mut longest) = (None::<Instant>, Duration::ZERO);
        for end in ends {
            if end > since {
                let from = last.unwrap_or(since);
                longest = longest.max(end.duration_since(from));
            }
            last = Some(end);
        }
        longest
    }

    /// The attempts that were made in a span of time and were not acknowledged.
    pub fn failed_between(&self, from: Instant, to: Instant) -> Vec<&Attempt> {
        let within = |attempt: &&Attempt| attempt.ended >= from && attempt.started <= to;
        let failed = |attempt: &&Attempt| attempt.acknowledged_by().is_none();
        self.attempts.iter().filter(within).filter(failed).collect()
    }

    /// Fails where an attempt in a span of time was not acknowledged.
    pub fn none_failed_between(&self, from: Instant, to: Instant) -> Result<()> {
        let failed = self.failed_between(from, to);
        let first = failed.first().map(|attempt| format!("{:?}", attempt.outcome));
        ensure!(failed.is_empty(), "{} writes failed, the first: {first:?}", failed.len());
        Ok(())
    }

    /// The reigns, in the order of their timelines, with the number of their acknowledgements.
    pub fn reigns(&self) -> BTreeMap<Reign, usize> {
        let mut reigns = BTreeMap::new();
        for (_, reign) in self.acknowledged() {
            *reigns.entry(reign).or_default() += 1;
        }
        reigns
    }

    /// In a sentence.
    pub fn summary(&self) -> String {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.attempts.iter().filter(|attempt| wanted(&attempt.outcome)).count()
        };
        let reigns = self.reigns();
        let by = if reigns.len() > 5 {
            format!("{} reigns", reigns.len())
        } else {
            format!("{reigns:?}")
        };
        format!(
            "{} acknowledged, {} refused, {} unknown, by {by}",
            count(|outcome| matches!(outcome, Outcome::Acknowledged(_))),
            count(|outcome| matches!(outcome, Outcome::Refused(_))),
            count(|outcome| matches!(outcome, Outcome::Unknown(_))),
        )
    }
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Histories that never happened. Times are milliseconds after a common beginning.

    use super::*;

    /// Makes attempts.
    pub(crate) struct Story {
        began: Instant,
        attempts: Vec<Attempt>,
    }

    impl Story {
        pub(crate) fn new() -> Self {
            Self { began: Instant::now(), attempts: Vec::new() }
        }

        pub(crate) fn at(&self, ms: u64) -> Instant {
            self.began + Duration::from_millis(ms)
        }

        fn attempt(mut self, id: i64, (from, to): (u64, u64), outcome: Outcome) -> Self {
            let (started, ended) = (self.at(from), self.at(to));
            self.attempts.push(Attempt { writer: 1, id, started, ended, outcome });
            self
        }

        pub(crate) fn ack(self, id: i64, span: (u64, u64), timeline: u32, port: u16) -> Self {
            self.attempt(id, span, Outcome::Acknowledged(Reign { timeline, port }))
        }

        pub(crate) fn refused(self, id: i64, span: (u64, u64)) -> Self {
            self.attempt(id, span, Outcome::Refused("read-only".to_owned()))
        }

        pub(crate) fn unknown(self, id: i64, span: (u64, u64)) -> Self {
            self.attempt(id, span, Outcome::Unknown("connection lost".to_owned()))
        }

        pub(crate) fn until(self, ms: u64) -> History {
            let end = self.at(ms);
            History::new(self.attempts, end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::made_up::Story;
    use super::*;

    #[test]
    fn an_outage_is_the_longest_pause_around_the_fault() {
        let story = Story::new();
        let fault = story.at(100);
        let history = story
            .ack(1, (0, 5), 1, 1)
            .ack(2, (90, 95), 1, 1)
            .unknown(3, (98, 110))
            .ack(4, (390, 400), 3, 2)
            .ack(5, (401, 410), 3, 2)
            .until(420);
        assert_eq!(history.outage_since(fault), Duration::from_millis(305));
    }

    #[test]
    fn an_outage_that_never_ends_is_seen() {
        let story = Story::new();
        let fault = story.at(50);
        let history = story.ack(1, (0, 10), 1, 1).unknown(2, (40, 60)).until(1000);
        assert_eq!(history.outage_since(fault), Duration::from_millis(990));
        let nothing = Story::new().until(1000);
        assert!(nothing.outage_since(fault) > Duration::from_millis(900));
    }

    #[test]
    fn failures_are_counted_where_they_overlap_the_span() {
        let story = Story::new();
        let (from, to) = (story.at(100), story.at(200));
        let history = story
            .refused(1, (50, 60))
            .unknown(2, (90, 110))
            .ack(3, (120, 130), 1, 1)
            .refused(4, (190, 300))
            .refused(5, (250, 260))
            .until(400);
        let ids: Vec<_> = history.failed_between(from, to).iter().map(|a| a.id).collect();
        assert_eq!(ids, [2, 4]);
    }
}
