//! How much of its log a server still has.

use super::{Session, SessionError, column};
use crate::segment;
use shared::lsn::Lsn;
use tokio_postgres::Row;

/// A file that waits to be archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unarchived {
    /// Its name.
    pub file: String,
    /// In bytes; 0 where it has just been removed.
    pub bytes: u64,
}

impl Session {
    /// What the server keeps because it is not archived, in the order in which it will be. Needs `EXECUTE` on
    /// `pg_ls_dir` and `pg_stat_file`.
    pub async fn unarchived(&self) -> Result<Vec<Unarchived>, SessionError> {
        let sql = "SELECT file, coalesce((pg_stat_file('pg_wal/' || file, true)).size, 0) \
                     FROM (SELECT left(name, -6) AS file \
                             FROM pg_ls_dir('pg_wal/archive_status', true, false) AS name \
                            WHERE name LIKE '%.ready') AS waiting ORDER BY file";
        let rows = self.rows("ask what waits to be archived", sql, &[]).await?;
        let read = |row: &Row| {
            let bytes: i64 = column(row, 1, "pg_stat_file")?;
            let bytes = u64::try_from(bytes).unwrap_or_default();
            Ok(Unarchived { file: column(row, 0, "pg_ls_dir")?, bytes })
        };
        rows.iter().map(read).collect()
    }

    /// So many bytes of a file of `pg_wal`, fewer at its end; `None` where there is no such file any more. Needs
    /// `EXECUTE` on `pg_read_binary_file`.
    pub async fn wal_bytes(
        &self,
        file: &str,
        from: u64,
        most: u64,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        let number = |bytes| i64::try_from(bytes).map_err(|_| SessionError::Answer("a size"));
        let (from, most) = (number(from)?, number(most)?);
        let sql = "SELECT pg_read_binary_file('pg_wal/' || $1::text, $2, $3, true)";
        let row = self.one("read a file of pg_wal", sql, &[&file, &from, &most]).await?;
        column(&row, 0, "pg_read_binary_file")
    }

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
