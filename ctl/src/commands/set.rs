//! `pgtandem set`. The value goes to the monitor as it is; the monitor knows what is valid.

use super::get::{FormationKey, NodeKey};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use shared::api::Action;
use shared::ids::NodeName;

/// Changes a setting of a node or of the formation
#[derive(Debug, clap::Args)]
pub struct Set {
    #[command(subcommand)]
    of: Of,
}

#[derive(Debug, clap::Subcommand)]
enum Of {
    /// Changes a setting of a node
    Node {
        /// The node's name
        node: NodeName,
        /// The setting
        key: NodeKey,
        /// Its new value
        #[arg(allow_negative_numbers = true)]
        value: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Changes a setting of the formation
    Formation {
        /// The setting
        key: FormationKey,
        /// Its new value; time spans with a unit, such as 500ms, 3s, 1min; "default" takes it back
        #[arg(allow_negative_numbers = true)]
        value: String,
        #[command(flatten)]
        wait: Wait,
    },
}

impl Set {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let (action, wait) = match self.of {
            Of::Node { node, key, value, wait } => {
                (Action::SetNode { node, key: key.name().to_owned(), value }, wait)
            }
            Of::Formation { key, value, wait } => {
                (Action::SetFormation { key: key.name().to_owned(), value }, wait)
            }
        };
        operation::perform(context, &action, &wait).await
    }
}
