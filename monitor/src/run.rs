//! From a configuration to a monitor that serves, and to its end.

mod prepare;

pub use prepare::{Prepared, prepare};

use crate::config::{Config, Database};
use crate::hooks::Audience;
use crate::http;
use crate::lock::LockError;
use crate::service::{Identity, Service};
use crate::store::{Store, StoreError};
use axum::serve::ListenerExt as _;
use postgres::embedded::{Embedded, EmbeddedError};
use program::notify::Line;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How long open connections may take to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How long each way of stopping the own Postgres may take, on a planned stop and at once.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const STOP_NOW_PATIENCE: Duration = Duration::from_millis(200);
/// A planned stop: connections, and the own Postgres in each of three ways.
pub(crate) const LONGEST_STOP: Duration =
    CLOSE_LIMIT.saturating_add(STOP_PATIENCE.saturating_mul(3));
/// How long to wait before an external database is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often it is looked whether every group is still served.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the monitor cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory.
    #[error("data directory {} cannot be used: {why}", dir.display())]
    DataDir {
        /// Which.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The programs of Postgres, or their user.
    #[error("{0}")]
    Programs(String),
    /// The own Postgres.
    #[error("the monitor's own Postgres cannot be run: {0}")]
    Embedded(#[from] EmbeddedError),
    /// The schema or what is in it.
    #[error("{source}{}", cause(.source))]
    Store {
        /// What.
        #[from]
        source: StoreError,
    },
    /// Signals, the HTTP server.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A bug.
    #[error("a task has ended unexpectedly: see the log")]
    Broken,
}

fn cause(error: &StoreError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}

impl RunError {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::DataDir { .. } | Self::Lock(_) | Self::Listen { .. } | Self::Programs(_) => 2,
            Self::Store { source: StoreError::Newer(_) } => 3,
            Self::Embedded(_) | Self::Store { .. } => 7,
            Self::System(_) | Self::Broken => 8,
        }
    }

    /// The same in a word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::DataDir { .. } => "data_directory",
            Self::Lock(_) => "in_use",
            Self::Listen { .. } => "port_in_use",
            Self::Programs(_) => "missing_programs",
            Self::Embedded(_) => "postgres",
            Self::Store { source: StoreError::Newer(_) } => "newer_schema",
            Self::Store { .. } => "store",
            Self::System(_) | Self::Broken => "internal",
        }
    }
}

/// How the monitor was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Planned,
    AtOnce,
}

/// Runs the monitor until a signal ends it.
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let mut line = Line::open();
    let _lock = prepare::data_dir(&config)?;
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|source| RunError::Listen { address: config.listen.clone(), source })?;
    tracing::info!("listening on {}", listener.local_addr()?);
    for warning in config.hooks.iter().filter_map(Audience::warning) {
        tracing::warn!("{warning}");
    }
    let (stop, stopping) = watch::channel(false);
    let service = Arc::new(Service::new(Identity {
        protocol: config.protocol,
        monitors: config.monitors.clone(),
        storage: match &config.database {
            Database::Embedded { .. } => "embedded".to_owned(),
            Database::External(_) => "external".to_owned(),
        },
        stopping: stopping.clone(),
        hooks: config.hooks.clone(),
    }));
    let mut server = tokio::spawn(serve(listener, Arc::clone(&service), stopping));
    let embedded = tokio::select! {
        embedded = prepare::embedded(&config) => embedded?,
        _ = signals.stop() => return Ok(()),
    };
    let supervised = embedded.clone().map(|embedded| {
        service.set_embedded(&embedded);
        tokio::spawn(async move { embedded.supervise().await })
    });
    let ended = tokio::select! {
        ended = work(&config, &service, embedded.as_deref(), &mut line) => ended.map(|()| Stop::Planned),
        ended = &mut server => ended.map_err(|_| RunError::Broken).flatten().map(|()| Stop::Planned),
        stop = signals.stop() => Ok(stop),
    };
    line.stopping();
    stop.send_replace(true);
    if matches!(ended, Ok(Stop::Planned)) {
        tracing::info!("stopping");
        if tokio::time::timeout(CLOSE_LIMIT, &mut server).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
    if let Some(embedded) = embedded {
        let planned = matches!(ended, Ok(Stop::Planned));
        embedded.stop(if planned { STOP_PATIENCE } else { STOP_NOW_PATIENCE }).await?;
    }
    if let Some(supervised) = supervised {
        supervised.abort();
    }
    ended.map(|_| tracing::info!("stopped"))
}

async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), RunError> {
    // A report and its answer are one small message each: nothing is gained by waiting for more.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("cannot set TCP_NODELAY: {error}");
        }
    });
    axum::serve(listener, http::router(service))
        .with_graceful_shutdown(async move {
            // The sender lives until the process ends.
            drop(stopping.wait_for(|stopping| *stopping).await);
        })
        .await?;
    Ok(())
}

/// Opens the store, and goes on until something breaks.
async fn work(
    config: &Config,
    service: &Service,
    embedded: Option<&Embedded>,
    line: &mut Line,
) -> Result<(), RunError> {
    let store = prepare::store(config, embedded)?;
    open(service, store, config).await?;
    tracing::info!("ready");
    line.ready("serving");
    let check = async {
        let mut broken = 0;
        // A formation that is being dropped may be seen without its task once.
        while broken < 2 {
            line.alive();
            tokio::time::sleep(CHECK_INTERVAL.min(line.pause())).await;
            broken = if service.is_broken() { broken + 1 } else { 0 };
        }
    };
    tokio::select! {
        () = check => Err(RunError::Broken),
        () = service.watch_store() => Err(RunError::Broken),
    }
}

/// Brings the schema up to date and starts the groups; waits for a database that is away.
async fn open(service: &Service, store: Store, config: &Config) -> Result<(), RunError> {
    let (mut wait, longest) = RETRY;
    loop {
        let opened = async {
            prepare::migrate(&store).await?;
            if config.adopt {
                prepare::check_lost(&store, config).await?;
                service.open(store.clone(), None).await?;
                return Ok(());
            }
            Ok(service.open(store.clone(), Some(config.settings.clone())).await?)
        };
        match opened.await {
            Err(RunError::Store { source }) if source.is_away() => {
                tracing::warn!("{source}{}: trying again", cause(&source));
                tokio::time::sleep(wait).await;
                wait = longest.min(wait * 2);
            }
            result => return result,
        }
    }
}

/// The signals that end the process, and those that must not.
struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.term.recv() => return Stop::Planned,
                _ = self.int.recv() => return Stop::Planned,
                _ = self.quit.recv() => return Stop::AtOnce,
                _ = self.hup.recv() => tracing::info!("SIGHUP: nothing to reload"),
            }
        }
    }
}
