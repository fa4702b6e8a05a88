//! `pgtandem sync`.

use super::status::in_force_by_name;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::text::{Table, names, or_dash, yes_no};
use serde_json::json;
use shared::api::Status;

/// Shows which standbys each commit waits for
#[derive(Debug, clap::Args)]
pub struct Sync {}

impl Sync {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let status = context.client()?.status(&context.formation, None, 0).await?;
        if context.json {
            let sync = &status.sync;
            output::json(&json!({
                "formation": status.formation,
                "number_sync_standbys": status.number_sync_standbys,
                "in_force": sync.in_force,
                "members": sync.members,
                "required": sync.required,
                "pending": sync.pending,
                "generation": sync.generation,
            }))?;
        } else {
            output::text(&render(&status))?;
        }
        Ok(Exit::Done)
    }
}

fn render(status: &Status) -> String {
    let sync = &status.sync;
    let members = if sync.members.is_empty() { "nobody".to_owned() } else { names(&sync.members) };
    let mut text = format!(
        "in force: {} (generation {})\nmembers: {members}; each commit waits for {}\n\
         number-sync-standbys: {}\n",
        in_force_by_name(status),
        or_dash(sync.generation),
        sync.required,
        status.number_sync_standbys,
    );
    if let Some(pending) = &sync.pending {
        text = text + "changing to: " + pending + "\n";
    }
    let mut table = Table::new(&["Name", "In the set", "May be", "Sync state"]);
    for node in &status.nodes {
        table.row(vec![
            node.name.to_string(),
            yes_no(sync.members.contains(&node.name)).to_owned(),
            yes_no(node.replication_quorum).to_owned(),
            or_dash(node.sync_state.as_ref()),
        ]);
    }
    text + &table.render()
}
