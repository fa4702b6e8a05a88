//! Several formations below one monitor, which know nothing of each other.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shared::api::Status;
use shared::event::Event;
use std::time::Instant;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, NodeOptions, Terminal, binaries};

const OTHER: &str = "reports";

async fn status(cluster: &Cluster, formation: &str) -> Result<Status> {
    let answer = cluster.pgtandem(&["--formation", formation, "status"]).await?;
    ensure!(answer.code == 0, "{answer:?}");
    serde_json::from_value(answer.json).context(answer.stdout)
}

/// Waits until a formation takes writes with so many standbys streaming, for which commits wait, and is as
/// said.
async fn serves(
    cluster: &Cluster,
    formation: &str,
    standbys: usize,
    holds: impl Fn(&Status) -> bool,
) -> Result<Status> {
    eventually(&format!("{formation}, serving"), DEADLINE, async || {
        let status = status(cluster, formation).await?;
        let streaming = status.nodes.iter().filter(|node| node.sync_state.is_some()).count();
        let sync = status.sync.members.len() == standbys && status.sync.pending.is_none();
        let well = status.writable && streaming == standbys && sync && status.operation.is_none();
        Ok(if well && holds(&status) { Ok(status) } else { Err(format!("{status:?}")) })
    })
    .await
}

/// Two nodes in a second formation, by the names that those in the first one have.
async fn with_another(cluster: &mut Cluster) -> Result<()> {
    let created = cluster.pgtandem(&["formation", "create", OTHER]).await?;
    ensure!(created.code == 0, "{created:?}");
    for _ in 0..2 {
        let arguments = ["--formation", OTHER].map(str::to_owned).to_vec();
        cluster.add_node(NodeOptions { arguments, ..NodeOptions::default() })?;
    }
    cluster.start_keepers(&["node3", "node4"])?;
    serves(cluster, OTHER, 1, |_| true).await?;
    for (now, name) in [("node3", "node1"), ("node4", "node2")] {
        cluster.perform(&["--formation", OTHER, "set", "node", now, "name", name]).await?;
    }
    serves(cluster, OTHER, 1, |_| true).await.map(drop)
}

/// Ids without gaps, and nothing of another formation.
async fn has_its_own_history(cluster: &Cluster, formation: &str) -> Result<()> {
    let all = ["--formation", formation, "events", "--after", "0", "--count", "10000"];
    let answer = cluster.pgtandem(&all).await?;
    ensure!(answer.code == 0, "{answer:?}");
    let events = serde_json::Deserializer::from_str(&answer.stdout).into_iter::<Event>();
    let events = events.collect::<Result<Vec<_>, _>>()?;
    ensure!(events.len() > 10, "{} events", events.len());
    for (event, id) in events.iter().zip(1..) {
        ensure!(event.id == id, "{formation}: event {} where {id} is due", event.id);
        ensure!(event.formation.as_str() == formation, "{event:?}");
    }
    Ok(())
}

/// Every command that looks is about the formation that it was asked of.
async fn looks_at(cluster: &Cluster, formation: &str, port: u16) -> Result<()> {
    let of_it: [(&[&str], &str); 5] = [
        (&["status"], "/formation"),
        (&["sync"], "/formation"),
        (&["settings"], "/formation"),
        (&["timelines"], "/formation"),
        (&["get", "formation"], "/formation"),
    ];
    for (command, pointer) in of_it {
        let answer = cluster.pgtandem(&[&["--formation", formation], command].concat()).await?;
        ensure!(answer.code == 0, "{answer:?}");
        let named = answer.json.pointer(pointer).and_then(Value::as_str);
        ensure!(named.is_none_or(|named| named == formation), "{command:?}: {}", answer.stdout);
    }
    for command in [&["get", "node", "node1"][..], &["uri"], &["status"]] {
        let answer = cluster.pgtandem(&[&["--formation", formation], command].concat()).await?;
        ensure!(answer.code == 0 && answer.stdout.contains(&port.to_string()), "{answer:?}");
    }
    Ok(())
}

/// A failover in one does not touch the other; a formation with nodes is not dropped, one without is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_side_by_side() -> Result<()> {
    let mut cluster = Cluster::builder().nodes(2).untraced().start().await?;
    let workload = cluster.workload().await?;
    with_another(&mut cluster).await?;
    looks_at(&cluster, "default", cluster.node("node1")?.port()).await?;
    looks_at(&cluster, OTHER, cluster.node("node3")?.port()).await?;

    let (here, there) = (status(&cluster, "default").await?, status(&cluster, OTHER).await?);
    let begin = Instant::now();
    let primary = there.primary.clone().context("no primary")?;
    let machine = if primary.as_str() == "node1" { "node3" } else { "node4" };
    cluster.node(machine)?.kill_both()?;
    let another = |status: &Status| status.primary.as_ref().is_some_and(|name| *name != primary);
    serves(&cluster, OTHER, 0, another).await?;
    cluster.node(machine)?.start_keeper()?;
    serves(&cluster, OTHER, 1, another).await?;
    let now = status(&cluster, "default").await?;
    ensure!((now.epoch, &now.primary) == (here.epoch, &here.primary), "{now:?}");
    workload.goes_on().await?;
    workload.so_far().none_failed_between(begin, Instant::now())?;
    has_its_own_history(&cluster, "default").await?;
    has_its_own_history(&cluster, OTHER).await?;

    ensure!(cluster.refused(&["formation", "drop", OTHER]).await? == "has_nodes");
    for node in ["node3", "node4"] {
        cluster.node(node)?.stop_keeper().await?;
    }
    for node in status(&cluster, OTHER).await?.nodes {
        let name = node.name.to_string();
        let dropped = ["--formation", OTHER, "drop", "node", &name, "--force", "--no-wait"];
        let answer = cluster.pgtandem(&dropped).await?;
        ensure!(answer.code == 0, "{answer:?}");
    }
    let dropped = cluster.pgtandem(&["formation", "drop", OTHER]).await?;
    ensure!(dropped.code == 0, "{dropped:?}");
    let left = cluster.pgtandem(&["formation", "list"]).await?;
    let names: Vec<_> = left.json.as_array().into_iter().flatten().map(|f| &f["name"]).collect();
    ensure!(names == ["default"], "{left:?}");
    let gone = cluster.pgtandem(&["--formation", OTHER, "status"]).await?;
    ensure!(gone.code == 1, "{gone:?}");
    cluster.verdict(workload).await?;
    Ok(())
}

/// `f` goes on to the next formation, and from the last one to the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_watched_one_after_the_other() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).untraced().start().await?;
    let created = cluster.pgtandem(&["formation", "create", OTHER]).await?;
    ensure!(created.code == 0, "{created:?}");
    let terminal = Terminal::open(cluster.sandbox().root(), 100, 24).await?;
    let program = binaries::ours("pgtandem")?;
    terminal.write(&format!(
        "{} watch --monitor {}",
        program.display(),
        cluster.monitor().url()
    ))?;
    terminal.press("Enter")?;
    let has_node = |screen: &str| screen.lines().any(|line| line.starts_with("node1 "));
    let first = |screen: &str| screen.contains("formation default") && has_node(screen);
    let other = |screen: &str| screen.contains("formation reports") && !has_node(screen);
    terminal.shows("the first formation", first).await?;
    terminal.press("f")?;
    terminal.shows("the other formation", other).await?;
    terminal.press("f")?;
    terminal.shows("the first formation again", first).await?;
    terminal.press("q")?;
    terminal.shows("the end", |screen| !screen.contains("formation default  ")).await?;
    cluster.pass();
    Ok(())
}
