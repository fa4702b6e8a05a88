//! Physical replication slots. Orders that are already so are no errors.

use super::standby::lsn;
use super::{Session, SessionError, column};
use shared::lsn::Lsn;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;

/// How soon a slot is tried again whose walsender is on its way out.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// A physical slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// The walsender that streams from it.
    pub active_pid: Option<i32>,
    /// From where on it keeps WAL; `None`: it does not.
    pub restart_lsn: Option<Lsn>,
    /// Such as `reserved`, `extended`, `lost`.
    pub wal_status: Option<String>,
}

impl Slot {
    /// It was given up for `max_slot_wal_keep_size`: nobody can stream from it any more.
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost")
    }
}

/// Whether a slot was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// Yes.
    Now,
    /// There was one of that name.
    Already,
}

impl Session {
    /// All physical slots that are not temporary, also those of other users.
    pub async fn slots(&self) -> Result<Vec<Slot>, SessionError> {
        let sql = "SELECT slot_name::text, active_pid, restart_lsn, wal_status \
                     FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary \
                    ORDER BY slot_name";
        let rows = self.rows("ask for the slots", sql, &[]).await?;
        let slot = |row| {
            Ok(Slot {
                name: column(row, 0, "slot_name")?,
                active_pid: column(row, 1, "active_pid")?,
                restart_lsn: lsn(row, 2, "restart_lsn")?,
                wal_status: column(row, 3, "wal_status")?,
            })
        };
        rows.iter().map(slot).collect()
    }

    /// Creates a physical slot; `reserve`: it keeps WAL from now on. The role needs `REPLICATION`.
    pub async fn create_slot(&self, name: &str, reserve: bool) -> Result<Created, SessionError> {
        let sql = "SELECT pg_create_physical_replication_slot($1::text::name, $2)";
        match self.rows("create a slot", sql, &[&name, &reserve]).await {
            Ok(_) => Ok(Created::Now),
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => Ok(Created::Already),
            Err(error) => Err(error),
        }
    }

    /// Drops a slot, and ends the walsender that streams from it first; false where there is none.
    pub async fn drop_slot(&self, name: &str) -> Result<bool, SessionError> {
        let deadline = Instant::now() + self.limit;
        loop {
            let sql = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1::text";
            let rows = self.rows("look for a slot", sql, &[&name]).await?;
            let Some(row) = rows.first() else { return Ok(false) };
            if let Some(pid) = column::<Option<i32>>(row, 0, "active_pid")? {
                self.terminate(pid).await?;
            }
            let sql = "SELECT pg_drop_replication_slot($1::text::name)";
            match self.rows("drop a slot", sql, &[&name]).await {
                Ok(_) => return Ok(true),
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => {
                    return Ok(false);
                }
                Err(error)
                    if error.code() == Some(&SqlState::OBJECT_IN_USE)
                        && Instant::now() < deadline =>
                {
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets a slot that nobody uses forget the WAL before `to`, as far as it goes (the end of the own
    /// log limits it). Never backwards; false where nothing was to be done. A slot that keeps nothing
    /// yet begins to keep WAL only by [`Session::create_slot`].
    pub async fn advance_slot(&self, name: &str, to: Lsn) -> Result<bool, SessionError> {
        let sql = "SELECT pg_replication_slot_advance(slot_name, $2) FROM pg_replication_slots \
                    WHERE slot_name = $1::text AND restart_lsn < $2 AND active_pid IS NULL";
        match self.rows("advance a slot", sql, &[&name, &PgLsn::from(to.0)]).await {
            Ok(rows) => Ok(!rows.is_empty()),
            // Somebody took it in between; it advances by itself then.
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
