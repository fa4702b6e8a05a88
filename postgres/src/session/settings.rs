//! The live settings, where they come from, and what a server says of all it knows.

use super::{Session, SessionError, column};
use crate::config;
use shared::pgsettings::{Catalogue, Known, REQUIRED, Values};
use std::collections::{BTreeMap, BTreeSet};
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

/// What a server has of a setting that standbys need as much of as their primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredSetting {
    /// Runs with it.
    pub running: u64,
    /// What the files say: it counts after a restart.
    pub next: Option<u64>,
    /// What they would say without the managed file.
    pub beneath: Option<u64>,
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
    pub async fn pending_restart(&self) -> Result<BTreeSet<String>, SessionError> {
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

    /// What is in force of these settings, as `SHOW` has it; what this session itself has set is read
    /// from the files instead. Those that do not exist are left out.
    pub async fn in_force(&self, names: &[&str]) -> Result<Values, SessionError> {
        let rows = self.rows("ask for settings", IN_FORCE, &[&names]).await?;
        let mut values = Values::new();
        for row in &rows {
            if let Some(value) = column::<Option<String>>(row, 1, "setting")? {
                values.insert(column(row, 0, "name")?, value);
            }
        }
        Ok(values)
    }

    /// The settings of which a standby needs at least as much as its primary has.
    pub async fn required(&self) -> Result<BTreeMap<String, RequiredSetting>, SessionError> {
        let (names, file) = (REQUIRED.as_slice(), format!("%/{}", config::FILE));
        let rows =
            self.rows("ask for what standbys need", REQUIRED_SETTINGS, &[&names, &file]).await?;
        let number = |row, index, name| {
            let text: Option<String> = column(row, index, name)?;
            Ok(text.and_then(|text| text.parse::<u64>().ok()))
        };
        let read = |row| {
            let running = number(row, 1, "setting")?.ok_or(SessionError::Answer("a number"))?;
            let (next, beneath) = (number(row, 2, "next")?, number(row, 3, "beneath")?);
            Ok((column(row, 0, "name")?, RequiredSetting { running, next, beneath }))
        };
        rows.iter().map(read).collect()
    }

    /// All settings that the server knows, those of loaded extensions included.
    pub async fn catalogue(&self) -> Result<Catalogue, SessionError> {
        let rows = self.rows("ask for all settings", CATALOGUE, &[]).await?;
        let known = |row| {
            let known = Known {
                vartype: column(row, 1, "vartype")?,
                unit: column(row, 2, "unit")?,
                min_val: column(row, 3, "min_val")?,
                max_val: column(row, 4, "max_val")?,
                enumvals: column::<Option<Vec<String>>>(row, 5, "enumvals")?.unwrap_or_default(),
                context: column(row, 6, "context")?,
            };
            Ok((column(row, 0, "name")?, known))
        };
        let settings = rows.iter().map(known).collect::<Result<_, SessionError>>()?;
        Ok(Catalogue { version: self.server_version().await?, settings })
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

/// Of several entries in the files the last one counts.
const IN_FORCE: &str = "\
    SELECT n.name, CASE WHEN s.source = 'client' \
             THEN (SELECT f.setting FROM pg_file_settings f \
                    WHERE lower(f.name) = lower(n.name) ORDER BY f.seqno DESC LIMIT 1) \
             ELSE current_setting(n.name, true) END \
      FROM unnest($1::text[]) n(name) LEFT JOIN pg_settings s ON s.name = n.name";

const REQUIRED_SETTINGS: &str = "\
    WITH f AS (SELECT lower(name) AS name, setting, seqno, sourcefile FROM pg_file_settings) \
    SELECT s.name, s.setting, \
           coalesce((SELECT f.setting FROM f WHERE f.name = s.name \
                      ORDER BY f.seqno DESC LIMIT 1), s.boot_val), \
           coalesce((SELECT f.setting FROM f WHERE f.name = s.name AND f.sourcefile NOT LIKE $2 \
                      ORDER BY f.seqno DESC LIMIT 1), s.boot_val) \
      FROM pg_settings s WHERE s.name = ANY ($1)";

const CATALOGUE: &str = "\
    SELECT name, vartype, unit, min_val, max_val, enumvals, context FROM pg_settings";
