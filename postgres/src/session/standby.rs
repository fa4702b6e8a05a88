//! Questions to a standby: recovery, the signs of a seal, replay.

use super::{Session, SessionError, column};
use shared::ids::{SystemIdentifier, TimelineId};
use shared::lsn::Lsn;
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

/// The wait event of a startup process that has read all that is there (rule 4). No promise of
/// PostgreSQL: another name is no sign.
pub const RETRY_WAIT: &str = "RecoveryRetrieveRetryInterval";

/// How recovery stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "PostgreSQL's own names")]
pub struct Recovery {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// `pg_last_wal_receive_lsn()`; NULL after each restart until something was received.
    pub receive_lsn: Option<Lsn>,
    /// `pg_last_wal_replay_lsn()`.
    pub replay_lsn: Option<Lsn>,
    /// `pg_is_wal_replay_paused()`.
    pub replay_paused: bool,
    /// What the startup process waits for.
    pub startup_wait_event: Option<String>,
    /// Processes of type walreceiver, connected or not.
    pub walreceivers: i64,
    /// The live `primary_conninfo`. May hold a password that a user wrote: not for logs.
    pub primary_conninfo: String,
    /// The live `primary_slot_name`.
    pub primary_slot_name: String,
    /// The row of `pg_stat_wal_receiver`. That there is none proves nothing.
    pub receiver: Option<WalReceiver>,
}

/// `pg_stat_wal_receiver`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalReceiver {
    /// Its process.
    pub pid: i32,
    /// Such as `streaming`.
    pub status: String,
    /// `received_tli`.
    pub received_timeline: Option<TimelineId>,
    /// `flushed_lsn`.
    pub flushed_lsn: Option<Lsn>,
    /// The slot it streams from.
    pub slot_name: Option<String>,
    /// The host that it is connected to.
    pub sender_host: Option<String>,
    /// The port that it is connected to.
    pub sender_port: Option<i32>,
    /// `latest_end_lsn`: where the sender's log ended when it last said so, also in messages that carry
    /// no WAL (`ProcessWalSndrMessage` in `walreceiver.c`).
    pub latest_end_lsn: Option<Lsn>,
}

/// What a server streams, as one sees it that would stream from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// The cluster that it is.
    pub system_identifier: SystemIdentifier,
    /// The slot and the timeline of its walreceiver, where that streams.
    pub receives: Option<(String, TimelineId)>,
}

/// The signs of a seal, in the order in which they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealSigns {
    /// Whether it is in recovery at all.
    pub in_recovery: bool,
    /// 1: this session shows `primary_conninfo` empty.
    pub conninfo_empty: bool,
    /// 2: what the startup process waited for, after 1.
    pub startup_wait_event: Option<String>,
    /// 3: processes of type walreceiver, after 2.
    pub walreceivers: i64,
    /// 4: greatest(receive, replay), after 3.
    pub position: Option<Lsn>,
}

impl SealSigns {
    /// Whether all signs were seen.
    pub fn is_sealed(&self) -> bool {
        self.in_recovery
            && self.conninfo_empty
            && self.startup_wait_event.as_deref() == Some(RETRY_WAIT)
            && self.walreceivers == 0
    }

    /// The end of the log, where the signs establish it.
    pub fn sealed_position(&self) -> Option<Lsn> {
        self.position.filter(|_| self.is_sealed())
    }
}

impl Session {
    /// How recovery stands. `primary_conninfo` and the activity of other processes are shown to a
    /// superuser and to members of `pg_monitor` only.
    pub async fn recovery(&self) -> Result<Recovery, SessionError> {
        let row = self.one("ask how recovery stands", RECOVERY, &[]).await?;
        Ok(Recovery {
            in_recovery: column(&row, 0, "pg_is_in_recovery")?,
            receive_lsn: lsn(&row, 1, "pg_last_wal_receive_lsn")?,
            replay_lsn: lsn(&row, 2, "pg_last_wal_replay_lsn")?,
            replay_paused: column::<Option<bool>>(&row, 3, "pg_is_wal_replay_paused")?
                .unwrap_or_default(),
            startup_wait_event: column(&row, 4, "wait_event")?,
            walreceivers: column(&row, 5, "walreceivers")?,
            primary_conninfo: column(&row, 6, "primary_conninfo")?,
            primary_slot_name: column(&row, 7, "primary_slot_name")?,
            receiver: receiver(&row)?,
        })
    }

    /// What it streams itself. The role needs `pg_read_all_stats`.
    pub async fn stream(&self) -> Result<Stream, SessionError> {
        let sql = "SELECT pg_is_in_recovery(), c.system_identifier, r.slot_name, r.received_tli \
                     FROM pg_control_system() c \
                     LEFT JOIN pg_stat_wal_receiver r ON r.status = 'streaming'";
        let row = self.one("ask what it streams", sql, &[]).await?;
        let system: i64 = column(&row, 1, "system_identifier")?;
        let slot: Option<String> = column(&row, 2, "slot_name")?;
        let timeline: Option<i32> = column(&row, 3, "received_tli")?;
        let timeline = timeline.and_then(|number| u32::try_from(number).ok()).map(TimelineId);
        Ok(Stream {
            in_recovery: column(&row, 0, "pg_is_in_recovery")?,
            system_identifier: SystemIdentifier(system.cast_unsigned()),
            receives: slot.zip(timeline),
        })
    }

    /// Asks for the signs of a seal (rule 3), each by a statement of its own. They count only on a
    /// session that was opened *after* the reload: an older one keeps showing its old settings. The
    /// wait event counts only after the setting was seen empty, since a standby whose upstream is down
    /// waits the same way.
    pub async fn seal_signs(&self) -> Result<SealSigns, SessionError> {
        let what = "ask for the signs of a seal";
        let row = self.one(what, "SELECT pg_is_in_recovery()", &[]).await?;
        let in_recovery = column(&row, 0, "pg_is_in_recovery")?;
        let sql = "SELECT current_setting('primary_conninfo') = ''";
        let row = self.one(what, sql, &[]).await?;
        let conninfo_empty = column(&row, 0, "primary_conninfo")?;
        let sql = "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'";
        let rows = self.rows(what, sql, &[]).await?;
        let startup_wait_event =
            rows.first().map_or(Ok(None), |row| column(row, 0, "wait_event"))?;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'";
        let row = self.one(what, sql, &[]).await?;
        let walreceivers = column(&row, 0, "walreceivers")?;
        let sql = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())";
        let row = self.one(what, sql, &[]).await?;
        let position = lsn(&row, 0, "position")?;
        Ok(SealSigns { in_recovery, conninfo_empty, startup_wait_event, walreceivers, position })
    }

    /// Resumes a paused replay.
    pub async fn resume_replay(&self) -> Result<(), SessionError> {
        self.execute_as("resume replay", "SELECT pg_wal_replay_resume()", self.limit).await
    }

    /// `pg_promote` without waiting: the startup process will do it; false if the signal failed.
    pub async fn promote(&self) -> Result<bool, SessionError> {
        let row = self.one("promote", "SELECT pg_promote(false)", &[]).await?;
        column(&row, 0, "pg_promote")
    }
}

const RECOVERY: &str = "\
    SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), \
           CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END, \
           (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup' LIMIT 1), \
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'), \
           current_setting('primary_conninfo'), current_setting('primary_slot_name'), \
           r.pid, r.status, r.received_tli, r.flushed_lsn, r.slot_name, r.sender_host, r.sender_port, \
           r.latest_end_lsn \
      FROM (SELECT 1) one LEFT JOIN pg_stat_wal_receiver r ON true";

fn receiver(row: &Row) -> Result<Option<WalReceiver>, SessionError> {
    let Some(pid) = column(row, 8, "pid")? else { return Ok(None) };
    let timeline: Option<i32> = column(row, 10, "received_tli")?;
    Ok(Some(WalReceiver {
        pid,
        status: column::<Option<String>>(row, 9, "status")?.unwrap_or_default(),
        received_timeline: timeline.and_then(|number| u32::try_from(number).ok()).map(TimelineId),
        flushed_lsn: lsn(row, 11, "flushed_lsn")?,
        slot_name: column(row, 12, "slot_name")?,
        sender_host: column(row, 13, "sender_host")?,
        sender_port: column(row, 14, "sender_port")?,
        latest_end_lsn: lsn(row, 15, "latest_end_lsn")?,
    }))
}

/// A nullable `pg_lsn` column.
pub(super) fn lsn(
    row: &Row,
    index: usize,
    name: &'static str,
) -> Result<Option<Lsn>, SessionError> {
    Ok(column::<Option<PgLsn>>(row, index, name)?.map(|lsn| Lsn(u64::from(lsn))))
}
