//! Nodes that are given to a person, and back.

use anyhow::{Result, ensure};
use shared::state::NodeState;
use std::time::Instant;
use tests::harness::Cluster;
use tests::harness::cluster::node_of;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_standby() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let begin = Instant::now();
    for node in cluster.standbys().await? {
        cluster.perform(&["maintenance", "on", node.name()]).await?;
        let status = cluster.settled().await?;
        let state = node_of(&status, node.name()).map(|node| node.reported_state);
        ensure!(state == Some(NodeState::Maintenance), "{state:?}");
        ensure!(status.sync.members.iter().all(|member| member.as_str() != node.name()));
        // One at a time: the other one is needed.
        workload.goes_on().await?;
        cluster.perform(&["maintenance", "on", node.name()]).await?;
        cluster.perform(&["maintenance", "off", node.name()]).await?;
        cluster.settled().await?;
    }
    workload.so_far().none_failed_between(begin, Instant::now())?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// Refused where the standbys that are left would not be enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_standby_that_is_needed() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    cluster.perform(&["set", "formation", "number-sync-standbys", "1"]).await?;
    cluster.settled().await?;
    let workload = cluster.workload().await?;
    for node in cluster.standbys().await? {
        let reason = cluster.refused(&["maintenance", "on", node.name()]).await?;
        ensure!(reason == "too_few_standbys", "{reason}");
    }
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    ensure!(cluster.refused(&["maintenance", "on", old.name()]).await? == "is_primary");
    cluster.perform(&["maintenance", "on", old.name(), "--allow-failover"]).await?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() != old.name()));
    workload.goes_on().await?;
    cluster.perform(&["maintenance", "off", old.name()]).await?;
    let status = cluster.settled().await?;
    let state = node_of(&status, old.name()).map(|node| node.reported_state);
    ensure!(state == Some(NodeState::Secondary), "{state:?}");
    cluster.verdict(workload).await?;
    Ok(())
}
