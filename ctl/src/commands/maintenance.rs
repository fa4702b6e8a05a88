//! `pgtandem maintenance`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use crate::prediction::DryRun;
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
        dry_run: DryRun,
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
        match self.turn {
            Turn::On { node, allow_failover, dry_run, wait } => {
                let action = Action::Maintenance { node, on: true, allow_failover };
                dry_run.perform(context, &action, &wait).await
            }
            Turn::Off { node, wait } => {
                let action = Action::Maintenance { node, on: false, allow_failover: false };
                operation::perform(context, &action, &wait).await
            }
        }
    }
}
