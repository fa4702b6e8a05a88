//! The keeper's own durable state: who it is, what it accepted last, and whether the data directory is
//! half-made. One small JSON file, replaced whole, with fsync, before anything in it is acted upon.
//!
//! Without this file the keeper is a new node to the monitor; the data directory is not read for it.

use crate::attachment::{Attached, Attachment};
use fsm::node::view::Persisted;
use postgres::durable;
use postgres::owner::Owner;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::api::{Identity, RolePasswords};
use shared::goal::Orders;
use shared::ids::NodeName;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The file within the state directory.
const FILE: &str = "keeper.json";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each named where it is used")]
pub struct State {
    /// Given by the monitor at the first join.
    pub identity: Option<Identity>,
    /// The passwords of our roles in Postgres.
    pub passwords: Option<RolePasswords>,
    /// Where the monitor can be reached, as it said last.
    pub monitors: Vec<String>,
    /// What `fsm::node` remembers.
    pub persisted: Option<Persisted>,
    /// A copy into, or a rewind of, the data directory has begun and not ended.
    pub rebuilding: bool,
    /// The WAL directory elsewhere that was empty when we began to fill it: what is in it is ours.
    pub wal_dir: Option<PathBuf>,
    /// The way in which the data was made from a backup, as long as it has not led to a standby that streams.
    pub made_by: Option<String>,
    /// The tablespaces that were empty when we began to fill them, the same.
    pub tablespaces: BTreeSet<PathBuf>,
    /// A keeper process took its first lease by itself (rule 13) and none has been granted since: the
    /// next process may not do so again, however often keepers crash.
    pub claimed: bool,
    /// The newest of the operator's orders that have been carried out.
    pub done: Orders,
    /// What its last join said of it.
    pub announced: Option<Announced>,
    /// What has been taken up of [`crate::attachment`].
    pub attached: Option<Attached>,
    /// An operator has said that the monitor is lost, and no other has answered since: where commits wait
    /// for nobody, no lease is needed.
    pub suspended: bool,
    /// The node was dropped: it never starts again under this identity.
    pub dropped: bool,
}

/// What a keeper was told at its start of what the monitor knows as well, and an operator may change there.
/// Whoever spoke last is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The name.
    pub name: NodeName,
    /// The address of its Postgres.
    pub host: String,
    /// The port of its Postgres.
    pub port: u16,
    /// Where it stands.
    pub zone: Option<String>,
}

impl State {
    /// Another monitor was named: what the last one said of where it can be reached does not count.
    pub fn take_up(&mut self, attachment: &Attachment, given: &[String]) {
        let known = self.attached.as_ref().map(|attached| &attached.to);
        if !attachment.monitors.is_empty() && known != Some(&attachment.monitors) {
            let (to, instead_of) = (attachment.monitors.clone(), given.to_vec());
            self.attached = Some(Attached { to, instead_of });
            self.monitors.clear();
        }
    }
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not ours.
    #[error(
        "cannot use {}: {source}; if a newer keeper wrote it, start that one again; if it is damaged, move it away to join the monitor anew",
        path.display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It cannot be written.
    #[error("cannot write the keeper's state: {0}")]
    Write(#[from] durable::DurableError),
    /// It cannot be turned into JSON.
    #[error("cannot write the keeper's state: {0}")]
    Json(#[from] serde_json::Error),
    /// Another keeper uses the directory.
    #[error("another keeper is running on {}", .0.display())]
    Locked(PathBuf),
}

/// The state directory, locked for this process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    owner: Owner,
    _lock: File,
}

impl Store {
    /// Opens the directory, creating it where it is missing, and locks it.
    pub fn open(dir: &Path, owner: Owner) -> Result<Self, StateError> {
        durable::create_dir(dir, 0o700, &owner)?;
        let path = dir.join("keeper.lock");
        let io_error = |source| StateError::Read { path: path.clone(), source };
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io_error)?;
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(&lock, exclusive).is_err() {
            return Err(StateError::Locked(dir.to_owned()));
        }
        std::fs::write(&path, format!("{}\n", std::process::id())).map_err(io_error)?;
        Ok(Self { dir: dir.to_owned(), owner, _lock: lock })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is stored; the default where nothing is.
    pub fn load(&self) -> Result<State, StateError> {
        load(&self.dir)
    }

    /// Stores durably. Blocks.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        save_json(&self.dir.join(FILE), state, &self.owner)
    }
}

/// Replaces a file whole, with fsync. Blocks.
pub(crate) fn save_json(
    path: &Path,
    value: &impl Serialize,
    owner: &Owner,
) -> Result<(), StateError> {
    let text = serde_json::to_vec_pretty(value)?;
    durable::write(path, &text, 0o600, owner)?;
    Ok(())
}

/// Whether a keeper runs on this state directory. Changes nothing, also where the directory is gone.
pub fn is_locked(dir: &Path) -> bool {
    let shared = rustix::fs::FlockOperation::NonBlockingLockShared;
    File::open(dir.join("keeper.lock")).is_ok_and(|lock| rustix::fs::flock(&lock, shared).is_err())
}

/// Reads the state of a directory without locking it.
pub fn load(dir: &Path) -> Result<State, StateError> {
    load_json(&dir.join(FILE))
}

/// What a file says; the default where there is none.
pub(crate) fn load_json<T: DeserializeOwned + Default>(path: &Path) -> Result<T, StateError> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|source| StateError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(source) => Err(StateError::Read { path: path.to_owned(), source }),
    }
}
