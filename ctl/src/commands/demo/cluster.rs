//! The demo's processes and files: all in one temporary directory, on ports that were free.
//!
//! Only processes that were started here are ever signalled, by pid, after a check that the pid still
//! is what it was.

use crate::exit::Exit;
use crate::failure::Failure;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// The cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    dir: PathBuf,
    bin_dir: Option<PathBuf>,
    monitor: Option<(Child, SocketAddr)>,
    nodes: Vec<Node>,
    kept: bool,
}

#[derive(Debug)]
struct Node {
    name: String,
    address: SocketAddr,
    rest: SocketAddr,
    keeper: Option<Child>,
}

fn fault(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Internal, "demo", text)
}

fn free_address() -> Result<SocketAddr, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| fault(format!("there is no free port: {error}")))
}

/// One of our programs: beside this one, else in PATH.
fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

impl Cluster {
    pub(super) fn new(bin_dir: Option<PathBuf>) -> Result<Self, Failure> {
        let made = tempfile::Builder::new().prefix("pgtandem-demo-").tempdir();
        let dir = made.map_err(|error| fault(format!("cannot make a directory: {error}")))?.keep();
        // Postgres runs as another user when this is root, and has to get through.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))
            .map_err(|error| fault(format!("cannot open up {}: {error}", dir.display())))?;
        Ok(Self { dir, bin_dir, monitor: None, nodes: Vec::new(), kept: false })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn spawn(&self, command: &mut Command, log: &str) -> Result<Child, Failure> {
        let path = self.dir.join(log);
        let log = std::fs::File::options().create(true).append(true).open(&path);
        let log =
            log.map_err(|error| fault(format!("cannot write {}: {error}", path.display())))?;
        if let Some(dir) = &self.bin_dir {
            command.arg("--bin-dir").arg(dir);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        command.spawn().map_err(|error| {
            fault(format!("cannot run {}: {error}", command.get_program().to_string_lossy()))
        })
    }

    pub(super) fn start_monitor(&mut self) -> Result<(), Failure> {
        let address = free_address()?;
        let mut command = Command::new(program("pgtandem-monitor"));
        command.arg("run").arg("--data-dir").arg(self.dir.join("monitor"));
        command.arg("--listen").arg(address.to_string());
        let child = self.spawn(&mut command, "monitor.log")?;
        self.monitor = Some((child, address));
        Ok(())
    }

    pub(super) fn start_node(&mut self, number: u8) -> Result<(), Failure> {
        let name = format!("node{number}");
        let (address, rest) = (free_address()?, free_address()?);
        let keeper = Some(self.start_keeper(&name, address, rest)?);
        self.nodes.push(Node { name, address, rest, keeper });
        Ok(())
    }

    fn start_keeper(
        &self,
        name: &str,
        address: SocketAddr,
        rest: SocketAddr,
    ) -> Result<Child, Failure> {
        let mut command = Command::new(program("pgtandem-keeper"));
        command.args(["run", "--name", name, "--auth", "trust"]);
        command.arg("--monitor").arg(self.monitor_url());
        command.arg("--host").arg(address.ip().to_string());
        command.arg("--port").arg(address.port().to_string());
        command.arg("--rest-listen").arg(rest.to_string());
        for (option, what) in
            [("--pgdata", "data"), ("--state-dir", "keeper"), ("--socket-dir", "socket")]
        {
            command.arg(option).arg(self.dir.join(name).join(what));
        }
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir)
            .map_err(|error| fault(format!("cannot make {}: {error}", dir.display())))?;
        self.spawn(&mut command, &format!("{name}.log"))
    }

    pub(super) fn monitor_url(&self) -> String {
        self.monitor.as_ref().map(|(_, address)| format!("http://{address}")).unwrap_or_default()
    }

    /// Where the nodes' Postgres listen.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    pub(super) fn address_of(&self, name: &str) -> Option<SocketAddr> {
        self.nodes.iter().find(|node| node.name == name).map(|node| node.address)
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut Node, Failure> {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        node.ok_or_else(|| fault(format!("there is no node {name}")))
    }

    /// Kills the keeper and the Postgres of a node at one stroke.
    pub(super) fn kill(&mut self, name: &str) -> Result<(), Failure> {
        let postmaster = self.postmaster(name);
        let node = self.node_mut(name)?;
        if let Some(mut keeper) = node.keeper.take() {
            drop(keeper.kill());
            drop(keeper.wait());
        }
        if let Some(pid) = postmaster {
            signal(pid, "-KILL");
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, name: &str) -> Result<(), Failure> {
        let node = self.node_mut(name)?;
        let (address, rest) = (node.address, node.rest);
        let keeper = self.start_keeper(name, address, rest)?;
        self.node_mut(name)?.keeper = Some(keeper);
        Ok(())
    }

    /// The postmaster of a node, if it runs and is ours.
    fn postmaster(&self, name: &str) -> Option<u32> {
        let data = self.dir.join(name).join("data");
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let pid: u32 = text.lines().next()?.parse().ok()?;
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        (cwd == std::fs::canonicalize(data).ok()?).then_some(pid)
    }

    /// Fails when a process that should run has ended.
    pub(super) fn check_alive(&mut self) -> Result<(), Failure> {
        let dir = self.dir.clone();
        let ended = |child: &mut Child, name: &str| match child.try_wait() {
            Ok(Some(status)) => {
                let log = std::fs::read_to_string(dir.join(format!("{name}.log")));
                let last = log.unwrap_or_default().lines().last().unwrap_or_default().to_owned();
                Err(fault(format!("{name} ended ({status}): {last}")))
            }
            Ok(None) | Err(_) => Ok(()),
        };
        if let Some((monitor, _)) = &mut self.monitor {
            ended(monitor, "monitor")?;
        }
        for node in &mut self.nodes {
            if let Some(keeper) = &mut node.keeper {
                ended(keeper, &node.name)?;
            }
        }
        Ok(())
    }

    /// The newest log lines, for a demo that failed.
    pub(super) fn last_words(&self) -> String {
        let logs =
            std::iter::once("monitor".to_owned()).chain(self.nodes.iter().map(|n| n.name.clone()));
        let mut text = String::new();
        for name in logs {
            let log =
                std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.len().saturating_sub(5);
            for line in lines.iter().skip(last) {
                text.push_str(&format!("{name}: {line}\n"));
            }
        }
        text
    }

    pub(super) fn how_to_use(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| node.address.to_string()).collect();
        let pids: Vec<_> = self.pids().iter().map(ToString::to_string).collect();
        format!(
            "\nthe cluster goes on in {dir}:\n  export PGTANDEM_MONITOR={url}\n  pgtandem status\n  psql 'postgres://postgres@{hosts}/postgres?target_session_attrs=read-write'\nto end it:\n  kill -INT {pids}; rm -rf {dir}\n",
            dir = self.dir.display(),
            url = self.monitor_url(),
            hosts = hosts.join(","),
            pids = pids.join(" "),
        )
    }

    fn pids(&self) -> Vec<u32> {
        let keepers = self.nodes.iter().filter_map(|node| node.keeper.as_ref()).map(Child::id);
        keepers.chain(self.monitor.as_ref().map(|(child, _)| child.id())).collect()
    }

    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// Stops everything and removes the directory.
    pub(super) fn stop(&mut self) {
        for node in &mut self.nodes {
            if let Some(keeper) = &node.keeper {
                signal(keeper.id(), "-INT");
            }
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        for node in &mut self.nodes {
            if let Some(mut keeper) = node.keeper.take() {
                wait(&mut keeper, deadline);
            }
        }
        if let Some((mut monitor, _)) = self.monitor.take() {
            signal(monitor.id(), "-INT");
            wait(&mut monitor, Instant::now() + STOP_PATIENCE);
        }
        let names: Vec<_> = self.nodes.iter().map(|node| node.name.clone()).collect();
        for name in names {
            if let Some(pid) = self.postmaster(&name) {
                signal(pid, "-QUIT");
            }
        }
        drop(std::fs::remove_dir_all(&self.dir));
        self.kept = true;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.kept {
            self.stop();
        }
    }
}

fn wait(child: &mut Child, deadline: Instant) {
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child.kill());
    drop(child.wait());
}

/// Through kill(1): this crate has no system calls of its own.
fn signal(pid: u32, signal: &str) {
    let ended =
        Command::new("kill").arg(signal).arg(pid.to_string()).stderr(Stdio::null()).status();
    drop(ended);
}
