//! `pgtandem maintenance`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use shared::api::Action;
use shared::ids::NodeName;

/// Takes a node out of its keeper's hands, or gives it back
#[derive(Debug, clap::Args)]
pub struct Maintenance {
    #[command(subcommand)]
    turn: Turn,
}

#[derive(Debug, clap::Subcommand)]
enum Turn {
    /// Begins maintenance: the keeper leaves the node's Postgres alone
    On {
        /// The node's name
        node: NodeName,
        /// A primary hands over first
        #[arg(long)]
        allow_failover: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Ends maintenance
    Off {
        /// The node's name
        node: NodeName,
        #[command(flatten)]
        wait: Wait,
    },
}

impl Maintenance {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let (node, on, allow_failover, wait) = match self.turn {
            Turn::On { node, allow_failover, wait } => (node, true, allow_failover, wait),
            Turn::Off { node, wait } => (node, false, false, wait),
        };
        operation::perform(context, &Action::Maintenance { node, on, allow_failover }, &wait).await
    }
}
