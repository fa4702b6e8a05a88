//! Settings of PostgreSQL for a whole formation: live where they can be, and raised and lowered in an
//! order in which every node can be started at every moment.

use anyhow::{Context as _, Result, ensure};
use fsm::pgsettings::managed::why_refused;
use serde_json::Value;
use std::fs;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

/// What the server says when it was started with less than its log demands.
const TOO_LITTLE: &str = "recovery aborted because of insufficient parameter settings";

/// A cluster whose monitor has heard which settings its servers know.
async fn start(nodes: usize) -> Result<Cluster> {
    let cluster = Cluster::start(nodes).await?;
    eventually("the monitor to know the settings", DEADLINE, async || {
        let answer = cluster.pgtandem(&["config", "set", "no_such_setting=1"]).await?;
        Ok(if answer.code == 1 { Ok(()) } else { Err(format!("{answer:?}")) })
    })
    .await?;
    Ok(cluster)
}

async fn live(node: &Node, name: &str) -> Result<String> {
    node.sql().await?.value("select current_setting($1)", &[&name]).await
}

async fn becomes(node: &Node, name: &str, expected: &str) -> Result<()> {
    let what = format!("{name} {expected} on {}", node.name());
    eventually(&what, DEADLINE, async || match live(node, name).await {
        Ok(value) if value == expected => Ok(Ok(())),
        Ok(value) => Ok(Err(value)),
        Err(error) => Ok(Err(format!("{error:#}"))),
    })
    .await
}

async fn shown(cluster: &Cluster) -> Result<Value> {
    let answer = cluster.pgtandem(&["config", "show"]).await?;
    ensure!(answer.code == 0, "{answer:?}");
    Ok(answer.json)
}

fn of<'a>(shown: &'a Value, node: &str) -> Result<&'a Value> {
    let nodes = shown["nodes"].as_array().context("no nodes")?;
    nodes.iter().find(|found| found["name"] == node).with_context(|| format!("no {node}: {shown}"))
}

/// Whatever a keeper writes itself is on the list of what an operator may not give.
fn ours_are_refused(node: &Node) -> Result<()> {
    let text = fs::read_to_string(node.pgdata().join("pgtandem.conf"))?;
    let names = text.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<_> =
        names.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    ensure!(names.len() > 10, "{text}");
    for name in names {
        ensure!(why_refused(name).is_some(), "{name} may be set by operators");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_live_on_each_node() -> Result<()> {
    let cluster = start(2).await?;
    ours_are_refused(cluster.node("node1")?)?;
    let workload = cluster.workload().await?;
    cluster.perform(&["config", "set", "work_mem=8MB", "timezone=Asia/Tokyo"]).await?;
    // The command has waited for it.
    for node in cluster.nodes() {
        ensure!(
            live(node, "work_mem").await? == "8MB" && live(node, "TimeZone").await? == "Asia/Tokyo"
        );
    }
    cluster.perform(&["config", "set", "work_mem=16MB", "--node", "node2"]).await?;
    let there = async |name| live(cluster.node(name)?, "work_mem").await;
    ensure!((there("node1").await?.as_str(), there("node2").await?.as_str()) == ("8MB", "16MB"));
    let json = shown(&cluster).await?;
    ensure!(json["values"]["work_mem"] == "8MB", "{json}");
    ensure!(of(&json, "node2")?["in_force"]["work_mem"] == "16MB", "{json}");
    // So already.
    let revision = cluster.monitor().status().await?.revision;
    cluster.perform(&["config", "set", "work_mem=8MB"]).await?;
    ensure!(cluster.monitor().status().await?.revision == revision);

    // Refused, with nothing changed.
    let before = shown(&cluster).await?;
    for (setting, code, reason) in [
        ("work_mem=1kB", 1, "bad_value"),
        ("work_mem=lots", 1, "bad_value"),
        ("work_men=8MB", 1, "unknown_setting"),
        ("synchronous_standby_names=", 3, "managed_setting"),
    ] {
        let answer = cluster.pgtandem(&["config", "set", "random_page_cost=2", setting]).await?;
        ensure!(answer.code == code && answer.text("reason") == reason, "{setting}: {answer:?}");
    }
    ensure!(shown(&cluster).await? == before);
    ensure!(live(cluster.node("node1")?, "random_page_cost").await? == "4");

    // What only the server can judge is refused by the keepers, which keep what there was.
    let answer = cluster.pgtandem(&["config", "set", "log_timezone=Nowhere/Land"]).await?;
    ensure!(answer.code == 3 && answer.text("reason").contains("keeps what it had"), "{answer:?}");
    cluster.perform(&["config", "unset", "log_timezone"]).await?;

    cluster.perform(&["config", "unset", "work_mem", "timezone"]).await?;
    ensure!((there("node1").await?.as_str(), there("node2").await?.as_str()) == ("4MB", "16MB"));
    cluster.perform(&["config", "unset", "work_mem", "--node", "node2"]).await?;
    ensure!(there("node2").await? == "4MB");
    let refused = "the new settings are not taken";
    cluster.judge().expecting(refused, "log_timezone").of(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_restart_is_shown() -> Result<()> {
    let cluster = start(1).await?;
    let node = cluster.node("node1")?;
    cluster.perform(&["config", "set", "max_connections=150", "shared_buffers=64MB"]).await?;
    let json = shown(&cluster).await?;
    ensure!(
        of(&json, "node1")?["pending_restart"].as_array().is_some_and(|it| it.len() == 2),
        "{json}"
    );
    let warns = |status: &shared::api::Status| {
        status.nodes.iter().any(|it| it.warnings.iter().any(|text| text.contains("shared_buffers")))
    };
    cluster.wait_until("a warning", warns).await?;
    node.restart_postgres().await?;
    becomes(node, "max_connections", "150").await?;
    becomes(node, "shared_buffers", "64MB").await?;
    cluster.wait_until("no warning", |status| !warns(status)).await?;
    cluster.settled().await?;
    let twice = "lock file \"postmaster.pid\" already exists";
    let judge = cluster.judge().expecting(twice, "pg_ctl and the keeper both start it");
    judge.without_workload().await
}

/// Raised and lowered under load, with restarts in the worst order and a failover between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_start_fails() -> Result<()> {
    let cluster = start(3).await?;
    let workload = cluster.workload().await?;
    let restart = async |name: &str| {
        let node = cluster.node(name)?;
        node.stop_keeper().await?;
        node.start_keeper()?;
        cluster.settled().await.map(drop)
    };
    // A restart is none of the reasons for which a primary is replaced here.
    cluster.perform(&["set", "formation", "restart-budget", "1min"]).await?;
    // The primary first: it has to keep what it has until its standbys have more.
    let primary = cluster.primary().await?;
    cluster.perform(&["config", "set", "max_connections=200"]).await?;
    primary.restart_postgres().await?;
    becomes(primary, "max_connections", "100").await?;
    let said = eventually("the primary to say what it waits for", DEADLINE, async || {
        let waits = of(&shown(&cluster).await?, primary.name())?["waits"].to_string();
        Ok(if waits.contains("at least 200") { Ok(()) } else { Err(waits) })
    });
    said.await?;

    // One standby has been restarted when the primary dies; whoever is elected, the others can follow.
    let standbys: Vec<_> = cluster.standbys().await?.into_iter().map(Node::name).collect();
    let [first, second] = standbys[..] else { anyhow::bail!("{standbys:?}") };
    restart(first).await?;
    becomes(cluster.node(first)?, "max_connections", "200").await?;
    cluster.perform(&["switchover", "--to", first]).await?;
    cluster.settled().await?;
    for node in cluster.nodes() {
        // Who came back as a standby, or could not replay, has been started with more.
        becomes(node, "max_connections", "200").await?;
    }
    cluster.settled().await?;
    workload.goes_on().await?;

    // Down again: a standby that is restarted first keeps what it has.
    cluster.perform(&["config", "set", "max_connections=120"]).await?;
    restart(second).await?;
    ensure!(live(cluster.node(second)?, "max_connections").await? == "200");
    let primary = cluster.primary().await?;
    primary.kill_both()?;
    cluster
        .wait_until("another primary", |status| {
            status.primary.as_ref().is_some_and(|name| name.as_str() != primary.name())
        })
        .await?;
    primary.start_keeper()?;
    cluster.settled().await?;
    // In place: after a hand-over the next primary would have what this one had.
    let now = cluster.primary().await?;
    now.restart_postgres().await?;
    becomes(now, "max_connections", "120").await?;
    for standby in cluster.nodes().iter().filter(|node| node.name() != now.name()) {
        // Once its own log demands no more.
        let file = standby.pgdata().join("pgtandem.conf");
        let what = format!("the file of {} to say 120", standby.name());
        eventually(&what, DEADLINE, async || {
            let text = fs::read_to_string(&file)?;
            let lower = text.contains("max_connections = '120'");
            Ok(if lower { Ok(()) } else { Err(text) })
        })
        .await?;
        restart(standby.name()).await?;
    }
    for node in cluster.nodes() {
        becomes(node, "max_connections", "120").await?;
    }
    workload.goes_on().await?;
    for path in cluster.sandbox().logs() {
        let text = fs::read_to_string(&path)?;
        ensure!(!text.contains(TOO_LITTLE), "{}: {TOO_LITTLE}", path.display());
    }
    let twice = "lock file \"postmaster.pid\" already exists";
    cluster.judge().expecting(twice, "pg_ctl and the keeper both start it").of(workload).await?;
    Ok(())
}
