//! `systemd`: the unit that runs this keeper.

use crate::agent::STOP_PATIENCE_MS;
use crate::cli::{definition, failure};
use crate::config::Config;
use crate::steps::LONGEST_STOP;
use program::unit::{self, Unit, UnitError};
use shared::api::ApiError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Options that are about the unit, or about the command that prints it.
const OWN: [&str; 3] = ["user", "json", "version"];

/// The unit for a keeper that was given what this command was given.
pub(crate) fn unit(config: &Config, user: Option<String>) -> Result<String, ApiError> {
    let refused = |error: UnitError| failure(1, "bad_value", error.to_string());
    let consent = Duration::from_millis(STOP_PATIENCE_MS);
    let unit = Unit {
        description: "Keeper of pgtandem, with its PostgreSQL",
        program: unit::this_program().map_err(refused)?,
        arguments: arguments().map_err(refused)?,
        user,
        longest_stop: consent + LONGEST_STOP,
        waits: false,
        writes: writes(config),
    };
    Ok(unit.to_string())
}

fn arguments() -> Result<Vec<OsString>, UnitError> {
    let mut words = vec![OsString::from("run")];
    words.extend(unit::of_this_command(definition(), "systemd", &OWN)?);
    Ok(words)
}

/// A new copy is made beside the old data, and swapped in.
fn writes(config: &Config) -> Vec<PathBuf> {
    let dirs = [Some(&config.pgdata), Some(&config.state_dir), config.waldir.as_ref()];
    let mut paths: Vec<_> = dirs.into_iter().flatten().map(|dir| unit::around(dir)).collect();
    paths.push(config.socket_dir.clone());
    paths.sort();
    paths.dedup();
    paths
}
