//! Planned changes of the primary, under load.

use anyhow::{Context as _, Result, ensure};
use std::time::Instant;
use tests::harness::{Cluster, NodeOptions};

const TIMES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_any_node_many_times() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    for _ in 0..TIMES {
        let old = cluster.primary().await?.name();
        let result = cluster.perform(&["switchover"]).await?;
        let new = result.new_primary.context("no new primary")?;
        ensure!(new.as_str() != old, "{new} was the primary before");
        ensure!(result.old_primary.is_some_and(|name| name.as_str() == old));
    }
    let history = cluster.verdict(workload).await?;
    ensure!(history.reigns().len() > TIMES, "{:?}", history.reigns());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_a_named_node_many_times() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let names = ["node1", "node2", "node3"];
    for name in names.iter().cycle().take(TIMES) {
        let begin = Instant::now();
        let result = cluster.perform(&["switchover", "--to", name]).await?;
        ensure!(result.new_primary.is_some_and(|new| new.as_str() == *name));
        cluster.settled().await?;
        workload.goes_on().await?;
        ensure!(workload.so_far().outage_since(begin).as_secs() < 10);
    }
    cluster.verdict(workload).await?;
    Ok(())
}

/// The present primary as the target is done already, an unknown node is a bad value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_name_whatever_the_priority() -> Result<()> {
    let zero = NodeOptions { candidate_priority: Some(0), ..NodeOptions::default() };
    let builder = Cluster::builder().nodes(2).node(zero).starting(&[1]);
    let cluster = builder.start().await?;
    cluster.start_keepers(&["node2", "node3"])?;
    cluster.settled().await?;
    let workload = cluster.workload().await?;
    cluster.perform(&["promote", "node3"]).await?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() == "node3"));
    cluster.perform(&["promote", "node3"]).await?;
    ensure!(cluster.settled().await?.epoch == status.epoch, "it was promoted twice");
    let unknown = cluster.pgtandem(&["promote", "node9"]).await?;
    ensure!(unknown.code == 1 && unknown.text("reason") == "unknown_node", "{unknown:?}");
    // Not by itself: the next one is not node3, which has been the primary, nor anybody at 0.
    cluster.perform(&["switchover"]).await?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() != "node3"));
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// With nobody to hand over to, a switchover is refused and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_candidate_is_refused() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let workload = cluster.workload().await?;
    let begin = Instant::now();
    ensure!(cluster.refused(&["switchover"]).await? == "no_candidate");
    ensure!(cluster.pgtandem(&["switchover", "--to", "node9"]).await?.code == 1);
    workload.goes_on().await?;
    workload.so_far().none_failed_between(begin, Instant::now())?;
    cluster.verdict(workload).await?;
    Ok(())
}
