//! Planned stops of keepers.

use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tests::harness::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_of_the_primarys_keeper_hands_over() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    let begin = Instant::now();
    let status = old.stop_keeper().await?;
    ensure!(status.success(), "{status}");
    ensure!(!old.has_postgres(), "its Postgres is running");
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() != old.name()));
    workload.goes_on().await?;
    let outage = workload.so_far().outage_since(begin);
    ensure!(outage < Duration::from_secs(5), "writes waited for {outage:?}");
    old.start_keeper()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// A standby leaves the sync set before it stops, so no write waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_of_a_standbys_keeper() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let workload = cluster.workload().await?;
    for standby in cluster.standbys().await? {
        let begin = Instant::now();
        let status = standby.stop_keeper().await?;
        ensure!(status.success(), "{status}");
        ensure!(!standby.has_postgres(), "its Postgres is running");
        workload.goes_on().await?;
        let history = workload.so_far();
        history.none_failed_between(begin, Instant::now())?;
        let pause = history.outage_since(begin);
        ensure!(pause < Duration::from_secs(1), "writes waited for {pause:?}");
        standby.start_keeper()?;
        cluster.settled().await?;
    }
    cluster.verdict(workload).await?;
    Ok(())
}

/// Everything is told to stop at once, and started again in another order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_and_back() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let [first, second, third] = ["node1", "node2", "node3"].map(|name| cluster.node(name));
    let (first, second, third) =
        tokio::join!(first?.stop_keeper(), second?.stop_keeper(), third?.stop_keeper());
    ensure!(first?.success() && second?.success() && third?.success());
    ensure!(cluster.monitor().stop().await?.success());
    cluster.monitor().start()?;
    cluster.start_keepers(&["node3", "node2", "node1"])?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// Killed all at once, as by a power cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cut() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    cluster.monitor().kill_all()?;
    cluster.nodes().iter().try_for_each(tests::harness::Node::kill_all)?;
    cluster.monitor().start()?;
    cluster.start_keepers(&["node2", "node3", "node1"])?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}
