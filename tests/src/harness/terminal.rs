//! A real terminal with a shell in it: tmux, whose screen can be read, and whose keys can be pressed.

use super::process::command;
use super::wait::{DEADLINE, eventually};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the shell asks with: it is back once this stands in the last line.
const PROMPT: &str = "ready> ";

/// A terminal. Dropped, it ends with all that runs in it.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Opens one of so many columns and lines; `dir` is for its socket.
    pub async fn open(dir: &Path, wide: u16, tall: u16) -> Result<Self> {
        let terminal = Self { socket: dir.join("tmux") };
        let (wide, tall) = (wide.to_string(), tall.to_string());
        let size = ["-x", wide.as_str(), "-y", tall.as_str()];
        let mut start = terminal.tmux();
        start.args(["-f", "/dev/null", "new-session", "-d"]).args(size);
        start.args(["env", "-u", "NO_COLOR", &format!("PS1={PROMPT}"), "sh"]);
        run(start)?;
        terminal
            .shows("the shell", |screen| screen.trim_end().ends_with(PROMPT.trim_end()))
            .await?;
        Ok(terminal)
    }

    /// Types text, and nothing after it.
    pub fn write(&self, text: &str) -> Result<()> {
        self.order(&["send-keys", "-l", "--", text]).map(drop)
    }

    /// Presses a key, by tmux's name for it, such as Enter, Up or C-c.
    pub fn press(&self, key: &str) -> Result<()> {
        self.order(&["send-keys", "--", key]).map(drop)
    }

    /// Gives it another size.
    pub fn resize(&self, wide: u16, tall: u16) -> Result<()> {
        let (wide, tall) = (wide.to_string(), tall.to_string());
        self.order(&["resize-window", "-x", &wide, "-y", &tall]).map(drop)
    }

    /// What stands on its screen.
    pub fn screen(&self) -> Result<String> {
        self.order(&["capture-pane", "-p"])
    }

    /// Whether a program has its alternate screen.
    pub fn is_taken(&self) -> Result<bool> {
        Ok(self.order(&["display-message", "-p", "#{alternate_on}"])?.trim() == "1")
    }

    /// Whether there is a cursor.
    pub fn has_cursor(&self) -> Result<bool> {
        Ok(self.order(&["display-message", "-p", "#{cursor_flag}"])?.trim() == "1")
    }

    /// The program that its shell waits for.
    pub fn program(&self) -> Result<i32> {
        let shell = self.order(&["display-message", "-p", "#{pane_pid}"])?;
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        let child = children.split_whitespace().next().context("the shell waits for nobody")?;
        Ok(child.parse()?)
    }

    /// Waits until its screen is as said.
    pub async fn shows(&self, what: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        eventually(&format!("a screen with {what}"), DEADLINE, async || {
            let screen = self.screen()?;
            Ok(if holds(&screen) { Ok(screen) } else { Err(format!("\n{screen}")) })
        })
        .await
    }

    fn order(&self, arguments: &[&str]) -> Result<String> {
        let mut tmux = self.tmux();
        tmux.args(arguments);
        run(tmux)
    }

    fn tmux(&self) -> Command {
        let mut tmux = command("tmux".as_ref());
        tmux.env("LC_ALL", "C.UTF-8").env_remove("TMUX").arg("-u").arg("-S").arg(&self.socket);
        tmux
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Err(error) = self.order(&["kill-server"]) {
            eprintln!("cannot close a terminal: {error:#}");
        }
    }
}

fn run(mut command: Command) -> Result<String> {
    let output = command.output().context("cannot run tmux: `make setup` installs it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
