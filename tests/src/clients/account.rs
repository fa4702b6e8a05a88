//! What a client says of its attempts, and what of that is true. Pure.
//!
//! A line for each attempt: when it began and ended, in microseconds of the wall clock, its number, the
//! outcome, and why.

use anyhow::{Context as _, Result, bail};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// Microseconds.
pub type Moment = u64;

/// The time.
pub fn now() -> Result<Moment> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_micros())?)
}

/// What became of an attempt, as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told COMMIT, without a warning.
    Acknowledged,
    /// It was told that it was not done.
    Refused,
    /// Nobody can tell.
    Unknown,
    /// It found no server and sent nothing.
    Unreachable,
}

/// One attempt to write one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was begun.
    pub began: Moment,
    /// When the outcome was known.
    pub ended: Moment,
    /// The row.
    pub id: i64,
    /// The outcome.
    pub outcome: Outcome,
    /// The error.
    pub why: String,
}

/// All attempts of a client, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account(Vec<Attempt>);

/// The rows that are there: by client and number, on which ports they were taken.
#[derive(Clone, Debug, Default)]
pub struct Rows(HashMap<(String, i64), Vec<u16>>);

/// How a client got over the loss of its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Writes that were refused, or of which the client does not know.
    pub failed: usize,
    /// Attempts that found no server.
    pub unreachable: usize,
    /// From the fault to the first row that another primary acknowledged.
    pub took: Duration,
}

impl Rows {
    /// A row is there that a server on this port has taken.
    pub fn add(&mut self, client: &str, id: i64, port: u16) {
        self.0.entry((client.to_owned(), id)).or_default().push(port);
    }

    fn ports(&self, client: &str, id: i64) -> &[u16] {
        self.0.get(&(client.to_owned(), id)).map_or(&[], Vec::as_slice)
    }
}

impl Account {
    /// Reads all lines that are complete.
    pub fn read(text: &str) -> Result<Self> {
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let attempt = |line: &str| attempt(line).with_context(|| line.to_owned());
        Ok(Self(complete.lines().map(attempt).collect::<Result<_>>()?))
    }

    /// All attempts.
    pub fn attempts(&self) -> &[Attempt] {
        &self.0
    }

    /// Those that were acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Attempt> {
        self.0.iter().filter(|attempt| attempt.outcome == Outcome::Acknowledged)
    }

    /// Whether it was told of a commit that the server did not wait for.
    pub fn was_warned(&self) -> bool {
        let warned =
            |a: &Attempt| a.outcome == Outcome::Unknown && a.why.contains("not waited for");
        self.0.iter().any(warned)
    }

    /// The newest one, for a message.
    pub fn last(&self) -> String {
        self.0.last().map_or_else(|| "nothing yet".to_owned(), |attempt| format!("{attempt:?}"))
    }

    /// What is wrong: an acknowledged row is not there exactly once, or another one is that must not be.
    pub fn wrong(&self, client: &str, rows: &Rows) -> Vec<String> {
        let mut wrong = Vec::new();
        for attempt in &self.0 {
            let there = rows.ports(client, attempt.id).len();
            let right = match attempt.outcome {
                Outcome::Acknowledged => there == 1,
                Outcome::Refused | Outcome::Unreachable => there == 0,
                Outcome::Unknown => there <= 1,
            };
            if !right {
                wrong.push(format!("{client}: there {there} times: {attempt:?}"));
            }
        }
        for (name, id) in rows.0.keys().filter(|(name, _)| name == client) {
            if !self.0.iter().any(|attempt| attempt.id == *id) {
                wrong.push(format!("{name}: row {id} is there, and nobody has tried it"));
            }
        }
        wrong
    }

    /// How it went on after a fault of the primary on this port. `None`: it has not yet.
    pub fn recovery(&self, client: &str, rows: &Rows, fault: Moment, old: u16) -> Option<Recovery> {
        let is_elsewhere =
            |attempt: &&Attempt| rows.ports(client, attempt.id).iter().any(|port| *port != old);
        let after = |attempt: &&Attempt| attempt.ended >= fault;
        let first = self.acknowledged().filter(after).find(is_elsewhere)?;
        let between: Vec<_> = self
            .0
            .iter()
            .filter(after)
            .take_while(|attempt| attempt.ended <= first.began)
            .collect();
        let count = |outcomes: &[Outcome]| {
            between.iter().filter(|attempt| outcomes.contains(&attempt.outcome)).count()
        };
        Some(Recovery {
            failed: count(&[Outcome::Refused, Outcome::Unknown]),
            unreachable: count(&[Outcome::Unreachable]),
            took: Duration::from_micros(first.ended.saturating_sub(fault)),
        })
    }
}

fn attempt(line: &str) -> Result<Attempt> {
    let mut words = line.splitn(5, ' ');
    let mut word = || words.next().context("too few words");
    let (began, ended) = (word()?.parse()?, word()?.parse()?);
    let id = word()?.parse()?;
    let outcome = match word()? {
        "acknowledged" => Outcome::Acknowledged,
        "refused" => Outcome::Refused,
        "unknown" => Outcome::Unknown,
        "unreachable" => Outcome::Unreachable,
        other => bail!("{other} is no outcome"),
    };
    Ok(Attempt { began, ended, id, outcome, why: words.next().unwrap_or_default().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
10 20 1 acknowledged
30 40 2 unknown connection lost
50 60 3 unreachable nobody there
70 80 4 refused read-only
90 120 5 acknowledged
130 140 6 ackn";

    fn account() -> Account {
        Account::read(SAID).unwrap()
    }

    fn rows(there: &[(i64, u16)]) -> Rows {
        let mut rows = Rows::default();
        for (id, port) in there {
            rows.add("psql", *id, *port);
        }
        rows
    }

    #[test]
    fn half_a_line_is_not_read_and_a_wrong_one_is_named() {
        let account = account();
        assert_eq!(account.attempts().len(), 5);
        assert_eq!(account.acknowledged().map(|attempt| attempt.id).collect::<Vec<_>>(), [1, 5]);
        assert_eq!(account.attempts()[1].why, "connection lost");
        assert!(!account.was_warned());
        assert_eq!(Account::read("half").unwrap(), Account::default());
        assert!(Account::read("1 2 3 perhaps\n").is_err());
        assert!(Account::read("1 2\n").is_err());
    }

    #[test]
    fn what_was_acknowledged_is_there_once_and_the_unknown_may_be() {
        let wrong = |there: &[(i64, u16)]| account().wrong("psql", &rows(there)).len();
        assert_eq!(wrong(&[(1, 1), (5, 2)]), 0);
        assert_eq!(wrong(&[(1, 1), (2, 1), (5, 2)]), 0);
        // Lost, twice, refused, never sent, from nowhere.
        assert_eq!(wrong(&[(1, 1)]), 1);
        assert_eq!(wrong(&[(1, 1), (5, 2), (5, 2)]), 1);
        assert_eq!(wrong(&[(1, 1), (4, 1), (5, 2)]), 1);
        assert_eq!(wrong(&[(1, 1), (3, 1), (5, 2)]), 1);
        assert_eq!(wrong(&[(1, 1), (5, 2), (9, 2)]), 1);
    }

    #[test]
    fn recovery_ends_at_another_primary() {
        let there = rows(&[(1, 1), (5, 2)]);
        let recovery = account().recovery("psql", &there, 15, 1).unwrap();
        assert_eq!((recovery.failed, recovery.unreachable), (2, 1));
        assert_eq!(recovery.took, Duration::from_micros(105));
        assert_eq!(account().recovery("psql", &rows(&[(1, 1), (5, 1)]), 15, 1), None);
    }
}
