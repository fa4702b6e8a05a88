//! Nodes that leave for good.

use anyhow::{Context as _, Result, ensure};
use shared::api::{NodeStatus, Status};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

/// A dropped node's Postgres is stopped for good, and its keeper has nothing left to do.
async fn is_retired(node: &Node) -> Result<()> {
    let stopped = eventually("a Postgres that is stopped", DEADLINE, async || {
        Ok(if node.has_postgres() { Err("it is running".to_owned()) } else { Ok(()) })
    });
    stopped.await?;
    if node.unexpected_end()?.is_some() {
        let status = node.keeper_ends().await?;
        ensure!(status.success(), "the keeper of {} ended with {status}", node.name());
    } else {
        node.stop_keeper().await?;
    }
    Ok(())
}

fn is_forgotten(status: &Status, name: &str) -> bool {
    status.nodes.iter().all(|node| node.name.as_str() != name)
        && status.sync.members.iter().all(|member| member.as_str() != name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let begin = std::time::Instant::now();
    for node in cluster.standbys().await?.into_iter().take(1) {
        cluster.perform(&["drop", "node", node.name()]).await?;
        ensure!(is_forgotten(&cluster.monitor().status().await?, node.name()));
        is_retired(node).await?;
    }
    cluster.settled().await?;
    workload.goes_on().await?;
    workload.so_far().none_failed_between(begin, std::time::Instant::now())?;
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_hands_over_first() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    cluster.perform(&["drop", "node", old.name()]).await?;
    let status = cluster.monitor().status().await?;
    ensure!(is_forgotten(&status, old.name()), "{status:?}");
    is_retired(old).await?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// Its name leaves the sync set at once; and if it comes back after all, it is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    for node in cluster.standbys().await?.into_iter().take(1) {
        node.kill_both()?;
        cluster.wait_for_node(node.name(), "dead", |node| node.health == "bad").await?;
        cluster.perform(&["drop", "node", node.name(), "--force"]).await?;
        ensure!(is_forgotten(&cluster.settled().await?, node.name()));
        workload.goes_on().await?;
        node.start_keeper()?;
        let status = node.keeper_ends().await?;
        ensure!(status.code() == Some(3), "{status}");
        ensure!(node.keeper_log()?.contains("dropped"), "{}", node.keeper_log()?);
        ensure!(!node.has_postgres(), "a dropped node runs Postgres");
    }
    cluster.verdict(workload).await?;
    Ok(())
}

/// A primary that is dead for good is dropped after its successor has been elected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_primary() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.kill_both()?;
    cluster.settled().await?;
    cluster.perform(&["drop", "node", old.name(), "--force"]).await?;
    ensure!(is_forgotten(&cluster.settled().await?, old.name()));
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// `pgtandem-keeper drop` on the node itself, as its keeper was started.
async fn drop_here(node: &Node, more: &[&str]) -> Result<(i32, String)> {
    let started = node.keeper_command()?;
    let mut command = tokio::process::Command::new(started.get_program());
    command.arg("drop").args(started.get_args().filter(|word| *word != "run")).args(more);
    command.arg("--json").kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code().context("it was killed")?, said))
}

fn is_destroyed(node: &Node) -> Result<()> {
    for path in [node.pgdata(), node.state_dir().join("keeper.json")] {
        ensure!(!path.exists(), "{} is there", path.display());
    }
    Ok(())
}

/// The keeper removes what it has once the node has left, after a hand-over where it is the primary; the
/// host can join as a new node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_their_data() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let workload = cluster.workload().await?;
    let forced = ["drop", "node", "node1", "--force", "--destroy"];
    ensure!(cluster.pgtandem(&forced).await?.code == 1, "not both");
    for node in [*cluster.standbys().await?.first().context("none")?, cluster.primary().await?] {
        let foreseen = cluster.pgtandem(&["drop", "node", node.name(), "--dry-run"]).await?;
        ensure!(foreseen.code == 0 && foreseen.stdout.contains("steps"), "{foreseen:?}");
        cluster.settled().await?;
        cluster.perform(&["drop", "node", node.name(), "--destroy"]).await?;
        let status = node.keeper_ends().await?;
        ensure!(status.success(), "the keeper of {} ended with {status}", node.name());
        is_destroyed(node)?;
        node.start_keeper()?;
        cluster.settled().await?;
    }
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// A node leaves by itself: while its keeper runs, and with the monitor down; what the group may need is not
/// destroyed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_node_itself() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let standbys = cluster.standbys().await?;
    let (first, second) = (standbys.first().context("none")?, standbys.get(1).context("only one")?);
    let left = drop_here(first, &["--destroy"]).await?;
    ensure!(left.0 == 0, "{left:?}");
    ensure!(first.keeper_ends().await?.success());
    is_destroyed(first)?;
    ensure!(is_forgotten(&cluster.settled().await?, first.name()));

    second.stop_keeper().await?;
    let primary = cluster.primary().await?;
    cluster.monitor().stop().await?;
    primary.signal_keeper(rustix::process::Signal::INT)?;
    primary.keeper_ends().await?;
    let refused = drop_here(primary, &["--destroy"]).await?;
    ensure!(refused.0 == 3 && refused.1.contains("may_be_needed"), "{refused:?}");
    ensure!(primary.pgdata().exists(), "what only it has is gone");
    let left = drop_here(second, &["--destroy"]).await?;
    ensure!(left.0 == 0, "{left:?}");
    is_destroyed(second)?;

    cluster.monitor().start()?;
    cluster.monitor().ready().await?;
    primary.start_keeper()?;
    let known = |node: &NodeStatus| node.health == "bad";
    cluster.wait_for_node(second.name(), "known as it was last", known).await?;
    cluster.perform(&["drop", "node", second.name(), "--force"]).await?;
    cluster.settled().await?;
    cluster.judge().without_workload().await
}
