//! What comes back is looked at before it is put in place of anything: it has to be this group's cluster, of
//! this version, at a place in its log that the group's history goes through. And what a tool may have left
//! in it goes.
//!
//! Not here: whether its whole log is a prefix of the primary's. That is proved of every log that was not
//! copied from the primary itself, once its end is established (rule 10).

use super::StepError;
use postgres::control::ControlData;
use postgres::datadir::{Contents, DataDir};
use postgres::instance::Instance;
use postgres::owner::Owner;
use postgres::session::Session;
use postgres::session::primary::Tablespace;
use postgres::{durable, storage, timelines};
use shared::goal::Assignment;
use shared::history::{History, Lineage};
use shared::ids::{Epoch, SystemIdentifier, TimelineId};
use shared::lsn::Position;
use std::path::Path;
use std::{fs, io};

/// What a copy has to be.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Whose.
    system_identifier: Option<SystemIdentifier>,
    /// The major version of the programs.
    major: u32,
    /// The group's history, up to this epoch.
    lineage: Lineage,
    epoch: Epoch,
    /// The primary's timeline, and its history file.
    timeline: TimelineId,
    history: String,
}

/// Files that are of the server that was copied, or of a recovery that is none of ours.
const LEFTOVERS: [&str; 4] =
    ["postmaster.pid", "postmaster.opts", "recovery.signal", postgres::config::FILE];

/// Settings of `postgresql.auto.conf` that tools write there, or that an operator has for a recovery by hand:
/// they would win over the managed file.
const OF_RECOVERY: [&str; 6] = [
    "primary_conninfo",
    "primary_slot_name",
    "restore_command",
    "recovery_end_command",
    "archive_cleanup_command",
    "promote_trigger_file",
];

impl Expected {
    pub(super) async fn of(
        assignment: &Assignment,
        upstream: &Session,
        major: u32,
    ) -> Result<Self, StepError> {
        let timeline = upstream.current_timeline().await?;
        let history = upstream.history_file(timeline).await?;
        Ok(Self {
            system_identifier: assignment.system_identifier,
            major,
            lineage: assignment.lineage.clone(),
            epoch: assignment.epoch,
            timeline,
            history: String::from_utf8_lossy(&history).into_owned(),
        })
    }

    /// The primary's history.
    pub(super) fn history(&self) -> Result<History, String> {
        History::parse(self.timeline, &self.history).map_err(|error| error.to_string())
    }

    /// Why a copy at this place in its log is none of the group's.
    fn why_not(&self, found: &Found) -> Option<String> {
        if found.major != self.major {
            return Some(format!(
                "it is of PostgreSQL {}, where the programs are of {}",
                found.major, self.major
            ));
        }
        let own = found.system_identifier;
        if let Some(expected) = self.system_identifier.filter(|expected| *expected != own) {
            return Some(format!(
                "it is of another cluster: its system identifier is {own}, and must be {expected}"
            ));
        }
        if found.is_of_the_primary {
            return None;
        }
        let Some(epoch) = self.lineage.epoch_of(found.timeline) else {
            return Some(format!("timeline {} is none of this group's", found.timeline));
        };
        let position = Position { epoch, lsn: found.checkpoint };
        (!self.lineage.is_prefix(position, self.epoch)).then(|| {
            format!(
                "its checkpoint at {} of timeline {} is not part of the primary's history",
                found.checkpoint, found.timeline
            )
        })
    }
}

/// What a copy is.
#[derive(Clone, Copy, Debug)]
struct Found {
    major: u32,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    checkpoint: shared::lsn::Lsn,
    is_of_the_primary: bool,
}

/// Whether the copy may be put in place.
pub(super) async fn check(
    copy: &Instance,
    expected: &Expected,
    is_of_the_primary: bool,
) -> Result<(), String> {
    let major = match copy.data_dir.contents() {
        Contents::Cluster { major } => major,
        Contents::Missing | Contents::Empty => {
            return Err("it has ended well, and there is nothing".to_owned());
        }
        Contents::Unusable { reason } => {
            return Err(format!("what it made is no cluster: {reason}"));
        }
    };
    let control: ControlData = copy.control_data().await.map_err(|error| error.to_string())?;
    let found = Found {
        major,
        system_identifier: control.system_identifier,
        timeline: control.timeline,
        checkpoint: control.checkpoint,
        is_of_the_primary,
    };
    expected.why_not(&found).map_or(Ok(()), |why| Err(format!("what it made is refused: {why}")))
}

/// Makes a copy from elsewhere what one of the primary is. Blocks.
pub(super) fn tidy(
    copy: &Instance,
    expected: &Expected,
    wal_dir: Option<&Path>,
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (dir, owner) = (&copy.data_dir, &copy.owner);
    for name in LEFTOVERS {
        durable::remove(&dir.join(name)).map_err(|error| text(&error))?;
    }
    let auto = dir.join("postgresql.auto.conf");
    if let Ok(present) = fs::read_to_string(&auto) {
        let kept = without_recovery(&present);
        durable::write(&auto, kept.as_bytes(), 0o600, owner).map_err(|error| text(&error))?;
    }
    // Slots of the server that was copied: nobody would ever come for what they keep here.
    empty(&dir.join("pg_replslot"), owner)
        .map_err(|error| format!("cannot empty pg_replslot: {error}"))?;
    settle_wal(&dir.wal_dir(), wal_dir, owner)?;
    let status = dir.wal_dir().join("archive_status");
    durable::create_dir(&status, 0o700, owner).map_err(|error| text(&error))?;
    let newest = (expected.timeline, expected.history.as_str());
    // As old as a backup can be: every file that the history has is written.
    let first = expected.lineage.0.first().map_or(expected.timeline, |entry| entry.timeline);
    timelines::write_histories(dir, first, newest, owner).map_err(|error| text(&error))
}

/// Lines as ALTER SYSTEM writes them, `name = 'value'`.
fn without_recovery(text: &str) -> String {
    let of_recovery = |line: &str| {
        let name = line.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        OF_RECOVERY.contains(&name.as_str()) || name.starts_with("recovery_target")
    };
    text.lines().filter(|line| !of_recovery(line)).flat_map(|line| [line, "\n"]).collect()
}

fn empty(dir: &Path, owner: &Owner) -> io::Result<()> {
    durable::create_dir(dir, 0o700, owner).map_err(io::Error::other)?;
    for entry in fs::read_dir(dir)? {
        fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}

/// Brings the WAL of a copy where it is to be. A link that came with the data leads where the WAL of the server
/// is that was copied: on the same host two servers would write there.
fn settle_wal(own: &Path, wal_dir: Option<&Path>, owner: &Owner) -> Result<(), String> {
    let found = fs::symlink_metadata(own);
    if found.as_ref().is_ok_and(fs::Metadata::is_symlink) {
        let leads_to = fs::canonicalize(own).ok();
        let wanted = wal_dir.and_then(|dir| fs::canonicalize(dir).ok());
        return if leads_to.is_some() && leads_to == wanted {
            Ok(())
        } else {
            let to = fs::read_link(own).unwrap_or_default();
            Err(format!(
                "what it made is refused: its pg_wal is a link to {}, which is not the WAL directory of this node (--waldir); it has to leave WAL in pg_wal itself",
                to.display()
            ))
        };
    }
    // Left out, as what a backup does not need.
    durable::create_dir(own, 0o700, owner).map_err(|error| error.to_string())?;
    let Some(wal_dir) = wal_dir else { return Ok(()) };
    place_wal(own, wal_dir, owner)
        .map_err(|error| format!("its WAL cannot be moved to {}: {error}", wal_dir.display()))
}

fn place_wal(own: &Path, wal_dir: &Path, owner: &Owner) -> io::Result<()> {
    copy_all(own, wal_dir, owner)?;
    fs::remove_dir_all(own)?;
    std::os::unix::fs::symlink(wal_dir, own)?;
    owner.chown(own).map_err(io::Error::other)
}

/// Into a directory that is there, as a rule on another file system.
fn copy_all(from: &Path, to: &Path, owner: &Owner) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            durable::create_dir(&target, 0o700, owner).map_err(io::Error::other)?;
            copy_all(&entry.path(), &target, owner)?;
        } else {
            fs::copy(entry.path(), &target)?;
            owner.chown(&target).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Whether a copy has the tablespaces that it leads to: one whose files were left out would be missed only when
/// somebody reads them. One that is younger than the copy comes with the log. Blocks.
pub(super) fn check_tablespaces(copy: &DataDir, spaces: &[Tablespace]) -> Result<(), String> {
    for link in storage::tablespace_links(copy) {
        let to = fs::read_link(&link).unwrap_or_default();
        let known = spaces.iter().find(|space| space.location == to);
        if let Some(space) = known.filter(|space| !link.join(&space.directory).is_dir()) {
            return Err(format!(
                "what it made is refused: the tablespace in {} was left out, there is no {}",
                to.display(),
                space.directory
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::history::{LineageEntry, Start};
    use shared::lsn::Lsn;

    fn expected() -> Expected {
        let entry = |epoch, timeline, parent: Option<u64>, lsn| LineageEntry {
            start: Some(Start { parent: parent.map(Epoch), lsn: Lsn(lsn) }),
            ..LineageEntry::reserved(Epoch(epoch), TimelineId(timeline))
        };
        Expected {
            system_identifier: Some(SystemIdentifier(7)),
            major: 15,
            lineage: Lineage(vec![entry(1, 1, None, 0), entry(2, 3, Some(1), 500)]),
            epoch: Epoch(2),
            timeline: TimelineId(3),
            history: String::new(),
        }
    }

    fn found(timeline: u32, checkpoint: u64) -> Found {
        Found {
            major: 15,
            system_identifier: SystemIdentifier(7),
            timeline: TimelineId(timeline),
            checkpoint: Lsn(checkpoint),
            is_of_the_primary: false,
        }
    }

    #[test]
    fn only_this_cluster_of_this_version() {
        let refused = |found: &Found| expected().why_not(found).is_some();
        assert!(!refused(&found(1, 400)));
        assert!(refused(&Found { system_identifier: SystemIdentifier(8), ..found(1, 400) }));
        assert!(refused(&Found { major: 16, ..found(1, 400) }));
        let of_the_primary = Found { is_of_the_primary: true, ..found(1, 400) };
        assert!(refused(&Found { system_identifier: SystemIdentifier(8), ..of_the_primary }));
    }

    #[test]
    fn a_backup_of_a_timeline_that_was_left_is_refused() {
        let refused = |timeline, lsn| expected().why_not(&found(timeline, lsn)).is_some();
        assert!(!refused(1, 500) && !refused(3, 700));
        assert!(refused(1, 501), "the tail of an old primary");
        assert!(refused(2, 400), "a timeline of no epoch");
    }

    #[test]
    fn what_tools_write_does_not_win() {
        let text = "# Do not edit\nwork_mem = '8MB'\nrestore_command = 'x'\nrecovery_target_time='y'\nprimary_conninfo = 'host=z'\n";
        assert_eq!(without_recovery(text), "# Do not edit\nwork_mem = '8MB'\n");
    }

    #[test]
    fn wal_goes_where_it_was_told_to_be() {
        let temp = tempfile::tempdir().unwrap();
        let (own, elsewhere) = (temp.path().join("pg_wal"), temp.path().join("wal"));
        fs::create_dir_all(own.join("archive_status")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(own.join("00000002.history"), "x").unwrap();
        fs::write(own.join("archive_status/00000002.history.ready"), "").unwrap();
        let owner = Owner::current();
        settle_wal(&own, Some(&elsewhere), &owner).unwrap();
        assert_eq!(fs::read_link(&own).unwrap(), elsewhere);
        assert_eq!(fs::read_to_string(own.join("00000002.history")).unwrap(), "x");
        assert!(elsewhere.join("archive_status/00000002.history.ready").exists());
        settle_wal(&own, Some(&elsewhere), &owner).unwrap();
        // A link that came with the data.
        for wal_dir in [None, Some(temp.path())] {
            let refused = settle_wal(&own, wal_dir, &owner).unwrap_err();
            assert!(refused.contains("is a link to"), "{refused}");
        }
        let missing = temp.path().join("other");
        settle_wal(&missing, None, &owner).unwrap();
        assert!(missing.is_dir());
    }

    #[test]
    fn a_tablespace_that_was_left_out_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, location) = (DataDir::new(temp.path().join("data")), temp.path().join("space"));
        fs::create_dir_all(dir.join("pg_tblspc")).unwrap();
        fs::create_dir(&location).unwrap();
        let directory = "PG_15_202209061".to_owned();
        let spaces = [Tablespace { location: location.clone(), size: 1, directory }];
        check_tablespaces(&dir, &spaces).unwrap();
        std::os::unix::fs::symlink(&location, dir.join("pg_tblspc/16385")).unwrap();
        let refused = check_tablespaces(&dir, &spaces).unwrap_err();
        assert!(refused.contains("was left out"), "{refused}");
        fs::create_dir(location.join("PG_15_202209061")).unwrap();
        check_tablespaces(&dir, &spaces).unwrap();
        check_tablespaces(&dir, &[]).unwrap();
    }
}
