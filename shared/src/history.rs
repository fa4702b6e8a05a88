//! Which epoch owns which timeline, and whether one log is a prefix of another's history.
//!
//! PostgreSQL numbers timelines; we number epochs. The lineage ties each epoch to the timeline number
//! that was reserved for it, and, once its primary has reported, to where it really begins.

use crate::ids::{Epoch, NodeId, TimelineId};
use crate::lsn::{Lsn, Position};
use serde::{Deserialize, Serialize};

/// One timeline of a server's own history, from its `.history` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Segment {
    /// Its number.
    pub timeline: TimelineId,
    /// Where it was left for the next one.
    pub end: Lsn,
}

/// A server's own history: the timelines it went through, oldest first, and the one it is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct History {
    /// The ancestors, oldest first.
    pub ancestors: Vec<Segment>,
    /// The present timeline.
    pub timeline: TimelineId,
}

/// A line of a history file that PostgreSQL would not read either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the history file of timeline {timeline} cannot be read: '{text}'")]
pub struct InvalidHistory {
    /// Whose file it is.
    pub timeline: TimelineId,
    /// The line, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl History {
    /// Reads the content of the history file of `timeline` (`readTimeLineHistory` in PostgreSQL's
    /// timeline.c); empty for timeline 1, and for the placeholders of rule 8.
    pub fn parse(timeline: TimelineId, content: &str) -> Result<Self, InvalidHistory> {
        let mut ancestors = Vec::new();
        for (index, text) in content.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let mut words = text.split_whitespace();
            let segment = words
                .next()
                .and_then(|number| number.parse().ok())
                .zip(words.next().and_then(|location| location.parse().ok()));
            let Some((number, end)) = segment else {
                return Err(InvalidHistory { timeline, line: index + 1, text: text.to_owned() });
            };
            ancestors.push(Segment { timeline: TimelineId(number), end });
        }
        Ok(Self { ancestors, timeline })
    }

    /// The timeline that the last record before `lsn` belongs to: a location before the start of a
    /// timeline belongs to its parent.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.ancestors
            .iter()
            .find(|segment| lsn <= segment.end)
            .map_or(self.timeline, |segment| segment.timeline)
    }

    /// Where the present timeline begins; 0/0 for one without ancestors.
    pub fn start(&self) -> Lsn {
        self.ancestors.last().map_or(Lsn(0), |segment| segment.end)
    }
}

/// An epoch of the group and its timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LineageEntry {
    /// The epoch.
    pub epoch: Epoch,
    /// The timeline number reserved for it (rule 8).
    pub timeline: TimelineId,
    /// The epoch it continues and where it begins, as its primary reported after the promotion;
    /// `None` before that, and for ever if it never was promoted.
    pub start: Option<Start>,
    /// The timeline was begun by hand on this node, and an operator has accepted it. Only what this node
    /// has on it is of the epoch: another one may have got the same number in the same way, and no file
    /// tells the two apart. Assignments to this node say `None`, since its own log needs no proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<NodeId>,
}

impl LineageEntry {
    /// An epoch that has been decided, on the timeline reserved for it.
    pub fn reserved(epoch: Epoch, timeline: TimelineId) -> Self {
        Self { epoch, timeline, start: None, accepted: None }
    }
}

/// Where an epoch continues another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Start {
    /// The epoch that it continues; `None` for the first.
    pub parent: Option<Epoch>,
    /// The end of the parent's log that it continues.
    pub lsn: Lsn,
}

/// All epochs of a group, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(pub Vec<LineageEntry>);

impl Lineage {
    /// The entry of an epoch.
    pub fn entry(&self, epoch: Epoch) -> Option<&LineageEntry> {
        self.0.iter().find(|entry| entry.epoch == epoch)
    }

    /// The epoch that a timeline number was reserved for; `None` for a timeline that is not ours,
    /// such as one begun by hand with `pg_promote`.
    pub fn epoch_of(&self, timeline: TimelineId) -> Option<Epoch> {
        self.0.iter().find(|entry| entry.timeline == timeline).map(|entry| entry.epoch)
    }

    /// The position of a log that ends at `lsn` on this history; `None` where the last record is on
    /// a timeline that no epoch owns.
    pub fn position(&self, history: &History, lsn: Lsn) -> Option<Position> {
        if self.has_strayed(history, lsn) || self.is_doubtful(history, lsn) {
            return None;
        }
        let epoch = self.epoch_of(history.timeline_at(lsn))?;
        // The number alone is not identity: where both sides know the start, they must agree.
        let known = self.entry(epoch)?.start.map(|start| start.lsn);
        let own =
            history.ancestors.iter().position(|s| Some(s.timeline) == self.timeline_of(epoch));
        let own_start = match own {
            Some(0) => None,
            Some(index) => history.ancestors.get(index - 1).map(|segment| segment.end),
            None => history.ancestors.last().map(|segment| segment.end),
        };
        match (known, own_start) {
            (Some(known), Some(own)) if known != own => None,
            _ => Some(Position { epoch, lsn }),
        }
    }

    /// Whether the log up to `lsn` has gone through a timeline that no epoch owns, since the group
    /// began: somebody promoted it by hand, and whatever number it got later, it is none of ours.
    pub fn has_strayed(&self, history: &History, lsn: Lsn) -> bool {
        let first = self.0.first().map(|entry| entry.timeline);
        history
            .ancestors
            .iter()
            .filter(|segment| segment.end < lsn && Some(segment.timeline) > first)
            .any(|segment| self.epoch_of(segment.timeline).is_none())
    }

    /// Whether the log up to `lsn` may be of another timeline than the one that was accepted under the
    /// same number: it ends there, or goes on from there on one that no epoch owns. A timeline of a later
    /// epoch behind it is proof enough: its number was given once (rule 8).
    pub fn is_doubtful(&self, history: &History, lsn: Lsn) -> bool {
        let is_accepted = |timeline| {
            self.0.iter().any(|entry| entry.timeline == timeline && entry.accepted.is_some())
        };
        let last = history.timeline_at(lsn);
        let mut passed = history.ancestors.iter().filter(|segment| segment.end < lsn);
        is_accepted(last)
            || self.epoch_of(last).is_none() && passed.any(|segment| is_accepted(segment.timeline))
    }

    /// The timelines of a log that no epoch owns, oldest first, each with the one before it and where it
    /// begins; `None` if they do not continue the group's history. Whether the numbers of those before
    /// are really the group's timelines shows in where they begin.
    pub fn strays(&self, history: &History) -> Option<Vec<(Segment, TimelineId)>> {
        let timelines = history.ancestors.iter().skip(1).map(|segment| segment.timeline);
        let mut strays = Vec::new();
        for (before, timeline) in history.ancestors.iter().zip(timelines.chain([history.timeline]))
        {
            match self.0.iter().find(|entry| entry.timeline == timeline) {
                None if Some(timeline) > self.0.first().map(|entry| entry.timeline) => {
                    strays.push((*before, timeline));
                }
                None => {}
                // Ours behind one that is not, or one that begins elsewhere: a number that was taken twice.
                Some(entry) => {
                    let elsewhere =
                        entry.start.is_some_and(|s| s.parent.is_some() && s.lsn != before.end);
                    if !strays.is_empty() || elsewhere {
                        return None;
                    }
                }
            }
        }
        let (first, _) = strays.first()?;
        self.epoch_of(first.timeline).map(|_| strays)
    }

    /// Writes down where epochs began that a primary has in its history and whose start nobody
    /// reported: their promotions were interrupted.
    pub fn learn(&mut self, ancestors: &[Segment]) {
        for pair in ancestors.windows(2) {
            let [before, segment] = pair else { continue };
            let parent = self.epoch_of(before.timeline);
            let unknown = |entry: &&mut LineageEntry| {
                entry.timeline == segment.timeline && entry.start.is_none()
            };
            if let Some(entry) = self.0.iter_mut().find(unknown) {
                entry.start = Some(Start { parent, lsn: before.end });
            }
        }
    }

    fn timeline_of(&self, epoch: Epoch) -> Option<TimelineId> {
        self.entry(epoch).map(|entry| entry.timeline)
    }

    /// Whether a log that ends at `position` is a prefix of the history of `epoch`, up to the latter's
    /// own records: the history goes through the position's epoch, and leaves it no earlier.
    /// An epoch whose start is not known yet is a prefix of nothing and has none but itself.
    pub fn is_prefix(&self, position: Position, epoch: Epoch) -> bool {
        let mut current = epoch;
        // Parents are older, so the walk ends.
        while current > position.epoch {
            let Some(start) = self.entry(current).and_then(|entry| entry.start) else {
                return false;
            };
            match start.parent {
                Some(parent) if parent == position.epoch => return position.lsn <= start.lsn,
                Some(parent) if parent < current => current = parent,
                _ => return false,
            }
        }
        current == position.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(epoch: u64, timeline: u32, start: Option<(u64, u64)>) -> LineageEntry {
        let start = start.map(|(parent, lsn)| Start { parent: Some(Epoch(parent)), lsn: Lsn(lsn) });
        LineageEntry { start, ..LineageEntry::reserved(Epoch(epoch), TimelineId(timeline)) }
    }

    fn at(epoch: u64, lsn: u64) -> Position {
        Position { epoch: Epoch(epoch), lsn: Lsn(lsn) }
    }

    /// Epoch 2 was never promoted; 3 continues 1 at 100, 4 continues 3 at 200.
    fn lineage() -> Lineage {
        let first =
            LineageEntry { start: Some(Start { parent: None, lsn: Lsn(0) }), ..entry(1, 1, None) };
        Lineage(vec![
            first,
            entry(2, 3, None),
            entry(3, 5, Some((1, 100))),
            entry(4, 7, Some((3, 200))),
        ])
    }

    #[test]
    fn history_files() {
        let history = History::parse(
            TimelineId(5),
            "1\t0/64\tno recovery target specified\n\n# x\n3\t0/C8\treason\n",
        )
        .unwrap();
        assert_eq!(history.timeline_at(Lsn(100)), TimelineId(1));
        assert_eq!(history.timeline_at(Lsn(101)), TimelineId(3));
        assert_eq!(history.timeline_at(Lsn(201)), TimelineId(5));
        assert_eq!(history.start(), Lsn(200));
        assert_eq!(History::parse(TimelineId(2), "").unwrap().timeline_at(Lsn(1)), TimelineId(2));
        assert!(History::parse(TimelineId(2), "one 0/0").is_err());
    }

    #[test]
    fn positions_belong_to_the_segment_that_contains_them() {
        let history = History::parse(TimelineId(5), "1\t0/64\tx\n").unwrap();
        assert_eq!(lineage().position(&history, Lsn(100)), Some(at(1, 100)));
        assert_eq!(lineage().position(&history, Lsn(101)), Some(at(3, 101)));
        // A timeline of the right number that begins elsewhere is not ours.
        let forked = History::parse(TimelineId(5), "1\t0/50\tx\n").unwrap();
        assert_eq!(lineage().position(&forked, Lsn(101)), None);
        // Nor is one that no epoch owns.
        let foreign = History::parse(TimelineId(4), "1\t0/50\tx\n").unwrap();
        assert_eq!(lineage().position(&foreign, Lsn(101)), None);
        assert_eq!(lineage().position(&foreign, Lsn(70)), Some(at(1, 70)));
    }

    /// Timeline 6 was begun by hand at 150 of timeline 5, and accepted; 8 continues it at 170.
    fn with_an_accepted_one() -> Lineage {
        let mut lineage = lineage();
        lineage.0.truncate(3);
        let accepted = Some(NodeId(2));
        lineage.0.push(LineageEntry { accepted, ..entry(4, 6, Some((3, 150))) });
        lineage.0.push(entry(5, 8, Some((4, 170))));
        lineage
    }

    #[test]
    fn a_log_on_an_accepted_timeline_is_doubtful_until_a_later_epoch() {
        let lineage = with_an_accepted_one();
        let on = |text: &str, timeline| History::parse(TimelineId(timeline), text).unwrap();
        let to_six = on("1\t0/64\tx\n5\t0/96\tx\n", 6);
        assert!(!lineage.is_doubtful(&to_six, Lsn(0x96)), "before the fork");
        assert!(lineage.is_doubtful(&to_six, Lsn(0x97)));
        assert_eq!(lineage.position(&to_six, Lsn(0x97)), None);
        let to_eight = on("1\t0/64\tx\n5\t0/96\tx\n6\t0/AA\tx\n", 8);
        assert!(lineage.is_doubtful(&to_eight, Lsn(0xA0)));
        assert!(!lineage.is_doubtful(&to_eight, Lsn(0xAB)), "its own promotion, or streamed");
        assert_eq!(lineage.position(&to_eight, Lsn(0xAB)), Some(at(5, 0xAB)));
        let to_seven = on("1\t0/64\tx\n5\t0/96\tx\n6\t0/AA\tx\n", 7);
        assert!(lineage.is_doubtful(&to_seven, Lsn(0xAB)), "promoted by hand once more");
        // The node itself is not told.
        let mut own = lineage;
        own.0[3].accepted = None;
        assert_eq!(own.position(&to_six, Lsn(0x97)), Some(at(4, 0x97)));
    }

    #[test]
    fn strays_leave_the_history_and_do_not_come_back() {
        let lineage = lineage();
        let on = |text: &str, timeline| History::parse(TimelineId(timeline), text).unwrap();
        let strays = |history: &History| {
            let strays = lineage.strays(history)?;
            Some(strays.iter().map(|(s, t)| (s.timeline.0, s.end.0, t.0)).collect::<Vec<_>>())
        };
        assert_eq!(strays(&on("1\t0/64\tx\n", 5)), None, "ours");
        assert_eq!(strays(&on("1\t0/64\tx\n5\t0/96\tx\n", 6)), Some(vec![(5, 0x96, 6)]));
        let twice = on("1\t0/64\tx\n5\t0/96\tx\n6\t0/A0\tx\n", 8);
        assert_eq!(strays(&twice), Some(vec![(5, 0x96, 6), (6, 0xA0, 8)]));
        // The number of ours, reached by hand, or begun elsewhere.
        assert_eq!(strays(&on("1\t0/64\tx\n5\t0/96\tx\n6\t0/A0\tx\n", 7)), None);
        assert_eq!(strays(&on("1\t0/50\tx\n5\t0/96\tx\n", 6)), None);
        // Nothing says where it comes from.
        assert_eq!(strays(&on("", 9)), None);
    }

    #[test]
    fn prefixes_follow_ancestry_not_numbers() {
        let lineage = lineage();
        assert!(lineage.is_prefix(at(1, 100), Epoch(4)));
        assert!(!lineage.is_prefix(at(1, 101), Epoch(4)), "the tail of the old primary");
        assert!(lineage.is_prefix(at(3, 200), Epoch(4)));
        assert!(!lineage.is_prefix(at(2, 50), Epoch(4)), "never promoted, not an ancestor");
        assert!(lineage.is_prefix(at(4, 900), Epoch(4)));
        assert!(!lineage.is_prefix(at(4, 1), Epoch(3)), "newer than its upstream");
        assert!(!lineage.is_prefix(at(1, 1), Epoch(2)), "a start that nobody reported");
    }
}
