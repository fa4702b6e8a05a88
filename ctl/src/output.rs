//! The one door to standard output and standard error.
//!
//! What the monitor sent is text from elsewhere: control characters in it never reach the terminal.

use crate::failure::Failure;
use serde::Serialize;
use shared::api::ApiError;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

/// Writes a result for people.
pub fn text(text: &str) -> Result<(), Failure> {
    write_out(&format!("{}\n", printable(text.trim_end())))
}

/// Writes a result for programs: one object on one line.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value)?;
    write_out(&format!("{line}\n"))
}

/// Writes what we made for a program, control characters included.
pub fn script(text: &str) -> Result<(), Failure> {
    write_out(&format!("{}\n", text.trim_end()))
}

/// Waits until nobody reads the output any more, as after `| head`; for ever where that is not told, as of
/// a file.
pub async fn closed() {
    // Unchecked, since it is to stay as it is, blocking, and may be no pipe.
    let out = io::stdout().as_fd().try_clone_to_owned();
    match out.and_then(Sender::from_owned_fd_unchecked) {
        // Whatever ends the wait, writing will tell what is wrong.
        Ok(out) => drop(out.ready(Interest::ERROR).await),
        Err(_) => std::future::pending().await,
    }
}

/// Tells people something that is not the result. Where nobody listens, nothing is lost.
pub fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{}", printable(text)));
}

/// Shows an error where its readers look for it.
pub fn error(error: &ApiError, as_json: bool) {
    if as_json && json(error).is_ok() {
        return;
    }
    let nodes: Vec<_> = error.nodes.iter().map(ToString::to_string).collect();
    let nodes =
        if nodes.is_empty() { String::new() } else { format!(" (nodes: {})", nodes.join(", ")) };
    note(&format!("pgtandem: {}{nodes}", error.message));
}

/// Troubles while something is followed: each is told once, however often it comes back.
#[derive(Debug, Default)]
pub struct Troubles {
    told: Option<String>,
}

impl Troubles {
    /// Tells a trouble that is not the one told last.
    pub fn tell(&mut self, trouble: &impl ToString) {
        let trouble = Some(trouble.to_string());
        if self.told != trouble {
            note(&format!("pgtandem: {}; trying again", trouble.as_deref().unwrap_or_default()));
            self.told = trouble;
        }
    }

    /// From now on, the same trouble is news again.
    pub fn over(&mut self) {
        self.told = None;
    }
}

fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "?")
}
