//! `pgtandem watch`.

use super::status::render;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::is_passing;
use crate::output::{self, Troubles};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Log positions change without a new revision: after this time they are asked for again.
const REFRESH_MS: u64 = 1000;
/// The shortest time between two pictures.
const SHORTEST: Duration = Duration::from_millis(200);

/// Shows the status again and again, until interrupted
#[derive(Debug, clap::Args)]
pub struct Watch {}

impl Watch {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client()?;
        let mut status = client.status(&context.formation, None, 0).await?;
        let mut shown = String::new();
        let mut troubles = Troubles::default();
        loop {
            let started = Instant::now();
            let picture =
                if context.json { serde_json::to_string(&status)? } else { render(&status) };
            if picture != shown {
                if context.json { output::json(&status) } else { output::redraw(&picture) }?;
                shown = picture;
            }
            match client.status(&context.formation, Some(status.revision), REFRESH_MS).await {
                Ok(newer) => {
                    status = newer;
                    troubles.over();
                }
                Err(error) if is_passing(&error) => {
                    troubles.tell(&error);
                    sleep_until(started + Duration::from_millis(REFRESH_MS)).await;
                }
                Err(error) => return Err(error.into()),
            }
            sleep_until(started + SHORTEST).await;
        }
    }
}
