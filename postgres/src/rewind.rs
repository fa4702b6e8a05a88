//! Making a diverged cluster follow another again, by `pg_rewind`.
//!
//! What must hold: the target is stopped; after a rewind that did not reach its end it must not be
//! started. `pg_rewind` compares timelines by their numbers: two clusters that took the same number
//! look to it as if nothing had to be done (hence the reserved numbers, rule 8). In PostgreSQL 15 it takes
//! the source's timeline from the control file, which changes only with the first checkpoint after a
//! promotion: before that it wrongly says that no rewind is required, so the caller sees to a
//! checkpoint on the source first ([`crate::session::Session::checkpoint_timeline`]). It overwrites the
//! target's configuration with the source's. Not here: whether a rewind is right.

use crate::conninfo::Source;
use crate::instance::Instance;
use crate::programs::Program;
use crate::run;
use crate::transfer::{Progress, Transfer, TransferError, parse_progress};
use std::time::Duration;
use tokio::sync::watch;

/// How a rewind that succeeded ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewound {
    /// The target was changed.
    Changed,
    /// `no rewind required`: the target's log is part of the source's history.
    NotRequired,
}

/// Why a rewind did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// The two have no history in common, or are different clusters.
    #[error("the clusters have no common history: {0}")]
    NoCommonAncestor(String),
    /// WAL of the target back to the fork is gone.
    #[error("write-ahead log that the rewind needs is missing: {0}")]
    MissingWal(String),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] TransferError),
}

/// A running rewind; dropping it kills it.
#[derive(Debug)]
pub struct Rewind {
    transfer: Transfer,
}

/// How a rewind is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewindOptions {
    /// Fetches missing WAL of the target with its `restore_command`.
    pub restore_target_wal: bool,
}

/// Starts a rewind of the instance to `source`, a running primary (`dbname` to connect to). What it
/// writes is durable only after [`crate::durable::sync_file_system`].
pub fn start(
    instance: &Instance,
    source: &Source,
    dbname: &str,
    options: RewindOptions,
) -> Result<Rewind, RewindError> {
    let mut command = run::command(instance, Program::PgRewind);
    command.arg("--target-pgdata").arg(instance.data_dir.path());
    command.arg("--source-server");
    command.arg(source.conninfo(crate::backup::APPLICATION_NAME, &[("dbname", dbname)]));
    // The caller syncs the file system as a whole before the cluster is started.
    command.args(["--progress", "--no-sync"]);
    if options.restore_target_wal {
        command.arg("--restore-target-wal");
    }
    Ok(Rewind { transfer: Transfer::start(command, Program::PgRewind.name(), parse_progress)? })
}

impl Rewind {
    /// How far it is.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.transfer.progress()
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> Result<Rewound, RewindError> {
        match self.transfer.wait().await {
            Ok(output) if output.contains("no rewind required") => Ok(Rewound::NotRequired),
            Ok(_) => Ok(Rewound::Changed),
            Err(TransferError::Failed { output, .. }) if is_no_ancestor(&output) => {
                Err(RewindError::NoCommonAncestor(output))
            }
            Err(TransferError::Failed { output, .. }) if is_missing_wal(&output) => {
                Err(RewindError::MissingWal(output))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ends it.
    pub async fn cancel(&mut self, patience: Duration) {
        self.transfer.cancel(patience).await;
    }
}

/// Messages of `pg_rewind.c` and `timeline.c`, the same in 15 to 18.
fn is_no_ancestor(output: &str) -> bool {
    output.contains("could not find common ancestor")
        || output.contains("clusters are from different systems")
}

/// Messages of `parsexlog.c`.
fn is_missing_wal(output: &str) -> bool {
    output.contains("could not find previous WAL record")
        || output.contains("could not read WAL record")
        || (output.contains("could not open file") && output.contains("pg_wal/"))
        || output.contains("could not restore file")
}
