//! What a run came to: how often which fault, and how long writes waited.

use super::fault::Kind;
use crate::harness::History;
use crate::harness::history::Outcome;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often, and the outages of those that came alone.
    faults: BTreeMap<Kind, (usize, Vec<Duration>)>,
    pairs: Vec<Duration>,
    episodes: usize,
    acknowledged: usize,
    refused: usize,
    unknown: usize,
    /// Changes of the primary.
    changes: u64,
}

impl Tally {
    /// One fault, or two at a time, and the longest time without an acknowledgement.
    pub fn disturbed(&mut self, kinds: &[Kind], outage: Duration) {
        let alone = kinds.len() == 1;
        for kind in kinds {
            let (count, outages) = self.faults.entry(*kind).or_default();
            *count += 1;
            outages.extend(alone.then_some(outage));
        }
        self.pairs.extend((!alone).then_some(outage));
    }

    /// An episode has passed its verdict.
    pub fn passed(&mut self, history: &History, changes: u64) {
        self.episodes += 1;
        self.changes += changes;
        for attempt in history.attempts() {
            match attempt.outcome {
                Outcome::Acknowledged(_) => self.acknowledged += 1,
                Outcome::Refused(_) => self.refused += 1,
                Outcome::Unknown(_) => self.unknown += 1,
            }
        }
    }

    /// How many faults there were.
    pub fn faults(&self) -> usize {
        self.faults.values().map(|(count, _)| count).sum()
    }
}

/// Percentiles by the nearest rank, in seconds.
pub fn row(what: &str, count: usize, times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |percent: usize| {
        let rank = (percent * sorted.len()).div_ceil(100).max(1);
        sorted.get(rank - 1).map_or("       -".to_owned(), |t| format!("{:8.3}", t.as_secs_f64()))
    };
    format!("{what:<18} {count:>6} {} {} {} {}", at(0), at(50), at(95), at(100))
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ("outage, in seconds", "faults", "min", "p50", "p95", "max");
        let (what, count, min, half, most, max) = columns;
        writeln!(f, "{what:<18} {count:>6} {min:>8} {half:>8} {most:>8} {max:>8}")?;
        for (kind, (count, outages)) in &self.faults {
            writeln!(f, "{}", row(&format!("{kind:?}"), *count, outages))?;
        }
        writeln!(f, "{}", row("two at a time", self.pairs.len() * 2, &self.pairs))?;
        write!(
            f,
            "{} faults in {} episodes, {} changes of the primary; writes: {} acknowledged, {} refused, {} unknown; none lost",
            self.faults(),
            self.episodes,
            self.changes,
            self.acknowledged,
            self.refused,
            self.unknown
        )
    }
}
