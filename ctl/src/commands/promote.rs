//! `pgtandem promote`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use shared::api::Action;
use shared::ids::NodeName;

/// Makes this node the primary, whatever its priority
#[derive(Debug, clap::Args)]
pub struct Promote {
    /// The new primary
    node: NodeName,
    #[command(flatten)]
    wait: Wait,
}

impl Promote {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        operation::perform(context, &Action::Promote { node: self.node }, &self.wait).await
    }
}
