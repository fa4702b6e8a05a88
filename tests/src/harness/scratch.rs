//! Clusters that were there before pgtandem: made by hand, as an operator would.

use super::binaries;
use super::node::Node;
use super::sandbox::{give_to_postgres, postgres_user};
use anyhow::{Context as _, Result, bail};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

impl Node {
    /// Makes a cluster in the data directory, with settings of its own at the end of
    /// `postgresql.conf`.
    pub fn init_by_hand(&self, settings: &str) -> Result<()> {
        init_cluster(&self.pgdata())?;
        let path = self.pgdata().join("postgresql.conf");
        let socket_dir = self.socket_dir();
        let text = format!(
            "{}\nport = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n{settings}\n",
            std::fs::read_to_string(&path)?,
            self.port(),
            socket_dir.display(),
        );
        std::fs::write(&path, text)?;
        give_to_postgres(&path)
    }

    /// Starts the server in the data directory without a keeper.
    pub fn start_by_hand(&self) -> Result<()> {
        let log = self.dir().join("by_hand.log");
        self.pg_ctl(&["start", "-w", "-l", &log.display().to_string()])
    }

    /// Stops the server in the data directory.
    pub fn stop_by_hand(&self) -> Result<()> {
        self.pg_ctl(&["stop", "-w", "-m", "fast"])
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Result<()> {
        let mut command = as_postgres("pg_ctl")?;
        command.arg("-D").arg(self.pgdata()).args(arguments);
        run(command)
    }
}

/// Makes a cluster, with `trust` for everybody on this machine.
pub fn init_cluster(dir: &Path) -> Result<()> {
    let mut command = as_postgres("initdb")?;
    command.arg("-D").arg(dir).args(["-U", "postgres", "-A", "trust", "-k", "--no-sync"]);
    run(command)
}

fn as_postgres(program: &str) -> Result<Command> {
    let mut command = super::process::command(&binaries::postgres(program)?);
    // Where user postgres can be.
    command.current_dir("/");
    if let Some((uid, gid)) = postgres_user()? {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// To the end. Nothing is kept open that a server which it starts could hold.
fn run(mut command: Command) -> Result<()> {
    let said = tempfile::tempfile()?;
    command.stdin(std::process::Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        let mut said = said;
        let mut text = String::new();
        std::io::Seek::rewind(&mut said)?;
        std::io::Read::read_to_string(&mut said, &mut text)?;
        bail!("{command:?}: {status}: {text}");
    }
    Ok(())
}
