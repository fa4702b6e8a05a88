//! The monitor's own Postgres: created on first use in a private directory, reachable by unix socket
//! only, restarted whenever it ends.
//!
//! What must hold: the directory can be copied while stopped and used elsewhere; an acknowledged
//! transaction is durable. Everybody who can reach the socket is trusted, so its directory is private
//! (0700). Not here: the schema.

use crate::config::{ConfigError, ManagedConfig, ensure_included};
use crate::datadir::{Contents, DataDir};
use crate::durable::{self, DurableError};
use crate::instance::{InitOptions, Instance, InstanceError};
use crate::owner::{Owner, OwnerError};
use crate::pidfile::PidFile;
use crate::postmaster::{self, Postmaster, PostmasterError, Signal};
use crate::programs::Programs;
use crate::session::{Session, SessionError, Target};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

/// The superuser and the database.
pub const NAME: &str = "pgtandem";

/// Part of the socket's name only: nothing listens on it.
const PORT: u16 = 5432;

/// A recovery after a crash included.
const START_LIMIT: Duration = Duration::from_mins(5);

/// Waits between restarts: a server that cannot run must not fill the disk with its log.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A server that ran so long was fine, and the waits begin anew.
const LONG_RUN: Duration = Duration::from_secs(10);

/// Why there is no embedded server.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The directory holds something else.
    #[error("{} is not usable: {reason}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// In words.
        reason: String,
    },
    /// A directory belongs to somebody else.
    #[error("{} must belong to {owner} alone", path.display())]
    NotPrivate {
        /// Which.
        path: PathBuf,
        /// To whom.
        owner: String,
    },
    /// See there.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// See there.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// See there.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// See there.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// See there.
    #[error(transparent)]
    Postmaster(#[from] PostmasterError),
    /// The database cannot be created.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// An embedded server that is running. Dropping it leaves the server running.
#[derive(Debug)]
pub struct Embedded {
    instance: Instance,
    postmaster: watch::Sender<Postmaster>,
    stopping: watch::Sender<bool>,
    /// Held while a server is being started, so that a stop finds it.
    starting: Mutex<()>,
}

impl Embedded {
    /// Creates the cluster under `dir` on first use; adopts or starts the server; creates the database.
    /// `run_as`: the user of the server; by default the owner of what exists, or else this process's
    /// user, or `postgres` where that is root.
    pub async fn open(
        dir: &Path,
        programs: Programs,
        run_as: Option<Owner>,
    ) -> Result<Self, EmbeddedError> {
        let dir = &std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let data_dir = DataDir::new(dir.join("pgdata"));
        let owner = match run_as {
            Some(owner) => owner,
            None => Owner::for_data_dir(data_dir.path())?,
        };
        durable::create_dir(dir, 0o700, &owner)?;
        let mut instance = Instance {
            programs,
            data_dir,
            owner,
            port: PORT,
            socket_dir: dir.join("socket"),
            listen_addresses: String::new(),
            log_path: dir.join("postgres.log"),
        };
        if instance.check_socket_path().is_err() {
            instance.socket_dir = short_socket_dir(&instance.data_dir);
        }
        let running = Postmaster::adopt(&instance).await?;
        if running.is_some() {
            use_its_socket(&mut instance);
        }
        prepare(&instance).await?;
        let postmaster = match running {
            Some(running) => running,
            None => start(&instance).await?,
        };
        postmaster.wait_ready(START_LIMIT).await?;
        create_database(&instance).await?;
        Ok(Self {
            instance,
            postmaster: watch::Sender::new(postmaster),
            stopping: watch::Sender::new(false),
            starting: Mutex::new(()),
        })
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The process of the server; may have ended this moment.
    pub fn pid(&self) -> i32 {
        self.postmaster.borrow().pid()
    }

    /// How to connect with [`Session::connect`].
    pub fn target(&self) -> Target {
        Target::socket(&self.instance, NAME, NAME)
    }

    /// How to connect with other clients: `postgres://pgtandem@localhost:5432/pgtandem?host=DIR`.
    pub fn url(&self) -> String {
        let dir = percent_encoded(&self.instance.socket_dir);
        format!("postgres://{NAME}@localhost:{PORT}/{NAME}?host={dir}")
    }

    /// Restarts the server whenever it ends, until [`Self::stop`]. To be run as a task of its own.
    pub async fn supervise(&self) {
        let mut stopping = self.stopping.subscribe();
        let mut wait = FIRST_WAIT;
        loop {
            let current = self.postmaster.borrow().clone();
            let since = Instant::now();
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                _ = current.exited() => {}
            }
            if since.elapsed() > LONG_RUN {
                wait = FIRST_WAIT;
            }
            tracing::warn!(
                pid = current.pid(),
                "the monitor's own Postgres has ended: restarting it"
            );
            while let Err(error) = self.restart().await {
                if *stopping.borrow() {
                    return;
                }
                tracing::error!(%error, "cannot restart the monitor's own Postgres");
                let pause = tokio::time::sleep(wait);
                tokio::select! {
                    _ = stopping.wait_for(|stop| *stop) => return,
                    () = pause => {}
                }
                wait = LONGEST_WAIT.min(wait * 2);
            }
        }
    }

    /// Stops the server and its supervision: fast, then immediately, then by force.
    pub async fn stop(&self, patience: Duration) -> Result<(), EmbeddedError> {
        self.stopping.send_replace(true);
        let stages = [
            (Signal::FastStop, patience),
            (Signal::ImmediateStop, patience),
            (Signal::Kill, patience),
        ];
        let _none_is_started = self.starting.lock().await;
        if let Some(running) = Postmaster::adopt(&self.instance).await? {
            running.stop(&stages).await?;
        }
        Ok(())
    }

    async fn restart(&self) -> Result<(), EmbeddedError> {
        let postmaster = {
            let _no_stop_between = self.starting.lock().await;
            if *self.stopping.borrow() {
                return Ok(());
            }
            let postmaster = match Postmaster::adopt(&self.instance).await? {
                Some(running) => running,
                None => start(&self.instance).await?,
            };
            self.postmaster.send_replace(postmaster.clone());
            postmaster
        };
        postmaster.wait_ready(START_LIMIT).await?;
        tracing::info!(pid = postmaster.pid(), "the monitor's own Postgres is ready again");
        Ok(())
    }
}

async fn start(instance: &Instance) -> Result<Postmaster, EmbeddedError> {
    postmaster::end_children(instance).await?;
    Ok(Postmaster::start(instance).await?)
}

/// Creates the cluster if there is none, the socket directory, and the settings.
async fn prepare(instance: &Instance) -> Result<(), EmbeddedError> {
    match instance.data_dir.contents() {
        Contents::Missing | Contents::Empty => {
            let options = InitOptions {
                superuser: NAME.to_owned(),
                auth_local: "trust".to_owned(),
                auth_host: "reject".to_owned(),
                wal_dir: None,
            };
            instance.initdb(&options).await?;
        }
        Contents::Cluster { .. } => {}
        Contents::Unusable { reason } => {
            let path = instance.data_dir.path().to_owned();
            return Err(EmbeddedError::Unusable { path, reason });
        }
    }
    private_dir(&instance.socket_dir, &instance.owner)?;
    settings(instance).write(&instance.data_dir, &instance.owner)?;
    ensure_included(&instance.data_dir, &instance.owner)?;
    Ok(())
}

fn settings(instance: &Instance) -> ManagedConfig {
    let mut config = ManagedConfig::default();
    for (name, value) in instance.listen_settings() {
        config.set(name, value);
    }
    for (name, value) in [
        ("unix_socket_permissions", "0700"),
        ("max_connections", "50"),
        ("shared_buffers", "32MB"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        // No standby ever: less WAL.
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        ("max_wal_size", "256MB"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
    ] {
        config.set(name, value);
    }
    config
}

/// A directory that nobody else can enter, also not one who made it beforehand.
fn private_dir(path: &Path, owner: &Owner) -> Result<(), EmbeddedError> {
    durable::create_dir(path, 0o700, owner)?;
    let failed = |source| DurableError::Io { action: "look at", path: path.to_owned(), source };
    let meta = fs::symlink_metadata(path).map_err(failed)?;
    if !meta.is_dir() || meta.uid() != owner.uid {
        let owner = owner.name.clone();
        return Err(EmbeddedError::NotPrivate { path: path.to_owned(), owner });
    }
    let private = fs::Permissions::from_mode(0o700);
    Ok(fs::set_permissions(path, private).map_err(failed)?)
}

/// Under the directory for temporary files, by a number made of the data directory's path.
fn short_socket_dir(data_dir: &DataDir) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    // FNV-1a: the same in every build, which the standard library's hasher does not promise.
    let hash = data_dir
        .canonical()
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    Path::new("/tmp").join(format!("pgtandem-{hash:016x}"))
}

/// A running server has its socket where it was told to when it started, by whatever name the
/// directory had then.
fn use_its_socket(instance: &mut Instance) {
    let found: io::Result<Option<PidFile>> = PidFile::read(&instance.data_dir);
    if let Some(dir) = found.ok().flatten().and_then(|file| file.socket_dir) {
        instance.socket_dir = dir;
    }
}

async fn create_database(instance: &Instance) -> Result<(), SessionError> {
    let target = Target::socket(instance, NAME, "postgres");
    let session = Session::connect(&target, Duration::from_secs(10)).await?;
    if !session.database_exists(NAME).await? {
        session.execute(&format!("CREATE DATABASE {NAME}")).await?;
    }
    Ok(())
}

fn percent_encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.extend(["%", &format!("{byte:02X}")]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_urls() {
        assert_eq!(percent_encoded(Path::new("/a b/c?")), "/a%20b/c%3F");
    }

    #[test]
    fn short_directories_differ() {
        let a = short_socket_dir(&DataDir::new("/x/a"));
        assert_ne!(a, short_socket_dir(&DataDir::new("/x/b")));
        assert!(a.as_os_str().len() < 60);
    }
}
