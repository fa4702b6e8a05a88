//! `postmaster.pid`, as PostgreSQL's pidfile.h lays it out, one item a line.
//!
//! It is written in place, so it may be read half-way; and it may be left from a dead server. Not here:
//! whether the process lives ([`crate::postmaster`]).

use crate::datadir::DataDir;
use std::path::PathBuf;
use std::{fs, io};

/// The last line: what the postmaster says of itself (`PM_STATUS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidStatus {
    /// Not accepting connections yet.
    Starting,
    /// Being stopped.
    Stopping,
    /// Accepts connections, perhaps read-only.
    Ready,
    /// In recovery with `hot_standby = off`: runs, and will accept none.
    Standby,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidFile {
    /// The postmaster; negative for a server in single-user mode.
    pub pid: i32,
    /// The data directory as the server knows it.
    pub data_dir: PathBuf,
    /// When it started, in seconds since 1970.
    pub started_at: Option<i64>,
    /// Its port.
    pub port: Option<u16>,
    /// The directory of its first socket.
    pub socket_dir: Option<PathBuf>,
    /// `None` in the first moments.
    pub status: Option<PidStatus>,
}

impl PidFile {
    /// Reads the file's content; `None` while not even the number is there.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let pid = lines.next()?.parse().ok()?;
        let data_dir = PathBuf::from(lines.next().unwrap_or_default());
        let started_at = lines.next().and_then(|line| line.parse().ok());
        let port = lines.next().and_then(|line| line.parse().ok());
        let socket_dir = lines.next().filter(|line| !line.is_empty()).map(PathBuf::from);
        // The lines between are the first listen address and the shared memory key.
        let status = lines.nth(2).and_then(|line| match line {
            "starting" => Some(PidStatus::Starting),
            "stopping" => Some(PidStatus::Stopping),
            "ready" => Some(PidStatus::Ready),
            "standby" => Some(PidStatus::Standby),
            _ => None,
        });
        Some(Self { pid, data_dir, started_at, port, socket_dir, status })
    }

    /// Reads the file of a data directory; `None` where there is none (or none yet). Blocks.
    pub fn read(dir: &DataDir) -> io::Result<Option<Self>> {
        match fs::read_to_string(dir.join("postmaster.pid")) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read() {
        let text = "123\n/data\n1700000000\n5433\n/run/x\nlocalhost\n   123   456\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert_eq!((file.pid, file.port), (123, Some(5433)));
        assert_eq!(file.socket_dir, Some(PathBuf::from("/run/x")));
        assert_eq!(file.status, Some(PidStatus::Ready));
        let no_tcp = "123\n/data\n1700000000\n5433\n/run/x\n\n   123   456\nstandby \n";
        assert_eq!(PidFile::parse(no_tcp).unwrap().status, Some(PidStatus::Standby));
    }

    #[test]
    fn a_half_written_file() {
        assert_eq!(PidFile::parse(""), None);
        let file = PidFile::parse("-7\n/data\n").unwrap();
        assert_eq!((file.pid, file.status), (-7, None));
    }
}
