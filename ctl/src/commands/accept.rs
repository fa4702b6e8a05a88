//! `pgtandem accept`.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::{self, Wait};
use shared::api::Action;
use shared::ids::TimelineId;

/// Takes what happened behind the monitor's back for the truth
#[derive(Debug, clap::Args)]
pub struct Accept {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Makes a timeline that a node was promoted to by hand the group's; what the others have is given up
    Timeline {
        /// Its number, as `pgtandem timelines` shows it
        timeline: u32,
        /// Why; stands in the events
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// States that no client can reach the old primary any more
        #[arg(long)]
        fenced: bool,
        #[command(flatten)]
        wait: Wait,
    },
}

impl Accept {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let What::Timeline { timeline, reason, fenced, wait } = self.what;
        let timeline = TimelineId(timeline);
        operation::perform(context, &Action::AcceptTimeline { timeline, reason, fenced }, &wait)
            .await
    }
}
