//! The operator's command.

use super::binaries;
use super::cluster::Cluster;
use super::process::command;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shared::api::{OperationResult, Outcome};
use std::time::Duration;
use tokio::process::Command;

/// Longer than the command's own patience.
const LIMIT: Duration = Duration::from_secs(90);

/// What the command answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The exit code.
    pub code: i32,
    /// Standard output, as one JSON value; `Null` where it is something else.
    pub json: Value,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// The text of a field.
    pub fn text(&self, field: &str) -> &str {
        self.json.get(field).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Cluster {
    /// Runs `pgtandem` with `--json`.
    pub async fn pgtandem(&self, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::from(command(&binaries::ours("pgtandem")?));
        command.args(["--monitor", &self.monitor().url(), "--json"]).args(arguments);
        command.kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        let output = output.with_context(|| format!("pgtandem {arguments:?} does not end"))??;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Answer {
            code: output.status.code().context("pgtandem was killed")?,
            json: serde_json::from_str(&stdout).unwrap_or_default(),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Asks for an action that has to end well.
    pub async fn perform(&self, arguments: &[&str]) -> Result<OperationResult> {
        let answer = self.pgtandem(arguments).await?;
        let outcome = format!("pgtandem {arguments:?}: {answer:?}");
        ensure!(answer.code == 0, "{outcome}");
        let result: OperationResult = serde_json::from_value(answer.json).context(outcome)?;
        ensure!(result.outcome == Outcome::Done, "pgtandem {arguments:?}: {result:?}");
        Ok(result)
    }

    /// Asks for an action that has to be refused; returns the word for why.
    pub async fn refused(&self, arguments: &[&str]) -> Result<String> {
        let answer = self.pgtandem(arguments).await?;
        ensure!(answer.code == 3, "pgtandem {arguments:?} was to be refused: {answer:?}");
        Ok(answer.text("reason").to_owned())
    }
}
