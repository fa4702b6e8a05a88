//! `pgtandem drop`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
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
        #[command(flatten)]
        wait: Wait,
    },
}

impl Drop {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let What::Node { node, force, wait } = self.what;
        operation::perform(context, &Action::Drop { node, force }, &wait).await
    }
}
