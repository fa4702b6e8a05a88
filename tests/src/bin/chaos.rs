//! `make chaos MINUTES=60 SEED=1` and `make calm MINUTES=60 SEED=1`: see `tests::chaos`.

use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::time::Duration;

fn main() -> Result<()> {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    let calm = arguments.first().is_some_and(|first| first == "calm");
    if calm {
        arguments.remove(0);
    }
    let (minutes, seed) = read(&arguments)?;
    let mut out = std::io::stdout();
    writeln!(out, "seed {seed}, {minutes} minutes")?;
    let span = Duration::from_secs_f64(minutes * 60.0);
    let run = if calm { tests::chaos::calm::run } else { tests::chaos::run };
    let tally = run(seed, span)?;
    writeln!(out, "seed {seed}\n{tally}")?;
    Ok(())
}

/// How many minutes, and the seed: drawn where none is given.
fn read(arguments: &[String]) -> Result<(f64, u64)> {
    let (mut minutes, mut seed) = (60.0, rand::random::<u32>().into());
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--minutes" => {
                minutes =
                    value.parse().with_context(|| format!("{value} is no number of minutes"))?;
            }
            [name, value] if name == "--seed" => {
                seed = value.parse().with_context(|| format!("{value} is no seed"))?;
            }
            other => bail!("chaos [calm] [--minutes M] [--seed N], not {other:?}"),
        }
    }
    Ok((minutes, seed))
}
