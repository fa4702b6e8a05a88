//! A slice of `make chaos`: a seed that is always the same, and one that nobody has seen.

use anyhow::Result;
use std::io::Write as _;
use std::time::Duration;
use tests::chaos;

fn said(tally: &chaos::Tally) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{tally}")?)
}

/// Each; they run beside each other.
const SPAN: Duration = Duration::from_secs(150);

#[test]
fn a_known_seed() -> Result<()> {
    said(&chaos::run(1, SPAN)?)
}

/// What failed says which seed it was.
#[test]
fn another_seed() -> Result<()> {
    said(&chaos::run(u64::from(rand::random::<u32>()), SPAN)?)
}
