//! Restarts, new copies, and the pause of automation.

use anyhow::{Context as _, Result, ensure};
use shared::api::Status;
use std::time::{Duration, Instant};
use tests::harness::{Cluster, Node};

/// Long enough for a failover that is not to happen.
const A_WHILE: Duration = Duration::from_secs(6);

/// Nobody is replaced, and every postmaster is a new one afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_one_by_one() -> Result<()> {
    // What a restart order looks like is no part of the model.
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let workload = cluster.workload().await?;
    let before = cluster.settled().await?;
    for node in cluster.nodes() {
        let postmaster = node.postmaster()?;
        cluster.perform(&["restart", node.name()]).await?;
        ensure!(node.postmaster()? != postmaster, "{} was not restarted", node.name());
        let after = cluster.settled().await?;
        ensure!(after.epoch == before.epoch, "the primary was replaced");
    }
    cluster.verdict(workload).await?;
    Ok(())
}

/// Standbys first, one change of the primary, and no restart while it serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_all() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let workload = cluster.workload().await?;
    let before = cluster.settled().await?;
    let postmasters: Vec<_> =
        cluster.nodes().iter().map(Node::postmaster).collect::<Result<_>>()?;
    let begin = Instant::now();
    let answer = cluster.pgtandem(&["restart", "--all"]).await?;
    ensure!(answer.code == 0 && answer.stdout.lines().count() == 4, "{answer:?}");
    let after = cluster.settled().await?;
    ensure!(after.epoch.0 == before.epoch.0 + 1, "{} changes", after.epoch.0 - before.epoch.0);
    for (node, old) in cluster.nodes().iter().zip(postmasters) {
        ensure!(node.postmaster()? != old, "{} was not restarted", node.name());
    }
    workload.goes_on().await?;
    let outage = workload.so_far().outage_since(begin);
    ensure!(outage < Duration::from_secs(10), "writes waited for {outage:?}");
    cluster.verdict(workload).await?;
    Ok(())
}

/// The old copy is there until the new one is, under a new inode; no commit waits for it meanwhile. The
/// primary cannot be copied from itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reinit() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).untraced().start().await?;
    let workload = cluster.workload().await?;
    let standbys = cluster.standbys().await?;
    let standby = standbys.first().context("no standby")?;
    let directory = standby.pgdata_inode()?;
    cluster.perform(&["reinit", standby.name()]).await?;
    ensure!(standby.pgdata_inode()? != directory, "it is the copy that was there");
    let events = cluster.monitor().events(0).await?;
    let at = |what: &str| {
        events.iter().rposition(|event| event.reason.contains(what)).context(what.to_owned())
    };
    let (left, ordered) = (at("commits wait for no standby")?, at("makes a new copy of the data")?);
    ensure!(left < ordered, "commits waited for it: {events:?}");
    let primary = cluster.primary().await?;
    let refused = cluster.pgtandem(&["reinit", primary.name()]).await?;
    ensure!(refused.code == 3 && refused.stdout.contains("is_primary"), "{refused:?}");
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// While automation is paused a dead primary is not replaced, and the events tell who would be; once it
/// goes on, it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_and_resume() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let workload = cluster.workload().await?;
    let before = cluster.settled().await?;
    cluster.perform(&["pause"]).await?;
    cluster.perform(&["pause"]).await?;
    let old = cluster.primary().await?;
    old.kill_both()?;
    let same = |status: &Status| status.epoch == before.epoch && status.paused;
    cluster.stays("paused", A_WHILE, same).await?;
    let events = cluster.monitor().events(0).await?;
    let withheld: Vec<_> =
        events.iter().filter(|event| event.reason.contains("is paused; else:")).collect();
    ensure!(withheld.len() == 1, "{withheld:?}");
    ensure!(withheld.iter().all(|event| event.rule == "primary-dead"), "{withheld:?}");
    cluster.perform(&["resume"]).await?;
    let another = |status: &Status| status.epoch > before.epoch && status.writable;
    cluster.wait_until("another primary", another).await?;
    old.start_keeper()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}
