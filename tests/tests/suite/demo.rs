//! The first thing that a newcomer runs.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use tests::harness::binaries;
use tests::harness::process::{command, working_in};
use tests::harness::sandbox::Sandbox;
use tokio::process::Command;

const LIMIT: Duration = Duration::from_mins(3);

/// It ends with figures, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shows_a_failover() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let dir = sandbox.root().join("tmp");
    std::fs::create_dir(&dir)?;
    let mut demo = Command::from(command(&binaries::ours("pgtandem")?));
    demo.args(["demo", "--json"]).env("TMPDIR", &dir).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, demo.output()).await;
    let left = working_in(&dir);
    sandbox.end_processes();
    let output = output.context("it does not end")??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {said}", output.status);
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| figures.get(name).and_then(Value::as_f64).context(name.to_owned());
    ensure!(number("lost")? == 0.0 && number("acknowledged")? > 0.0, "{figures}");
    ensure!(number("outage_s")? < 10.0, "{figures}");
    ensure!(left.is_empty(), "it left processes running: {left:?}");
    let files: Vec<_> = std::fs::read_dir(&dir)?.flatten().map(|entry| entry.path()).collect();
    ensure!(files.is_empty(), "it left files: {files:?}");
    sandbox.remove();
    Ok(())
}
