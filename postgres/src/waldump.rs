//! Where the log of a cleanly stopped primary ends, found with the server down.
//!
//! A fast shutdown ends the log with a shutdown checkpoint, whose *start* is in the control file. Its
//! length differs between major versions, so it is asked of `pg_waldump`; its end follows from the
//! page layout of WAL (`XLogBytePosToEndRecPtr` in PostgreSQL's xlog.c). Looking for the first
//! unreadable record instead would depend on what a recycled segment happens to hold.
//!
//! Not here: the end of the log of a standby, which only its startup process establishes (rule 4).

use crate::control::{ClusterState, ControlData, ControlError};
use crate::instance::Instance;
use crate::programs::Program;
use crate::run::{self, RunError};
use crate::segment;
use shared::lsn::Lsn;
use std::time::Duration;

/// It reads one record of one segment.
const LIMIT: Duration = Duration::from_secs(10);

/// `SizeOfXLogShortPHD` and `SizeOfXLogLongPHD` in PostgreSQL's `xlog_internal.h`: the header of each
/// WAL page, and of the first page of a segment.
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;

/// Why the end of the log is not known.
#[derive(Debug, thiserror::Error)]
pub enum EndOfWalError {
    /// The control file cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// `pg_waldump` failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The cluster was not a primary, or was not stopped cleanly.
    #[error("the cluster is {0:?}, not a primary that was shut down cleanly")]
    NotCleanlyShutDown(ClusterState),
    /// The record at the checkpoint's location is not a shutdown checkpoint.
    #[error("pg_waldump shows no shutdown checkpoint at {location}: {output}")]
    NoShutdownCheckpoint {
        /// Where one should be.
        location: Lsn,
        /// What it printed.
        output: String,
    },
}

/// The end of the log of a primary that was shut down cleanly: what a standby that received
/// everything has as its receive location.
pub async fn end_of_wal_after_clean_shutdown(
    instance: &Instance,
    control: &ControlData,
) -> Result<Lsn, EndOfWalError> {
    if control.state != ClusterState::ShutDown {
        return Err(EndOfWalError::NotCleanlyShutDown(control.state));
    }
    let location = control.checkpoint;
    let mut command = run::command(instance, Program::PgWaldump);
    command.arg("-p").arg(instance.data_dir.wal_dir());
    command.args(["-t", &control.timeline.to_string(), "-s", &location.to_string(), "-n", "1"]);
    command.args(segments(instance, control));
    let output = run::run(command, Program::PgWaldump, "", LIMIT).await?;
    let length = shutdown_checkpoint_length(&output.stdout, location).ok_or_else(|| {
        EndOfWalError::NoShutdownCheckpoint { location, output: run::last_lines(&output.stdout, 2) }
    })?;
    Ok(end_of_record(location, length, control.wal_block_size, control.wal_segment_size))
}

/// The segment of the checkpoint, and the next one where there is one: the record may go over. Where no file
/// is named, `pg_waldump` takes the length of a segment from any file that comes first in the directory, and
/// gives up if that is one which was made for later and has nothing in it yet.
fn segments(instance: &Instance, control: &ControlData) -> Vec<String> {
    let size = control.wal_segment_size;
    let name = |lsn| segment::name(control.timeline, lsn, size);
    let next = name(Lsn(control.checkpoint.0.saturating_add(size)));
    let has_next = instance.data_dir.wal_dir().join(&next).exists();
    [name(control.checkpoint)].into_iter().chain(has_next.then_some(next)).collect()
}

/// The total length in `rmgr: XLOG len (rec/tot): 114/ 114, tx: 0, lsn: 0/01500028, prev
/// 0/014FFFB0, desc: CHECKPOINT_SHUTDOWN redo ...`.
fn shutdown_checkpoint_length(text: &str, location: Lsn) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("rmgr:"))?;
    if !line.contains("CHECKPOINT_SHUTDOWN") {
        return None;
    }
    let shown = line.split_once("lsn:")?.1.split_once(',')?.0.trim();
    if shown.parse() != Ok(location) {
        return None;
    }
    let lengths = line.split_once("len (rec/tot):")?.1.split_once(',')?.0;
    lengths.split_once('/')?.1.trim().parse().ok()
}

/// Where a record of `length` bytes ends that begins at `start`. Records are aligned to 8 bytes; one
/// that goes over the end of a page continues behind the next page's header; one that ends exactly
/// with a page ends before the next header.
fn end_of_record(start: Lsn, length: u64, page: u64, segment: u64) -> Lsn {
    let mut left = length.next_multiple_of(8);
    let mut at = start.0;
    loop {
        let room = page - at % page;
        if left <= room {
            return Lsn(at + left);
        }
        left -= room;
        at += room;
        at += if at.is_multiple_of(segment) { LONG_HEADER } else { SHORT_HEADER };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 8192;
    const SEGMENT: u64 = 16 << 20;

    #[test]
    fn ends_of_records() {
        let end = |start, length| end_of_record(Lsn(start), length, PAGE, SEGMENT).0;
        assert_eq!(end(40, 114), 160);
        assert_eq!(end(PAGE - 120, 114), PAGE, "ends with the page");
        assert_eq!(end(PAGE - 112, 114), PAGE + SHORT_HEADER + 8, "eight bytes over");
        assert_eq!(end(SEGMENT - 8, 114), SEGMENT + LONG_HEADER + 112);
    }

    #[test]
    fn lengths_are_read() {
        let line = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/01500028, prev 0/014FFFB0, desc: CHECKPOINT_SHUTDOWN redo 0/1500028; tli 1;";
        assert_eq!(shutdown_checkpoint_length(line, Lsn(0x0150_0028)), Some(114));
        assert_eq!(shutdown_checkpoint_length(line, Lsn(1)), None);
        assert_eq!(
            shutdown_checkpoint_length(&line.replace("SHUTDOWN", "ONLINE"), Lsn(0x0150_0028)),
            None
        );
    }
}
