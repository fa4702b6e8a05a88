//! `pgtandem token`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::text::Table;
use serde_json::json;
use shared::api::JoinToken;

/// Creates, lists and revokes the tokens with which keepers join
#[derive(Debug, clap::Args)]
pub struct Token {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Creates a token and prints it, this once
    Create,
    /// Lists the tokens by their ids
    List,
    /// Revokes a token; nodes that have joined stay
    Revoke {
        /// Its id
        id: String,
    },
}

impl Token {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let (client, formation) = (context.client()?, &context.formation);
        match self.what {
            What::Create => show_created(context, &client.create_token(formation).await?)?,
            What::List => show(context, &client.tokens(formation).await?)?,
            What::Revoke { id } => {
                client.revoke_token(formation, &id).await?;
                if context.json {
                    output::json(&json!({ "revoked": id }))?;
                } else {
                    output::text(&format!("token {id} is revoked"))?;
                }
            }
        }
        Ok(Exit::Done)
    }
}

/// The token alone is the output, so that a script can take it.
fn show_created(context: &Context, created: &JoinToken) -> Result<(), Failure> {
    match (&created.token, context.json) {
        (_, true) => output::json(created),
        (Some(token), false) => output::text(token),
        (None, false) => {
            let message = "the monitor's answer has no token in it";
            Err(Failure::new(Exit::Internal, "protocol", message))
        }
    }
}

fn show(context: &Context, tokens: &[JoinToken]) -> Result<(), Failure> {
    if context.json {
        return output::json(&tokens);
    }
    let mut table = Table::new(&["Id", "Created"]);
    for token in tokens {
        let created = token.created_at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        table.row(vec![token.id.clone(), created]);
    }
    output::text(&table.render())
}
