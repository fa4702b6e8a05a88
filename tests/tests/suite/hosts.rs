//! Hosts that are powered off, cut off, and frozen.

use anyhow::{Context as _, Result, bail, ensure};
use shared::api::{NodeStatus, Status};
use shared::state::NodeState;
use std::sync::Arc;
use tests::harness::place::Place;
use tests::harness::roles::Roles;
use tests::harness::site::{Site, host_of};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Builder, Node, NodeOptions};
use tests::network::Network;
use tests::network::host::Host;

async fn site(network: &Network, nodes: usize) -> Result<Site<'_>> {
    Site::start(network, Builder::default(), nodes, Builder::on).await
}

/// The primary and clients of its own are on one side, everybody else is on the other; clients that reach
/// both sides write wherever somebody takes writes.
#[test]
fn the_primary_is_cut_off() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let told = |builder: Builder, host: &Arc<Host>| {
            let place = Place::Host(Arc::clone(host));
            let arguments = ["--hook", "on_fence=echo the fence is told"].map(str::to_owned).into();
            builder.node(NodeOptions { place, arguments, ..NodeOptions::default() })
        };
        let site = Site::start(&network, Builder::default(), 3, told).await?;
        let cluster = site.cluster();
        let old = cluster.primary().await?;
        let host = host_of(old)?;
        let mut workload = cluster.workload().await?;
        workload.start_writer_on(host, old.address())?;
        workload.start_caller_on(host, old.address())?;
        workload.start_callers(2);
        workload.callers_go_on().await?;
        // Whoever reaches both sides is never told of two primaries.
        let roles = Roles::watch(cluster);
        site.isolate(host)?;
        let another = |status: &Status| {
            status.writable
                && status.primary.as_ref().is_some_and(|name| name.as_str() != old.name())
        };
        cluster.wait_until("another primary", another).await?;
        workload.callers_go_on().await?;
        eventually("the hook", DEADLINE, async || {
            let told = old.keeper_log()?.contains("the fence is told");
            Ok(if told { Ok(()) } else { Err("it has not been told".to_owned()) })
        })
        .await?;
        // A stop of its own is nobody else's, after which it would claim a lease and serve once more.
        ensure!(!old.keeper_log()?.contains("who was not its keeper"), "it has served once more");
        site.join(host)?;
        cluster.settled().await?;
        roles.verdict(2)?;
        workload.goes_on().await?;
        cluster.judge().expecting("the lease has run out", "it fences itself").of(workload).await?;
        Ok(())
    })
}

/// Only the monitor does not hear the primary, whose standbys prove that it is the primary, and clients reach
/// everybody. An operator has it replaced: it is not told, and its standbys leave it for their seals.
#[test]
fn a_primary_that_the_monitor_does_not_hear_is_replaced() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let site = Site::start(&network, Builder::default().untraced(), 3, Builder::on).await?;
        let cluster = site.cluster();
        cluster.perform(&["set", "formation", "drain-timeout", "3s"]).await?;
        let old = cluster.primary().await?;
        let workload = cluster.workload().await?;
        let roles = Roles::watch(cluster);
        site.cut_from_monitor(old)?;
        cluster.perform(&["failover"]).await?;
        workload.goes_on().await?;
        site.join(host_of(old)?)?;
        cluster.settled().await?;
        roles.verdict(2)?;
        workload.goes_on().await?;
        cluster.judge().expecting("the lease has run out", "it fences itself").of(workload).await?;
        Ok(())
    })
}

#[test]
fn the_primary_is_powered_off() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let site = site(&network, 3).await?;
        let cluster = site.cluster();
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
        let site = site(&network, 2).await?;
        let cluster = site.cluster();
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
        let site = site(&network, 3).await?;
        let cluster = site.cluster();
        let before = cluster.settled().await?;
        let workload = cluster.workload().await?;
        let (primary, standbys) = (cluster.primary().await?, cluster.standbys().await?);
        site.cut_between(primary, &standbys)?;
        cluster.wait_until("writes that wait", |status| !status.writable).await?;
        eventually("a reason that names somebody", DEADLINE, async || {
            let blocked = cluster.monitor().explain().await?.blocked_by;
            let found =
                blocked.iter().any(|b| b.code == "waiting_for_standbys" && !b.nodes.is_empty());
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

/// A host that boots numbers its processes anew: what a server has left behind that died with it names a
/// number that the next one may have as well.
#[test]
fn everything_is_powered_off_and_on() -> Result<()> {
    let network = Network::new()?;
    network.block_on(async {
        let site = site(&network, 2).await?;
        let cluster = site.cluster();
        let workload = cluster.workload().await?;
        for _ in 0..3 {
            cluster.monitor().power_off()?;
            cluster.nodes().iter().try_for_each(Node::power_off)?;
            cluster.monitor().power_on()?;
            cluster.monitor().start()?;
            for node in cluster.nodes() {
                node.power_on()?;
                node.start_keeper()?;
            }
            cluster.settled().await?;
            workload.goes_on().await?;
        }
        cluster.verdict(workload).await?;
        Ok(())
    })
}
