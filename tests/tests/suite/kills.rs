//! SIGKILL of postmaster, keeper, or both, on the primary and on each standby.

use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tests::harness::cluster::node_of;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

/// Several node timeouts: a keeper that is missed for that long changes nothing by itself.
const WITHOUT_KEEPER: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postmaster_of_the_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    // Restarted in place, or failed over where that would take longer: both are fine.
    cluster.primary().await?.kill_postmaster()?;
    workload.goes_on().await?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeper_of_the_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let primary = cluster.primary().await?;
    let postmaster = primary.postmaster()?;
    let begin = Instant::now();
    primary.kill_keeper()?;
    workload.goes_on_for(WITHOUT_KEEPER).await?;
    primary.start_keeper()?;
    let after = cluster.settled().await?;
    workload.goes_on().await?;
    workload.so_far().none_failed_between(begin, Instant::now())?;
    ensure!(after.epoch == before.epoch && after.primary == before.primary, "{after:?}");
    ensure!(primary.postmaster()? == postmaster, "Postgres was restarted");
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_of_the_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.kill_both()?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() != old.name()));
    workload.goes_on().await?;
    old.start_keeper()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// With two nodes the standby alone proves that it has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_of_the_primary_of_two() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.kill_both()?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() != old.name()));
    workload.goes_on().await?;
    old.start_keeper()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// Writes go on while something happens to each standby in turn, and afterwards.
async fn on_each_standby(harm: impl AsyncFn(&Cluster, &Node) -> Result<()>) -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let begin = Instant::now();
    for standby in cluster.standbys().await? {
        harm(&cluster, standby).await?;
        cluster.settled().await?;
        workload.goes_on().await?;
    }
    workload.so_far().none_failed_between(begin, Instant::now())?;
    let after = cluster.settled().await?;
    ensure!(after.epoch == before.epoch && after.primary == before.primary, "{after:?}");
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postmaster_of_each_standby() -> Result<()> {
    on_each_standby(async |_, standby| {
        let killed = standby.postmaster()?;
        standby.kill_postmaster()?;
        eventually("another postmaster", DEADLINE, async || {
            Ok(match standby.postmaster() {
                Ok(pid) if pid != killed => Ok(()),
                other => Err(format!("{other:?}")),
            })
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeper_of_each_standby() -> Result<()> {
    on_each_standby(async |cluster, standby| {
        let postmaster = standby.postmaster()?;
        standby.kill_keeper()?;
        let name = standby.name();
        cluster.wait_for_node(name, "noticed", |node| node.health != "ok").await?;
        standby.start_keeper()?;
        cluster.settled().await?;
        ensure!(standby.postmaster()? == postmaster, "Postgres was restarted");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_of_each_standby() -> Result<()> {
    on_each_standby(async |cluster, standby| {
        standby.kill_both()?;
        let name = standby.name();
        let gone = cluster.wait_for_node(name, "seen to be dead", |node| node.health == "bad");
        let status = gone.await?;
        ensure!(node_of(&status, name).is_some());
        let left = |status: &shared::api::Status| {
            status.sync.pending.is_none()
                && status.sync.members.iter().all(|member| member.as_str() != name)
        };
        cluster.wait_until("a sync set without it", left).await?;
        standby.start_keeper()
    })
    .await
}
