//! A slice of `make chaos`.

use anyhow::Result;
use std::io::Write as _;
use std::time::Duration;
use tests::chaos;

const SEED: u64 = 1;
const SPAN: Duration = Duration::from_secs(150);

#[test]
fn a_known_seed() -> Result<()> {
    let tally = chaos::run(SEED, SPAN)?;
    Ok(writeln!(std::io::stdout(), "{tally}")?)
}
