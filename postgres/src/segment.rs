//! The names of WAL segments (`XLogFileName` in PostgreSQL's `xlog_internal.h`).

use shared::ids::TimelineId;
use shared::lsn::Lsn;

/// The file of the segment that a position is in, with segments of so many bytes.
pub(crate) fn name(timeline: TimelineId, lsn: Lsn, segment_bytes: u64) -> String {
    format!("{:08X}{}", timeline.0, number(lsn, segment_bytes))
}

/// The part of its name after the timeline.
pub(crate) fn number(lsn: Lsn, segment_bytes: u64) -> String {
    let number = lsn.0 / segment_bytes;
    let in_each = (1_u64 << 32) / segment_bytes;
    format!("{:08X}{:08X}", number / in_each, number % in_each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_numbered_as_postgres_does() {
        let number = |text: &str| number(text.parse().unwrap(), 16 << 20);
        assert_eq!(number("0/3047110"), "0000000000000003");
        assert_eq!(number("1/0"), "0000000100000000");
        assert_eq!(number("A/FF000000"), "0000000A000000FF");
        assert_eq!(super::number(Lsn(0x1_8000_0000), 1 << 30), "0000000100000002");
        assert_eq!(name(TimelineId(26), Lsn(1 << 24), 16 << 20), "0000001A0000000000000001");
    }
}
