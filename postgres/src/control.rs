//! The control file as `pg_controldata` prints it (`pg_controldata.c` in PostgreSQL).
//!
//! Read with the server up or down. It lags behind a running server: it changes at checkpoints and
//! restartpoints only. Not here: where the log ends ([`crate::waldump`]).

use crate::instance::Instance;
use crate::programs::Program;
use crate::run::{self, RunError};
use shared::ids::{SystemIdentifier, TimelineId};
use shared::lsn::Lsn;
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::time::Duration;

/// It reads one file of 8 kB; anything longer is a disk that does not answer.
const LIMIT: Duration = Duration::from_secs(10);

/// `Database cluster state`, `DBState` in PostgreSQL's `pg_control.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// `starting up`.
    StartingUp,
    /// `shut down`: a primary, stopped cleanly.
    ShutDown,
    /// `shut down in recovery`: a standby, stopped cleanly.
    ShutDownInRecovery,
    /// `shutting down`: running its last checkpoint, or crashed in it.
    ShuttingDown,
    /// `in crash recovery`.
    InCrashRecovery,
    /// `in archive recovery`: a running or crashed standby.
    InArchiveRecovery,
    /// `in production`: a running or crashed primary.
    InProduction,
}

impl ClusterState {
    /// Stopped cleanly, as a primary or as a standby.
    pub fn is_clean(self) -> bool {
        match self {
            Self::ShutDown | Self::ShutDownInRecovery => true,
            Self::StartingUp
            | Self::ShuttingDown
            | Self::InCrashRecovery
            | Self::InArchiveRecovery
            | Self::InProduction => false,
        }
    }
}

/// The part of the control file that we need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    /// Which cluster this is a copy of.
    pub system_identifier: SystemIdentifier,
    /// How it stands.
    pub state: ClusterState,
    /// Where the latest checkpoint record begins.
    pub checkpoint: Lsn,
    /// Where recovery would begin.
    pub redo: Lsn,
    /// The timeline of the latest checkpoint.
    pub timeline: TimelineId,
    /// Up to where a standby must recover before it is consistent; `None` where none is needed.
    pub min_recovery_end: Option<Lsn>,
    /// The timeline of `min_recovery_end`.
    pub min_recovery_timeline: Option<TimelineId>,
    /// A base backup that has not reached its end.
    pub backup_end_required: bool,
    /// Data checksums are on.
    pub checksums: bool,
    /// `wal_log_hints`, which `pg_rewind` needs where there are no checksums.
    pub wal_log_hints: bool,
    /// Bytes per WAL segment.
    pub wal_segment_size: u64,
    /// Bytes per WAL page.
    pub wal_block_size: u64,
    /// The settings of which a standby needs at least as much, by name: what its log demands of a
    /// standby, what a primary ran with when it was last started.
    pub required: BTreeMap<&'static str, u64>,
}

/// The labels of these settings, and their names (`shared::pgsettings::REQUIRED`).
const REQUIRED: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

/// A control file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// `pg_controldata` failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A line is missing.
    #[error("pg_controldata does not print '{0}'")]
    Missing(&'static str),
    /// A line has a value of another kind.
    #[error("pg_controldata prints '{value}' for '{label}'")]
    Unreadable {
        /// Which.
        label: &'static str,
        /// What it says.
        value: String,
    },
    /// The stored checksum does not match: torn or corrupt.
    #[error("the control file is corrupt: its checksum does not match")]
    Corrupt,
}

impl ControlData {
    /// Runs `pg_controldata`.
    pub async fn read(instance: &Instance) -> Result<Self, ControlError> {
        let mut command = run::command(instance, Program::PgControldata);
        command.arg("-D").arg(instance.data_dir.path());
        let output = run::run(command, Program::PgControldata, "", LIMIT).await?;
        Self::parse(&output.stdout)
    }

    /// Reads what `pg_controldata` printed under `LC_ALL=C`.
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        if text.contains("Calculated CRC checksum does not match") {
            return Err(ControlError::Corrupt);
        }
        let lines = Lines(
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(label, value)| (label.trim(), value.trim()))
                .collect(),
        );
        let min_recovery_end: Lsn = lines.get("Minimum recovery ending location")?;
        let min_recovery_timeline: u32 = lines.get("Min recovery ending loc's timeline")?;
        let backup_start: Lsn = lines.get("Backup start location")?;
        let backup_end: Lsn = lines.get("Backup end location")?;
        Ok(Self {
            system_identifier: SystemIdentifier(lines.get("Database system identifier")?),
            state: lines.get("Database cluster state")?,
            checkpoint: lines.get("Latest checkpoint location")?,
            redo: lines.get("Latest checkpoint's REDO location")?,
            timeline: TimelineId(lines.get("Latest checkpoint's TimeLineID")?),
            min_recovery_end: (min_recovery_end != Lsn(0)).then_some(min_recovery_end),
            min_recovery_timeline: (min_recovery_timeline != 0)
                .then_some(TimelineId(min_recovery_timeline)),
            backup_end_required: lines.yes("End-of-backup record required")?
                || backup_start != Lsn(0)
                || backup_end != Lsn(0),
            checksums: lines.get::<u32>("Data page checksum version")? != 0,
            wal_log_hints: lines.yes("wal_log_hints setting")?,
            wal_segment_size: lines.get("Bytes per WAL segment")?,
            wal_block_size: lines.get("WAL block size")?,
            required: lines.required()?,
        })
    }
}

struct Lines<'a>(HashMap<&'a str, &'a str>);

impl Lines<'_> {
    fn text(&self, label: &'static str) -> Result<&str, ControlError> {
        self.0.get(label).copied().ok_or(ControlError::Missing(label))
    }

    fn get<T: FromStr>(&self, label: &'static str) -> Result<T, ControlError> {
        let value = self.text(label)?;
        value.parse().map_err(|_| ControlError::Unreadable { label, value: value.to_owned() })
    }

    fn required(&self) -> Result<BTreeMap<&'static str, u64>, ControlError> {
        REQUIRED.into_iter().map(|(label, name)| Ok((name, self.get(label)?))).collect()
    }

    fn yes(&self, label: &'static str) -> Result<bool, ControlError> {
        Ok(matches!(self.text(label)?, "on" | "yes"))
    }
}

/// A cluster state that PostgreSQL does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a cluster state")]
pub struct UnknownState(String);

impl FromStr for ClusterState {
    type Err = UnknownState;
    /// `dbState()` in `pg_controldata.c`.
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Ok(match text {
            "starting up" => Self::StartingUp,
            "shut down" => Self::ShutDown,
            "shut down in recovery" => Self::ShutDownInRecovery,
            "shutting down" => Self::ShuttingDown,
            "in crash recovery" => Self::InCrashRecovery,
            "in archive recovery" => Self::InArchiveRecovery,
            "in production" => Self::InProduction,
            other => return Err(UnknownState(other.to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDBY: &str = include_str!("../tests/fixtures/controldata_standby.txt");

    #[test]
    fn a_standby_is_read() {
        let control = ControlData::parse(STANDBY).unwrap();
        assert_eq!(
            control,
            ControlData {
                system_identifier: SystemIdentifier(7_710_328_094_909_850_761),
                state: ClusterState::InArchiveRecovery,
                checkpoint: "0/1500718".parse().unwrap(),
                redo: "0/15006E0".parse().unwrap(),
                timeline: TimelineId(3),
                min_recovery_end: Some("0/1A0F648".parse().unwrap()),
                min_recovery_timeline: Some(TimelineId(5)),
                backup_end_required: false,
                checksums: true,
                wal_log_hints: true,
                wal_segment_size: 16 << 20,
                wal_block_size: 8192,
                required: [
                    ("max_connections", 100),
                    ("max_worker_processes", 8),
                    ("max_wal_senders", 10),
                    ("max_prepared_transactions", 0),
                    ("max_locks_per_transaction", 64),
                ]
                .into(),
            }
        );
    }

    #[test]
    fn all_that_a_standby_needs_is_read() {
        let read = ControlData::parse(STANDBY).unwrap().required;
        assert_eq!(read.into_keys().collect::<Vec<_>>(), shared::pgsettings::REQUIRED);
    }

    #[test]
    fn all_states_are_known() {
        let states = [
            ("starting up", ClusterState::StartingUp),
            ("shut down", ClusterState::ShutDown),
            ("shut down in recovery", ClusterState::ShutDownInRecovery),
            ("shutting down", ClusterState::ShuttingDown),
            ("in crash recovery", ClusterState::InCrashRecovery),
            ("in archive recovery", ClusterState::InArchiveRecovery),
            ("in production", ClusterState::InProduction),
        ];
        for (text, state) in states {
            let changed = STANDBY.replace("in archive recovery", text);
            assert_eq!(ControlData::parse(&changed).unwrap().state, state);
        }
    }

    #[test]
    fn faults_are_told_apart() {
        let parse = |from: &str, to: &str| ControlData::parse(&STANDBY.replace(from, to));
        assert!(matches!(
            parse("WAL block size", "WAL page size"),
            Err(ControlError::Missing("WAL block size"))
        ));
        assert!(matches!(parse("0/1500718", "nowhere"), Err(ControlError::Unreadable { .. })));
        assert!(matches!(
            parse("in archive recovery", "asleep"),
            Err(ControlError::Unreadable { label: "Database cluster state", .. })
        ));
        let torn = format!("WARNING: Calculated CRC checksum does not match value\n{STANDBY}");
        assert!(matches!(ControlData::parse(&torn), Err(ControlError::Corrupt)));
    }
}
