//! Hosts that are powered off, cut off, and frozen.

use anyhow::{Context as _, Result, ensure};
use shared::api::Status;
use std::sync::Arc;
use tests::harness::{Cluster, Node};
use tests::network::{Host, Network};

/// A monitor and three nodes, each on a host of its own.
struct Site {
    cluster: Cluster,
    hosts: Vec<Arc<Host>>,
}

impl Site {
    async fn start(network: &Network) -> Result<Self> {
        let monitor = network.host("monitor")?;
        let mut builder = Cluster::builder().monitor_on(&monitor);
        let mut hosts = vec![monitor];
        for name in ["node1", "node2", "node3"] {
            let host = network.host(name)?;
            builder = builder.on(&host);
            hosts.push(host);
        }
        Ok(Self { cluster: builder.start().await?, hosts })
    }
}

impl Site {
    /// Cuts a host off from all others.
    fn isolate(&self, network: &Network, host: &Host) -> Result<()> {
        let others = self.hosts.iter().filter(|other| other.address() != host.address());
        others.into_iter().try_for_each(|other| network.cut(host, other))
    }

    /// Undoes it.
    fn join(&self, network: &Network, host: &Host) -> Result<()> {
        let others = self.hosts.iter().filter(|other| other.address() != host.address());
        others.into_iter().try_for_each(|other| network.heal(host, other))
    }
}

/// The host of a node.
fn host_of(node: &Node) -> Result<&Arc<Host>> {
    node.host().with_context(|| format!("{} has no host", node.name()))
}

/// The primary and a client of its own are on one side, everybody else is on the other; clients that reach
/// both sides write wherever somebody takes writes.
#[test]
fn the_primary_is_cut_off() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let site = Site::start(&network).await?;
        let cluster = &site.cluster;
        let old = cluster.primary().await?;
        let host = host_of(old)?;
        let mut workload = cluster.workload().await?;
        workload.start_writer_on(host, old.address())?;
        site.isolate(&network, host)?;
        let another = |status: &Status| {
            status.writable
                && status.primary.as_ref().is_some_and(|name| name.as_str() != old.name())
        };
        cluster.wait_until("another primary", another).await?;
        workload.goes_on().await?;
        site.join(&network, host)?;
        cluster.settled().await?;
        workload.goes_on().await?;
        cluster.judge().expecting("the lease has run out", "it fences itself").of(workload).await?;
        Ok(())
    })
}

#[test]
fn the_primary_is_powered_off() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let Site { cluster, hosts } = Site::start(&network).await?;
        let workload = cluster.workload().await?;
        let old = cluster.primary().await?;
        old.power_off()?;
        let status = cluster.settled().await?;
        ensure!(status.primary.is_some_and(|name| name.as_str() != old.name()));
        workload.goes_on().await?;
        old.power_on()?;
        old.start_keeper()?;
        cluster.settled().await?;
        cluster.verdict(workload).await?;
        drop(hosts);
        Ok(())
    })
}
