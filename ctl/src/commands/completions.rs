//! `pgtandem completions`.

use crate::cli::definition;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use program::manual;

/// Prints the completions of a shell
#[derive(Debug, clap::Args)]
pub struct Completions {
    #[command(flatten)]
    wanted: manual::Completions,
}

impl Completions {
    #[expect(clippy::unused_async, reason = "all commands are run alike")]
    pub async fn run(self, _: &Context) -> Result<Exit, Failure> {
        output::script(&manual::completions(definition(), self.wanted.shell))?;
        Ok(Exit::Done)
    }
}
