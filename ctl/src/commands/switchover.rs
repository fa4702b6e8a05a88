//! `pgtandem switchover`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::Wait;
use crate::prediction::DryRun;
use shared::api::Action;
use shared::ids::NodeName;

/// Hands the primary's role over, as planned and without loss
#[derive(Debug, clap::Args)]
pub struct Switchover {
    /// The new primary [default: the best candidate]
    #[arg(long, value_name = "NODE")]
    to: Option<NodeName>,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    wait: Wait,
}

impl Switchover {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        self.dry_run.perform(context, &Action::Switchover { to: self.to }, &self.wait).await
    }
}
