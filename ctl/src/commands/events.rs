//! `pgtandem events`, and the progress that actions show.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::is_passing;
use crate::output::{self, Troubles};
use crate::text;
use ctl::client::Client;
use shared::event::Event;
use shared::ids::FormationId;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How many of the newest events are shown where no number is given.
const NEWEST: u32 = 20;
/// How many events are asked for at once.
const PAGE: u32 = 500;
/// The longest single wait that the monitor is asked for.
const LONG_POLL_MS: u64 = 20_000;
/// Between two tries after an answer that came too soon or not at all.
const PAUSE: Duration = Duration::from_millis(500);

/// Shows the history: what was decided or noticed, and why
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Goes on with new events as they happen
    #[arg(long, short)]
    follow: bool,
    /// Begins after the event with this id
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    /// At most so many [default: 20, or with --after all]
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u32>,
}

impl Events {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client()?;
        let last = match self.after {
            None => {
                let count = self.count.unwrap_or(NEWEST);
                let events = client.events(&context.formation, None, Some(count), 0).await?;
                print(context, &events)?;
                // Where no event was asked for, those that follow begin with the next one.
                if count == 0 && self.follow {
                    newest(&client, &context.formation).await?
                } else {
                    events.last().map_or(0, |event| event.id)
                }
            }
            Some(after) => print_pages(context, &client, after, self.count).await?,
        };
        if !self.follow {
            return Ok(Exit::Done);
        }
        tokio::select! {
            followed = follow(context, &client, last) => followed,
            // There may be no event for long.
            () = output::closed() => Ok(Exit::Done),
        }
    }
}

/// Prints what was there when asked, page by page, up to `count` events. Returns the last one's id.
async fn print_pages(
    context: &Context,
    client: &Client,
    after: u64,
    count: Option<u32>,
) -> Result<u64, Failure> {
    let mut last = after;
    let mut left = count.unwrap_or(u32::MAX);
    while left > 0 {
        let page = left.min(PAGE);
        let events = client.events(&context.formation, Some(last), Some(page), 0).await?;
        let Some(newest) = events.last() else { break };
        last = newest.id;
        print(context, &events)?;
        left = left.saturating_sub(u32::try_from(events.len()).unwrap_or(u32::MAX));
    }
    Ok(last)
}

/// Prints events after `last` as they come. A monitor that restarts is waited for.
async fn follow(context: &Context, client: &Client, last: u64) -> Result<Exit, Failure> {
    let mut last = last;
    let mut troubles = Troubles::default();
    loop {
        let started = Instant::now();
        let answer = client.events(&context.formation, Some(last), Some(PAGE), LONG_POLL_MS).await;
        match answer {
            Ok(events) => {
                troubles.over();
                print(context, &events)?;
                last = events.last().map_or(last, |event| event.id);
            }
            Err(error) if is_passing(&error) => troubles.tell(&error),
            Err(error) => return Err(error.into()),
        }
        // At most one question in this time, however fast the answers are.
        sleep_until(started + PAUSE / 2).await;
    }
}

fn print(context: &Context, events: &[Event]) -> Result<(), Failure> {
    for event in events {
        if context.json {
            output::json(event)?;
        } else {
            output::text(&render(event))?;
        }
    }
    Ok(())
}

fn render(event: &Event) -> String {
    let at = event.at.format("%Y-%m-%dT%H:%M:%S%.3fZ");
    let node = text::or_dash(event.node.as_ref());
    let (id, kind, rule) = (event.id, &event.kind, &event.rule);
    format!("{id:>6}  {at}  {node:<12}  {kind:<10}  {rule:<24}  {}", event.reason)
}

async fn newest(client: &Client, formation: &FormationId) -> Result<u64, Failure> {
    let newest = client.events(formation, None, Some(1), 0).await?;
    Ok(newest.last().map_or(0, |event| event.id))
}

/// Prints to standard error what happens while an action is waited for.
#[derive(Debug)]
pub struct Follower<'a> {
    client: &'a Client,
    formation: &'a FormationId,
    last: u64,
}

impl<'a> Follower<'a> {
    /// Begins with the event that comes next.
    pub async fn from_now(client: &'a Client, formation: &'a FormationId) -> Result<Self, Failure> {
        Ok(Self { client, formation, last: newest(client, formation).await? })
    }

    /// Prints events as they come, until dropped. It may be dropped at any time: an event counts as
    /// seen only once it is printed.
    pub async fn print_progress(&mut self) -> Infallible {
        loop {
            let started = Instant::now();
            self.print_next(LONG_POLL_MS).await;
            if started.elapsed() < PAUSE {
                sleep(PAUSE / 5).await;
            }
        }
    }

    /// Prints what has not been seen, without waiting for more.
    pub async fn print_rest(&mut self) {
        // The result is known; a monitor that is gone again does not hold it up.
        drop(timeout(PAUSE * 2, self.print_next(0)).await);
    }

    /// Whether this works matters little: the operation's result is asked for elsewhere.
    async fn print_next(&mut self, wait_ms: u64) {
        let answer = self.client.events(self.formation, Some(self.last), Some(PAGE), wait_ms).await;
        let Ok(events) = answer else {
            sleep(if wait_ms == 0 { Duration::ZERO } else { PAUSE }).await;
            return;
        };
        for event in events {
            output::note(&progress(&event));
            self.last = event.id;
        }
    }
}

fn progress(event: &Event) -> String {
    format!("{}  {}", event.at.format("%H:%M:%S"), event.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Event {
        serde_json::from_value(json!({
            "id": 12, "at": "2026-01-02T03:04:05.678Z", "formation": "default", "group": 0,
            "node": "node2", "node_id": 2, "epoch": 3, "kind": "phase", "rule": "elect",
            "from": "serving", "to": "electing", "timeline": 2, "lsn": "0/3000060",
            "reason": "node1 has been silent for 3.1 s", "evidence": {}
        }))
        .unwrap()
    }

    #[test]
    fn lines_for_people() {
        assert_eq!(
            render(&event()),
            "    12  2026-01-02T03:04:05.678Z  node2         phase       elect                     \
             node1 has been silent for 3.1 s"
        );
        assert_eq!(progress(&event()), "03:04:05  node1 has been silent for 3.1 s");
    }
}
