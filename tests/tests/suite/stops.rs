//! Planned stops of keepers.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tests::harness::Cluster;
use tests::harness::wait::{DEADLINE, eventually};

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

/// An operator who restarts Postgres by hand, and more often than it may crash, is not a reason to replace it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_by_hand() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let workload = cluster.workload().await?;
    let before = cluster.settled().await?;
    for _ in 0..6 {
        cluster.primary().await?.restart_postgres().await?;
        workload.goes_on().await?;
        let after = cluster.settled().await?;
        ensure!(after.epoch == before.epoch, "the primary was replaced");
    }
    cluster
        .judge()
        .expecting("lock file \"postmaster.pid\" already exists", "whoever comes first starts it")
        .of(workload)
        .await?;
    Ok(())
}

/// A fast stop that takes its time is hurried on by QUIT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigquit_ends_a_fast_stop() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = cluster.primary().await?;
    node.freeze_postmaster()?;
    node.signal_keeper(Signal::INT)?;
    let begun = || Ok(node.keeper_log()?.contains("asked to end: Fast"));
    eventually("the fast stop", DEADLINE, async || {
        begun().map(|begun| if begun { Ok(()) } else { Err("not begun".to_owned()) })
    })
    .await?;
    let begin = Instant::now();
    node.signal_keeper(Signal::QUIT)?;
    ensure!(node.keeper_ends().await?.success());
    ensure!(!node.has_postgres(), "its Postgres is running");
    // The patience of a fast stop.
    ensure!(begin.elapsed() < Duration::from_secs(30), "it took {:?}", begin.elapsed());
    cluster
        .judge()
        .expecting("this node cannot serve: its postgres has not answered", "it stands still")
        .logs_only()
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
