//! Clusters that were there before.

use anyhow::{Result, ensure};
use tests::harness::{Cluster, Node};

const ROWS: &str = "create table legacy as select g as id from generate_series(1, 5000) g; \
    create role app login; create index on legacy (id)";

/// A cluster with data, users, and settings of its own, running.
async fn existing(node: &Node) -> Result<()> {
    node.init_by_hand("work_mem = '7MB'\nlog_line_prefix = 'mine %m '")?;
    node.start_by_hand()?;
    node.sql().await?.run(ROWS).await
}

/// It serves under its keeper, with everything that was there; another node is made from it.
async fn becomes_a_group(cluster: &Cluster) -> Result<()> {
    let adopted = cluster.node("node1")?;
    adopted.start_keeper()?;
    cluster.settled().await?;
    let workload = cluster.workload().await?;
    cluster.start_keepers(&["node2"])?;
    cluster.settled().await?;
    for node in cluster.nodes() {
        let sql = node.sql().await?;
        ensure!(sql.value::<i64>("select count(*) from legacy", &[]).await? == 5000);
        ensure!(sql.value::<String>("show work_mem", &[]).await? == "7MB");
        let app = "select count(*) from pg_roles where rolname = 'app'";
        ensure!(sql.value::<i64>(app, &[]).await? == 1);
    }
    adopted.kill_both()?;
    cluster.settled().await?;
    adopted.start_keeper()?;
    cluster.settled().await?;
    let judge = cluster.judge();
    let judge = judge.expecting("role \"pgtandem_keeper\" does not exist", "it is made then");
    let judge = judge.expecting("role \"pgtandem_monitor\" does not exist", "it is made then");
    judge.of(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_cluster() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).starting(&[]).start().await?;
    existing(cluster.node("node1")?).await?;
    becomes_a_group(&cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_cluster() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).starting(&[]).start().await?;
    let node = cluster.node("node1")?;
    existing(node).await?;
    node.stop_by_hand()?;
    becomes_a_group(&cluster).await
}
