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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Set in the process that is to panic.
    const INSIDE: &str = "PGTANDEM_TEST_PANICS";
    const NAME: &str = "commands::watch::terminal::tests::inside_a_terminal";

    /// Nothing but what the next test starts, in a terminal of its own.
    #[test]
    fn inside_a_terminal() {
        if std::env::var_os(INSIDE).is_some() {
            let mut terminal = Terminal::open().unwrap();
            terminal.draw(|_| {}).unwrap();
            panic!("something is wrong");
        }
    }

    /// The modes, the screen and the cursor; and what it says is said on the screen that stays.
    #[test]
    fn a_panic_gives_the_terminal_back() {
        let test = std::env::current_exe().unwrap();
        let inside = format!("'{}' --exact {NAME} --nocapture", test.display());
        let line = format!("stty rows 24 cols 80; stty -a; {inside}; echo; stty -a");
        // util-linux's: runs it in a pseudo-terminal, and copies what is written there.
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env(INSIDE, "1").stdin(Stdio::null());
        let output = script.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");

        let way = ["\x1b[?1049h", "\x1b[?25l", "\x1b[?1049l", "something is wrong", "\x1b[?25h"];
        let places = way.map(|it| said.find(it).unwrap_or_else(|| panic!("no {it:?}: {said:?}")));
        assert!(places.is_sorted(), "{places:?}: {said:?}");
        let modes: Vec<_> = said.split("speed ").skip(1).collect();
        let [before, after] = modes.as_slice() else { panic!("{said:?}") };
        let end = before.find("echoke").unwrap();
        assert_eq!(after.get(..end), before.get(..end));
    }
}
