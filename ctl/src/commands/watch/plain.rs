//! One snapshot after the other, where nobody sits at a terminal.

use super::feed::{Feed, News};
use crate::commands::status::render;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Troubles};
use shared::api::Status;
use shared::ids::Revision;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The shortest time between two snapshots.
const SHORTEST: Duration = Duration::from_millis(200);
/// The same where only positions have moved.
const MOVED: Duration = Duration::from_secs(1);

/// Prints until interrupted, or until nobody reads it any more.
pub async fn run(mut feed: Feed, json: bool) -> Result<Exit, Failure> {
    let mut troubles = Troubles::default();
    let mut waiting: Option<Box<Status>> = None;
    let (mut printed, mut revision, mut printed_at) = (String::new(), None, None);
    let mut closed = pin!(output::closed());
    loop {
        let due = waiting.as_ref().map(|status| due(status.revision, revision, printed_at));
        tokio::select! {
            // There may be nothing to print for long.
            () = closed.as_mut() => return Ok(Exit::Done),
            news = feed.next() => match news? {
                News::Status(status) => {
                    troubles.over();
                    waiting = Some(status);
                }
                News::Lost(why) => troubles.tell(&why),
                News::Formation(_) | News::History(_) | News::Event(_) | News::Alive => {}
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let Some(status) = waiting.take() else { continue };
                let text = if json { serde_json::to_string(&status)? } else { render(&status) };
                if text != printed {
                    if json { output::json(&status) } else { output::text(&text) }?;
                    printed = text;
                }
                revision = Some(status.revision);
                printed_at = Some(Instant::now());
            }
        }
    }
}

fn due(newest: Revision, printed: Option<Revision>, printed_at: Option<Instant>) -> Instant {
    match printed_at {
        None => Instant::now(),
        Some(at) if printed == Some(newest) => at + MOVED,
        Some(at) => at + SHORTEST,
    }
}
