//! Faults of every kind, singly and in pairs, each followed by healing, while clients write from every side:
//! `make chaos MINUTES=60 SEED=1`. A seed says which faults, in which order and for how long; what the
//! machine makes of them differs from run to run.
//!
//! A run is a row of episodes, each with a cluster of its own: so many faults, then the verdict.

pub mod calm;
mod episode;
mod fault;
mod tally;

pub use episode::episode;
pub use fault::{Befallen, Fault, Kind};
pub use tally::Tally;

use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// Runs episodes until the time is over; the seed of each is that of the run and its number.
pub fn run(seed: u64, span: Duration) -> Result<Tally> {
    let begun = Instant::now();
    let mut tally = Tally::default();
    for number in 0.. {
        if begun.elapsed() >= span {
            break;
        }
        let until = begun + span;
        let of = seed.wrapping_add(number);
        episode(of, until, &mut tally).with_context(|| format!("seed {of}"))?;
    }
    Ok(tally)
}
