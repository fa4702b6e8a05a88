//! The monitor's durable state in PostgreSQL, schema `pgtandem`.
//!
//! There is one door for changes of a group, [`Store::commit`]: one transaction that stores the record
//! where its revision is still the one that was decided on, together with the events that say why.
//! Records are validated on both sides. Every call has a deadline; nothing here retries, since the
//! caller knows what else it could do meanwhile. Nothing here decides anything.

mod events;
mod formations;
mod hooks;
mod tokens;

pub use formations::Stored;

use fsm::group::{Decision, Record};
use shared::api::OperationResult;
use shared::ids::{FormationId, GroupId, Revision};
use shared::version::SCHEMA;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::types::Json;
use sqlx::{PgPool, Postgres, Transaction};
use std::time::Duration;

/// The schema's migrations, forward only.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// One connection for each group's commit and some for readers; Postgres allows 100 by default.
const CONNECTIONS: u32 = 8;
/// How long a call may take. Statements take a millisecond; a database that needs longer than this
/// is as good as away, and the group goes on without it.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may take to come.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(2);

/// The database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be reached, or did not answer in time: try again later.
    #[error("the monitor's database is away")]
    Away(#[source] Option<sqlx::Error>),
    /// It answered with an error.
    #[error("the monitor's database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// A stored row that cannot be what this program stored, or a value that cannot be stored.
    #[error("{what} is damaged or from another version: {why}")]
    Damaged {
        /// What.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A newer monitor has brought the schema up to date for itself, and there is no way back.
    #[error(
        "the database has been used by a newer monitor: it has schema {}, and this one knows {SCHEMA}; start the newer one again, or go back to a copy of the database from before the upgrade",
        .0
    )]
    Newer(i64),
    /// The schema could not be brought up to date.
    #[error("a migration of the schema failed")]
    Migration(#[source] MigrateError),
}

impl StoreError {
    /// Whether it may go away by itself.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Refused(_) | Self::Damaged { .. } | Self::Newer(_) | Self::Migration(_) => false,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // SQLSTATE classes: 08 connection, 53 resources, 57 intervention (shutdown, cancel, starting).
        let sqlstate = error.as_database_error().and_then(DatabaseError::code);
        let away = sqlstate
            .is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class)))
            || matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
                    | sqlx::Error::Protocol(_)
            );
        if away { Self::Away(Some(error)) } else { Self::Refused(error) }
    }
}

/// A decision that was not stored.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The record has another revision than the one that was decided on, or is gone.
    #[error("the record is no longer at revision {0}")]
    Stale(Revision),
    /// The decision breaks an invariant: a bug.
    #[error("the decision is not valid: {0}")]
    Invalid(String),
    /// The database; after [`StoreError::Away`] nobody knows whether it was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to answer should the same request come again.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The request's Idempotency-Key.
    pub key: String,
    /// The request.
    pub request: serde_json::Value,
    /// Its answer.
    pub result: OperationResult,
}

/// The monitor's database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// A store over this database; connects when it is used.
    pub fn new(options: PgConnectOptions) -> Self {
        let options = options.application_name("pgtandem-monitor").options([
            ("search_path", "pgtandem"),
            ("statement_timeout", "5s"),
            ("lock_timeout", "4s"),
            ("idle_in_transaction_session_timeout", "10s"),
            // A decision that was told to a keeper must not be lost.
            ("synchronous_commit", "on"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_LIMIT)
            .connect_lazy_with(options);
        Self { pool }
    }

    /// Creates the schema and brings it up to date; the versions applied now.
    pub async fn migrate(&self) -> Result<Vec<i64>, StoreError> {
        limited(async {
            sqlx::query("CREATE SCHEMA IF NOT EXISTS pgtandem").execute(&self.pool).await?;
            Ok(())
        })
        .await?;
        let before = self.schema_version().await.unwrap_or(0);
        MIGRATOR.run(&self.pool).await.map_err(|error| {
            if let MigrateError::VersionMissing(version) = error {
                StoreError::Newer(version)
            } else if let MigrateError::Execute(error) = error {
                StoreError::from(error)
            } else {
                StoreError::Migration(error)
            }
        })?;
        let applied = MIGRATOR.iter().map(|migration| migration.version);
        Ok(applied.filter(|version| *version > before).collect())
    }

    /// The newest migration applied.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        limited(async {
            let version: Option<i64> =
                sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
                    .fetch_one(&self.pool)
                    .await?;
            Ok(version.unwrap_or(0))
        })
        .await
    }

    fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        limited(async {
            sqlx::query("SELECT 1").execute(&self.pool).await?;
            Ok(())
        })
        .await
    }

    /// Stores a decision that was made on revision `expected`, in one transaction, or nothing of it.
    pub async fn commit(
        &self,
        expected: Revision,
        decision: &Decision,
        receipt: Option<&Receipt>,
    ) -> Result<(), CommitError> {
        check(expected, decision)?;
        let record = &decision.record;
        let hit = limited(async {
            let mut transaction = self.pool.begin().await?;
            let hit = sqlx::query(
                "UPDATE group_record SET revision = $1, record = $2
                 WHERE formation = $3 AND group_id = $4 AND revision = $5",
            )
            .bind(bigint(record.revision.0)?)
            .bind(Json(record))
            .bind(record.formation.as_str())
            .bind(group_number(record.group)?)
            .bind(bigint(expected.0)?)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if hit != 1 {
                transaction.rollback().await?;
                return Ok(false);
            }
            events::insert(&mut transaction, &decision.events).await?;
            if let Some(receipt) = receipt {
                insert_receipt(&mut transaction, &record.formation, receipt).await?;
            }
            transaction.commit().await?;
            Ok(true)
        })
        .await?;
        if hit { Ok(()) } else { Err(CommitError::Stale(expected)) }
    }

    /// What was answered to a request with this key: the request and the result.
    pub async fn receipt(
        &self,
        formation: &FormationId,
        key: &str,
    ) -> Result<Option<(serde_json::Value, OperationResult)>, StoreError> {
        let row: Option<(Json<serde_json::Value>, Json<OperationResult>)> = limited(async {
            Ok(sqlx::query_as(
                "SELECT request, result FROM idempotency WHERE formation = $1 AND key = $2",
            )
            .bind(formation.as_str())
            .bind(key)
            .fetch_optional(&self.pool)
            .await?)
        })
        .await?;
        Ok(row.map(|(request, result)| (request.0, result.0)))
    }
}

/// What the door looks at before it lets a decision through.
fn check(expected: Revision, decision: &Decision) -> Result<(), CommitError> {
    let record = &decision.record;
    record.validate().map_err(|error| CommitError::Invalid(error.to_string()))?;
    if record.revision != expected.next() {
        let found = record.revision;
        return Err(CommitError::Invalid(format!("revision {found} does not follow {expected}")));
    }
    let mut id = record.next_event;
    for event in decision.events.iter().rev() {
        id = id.saturating_sub(1);
        if event.id != id || event.formation != record.formation {
            let found = event.id;
            return Err(CommitError::Invalid(format!("event {found} where {id} was expected")));
        }
    }
    Ok(())
}

/// Receipts are kept for a day: nobody repeats a request for longer.
async fn insert_receipt(
    transaction: &mut Transaction<'_, Postgres>,
    formation: &FormationId,
    receipt: &Receipt,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM idempotency WHERE at < now() - interval '1 day'")
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "INSERT INTO idempotency (formation, key, request, result, at) VALUES ($1, $2, $3, $4, now())
         ON CONFLICT (formation, key) DO NOTHING",
    )
    .bind(formation.as_str())
    .bind(&receipt.key)
    .bind(&receipt.request)
    .bind(Json(&receipt.result))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn limited<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Away(None)),
    }
}

fn bigint(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|error| damaged("a number", &error))
}

fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|error| damaged("a number", &error))
}

fn group_number(group: GroupId) -> Result<i32, StoreError> {
    i32::try_from(group.0).map_err(|error| damaged("a group number", &error))
}

fn damaged(what: &str, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged { what: what.to_owned(), why: why.to_string() }
}

/// What came out of the database is checked like what goes in.
fn checked(record: Record) -> Result<Record, StoreError> {
    match record.validate() {
        Ok(()) => Ok(record),
        Err(error) => {
            let what =
                format!("the record of formation {} group {}", record.formation, record.group);
            Err(damaged(&what, &error))
        }
    }
}
