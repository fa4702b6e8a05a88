//! Birth of a group: keepers started at once, in any order.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, NodeOptions};

async fn born(order: &[usize]) -> Result<()> {
    let cluster = Cluster::builder().nodes(order.len()).starting(order).start().await?;
    let status = cluster.settled().await?;
    ensure!(status.nodes.len() == order.len());
    ensure!(status.writable, "{status:?}");
    // From the third node on, every commit waits for one standby, whatever happens to them.
    ensure!(status.number_sync_standbys == u32::from(order.len() > 2));
    ensure!(status.sync.required == usize::from(order.len() > 1));
    let workload = cluster.workload().await?;
    workload.acknowledges(100).await?;
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node() -> Result<()> {
    born(&[1]).await
}

/// Nobody but this node has a cluster yet: what it has left half-made must not be the end of the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_initdb_and_with_a_database_of_its_own() -> Result<()> {
    let arguments = ["--dbname", "an \"app\""].map(ToOwned::to_owned).to_vec();
    let options = NodeOptions { arguments, ..NodeOptions::default() };
    let cluster = Cluster::builder().node(options).starting(&[]).untraced().start().await?;
    let node = cluster.node("node1")?;
    node.start_keeper()?;
    eventually("a data directory that is being made", DEADLINE, async || {
        let begun = node.pgdata().join("PG_VERSION").is_file();
        Ok(if begun { Ok(()) } else { Err("there is nothing yet".to_owned()) })
    })
    .await?;
    node.kill_keeper()?;
    let state = std::fs::read_to_string(node.state_dir().join("keeper.json"))?;
    let state: Value = serde_json::from_str(&state)?;
    ensure!(state.get("rebuilding") == Some(&true.into()), "it was not killed in time: {state}");
    node.start_keeper()?;
    cluster.settled().await?;
    let sql = node.sql().await?;
    let made = "select count(*) from pg_database where datname = 'an \"app\"'";
    ensure!(sql.value::<i64>(made, &[]).await? == 1);
    cluster.pass();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes() -> Result<()> {
    born(&[2, 1]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes() -> Result<()> {
    born(&[3, 1, 2]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes() -> Result<()> {
    born(&[2, 4, 1, 3]).await
}

/// One node serves first, others join while it is written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_under_load() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).starting(&[1]).start().await?;
    let workload = cluster.workload().await?;
    let begin = std::time::Instant::now();
    cluster.start_keepers(&["node2"])?;
    cluster.settled().await?;
    cluster.start_keepers(&["node3"])?;
    let status = cluster.settled().await?;
    ensure!(status.sync.in_force.as_deref() == Some("ANY 1 (pgtandem_2, pgtandem_3)"));
    workload.goes_on().await?;
    workload.so_far().none_failed_between(begin, std::time::Instant::now())?;
    cluster.verdict(workload).await?;
    Ok(())
}
