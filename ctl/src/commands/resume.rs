//! `pgtandem resume`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use shared::api::Action;

/// Switches automation on again
#[derive(Debug, clap::Args)]
pub struct Resume {
    #[command(flatten)]
    wait: Wait,
}

impl Resume {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        operation::perform(context, &Action::Resume, &self.wait).await
    }
}
