//! The monitor dies, alone and with the primary.

use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tests::harness::Cluster;
use tests::harness::wait::{DEADLINE, eventually};

/// Longer than the node timeout.
const A_WHILE: Duration = Duration::from_secs(5);

/// How long the monitor is away; `MONITOR_AWAY_SECONDS` makes it a minute, or more.
fn away() -> Duration {
    let seconds = std::env::var("MONITOR_AWAY_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(20))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_alone_no_write_fails() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let begin = Instant::now();
    cluster.monitor().kill()?;
    workload.goes_on_for(away()).await?;
    cluster.monitor().start()?;
    let after = cluster.settled().await?;
    workload.goes_on().await?;
    let history = workload.so_far();
    history.none_failed_between(begin, Instant::now())?;
    let pause = history.outage_since(begin);
    ensure!(pause < Duration::from_secs(2), "writes waited for {pause:?}");
    ensure!(after.epoch == before.epoch && after.primary == before.primary, "{after:?}");
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_the_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    cluster.monitor().kill()?;
    old.kill_both()?;
    cluster.monitor().start()?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() != old.name()));
    workload.goes_on().await?;
    old.start_keeper()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// Again and again in the middle of a failover: what it had decided is durable, and it goes on there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_failovers() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    for phase in ["electing", "promoting"] {
        let old = cluster.primary().await?;
        let epoch = cluster.monitor().status().await?.epoch;
        old.kill_both()?;
        // The phase may be over before it is seen: then the kill comes a moment later, as well.
        let begun = |status: &shared::api::Status| status.phase == phase || status.epoch > epoch;
        cluster.wait_until("a failover under way", begun).await?;
        cluster.monitor().kill()?;
        cluster.monitor().start()?;
        cluster.settled().await?;
        workload.goes_on().await?;
        old.start_keeper()?;
        cluster.settled().await?;
    }
    cluster.verdict(workload).await?;
    Ok(())
}

/// Its own Postgres can be killed, too: it is restarted without the monitor ending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_own_postgres_is_killed() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let workload = cluster.workload().await?;
    let begin = Instant::now();
    cluster.monitor().kill_storage().await?;
    let settled = cluster.settled().await?;
    workload.goes_on().await?;
    workload.so_far().none_failed_between(begin, Instant::now())?;
    ensure!(settled.writable);
    cluster.perform(&["switchover"]).await?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// The postmaster of the primary dies while there is no monitor, long after its last lease: its standbys
/// prove that it still is the primary, so it is started again, and has to prove it once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_restarts_without_it() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let primary = cluster.primary().await?;
    cluster.monitor().kill()?;
    // Twice: what was claimed and made good can be claimed again.
    for _ in 0..2 {
        workload.goes_on_for(Duration::from_secs(5)).await?;
        primary.kill_postmaster()?;
        workload.goes_on().await?;
    }
    cluster.monitor().start()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// With a lease shorter than the second after which idle standbys reply: an idle primary goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_primary_with_a_short_lease() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let set = cluster.pgtandem(&["set", "formation", "node-timeout", "1s"]).await?;
    ensure!(set.code == 0, "{set:?}");
    cluster.settled().await?;
    let primary = cluster.primary().await?;
    let before = primary.postmaster()?;
    cluster.monitor().kill()?;
    tokio::time::sleep(away() / 2).await;
    ensure!(primary.postmaster()? == before, "it has fenced itself");
    cluster.monitor().start()?;
    cluster.judge().without_workload().await?;
    Ok(())
}

/// A keeper that stands still is no reason to replace its primary: the monitor logs in to its Postgres,
/// and gets an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_asks_the_postgres_of_a_silent_keeper() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let primary = cluster.primary().await?;
    let sql = primary.sql().await?;
    sql.run("alter system set log_connections = on").await?;
    sql.run("select pg_reload_conf()").await?;
    primary.freeze_keeper()?;
    let log = primary.state_dir().join("postgres.log");
    eventually("a login of the monitor", DEADLINE, async || {
        let text = std::fs::read_to_string(&log)?;
        let found = text.contains("connection authorized: user=pgtandem_monitor");
        Ok(if found { Ok(()) } else { Err("there was none".to_owned()) })
    })
    .await?;
    cluster.stays("the same primary", A_WHILE, |status| status.epoch == before.epoch).await?;
    primary.thaw_keeper()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster
        .judge()
        .expecting("the lease has run out", "a keeper that wakes up has no proof left")
        .of(workload)
        .await?;
    Ok(())
}
