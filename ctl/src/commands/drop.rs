//! `pgtandem drop`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::Wait;
use crate::prediction::DryRun;
use shared::api::Action;
use shared::ids::NodeName;

/// Removes a node from the formation for good
#[derive(Debug, clap::Args)]
pub struct Drop {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Removes a node; a primary hands over first
    Node {
        /// Its name
        node: NodeName,
        /// Without the node's consent, because it is dead
        #[arg(long)]
        force: bool,
        /// Its keeper removes data, WAL and its own state once the node has left
        #[arg(long, conflicts_with = "force")]
        destroy: bool,
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        wait: Wait,
    },
}

impl Drop {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let What::Node { node, force, destroy, dry_run, wait } = self.what;
        dry_run.perform(context, &Action::Drop { node, force, destroy }, &wait).await
    }
}
