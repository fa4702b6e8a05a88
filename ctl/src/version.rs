//! `--version`.

use crate::failure::Failure;
use crate::output;
use shared::version::Version;

/// Prints the versions.
pub fn print(as_json: bool) -> Result<(), Failure> {
    let version = Version::of("pgtandem");
    if as_json { output::json(&version) } else { output::text(&version.to_string()) }
}
