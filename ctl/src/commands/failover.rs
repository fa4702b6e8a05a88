//! `pgtandem failover`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use shared::api::Action;

/// Elects a new primary now, without waiting until the old one is found dead
#[derive(Debug, clap::Args)]
pub struct Failover {
    /// Promotes even where acknowledged commits may be missing; for this one election
    #[arg(long)]
    allow_data_loss: bool,
    /// States that no client can reach the old primary any more
    #[arg(long)]
    fenced: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Failover {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let Self { allow_data_loss, fenced, wait } = self;
        operation::perform(context, &Action::Failover { allow_data_loss, fenced }, &wait).await
    }
}
