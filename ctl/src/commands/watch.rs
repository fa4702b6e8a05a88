//! `pgtandem watch`: the group as it is and the events as they come, until somebody has seen enough.
//!
//! The monitor says when something changes; nothing is asked for again and again. At a terminal it is a
//! screen with keys (`model`, `keys`, `draw`), anywhere else one snapshot after the other (`plain`).

mod draw;
mod feed;
mod keys;
mod model;
mod plain;
mod terminal;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crossterm::event::Event;
use draw::draw;
use feed::Feed;
use futures::StreamExt as _;
use keys::Wish;
use model::{Screen, Theme};
use std::io::{self, IsTerminal as _};
use std::time::Duration;
use terminal::{Stops, Terminal};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the picture is drawn anew where nothing is new, so that ages grow.
const TICK: Duration = Duration::from_millis(500);

/// Shows the group and its events as they change; `?` lists the keys
///
/// At a terminal: a screen with the nodes as a tree, what is under way, and the events. Where the output is
/// no terminal, or with --json: one snapshot after the other. `NO_COLOR` in the environment is respected.
#[derive(Debug, clap::Args)]
pub struct Watch {}

impl Watch {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client()?;
        // A monitor that is not there, or a formation that is not, is told before anything is drawn.
        client.status(&context.formation, None, 0).await?;
        let feed = Feed::start(client, context.formation.clone());
        if context.json || !is_screen() {
            return plain::run(feed, context.json).await;
        }
        run_screen(feed, Screen::new(context.formation.clone(), Theme::of_environment())).await
    }
}

/// Whether somebody sits at a terminal that can be drawn on.
fn is_screen() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb
}

async fn run_screen(mut feed: Feed, mut screen: Screen) -> Result<Exit, Failure> {
    let began = Instant::now();
    let mut stops = Stops::new()?;
    let mut terminal = Terminal::open()?;
    let mut inputs = crossterm::event::EventStream::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        terminal.draw(|frame| {
            let drawn = draw(frame, &screen, began.elapsed());
            screen.drawn(drawn);
        })?;
        tokio::select! {
            () = stops.told() => return Ok(Exit::Done),
            input = inputs.next() => match input.transpose()? {
                // Whatever else comes, such as a new size, is seen at the next drawing.
                Some(Event::Key(key)) => match keys::press(&mut screen, key) {
                    Wish::Quit => return Ok(Exit::Done),
                    Wish::NextFormation => feed.next_formation(),
                    Wish::Nothing => {}
                },
                Some(
                    Event::FocusGained
                    | Event::FocusLost
                    | Event::Mouse(_)
                    | Event::Paste(_)
                    | Event::Resize(..),
                ) => {}
                None => return Ok(Exit::Done),
            },
            news = feed.next() => screen.take(news?, began.elapsed()),
            _ = ticks.tick() => {}
        }
    }
}
