//! Settings that change whom commits wait for, under load.

use anyhow::{Result, ensure};
use shared::api::Status;
use std::time::Instant;
use tests::harness::Cluster;

/// What the primary waits for is what the monitor says, after every change.
async fn waits_for(cluster: &Cluster, expected: &str) -> Result<Status> {
    let what = format!("commits that wait for {expected:?}");
    cluster.wait_until(&what, |status| status.sync.in_force.as_deref() == Some(expected)).await?;
    let status = cluster.settled().await?;
    let sql = cluster.primary().await?.sql().await?;
    let live: String = sql.value("show synchronous_standby_names", &[]).await?;
    ensure!(live == expected, "the primary waits for {live:?}");
    Ok(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn number_sync_standbys() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let (one, two) = (members(&cluster, 1).await?, members(&cluster, 2).await?);
    let begin = Instant::now();
    for (number, expected) in [("0", &one), ("1", &one), ("2", &two), ("1", &one), ("0", &one)] {
        cluster.perform(&["set", "formation", "number-sync-standbys", number]).await?;
        let status = waits_for(&cluster, expected).await?;
        ensure!(status.number_sync_standbys.to_string() == number, "{status:?}");
        workload.acknowledges(20).await?;
    }
    workload.so_far().none_failed_between(begin, Instant::now())?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// `ANY number` of all standbys.
async fn members(cluster: &Cluster, number: usize) -> Result<String> {
    let status = cluster.settled().await?;
    let standbys = status.nodes.iter().filter(|node| status.primary.as_ref() != Some(&node.name));
    let names: Vec<_> = standbys.map(|node| node.application_name.clone()).collect();
    Ok(format!("ANY {number} ({})", names.join(", ")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replication_quorum() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).starting(&[1]).start().await?;
    cluster.start_keepers(&["node2"])?;
    cluster.settled().await?;
    cluster.start_keepers(&["node3"])?;
    cluster.settled().await?;
    let workload = cluster.workload().await?;
    let begin = Instant::now();
    for (node, value, expected) in [
        ("node3", "false", "ANY 1 (pgtandem_2)"),
        ("node3", "true", "ANY 1 (pgtandem_2, pgtandem_3)"),
        ("node2", "false", "ANY 1 (pgtandem_3)"),
        ("node2", "true", "ANY 1 (pgtandem_2, pgtandem_3)"),
    ] {
        cluster.perform(&["set", "node", node, "replication-quorum", value]).await?;
        waits_for(&cluster, expected).await?;
        let shown = cluster.pgtandem(&["get", "node", node, "replication-quorum"]).await?;
        ensure!(shown.stdout.contains(value), "{shown:?}");
        workload.acknowledges(20).await?;
    }
    workload.so_far().none_failed_between(begin, Instant::now())?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// A value that cannot be is refused, by name, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_values() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let before = cluster.settled().await?.revision;
    for arguments in [
        &["set", "node", "node1", "candidate-priority", "101"][..],
        &["set", "node", "node1", "replication-quorum", "perhaps"],
        &["set", "node", "node9", "candidate-priority", "1"],
        &["set", "formation", "node-timeout", "-3s"],
        &["set", "formation", "lease", "1h"],
        &["set", "formation", "number-sync-standbys", "-1"],
    ] {
        let answer = cluster.pgtandem(arguments).await?;
        ensure!([1, 3].contains(&answer.code), "{arguments:?}: {answer:?}");
        ensure!(!answer.text("message").is_empty(), "{arguments:?}: {answer:?}");
    }
    ensure!(cluster.settled().await?.revision == before, "something was changed");
    cluster.judge().without_workload().await
}
