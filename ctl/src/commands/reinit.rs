//! `pgtandem reinit`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use shared::api::Action;
use shared::ids::NodeName;

/// Makes a new copy of the primary's data on a standby; its present one stays until that is complete
#[derive(Debug, clap::Args)]
pub struct Reinit {
    /// The standby
    node: NodeName,
    #[command(flatten)]
    wait: Wait,
}

impl Reinit {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        operation::perform(context, &Action::Reinit { node: self.node }, &self.wait).await
    }
}
