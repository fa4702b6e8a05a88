//! A monitor and its nodes.

use super::binaries;
use super::monitor::Monitor;
use super::node::{Node, NodeOptions};
use super::place::Place;
use super::process::command;
use super::sandbox::Sandbox;
use super::verdict::logs;
use super::verdict::states;
use super::volume::Storage;
use super::wait::{DEADLINE, Look, eventually};
use super::workload::Workload;
use crate::network::Host;
use anyhow::{Context as _, Result, ensure};
use shared::api::{NodeStatus, Status};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many lines of each log are shown when a test fails.
const SHOWN_LINES: usize = 30;

/// What a cluster shall be.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    nodes: Vec<NodeOptions>,
    order: Option<Vec<usize>>,
    untraced: bool,
    own_clocks: bool,
    monitor: Place,
}

impl Builder {
    /// Adds so many nodes with default options.
    #[must_use]
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes.extend(std::iter::repeat_n(NodeOptions::default(), count));
        self
    }

    /// Adds a node.
    #[must_use]
    pub fn node(mut self, options: NodeOptions) -> Self {
        self.nodes.push(options);
        self
    }

    /// In which order the keepers are started, by number from 1; those left out are not started.
    #[must_use]
    pub fn starting(mut self, order: &[usize]) -> Self {
        self.order = Some(order.to_vec());
        self
    }

    /// Adds a node on a host of a network.
    #[must_use]
    pub fn on(self, host: &Arc<Host>) -> Self {
        self.node(NodeOptions { place: Place::Host(Arc::clone(host)), ..NodeOptions::default() })
    }

    /// The data of the last node is on a volume of its own, of so many megabytes.
    #[must_use]
    pub fn on_volume(self, megabytes: u32) -> Self {
        self.storing(Storage::Data(megabytes))
    }

    /// The WAL of the last node, and nothing else, is on a volume of its own, of so many megabytes.
    #[must_use]
    pub fn wal_on_volume(self, megabytes: u32) -> Self {
        self.storing(Storage::Wal(megabytes))
    }

    fn storing(mut self, storage: Storage) -> Self {
        if let Some(node) = self.nodes.last_mut() {
            node.storage = storage;
        }
        self
    }

    /// The monitor runs on a host of a network.
    #[must_use]
    pub fn monitor_on(mut self, host: &Arc<Host>) -> Self {
        self.monitor = Place::Host(Arc::clone(host));
        self
    }

    /// The monitor and each node have wall clocks of their own, which the test sets.
    #[must_use]
    pub fn with_clocks(mut self) -> Self {
        self.own_clocks = true;
        self
    }

    /// No traces are written: where time is measured.
    #[must_use]
    pub fn untraced(mut self) -> Self {
        self.untraced = true;
        self
    }

    /// Starts the monitor and then, at once, the keepers; waits until all is settled.
    pub async fn start(self) -> Result<Cluster> {
        let sandbox = Sandbox::new()?;
        let sandbox = if self.untraced { sandbox.untraced() } else { sandbox };
        let sandbox = if self.own_clocks { sandbox.with_clocks() } else { sandbox };
        let monitor = Monitor::new(&sandbox, self.monitor)?;
        let nodes = self.nodes.into_iter().zip(1..).map(|(options, number)| {
            Node::new(&sandbox, &format!("node{number}"), &monitor.url(), options)
        });
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let cluster = Cluster { sandbox, monitor, nodes, passed: AtomicBool::new(false) };
        cluster.monitor.start()?;
        cluster.monitor.ready().await?;
        let order = self.order.unwrap_or_else(|| (1..=cluster.nodes.len()).collect());
        for number in &order {
            cluster.node(&format!("node{number}"))?.start_keeper()?;
        }
        if !order.is_empty() {
            cluster.settled().await?;
            for node in cluster.nodes.iter().filter(|node| node.is_up()) {
                node.admit_clients().await?;
            }
        }
        Ok(cluster)
    }
}

/// A monitor and its nodes. Dropped, it takes all its processes with it; its directory stays where no
/// verdict was passed, and wherever `KEEP_TEST_DIRS` is set.
#[derive(Debug)]
pub struct Cluster {
    sandbox: Sandbox,
    monitor: Monitor,
    nodes: Vec<Node>,
    passed: AtomicBool,
}

impl Cluster {
    /// What it shall be.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A cluster of so many nodes, settled.
    pub async fn start(nodes: usize) -> Result<Self> {
        Self::builder().nodes(nodes).start().await
    }

    /// The monitor.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Where everything is.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.with_context(|| format!("there is no {name}"))
    }

    /// Starts the keepers of some nodes at once.
    pub fn start_keepers(&self, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| self.node(name)?.start_keeper())
    }

    /// Adds a node to those that the test has; starts nothing.
    pub fn add_node(&mut self, options: NodeOptions) -> Result<&Node> {
        let name = format!("node{}", self.nodes.len() + 1);
        self.nodes.push(Node::new(&self.sandbox, &name, &self.monitor.url(), options)?);
        self.node(&name)
    }

    /// The primary, of a group that has one now.
    pub async fn primary(&self) -> Result<&Node> {
        let status = self.monitor.status().await?;
        let name = status.primary.context("the group has no primary")?;
        self.node(name.as_str())
    }

    /// The nodes that are up and not the primary.
    pub async fn standbys(&self) -> Result<Vec<&Node>> {
        let primary = self.primary().await?.name();
        Ok(self.nodes.iter().filter(|node| node.is_up() && node.name() != primary).collect())
    }

    /// Starts to write to all nodes.
    pub async fn workload(&self) -> Result<Workload> {
        let nodes: Vec<_> = self.nodes.iter().map(Node::address).collect();
        Workload::start(self.primary().await?.address(), &nodes).await
    }

    /// Waits until every node that is up has come to rest: one primary that waits for all the
    /// standbys that it should, everybody else streaming, nothing under way.
    pub async fn settled(&self) -> Result<Status> {
        self.settled_within(DEADLINE).await
    }

    /// The same, with a deadline of its own.
    pub async fn settled_within(&self, limit: Duration) -> Result<Status> {
        let look = |status: &Status| {
            let unsettled = states::unsettled(status, &self.names_up());
            if unsettled.is_empty() { Ok(()) } else { Err(unsettled.join("; ")) }
        };
        self.wait_within("a settled group", limit, look).await
    }

    /// Waits until the status is as said.
    pub async fn wait_until(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Result<Status> {
        let look = |status: &Status| if holds(status) { Ok(()) } else { Err(String::new()) };
        self.wait_within(what, DEADLINE, look).await
    }

    /// Waits until a node is as said.
    pub async fn wait_for_node(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&NodeStatus) -> bool,
    ) -> Result<Status> {
        let what = format!("{name}: {what}");
        self.wait_until(&what, |status| node_of(status, name).is_some_and(&holds)).await
    }

    /// Watches for a while that something goes on to hold.
    pub async fn stays(
        &self,
        what: &str,
        span: Duration,
        holds: impl Fn(&Status) -> bool,
    ) -> Result<()> {
        let until = Instant::now() + span;
        let watch = eventually(what, span + DEADLINE, async || {
            let status = self.monitor.status().await?;
            ensure!(holds(&status), "not {what} any more: {}", summary(&status));
            Ok(if Instant::now() >= until { Ok(()) } else { Err(String::new()) })
        });
        watch.await
    }

    /// Waits until the status is as said, with an own deadline and an own account of what is there.
    pub async fn wait_within(
        &self,
        what: &str,
        limit: Duration,
        look: impl Fn(&Status) -> Look<()>,
    ) -> Result<Status> {
        let wait = eventually(what, limit, async || {
            self.nobody_ended()?;
            let status = match self.monitor.status().await {
                Ok(status) => status,
                Err(error) => return Ok(Err(format!("no status: {error:#}"))),
            };
            match look(&status) {
                Ok(()) => Ok(Ok(status)),
                Err(seen) => Ok(Err(format!("{seen}\n{}", summary(&status)))),
            }
        });
        wait.await
    }

    /// Nothing else is to come: the directory may go.
    pub fn pass(&self) {
        self.passed.store(true, Ordering::Relaxed);
    }

    /// The names of the nodes that are up.
    pub fn names_up(&self) -> Vec<String> {
        let up = self.nodes.iter().filter(|node| node.is_up());
        up.map(|node| node.name().to_owned()).collect()
    }

    /// Fails where a program has ended that nobody told to.
    pub fn nobody_ended(&self) -> Result<()> {
        let ended = self.monitor.unexpected_end()?;
        ensure!(ended.is_none(), "the monitor has ended: {ended:?}");
        for node in &self.nodes {
            let ended = node.unexpected_end()?;
            ensure!(ended.is_none(), "the keeper of {} has ended: {ended:?}", node.name());
        }
        Ok(())
    }

    /// What a person who looks for the cause wants to see.
    fn report(&self) -> String {
        let mut text = format!("left for a look: {}\n", self.sandbox.root().display());
        for arguments in [&["status"][..], &["events", "--count", "60"], &["explain"]] {
            let output = binaries::ours("pgtandem").and_then(|program| {
                let mut timeout = command("timeout".as_ref());
                timeout.arg("5").arg(program).args(["--monitor", &self.monitor.url()]);
                Ok(timeout.args(arguments).output()?)
            });
            let _ = match output {
                Ok(output) => {
                    let (out, err) = (output.stdout, output.stderr);
                    let lossy = String::from_utf8_lossy;
                    writeln!(text, "--- {}\n{}{}", arguments.join(" "), lossy(&out), lossy(&err))
                }
                Err(error) => writeln!(text, "--- {}: {error:#}", arguments.join(" ")),
            };
        }
        for path in self.sandbox.logs() {
            let tail = logs::tail(&path, SHOWN_LINES);
            let _ = writeln!(text, "--- {}\n{tail}", path.display());
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let passed = self.passed.load(Ordering::Relaxed);
        if !passed {
            eprintln!("{}", self.report());
        }
        let volumes = self.nodes.iter().filter_map(|node| node.volume().ok());
        for volume in volumes.filter(|volume| volume.is_frozen()) {
            // Who waits for a frozen one does not end. One that has thawed by itself is no trouble.
            drop(volume.thaw());
        }
        self.sandbox.end_processes();
        // With them go their volumes, which are mounted in the directory.
        self.nodes.clear();
        if passed && std::env::var_os("KEEP_TEST_DIRS").is_none() {
            self.sandbox.remove();
        }
    }
}

/// The node of this name in a status.
pub fn node_of<'a>(status: &'a Status, name: &str) -> Option<&'a NodeStatus> {
    status.nodes.iter().find(|node| node.name.as_str() == name)
}

/// A status in a few lines.
pub fn summary(status: &Status) -> String {
    let mut text = format!(
        "revision {} epoch {} phase {} primary {:?} writable {} sync {:?} operation {:?}",
        status.revision,
        status.epoch,
        status.phase,
        status.primary.as_ref().map(ToString::to_string),
        status.writable,
        status.sync,
        status.operation,
    );
    for node in &status.nodes {
        let _ = write!(
            text,
            "\n  {}: {} -> {}, {}, running {}, timeline {:?}, lsn {:?}, step {:?}, {:?}",
            node.name,
            node.reported_state,
            node.goal_state,
            node.health,
            node.pg_running,
            node.timeline.map(|timeline| timeline.0),
            node.lsn.map(|lsn| lsn.to_string()),
            node.step.as_ref().map(|step| &step.name),
            node.warnings,
        );
    }
    text
}
