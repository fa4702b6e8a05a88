//! Replays the traces of a test that was left for a look: `cargo run -p tests --bin replay
//! /tmp/pgt-…/traces`.

use anyhow::{Context as _, Result, ensure};
use std::io::Write as _;
use std::path::PathBuf;
use tests::harness::verdict::fit;

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).context("which directory?")?;
    let fit = fit::check(&dir)?;
    writeln!(std::io::stdout(), "{fit:#?}")?;
    ensure!(fit.wrong.is_empty(), "the traces do not fit the model");
    Ok(())
}
