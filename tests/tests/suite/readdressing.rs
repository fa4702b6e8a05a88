//! Nodes that get another name, host or port while they run.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shared::api::{NodeStatus, Status};
use tests::harness::cluster::node_of;
use tests::harness::ports::Port;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

/// Waits until the primary takes writes and all others stream, whatever they are called.
async fn all_stream(
    cluster: &Cluster,
    what: &str,
    holds: impl Fn(&Status) -> bool,
) -> Result<Status> {
    let well = |status: &Status| {
        let streaming = status.nodes.iter().filter(|node| node.sync_state.is_some()).count();
        status.writable && streaming + 1 == status.nodes.len() && holds(status)
    };
    cluster.wait_until(what, well).await
}

fn is(status: &Status, name: &str, holds: impl Fn(&NodeStatus) -> bool) -> bool {
    node_of(status, name).is_some_and(holds)
}

/// What its Postgres runs under.
async fn port_of(node: &Node, port: u16) -> Result<()> {
    eventually(&format!("{} on port {port}", node.name()), DEADLINE, async || {
        let Ok(sql) = node.sql_at(port).await else { return Ok(Err("no answer".to_owned())) };
        let shown: String = sql.value("show port", &[]).await?;
        Ok(if shown == port.to_string() { Ok(()) } else { Err(shown) })
    })
    .await
}

async fn set(cluster: &Cluster, node: &str, key: &str, value: &str) -> Result<()> {
    cluster.perform(&["set", "node", node, key, value]).await.map(drop)
}

/// One setting after the other, on a standby and on the primary; nobody is replaced, the followers find
/// where to, and a keeper that is started as before does not take it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_setting() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let before = cluster.settled().await?;
    let primary = cluster.primary().await?;
    let standby = *cluster.standbys().await?.first().context("no standby")?;
    // Those that keep WAL for others come and go by themselves.
    let slots = "select slot_name::text from pg_replication_slots \
        where slot_name not like '%_keep' order by 1";
    let had: Vec<String> = primary.sql().await?.column(slots).await?;

    set(&cluster, standby.name(), "name", "renamed").await?;
    all_stream(&cluster, "another name", |status| is(status, "renamed", |_| true)).await?;
    // The server listens there as well.
    set(&cluster, "renamed", "host", "localhost").await?;
    all_stream(&cluster, "another host", |status| {
        is(status, "renamed", |node| node.host == "localhost")
    })
    .await?;
    let (port, other) = (Port::take()?, Port::take()?);
    set(&cluster, "renamed", "port", &port.number().to_string()).await?;
    port_of(standby, port.number()).await?;
    all_stream(&cluster, "another port", |status| {
        is(status, "renamed", |node| node.port == port.number())
    })
    .await?;

    set(&cluster, primary.name(), "port", &other.number().to_string()).await?;
    port_of(primary, other.number()).await?;
    let moved = |status: &Status| is(status, primary.name(), |node| node.port == other.number());
    let after = all_stream(&cluster, "another port of the primary", moved).await?;
    ensure!(after.epoch == before.epoch && after.primary == before.primary, "{after:?}");
    let sql = primary.sql_at(other.number()).await?;
    sql.run("create table written_there (id int)").await?;
    let has: Vec<String> = sql.column(slots).await?;
    ensure!(has == had && has.len() == 2, "{has:?}, {had:?} before");

    standby.stop_keeper().await?;
    standby.start_keeper()?;
    let stays = |status: &Status| is(status, "renamed", |node| node.port == port.number());
    all_stream(&cluster, "the same after a restart", stays).await?;
    let taken = cluster.refused(&["set", "node", "renamed", "name", primary.name()]).await?;
    ensure!(taken == "duplicate_name", "{taken}");
    cluster.nobody_ended()?;
    cluster.pass();
    Ok(())
}

/// A keeper that is told another name and port, while its Postgres runs on: that is restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_another_start_of_the_keeper() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).untraced().start().await?;
    let before = cluster.settled().await?;
    let nodes = [cluster.primary().await?, cluster.standbys().await?.remove(0)];
    for (node, name) in nodes.into_iter().zip(["one", "two"]) {
        let port = Port::take()?;
        node.signal_keeper(Signal::USR2)?;
        node.keeper_ends().await?;
        node.start_keeper_as(name, port.number())?;
        port_of(node, port.number()).await?;
        let there = |status: &Status| is(status, name, |node| node.port == port.number());
        let after = all_stream(&cluster, "a node that has moved", there).await?;
        ensure!(after.epoch == before.epoch, "the primary was replaced");
        let gone = |status: &Status| node_of(status, node.name()).is_none();
        ensure!(gone(&after), "{after:?}");
    }
    cluster.nobody_ended()?;
    cluster.pass();
    Ok(())
}
