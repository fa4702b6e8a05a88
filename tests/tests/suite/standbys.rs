//! Standbys that are lost and come back while the primary is written to.

use anyhow::{Result, ensure};
use shared::state::NodeState;
use std::time::{Duration, Instant};
use tests::harness::Cluster;
use tests::harness::cluster::node_of;
use tests::harness::wait::{DEADLINE, eventually};

/// The only standby is lost: writes wait for a moment, then go on without it, and wait for it again
/// once it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_standby() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let workload = cluster.workload().await?;
    let primary = cluster.primary().await?.name();
    let standbys = cluster.standbys().await?;
    for standby in standbys {
        standby.kill_both()?;
        let status = cluster.settled().await?;
        let state = node_of(&status, primary).map(|node| node.reported_state);
        ensure!(state == Some(NodeState::WaitPrimary), "{state:?}");
        ensure!(status.sync.in_force.as_deref() == Some(""));
        workload.goes_on_for(Duration::from_secs(1)).await?;
        standby.start_keeper()?;
        let status = cluster.settled().await?;
        ensure!(status.sync.required == 1, "{:?}", status.sync);
        workload.goes_on().await?;
    }
    cluster.verdict(workload).await?;
    Ok(())
}

/// Both standbys of three are lost: writes wait rather than lose what `number_sync_standbys` 1
/// promises, and go on when one is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_standbys_of_three() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let standbys = cluster.standbys().await?;
    standbys.iter().try_for_each(|standby| standby.kill_both())?;
    for standby in &standbys {
        cluster.wait_for_node(standby.name(), "dead", |node| node.health == "bad").await?;
        eventually("the end of its processes", DEADLINE, async || {
            Ok(if standby.has_postgres() { Err(standby.name().to_owned()) } else { Ok(()) })
        })
        .await?;
    }
    // What a standby had before it died may be acknowledged later, when the sync set changes.
    let since = Instant::now();
    cluster.wait_until("writes that wait", |status| !status.writable).await?;
    cluster.stays("unwritable", Duration::from_secs(4), |status| !status.writable).await?;
    let history = workload.so_far();
    let alone = history.acknowledged().filter(|(attempt, _)| attempt.started >= since).count();
    ensure!(alone == 0, "{alone} writes were acknowledged without a standby");
    for standby in &standbys {
        standby.start_keeper()?;
        cluster.wait_until("writable", |status| status.writable).await?;
        workload.goes_on().await?;
    }
    cluster.verdict(workload).await?;
    Ok(())
}

/// A frozen standby holds nobody up for long, and follows again once it wakes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_standby() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    for standby in cluster.standbys().await? {
        let begin = Instant::now();
        standby.freeze()?;
        workload.goes_on_for(Duration::from_secs(5)).await?;
        standby.thaw()?;
        cluster.settled().await?;
        workload.so_far().none_failed_between(begin, Instant::now())?;
    }
    cluster.verdict(workload).await?;
    Ok(())
}

/// Somebody drops the slot through which a standby streams. PostgreSQL would ask for it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_slot_is_dropped() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let sql = cluster.primary().await?.sql().await?;
    let status = cluster.monitor().status().await?;
    let slots = status.nodes.iter().filter_map(|node| node.slot_name.clone());
    for slot in slots {
        eventually("a moment in which the slot is free", DEADLINE, async || {
            sql.query(TERMINATE, &[&slot]).await?;
            let dropped = sql.query("select pg_drop_replication_slot($1)", &[&slot]).await;
            Ok(dropped.map(drop).map_err(|error| error.to_string()))
        })
        .await?;
        eventually("a standby that uses it again", DEADLINE, async || {
            let count: i64 = sql.value(IS_USED, &[&slot]).await?;
            Ok(if count == 1 { Ok(()) } else { Err(format!("nobody uses {slot}")) })
        })
        .await?;
        cluster.settled().await?;
        workload.goes_on().await?;
    }
    cluster.verdict(workload).await?;
    Ok(())
}

const TERMINATE: &str =
    "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1";
const IS_USED: &str = "select count(*) from pg_replication_slots where slot_name = $1 and active";
