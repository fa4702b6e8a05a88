//! A cluster on hosts: the monitor and each node on one of its own, below one switch.

use super::cluster::{Builder, Cluster};
use super::node::Node;
use super::workload::Workload;
use crate::network::{Fault, Host, Network};
use anyhow::{Context as _, Result};
use std::sync::Arc;

/// Callers that find the primary by themselves.
const CALLERS: usize = 2;

/// A monitor and some nodes, each on a host of its own.
#[derive(Debug)]
pub struct Site<'a> {
    network: &'a Network,
    cluster: Cluster,
    monitor: Arc<Host>,
}

impl<'a> Site<'a> {
    /// Starts a cluster of so many nodes, each as `add` puts it on its host; waits until all is settled.
    pub async fn start(
        network: &'a Network,
        cluster: Builder,
        nodes: usize,
        add: impl Fn(Builder, &Arc<Host>) -> Builder,
    ) -> Result<Self> {
        let monitor = network.host("monitor")?;
        let mut builder = cluster.monitor_on(&monitor);
        for number in 1..=nodes {
            let host = network.host(&format!("node{number}"))?;
            builder = add(builder, &host);
        }
        Ok(Self { network, cluster: builder.start().await?, monitor })
    }

    /// What runs on it.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The host of the monitor.
    pub fn monitor_host(&self) -> &Arc<Host> {
        &self.monitor
    }

    /// All hosts but this one.
    fn others(&self, host: &Host) -> impl Iterator<Item = &Arc<Host>> {
        let nodes = self.cluster.nodes().iter().filter_map(Node::host);
        let all = nodes.chain([&self.monitor]);
        let own = host.address();
        all.filter(move |other| other.address() != own)
    }

    /// Writers and callers that find the nodes from the switch, and one of each on every host that knows its
    /// own node only: clients on each side of whatever is cut.
    pub async fn workload(&self) -> Result<Workload> {
        let mut workload = self.cluster.workload().await?;
        for node in self.cluster.nodes() {
            workload.start_writer_on(host_of(node)?, node.address())?;
            workload.start_caller_on(host_of(node)?, node.address())?;
        }
        workload.start_callers(CALLERS);
        Ok(workload)
    }

    /// What becomes of packets between a host and all others, both ways.
    pub fn disturb(&self, host: &Host, fault: Fault) -> Result<()> {
        for other in self.others(host) {
            self.network.break_link(host, other, fault)?;
            self.network.break_link(other, host, fault)?;
        }
        Ok(())
    }

    /// Cuts a host off from all others, and tells nobody.
    pub fn isolate(&self, host: &Host) -> Result<()> {
        self.disturb(host, Fault::Drop)
    }

    /// A host reaches all others again.
    pub fn join(&self, host: &Host) -> Result<()> {
        self.others(host).try_for_each(|other| self.network.heal(host, other))
    }

    /// What this host sends reaches nobody; what is sent to it does.
    pub fn mute(&self, host: &Host) -> Result<()> {
        self.others(host).try_for_each(|other| self.network.break_link(host, other, Fault::Drop))
    }

    /// Cuts a node off from some others, while each goes on to reach the monitor.
    pub fn cut_between(&self, node: &Node, others: &[&Node]) -> Result<()> {
        others.iter().try_for_each(|other| self.network.cut(host_of(node)?, host_of(other)?))
    }

    /// Undoes it.
    pub fn heal_between(&self, node: &Node, others: &[&Node]) -> Result<()> {
        others.iter().try_for_each(|other| self.network.heal(host_of(node)?, host_of(other)?))
    }

    /// Cuts a node off from the monitor alone.
    pub fn cut_from_monitor(&self, node: &Node) -> Result<()> {
        self.network.cut(host_of(node)?, &self.monitor)
    }
}

/// The host of a node.
pub fn host_of(node: &Node) -> Result<&Arc<Host>> {
    node.host().with_context(|| format!("{} has no host", node.name()))
}
