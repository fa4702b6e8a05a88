//! Planned stops and changes of a primary whose archive command hangs.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

/// The demand is 3 s, on a machine of its own; without the remedy it would be more than 30.
const GAP: Duration = Duration::from_secs(5);

/// So many nodes whose archive command hangs; node1 is the primary and has segments to archive.
async fn cluster(nodes: usize) -> Result<Cluster> {
    let cluster = Cluster::builder().nodes(nodes).starting(&[1]).start().await?;
    let first = cluster.node("node1")?;
    let sql = first.sql().await?;
    for setting in ["archive_mode = on", "archive_command = 'sleep 1000'"] {
        sql.run(&format!("alter system set {setting}")).await?;
    }
    // The mode takes a restart; copies have both.
    first.stop_keeper().await?;
    let names: Vec<_> = (1..=nodes).map(|number| format!("node{number}")).collect();
    cluster.start_keepers(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    cluster.settled().await?;
    archiver_hangs(cluster.primary().await?).await?;
    Ok(cluster)
}

/// A segment is being archived, and not to be archived.
async fn archiver_hangs(primary: &Node) -> Result<()> {
    let sql = primary.sql().await?;
    sql.run("create table if not exists waits (id int); insert into waits values (1)").await?;
    sql.run("select pg_switch_wal()").await?;
    eventually("a segment to archive", DEADLINE, async || {
        let to_archive = waiting(primary)?;
        Ok(if to_archive == 0 { Err("none".to_owned()) } else { Ok(()) })
    })
    .await
}

/// How many segments wait to be archived.
fn waiting(node: &Node) -> Result<usize> {
    let dir = node.pgdata().join("pg_wal/archive_status");
    let names = fs::read_dir(dir)?.flatten().map(|entry| entry.file_name());
    Ok(names.filter(|name| name.to_string_lossy().ends_with(".ready")).count())
}

/// It followed as it was: its log was a prefix of the new primary's.
fn was_not_rewound(node: &Node, inode: u64) -> Result<()> {
    let log = node.keeper_log()?;
    ensure!(node.pgdata_inode()? == inode, "{} was copied anew", node.name());
    ensure!(!log.contains("rewind"), "{} was rewound", node.name());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_does_not_wait() -> Result<()> {
    let cluster = cluster(3).await?;
    let workload = cluster.workload().await?;
    for _ in 0..3 {
        let old = cluster.primary().await?;
        archiver_hangs(old).await?;
        let inode = old.pgdata_inode()?;
        let begin = Instant::now();
        cluster.perform(&["switchover"]).await?;
        cluster.settled().await?;
        workload.goes_on().await?;
        let outage = workload.so_far().outage_since(begin);
        ensure!(outage < GAP, "writes waited for {outage:?}");
        was_not_rewound(old, inode)?;
    }
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_of_the_primarys_keeper_hands_over() -> Result<()> {
    let cluster = cluster(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    let inode = old.pgdata_inode()?;
    let begin = Instant::now();
    ensure!(old.stop_keeper().await?.success());
    ensure!(!old.has_postgres(), "its Postgres is running");
    cluster.settled().await?;
    workload.goes_on().await?;
    let outage = workload.so_far().outage_since(begin);
    ensure!(outage < GAP, "writes waited for {outage:?}");
    old.start_keeper()?;
    cluster.settled().await?;
    was_not_rewound(old, inode)?;
    // A standby that does not archive is nothing to wait for.
    let begin = Instant::now();
    ensure!(old.stop_keeper().await?.success());
    ensure!(begin.elapsed() < GAP, "the stop of a standby took {:?}", begin.elapsed());
    old.start_keeper()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// Nobody can take over, nobody decides: it only stops, soon, and goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_without_a_monitor() -> Result<()> {
    let cluster = cluster(2).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    workload.acknowledges(20).await?;
    ensure!(cluster.monitor().stop().await?.success());
    let begin = Instant::now();
    ensure!(old.stop_keeper().await?.success());
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(10), "the stop took {took:?}");
    ensure!(!old.has_postgres(), "its Postgres is running");
    ensure!(waiting(old)? > 0, "nothing is left to archive");
    cluster.monitor().start()?;
    old.start_keeper()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// A second signal while the first is being obeyed is a fast stop, which does not wait either. What has
/// not been archived is archived after the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_is_a_fast_stop() -> Result<()> {
    for second in [Signal::TERM, Signal::INT] {
        let cluster = cluster(1).await?;
        let workload = cluster.workload().await?;
        workload.acknowledges(20).await?;
        let node = cluster.primary().await?;
        let begin = Instant::now();
        node.signal_keeper(Signal::TERM)?;
        node.signal_keeper(second)?;
        ensure!(node.keeper_ends().await?.success());
        let took = begin.elapsed();
        ensure!(took < GAP, "the stop took {took:?}");
        let left = waiting(node)?;
        ensure!(left > 0, "nothing is left to archive");
        node.start_keeper()?;
        cluster.settled().await?;
        let sql = node.sql().await?;
        sql.run("alter system set archive_command = 'true'").await?;
        sql.run("select pg_reload_conf()").await?;
        // The hanging one was begun with the start; its end is the archiver's to wait for.
        node.stop_keeper().await?;
        node.start_keeper()?;
        cluster.settled().await?;
        eventually("an archive that is complete", DEADLINE, async || {
            let left = waiting(node)?;
            Ok(if left == 0 { Ok(()) } else { Err(format!("{left} segments wait")) })
        })
        .await?;
        workload.goes_on().await?;
        cluster.verdict(workload).await?;
    }
    Ok(())
}
