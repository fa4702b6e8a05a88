//! `pgtandem explain`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{output, text};
use shared::api::Explanation;
use shared::ids::NodeName;

/// Explains in sentences how things stand and what is waited for
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Only this node
    node: Option<NodeName>,
}

impl Explain {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let node = self.node.as_ref().map(NodeName::as_str);
        let explanation = context.client()?.explain(&context.formation, node).await?;
        if context.json {
            output::json(&explanation)?;
        } else {
            output::text(&render(&explanation))?;
        }
        Ok(Exit::Done)
    }
}

fn render(explanation: &Explanation) -> String {
    let mut lines = explanation.sentences.clone();
    for blocker in &explanation.blocked_by {
        lines.push(format!("  waits for: {}", text::blocker(blocker)));
    }
    lines.join("\n")
}
