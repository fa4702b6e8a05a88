//! `pgtandem explain`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{output, prediction, text};
use shared::api::{Explanation, Outage, Succession};
use shared::ids::NodeName;

/// Explains in sentences how things stand, what is waited for, and what would happen
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Only this node
    #[arg(conflicts_with = "if_dies")]
    node: Option<NodeName>,
    /// What would happen if these nodes died now: each decision, and how it would end
    #[arg(long, value_name = "NODE[,NODE]", value_delimiter = ',')]
    if_dies: Vec<NodeName>,
}

impl Explain {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        if !self.if_dies.is_empty() {
            return self.what_if(context).await;
        }
        let node = self.node.as_ref().map(NodeName::as_str);
        let explanation = context.client()?.explain(&context.formation, node).await?;
        if context.json {
            output::json(&explanation)?;
        } else {
            output::text(&render(&explanation))?;
        }
        Ok(Exit::Done)
    }

    async fn what_if(&self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client()?;
        let explanation = client.explain_if_dies(&context.formation, &self.if_dies).await?;
        let foreseen = explanation.prediction.ok_or_else(|| {
            let message = "this monitor is of an older version and foresees nothing: upgrade it";
            Failure::new(Exit::Internal, "no_prediction", message)
        })?;
        prediction::show(context, &foreseen)?;
        Ok(Exit::Done)
    }
}

fn render(explanation: &Explanation) -> String {
    let mut lines = explanation.sentences.clone();
    for blocker in &explanation.blocked_by {
        lines.push(format!("  waits for: {}", text::blocker(blocker)));
    }
    if !explanation.wanting.is_empty() {
        lines.push("\nnot as it should be, the first thing of each:".to_owned());
    }
    for wanting in &explanation.wanting {
        lines.push(format!("  {} ({})", wanting.text, wanting.rule));
    }
    if let Some(succession) = &explanation.succession {
        lines.push(String::new());
        lines.extend(succeed(succession));
    }
    lines.join("\n")
}

/// Who would follow the primary.
fn succeed(succession: &Succession) -> Vec<String> {
    let Succession { ranking, prediction, outage } = succession;
    let mut lines = vec!["if the primary died now:".to_owned()];
    lines.extend(prediction::ends(prediction).into_iter().map(|line| format!("  {line}")));
    lines.extend(outage.iter().map(|outage| format!("  {}", last(outage))));
    let mut table = text::Table::new(&["Place", "Node", "Behind", "Why"]);
    for row in ranking {
        table.row(vec![
            text::or_dash(row.place),
            row.node.to_string(),
            text::or_dash(row.lag_bytes.map(text::bytes)),
            row.reason.clone(),
        ]);
    }
    lines.push(String::new());
    lines.push(table.render());
    lines
}

fn last(outage: &Outage) -> String {
    let known = match outage.changes {
        0 => "typical; no change of the primary has been seen yet".to_owned(),
        1 => "as at the last change of the primary".to_owned(),
        changes => format!("from the last {changes} changes of the primary"),
    };
    format!(
        "writes would wait for about {} ms where its host dies, and {} ms where only its processes do ({known})",
        outage.host_ms, outage.processes_ms
    )
}
