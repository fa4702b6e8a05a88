//! Timeline history files in `pg_wal`: which history is the server's own, and the placeholders by
//! which a promotion gets the number that was reserved for it (docs/safety.md, rule 8).
//!
//! A placeholder is an *empty* history file. PostgreSQL takes the first number for which it finds no
//! file (`findNewestTimeLine` in timeline.c), so all numbers in between are needed. A standby that is
//! started with an empty one as its newest fails, hence they go when they are not needed any more.
//!
//! A real history file may be there for a timeline that the server does not follow: a walreceiver
//! fetches the files of its upstream before the startup process decides that it cannot follow. So a
//! timeline beyond the control file's counts as the server's own only where WAL of it is there too
//! (a promotion creates the first segment before the history file, and a walreceiver creates one with
//! the first byte of a timeline).

use crate::control::ControlData;
use crate::datadir::{DataDir, FILE_MODE};
use crate::durable::{self, DurableError};
use crate::owner::Owner;
use shared::history::{History, InvalidHistory};
use shared::ids::TimelineId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why history files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TimelinesError {
    /// The directory or a file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// PostgreSQL could not read it either.
    #[error(transparent)]
    Invalid(#[from] InvalidHistory),
    /// A placeholder cannot be written or removed.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The number cannot be taken by a promotion.
    #[error("there is a history file of timeline {0} already, so a promotion could not take it")]
    Taken(TimelineId),
    /// More placeholders than could ever be meant.
    #[error("timeline {reserved} is more than {MOST_PLACEHOLDERS} after timeline {own}")]
    TooMany {
        /// The present timeline.
        own: TimelineId,
        /// The one that was reserved.
        reserved: TimelineId,
    },
}

/// A group reserves one number for each decision; a gap this wide is a mistake, not a history.
const MOST_PLACEHOLDERS: u32 = 100_000;

/// What `pg_wal` says about timelines.
#[derive(Debug, Default)]
struct WalFiles {
    /// Size of each history file.
    histories: BTreeMap<TimelineId, u64>,
    /// Timelines of which there is a WAL segment.
    segments: BTreeSet<TimelineId>,
}

/// The history of the server's own log: of the newest timeline that it has WAL of, see above.
pub fn own_history(dir: &DataDir, control: &ControlData) -> Result<History, TimelinesError> {
    let files = WalFiles::read(&dir.wal_dir())?;
    let known = control.min_recovery_timeline.map_or(control.timeline, |t| t.max(control.timeline));
    let newest = files
        .histories
        .iter()
        .filter(|(timeline, size)| **size > 0 && **timeline > known)
        .map(|(timeline, _)| *timeline)
        .rfind(|timeline| files.segments.contains(timeline))
        .unwrap_or(known);
    if files.histories.get(&newest).is_none_or(|size| *size == 0) {
        return Ok(History { ancestors: Vec::new(), timeline: newest });
    }
    let path = history_path(dir, newest);
    let content =
        fs::read_to_string(&path).map_err(|source| TimelinesError::Read { path, source })?;
    Ok(History::parse(newest, &content)?)
}

/// Creates empty history files for all numbers between `own` and `reserved`, where missing, durably;
/// returns how many. A promotion then takes `reserved`.
pub fn place_placeholders(
    dir: &DataDir,
    own: TimelineId,
    reserved: TimelineId,
    owner: &Owner,
) -> Result<usize, TimelinesError> {
    let files = WalFiles::read(&dir.wal_dir())?;
    if files.histories.contains_key(&reserved) {
        return Err(TimelinesError::Taken(reserved));
    }
    if reserved.0.saturating_sub(own.0) > MOST_PLACEHOLDERS {
        return Err(TimelinesError::TooMany { own, reserved });
    }
    let mut placed = 0;
    for number in own.0.saturating_add(1)..reserved.0 {
        let timeline = TimelineId(number);
        if !files.histories.contains_key(&timeline) {
            durable::write(&history_path(dir, timeline), b"", FILE_MODE, owner)?;
            placed += 1;
        }
    }
    Ok(placed)
}

/// Writes the history files that a standby needs which begins on timeline `own` and follows a server with
/// this history: a backup brings none. Numbers that the history does not go through get a placeholder,
/// without which PostgreSQL does not look for the numbers behind them.
pub fn write_histories(
    dir: &DataDir,
    own: TimelineId,
    (newest, content): (TimelineId, &str),
    owner: &Owner,
) -> Result<(), TimelinesError> {
    let history = History::parse(newest, content)?;
    if newest.0.saturating_sub(own.0) > MOST_PLACEHOLDERS {
        return Err(TimelinesError::TooMany { own, reserved: newest });
    }
    for number in own.0..=newest.0 {
        let timeline = TimelineId(number);
        let before = history.ancestors.iter().position(|segment| segment.timeline == timeline);
        let text = match before {
            _ if timeline == newest => content.to_owned(),
            Some(ancestors) => lines_of(content, ancestors),
            None => String::new(),
        };
        // The first timeline has none.
        if !(text.is_empty() && timeline == own) {
            durable::write(&history_path(dir, timeline), text.as_bytes(), FILE_MODE, owner)?;
        }
    }
    Ok(())
}

/// The lines of a history file about its first timelines: the history of the next one.
fn lines_of(content: &str, timelines: usize) -> String {
    let is_line = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with('#');
    let lines = content.lines().filter(is_line).take(timelines);
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// Removes the empty history files above the newest real one and above the control file's timeline;
/// returns how many.
pub fn remove_trailing_placeholders(
    dir: &DataDir,
    control: &ControlData,
) -> Result<usize, TimelinesError> {
    let files = WalFiles::read(&dir.wal_dir())?;
    let real = files.histories.iter().filter(|(_, size)| **size > 0).map(|(timeline, _)| *timeline);
    let newest = real.max().unwrap_or_default().max(control.timeline);
    let mut removed = 0;
    for timeline in files.histories.keys().filter(|timeline| **timeline > newest) {
        durable::remove(&history_path(dir, *timeline))?;
        removed += 1;
    }
    Ok(removed)
}

impl WalFiles {
    fn read(wal_dir: &Path) -> Result<Self, TimelinesError> {
        let failed = |source| TimelinesError::Read { path: wal_dir.to_owned(), source };
        let mut files = Self::default();
        for entry in fs::read_dir(wal_dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(timeline) = name.strip_suffix(".history").and_then(timeline_number) {
                match entry.metadata() {
                    Ok(meta) => {
                        files.histories.insert(timeline, meta.len());
                    }
                    // Removed by a running server between the two looks.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                }
            } else if let Some(timeline) = segment_timeline(name) {
                files.segments.insert(timeline);
            }
        }
        Ok(files)
    }
}

fn history_path(dir: &DataDir, timeline: TimelineId) -> PathBuf {
    dir.wal_dir().join(format!("{:08X}.history", timeline.0))
}

/// Eight upper-case hexadecimal digits (`IsTLHistoryFileName` in PostgreSQL's `xlog_internal.h`).
fn timeline_number(digits: &str) -> Option<TimelineId> {
    let fine = digits.len() == 8 && is_hex(digits);
    fine.then(|| u32::from_str_radix(digits, 16).ok().map(TimelineId)).flatten()
}

/// 24 digits, the first eight of which are the timeline (`XLogFileName`).
fn segment_timeline(name: &str) -> Option<TimelineId> {
    let fine = name.len() == 24 && is_hex(name);
    fine.then(|| name.get(..8).and_then(timeline_number)).flatten()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ClusterState;
    use shared::ids::SystemIdentifier;
    use shared::lsn::Lsn;

    fn control(timeline: u32) -> ControlData {
        ControlData {
            system_identifier: SystemIdentifier(1),
            state: ClusterState::InArchiveRecovery,
            checkpoint: Lsn(0),
            redo: Lsn(0),
            timeline: TimelineId(timeline),
            min_recovery_end: None,
            min_recovery_timeline: None,
            backup_end_required: false,
            checksums: true,
            wal_log_hints: false,
            wal_segment_size: 16 << 20,
            wal_block_size: 8192,
            required: [].into(),
        }
    }

    struct Wal(DataDir, #[expect(dead_code, reason = "removed when dropped")] tempfile::TempDir);

    impl Wal {
        fn new(histories: &[(u32, &str)], segments: &[u32]) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let dir = DataDir::new(temp.path());
            fs::create_dir(dir.wal_dir()).unwrap();
            for (number, content) in histories {
                fs::write(history_path(&dir, TimelineId(*number)), content).unwrap();
            }
            for number in segments {
                fs::write(dir.wal_dir().join(format!("{number:08X}0000000000000001")), "").unwrap();
            }
            Self(dir, temp)
        }

        fn own(&self, timeline: u32) -> u32 {
            own_history(&self.0, &control(timeline)).unwrap().timeline.0
        }
    }

    #[test]
    fn a_backup_gets_the_histories_that_lie_before_it() {
        let wal = Wal::new(&[], &[]);
        let dir = &wal.0;
        let content = "1\t0/64\tx\n\n3\t0/C8\tx\n";
        write_histories(dir, TimelineId(1), (TimelineId(5), content), &Owner::current()).unwrap();
        let read = |number: u32| fs::read_to_string(history_path(dir, TimelineId(number))).ok();
        assert_eq!(read(1), None);
        assert_eq!(read(2).as_deref(), Some(""));
        assert_eq!(read(3).as_deref(), Some("1\t0/64\tx\n"));
        assert_eq!(read(4).as_deref(), Some(""));
        assert_eq!(read(5).as_deref(), Some(content));
    }

    #[test]
    fn the_own_history() {
        assert_eq!(Wal::new(&[], &[1]).own(1), 1);
        let promoted = Wal::new(&[(2, ""), (3, "1\t0/64\tx\n")], &[1, 3]);
        assert_eq!(promoted.own(1), 3, "the control file lags behind a promotion");
        let history = own_history(&promoted.0, &control(1)).unwrap();
        assert_eq!(history.start(), Lsn(0x64));
        let fetched = Wal::new(&[(3, "1\t0/64\tx\n")], &[1]);
        assert_eq!(fetched.own(1), 1, "a file that was fetched and is not followed");
        assert_eq!(Wal::new(&[(2, "1\t0/64\tx\n"), (3, "")], &[1, 2]).own(2), 2);
        let standby = ControlData { min_recovery_timeline: Some(TimelineId(4)), ..control(2) };
        assert_eq!(own_history(&promoted.0, &standby).unwrap().timeline, TimelineId(4));
    }

    #[test]
    fn all_numbers_in_between_are_placed_and_removed() {
        let owner = Owner::current();
        let wal = Wal::new(&[(2, "1\t0/64\tx\n")], &[2]);
        let place =
            |reserved| place_placeholders(&wal.0, TimelineId(2), TimelineId(reserved), &owner);
        assert_eq!(place(6).unwrap(), 3);
        assert_eq!(place(6).unwrap(), 0);
        assert!(matches!(place(4), Err(TimelinesError::Taken(TimelineId(4)))));
        assert_eq!(place(7).unwrap(), 1);
        assert!(matches!(place(u32::MAX), Err(TimelinesError::TooMany { .. })));
        assert_eq!(remove_trailing_placeholders(&wal.0, &control(4)).unwrap(), 2);
        assert_eq!(remove_trailing_placeholders(&wal.0, &control(2)).unwrap(), 2);
        assert!(history_path(&wal.0, TimelineId(2)).exists());
    }

    #[test]
    fn an_empty_file_below_a_real_one_stays() {
        let wal = Wal::new(&[(2, ""), (3, "1\t0/64\tx\n")], &[3]);
        assert_eq!(remove_trailing_placeholders(&wal.0, &control(1)).unwrap(), 0);
    }
}
