//! `systemd`: the unit that runs this monitor.

use super::definition;
use crate::config::Config;
use crate::run::LONGEST_STOP;
use program::unit::{self, Unit, UnitError};
use std::ffi::OsString;

/// Options that are about the unit, or about the command that prints it.
const OWN: [&str; 3] = ["user", "json", "version"];

/// The unit for a monitor that was given what this command was given.
pub(super) fn unit(config: &Config, user: Option<String>) -> Result<String, UnitError> {
    let unit = Unit {
        description: "Monitor of pgtandem",
        program: unit::this_program()?,
        arguments: arguments()?,
        user,
        longest_stop: LONGEST_STOP,
        // A database that is away is waited for.
        waits: true,
        writes: vec![unit::around(&config.data_dir)],
    };
    Ok(unit.to_string())
}

fn arguments() -> Result<Vec<OsString>, UnitError> {
    let mut words = vec![OsString::from("run")];
    words.extend(unit::of_this_command(definition(), "systemd", &OWN)?);
    Ok(words)
}
