//! `pgtandem promote`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::Wait;
use crate::prediction::DryRun;
use shared::api::Action;
use shared::ids::NodeName;

/// Makes this node the primary, whatever its priority
#[derive(Debug, clap::Args)]
pub struct Promote {
    /// The new primary
    node: NodeName,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    wait: Wait,
}

impl Promote {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        self.dry_run.perform(context, &Action::Promote { node: self.node }, &self.wait).await
    }
}
