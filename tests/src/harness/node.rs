//! One data node: its keeper, its Postgres, and what can happen to them.

use super::binaries::{self, Build};
use super::clock::Clock;
use super::place::Place;
use super::ports::Port;
use super::process::{Daemon, TRACE, command, is_alive, servers_in, signal, working_in};
use super::sandbox::Sandbox;
use super::sql::Sql;
use super::volume::{Storage, Volume};
use super::wait::{DEADLINE, eventually};
use crate::network::Host;
use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a node is set up, where that differs from the defaults.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// 0: never promoted by itself.
    pub candidate_priority: Option<u8>,
    /// Whether it may be in the sync set.
    pub replication_quorum: Option<bool>,
    /// Further arguments of its keeper.
    pub arguments: Vec<String>,
    /// Where it runs.
    pub place: Place,
    /// What of it is on a volume of its own.
    pub storage: Storage,
    /// Which build its keeper is of, to begin with.
    pub build: Build,
}

/// A node, whether it runs or not.
#[derive(Debug)]
pub struct Node {
    name: String,
    dir: PathBuf,
    log: PathBuf,
    trace: Option<PathBuf>,
    clock: Option<Clock>,
    port: Port,
    rest: Port,
    monitor: String,
    options: NodeOptions,
    volume: Option<Volume>,
    build: Mutex<Build>,
    keeper: Mutex<Option<Daemon>>,
}

impl Node {
    /// Prepares a node in a sandbox; starts nothing.
    pub fn new(sandbox: &Sandbox, name: &str, monitor: &str, options: NodeOptions) -> Result<Self> {
        let dir = sandbox.dir(name)?;
        let volume = options.storage.volume(&dir.join("volume"))?;
        if let (Some(volume), Some(host)) = (&volume, options.place.host()) {
            volume.show(host)?;
        }
        let clock = sandbox.clock(&dir)?;
        let node = Self {
            name: name.to_owned(),
            dir,
            log: sandbox.log(name),
            trace: sandbox.trace(name),
            clock,
            port: Port::take()?,
            rest: Port::take()?,
            monitor: monitor.to_owned(),
            build: Mutex::new(options.build),
            options,
            volume,
            keeper: Mutex::new(None),
        };
        sandbox.dir(&format!("{name}/sock"))?;
        Ok(node)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port of its Postgres.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where its Postgres is reached.
    pub fn address(&self) -> SocketAddr {
        self.options.place.address(self.port())
    }

    /// Its wall clock.
    pub fn clock(&self) -> Result<&Clock> {
        self.clock.as_ref().with_context(|| format!("{} has no clock of its own", self.name))
    }

    /// The host that it runs on, where it has one of its own.
    pub fn host(&self) -> Option<&Arc<Host>> {
        self.options.place.host()
    }

    /// The port of its keeper's REST interface.
    pub fn rest_port(&self) -> u16 {
        self.rest.number()
    }

    /// Where its keeper answers load balancers.
    pub fn rest_address(&self) -> SocketAddr {
        self.options.place.address(self.rest_port())
    }

    /// The directory that everything of it is in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its data directory.
    pub fn pgdata(&self) -> PathBuf {
        match (&self.volume, self.options.storage) {
            (Some(volume), Storage::Data(_)) => volume.dir().join("data"),
            (_, Storage::Directory | Storage::Data(_) | Storage::Wal(_)) => self.dir.join("data"),
        }
    }

    /// The volume that its data or its WAL is on.
    pub fn volume(&self) -> Result<&Volume> {
        self.volume.as_ref().with_context(|| format!("{} has no volume", self.name))
    }

    /// Where its unix socket is.
    pub fn socket_dir(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// Its Postgres by its unix socket, under another port than its own.
    pub async fn sql_at(&self, port: u16) -> Result<Sql> {
        Sql::connect_locally(&self.socket_dir(), port).await.with_context(|| self.name.clone())
    }

    /// Where its keeper remembers things.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// What its keeper has logged.
    pub fn keeper_log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("no log of {}", self.name))
    }

    /// The command that runs its keeper.
    pub fn keeper_command(&self) -> Result<Command> {
        self.keeper_command_as(&self.name, self.port())
    }

    /// The command that runs its keeper under a name and with a port that may not be its own.
    pub fn keeper_command_as(&self, name: &str, port: u16) -> Result<Command> {
        let build = *self.build.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = build.command("pgtandem-keeper")?;
        command.args(["run", "--monitor", &self.monitor, "--name", name]);
        let place = &self.options.place;
        command.arg("--host").arg(place.address(port).ip().to_string());
        command.args(["--port", &port.to_string()]);
        command.arg("--rest-listen").arg(place.address(self.rest_port()).to_string());
        command.arg("--pgdata").arg(self.pgdata());
        if let (Some(volume), Storage::Wal(_)) = (&self.volume, self.options.storage) {
            command.arg("--waldir").arg(volume.dir().join("wal"));
        }
        command.arg("--state-dir").arg(self.state_dir());
        command.arg("--socket-dir").arg(self.socket_dir());
        command.args(["--auth", "trust"]);
        if let Some(dir) = binaries::bin_dir() {
            command.arg("--bin-dir").arg(dir);
        }
        if let Some(priority) = self.options.candidate_priority {
            command.args(["--candidate-priority", &priority.to_string()]);
        }
        if let Some(quorum) = self.options.replication_quorum {
            command.args(["--replication-quorum", &quorum.to_string()]);
        }
        command.args(&self.options.arguments);
        if let Some(trace) = &self.trace {
            command.env(TRACE, trace);
        }
        if let Some(clock) = &self.clock {
            clock.below(&mut command);
        }
        Ok(command)
    }

    /// A command of its keeper's program about this node, such as `attach`.
    pub fn keeper_tool(&self, name: &str) -> Result<Command> {
        let mut command = command(&binaries::ours("pgtandem-keeper")?);
        let rest = self.options.place.address(self.rest_port()).to_string();
        command.args([name, "--rest-listen", &rest, "--json"]);
        command.arg("--pgdata").arg(self.pgdata()).arg("--state-dir").arg(self.state_dir());
        Ok(command)
    }

    /// From its next start on its keeper is of this build.
    pub fn install(&self, build: Build) {
        *self.build.lock().unwrap_or_else(PoisonError::into_inner) = build;
    }

    /// Starts its keeper.
    pub fn start_keeper(&self) -> Result<()> {
        let mut keeper = self.keeper();
        if keeper.is_some() {
            bail!("the keeper of {} is running already", self.name);
        }
        let name = format!("the keeper of {}", self.name);
        *keeper = Some(self.options.place.start(&name, self.keeper_command()?, &self.log)?);
        Ok(())
    }

    /// Starts its keeper under another name and port.
    pub fn start_keeper_as(&self, name: &str, port: u16) -> Result<()> {
        let mut keeper = self.keeper();
        if keeper.is_some() {
            bail!("the keeper of {} is running already", self.name);
        }
        let command = self.keeper_command_as(name, port)?;
        let name = format!("the keeper of {}", self.name);
        *keeper = Some(self.options.place.start(&name, command, &self.log)?);
        Ok(())
    }

    /// Whether the harness has a keeper of it running.
    pub fn is_up(&self) -> bool {
        self.keeper().is_some()
    }

    /// How its keeper ended, if it ended without having been told to.
    pub fn unexpected_end(&self) -> Result<Option<ExitStatus>> {
        self.keeper().as_mut().map_or(Ok(None), Daemon::ended)
    }

    /// SIGKILL to the keeper alone.
    pub fn kill_keeper(&self) -> Result<()> {
        self.take_keeper()?.kill()
    }

    /// SIGKILL to the postmaster alone; its children notice by themselves.
    pub fn kill_postmaster(&self) -> Result<()> {
        signal(self.postmaster()?, Signal::KILL)
    }

    /// SIGKILL to the keeper and, at the same instant, to the postmaster.
    pub fn kill_both(&self) -> Result<()> {
        let postmaster = self.postmaster()?;
        self.kill_keeper()?;
        signal(postmaster, Signal::KILL)
    }

    /// SIGKILL to the keeper and to every process of its Postgres, frozen ones too: the machine is gone.
    pub fn kill_all(&self) -> Result<()> {
        self.kill_keeper()?;
        super::process::kill_all_in(&self.dir);
        Ok(())
    }

    /// The plug of its host is pulled.
    pub fn power_off(&self) -> Result<()> {
        let host = self.host().with_context(|| format!("{} has no host", self.name))?;
        host.power_off()?;
        self.take_keeper()?.take_in()
    }

    /// Its host is on again, with nothing running.
    pub fn power_on(&self) -> Result<()> {
        self.host().with_context(|| format!("{} has no host", self.name))?.power_on()
    }

    /// SIGTERM to the keeper, and its end.
    pub async fn stop_keeper(&self) -> Result<ExitStatus> {
        let mut keeper = self.take_keeper()?;
        keeper.signal(Signal::TERM)?;
        keeper.wait().await
    }

    /// Waits for the end of a keeper that ends by itself.
    pub async fn keeper_ends(&self) -> Result<ExitStatus> {
        let mut keeper = self.take_keeper()?;
        keeper.wait().await
    }

    /// Somebody restarts its Postgres behind the keeper's back, as `pg_ctl restart` does; whoever starts it
    /// first has started it.
    pub async fn restart_postgres(&self) -> Result<()> {
        let before = self.postmaster()?;
        let mut command = command("setpriv".as_ref());
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(binaries::postgres("pg_ctl")?);
        // Where the keeper was faster, it takes the new server for one that does not stop.
        command.args(["restart", "--mode=fast", "--no-wait", "--silent", "--timeout=3", "-D"]);
        command.arg(self.pgdata()).arg("-l").arg(self.pgdata().join("pg_ctl.log"));
        self.options.place.start("pg_ctl", command, &self.log)?.wait().await?;
        eventually("another postmaster", DEADLINE, async || match self.postmaster() {
            Ok(now) if now != before => Ok(Ok(())),
            Ok(_) => Ok(Err("it is the same".to_owned())),
            Err(error) => Ok(Err(error.to_string())),
        })
        .await
    }

    /// Freezes its keeper alone.
    pub fn freeze_keeper(&self) -> Result<()> {
        self.signal_keeper(Signal::STOP)
    }

    /// Lets a frozen keeper go on.
    pub fn thaw_keeper(&self) -> Result<()> {
        self.signal_keeper(Signal::CONT)
    }

    /// A signal to the keeper alone, which goes on to count as running.
    pub fn signal_keeper(&self, what: Signal) -> Result<()> {
        let keeper = self.keeper();
        keeper
            .as_ref()
            .with_context(|| format!("{} has no keeper running", self.name))?
            .signal(what)
    }

    /// SIGKILL to one server process that is not the postmaster, as the kernel does when memory is short.
    pub fn kill_backend(&self) -> Result<()> {
        let postmaster = self.postmaster()?;
        let others = servers_in(&self.pgdata()).into_iter().filter(|pid| *pid != postmaster);
        let victim = others.max().with_context(|| format!("{} has no backend", self.name))?;
        signal(victim, Signal::KILL)
    }

    /// Freezes keeper and Postgres.
    pub fn freeze(&self) -> Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// Freezes its postmaster alone: sessions go on, new ones get no answer.
    pub fn freeze_postmaster(&self) -> Result<()> {
        signal(self.postmaster()?, Signal::STOP)
    }

    /// Freezes all of its Postgres, and nothing else.
    pub fn freeze_postgres(&self) -> Result<()> {
        self.freeze_postmaster()?;
        self.signal_postgres(Signal::STOP);
        Ok(())
    }

    /// Lets a frozen Postgres go on, where it has not been killed meanwhile.
    pub fn thaw_postgres(&self) {
        self.signal_postgres(Signal::CONT);
    }

    /// The running postmaster.
    pub fn postmaster(&self) -> Result<i32> {
        let path = self.pgdata().join("postmaster.pid");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} has no postmaster", self.name))?;
        let pid = text.lines().next().context("an empty postmaster.pid")?.trim().parse()?;
        let pid = self.options.place.outside(pid)?;
        if !is_alive(pid) {
            bail!("the postmaster {pid} of {} is dead", self.name);
        }
        Ok(pid)
    }

    /// Whether any process of its Postgres is left.
    pub fn has_postgres(&self) -> bool {
        working_in(&self.pgdata()).into_iter().any(is_alive)
    }

    /// Tells one data directory from another that took its place.
    pub fn pgdata_inode(&self) -> Result<u64> {
        Ok(fs::metadata(self.pgdata())?.ino())
    }

    /// A session with its Postgres.
    pub async fn sql(&self) -> Result<Sql> {
        Sql::connect(self.address()).await.with_context(|| self.name.clone())
    }

    /// On a host of its own clients come over the network; a copy takes over who is let in.
    pub(super) async fn admit_clients(&self) -> Result<()> {
        let Some(host) = self.host() else { return Ok(()) };
        let rule = format!("host all all {}/24 trust\n", host.address());
        let path = self.pgdata().join("pg_hba.conf");
        let rules = fs::read_to_string(&path)?;
        if !rules.contains(&rule) {
            fs::write(&path, rules + &rule)?;
        }
        let local = Sql::connect_locally(&self.socket_dir(), self.port()).await?;
        local.run("select pg_reload_conf()").await
    }

    fn signal_postgres(&self, what: Signal) {
        for pid in servers_in(&self.pgdata()) {
            // One that ended meanwhile is no trouble.
            drop(signal(pid, what));
        }
    }

    fn signal_all(&self, what: Signal) -> Result<()> {
        if let Some(keeper) = self.keeper().as_ref() {
            keeper.signal(what)?;
        }
        for pid in working_in(&self.dir) {
            // One that ended meanwhile is no trouble.
            drop(signal(pid, what));
        }
        Ok(())
    }

    fn take_keeper(&self) -> Result<Daemon> {
        self.keeper().take().with_context(|| format!("{} has no keeper running", self.name))
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
