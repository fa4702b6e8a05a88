//! Logs that differ: an old primary with more than the others, a candidate with less.

use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::harness::cluster::node_of;
use tests::harness::process::{is_alive, working_in};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node, NodeOptions};
use tokio::task::JoinHandle;

const EXTRA: &str =
    "set synchronous_commit = local; insert into extra select generate_series(1, 1000)";

/// Rows that only this primary has, and its death.
async fn die_with_extra_rows(primary: &Node) -> Result<()> {
    let sql = primary.sql().await?;
    sql.run("create table extra (id int)").await?;
    primary.hold_wal_back(None).await?;
    sql.run(EXTRA).await?;
    primary.kill_all()
}

/// The same; and of its WAL only that is left which it needs to start, not that in which its history
/// left the others'.
async fn die_without_the_wal_for_a_rewind(primary: &Node) -> Result<()> {
    let sql = primary.sql().await?;
    sql.run("create table extra (id int)").await?;
    primary.hold_wal_back(None).await?;
    sql.run(EXTRA).await?;
    sql.run("select pg_switch_wal(); checkpoint").await?;
    let oldest: String =
        sql.value("select redo_wal_file from pg_control_checkpoint()", &[]).await?;
    primary.kill_all()?;
    primary.remove_wal_before(&oldest)
}

async fn extra_rows(node: &Node) -> Result<i64> {
    node.sql().await?.value("select count(*) from extra", &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_with_extra_rows_is_rewound() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    die_with_extra_rows(old).await?;
    cluster.settled().await?;
    workload.goes_on().await?;
    let directory = old.pgdata_inode()?;
    old.start_keeper()?;
    cluster.settled().await?;
    ensure!(old.pgdata_inode()? == directory, "it was copied, not rewound");
    ensure!(extra_rows(old).await? == 0, "rows that nobody acknowledged were kept");
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_rewound_is_copied_and_kept_until_then() -> Result<()> {
    is_copied_after(async |old| die_without_the_wal_for_a_rewind(old).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_even_start_is_copied_and_kept_until_then() -> Result<()> {
    is_copied_after(async |old| {
        die_with_extra_rows(old).await?;
        // A name that comes after all others.
        old.remove_wal_before("F")
    })
    .await
}

async fn is_copied_after(die: impl AsyncFn(&Node) -> Result<()>) -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    die(old).await?;
    cluster.settled().await?;
    workload.goes_on().await?;
    let directory = old.pgdata_inode()?;
    let watch = CopyWatch::start(old)?;
    old.start_keeper()?;
    cluster.settled().await?;
    watch.finish().await?;
    ensure!(old.pgdata_inode()? != directory, "it was not copied");
    ensure!(extra_rows(old).await? == 0, "rows that nobody acknowledged were kept");
    let judge = cluster.judge();
    let judge = judge.expecting("could not locate a valid checkpoint", "the test removed its WAL");
    judge.of(workload).await?;
    Ok(())
}

/// Nothing that a standby lacks is kept for it any more: neither by its slot nor otherwise.
pub(super) async fn forget_wal(primary: &Node) -> Result<()> {
    let sql = primary.sql().await?;
    // One by one: ALTER SYSTEM cannot be part of a transaction.
    sql.run("alter system set wal_keep_size = 0").await?;
    sql.run("alter system set max_slot_wal_keep_size = 0").await?;
    sql.run("select pg_reload_conf()").await?;
    eventually("slots that are lost", DEADLINE, async || {
        sql.run("select pg_switch_wal()").await?;
        sql.run("checkpoint").await?;
        let kept: i64 = sql.value(KEPT, &[]).await?;
        Ok(if kept == 0 { Ok(()) } else { Err(format!("{kept} slots keep WAL")) })
    })
    .await
}

/// Admissions of standbys that are away.
const KEPT: &str = "select count(*) from pg_replication_slots \
    where not active and wal_status <> 'lost' and slot_name ~ '^pgtandem_[0-9]+_[0-9]+$'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_for_which_no_wal_was_kept_is_copied() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let standby = *cluster.standbys().await?.first().context("no standby")?;
    let directory = standby.pgdata_inode()?;
    standby.kill_all()?;
    workload.goes_on().await?;
    forget_wal(cluster.primary().await?).await?;
    standby.start_keeper()?;
    cluster.settled().await?;
    ensure!(standby.pgdata_inode()? != directory, "it was not copied");
    let judge = cluster.judge();
    judge.expecting("has already been removed", "the test made it so").of(workload).await?;
    Ok(())
}

/// Looks all the while for the old copy, until the new one is complete and in its place.
struct CopyWatch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<()>>,
}

impl CopyWatch {
    fn start(node: &Node) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, old) = (Arc::clone(&stop), node.pgdata_inode()?);
        let (dir, pgdata) = (node.dir().to_owned(), node.pgdata());
        let task = tokio::task::spawn_blocking(move || {
            while !stopped.load(Ordering::Relaxed) {
                // In this order: the old one may be removed once the new one is in its place.
                let copying = working_in(&dir).into_iter().any(|pid| {
                    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                    name.trim_end() == "pg_basebackup" && is_alive(pid)
                });
                let entries = fs::read_dir(&dir)?.flatten();
                let kept =
                    entries.filter_map(|entry| entry.metadata().ok()).any(|m| m.ino() == old);
                let replaced = fs::metadata(&pgdata).is_ok_and(|meta| meta.ino() != old);
                ensure!(kept || replaced, "the old copy was removed before there was a new one");
                ensure!(kept || !copying, "the old copy was removed while the new one was made");
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        });
        Ok(Self { stop, task })
    }

    async fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await?
    }
}

impl Drop for CopyWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The candidate lacks what the other standby, which is never promoted by itself, has acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_is_behind_fetches_from_a_peer() -> Result<()> {
    let zero = NodeOptions { candidate_priority: Some(0), ..NodeOptions::default() };
    let builder = Cluster::builder().nodes(2).node(zero).starting(&[1]);
    let cluster = builder.start().await?;
    cluster.start_keepers(&["node2", "node3"])?;
    let status = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let candidate = node_of(&status, "node2").map(|node| node.application_name.clone());
    let newest = cluster.monitor().newest_event().await?;
    let old = cluster.node("node1")?;
    old.hold_wal_back(candidate.as_deref()).await?;
    workload.acknowledges(50).await?;
    old.kill_all()?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() == "node2"));
    let events = cluster.monitor().events(newest).await?;
    let fetched = |event: &shared::event::Event| event.to.as_deref() == Some("forwarding");
    ensure!(events.iter().any(fetched), "node2 was not behind: {events:?}");
    workload.goes_on().await?;
    old.start_keeper()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}
