//! What of the log may be stored in the archive, and what may be fetched from it (docs/safety.md, "The
//! archive").
//!
//! What must hold: whatever is in the archive is of the group's history and of every later primary's log,
//! and a standby gives up its own copy only once the file is stored. Hence only the confirmed primary
//! stores, under a live right, and nothing that the sync set in force does not have. Not here: who calls
//! what (`keeper::archive`).

use super::view::Persisted;
use shared::goal::Goal;
use shared::history::{History, Lineage};
use shared::ids::{Epoch, NodeId, TimelineId};
use shared::lsn::Lsn;
use shared::report::{ArchiveView, Archived};
use shared::spec::Spec;

/// For how long files may wait before a person is told. An archive that fails says so at once; this is for
/// one that does not come to its end, and for standbys, which wait for their primary.
const LATE_MS: u64 = 5 * 60 * 1000;

/// A file of `pg_wal`, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalFile {
    /// A segment.
    Segment(Stretch),
    /// The last segment of a timeline, as far as that got.
    Partial(Stretch),
    /// What a backup has left.
    Backup(Stretch),
    /// Where a timeline comes from.
    History(TimelineId),
}

/// The part of the log that a segment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its timeline.
    pub timeline: TimelineId,
    /// Where it begins.
    pub start: Lsn,
    /// Where the next one begins.
    pub end: Lsn,
}

impl WalFile {
    /// What a name stands for, with segments of so many bytes (`XLogFromFileName` in PostgreSQL's
    /// `xlog_internal.h`); `None` for anything else.
    pub fn parse(name: &str, segment_size: u64) -> Option<Self> {
        if let Some(timeline) = name.strip_suffix(".history") {
            return Some(Self::History(TimelineId(hex(timeline, 8)?)));
        }
        let (digits, rest) = name.split_at_checked(24)?;
        let stretch = Stretch::parse(digits, segment_size)?;
        match rest {
            "" => Some(Self::Segment(stretch)),
            ".partial" => Some(Self::Partial(stretch)),
            _ => {
                let offset = rest.strip_prefix('.')?.strip_suffix(".backup")?;
                hex(offset, 8).map(|_| Self::Backup(stretch))
            }
        }
    }
}

impl Stretch {
    fn parse(digits: &str, segment_size: u64) -> Option<Self> {
        let timeline = TimelineId(hex(digits.get(..8)?, 8)?);
        let (high, low) = (hex(digits.get(8..16)?, 8)?, hex(digits.get(16..)?, 8)?);
        let in_segment = u64::from(low).checked_mul(segment_size)?;
        // The lower half counts segments of 4 GB.
        let start = (u64::from(high) << 32).checked_add(in_segment)?;
        u32::try_from(in_segment).ok().filter(|_| segment_size > 0)?;
        let end = Lsn(start.checked_add(segment_size)?);
        Some(Self { timeline, start: Lsn(start), end })
    }
}

fn hex(text: &str, digits: usize) -> Option<u32> {
    let sane = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    sane.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// What is known when PostgreSQL asks.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, as in a view")]
pub struct Scene<'a> {
    /// What this node has accepted.
    pub persisted: &'a Persisted,
    /// It serves as the primary, under a right that holds now (rule 12).
    pub serves: bool,
    /// The spec in force there.
    pub in_force: Option<&'a Spec>,
    /// Up to where its members have the log on disk.
    pub flushed: &'a [(NodeId, Lsn)],
    /// The history of the running primary.
    pub history: Option<&'a History>,
    /// What is known to be stored.
    pub archived: Archived,
    /// A rewind or a copy is under way.
    pub rebuilding: bool,
    /// The server is being stopped, or will be in a moment.
    pub stopping: bool,
    /// The file has nothing in it: a placeholder of rule 8.
    pub empty: bool,
}

/// What is to be done about a file that is ready to be archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// Store it.
    Store,
    /// Nothing: it is stored already, or does not belong into the archive. PostgreSQL may forget it.
    Forget(&'static str),
    /// Nothing yet: PostgreSQL keeps it, and asks again.
    Keep(&'static str),
    /// Nothing, and do not hold the server up that is being stopped. PostgreSQL keeps it.
    Leave,
}

/// What is to be done about a file that PostgreSQL would like to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Get {
    /// Fetch it.
    Fetch,
    /// The archive has none for this node.
    Absent(&'static str),
}

const BEYOND: &str = "it is not of the group's history";
const STORED: &str = "it is in the archive";
const PLACEHOLDER: &str = "it only keeps a timeline number from being used";

/// Whether a file may be stored.
pub fn may_push(scene: &Scene<'_>, file: WalFile) -> Push {
    if scene.stopping {
        return Push::Leave;
    }
    if scene.empty && matches!(file, WalFile::History(_)) {
        return Push::Forget(PLACEHOLDER);
    }
    if !is_confirmed_primary(scene.persisted) {
        return of_standby(scene, file);
    }
    if !scene.serves {
        return Push::Keep("this primary has no right to serve");
    }
    match file {
        WalFile::Segment(stretch) => match standing(scene, stretch.timeline, stretch.end) {
            Standing::Ours => store_if_held(scene, stretch.end),
            Standing::Before => older(scene, stretch.timeline, Some(stretch.end)),
            Standing::Beyond | Standing::Unknown => Push::Forget(BEYOND),
        },
        WalFile::Partial(stretch) => match end_of(scene, stretch.timeline) {
            Some(end) if stretch.start < end && end <= stretch.end => store_if_held(scene, end),
            Some(_) | None => Push::Forget(BEYOND),
        },
        WalFile::Backup(stretch) => match standing(scene, stretch.timeline, stretch.start) {
            Standing::Ours => Push::Store,
            Standing::Before | Standing::Beyond | Standing::Unknown => Push::Forget(BEYOND),
        },
        WalFile::History(timeline) => match standing(scene, timeline, Lsn(0)) {
            Standing::Ours => Push::Store,
            Standing::Before => older(scene, timeline, None),
            Standing::Beyond | Standing::Unknown => Push::Forget(BEYOND),
        },
    }
}

/// What is of a timeline that is older than the group. A server that has not answered lately has said nothing
/// against it.
fn older(scene: &Scene<'_>, timeline: TimelineId, end: Option<Lsn>) -> Push {
    let Some(history) = scene.history else {
        return Push::Keep("the server has not said what its history is");
    };
    let passed = history.ancestors.iter().find(|segment| segment.timeline == timeline);
    match (passed, end) {
        (Some(segment), Some(end)) if end > segment.end => Push::Forget(BEYOND),
        (Some(_), Some(end)) => store_if_held(scene, end),
        (Some(_), None) => Push::Store,
        (None, _) => Push::Forget(BEYOND),
    }
}

/// A standby stores nothing. What it has it keeps until its primary's keeper has said that it is stored:
/// should the primary die before, the next one, which may be this node, still has it.
fn of_standby(scene: &Scene<'_>, file: WalFile) -> Push {
    let lineage = &scene.persisted.assignment.lineage;
    let (timeline, end) = match file {
        WalFile::Segment(stretch) => (stretch.timeline, stretch.end),
        WalFile::History(timeline) => (timeline, Lsn(0)),
        // Made by a backup here, or by this node when it was the primary: the log is whole without them.
        WalFile::Partial(_) | WalFile::Backup(_) => return Push::Forget(BEYOND),
    };
    let stored = match file {
        WalFile::History(_) => is_history_stored(lineage, scene.archived, timeline),
        WalFile::Segment(_) | WalFile::Partial(_) | WalFile::Backup(_) => {
            is_stored(lineage, scene.archived, timeline, end)
        }
    };
    if stored {
        return Push::Forget(STORED);
    }
    match standing(scene, timeline, end) {
        Standing::Beyond => Push::Forget(BEYOND),
        Standing::Ours | Standing::Before | Standing::Unknown => {
            Push::Keep("the primary has not archived it yet")
        }
    }
}

/// Whether a file may be fetched. A sealed node gets none, but for what a rewind needs: what it has is
/// what it is a witness of.
pub fn may_get(scene: &Scene<'_>, file: WalFile) -> Get {
    // Not by `sealed`, which a follower keeps until there is another ticket.
    let goal = &scene.persisted.assignment.goal;
    if matches!(goal, Goal::Seal { .. } | Goal::FastForward { .. }) && !scene.rebuilding {
        return Get::Absent("this node is sealed");
    }
    let (timeline, end) = match file {
        WalFile::Segment(stretch) => (stretch.timeline, stretch.end),
        WalFile::History(timeline) => (timeline, Lsn(0)),
        WalFile::Partial(_) | WalFile::Backup(_) => {
            return Get::Absent("a standby needs no such file");
        }
    };
    let lineage = &scene.persisted.assignment.lineage;
    let Some(epoch) = newest_confirmed(lineage, scene.persisted.assignment.epoch) else {
        return Get::Absent("the group has no primary yet");
    };
    match standing_in(lineage, epoch, timeline, end) {
        Standing::Ours | Standing::Before => Get::Fetch,
        Standing::Beyond | Standing::Unknown => Get::Absent(BEYOND),
    }
}

/// Whether a fresh copy needs this file, which its primary keeps because it is not stored yet: the copy may have
/// to store it, should the primary die before. From `redo` on, where its own log begins, it has everything, or
/// will stream it. `history`: the primary's.
pub fn is_wanting(file: WalFile, history: &History, redo: Lsn) -> bool {
    match file {
        WalFile::Segment(it) => it.end <= redo && history.timeline_at(it.end) == it.timeline,
        WalFile::History(timeline) => {
            history.timeline == timeline
                || history.ancestors.iter().any(|passed| passed.timeline == timeline)
        }
        WalFile::Partial(_) | WalFile::Backup(_) => false,
    }
}

/// The primary of its epoch, promoted to it, not sealed, and known to the monitor as what it is.
pub fn is_confirmed_primary(persisted: &Persisted) -> bool {
    let assignment = &persisted.assignment;
    let promoted = persisted.promoted.as_ref().map(|promoted| promoted.epoch);
    matches!(assignment.goal, Goal::Primary { .. })
        && promoted == Some(assignment.epoch)
        && persisted.sealed.is_none()
        && is_confirmed(&assignment.lineage, assignment.epoch)
}

fn is_confirmed(lineage: &Lineage, epoch: Epoch) -> bool {
    lineage.entry(epoch).is_some_and(|entry| entry.start.is_some())
}

fn newest_confirmed(lineage: &Lineage, most: Epoch) -> Option<Epoch> {
    let epochs = lineage.0.iter().filter(|entry| entry.start.is_some()).map(|entry| entry.epoch);
    epochs.filter(|epoch| *epoch <= most).max()
}

/// Stored once `required` members of the spec in force have it: one of them takes part in every election,
/// so every later primary has it too, whether or not this one still is the primary when the engine is done.
fn store_if_held(scene: &Scene<'_>, end: Lsn) -> Push {
    let epoch = scene.persisted.assignment.epoch;
    let Some(spec) = scene.in_force.filter(|spec| spec.epoch == epoch) else {
        return Push::Keep("the sync set is being changed");
    };
    let holds = |id: &&NodeId| scene.flushed.iter().any(|(of, lsn)| of == *id && *lsn >= end);
    if spec.standbys.iter().filter(holds).count() >= spec.required {
        Push::Store
    } else {
        Push::Keep("too few standbys of the sync set have it on disk")
    }
}

/// How a place in the log stands to the group's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// In it.
    Ours,
    /// On a timeline older than the group.
    Before,
    /// On one of its timelines, behind where the history left it; or on one that nobody went on with.
    Beyond,
    /// On none that is known, or it is not known yet what the history is.
    Unknown,
}

fn standing(scene: &Scene<'_>, timeline: TimelineId, end: Lsn) -> Standing {
    let assignment = &scene.persisted.assignment;
    if !is_confirmed(&assignment.lineage, assignment.epoch) {
        return Standing::Unknown;
    }
    standing_in(&assignment.lineage, assignment.epoch, timeline, end)
}

/// In the history of this epoch, whose start is known.
fn standing_in(lineage: &Lineage, epoch: Epoch, timeline: TimelineId, end: Lsn) -> Standing {
    match way(lineage, epoch).into_iter().find(|(passed, _)| *passed == timeline) {
        Some((_, Some(limit))) if end > limit => Standing::Beyond,
        Some(_) => Standing::Ours,
        None if lineage.0.first().is_some_and(|first| timeline < first.timeline) => {
            Standing::Before
        }
        None if lineage.epoch_of(timeline).is_some() => Standing::Beyond,
        None => Standing::Unknown,
    }
}

/// The timelines that the history of an epoch goes through, newest first, and where it leaves each.
fn way(lineage: &Lineage, epoch: Epoch) -> Vec<(TimelineId, Option<Lsn>)> {
    let mut way = Vec::new();
    let (mut next, mut limit) = (lineage.entry(epoch), None::<Lsn>);
    while let Some(entry) = next {
        way.push((entry.timeline, limit));
        let Some(start) = entry.start else { break };
        limit = Some(limit.map_or(start.lsn, |limit| limit.min(start.lsn)));
        // Parents are older, so the walk ends.
        next = start.parent.filter(|parent| *parent < entry.epoch).and_then(|it| lineage.entry(it));
    }
    way
}

/// Where the group's history leaves a timeline.
fn end_of(scene: &Scene<'_>, timeline: TimelineId) -> Option<Lsn> {
    let assignment = &scene.persisted.assignment;
    let way = way(&assignment.lineage, assignment.epoch);
    way.into_iter().find(|(passed, _)| *passed == timeline)?.1
}

/// Whether a segment is stored: PostgreSQL archives in the order of the log.
fn is_stored(lineage: &Lineage, archived: Archived, timeline: TimelineId, end: Lsn) -> bool {
    let Some(last) = archived.segment else { return false };
    if timeline == last.timeline {
        return end <= last.end;
    }
    let Some(epoch) = lineage.epoch_of(last.timeline) else { return false };
    match standing_in(lineage, epoch, timeline, end) {
        Standing::Ours | Standing::Before => true,
        Standing::Beyond | Standing::Unknown => false,
    }
}

/// Whether nothing is missing between what is stored and this segment: it is the next one, or of what is
/// stored already.
pub fn is_after(lineage: &Lineage, archived: Archived, segment: Stretch) -> bool {
    let Some(last) = archived.segment else { return true };
    // The first segment of a timeline has the end of the one before it as well.
    segment.start <= last.end || is_stored(lineage, archived, segment.timeline, segment.end)
}

/// Whether a person should know that files wait.
pub fn is_late(view: &ArchiveView) -> bool {
    view.oldest_ms.is_some_and(|ms| ms >= LATE_MS)
}

fn is_history_stored(lineage: &Lineage, archived: Archived, timeline: TimelineId) -> bool {
    let Some(newest) = archived.history else { return false };
    let passes = |epoch| way(lineage, epoch).iter().any(|(passed, _)| *passed == timeline);
    timeline <= newest
        && lineage.epoch_of(newest).is_some_and(|epoch| {
            passes(epoch) || lineage.0.first().is_some_and(|first| timeline < first.timeline)
        })
}
