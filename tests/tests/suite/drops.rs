//! Nodes that leave for good.

use anyhow::{Result, ensure};
use shared::api::Status;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

/// A dropped node's Postgres is stopped for good, and its keeper has nothing left to do.
async fn is_retired(node: &Node) -> Result<()> {
    let stopped = eventually("a Postgres that is stopped", DEADLINE, async || {
        Ok(if node.has_postgres() { Err("it is running".to_owned()) } else { Ok(()) })
    });
    stopped.await?;
    if node.unexpected_end()?.is_some() {
        let status = node.keeper_ends().await?;
        ensure!(status.success(), "the keeper of {} ended with {status}", node.name());
    } else {
        node.stop_keeper().await?;
    }
    Ok(())
}

fn is_forgotten(status: &Status, name: &str) -> bool {
    status.nodes.iter().all(|node| node.name.as_str() != name)
        && status.sync.members.iter().all(|member| member.as_str() != name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let begin = std::time::Instant::now();
    for node in cluster.standbys().await?.into_iter().take(1) {
        cluster.perform(&["drop", "node", node.name()]).await?;
        ensure!(is_forgotten(&cluster.monitor().status().await?, node.name()));
        is_retired(node).await?;
    }
    cluster.settled().await?;
    workload.goes_on().await?;
    workload.so_far().none_failed_between(begin, std::time::Instant::now())?;
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_hands_over_first() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    cluster.perform(&["drop", "node", old.name()]).await?;
    let status = cluster.monitor().status().await?;
    ensure!(is_forgotten(&status, old.name()), "{status:?}");
    is_retired(old).await?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// Its name leaves the sync set at once; and if it comes back after all, it is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    for node in cluster.standbys().await?.into_iter().take(1) {
        node.kill_both()?;
        cluster.wait_for_node(node.name(), "dead", |node| node.health == "bad").await?;
        cluster.perform(&["drop", "node", node.name(), "--force"]).await?;
        ensure!(is_forgotten(&cluster.settled().await?, node.name()));
        workload.goes_on().await?;
        node.start_keeper()?;
        let status = node.keeper_ends().await?;
        ensure!(status.code() == Some(3), "{status}");
        ensure!(node.keeper_log()?.contains("dropped"), "{}", node.keeper_log()?);
        ensure!(!node.has_postgres(), "a dropped node runs Postgres");
    }
    cluster.verdict(workload).await?;
    Ok(())
}

/// A primary that is dead for good is dropped after its successor has been elected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.kill_both()?;
    cluster.settled().await?;
    cluster.perform(&["drop", "node", old.name(), "--force"]).await?;
    ensure!(is_forgotten(&cluster.settled().await?, old.name()));
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}
