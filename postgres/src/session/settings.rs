//! The live settings and where they come from.

use super::{Session, SessionError, column};
use std::path::PathBuf;

/// A row of `pg_settings`, as the asking session sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// In the unit of the setting.
    pub value: String,
    /// The file that it comes from; another one than the managed file (such as `postgresql.auto.conf`)
    /// means that somebody overrules us. Shown to a superuser and to `pg_read_all_settings` only.
    pub source_file: Option<PathBuf>,
    /// Takes effect only after a restart.
    pub pending_restart: bool,
}

/// A fault in the configuration files as they stand (`pg_file_settings`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The setting, where the line could be read.
    pub name: Option<String>,
    /// The file.
    pub file: Option<String>,
    /// The line.
    pub line: Option<i32>,
    /// What is wrong.
    pub error: String,
}

impl Session {
    /// A setting; `None` where there is none of that name. The answer of a *new* session shows that
    /// every process was told to reload, not that it has.
    pub async fn setting(&self, name: &str) -> Result<Option<Setting>, SessionError> {
        let sql = "SELECT setting, sourcefile, pending_restart FROM pg_settings WHERE name = $1";
        let rows = self.rows("ask for a setting", sql, &[&name]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Setting {
            value: column::<Option<String>>(row, 0, "setting")?.unwrap_or_default(),
            source_file: column::<Option<String>>(row, 1, "sourcefile")?.map(PathBuf::from),
            pending_restart: column(row, 2, "pending_restart")?,
        }))
    }

    /// The names of all settings that wait for a restart.
    pub async fn pending_restart(&self) -> Result<Vec<String>, SessionError> {
        let sql = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name";
        let rows = self.rows("ask for settings that wait for a restart", sql, &[]).await?;
        rows.iter().map(|row| column(row, 0, "name")).collect()
    }

    /// The faults of the files as they stand, to be asked before a reload: after a syntax error nothing
    /// at all is applied, and only the server's log would tell. Restart-only settings that have changed
    /// are no fault (nor is a bad value of one told apart from that here).
    pub async fn file_errors(&self) -> Result<Vec<FileError>, SessionError> {
        let rows = self.rows("check the configuration files", FILE_ERRORS, &[]).await?;
        let fault = |row| {
            Ok(FileError {
                name: column(row, 0, "name")?,
                file: column(row, 1, "sourcefile")?,
                line: column(row, 2, "sourceline")?,
                error: column(row, 3, "error")?,
            })
        };
        rows.iter().map(fault).collect()
    }

    /// `pg_reload_conf()`; false if the postmaster could not be signalled.
    pub async fn reload(&self) -> Result<bool, SessionError> {
        let row = self.one("reload the configuration", "SELECT pg_reload_conf()", &[]).await?;
        column(&row, 0, "pg_reload_conf")
    }
}

/// A restart-only setting that has changed and any value that is refused have the same text
/// (`ProcessConfigFileInternal` in PostgreSQL's guc.c), so the exception is made by the setting's kind.
const FILE_ERRORS: &str = "\
    SELECT f.name, f.sourcefile, f.sourceline, f.error \
      FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name) \
     WHERE f.error IS NOT NULL \
       AND NOT (coalesce(s.context, '') = 'postmaster' AND f.error = 'setting could not be applied') \
     ORDER BY f.seqno";
