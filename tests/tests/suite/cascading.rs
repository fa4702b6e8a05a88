//! A standby that streams from a standby: through the death of either, and of the primary.

use anyhow::{Context as _, Result, ensure};
use shared::api::{NodeStatus, Status};
use tests::harness::cluster::node_of;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

/// Who is who, while the first primary serves.
struct Roles<'a> {
    primary: &'a Node,
    upstream: &'a Node,
    node: &'a Node,
    other: &'a Node,
}

impl Roles<'_> {
    async fn of(cluster: &Cluster) -> Result<Roles<'_>> {
        let primary = cluster.primary().await?;
        let standbys = cluster.standbys().await?;
        let [upstream, node, other] = standbys[..] else {
            anyhow::bail!("not three standbys");
        };
        Ok(Roles { primary, upstream, node, other })
    }
}

fn streams_from(node: &NodeStatus, upstream: &Node) -> bool {
    let from = node.upstream.as_ref().is_some_and(|name| name.as_str() == upstream.name());
    from && node.sync_state.is_some() && node.reported_state == node.goal_state
}

/// Until it streams from there, and everything else is as it should be.
async fn comes_to(cluster: &Cluster, node: &Node, upstream: &Node) -> Result<Status> {
    let what = format!("streaming from {}", upstream.name());
    cluster.wait_for_node(node.name(), &what, |node| streams_from(node, upstream)).await?;
    let status = cluster.settled().await?;
    let shown = node_of(&status, node.name()).context("the node is gone")?;
    ensure!(streams_from(shown, upstream), "{shown:?}");
    let sql = upstream.sql().await?;
    let name = shown.application_name.clone();
    eventually("its walsender", DEADLINE, async || {
        let rows: i64 = sql.value(WALSENDERS, &[&name]).await?;
        let told = || format!("{} has {rows} walsenders of {name}", upstream.name());
        Ok(if rows == 1 { Ok(()) } else { Err(told()) })
    })
    .await?;
    Ok(status)
}

const WALSENDERS: &str =
    "select count(*) from pg_stat_replication where application_name = $1 and state = 'streaming'";

fn is_waited_for(status: &Status, node: &Node) -> bool {
    status.sync.members.iter().any(|name| name.as_str() == node.name())
}

/// Its Postgres was never stopped, and nothing was copied to it.
fn is_untouched(node: &Node, before: (i32, u64)) -> Result<()> {
    let now = (node.postmaster()?, node.pgdata_inode()?);
    ensure!(now == before, "{}: {before:?} became {now:?}", node.name());
    let log = node.keeper_log()?;
    ensure!(!log.contains("rewind from node"), "{} was rewound", node.name());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_of_a_standby() -> Result<()> {
    let cluster = Cluster::builder().nodes(4).untraced().start().await?;
    let workload = cluster.workload().await?;
    let Roles { primary, upstream, node, other } = Roles::of(&cluster).await?;
    for low in [upstream, node] {
        cluster.perform(&["set", "node", low.name(), "candidate-priority", "10"]).await?;
    }
    let before = (node.postmaster()?, node.pgdata_inode()?);
    cluster.perform(&["set", "node", node.name(), "replicate-from", upstream.name()]).await?;
    let status = comes_to(&cluster, node, upstream).await?;
    ensure!(!is_waited_for(&status, node), "{:?}", status.sync);
    let sql = primary.sql().await?;
    let name = node_of(&status, node.name()).map(|node| node.application_name.clone());
    let rows: i64 = sql.value(WALSENDERS, &[&name]).await?;
    ensure!(rows == 0, "the primary has a walsender of it as well");
    refusals(&cluster, (upstream, node)).await?;
    workload.goes_on().await?;

    // Its upstream dies, and comes back.
    upstream.kill_both()?;
    let status = comes_to(&cluster, node, primary).await?;
    ensure!(is_waited_for(&status, node), "{:?}", status.sync);
    is_untouched(node, before)?;
    upstream.start_keeper()?;
    let status = comes_to(&cluster, node, upstream).await?;
    ensure!(!is_waited_for(&status, node), "{:?}", status.sync);
    is_untouched(node, before)?;
    workload.goes_on().await?;

    // The primary dies.
    primary.kill_both()?;
    let what = format!("{} as the primary", other.name());
    let elected =
        |status: &Status| status.primary.as_ref().is_some_and(|name| name.as_str() == other.name());
    cluster.wait_until(&what, elected).await?;
    comes_to(&cluster, node, upstream).await?;
    is_untouched(node, before)?;
    workload.goes_on().await?;
    primary.start_keeper()?;
    comes_to(&cluster, node, upstream).await?;

    // Its upstream becomes the primary: it follows it, and is waited for again.
    cluster.perform(&["switchover", "--to", upstream.name()]).await?;
    let status = comes_to(&cluster, node, upstream).await?;
    ensure!(is_waited_for(&status, node), "{:?}", status.sync);
    is_untouched(node, before)?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// What cannot be has one line that says so.
async fn refusals(cluster: &Cluster, (upstream, node): (&Node, &Node)) -> Result<()> {
    let (upstream, node) = (upstream.name(), node.name());
    for (arguments, code, reason) in [
        (&["set", "node", node, "replicate-from", "nobody"][..], 1, "unknown_node"),
        (&["set", "node", node, "replicate-from", node], 3, "itself"),
        (&["set", "node", upstream, "replicate-from", node], 3, "cycle"),
        (&["switchover", "--to", node], 3, "not_a_candidate"),
    ] {
        let answer = cluster.pgtandem(arguments).await?;
        ensure!(answer.code == code && answer.text("reason") == reason, "{answer:?}");
        ensure!(!answer.text("message").contains('\n'), "{answer:?}");
    }
    let shown = cluster.pgtandem(&["get", "node", node, "replicate-from"]).await?;
    ensure!(shown.stdout.contains(upstream), "{shown:?}");
    Ok(())
}
