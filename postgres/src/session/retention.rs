//! How much of its log a server still has.

use super::{Session, SessionError, column};
use shared::lsn::Lsn;

impl Session {
    /// Whether the server may still have the WAL from `from` on: its oldest segment is not later than
    /// the one that `from` is in. Needs `EXECUTE` on `pg_ls_dir`, and works during recovery, unlike
    /// `pg_walfile_name`. The name of a segment ends with its number in two parts (`XLogFileName`
    /// in `xlog_internal.h`), whatever the timeline.
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
        Ok(oldest.is_some_and(|oldest| oldest <= segment_number(from, bytes)))
    }
}

/// The part of a segment's name after the timeline.
fn segment_number(lsn: Lsn, segment_bytes: u64) -> String {
    let number = lsn.0 / segment_bytes;
    let in_each = (1_u64 << 32) / segment_bytes;
    format!("{:08X}{:08X}", number / in_each, number % in_each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_numbered_as_postgres_does() {
        let number = |text: &str| segment_number(text.parse().unwrap(), 16 << 20);
        assert_eq!(number("0/3047110"), "0000000000000003");
        assert_eq!(number("1/0"), "0000000100000000");
        assert_eq!(number("A/FF000000"), "0000000A000000FF");
        assert_eq!(segment_number(Lsn(0x1_8000_0000), 1 << 30), "0000000100000002");
    }
}
