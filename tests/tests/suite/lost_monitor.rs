//! The monitor is lost with everything that it knew, or comes back as an old copy: it takes over from what
//! the keepers know, and no Postgres is restarted for it.

use anyhow::{Context as _, Result, ensure};
use shared::api::Status;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

/// Longer than the node timeout.
const A_WHILE: Duration = Duration::from_secs(5);
/// No command takes longer.
const LIMIT: Duration = Duration::from_secs(30);

async fn run(command: Command) -> Result<Output> {
    let mut command = tokio::process::Command::from(command);
    let output = tokio::time::timeout(LIMIT, command.kill_on_drop(true).output()).await;
    Ok(output.with_context(|| format!("it goes on: {command:?}"))??)
}

/// Ended with this code; what it said.
async fn ends(command: Command, code: i32) -> Result<String> {
    let output = run(command).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "{:?} instead of {code}: {said}", output.status);
    Ok(said)
}

async fn attach(node: &Node, monitor: &str) -> Result<()> {
    let mut command = node.keeper_tool("attach")?;
    command.args(["--monitor", monitor]);
    ends(command, 0).await?;
    Ok(())
}

fn postmasters(cluster: &Cluster) -> Result<Vec<i32>> {
    cluster.nodes().iter().filter(|node| node.is_up()).map(Node::postmaster).collect()
}

/// The primary dies, another takes over, and it comes back.
async fn fails_over(cluster: &Cluster) -> Result<()> {
    let old = cluster.primary().await?;
    old.kill_both()?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() != old.name()));
    old.start_keeper()?;
    cluster.settled().await?;
    Ok(())
}

async fn has_event(cluster: &Cluster, rule: &str) -> Result<()> {
    let events = cluster.monitor().events(0).await?;
    ensure!(events.iter().any(|event| event.rule == rule), "no {rule} among {events:?}");
    Ok(())
}

async fn cluster(nodes: usize) -> Result<Cluster> {
    Cluster::builder().nodes(nodes).untraced().start().await
}

/// What operators had set is there again, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_same_address_keepers_come_by_themselves() -> Result<()> {
    let cluster = cluster(3).await?;
    for arguments in [
        &["set", "node", "node3", "candidate-priority", "7"][..],
        &["set", "formation", "stall-timeout", "5s"],
        &["config", "set", "work_mem=8MB"],
    ] {
        let answer = cluster.pgtandem(arguments).await?;
        ensure!(answer.code == 0, "{answer:?}");
    }
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let pids = postmasters(&cluster)?;
    let begin = Instant::now();
    cluster.monitor().lose()?;
    cluster.monitor().start_adopting()?;
    let after = cluster.settled().await?;
    workload.goes_on().await?;
    workload.so_far().none_failed_between(begin, Instant::now())?;
    ensure!(postmasters(&cluster)? == pids, "a Postgres was restarted");
    ensure!((after.epoch, &after.primary) == (before.epoch, &before.primary), "{after:?}");
    has_event(&cluster, "adopted").await?;
    let priority = after.nodes.iter().find(|node| node.name.as_str() == "node3");
    ensure!(priority.is_some_and(|node| node.candidate_priority == 7), "{after:?}");
    for (arguments, value) in
        [(&["get", "formation", "stall-timeout"][..], "5s"), (&["config", "show"][..], "8MB")]
    {
        let answer = cluster.pgtandem(arguments).await?;
        ensure!(answer.stdout.contains(value) || answer.stdout.contains("5000"), "{answer:?}");
    }
    fails_over(&cluster).await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_another_address_keepers_are_attached() -> Result<()> {
    let cluster = cluster(3).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let pids = postmasters(&cluster)?;
    let begin = Instant::now();
    cluster.monitor().lose()?;
    cluster.monitor().moves()?;
    cluster.monitor().start_adopting()?;
    cluster.monitor().ready().await?;
    for node in cluster.nodes() {
        attach(node, &cluster.monitor().url()).await?;
        // A second time changes nothing.
        attach(node, &cluster.monitor().url()).await?;
    }
    let after = cluster.settled().await?;
    workload.goes_on().await?;
    workload.so_far().none_failed_between(begin, Instant::now())?;
    ensure!(postmasters(&cluster)? == pids, "a Postgres was restarted");
    ensure!((after.epoch, &after.primary) == (before.epoch, &before.primary), "{after:?}");
    // The next process, told of the old address, goes to the new one.
    let standby = cluster.standbys().await?.into_iter().next().context("no standby")?;
    standby.kill_keeper()?;
    standby.start_keeper()?;
    cluster.settled().await?;
    fails_over(&cluster).await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    let status = command.arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_notices_what_it_missed() -> Result<()> {
    let cluster = cluster(3).await?;
    let workload = cluster.workload().await?;
    let monitor = cluster.monitor();
    monitor.stop().await?;
    let kept = monitor.data_dir().with_extension("copy");
    copy(&monitor.data_dir(), &kept)?;
    monitor.start()?;
    cluster.settled().await?;
    fails_over(&cluster).await?;
    workload.goes_on().await?;
    let before = cluster.settled().await?;
    let pids = postmasters(&cluster)?;
    monitor.lose()?;
    copy(&kept, &monitor.data_dir())?;
    monitor.start()?;
    let after = cluster.settled().await?;
    for rule in ["record-is-old", "adopted"] {
        has_event(&cluster, rule).await?;
    }
    ensure!((after.epoch, &after.primary) == (before.epoch, &before.primary), "{after:?}");
    ensure!(postmasters(&cluster)? == pids, "a Postgres was restarted");
    fails_over(&cluster).await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// The primary and one standby prove that nobody else can have been elected; the third comes later, without
/// a new copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_is_missing() -> Result<()> {
    let cluster = cluster(3).await?;
    let workload = cluster.workload().await?;
    let missing = cluster.standbys().await?.into_iter().next().context("no standby")?;
    let inode = missing.pgdata_inode()?;
    missing.kill_all()?;
    cluster.settled().await?;
    let primary = cluster.primary().await?;
    let before = primary.postmaster()?;
    cluster.monitor().lose()?;
    cluster.monitor().start_adopting()?;
    let status = cluster.settled().await?;
    ensure!(status.nodes.len() == 3, "{status:?}");
    ensure!(primary.postmaster()? == before, "the primary was restarted");
    workload.goes_on().await?;
    missing.start_keeper()?;
    cluster.settled().await?;
    has_event(&cluster, "latecomer").await?;
    ensure!(missing.pgdata_inode()? == inode, "it was copied anew");
    fails_over(&cluster).await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// An empty monitor that does not adopt is told of keepers that it does not know: nothing happens to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_monitor_that_does_not_adopt() -> Result<()> {
    let cluster = cluster(3).await?;
    let workload = cluster.workload().await?;
    let monitor = cluster.monitor();
    let node = cluster.primary().await?;
    let pids = postmasters(&cluster)?;
    let said = ends(node.keeper_tool("detach")?, 3).await?;
    ensure!(said.contains("--force") && said.contains("alive"), "{said}");
    monitor.lose()?;
    monitor.start()?;
    eventually("a refusal that says what to do", DEADLINE, async || {
        let said = node.keeper_log()?;
        Ok(if said.contains("run --adopt") { Ok(()) } else { Err(String::new()) })
    })
    .await?;
    // A keeper that is started meanwhile goes on with what it knows.
    let standby = cluster.nodes().iter().find(|other| other.name() != node.name());
    let standby = standby.context("no standby")?;
    standby.kill_keeper()?;
    standby.start_keeper()?;
    workload.goes_on_for(A_WHILE).await?;
    cluster.nobody_ended()?;
    ensure!(monitor.status().await?.nodes.is_empty(), "it has taken them in");
    ensure!(postmasters(&cluster)? == pids, "a Postgres was restarted");
    monitor.lose()?;
    monitor.start_adopting()?;
    cluster.settled().await?;
    monitor.stop().await?;
    let mut again = monitor.command()?;
    again.arg("--adopt");
    let said = ends(again, 2).await?;
    ensure!(said.contains("start it without --adopt"), "{said}");
    monitor.start()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// Under an asynchronous spec only the operator's word keeps the primary up without a monitor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detached_an_asynchronous_primary_goes_on() -> Result<()> {
    let cluster = cluster(2).await?;
    let workload = cluster.workload().await?;
    let primary = cluster.primary().await?;
    let standby = cluster.standbys().await?.into_iter().next().context("no standby")?;
    standby.kill_all()?;
    cluster.settled().await?;
    let before = primary.postmaster()?;
    let mut detach = primary.keeper_tool("detach")?;
    detach.arg("--force");
    ends(detach, 0).await?;
    cluster.monitor().lose()?;
    workload.goes_on_for(A_WHILE).await?;
    ensure!(primary.postmaster()? == before, "it has fenced itself");
    // A crash is no reason to stay down either.
    primary.kill_postmaster()?;
    workload.goes_on().await?;
    cluster.monitor().moves()?;
    cluster.monitor().start_adopting()?;
    cluster.monitor().ready().await?;
    attach(primary, &cluster.monitor().url()).await?;
    // Who is missing might have been elected: it is waited for, and the primary goes on meanwhile.
    let quarantined = |status: &Status| status.warnings.iter().any(|w| w.contains("quarantine"));
    cluster.wait_until("a quarantine", quarantined).await?;
    cluster.stays("in quarantine", A_WHILE, quarantined).await?;
    workload.goes_on().await?;
    attach(standby, &cluster.monitor().url()).await?;
    standby.start_keeper()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}
