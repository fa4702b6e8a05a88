//! A copy of a running primary or standby by `pg_basebackup`.
//!
//! What must hold: it never connects under a member's name, since a walsender that streams a copy keeps
//! its flush position NULL and would hold up every change of the sync spec (facts about PostgreSQL,
//! section 6). Not here: what must be written into the copy before it is started, its `standby.signal`
//! included.

use crate::conninfo::Source;
use crate::durable::{self, DurableError};
use crate::instance::{Instance, blocking};
use crate::programs::Program;
use crate::run;
use crate::session::primary::Tablespace;
use crate::transfer::{Transfer, TransferError, parse_progress};
use std::path::PathBuf;
use tokio::process::Command;

/// The `application_name` of copies; no member has it.
pub const APPLICATION_NAME: &str = "pgtandem-clone";

/// How a copy is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupOptions {
    /// Limits the transfer, such as `100M` a second.
    pub max_rate: Option<String>,
    /// An existing slot of the source that keeps the WAL; without one a temporary slot is used.
    pub slot: Option<String>,
    /// Where the WAL shall be, if elsewhere; must be empty.
    pub wal_dir: Option<PathBuf>,
    /// The tablespaces of the source: the copy has them in the same places, which must be empty.
    pub tablespaces: Vec<Tablespace>,
}

/// Why a copy cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target directory cannot be made.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The program cannot be run, or failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

/// Starts a copy of `source` into the instance's data directory, which is missing or empty. A copy
/// that does not reach its end leaves a directory that must not be started; one that does is durable only
/// after [`crate::durable::sync_file_system`].
pub async fn start(
    instance: &Instance,
    source: &Source,
    options: &BackupOptions,
) -> Result<Transfer, BackupError> {
    let this = instance.clone();
    let spaces = options.tablespaces.iter().map(|space| &space.location);
    let elsewhere: Vec<_> = options.wal_dir.iter().chain(spaces).cloned().collect();
    blocking(move || {
        this.data_dir.create(&this.owner)?;
        for dir in &elsewhere {
            durable::create_dir(dir, 0o700, &this.owner)?;
        }
        Ok(())
    })
    .await?;
    let command = command(instance, source, options);
    Ok(Transfer::start(command, Program::PgBasebackup.name(), parse_progress)?)
}

/// How `pg_basebackup` is called; the directories that it fills are there, and empty.
pub fn command(instance: &Instance, source: &Source, options: &BackupOptions) -> Command {
    let mut command = run::command(instance, Program::PgBasebackup);
    command.arg("-D").arg(instance.data_dir.path());
    command.arg("--dbname").arg(source.conninfo(APPLICATION_NAME, &[]));
    command.args(["--wal-method=stream", "--checkpoint=fast", "--progress", "--verbose"]);
    // The caller syncs the file system as a whole before the cluster is started.
    command.args(["--no-password", "--no-sync"]);
    if let Some(slot) = &options.slot {
        command.args(["--slot", slot]);
    }
    if let Some(rate) = &options.max_rate {
        command.args(["--max-rate", rate]);
    }
    if let Some(dir) = &options.wal_dir {
        command.arg("--waldir").arg(dir);
    }
    command
}
