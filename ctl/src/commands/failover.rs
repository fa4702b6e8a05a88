//! `pgtandem failover`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::Wait;
use crate::prediction::DryRun;
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
    dry_run: DryRun,
    #[command(flatten)]
    wait: Wait,
}

impl Failover {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let Self { allow_data_loss, fenced, dry_run, wait } = self;
        dry_run.perform(context, &Action::Failover { allow_data_loss, fenced }, &wait).await
    }
}
