//! `pgtandem man`.

use crate::cli::definition;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use program::manual::Manual;

/// Prints the manual page, or writes one for each command
#[derive(Debug, clap::Args)]
pub struct Man {
    #[command(flatten)]
    wanted: Manual,
}

impl Man {
    #[expect(clippy::unused_async, reason = "all commands are run alike")]
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let made = self
            .wanted
            .make(definition(), context.json)
            .map_err(|error| Failure::new(Exit::Configuration, "directory", error.to_string()))?;
        output::script(&made)?;
        Ok(Exit::Done)
    }
}
