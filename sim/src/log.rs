//! An abstract write-ahead log: numbered records on timelines, with the history that PostgreSQL's
//! `.history` files would tell. A record is a hundred bytes long.

use shared::history::{History, Segment};
use shared::ids::{NodeId, TimelineId};
use shared::lsn::Lsn;

const RECORD_BYTES: u64 = 100;

/// A record, unique in its world: equal values mean equal contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordId {
    /// A client's commit.
    Commit(u64),
    /// What a server writes for itself: at a start, a promotion, a shutdown, for a barrier. Told apart
    /// by writer and place, since nobody writes twice at one place of a timeline.
    Own {
        /// The writer.
        node: NodeId,
        /// The timeline.
        timeline: TimelineId,
        /// How many records are before it.
        index: usize,
    },
}

impl RecordId {
    /// Whether a client waits for it.
    pub fn is_commit(self) -> bool {
        matches!(self, Self::Commit(_))
    }
}

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
    /// The log of a cluster that this node creates.
    pub fn new(node: NodeId) -> Self {
        let mut log = Self { forks: vec![(TimelineId(1), 0)], records: Vec::new() };
        log.push_own(node);
        log
    }

    /// Its records, oldest first.
    pub fn records(&self) -> &[RecordId] {
        &self.records
    }

    /// Its records up to a location.
    pub fn records_to(&self, end: Lsn) -> impl Iterator<Item = RecordId> {
        let upto = move |(index, _): &(usize, &RecordId)| location(index + 1) <= end;
        self.records.iter().enumerate().take_while(upto).map(|(_, record)| *record)
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

    /// Writes a record that no client waits for.
    pub fn push_own(&mut self, node: NodeId) {
        let (timeline, index) = (self.timeline(), self.records.len());
        self.push(RecordId::Own { node, timeline, index });
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

    /// Its first records, as a backup of an earlier moment has them.
    #[must_use]
    pub fn up_to(&self, records: usize) -> Self {
        let forks = self.forks.iter().filter(|fork| fork.1 < records || fork.1 == 0).copied();
        let records = self.records.iter().take(records).copied();
        Self { forks: forks.collect(), records: records.collect() }
    }

    /// Whether its last record is a client's.
    pub fn ends_with_commit(&self) -> bool {
        self.records.last().is_some_and(|record| record.is_commit())
    }

    /// Whether a record is in it.
    pub fn holds(&self, record: RecordId) -> bool {
        self.records.contains(&record)
    }
}
