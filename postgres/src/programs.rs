//! Where the PostgreSQL programs are, and which version they have.
//!
//! All programs are taken from one directory, so that they are of one version. Not here: running them
//! (see [`crate::owner`] and [`crate::run`]).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io, process};

/// A program that comes with PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The server.
    Postgres,
    /// Never used to start or stop (that is done directly), but a sign of a complete installation.
    PgCtl,
    /// Creates a cluster.
    Initdb,
    /// Copies a running cluster.
    PgBasebackup,
    /// Makes a diverged cluster follow another again.
    PgRewind,
    /// Prints the control file.
    PgControldata,
    /// Prints WAL records.
    PgWaldump,
    /// For people.
    Psql,
}

impl Program {
    /// All that must be there.
    pub const ALL: [Self; 8] = [
        Self::Postgres,
        Self::PgCtl,
        Self::Initdb,
        Self::PgBasebackup,
        Self::PgRewind,
        Self::PgControldata,
        Self::PgWaldump,
        Self::Psql,
    ];

    /// The file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::PgCtl => "pg_ctl",
            Self::Initdb => "initdb",
            Self::PgBasebackup => "pg_basebackup",
            Self::PgRewind => "pg_rewind",
            Self::PgControldata => "pg_controldata",
            Self::PgWaldump => "pg_waldump",
            Self::Psql => "psql",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// No directory that was searched has a server.
    #[error(
        "program postgres not found in {searched}: install the PostgreSQL server package, or name its directory with --bin-dir"
    )]
    NotFound {
        /// Where it was looked for.
        searched: String,
    },
    /// A directory has a server, but not everything that belongs to it.
    #[error(
        "program {program} not found in {dir}: install the complete PostgreSQL server and client packages, or name another directory with --bin-dir"
    )]
    Incomplete {
        /// What is missing.
        program: Program,
        /// Where the server was found.
        dir: PathBuf,
    },
    /// The server did not tell its version.
    #[error("cannot run {} --version", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server told its version in a way that is not known.
    #[error("cannot read a version from '{0}'")]
    UnknownVersion(String),
    /// The version has a fault that costs acknowledged commits.
    #[error("PostgreSQL {version} is too old, at least {least} is needed: {why}")]
    TooOld {
        /// What is installed.
        version: ServerVersion,
        /// The first good one.
        least: ServerVersion,
        /// The reason.
        why: &'static str,
    },
}

/// The directory that all programs are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Looks in `bin_dir` only if given, else in `PATH`, then where Debian and Red Hat packages put
    /// them (newest version first).
    pub fn find(bin_dir: Option<&Path>) -> Result<Self, ProgramsError> {
        let dirs = match bin_dir {
            Some(dir) => vec![dir.to_owned()],
            None => search_path(),
        };
        let mut incomplete = None;
        for dir in &dirs {
            let missing = Program::ALL.into_iter().find(|p| !is_program(&dir.join(p.name())));
            match missing {
                None => return Ok(Self { dir: dir.clone() }),
                Some(Program::Postgres) => {}
                Some(program) => {
                    incomplete.get_or_insert((program, dir.clone()));
                }
            }
        }
        if let Some((program, dir)) = incomplete {
            return Err(ProgramsError::Incomplete { program, dir });
        }
        let shown: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Err(ProgramsError::NotFound { searched: shown.join(", ") })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a program is.
    pub fn path(&self, program: Program) -> PathBuf {
        self.dir.join(program.name())
    }

    /// What `postgres --version` says; takes some milliseconds.
    pub fn version(&self) -> Result<ServerVersion, ProgramsError> {
        let path = self.path(Program::Postgres);
        let output = process::Command::new(&path)
            .arg("--version")
            .stdin(process::Stdio::null())
            .output()
            .map_err(|source| ProgramsError::Run { path, source })?;
        let text = String::from_utf8_lossy(&output.stdout);
        ServerVersion::parse_program_output(&text)
            .ok_or_else(|| ProgramsError::UnknownVersion(text.trim().to_owned()))
    }
}

/// A version of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// Such as 15.
    pub major: u32,
    /// Such as 18; 0 for a beta version.
    pub minor: u32,
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl ServerVersion {
    /// Reads `postgres (PostgreSQL) 15.18 (Debian ...)`, and `18beta1`.
    pub fn parse_program_output(text: &str) -> Option<Self> {
        Self::parse(text.split_once("(PostgreSQL)")?.1.trim())
    }

    /// Reads `15.18`, as also `server_version` shows it.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let (digits, rest) = text.split_at_checked(end)?;
            Some((digits.parse::<u32>().ok()?, rest.to_owned()))
        };
        let (major, rest) = number(text)?;
        let minor = rest.strip_prefix('.').and_then(number).map_or(0, |(minor, _)| minor);
        Some(Self { major, minor })
    }

    /// Refuses what is older than 15, and the minor versions without the fix of April 2025 that makes
    /// commits wait for synchronous standbys from the very start of the server. Before it a commit
    /// could return in the moment between start and the checkpointer's first look at
    /// `synchronous_standby_names` (facts about PostgreSQL, section 4).
    pub fn refuse_if_too_old(self) -> Result<(), ProgramsError> {
        let (minor, why) = match self.major {
            0..=14 => (13, "older major versions are not supported"),
            15 => (13, FIX_OF_APRIL_2025),
            16 => (9, FIX_OF_APRIL_2025),
            17 => (5, FIX_OF_APRIL_2025),
            _ => return Ok(()),
        };
        let least = Self { major: self.major.max(15), minor };
        if self < least {
            return Err(ProgramsError::TooOld { version: self, least, why });
        }
        Ok(())
    }
}

const FIX_OF_APRIL_2025: &str = "without the fix of April 2025 a commit right after the start of a primary may not wait for its synchronous standbys";

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    let mut packaged: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        packaged.extend(entries.filter_map(|entry| {
            let major = major_of(&entry.file_name(), prefix)?;
            Some((major, entry.path().join("bin")))
        }));
    }
    packaged.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    dirs.extend(packaged.into_iter().map(|(_, dir)| dir));
    dirs
}

fn major_of(name: &OsStr, prefix: &str) -> Option<u32> {
    name.to_str()?.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ServerVersion {
        ServerVersion::parse_program_output(text).unwrap()
    }

    #[test]
    fn versions_are_read() {
        let debian = version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
        assert_eq!(debian, ServerVersion { major: 15, minor: 18 });
        assert_eq!(version("postgres (PostgreSQL) 19beta1"), ServerVersion { major: 19, minor: 0 });
        assert_eq!(ServerVersion::parse_program_output("postgres 15"), None);
    }

    #[test]
    fn old_versions_are_refused() {
        for text in ["14.20", "15.12", "16.8", "17.4"] {
            assert!(ServerVersion::parse(text).unwrap().refuse_if_too_old().is_err(), "{text}");
        }
        for text in ["15.13", "16.9", "17.5", "18beta1", "19.0"] {
            assert!(ServerVersion::parse(text).unwrap().refuse_if_too_old().is_ok(), "{text}");
        }
    }

    #[test]
    fn an_empty_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Programs::find(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
        assert!(error.contains("--bin-dir"), "{error}");
    }

    #[test]
    fn an_incomplete_directory_names_the_missing_program() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("postgres");
        fs::write(&server, "").unwrap();
        fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
        let error = Programs::find(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("pg_ctl"), "{error}");
    }

    #[test]
    fn the_installed_programs_are_found() {
        let programs = Programs::find(None).unwrap();
        programs.version().unwrap().refuse_if_too_old().unwrap();
    }
}
