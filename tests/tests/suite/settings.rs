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

/// Timers that do not work together are refused in one line that names both with their values, also where
/// one of them was set long ago, or follows from another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_that_do_not_work_together() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    disagree(&cluster, "lease", "3s", &["lease (3000 ms)", "node-timeout (3000 ms)"]).await?;
    disagree(&cluster, "report-interval", "1100ms", &["(1100 ms)", "lease (2000 ms)"]).await?;
    disagree(&cluster, "drain-timeout", "2s", &["node-timeout (3000 ms)", "(2000 ms)"]).await?;
    disagree(&cluster, "election-grace", "4s", &["election-grace (4000 ms)", "(3000 ms)"]).await?;
    set(&cluster, "lease", "2700ms").await?;
    disagree(&cluster, "report-interval", "1200ms", &["(1200 ms)", "node-timeout"]).await?;
    // Set alone before: it does not follow any more.
    disagree(&cluster, "node-timeout", "2s", &["lease (2700 ms)", "node-timeout (2000 ms)"])
        .await?;
    disagree(&cluster, "stall-timeout", "900ms", &["report-interval (500 ms)", "(900 ms)"]).await?;
    set(&cluster, "stall-timeout", "1s").await?;
    disagree(&cluster, "node-timeout", "10s", &["(1666 ms)", "lease (2700 ms)"]).await?;
    set(&cluster, "lease", "default").await?;
    disagree(&cluster, "node-timeout", "10s", &["(1666 ms)", "stall-timeout (1000 ms)"]).await?;
    set(&cluster, "drain-timeout", "5s").await?;
    set(&cluster, "stall-timeout", "default").await?;
    disagree(&cluster, "node-timeout", "10s", &["(10000 ms)", "drain-timeout (5000 ms)"]).await?;
    set(&cluster, "drain-timeout", "default").await?;
    set(&cluster, "node-timeout", "10s").await?;
    // Taking a setting back is a change as well.
    set(&cluster, "report-interval", "200ms").await?;
    set(&cluster, "lease", "500ms").await?;
    disagree(&cluster, "report-interval", "default", &["(1666 ms)", "lease (500 ms)"]).await?;
    cluster.settled().await?;
    cluster.judge().without_workload().await
}

async fn set(cluster: &Cluster, key: &str, value: &str) -> Result<()> {
    cluster.perform(&["set", "formation", key, value]).await.map(drop)
}

async fn disagree(cluster: &Cluster, key: &str, value: &str, named: &[&str]) -> Result<()> {
    let before = cluster.pgtandem(&["get", "formation"]).await?.stdout;
    let answer = cluster.pgtandem(&["set", "formation", key, value]).await?;
    let message = answer.text("message");
    ensure!(answer.code == 1, "{key} {value}: {answer:?}");
    ensure!(named.iter().all(|name| message.contains(name)), "{key} {value}: {message}");
    ensure!(!message.contains('\n'), "{message}");
    let after = cluster.pgtandem(&["get", "formation"]).await?.stdout;
    ensure!(after == before, "{before} became {after}");
    Ok(())
}
