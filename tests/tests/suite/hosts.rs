//! Hosts that are powered off, cut off, and frozen.

use anyhow::{Context as _, Result, bail, ensure};
use shared::api::{NodeStatus, Status};
use shared::state::NodeState;
use std::sync::Arc;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};
use tests::network::{Host, Network};

/// A monitor and some nodes, each on a host of its own.
struct Site<'a> {
    network: &'a Network,
    cluster: Cluster,
    hosts: Vec<Arc<Host>>,
}

impl<'a> Site<'a> {
    async fn start(network: &'a Network, nodes: usize) -> Result<Self> {
        let monitor = network.host("monitor")?;
        let mut builder = Cluster::builder().monitor_on(&monitor);
        let mut hosts = vec![monitor];
        for number in 1..=nodes {
            let host = network.host(&format!("node{number}"))?;
            builder = builder.on(&host);
            hosts.push(host);
        }
        Ok(Self { network, cluster: builder.start().await?, hosts })
    }

    /// Cuts a host off from all others.
    fn isolate(&self, host: &Host) -> Result<()> {
        let others = self.hosts.iter().filter(|other| other.address() != host.address());
        others.into_iter().try_for_each(|other| self.network.cut(host, other))
    }

    /// Undoes it.
    fn join(&self, host: &Host) -> Result<()> {
        let others = self.hosts.iter().filter(|other| other.address() != host.address());
        others.into_iter().try_for_each(|other| self.network.heal(host, other))
    }

    /// Cuts the nodes off from each other, while each goes on to reach the monitor.
    fn cut_between(&self, node: &Node, others: &[&Node]) -> Result<()> {
        others.iter().try_for_each(|other| self.network.cut(host_of(node)?, host_of(other)?))
    }

    /// Undoes it.
    fn heal_between(&self, node: &Node, others: &[&Node]) -> Result<()> {
        others.iter().try_for_each(|other| self.network.heal(host_of(node)?, host_of(other)?))
    }
}

/// The host of a node.
fn host_of(node: &Node) -> Result<&Arc<Host>> {
    node.host().with_context(|| format!("{} has no host", node.name()))
}

/// The primary and clients of its own are on one side, everybody else is on the other; clients that reach
/// both sides write wherever somebody takes writes.
#[test]
fn the_primary_is_cut_off() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let site = Site::start(&network, 3).await?;
        let cluster = &site.cluster;
        let old = cluster.primary().await?;
        let host = host_of(old)?;
        let mut workload = cluster.workload().await?;
        workload.start_writer_on(host, old.address())?;
        workload.start_caller_on(host, old.address())?;
        workload.start_callers(2);
        workload.callers_go_on().await?;
        site.isolate(host)?;
        let another = |status: &Status| {
            status.writable
                && status.primary.as_ref().is_some_and(|name| name.as_str() != old.name())
        };
        cluster.wait_until("another primary", another).await?;
        workload.callers_go_on().await?;
        site.join(host)?;
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
        let site = Site::start(&network, 3).await?;
        let cluster = &site.cluster;
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
        Ok(())
    })
}

/// The three-site case, two nodes: both see the monitor and not each other. The primary goes on alone
/// after the stall budget; then the standby, which lacks what was acknowledged since, is nobody to hand
/// over to until it has caught up again.
#[test]
fn the_replication_link_of_two_is_cut() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let site = Site::start(&network, 2).await?;
        let cluster = &site.cluster;
        let before = cluster.settled().await?;
        let workload = cluster.workload().await?;
        let (primary, standbys) = (cluster.primary().await?, cluster.standbys().await?);
        site.cut_between(primary, &standbys)?;
        let alone = |status: &Status| status.writable && status.sync.required == 0;
        cluster.wait_until("a primary that waits for nobody", alone).await?;
        workload.goes_on().await?;
        let standby = standbys.first().context("no standby")?;
        cluster.refused(&["switchover", "--to", standby.name()]).await?;
        let unfit = |node: &NodeStatus| node.reported_state != NodeState::Secondary;
        cluster.wait_for_node(standby.name(), "it says that it does not stream", unfit).await?;
        site.heal_between(primary, &standbys)?;
        let after = cluster.settled().await?;
        ensure!(after.epoch == before.epoch, "nobody was to be replaced");
        ensure!(after.sync.required == 1, "{:?}", after.sync);
        workload.goes_on().await?;
        cluster.verdict(workload).await?;
        Ok(())
    })
}

/// The same with three nodes, of which one standby has to acknowledge: writes wait, and status says for
/// whom. One link is enough for them to go on.
#[test]
fn the_replication_links_of_three_are_cut() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let site = Site::start(&network, 3).await?;
        let cluster = &site.cluster;
        let before = cluster.settled().await?;
        let workload = cluster.workload().await?;
        let (primary, standbys) = (cluster.primary().await?, cluster.standbys().await?);
        site.cut_between(primary, &standbys)?;
        cluster.wait_until("writes that wait", |status| !status.writable).await?;
        eventually("a reason that names both", DEADLINE, async || {
            let blocked = cluster.monitor().explain().await?.blocked_by;
            let found =
                blocked.iter().any(|b| b.code == "waiting_for_standbys" && b.nodes.len() == 2);
            Ok(if found { Ok(()) } else { Err(format!("{blocked:?}")) })
        })
        .await?;
        let [first, ..] = standbys.as_slice() else { bail!("no standby") };
        site.heal_between(primary, &[first])?;
        workload.goes_on().await?;
        site.heal_between(primary, &standbys)?;
        let after = cluster.settled().await?;
        ensure!(after.epoch == before.epoch, "nobody was to be replaced");
        cluster.verdict(workload).await?;
        Ok(())
    })
}
