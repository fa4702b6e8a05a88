//! An abstract write-ahead log: numbered records on timelines, with the history that PostgreSQL's
//! `.history` files would tell. A record is a hundred bytes long.

use shared::history::{History, Segment};
use shared::ids::TimelineId;
use shared::lsn::Lsn;

const RECORD_BYTES: u64 = 100;

/// A record, unique in its world: equal numbers mean equal contents.
pub type RecordId = u64;

/// A log on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    /// The timelines gone through, with the number of records before each.
    forks: Vec<(TimelineId, usize)>,
    records: Vec<RecordId>,
}

/// The location after so many records.
pub fn location(records: usize) -> Lsn {
    Lsn(u64::try_from(records).unwrap_or(u64::MAX).saturating_mul(RECORD_BYTES))
}

impl Log {
    /// The log of a new cluster.
    pub fn new(first: RecordId) -> Self {
        Self { forks: vec![(TimelineId(1), 0)], records: vec![first] }
    }

    /// Its records, oldest first.
    pub fn records(&self) -> &[RecordId] {
        &self.records
    }

    /// Where it ends.
    pub fn end(&self) -> Lsn {
        location(self.records.len())
    }

    /// The timeline that is written to.
    pub fn timeline(&self) -> TimelineId {
        self.forks.last().map_or(TimelineId(1), |fork| fork.0)
    }

    /// What its history file says.
    pub fn history(&self) -> History {
        let ancestors = self
            .forks
            .windows(2)
            .filter_map(|pair| {
                let [before, after] = pair else { return None };
                Some(Segment { timeline: before.0, end: location(after.1) })
            })
            .collect();
        History { ancestors, timeline: self.timeline() }
    }

    /// Writes a record.
    pub fn push(&mut self, record: RecordId) {
        self.records.push(record);
    }

    /// Goes on with a new timeline.
    pub fn fork(&mut self, timeline: TimelineId) {
        self.forks.push((timeline, self.records.len()));
    }

    /// Whether PostgreSQL could stream from `upstream` to this log: the upstream's history goes
    /// through this one's timeline, and leaves it no earlier.
    pub fn can_follow(&self, upstream: &Self) -> bool {
        upstream.forks.starts_with(&self.forks) && upstream.records.starts_with(&self.records)
    }

    /// Takes the next record from `upstream`; `false` where there is none.
    pub fn take_from(&mut self, upstream: &Self) -> bool {
        let have = self.records.len();
        let Some(record) = upstream.records.get(have) else { return false };
        self.records.push(*record);
        self.forks = upstream.forks.iter().filter(|fork| fork.1 <= have).copied().collect();
        true
    }

    /// Whether a record is in it.
    pub fn holds(&self, record: RecordId) -> bool {
        self.records.contains(&record)
    }
}
