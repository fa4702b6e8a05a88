//! The terminal, which is left as it was found: at the end, on an error, in a panic, and when told to stop.

use crate::failure::Failure;
use ratatui::{DefaultTerminal, Frame};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A terminal in raw mode, on its alternate screen.
#[derive(Debug)]
pub struct Terminal(DefaultTerminal);

impl Terminal {
    /// Takes it over; a panic gives it back before it says anything.
    pub fn open() -> Result<Self, Failure> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                give_back();
                Err(error.into())
            }
        }
    }

    /// Draws what has changed.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// A terminal that has gone cannot be given back, and nobody is left to be told.
fn give_back() {
    drop(ratatui::try_restore());
}

/// The signals that end a program; by themselves they would leave the terminal as it is.
#[derive(Debug)]
pub struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stops {
    /// From now on they are caught.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
