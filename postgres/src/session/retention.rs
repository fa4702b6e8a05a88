//! How much of its log a server still has.

use super::{Session, SessionError, column};
use crate::segment;
use shared::lsn::Lsn;

impl Session {
    /// Whether the server may still have the WAL from `from` on: its oldest segment is not later than
    /// the one that `from` is in. Needs `EXECUTE` on `pg_ls_dir`, and works during recovery, unlike
    /// `pg_walfile_name`. The name of a segment ends with its number, whatever the
    /// timeline.
    pub async fn keeps_wal_from(&self, from: Lsn) -> Result<bool, SessionError> {
        let sql = "WITH size AS (SELECT setting::bigint AS bytes FROM pg_settings \
                                   WHERE name = 'wal_segment_size'), \
                        oldest AS (SELECT min(right(name, 16)) AS number \
                                     FROM pg_ls_dir('pg_wal', true, false) AS name \
                                    WHERE name ~ '^[0-9A-F]{24}$') \
                   SELECT number, bytes FROM size, oldest";
        let row = self.one("ask for the oldest WAL", sql, &[]).await?;
        let oldest: Option<String> = column(&row, 0, "oldest WAL segment")?;
        let bytes: i64 = column(&row, 1, "wal_segment_size")?;
        let bytes = u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or(SessionError::Answer("wal_segment_size"))?;
        Ok(oldest.is_some_and(|oldest| oldest <= segment::number(from, bytes)))
    }
}
