//! Programs are replaced by those of another release while writes go on.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use shared::PROTOCOL;
use std::time::{Duration, Instant};
use tests::harness::binaries::{self, Build};
use tests::harness::process::command;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node, NodeOptions};

/// A refusal comes soon; what keeps trying is no refusal.
const LIMIT: Duration = Duration::from_secs(30);

async fn started_at(node: &Node) -> Result<String> {
    node.sql().await?.value("select pg_postmaster_start_time()::text", &[]).await
}

/// Replaces a keeper, ended as said, under a Postgres that does not notice.
async fn replace(
    cluster: &Cluster,
    node: &Node,
    build: Build,
    end: impl AsyncFnOnce(&Node) -> Result<()>,
) -> Result<()> {
    let before = (node.postmaster()?, started_at(node).await?);
    end(node).await?;
    node.install(build);
    node.start_keeper()?;
    has_taken_over(node).await?;
    cluster.settled().await?;
    let after = (node.postmaster()?, started_at(node).await?);
    ensure!(after == before, "the Postgres of {} was {before:?} and is {after:?}", node.name());
    Ok(())
}

/// It has heard the monitor, and lives no more on the one lease that a keeper may claim at its start
/// (docs/safety.md, rule 13): the next one may claim another.
async fn has_taken_over(node: &Node) -> Result<()> {
    eventually("a keeper that has taken over", DEADLINE, async || {
        let mut show = command(&binaries::ours("pgtandem-keeper")?);
        show.args(["status", "--json", "--pgdata"]).arg(node.pgdata());
        show.arg("--state-dir").arg(node.state_dir());
        show.args(["--rest-listen", &format!("127.0.0.1:{}", node.rest_port())]);
        let shown = String::from_utf8(show.output()?.stdout)?;
        let status: Value = serde_json::from_str(&shown).with_context(|| shown.clone())?;
        let state = std::fs::read_to_string(node.state_dir().join("keeper.json"))?;
        let state: Value = serde_json::from_str(&state)?;
        let reaches = status.pointer("/monitor/reachable") == Some(&true.into());
        let lives_on_claim = state.get("claimed") == Some(&true.into());
        Ok(if reaches && !lives_on_claim { Ok(()) } else { Err(shown) })
    })
    .await
}

async fn by_usr2(node: &Node) -> Result<()> {
    node.signal_keeper(Signal::USR2)?;
    let status = node.keeper_ends().await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keepers_are_replaced_under_their_postgres() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let before = cluster.settled().await?;
    let workload = cluster.workload().await?;
    let begin = Instant::now();
    for node in cluster.nodes() {
        replace(&cluster, node, Build::Other(PROTOCOL), by_usr2).await?;
        workload.goes_on().await?;
        replace(&cluster, node, Build::Ours, async |node| node.kill_keeper()).await?;
        workload.goes_on().await?;
    }
    workload.so_far().none_failed_between(begin, Instant::now())?;
    let after = cluster.settled().await?;
    ensure!(after.epoch == before.epoch && after.primary == before.primary, "{after:?}");
    cluster.verdict(workload).await?;
    Ok(())
}

/// It ends with code 3, and says in a line what is to be upgraded.
async fn is_refused(cluster: &mut Cluster, build: Build, what: &str) -> Result<()> {
    let name = cluster.add_node(NodeOptions { build, ..NodeOptions::default() })?.name().to_owned();
    let mut command = tokio::process::Command::from(cluster.node(&name)?.keeper_command()?);
    command.kill_on_drop(true).process_group(0);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.with_context(|| format!("the keeper of {name} is not refused"))??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "{:?}: {said}", output.status);
    let lines: Vec<_> = said.lines().filter(|line| line.contains("protocol")).collect();
    ensure!(lines.len() == 1 && said.contains(&format!("upgrade the {what} first")), "{said}");
    ensure!(!cluster.node(&name)?.has_postgres(), "its Postgres is running");
    Ok(())
}

/// First the monitor, then one keeper after the other; in between, both protocols are spoken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_one_protocol_to_the_next() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let next = Build::Other(PROTOCOL + 1);
    is_refused(&mut cluster, next, "monitor").await?;
    ensure!(cluster.monitor().stop().await?.success());
    cluster.monitor().install(next);
    cluster.monitor().start()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    is_refused(&mut cluster, Build::Other(PROTOCOL - 1), "keeper").await?;

    let new = cluster.node("node3")?;
    replace(&cluster, new, next, by_usr2).await?;
    cluster.perform(&["switchover", "--to", "node3"]).await?;
    workload.goes_on().await?;
    // The new one dies, and an old one takes over; then the other way round.
    new.kill_both()?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() != "node3"));
    workload.goes_on().await?;
    new.start_keeper()?;
    cluster.settled().await?;
    let old = cluster.primary().await?;
    let other = cluster.standbys().await?.into_iter().find(|node| node.name() != "node3");
    let other = other.context("there is no third node")?;
    cluster.perform(&["set", "node", other.name(), "candidate-priority", "10"]).await?;
    old.kill_both()?;
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() == "node3"));
    workload.goes_on().await?;
    old.install(next);
    old.start_keeper()?;
    cluster.settled().await?;
    replace(&cluster, other, next, by_usr2).await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}
