//! `pgtandem formation`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::text::{Table, or_dash};
use serde_json::json;
use shared::api::{CreateFormation, FormationSummary};
use shared::ids::FormationId;
use shared::settings::Settings;

/// Lists, creates and drops formations
#[derive(Debug, clap::Args)]
pub struct Formation {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Lists all formations
    List,
    /// Creates a formation
    Create {
        /// Its name
        name: FormationId,
        /// How many standbys every commit waits for [default: 0 with up to two nodes, else 1]
        #[arg(long, value_name = "NUMBER")]
        number_sync_standbys: Option<u32>,
    },
    /// Drops a formation that has no nodes
    Drop {
        /// Its name
        name: FormationId,
    },
}

impl Formation {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client()?;
        match self.what {
            What::List => show(context, &client.formations().await?)?,
            What::Create { name, number_sync_standbys } => {
                let settings = Settings { number_sync_standbys, ..Settings::default() };
                let created = client.create_formation(&CreateFormation { name, settings }).await?;
                say(context, &created, &format!("formation {} is there", created.name))?;
            }
            What::Drop { name } => {
                client.drop_formation(&name).await?;
                say(context, &json!({ "dropped": name }), &format!("formation {name} is dropped"))?;
            }
        }
        Ok(Exit::Done)
    }
}

fn say(context: &Context, value: &impl serde::Serialize, text: &str) -> Result<(), Failure> {
    if context.json { output::json(value) } else { output::text(text) }
}

fn show(context: &Context, formations: &[FormationSummary]) -> Result<(), Failure> {
    let mut table = Table::new(&["Name", "Nodes", "Primary", "Phase"]);
    for formation in formations {
        table.row(vec![
            formation.name.to_string(),
            formation.nodes.to_string(),
            or_dash(formation.primary.as_ref()),
            formation.phase.clone(),
        ]);
    }
    say(context, &formations, &table.render())
}
