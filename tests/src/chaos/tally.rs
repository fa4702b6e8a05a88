//! What a run came to: how often which fault, and how long writes waited.

use super::fault::Kind;
use crate::harness::History;
use crate::harness::distribution::Distribution;
use crate::harness::history::Outcome;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often, and the outages of those that came alone.
    faults: BTreeMap<Kind, (usize, Distribution)>,
    pairs: Distribution,
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
            outages.0.extend(alone.then_some(outage));
        }
        self.pairs.0.extend((!alone).then_some(outage));
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

fn row(what: &str, count: usize, times: &Distribution) -> String {
    format!("{what:<18} {count:>6} {}", times.columns())
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<18} {:>6} {}", "outage, in seconds", "faults", Distribution::heads())?;
        for (kind, (count, outages)) in &self.faults {
            writeln!(f, "{}", row(&format!("{kind:?}"), *count, outages))?;
        }
        writeln!(f, "{}", row("two at a time", self.pairs.0.len() * 2, &self.pairs))?;
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
