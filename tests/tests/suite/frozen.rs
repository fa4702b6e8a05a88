//! What stands still without ending: a postmaster, a whole Postgres, a host.

use anyhow::{Context as _, Result, ensure};
use shared::api::Status;
use std::time::Duration;
use tests::harness::roles::Roles;
use tests::harness::{Builder, Cluster, Node};

/// Four fifths of the node timeout.
const SHORT: Duration = Duration::from_millis(2400);

/// Another node than this one is the primary and takes writes.
fn another(old: &Node) -> impl Fn(&Status) -> bool {
    let old = old.name().to_owned();
    move |status| {
        status.writable && status.primary.as_ref().is_some_and(|name| name.as_str() != old)
    }
}

/// Old sessions go on, the keeper goes on, and nobody new gets in: that is a failure too. And the event
/// says how long each stage of the change took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postmaster_of_the_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.freeze_postmaster()?;
    cluster.wait_until("another primary", another(old)).await?;
    workload.goes_on().await?;
    // Its keeper kills what does not stop, and starts it again as a standby.
    cluster.settled().await?;
    let events = cluster.monitor().events(0).await?;
    let course = events.iter().rev().find_map(|event| event.evidence.get("stages_ms"));
    let course = course.context("no event tells how the change went")?;
    let ms = |stage: &str| course.get(stage).and_then(serde_json::Value::as_u64);
    ensure!(ms("detect") >= Some(2500) && ms("detect") < Some(30_000), "{course}");
    let stages = ["seal", "elect", "promote", "first_commit"];
    ensure!(stages.iter().all(|stage| ms(stage).is_some()), "{course}");
    cluster
        .judge()
        .expecting("this node cannot serve: its postgres has not answered", "it says so")
        .of(workload)
        .await?;
    Ok(())
}

/// Shorter than the node timeout: nobody is replaced. Longer: somebody is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_the_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let before = cluster.settled().await?;
    let roles = Roles::watch(&cluster);
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.freeze_postgres()?;
    cluster.stays("the same primary", SHORT, |status| status.epoch == before.epoch).await?;
    old.thaw_postgres();
    workload.goes_on().await?;
    let after = cluster.settled().await?;
    ensure!(after.epoch == before.epoch, "a short stop cost the primary its place");
    old.freeze_postgres()?;
    cluster.wait_until("another primary", another(old)).await?;
    workload.goes_on().await?;
    old.thaw_postgres();
    cluster.settled().await?;
    roles.verdict(2)?;
    cluster
        .judge()
        .expecting("this node cannot serve: its postgres has not answered", "it says so")
        .of(workload)
        .await?;
    Ok(())
}

/// With nobody to take over it stays the primary, status says what is wrong, and it goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_node() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let node = cluster.primary().await?;
    node.freeze_postgres()?;
    let says = |status: &Status| {
        let warned = |text: &String| text.contains("has not answered a new connection");
        !status.writable && status.nodes.iter().any(|node| node.warnings.iter().any(warned))
    };
    cluster.wait_until("a warning", says).await?;
    node.thaw_postgres();
    workload.goes_on().await?;
    let after = cluster.settled().await?;
    ensure!(after.epoch == before.epoch, "nobody was there to be elected");
    cluster
        .judge()
        .expecting("this node cannot serve: its postgres has not answered", "it says so")
        .of(workload)
        .await?;
    Ok(())
}

/// A keeper that is stopped for longer than its lease, and nothing else: nobody takes over, and it asks before
/// it stops a Postgres that is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keeper_of_the_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    // A quarter of the lease is long on any machine.
    cluster.perform(&["set", "formation", "node-timeout", "10s"]).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let node = cluster.primary().await?;
    let postmaster = node.postmaster()?;
    let roles = Roles::watch(&cluster);
    node.freeze_keeper()?;
    let longer_than_the_lease = Duration::from_secs(8);
    let same = |status: &Status| status.epoch == before.epoch;
    cluster.stays("the same primary", longer_than_the_lease, same).await?;
    node.thaw_keeper()?;
    let after = cluster.settled().await?;
    workload.goes_on().await?;
    ensure!(after.epoch == before.epoch, "the primary was replaced");
    ensure!(node.postmaster()? == postmaster, "its postgres was stopped");
    roles.verdict(1)?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// A disk that swallows writes: nothing ends, nothing complains, and old connections answer. The next one
/// takes over; when the disk goes on, the old primary does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_the_primary() -> Result<()> {
    let add = |builder: Builder| builder.nodes(1).on_volume(512);
    let cluster = (0..3).fold(Cluster::builder(), |builder, _| add(builder)).start().await?;
    let why = swallows_writes(cluster).await?;
    ensure!(why.contains(" is not one any more: its storage has not finished a write"), "{why}");
    Ok(())
}

/// The WAL alone is on such a disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wal_disk_of_the_primary() -> Result<()> {
    let add = |builder: Builder| builder.nodes(1).wal_on_volume(512);
    let cluster = (0..2).fold(Cluster::builder(), |builder, _| add(builder)).start().await?;
    swallows_writes(cluster).await.map(drop)
}

/// The primary's does, for as long as it takes; why the primary was replaced.
async fn swallows_writes(cluster: Cluster) -> Result<String> {
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.volume()?.freeze()?;
    cluster.wait_until("another primary", another(old)).await?;
    workload.goes_on().await?;
    let events = cluster.monitor().events(0).await?;
    let why = events.iter().find(|event| event.reason.contains(" is not one any more: "));
    let why = why.context("no event says why")?.reason.clone();
    old.volume()?.thaw()?;
    cluster.settled().await?;
    cluster
        .judge()
        .expecting("this node cannot serve: its storage has not finished", "it says so")
        .of(workload)
        .await?;
    Ok(why)
}
