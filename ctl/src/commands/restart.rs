//! `pgtandem restart`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use shared::api::Action;
use shared::ids::NodeName;

/// Restarts PostgreSQL on a node, or on all of them; that is not taken for a failure
#[derive(Debug, clap::Args)]
pub struct Restart {
    /// The node
    #[arg(required_unless_present = "all")]
    node: Option<NodeName>,
    /// One after the other: the standbys first, then the primary, which hands over before
    #[arg(long, conflicts_with_all = ["node", "no_wait"])]
    all: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Restart {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let Some(node) = self.node else { return restart_all(context, &self.wait).await };
        operation::perform(context, &Action::Restart { node }, &self.wait).await
    }
}

/// Ends at the first step that does not succeed; what has been restarted until then stays so. Nodes that do
/// not answer, or are in maintenance, are left out: they are restarted when they come back.
async fn restart_all(context: &Context, wait: &Wait) -> Result<Exit, Failure> {
    let status = context.client()?.status(&context.formation, None, 0).await?;
    let Some(primary) = status.primary else {
        let message = "the group has no primary at present; `pgtandem explain` says why";
        return Err(Failure::new(Exit::Refused, "no_primary", message));
    };
    let standbys = status.nodes.iter().filter(|node| {
        node.name != primary && node.health == "ok" && node.maintenance_cause.is_none()
    });
    let standbys: Vec<_> = standbys.map(|node| node.name.clone()).collect();
    let hand_over = (!standbys.is_empty()).then_some(Action::Switchover { to: None });
    let restart = |node| Action::Restart { node };
    let steps = standbys.into_iter().map(restart).chain(hand_over).chain([restart(primary)]);
    for step in steps {
        let exit = operation::perform(context, &step, wait).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}
