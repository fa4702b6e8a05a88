//! The processes of clients, and where their programs are.

use super::Client;
use super::account::Account;
use crate::harness::binaries;
use crate::harness::process::command;
use crate::harness::wait::{DEADLINE, eventually};
use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where `make setup` puts the libraries of other languages.
const LIBRARIES: &str = "/opt/pgtandem-test/clients";

/// A script of `tests/clients/`, with the libraries and the programs of PostgreSQL that it needs.
pub(super) fn script(interpreter: &str, name: &str) -> Result<Command> {
    let mut command = command(interpreter.as_ref());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name));
    command.env("PYTHONPATH", format!("{LIBRARIES}/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("NODE_PATH", format!("{LIBRARIES}/node/node_modules"));
    let programs = binaries::postgres("psql")?;
    let programs = programs.parent().context("psql is nowhere")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = [programs.to_owned()].into_iter().chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(dirs)?);
    Ok(command)
}

/// One of those in Rust.
pub(super) fn ours(library: &str) -> Result<Command> {
    let mut command = command(&binaries::ours("client")?);
    command.arg(library);
    Ok(command)
}

/// A client that writes. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Running {
    client: Client,
    child: Child,
    said: PathBuf,
    complaints: PathBuf,
}

impl Running {
    /// Starts it in a process group of its own; what it says goes into a directory.
    pub(super) fn start(client: Client, mut command: Command, dir: &Path) -> Result<Self> {
        let said = dir.join(client.name());
        let complaints = dir.join(format!("{}.err", client.name()));
        command.stdin(Stdio::piped()).process_group(0);
        command.stdout(File::create(&said)?).stderr(File::create(&complaints)?);
        let child = command.spawn().with_context(|| format!("cannot start {}", client.name()))?;
        Ok(Self { client, child, said, complaints })
    }

    /// Which one it is.
    pub(super) fn client(&self) -> Client {
        self.client
    }

    /// What it has said so far.
    pub(super) fn account(&self) -> Result<Account> {
        Account::read(&fs::read_to_string(&self.said)?)
            .with_context(|| format!("what {} says", self.client.name()))
    }

    /// Fails where it has complained: one that ends by itself says why.
    pub(super) fn is_up(&self) -> Result<()> {
        let complaints = fs::read_to_string(&self.complaints)?;
        ensure!(complaints.is_empty(), "{}: {complaints}", self.client.name());
        Ok(())
    }

    /// Tells it to end, and waits for that.
    pub(super) async fn end(&mut self) -> Result<()> {
        self.is_up()?;
        drop(self.child.stdin.take());
        let what = format!("the end of {}", self.client.name());
        let status = eventually(&what, DEADLINE, async || {
            Ok(self.child.try_wait()?.ok_or_else(|| "it is running".to_owned()))
        })
        .await?;
        ensure!(status.success(), "{} has ended: {status}", self.client.name());
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            // What has ended meanwhile is no trouble.
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            drop(self.child.wait());
        }
    }
}
