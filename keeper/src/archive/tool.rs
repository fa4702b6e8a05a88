//! `wal-push` and `wal-get`: what PostgreSQL calls for each file.

use crate::cli::failure;
use clap::Args;
use shared::api::ApiError;
use std::path::PathBuf;
use std::process::ExitCode;

/// Store a file.
#[derive(Debug, Args)]
pub(crate) struct PushOptions {
    #[command(flatten)]
    gate: GateOptions,
    /// The file, %p of `archive_command`.
    path: PathBuf,
}

/// Fetch a file.
#[derive(Debug, Args)]
pub(crate) struct GetOptions {
    #[command(flatten)]
    gate: GateOptions,
    /// Its name, %f of `restore_command`.
    file: String,
    /// Where to, %p of `restore_command`.
    path: PathBuf,
}

/// Whom to ask.
#[derive(Debug, Args)]
struct GateOptions {
    /// The state directory of the node's keeper.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// What keeps the archive, as the keeper has been told; for those who read the setting.
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
}

pub(crate) fn push(options: &PushOptions) -> Result<ExitCode, ApiError> {
    Err(unreachable_keeper(&options.gate))
}

pub(crate) fn get(options: &GetOptions) -> Result<ExitCode, ApiError> {
    Err(unreachable_keeper(&options.gate))
}

fn unreachable_keeper(gate: &GateOptions) -> ApiError {
    let text = format!(
        "the keeper of {} cannot be asked: start it, and PostgreSQL tries again",
        gate.state_dir.display()
    );
    failure(4, "keeper_unreachable", text)
}
