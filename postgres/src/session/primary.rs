//! Questions and orders to a primary: its standbys, the end of its log, its timeline, the probe commit.

use super::standby::lsn;
use super::{Notice, Session, SessionError, column};
use shared::ids::TimelineId;
use shared::lsn::Lsn;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::Row;

/// The wait event of a commit that waits for standbys.
pub const SYNC_WAIT: &str = "SyncRep";

/// A row of `pg_stat_replication`. Never judge by `sync_state`: it mixes the walsender's priority with
/// the asking session's own settings (facts about PostgreSQL, section 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walsender {
    /// Its process.
    pub pid: i32,
    /// The name that the other side gave itself.
    pub application_name: String,
    /// Such as `streaming`.
    pub state: String,
    /// NULL until its first answer; then a shown priority of 0 means nothing.
    pub flush_lsn: Option<Lsn>,
    /// What it has replayed.
    pub replay_lsn: Option<Lsn>,
    /// 0: releases no commit, provided that `flush_lsn` is there.
    pub sync_priority: i32,
    /// For people.
    pub sync_state: String,
    /// When its last answer was sent, by its own clock, in microseconds since 1970.
    pub reply_time: Option<i64>,
    /// The slot that it holds.
    pub slot_name: Option<String>,
    /// `replay_lag` in milliseconds; NULL where nothing was written lately.
    pub replay_lag_ms: Option<i64>,
}

/// A tablespace outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// The directory, the same on every node.
    pub location: PathBuf,
    /// In bytes; 0 where the role may not know.
    pub size: u64,
    /// What PostgreSQL of this version calls its own directory in it (`TABLESPACE_VERSION_DIRECTORY`).
    pub directory: String,
}

/// What the probe commit tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It returned without a warning: commits are released.
    Released,
    /// It returned, with the warning that its wait was cancelled: it proves nothing.
    Cancelled(Notice),
}

impl Session {
    /// The walsenders, copies included.
    pub async fn replication(&self) -> Result<Vec<Walsender>, SessionError> {
        let rows = self.rows("ask for the standbys", REPLICATION, &[]).await?;
        rows.iter().map(walsender).collect()
    }

    /// `pg_current_wal_flush_lsn()`; an error on a standby.
    pub async fn flush_lsn(&self) -> Result<Lsn, SessionError> {
        let row = self.one("ask for the end of the log", "SELECT pg_current_wal_flush_lsn()", &[]);
        lsn(&row.await?, 0, "pg_current_wal_flush_lsn")?
            .ok_or(SessionError::Answer("pg_current_wal_flush_lsn"))
    }

    /// `pg_current_wal_insert_lsn()`: where the next record begins or the header before it; an error on
    /// a standby.
    pub async fn insert_lsn(&self) -> Result<Lsn, SessionError> {
        let sql = "SELECT pg_current_wal_insert_lsn()";
        let row = self.one("ask where the log is written", sql, &[]).await?;
        lsn(&row, 0, "pg_current_wal_insert_lsn")?
            .ok_or(SessionError::Answer("pg_current_wal_insert_lsn"))
    }

    /// The timeline that a primary writes now. The control file's is that of the last checkpoint, hence
    /// too low for a while after a promotion.
    pub async fn current_timeline(&self) -> Result<TimelineId, SessionError> {
        let sql = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";
        let row = self.one("ask for the timeline", sql, &[]).await?;
        let digits: String = column(&row, 0, "pg_walfile_name")?;
        u32::from_str_radix(&digits, 16)
            .map(TimelineId)
            .map_err(|_| SessionError::Answer("pg_walfile_name"))
    }

    /// The timeline of the last checkpoint, which lags behind a promotion. `pg_rewind` of PostgreSQL 15
    /// goes by it: from a source where it still is the old one, it finds that no rewind is required.
    pub async fn checkpoint_timeline(&self) -> Result<TimelineId, SessionError> {
        let sql = "SELECT timeline_id FROM pg_control_checkpoint()";
        let row = self.one("ask for the checkpoint's timeline", sql, &[]).await?;
        let number: i32 = column(&row, 0, "timeline_id")?;
        let number = u32::try_from(number).map_err(|_| SessionError::Answer("timeline_id"))?;
        Ok(TimelineId(number))
    }

    /// The history file of its timeline; empty for one that comes from no other.
    pub async fn history_file(&self, timeline: TimelineId) -> Result<Vec<u8>, SessionError> {
        // The same name as in PostgreSQL's `TLHistoryFileName`.
        let name = format!("{:08X}.history", timeline.0);
        let sql = "SELECT pg_read_binary_file('pg_wal/' || name) \
                   FROM pg_ls_dir('pg_wal', true, false) AS name WHERE name = $1";
        let rows = self.rows("ask for the history of the timeline", sql, &[&name]).await?;
        rows.first().map_or(Ok(Vec::new()), |row| column(row, 0, "pg_read_binary_file"))
    }

    /// The tablespaces outside the data directory.
    pub async fn tablespaces(&self) -> Result<Vec<Tablespace>, SessionError> {
        let rows = self.rows("ask for the tablespaces", TABLESPACES, &[]).await?;
        let read = |row: &Row| {
            let location: String = column(row, 0, "pg_tablespace_location")?;
            let size: i64 = column(row, 1, "pg_tablespace_size")?;
            let size = u64::try_from(size).unwrap_or_default();
            let directory = column(row, 2, "catalog_version_no")?;
            Ok(Tablespace { location: location.into(), size, directory })
        };
        rows.iter().map(read).collect()
    }

    /// How large the databases are that lie in the data directory, and the WAL that is kept, in bytes.
    pub async fn data_size(&self) -> Result<(u64, u64), SessionError> {
        let row = self.one("ask for the size of the data", DATA_SIZE, &[]).await?;
        let bytes = |index, name| {
            let bytes: i64 = column(&row, index, name)?;
            Ok(u64::try_from(bytes).unwrap_or_default())
        };
        Ok((bytes(0, "pg_tablespace_size")?, bytes(1, "pg_stat_file")?))
    }

    /// Writes one small record and commits it locally: makes all standbys answer at once, without which
    /// commits that wait could go on waiting for `wal_receiver_status_interval`.
    pub async fn write_record(&self) -> Result<(), SessionError> {
        let sql = "SET synchronous_commit = local; \
                   SELECT pg_logical_emit_message(true, 'pgtandem', '')";
        self.execute_as("write a record", sql, self.limit).await
    }

    /// Commits the smallest transaction that waits for synchronous standbys, and waits for it up to
    /// `limit`. Needs a session of its own; observed meanwhile from another one by
    /// [`Session::backend_wait_event`] = [`SYNC_WAIT`]. Dropping the future lets it go on waiting, and the
    /// backend stays behind until standbys answer, also when the session is dropped (it does not look at
    /// its client while it waits): end it with [`Session::terminate`] from another session.
    pub async fn probe(&self, limit: Duration) -> Result<Probe, SessionError> {
        // Two messages: SET counts only for the statements after it in a message of its own.
        let set = "SET synchronous_commit = on";
        self.execute_as("prepare the probe", set, self.limit).await?;
        drop(self.take_notices());
        let sql = "SELECT pg_logical_emit_message(true, 'pgtandem', '')";
        self.execute_as("commit the probe", sql, limit).await?;
        let warning = self.take_notices().into_iter().find(|notice| notice.is_warning);
        Ok(warning.map_or(Probe::Released, Probe::Cancelled))
    }

    /// `CHECKPOINT`, which may take as long as the disk needs.
    pub async fn checkpoint(&self, limit: Duration) -> Result<(), SessionError> {
        self.execute_as("write a checkpoint", "CHECKPOINT", limit).await
    }

    /// `pg_switch_wal()`.
    pub async fn switch_wal(&self) -> Result<(), SessionError> {
        self.execute_as("switch to a new WAL segment", "SELECT pg_switch_wal()", self.limit).await
    }
}

const DATA_SIZE: &str = "\
    SELECT pg_tablespace_size(dattablespace), \
           (SELECT coalesce(sum((pg_stat_file('pg_wal/' || name, true)).size), 0)::int8 \
              FROM pg_ls_dir('pg_wal', true, false) AS name) \
      FROM pg_database WHERE datname = current_database()";

/// One that lies in the data directory has a relative path (`allow_in_place_tablespaces`).
const TABLESPACES: &str = "\
    SELECT pg_tablespace_location(oid), \
           CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') THEN pg_tablespace_size(oid) \
                ELSE 0 END::int8, \
           format('PG_%s_%s', current_setting('server_version_num')::int / 10000, \
                  catalog_version_no) \
      FROM pg_tablespace, pg_control_system() WHERE pg_tablespace_location(oid) LIKE '/%'";

const REPLICATION: &str = "\
    SELECT r.pid, r.application_name, r.state, r.flush_lsn, r.replay_lsn, r.sync_priority, \
           r.sync_state, (extract(epoch FROM r.reply_time) * 1000000)::int8, s.slot_name::text, \
           (extract(epoch FROM r.replay_lag) * 1000)::int8 \
      FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid \
     ORDER BY r.application_name, r.pid";

fn walsender(row: &Row) -> Result<Walsender, SessionError> {
    let text = |index, name| Ok(column::<Option<String>>(row, index, name)?.unwrap_or_default());
    Ok(Walsender {
        pid: column(row, 0, "pid")?,
        application_name: text(1, "application_name")?,
        state: text(2, "state")?,
        flush_lsn: lsn(row, 3, "flush_lsn")?,
        replay_lsn: lsn(row, 4, "replay_lsn")?,
        sync_priority: column::<Option<i32>>(row, 5, "sync_priority")?.unwrap_or_default(),
        sync_state: text(6, "sync_state")?,
        reply_time: column(row, 7, "reply_time")?,
        slot_name: column(row, 8, "slot_name")?,
        replay_lag_ms: column(row, 9, "replay_lag")?,
    })
}
