//! Running a PostgreSQL program to its end, within a limit.
//!
//! Not here: programs whose progress matters ([`crate::transfer`]) and the server
//! ([`crate::postmaster`]).

use crate::instance::Instance;
use crate::programs::Program;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What a program that ended well has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A program that did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started, or not be waited for.
    #[error("cannot run {program}")]
    Spawn {
        /// Which.
        program: Program,
        /// Why.
        source: io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("{program} has not ended within {} ms and was killed", limit.as_millis())]
    Timeout {
        /// Which.
        program: Program,
        /// What it was given.
        limit: Duration,
    },
    /// It ended with an error.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        /// Which.
        program: Program,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of what it said.
        output: String,
    },
}

/// A command for a program of the instance, as its owner, with messages in English.
pub fn command(instance: &Instance, program: Program) -> Command {
    let mut command = instance.owner.command(instance.programs.path(program));
    command.env("LC_ALL", "C").kill_on_drop(true);
    command
}

/// Runs a command to its end with `input` as its standard input. Killed when it takes longer than
/// `limit`, and when the future is dropped.
pub async fn run(
    mut command: Command,
    program: Program,
    input: &str,
    limit: Duration,
) -> Result<Output, RunError> {
    let failed = |source| RunError::Spawn { program, source };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut stdin = child.stdin.take();
    let work = async {
        let feed = async {
            if let Some(pipe) = &mut stdin {
                // A program that ends early does not read all; its exit status tells the rest.
                drop(pipe.write_all(input.as_bytes()).await);
            }
            drop(stdin);
        };
        let ((), output) = tokio::join!(feed, child.wait_with_output());
        output
    };
    let output = tokio::time::timeout(limit, work)
        .await
        .map_err(|_| RunError::Timeout { program, limit })?
        .map_err(failed)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(Output { stdout, stderr });
    }
    let said = if stderr.trim().is_empty() { &stdout } else { &stderr };
    Err(RunError::Failed { program, status: output.status, output: last_lines(said, 10) })
}

/// The last `count` non-empty lines, joined for an error message.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let skipped = lines.len().saturating_sub(count);
    lines.into_iter().skip(skipped).collect::<Vec<_>>().join("; ")
}
