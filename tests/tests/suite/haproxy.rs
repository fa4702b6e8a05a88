//! Clients behind the real HAProxy, with the configuration that we print: they get to where they should be,
//! through all changes of the primary, and nobody ever is told of two primaries.

use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tests::harness::haproxy::Haproxy;
use tests::harness::roles::Roles;
use tests::harness::sql::Sql;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node, Workload};

/// Little, so that a standby is soon too far behind.
const LIMITS: [&str; 2] = ["--max-lag", "64kB"];
/// More than that of WAL.
const MUCH: &str = "select pg_logical_emit_message(false, 'much', repeat('x', 1000000))";
/// Sessions that are spread over the standbys.
const SESSIONS: usize = 6;

/// Which server a new session gets to.
async fn lands_on(address: SocketAddr) -> Result<u16> {
    let port: i32 = Sql::connect(address).await?.value("select inet_server_port()", &[]).await?;
    Ok(u16::try_from(port)?)
}

/// Waits until new sessions get to just these servers, all of them, several times in a row.
async fn lead_to(what: &str, address: SocketAddr, nodes: &[&Node]) -> Result<()> {
    let wanted: BTreeSet<_> = nodes.iter().map(|node| node.port()).collect();
    eventually(what, DEADLINE, async || {
        let mut found = BTreeSet::new();
        for _ in 0..SESSIONS {
            match lands_on(address).await {
                Ok(port) => found.insert(port),
                // Nobody is fit at this moment.
                Err(error) => return Ok(Err(format!("{error:#}"))),
            };
        }
        Ok(if found == wanted { Ok(()) } else { Err(format!("{found:?}, not {wanted:?}")) })
    })
    .await
}

/// Waits until HAProxy has cut a session; how long that took.
async fn is_cut(session: &Sql) -> Result<Duration> {
    let began = Instant::now();
    eventually("the end of a session", DEADLINE, async || {
        Ok(if session.is_closed() { Ok(began.elapsed()) } else { Err("it is open".to_owned()) })
    })
    .await
}

/// A session with the old primary is cut, also where that stands still; then, how long a client was
/// without a server that takes its writes.
async fn changes<'a>(
    what: &str,
    cluster: &'a Cluster,
    (haproxy, workload): (&Haproxy, &Workload),
    change: impl AsyncFnOnce(&Node) -> Result<()>,
) -> Result<&'a Node> {
    let old = cluster.primary().await?;
    lead_to("the primary", haproxy.rw(), &[old]).await?;
    let session = Sql::connect(haproxy.rw()).await?;
    let began = Instant::now();
    let (changed, cut) = tokio::join!(change(old), is_cut(&session));
    changed?;
    let cut = cut?;
    workload.goes_on().await?;
    let outage = workload.so_far().outage_since(began);
    let new = cluster.primary().await?;
    ensure!(new.name() != old.name(), "{what}: {} is the primary still", new.name());
    lead_to("the new primary", haproxy.rw(), &[new]).await?;
    Haproxy::measured(what, cut, outage);
    Ok(old)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leads_clients_through_every_change() -> Result<()> {
    // The orders of operators are no part of the model.
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let haproxy = Haproxy::start(&cluster, &LIMITS).await?;
    let roles = Roles::watch(&cluster);
    lead_to("the primary", haproxy.rw(), &[cluster.primary().await?]).await?;
    reads_go_to_standbys_that_are_near(&cluster, &haproxy).await?;
    let workload = Workload::start(haproxy.rw(), &[haproxy.rw()]).await?;
    let both = (&haproxy, &workload);
    changes("switchover", &cluster, both, async |_| {
        cluster.perform(&["switchover"]).await.map(drop)
    })
    .await?;
    cluster.settled().await?;
    let killed = changes("killed", &cluster, both, async |old| old.kill_both()).await?;
    killed.start_keeper()?;
    cluster.settled().await?;
    let frozen = changes("frozen", &cluster, both, async |old| old.freeze()).await?;
    frozen.thaw()?;
    cluster.settled().await?;
    lead_to("the standbys", haproxy.ro(), &cluster.standbys().await?).await?;
    haproxy.is_up_to_date(&cluster, &LIMITS).await?;
    roles.verdict(4)?;
    cluster
        .judge()
        .expecting("the lease has run out", "the frozen one fences itself")
        .of(workload)
        .await?;
    Ok(())
}

/// Replay is paused on one standby, then on the other as well, and goes on.
async fn reads_go_to_standbys_that_are_near(cluster: &Cluster, haproxy: &Haproxy) -> Result<()> {
    let (primary, standbys) = (cluster.primary().await?, cluster.standbys().await?);
    lead_to("the standbys", haproxy.ro(), &standbys).await?;
    let [first, second] = standbys.as_slice() else { anyhow::bail!("no two standbys") };
    let reader = session_with(haproxy.ro(), first).await?;
    let pause = "select pg_wal_replay_pause()";
    first.sql().await?.run(pause).await?;
    primary.sql().await?.run(MUCH).await?;
    is_cut(&reader).await?;
    lead_to("the other standby", haproxy.ro(), &[second]).await?;
    second.sql().await?.run(pause).await?;
    primary.sql().await?.run(MUCH).await?;
    lead_to("the primary, as nobody else is near", haproxy.ro(), &[primary]).await?;
    for standby in &standbys {
        standby.sql().await?.run("select pg_wal_replay_resume()").await?;
    }
    lead_to("the standbys again", haproxy.ro(), &standbys).await?;
    let (status, body) = first.ask_keeper("/replica?lag=64kB").await?;
    ensure!(status == 200, "{body}");
    Ok(())
}

/// A session that has got to this server.
async fn session_with(address: SocketAddr, node: &Node) -> Result<Sql> {
    let limit = Instant::now() + Duration::from_secs(30);
    while Instant::now() < limit {
        let session = Sql::connect(address).await?;
        let port: i32 = session.value("select inet_server_port()", &[]).await?;
        if port == i32::from(node.port()) {
            return Ok(session);
        }
    }
    None.with_context(|| format!("no session gets to {}", node.name()))
}
