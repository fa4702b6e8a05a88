//! The monitor under test.

use super::binaries::Build;
use super::clock::Clock;
use super::place::Place;
use super::ports::Port;
use super::process::{Daemon, TRACE, kill_all_in, signal};
use super::sandbox::Sandbox;
use super::wait::{DEADLINE, eventually};
use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use shared::api::{Explanation, Ready, Status};
use shared::event::Event;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A monitor that is up answers within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A monitor, whether it runs or not.
#[derive(Debug)]
pub struct Monitor {
    place: Place,
    dir: PathBuf,
    log: PathBuf,
    trace: Option<PathBuf>,
    clock: Option<Clock>,
    port: Mutex<Port>,
    http: reqwest::Client,
    build: Mutex<Build>,
    process: Mutex<Option<Daemon>>,
    arguments: Mutex<Vec<String>>,
}

impl Monitor {
    /// Prepares a monitor in a sandbox; starts nothing.
    pub fn new(sandbox: &Sandbox, place: Place) -> Result<Self> {
        Ok(Self {
            place,
            dir: sandbox.dir("monitor")?,
            log: sandbox.log("monitor"),
            trace: sandbox.trace("monitor"),
            clock: sandbox.clock(&sandbox.dir("monitor")?)?,
            port: Mutex::new(Port::take()?),
            http: reqwest::Client::builder().timeout(ANSWER_LIMIT).build()?,
            build: Mutex::default(),
            process: Mutex::new(None),
            arguments: Mutex::default(),
        })
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    fn address(&self) -> SocketAddr {
        let port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        self.place.address(port.number())
    }

    /// From its next start on it answers elsewhere.
    pub fn moves(&self) -> Result<()> {
        *self.port.lock().unwrap_or_else(PoisonError::into_inner) = Port::take()?;
        Ok(())
    }

    /// Its host is gone, with everything that it knew.
    pub fn lose(&self) -> Result<()> {
        if self.is_up() {
            self.kill_all()?;
        }
        std::fs::remove_dir_all(self.data_dir()).context("the monitor's directory")
    }

    /// Starts it with an empty directory, to take over what the keepers know.
    pub fn start_adopting(&self) -> Result<()> {
        let mut command = self.command()?;
        command.arg("--adopt");
        self.start_as(command)
    }

    /// Its wall clock.
    pub fn clock(&self) -> Result<&Clock> {
        self.clock.as_ref().context("the monitor has no clock of its own")
    }

    /// From its next start on it is of this build.
    pub fn install(&self, build: Build) {
        *self.build.lock().unwrap_or_else(PoisonError::into_inner) = build;
    }

    /// From its next start on it is given these arguments, too.
    pub fn takes(&self, arguments: &[String]) {
        let mut taken = self.arguments.lock().unwrap_or_else(PoisonError::into_inner);
        taken.extend_from_slice(arguments);
    }

    /// Starts it.
    pub fn start(&self) -> Result<()> {
        self.start_as(self.command()?)
    }

    fn start_as(&self, command: Command) -> Result<()> {
        let mut process = self.process();
        if process.is_some() {
            bail!("the monitor is running already");
        }
        *process = Some(self.place.start("the monitor", command, &self.log)?);
        Ok(())
    }

    /// Where it keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The command that runs it.
    pub fn command(&self) -> Result<Command> {
        self.command_in(&self.data_dir())
    }

    /// The command that runs it with a data directory that may not be its own.
    pub fn command_in(&self, data_dir: &Path) -> Result<Command> {
        let build = *self.build.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = build.command("pgtandem-monitor")?;
        command.arg("run").arg("--data-dir").arg(data_dir);
        command.arg("--listen").arg(self.address().to_string());
        command.args(&*self.arguments.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(trace) = &self.trace {
            command.env(TRACE, trace);
        }
        if let Some(clock) = &self.clock {
            clock.below(&mut command);
        }
        Ok(command)
    }

    /// SIGKILL; its own Postgres lives on.
    pub fn kill(&self) -> Result<()> {
        self.take()?.kill()
    }

    /// SIGKILL to the postmaster of its own Postgres; waits until there is another.
    pub async fn kill_storage(&self) -> Result<()> {
        let ready: Ready = self.get("/readyz").await?;
        let killed = ready.storage.pid.context("the monitor has no Postgres of its own")?;
        signal(killed, Signal::KILL)?;
        eventually("another Postgres of the monitor", DEADLINE, async || {
            let ready: Ready = self.get("/readyz").await?;
            let is_back = ready.ready && ready.storage.pid.is_some_and(|pid| pid != killed);
            Ok(if is_back { Ok(()) } else { Err(format!("{ready:?}")) })
        })
        .await
    }

    /// SIGKILL to it and to every process of its own Postgres.
    pub fn kill_all(&self) -> Result<()> {
        self.kill()?;
        kill_all_in(&self.dir);
        Ok(())
    }

    /// Sends a signal to its process alone.
    pub fn signal(&self, what: Signal) -> Result<()> {
        self.process().as_ref().context("the monitor is not running")?.signal(what)
    }

    /// The plug of its host is pulled.
    pub fn power_off(&self) -> Result<()> {
        self.place.host().context("the monitor has no host")?.power_off()?;
        self.take()?.take_in()
    }

    /// Its host is on again, with nothing running.
    pub fn power_on(&self) -> Result<()> {
        self.place.host().context("the monitor has no host")?.power_on()
    }

    /// SIGTERM, and its end.
    pub async fn stop(&self) -> Result<ExitStatus> {
        let mut process = self.take()?;
        process.signal(Signal::TERM)?;
        process.wait().await
    }

    /// Whether the harness has it running.
    pub fn is_up(&self) -> bool {
        self.process().is_some()
    }

    /// How it ended, if it ended without having been told to.
    pub fn unexpected_end(&self) -> Result<Option<ExitStatus>> {
        self.process().as_mut().map_or(Ok(None), Daemon::ended)
    }

    /// Waits until it serves requests.
    pub async fn ready(&self) -> Result<()> {
        eventually("a monitor that is ready", DEADLINE, async || {
            if let Some(status) = self.unexpected_end()? {
                bail!("the monitor ended while it was starting: {status}");
            }
            match self.get::<Ready>("/readyz").await {
                Ok(ready) if ready.ready => Ok(Ok(())),
                Ok(ready) => Ok(Err(format!("{ready:?}"))),
                Err(error) => Ok(Err(format!("{error:#}"))),
            }
        })
        .await
    }

    /// The formation as it stands.
    pub async fn status(&self) -> Result<Status> {
        self.get("/v1/formations/default/status").await
    }

    /// What stands in the way.
    pub async fn explain(&self) -> Result<Explanation> {
        self.get("/v1/formations/default/explain").await
    }

    /// The history after an event, oldest first.
    pub async fn events(&self, after: u64) -> Result<Vec<Event>> {
        let mut all: Vec<Event> = Vec::new();
        loop {
            let last = all.last().map_or(after, |event| event.id);
            let path = format!("/v1/formations/default/events?after={last}&count=500");
            let page: Vec<Event> = self.get(&path).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// The id of the newest event.
    pub async fn newest_event(&self) -> Result<u64> {
        let newest: Vec<Event> = self.get("/v1/formations/default/events?count=1").await?;
        Ok(newest.last().map_or(0, |event| event.id))
    }

    async fn get<T: for<'de> serde::Deserialize<'de>>(&self, path: &str) -> Result<T> {
        let answer = self.http.get(format!("{}{path}", self.url())).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {status}: {text}"))
    }

    fn take(&self) -> Result<Daemon> {
        self.process().take().context("the monitor is not running")
    }

    fn process(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
