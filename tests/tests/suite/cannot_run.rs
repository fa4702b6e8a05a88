//! Postgres that cannot run: its configuration, its libraries, its directory, its disk, its processes.
//! The group goes on without it if it safely can, status says why in PostgreSQL's own words, and it comes
//! back by itself once the cause is mended.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shared::api::{NodeStatus, Status};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use tests::harness::cluster::node_of;
use tests::harness::process::signal;
use tests::harness::wait::{DEADLINE, eventually, eventually_every};
use tests::harness::{Cluster, Node};

/// A volume for a cluster and all that a test writes: with a few segments of WAL in it there still is
/// enough room to be elected.
const ROOMY: u32 = 420;

/// Several report intervals, and several tries to start.
const A_WHILE: Duration = Duration::from_secs(8);

/// Another node than this one is the primary and takes writes.
fn another(old: &Node) -> impl Fn(&Status) -> bool {
    let old = old.name().to_owned();
    move |status| {
        status.writable && status.primary.as_ref().is_some_and(|name| name.as_str() != old)
    }
}

/// A node warns in words that have all of these in them.
fn warns(words: &[&str]) -> impl Fn(&NodeStatus) -> bool {
    let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    move |node| {
        let has_all = |text: &String| words.iter().all(|word| text.contains(word));
        node.warnings.iter().any(has_all)
    }
}

async fn is_explained(cluster: &Cluster, words: &[&str]) -> Result<()> {
    let sentences = cluster.monitor().explain().await?.sentences;
    let has_all = |text: &String| words.iter().all(|word| text.contains(word));
    ensure!(sentences.iter().any(has_all), "{words:?} is not explained: {sentences:#?}");
    Ok(())
}

/// Removes a data directory also under a server that runs and makes files in it.
fn remove(dir: &Path) -> Result<()> {
    for _ in 0..100 {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            outcome => outcome?,
        }
    }
    ensure!(!dir.exists(), "{} cannot be removed", dir.display());
    Ok(())
}

/// Puts a line at the head of the part of postgresql.conf that is the operator's.
fn configure(node: &Node, line: &str) -> Result<()> {
    let path = node.pgdata().join("postgresql.conf");
    let text = fs::read_to_string(&path)?;
    Ok(fs::write(&path, format!("{line}\n{text}"))?)
}

/// Takes it away.
fn mend_configuration(node: &Node) -> Result<()> {
    let path = node.pgdata().join("postgresql.conf");
    let text = fs::read_to_string(&path)?;
    let (_, rest) = text.split_once('\n').context("an empty file")?;
    Ok(fs::write(&path, rest)?)
}

/// The primary is spoilt and its postmaster killed: another takes over, status says why, and once it is
/// mended the node comes back with the data that it had.
async fn comes_back_when_mended(
    spoil: impl Fn(&Node) -> Result<()>,
    mend: impl Fn(&Node) -> Result<()>,
    words: &[&'static str],
) -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    let directory = old.pgdata_inode()?;
    let postmaster = old.postmaster()?;
    spoil(old)?;
    signal(postmaster, Signal::KILL)?;
    cluster.wait_until("another primary", another(old)).await?;
    workload.goes_on().await?;
    cluster.wait_for_node(old.name(), "says why", warns(words)).await?;
    is_explained(&cluster, words).await?;
    // Longer than it would take to be taken for broken.
    let down = |status: &Status| node_of(status, old.name()).is_some_and(|node| !node.pg_running);
    cluster.stays("down", A_WHILE, down).await?;
    mend(old)?;
    cluster.settled().await?;
    ensure!(old.pgdata_inode()? == directory, "it was copied although nothing ailed its data");
    let mut verdict = cluster.judge();
    for word in words {
        verdict = verdict.expecting(word, "it is what the test has done");
    }
    verdict.of(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_syntax_error_in_the_configuration() -> Result<()> {
    comes_back_when_mended(
        |node| configure(node, "work_mem = = 4MB"),
        mend_configuration,
        &["postgresql.conf\"", "line 1"],
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_that_is_missing() -> Result<()> {
    comes_back_when_mended(
        |node| configure(node, "shared_preload_libraries = 'no_such_library'"),
        mend_configuration,
        &["no_such_library"],
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_nobody_may_enter() -> Result<()> {
    let set_mode = |mode| {
        move |node: &Node| Ok(fs::set_permissions(node.pgdata(), fs::Permissions::from_mode(mode))?)
    };
    comes_back_when_mended(set_mode(0), set_mode(0o700), &["Permission denied"]).await
}

/// A node that is known waits, and says for what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_starts_where_nobody_may_enter() -> Result<()> {
    let cluster = Cluster::start(2).await?;
    let standbys = cluster.standbys().await?;
    let standby = standbys.first().context("no standby")?;
    let set_mode = |mode| fs::set_permissions(standby.pgdata(), fs::Permissions::from_mode(mode));
    let directory = standby.pgdata_inode()?;
    ensure!(standby.stop_keeper().await?.success());
    set_mode(0)?;
    standby.start_keeper()?;
    cluster.wait_for_node(standby.name(), "says why", warns(&["Permission denied"])).await?;
    ensure!(standby.unexpected_end()?.is_none(), "its keeper has ended");
    set_mode(0o700)?;
    cluster.settled().await?;
    ensure!(standby.pgdata_inode()? == directory, "it was copied although nothing ailed its data");
    cluster.judge().expecting("Permission denied", "it is what the test has done").logs_only()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_is_removed_while_it_runs() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    let postmaster = old.postmaster()?;
    remove(&old.pgdata())?;
    cluster.wait_until("another primary", another(old)).await?;
    workload.goes_on().await?;
    cluster.settled().await?;
    ensure!(!tests::harness::process::is_alive(postmaster), "the old server goes on");
    cluster
        .judge()
        .expecting("No such file or directory", "its files are gone")
        .expecting("could not open file", "its files are gone")
        .of(workload)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_is_removed_while_it_is_stopped() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.kill_both()?;
    remove(&old.pgdata())?;
    old.start_keeper()?;
    cluster.wait_until("another primary", another(old)).await?;
    workload.goes_on().await?;
    cluster.settled().await?;
    cluster
        .judge()
        .expecting("No such file or directory", "its files are gone")
        .of(workload)
        .await?;
    Ok(())
}

/// With nobody to copy from, nothing takes the place of what was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_of_the_only_node_is_removed() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let node = cluster.primary().await?;
    node.stop_keeper().await?;
    remove(&node.pgdata())?;
    node.start_keeper()?;
    let waits = |node: &NodeStatus| {
        node.step.as_ref().is_some_and(|step| step.name.contains("the data of this one is lost"))
    };
    cluster.wait_for_node(node.name(), "waits", waits).await?;
    let down = |status: &Status| node_of(status, node.name()).is_some_and(|node| !node.pg_running);
    cluster.stays("without a cluster", A_WHILE, down).await?;
    ensure!(!node.pgdata().join("PG_VERSION").exists(), "an empty cluster was created");
    cluster.judge().logs_only()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_read_only() -> Result<()> {
    let cluster = on_volumes(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.volume()?.read_only()?;
    cluster.wait_until("another primary", another(old)).await?;
    workload.goes_on().await?;
    cluster.wait_for_node(old.name(), "says why", warns(&["Read-only file system"])).await?;
    // A keeper that starts there says so, too.
    old.stop_keeper().await?;
    old.start_keeper()?;
    cluster.wait_for_node(old.name(), "says why", warns(&["Read-only file system"])).await?;
    // Not even a keeper may look at what is to be repaired.
    old.stop_keeper().await?;
    old.volume()?.read_write()?;
    old.start_keeper()?;
    cluster.settled().await?;
    cluster
        .judge()
        .expecting("Read-only file system", "its disk takes no writes")
        .expecting("Input/output error", "its disk takes no writes")
        .expecting("this node cannot serve: its storage", "it says so")
        .of(workload)
        .await?;
    Ok(())
}

/// What the kernel does when there is no memory left. Returns when the server has ended.
async fn kill_a_backend(node: &Node) -> Result<()> {
    let postmaster = node.postmaster()?;
    let sql = node.sql().await?;
    signal(sql.value("select pg_backend_pid()", &[]).await?, Signal::KILL)?;
    eventually("its end", DEADLINE, async || {
        let ended = node.postmaster().ok() != Some(postmaster);
        Ok(if ended { Ok(()) } else { Err("it goes on".to_owned()) })
    })
    .await
}

/// It is up again after each crash; but not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_of_the_primary_is_killed_again_and_again() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    // How often it ends counts here, not how long a busy machine takes to start it.
    cluster.perform(&["set", "formation", "restart-budget", "10s"]).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    let directory = old.pgdata_inode()?;
    let mut kills = 0;
    while cluster.primary().await.is_ok_and(|primary| primary.name() == old.name()) {
        ensure!(kills < 6, "{kills} crashes in a row, and it still is the primary");
        kill_a_backend(old).await?;
        kills += 1;
        workload.goes_on().await?;
    }
    ensure!(kills > 3, "it was given up after {kills} crashes");
    cluster.settled().await?;
    ensure!(old.pgdata_inode()? == directory, "it was copied although nothing ails its data");
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_of_the_only_node_is_killed_again_and_again() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let node = cluster.primary().await?;
    for _ in 0..8 {
        kill_a_backend(node).await?;
        workload.goes_on().await?;
    }
    let after = cluster.settled().await?;
    ensure!(after.epoch == before.epoch, "nobody was there to be elected");
    cluster.verdict(workload).await?;
    Ok(())
}

/// The only node has nobody to take over: it tries for ever, and runs when its configuration is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_syntax_error_on_the_only_node() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let workload = cluster.workload().await?;
    let node = cluster.primary().await?;
    configure(node, "work_mem = = 4MB")?;
    node.kill_postmaster()?;
    cluster.wait_for_node(node.name(), "says why", warns(&["postgresql.conf\"", "line 1"])).await?;
    let down = |status: &Status| !status.writable;
    cluster.stays("down", A_WHILE, down).await?;
    // It does not wear itself out meanwhile.
    let starts = node.keeper_log()?.matches("started in").count();
    ensure!(starts < 20, "{starts} starts in {A_WHILE:?}");
    mend_configuration(node)?;
    workload.goes_on().await?;
    cluster
        .judge()
        .expecting("postgresql.conf\"", "it is what the test has done")
        .of(workload)
        .await?;
    Ok(())
}

/// Writes WAL until the server is gone, or there has been as much as cannot fit.
async fn write_wal(node: &Node) -> Result<()> {
    const SEGMENT: &str = "set synchronous_commit = local; \
        select pg_logical_emit_message(false, 'test', 'x'); select pg_switch_wal()";
    let Ok(sql) = node.sql().await else { return Ok(()) };
    for _ in 0..60 {
        if sql.run(SEGMENT).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn on_volumes(nodes: usize) -> Result<Cluster> {
    let mut builder = Cluster::builder();
    for _ in 0..nodes {
        builder = builder.nodes(1).on_volume(ROOMY);
    }
    builder.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_the_primary_is_full() -> Result<()> {
    let cluster = on_volumes(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    let directory = old.pgdata_inode()?;
    old.volume()?.fill()?;
    let full = warns(&["is full", "MB of", "MB free"]);
    cluster.wait_for_node(old.name(), "says what is the matter", &full).await?;
    write_wal(old).await?;
    cluster.wait_until("another primary", another(old)).await?;
    workload.goes_on().await?;
    cluster.wait_for_node(old.name(), "says what is the matter", &full).await?;
    old.volume()?.free()?;
    cluster.settled().await?;
    ensure!(old.pgdata_inode()? == directory, "it was copied although nothing ails its data");
    judge_full(&cluster).of(workload).await?;
    Ok(())
}

fn judge_full(cluster: &Cluster) -> tests::harness::verdict::Verdict<'_> {
    cluster
        .judge()
        .expecting("No space left on device", "the disk is full")
        .expecting("could not write", "the disk is full")
}

/// To change the primary would help nobody: it stays, and goes on when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_disks_are_full() -> Result<()> {
    let cluster = on_volumes(3).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    for node in cluster.nodes() {
        node.volume()?.fill()?;
    }
    let full = warns(&["is full", "MB of", "MB free"]);
    let all_say = |status: &Status| status.nodes.iter().all(&full);
    cluster.wait_until("all say what is the matter", all_say).await?;
    write_wal(old).await?;
    eventually("a diagnosis", DEADLINE, async || {
        let blocked = cluster.monitor().explain().await?.blocked_by;
        let named = blocked.iter().any(|b| b.code == "disk_full" && b.nodes.len() == 3);
        Ok(if named { Ok(()) } else { Err(format!("{blocked:?}")) })
    })
    .await?;
    cluster.stays("calm", A_WHILE, |status| status.epoch == before.epoch).await?;
    for node in cluster.nodes() {
        node.volume()?.free()?;
    }
    workload.goes_on().await?;
    let after = cluster.settled().await?;
    ensure!(after.epoch.0 <= before.epoch.0 + 1, "the role went round: {:?}", after.epoch);
    judge_full(&cluster).of(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_a_standby_is_full() -> Result<()> {
    let cluster = on_volumes(3).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let primary = cluster.primary().await?;
    let standby = *cluster.standbys().await?.first().context("no standby")?;
    standby.volume()?.fill()?;
    // What it has is more than enough for a while.
    let left = |status: &Status| {
        status.sync.pending.is_none()
            && status.sync.members.iter().all(|member| member.as_str() != standby.name())
    };
    let mut out = false;
    for _ in 0..8 {
        let sql = primary.sql().await?;
        sql.run("select pg_logical_emit_message(false, 'test', repeat('x', 1 << 24))").await?;
        if cluster.monitor().status().await.is_ok_and(|status| left(&status)) {
            out = true;
            break;
        }
    }
    if !out {
        cluster.wait_until("a sync set without it", left).await?;
    }
    workload.goes_on().await?;
    let full = warns(&["is full", "MB of", "MB free"]);
    cluster.wait_for_node(standby.name(), "says what is the matter", full).await?;
    standby.volume()?.free()?;
    let after = cluster.settled().await?;
    ensure!(after.epoch == before.epoch, "the primary was changed");
    judge_full(&cluster).of(workload).await?;
    Ok(())
}

/// What is to be copied must fit: until it does, nothing is begun, and status says what is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_room_for_a_copy() -> Result<()> {
    let cluster = on_volumes(2).await?;
    let workload = cluster.workload().await?;
    let standby = *cluster.standbys().await?.first().context("no standby")?;
    let volume = standby.volume()?;
    standby.stop_keeper().await?;
    remove(&standby.pgdata())?;
    volume.fill_but(50 << 20)?;
    standby.start_keeper()?;
    let waits = |node: &NodeStatus| {
        warns(&["a copy needs", "MB are free"])(node)
            && node.step.as_ref().is_some_and(|step| step.name == "room on the disk for the clone")
    };
    cluster.wait_for_node(standby.name(), "waits for room", waits).await?;
    ensure!(!standby.pgdata().join("PG_VERSION").exists(), "a copy was begun");
    volume.free()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// A node without data begins to copy, and its keeper is killed meanwhile.
async fn interrupt_a_copy(node: &Node) -> Result<()> {
    node.stop_keeper().await?;
    remove(&node.pgdata())?;
    node.start_keeper()?;
    let begun = node.pgdata().join("base");
    eventually_every(Duration::from_millis(1), "a copy", DEADLINE, async || {
        Ok(if begun.exists() { Ok(()) } else { Err("nothing".to_owned()) })
    })
    .await?;
    node.kill_keeper()
}

/// WAL that lies elsewhere is in the way of a copy: it is the node's own and goes, whether the data
/// directory is there or not, or half of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_with_wal_elsewhere() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).wal_on_volume(ROOMY).nodes(1).wal_on_volume(ROOMY);
    let cluster = cluster.start().await?;
    let workload = cluster.workload().await?;
    for lost in ["everything", "a keeper", "data"] {
        let node = match lost {
            "data" => cluster.primary().await?,
            _ => *cluster.standbys().await?.first().context("no standby")?,
        };
        match lost {
            "everything" => {
                node.stop_keeper().await?;
                remove(&node.pgdata())?;
            }
            "a keeper" => interrupt_a_copy(node).await?,
            _ => {
                node.kill_both()?;
                fs::write(node.pgdata().join("backup_label"), "nonsense")?;
            }
        }
        let directory = node.pgdata_inode().ok();
        node.start_keeper()?;
        cluster.settled().await?;
        ensure!(node.pgdata_inode().ok() != directory, "{lost} was lost, and nothing copied");
        let (link, wal) = (node.pgdata().join("pg_wal"), node.volume()?.dir().join("wal"));
        ensure!(fs::canonicalize(link)? == wal, "its WAL is elsewhere");
    }
    cluster.judge().expecting("backup_label", "it is damaged").of(workload).await?;
    Ok(())
}
