//! What has to be there before the monitor can run: its directory, its database, the schema.

use super::{RunError, STOP_PATIENCE};
use crate::config::{Config, Database};
use crate::lock::{self, Lock, LockError};
use crate::service::create_first;
use crate::store::{Store, StoreError};
use postgres::durable;
use postgres::embedded::Embedded;
use postgres::owner::Owner;
use postgres::programs::Programs;
use std::fs;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;

/// What `init` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// Nothing: it was set up.
    New,
    /// A monitor that had been set up before.
    Already,
}

/// Prepares everything without serving.
pub async fn prepare(config: &Config) -> Result<Prepared, RunError> {
    let _lock = match data_dir(config) {
        // It runs, so it has been set up.
        Err(RunError::Lock(LockError::Taken(_))) => return Ok(Prepared::Already),
        lock => lock?,
    };
    let embedded = embedded(config).await?;
    let store = store(config, embedded.as_deref())?;
    let prepared = async {
        migrate(&store).await?;
        create_first(&store, config.settings.clone()).await
    };
    let created = prepared.await;
    if let Some(embedded) = embedded {
        embedded.stop(STOP_PATIENCE).await?;
    }
    Ok(if created? { Prepared::New } else { Prepared::Already })
}

/// A record that may be decided on is not replaced by what keepers bring; one in quarantine goes on.
pub(super) async fn check_lost(store: &Store, config: &Config) -> Result<(), RunError> {
    let known = store.load().await?;
    if known.iter().all(|stored| stored.record.quarantined) {
        return Ok(());
    }
    let formations: Vec<_> = known.iter().map(|s| s.record.formation.to_string()).collect();
    Err(RunError::DataDir {
        dir: config.data_dir.clone(),
        why: format!(
            "--adopt is for a monitor that has lost everything, and this one knows formation {}: start it without --adopt; an old copy is noticed by itself",
            formations.join(", ")
        ),
    })
}

/// Creates the data directory and takes it.
pub(super) fn data_dir(config: &Config) -> Result<Lock, RunError> {
    let dir = &config.data_dir;
    let failed =
        |why: &dyn std::fmt::Display| RunError::DataDir { dir: dir.clone(), why: why.to_string() };
    let owner = owner(config)?;
    durable::create_dir(dir, 0o700, &owner).map_err(|error| failed(&error))?;
    if is_empty(dir) {
        // Made beforehand, perhaps by root: the user of the own Postgres must be able to enter.
        owner.chown(dir).map_err(|error| failed(&error))?;
    }
    let lock = lock::take(dir)?;
    // Whoever runs the monitor next must be able to take it.
    owner.chown(&lock.path).map_err(|error| failed(&error))?;
    Ok(lock)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// The user that the data directory is for.
fn owner(config: &Config) -> Result<Owner, RunError> {
    let unusable = |error: postgres::owner::OwnerError| RunError::Programs(error.to_string());
    match &config.database {
        Database::Embedded { run_as: Some(name), .. } => Owner::by_name(name).map_err(unusable),
        Database::Embedded { run_as: None, .. } => {
            Owner::for_data_dir(&config.data_dir.join("pgdata")).map_err(unusable)
        }
        Database::External(_) => Ok(Owner::current()),
    }
}

/// Starts or adopts the own Postgres, where that is wanted.
pub(super) async fn embedded(config: &Config) -> Result<Option<Arc<Embedded>>, RunError> {
    let Database::Embedded { bin_dir, .. } = &config.database else { return Ok(None) };
    let programs = Programs::find(bin_dir.as_deref())
        .map_err(|error| RunError::Programs(error.to_string()))?;
    let owner = owner(config)?;
    let embedded = Embedded::open(&config.data_dir, programs, Some(owner)).await?;
    tracing::info!(pid = embedded.pid(), "the monitor's own Postgres is ready");
    Ok(Some(Arc::new(embedded)))
}

/// The store over either database.
pub(super) fn store(config: &Config, embedded: Option<&Embedded>) -> Result<Store, RunError> {
    let options = match (&config.database, embedded) {
        (Database::External(options), _) => (**options).clone(),
        (Database::Embedded { .. }, Some(embedded)) => {
            sqlx::postgres::PgConnectOptions::from_str(&embedded.url()).map_err(StoreError::from)?
        }
        (Database::Embedded { .. }, None) => return Err(RunError::Broken),
    };
    Ok(Store::new(options))
}

/// Brings the schema up to date and says so.
pub(super) async fn migrate(store: &Store) -> Result<(), StoreError> {
    for version in store.migrate().await? {
        tracing::info!("migration {version} was applied");
    }
    Ok(())
}
