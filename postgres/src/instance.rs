//! One Postgres instance: what all other modules need to know of it; creating it; and its
//! single-user mode, by which roles are made before the first start, whatever `pg_hba.conf` says.
//!
//! Not here: which settings and roles there shall be.

use crate::control::{ControlData, ControlError};
use crate::datadir::DataDir;
use crate::durable::DurableError;
use crate::owner::Owner;
use crate::programs::{Program, Programs};
use crate::run::{self, Output, RunError};
use shared::lsn::Lsn;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `initdb` writes and syncs some 40 MB; on a slow disk that takes its time.
pub const INITDB_LIMIT: Duration = Duration::from_mins(5);

/// Nothing is done but reading; what takes longer is a disk that does not answer.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// The longest path of a unix socket: 108 bytes of `sun_path` (unix(7)) with the final zero.
const LONGEST_SOCKET_PATH: usize = 107;

/// What is known of an instance before it is looked at.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The programs.
    pub programs: Programs,
    /// The data directory.
    pub data_dir: DataDir,
    /// Whom it belongs to.
    pub owner: Owner,
    /// Its port; also part of the name of its unix socket.
    pub port: u16,
    /// The directory of its unix socket; absolute.
    pub socket_dir: PathBuf,
    /// `listen_addresses`; empty: the unix socket only.
    pub listen_addresses: String,
    /// Where the server's standard error goes.
    pub log_path: PathBuf,
}

/// How a cluster is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// The name of the superuser.
    pub superuser: String,
    /// The method of `local` lines in `pg_hba.conf`, such as `peer`.
    pub auth_local: String,
    /// The method of `host` lines, such as `scram-sha-256`.
    pub auth_host: String,
    /// Where the WAL shall be, if elsewhere.
    pub wal_dir: Option<PathBuf>,
}

/// Why an instance could not be created or run in single-user mode.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A directory cannot be made.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A program failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A statement failed; nothing of the statement itself is shown, it may have a password.
    #[error("a statement failed in single-user mode: {0}")]
    Statement(String),
    /// The path of the socket would be too long.
    #[error(
        "the path of the unix socket {} is longer than {LONGEST_SOCKET_PATH} bytes: choose a shorter socket directory",
        .0.display()
    )]
    SocketPathTooLong(PathBuf),
}

impl Instance {
    /// The settings that make the server listen where this says, for the managed file.
    pub fn listen_settings(&self) -> [(&'static str, String); 3] {
        [
            ("port", self.port.to_string()),
            ("listen_addresses", self.listen_addresses.clone()),
            ("unix_socket_directories", quoted_directory(&self.socket_dir)),
        ]
    }

    /// The path of its unix socket.
    pub fn socket_path(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Refuses a socket directory whose path is too long for the operating system.
    pub fn check_socket_path(&self) -> Result<(), InstanceError> {
        let path = self.socket_path();
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(InstanceError::SocketPathTooLong(path));
        }
        Ok(())
    }

    /// The control file.
    pub async fn control_data(&self) -> Result<ControlData, ControlError> {
        ControlData::read(self).await
    }

    /// See [`crate::waldump::end_of_wal_after_clean_shutdown`].
    pub async fn end_of_wal_after_clean_shutdown(
        &self,
    ) -> Result<Lsn, crate::waldump::EndOfWalError> {
        let control = self.control_data().await?;
        crate::waldump::end_of_wal_after_clean_shutdown(self, &control).await
    }

    /// Creates the cluster, with checksums and UTF-8, in a directory that is missing or empty. Killed
    /// when the future is dropped, which leaves a half-made directory.
    pub async fn initdb(&self, options: &InitOptions) -> Result<(), InstanceError> {
        let this = self.clone();
        let wal_dir = options.wal_dir.clone();
        blocking(move || {
            this.data_dir.create(&this.owner)?;
            if let Some(dir) = wal_dir {
                crate::durable::create_dir(&dir, 0o700, &this.owner)?;
            }
            Ok(())
        })
        .await?;
        match self.initdb_with_locale(options, "C.UTF-8").await {
            // Not every system has it; initdb cleans up behind itself.
            Err(RunError::Failed { output, .. }) if output.contains("invalid locale") => {
                Ok(self.initdb_with_locale(options, "C").await.map(drop)?)
            }
            result => Ok(result.map(drop)?),
        }
    }

    async fn initdb_with_locale(
        &self,
        options: &InitOptions,
        locale: &str,
    ) -> Result<Output, RunError> {
        let mut command = run::command(self, Program::Initdb);
        command.arg("-D").arg(self.data_dir.path());
        command.args(["--data-checksums", "--encoding=UTF8"]);
        command.arg(format!("--locale={locale}"));
        command.arg(format!("--username={}", options.superuser));
        command.arg(format!("--auth-local={}", options.auth_local));
        command.arg(format!("--auth-host={}", options.auth_host));
        if let Some(dir) = &options.wal_dir {
            command.arg("--waldir").arg(dir);
        }
        run::run(command, Program::Initdb, "", INITDB_LIMIT).await
    }

    /// Runs SQL statements, each ended by a semicolon, in single-user mode against the database
    /// `postgres`, with the server down and without `standby.signal`. The statements go through a pipe,
    /// so they may have passwords. Recovers from a crash first, which may need a long `limit`.
    pub async fn single_user(&self, sql: &str, limit: Duration) -> Result<(), InstanceError> {
        let mut command = run::command(self, Program::Postgres);
        command.arg("--single").arg("-j").arg("-D").arg(self.data_dir.path());
        for setting in SINGLE_USER_SETTINGS {
            command.args(["-c", setting]);
        }
        command.arg("postgres");
        // With -j a statement ends with ";" and an empty line (postgres(1)).
        let input = format!("{}\n\n", sql.trim_end());
        let output = run::run(command, Program::Postgres, &input, limit).await?;
        match output.stderr.lines().find(|line| line.contains("ERROR:  ")) {
            Some(line) => Err(InstanceError::Statement(line.to_owned())),
            None => Ok(()),
        }
    }

    /// Whether the server would start, apart from its data: its configuration, the libraries that it
    /// loads, its directory and a lock file in that. With no server running. It asks for a setting that
    /// is known only after all these (`PostmasterMain` in PostgreSQL's postmaster.c).
    pub async fn check_start(&self) -> Result<(), RunError> {
        let mut command = run::command(self, Program::Postgres);
        command.arg("-C").arg("shared_memory_size").arg("-D").arg(self.data_dir.path());
        run::run(command, Program::Postgres, "", CHECK_LIMIT).await.map(drop)
    }

    /// The value that a server would have of a setting if it were started now; an error where it would
    /// not take the configuration files as they stand. With a server running or not.
    pub async fn configured(&self, setting: &str) -> Result<String, RunError> {
        let mut command = run::command(self, Program::Postgres);
        command.arg("-C").arg(setting).arg("-D").arg(self.data_dir.path());
        let output = run::run(command, Program::Postgres, "", CHECK_LIMIT).await?;
        Ok(output.stdout.trim().to_owned())
    }

    /// Lets a crashed primary recover and stops it cleanly, with no client ever connected. The caller
    /// has removed `standby.signal`, which single-user mode does not support.
    pub async fn crash_recover(&self, limit: Duration) -> Result<(), InstanceError> {
        self.single_user("", limit).await
    }
}

/// Messages in English, no statement in a log. A commit must not wait for standbys (the managed file
/// may have a blocking `synchronous_standby_names`, and nobody could ever answer).
const SINGLE_USER_SETTINGS: [&str; 10] = [
    "synchronous_commit=local",
    "synchronous_standby_names=",
    "lc_messages=C",
    "log_destination=stderr",
    "logging_collector=off",
    "log_line_prefix=",
    "log_statement=none",
    "log_min_duration_statement=-1",
    "log_min_error_statement=panic",
    "log_min_messages=warning",
];

/// A directory as an element of `unix_socket_directories`: in double quotes where it has a comma, a
/// quote or a space (`SplitDirectoriesString` in PostgreSQL's varlena.c).
fn quoted_directory(dir: &Path) -> String {
    let text = dir.to_string_lossy();
    if text.contains([',', '"', ' ']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into_owned()
    }
}

/// Runs blocking file work off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DurableError> + Send + 'static,
) -> Result<T, DurableError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(DurableError::Io {
            action: "finish the work on",
            path: PathBuf::from("files"),
            source: std::io::Error::other(error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_directories() {
        assert_eq!(quoted_directory(Path::new("/run/x")), "/run/x");
        assert_eq!(quoted_directory(Path::new("/a,b \"c")), "\"/a,b \"\"c\"");
    }
}
