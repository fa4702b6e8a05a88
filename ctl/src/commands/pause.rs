//! `pgtandem pause`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use shared::api::Action;

/// Switches automation off: nobody is promoted unless an operator asks for it
///
/// What would have been done is told in the events. Keepers still restart a PostgreSQL that has crashed, and
/// the sync set still follows the standbys.
#[derive(Debug, clap::Args)]
pub struct Pause {
    #[command(flatten)]
    wait: Wait,
}

impl Pause {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        operation::perform(context, &Action::Pause, &self.wait).await
    }
}
