//! What became of the group's history, and histories that somebody else began.

use anyhow::{Context as _, Result, ensure};
use shared::api::{NodeStatus, TimelineState, Timelines};
use shared::ids::TimelineId;
use shared::state::NodeState;
use tests::harness::cluster::node_of;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Node};

async fn timelines(cluster: &Cluster) -> Result<Timelines> {
    let answer = cluster.pgtandem(&["timelines"]).await?;
    ensure!(answer.code == 0, "{answer:?}");
    serde_json::from_value(answer.json).context(answer.stdout)
}

/// Each change of the primary has its timeline, with the rule that asked for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tell_who_was_the_primary_and_why() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let first = cluster.primary().await?.name().to_owned();
    cluster.perform(&["switchover"]).await?;
    cluster.settled().await?;
    let second = cluster.primary().await?;
    second.kill_both()?;
    let third = |status: &shared::api::Status| status.epoch.0 == 3 && status.writable;
    cluster.wait_until("a third primary", third).await?;
    second.start_keeper()?;
    cluster.settled().await?;
    let third = cluster.primary().await?.name().to_owned();

    let told = timelines(&cluster).await?;
    let seen: Vec<_> = told
        .timelines
        .iter()
        .map(|t| {
            let primary = t.primary.as_ref().map(ToString::to_string).unwrap_or_default();
            (t.timeline.0, t.state, primary, t.rule.clone().unwrap_or_default())
        })
        .collect();
    let row = |number, state, primary: &str, rule: &str| {
        (number, state, primary.to_owned(), rule.to_owned())
    };
    let expected = [
        row(1, TimelineState::Passed, &first, "birth"),
        row(3, TimelineState::Passed, second.name(), "switchover"),
        row(5, TimelineState::Present, &third, "primary-dead"),
    ];
    ensure!(seen == expected, "{told:?}");
    ensure!(
        told.timelines.iter().all(|t| t.since >= t.decided_at && t.since.is_some()),
        "{told:?}"
    );
    let newest = told.timelines.last().context("none")?;
    ensure!(newest.parent == Some(TimelineId(3)) && newest.fork_lsn.is_some(), "{newest:?}");
    ensure!(newest.nodes.len() == 3 && told.strays.is_empty(), "{told:?}");
    ensure!(newest.reason.as_ref().is_some_and(|text| text.contains("dead")), "{newest:?}");
    cluster.verdict(workload).await?;
    Ok(())
}

/// Somebody takes a node out of the keeper's hands, promotes it, and writes to it.
async fn promoted_by_hand(cluster: &Cluster, node: &Node) -> Result<()> {
    cluster.perform(&["maintenance", "on", node.name()]).await?;
    cluster.settled().await?;
    node.kill_keeper()?;
    let sql = node.sql().await?;
    sql.run("select pg_promote()").await?;
    // It waits for standbys that it has not got.
    sql.run("set synchronous_commit = local; create table made_by_hand (id int)").await?;
    drop(sql);
    node.start_keeper()?;
    let stopped = |node: &NodeStatus| !node.pg_running && node.timeline == Some(TimelineId(2));
    cluster.wait_for_node(node.name(), "stopped by its keeper", stopped).await?;
    eventually("a timeline of its own", DEADLINE, async || {
        let told = timelines(cluster).await?;
        let is_there = told.strays.iter().any(|stray| stray.node.as_str() == node.name());
        Ok(if is_there { Ok(()) } else { Err(format!("{told:?}")) })
    })
    .await
}

/// What the operator accepts becomes the group's, though a primary serves that has more: the others leave
/// what they have after the fork and follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_begun_by_hand_is_accepted() -> Result<()> {
    // What an operator decides over the group's head is no part of the model.
    let cluster = Cluster::builder().nodes(3).untraced().start().await?;
    let old = cluster.primary().await?;
    let standbys = cluster.standbys().await?;
    let chosen = *standbys.first().context("no standby")?;
    promoted_by_hand(&cluster, chosen).await?;
    old.sql().await?.run("create table given_up (id int)").await?;

    let stray = eventually("what would be given up", DEADLINE, async || {
        let told = timelines(&cluster).await?;
        let stray = told.strays.into_iter().next().context("nobody has strayed")?;
        let lost = stray.would_give_up.iter().find(|(name, _)| name.as_str() == old.name());
        let is_told = lost.is_some_and(|(_, bytes)| *bytes > 0);
        Ok(if is_told { Ok(stray) } else { Err(format!("{stray:?}")) })
    });
    let stray = stray.await?;
    ensure!((stray.timeline, stray.parent) == (TimelineId(2), TimelineId(1)), "{stray:?}");
    let none = cluster.refused(&["accept", "timeline", "99", "--reason", "x"]).await?;
    ensure!(none == "unknown_timeline", "{none}");
    cluster.perform(&["accept", "timeline", "1", "--reason", "it is the present one"]).await?;
    ensure!(cluster.primary().await?.name() == old.name(), "that changed something");

    let result =
        cluster.perform(&["accept", "timeline", "2", "--reason", "it has the orders"]).await?;
    ensure!(result.new_primary.is_some_and(|name| name.as_str() == chosen.name()));
    let status = cluster.settled().await?;
    let state = node_of(&status, old.name()).map(|node| node.reported_state);
    ensure!(state == Some(NodeState::Secondary), "{state:?}");
    for node in cluster.nodes() {
        let tables =
            "select relname::text from pg_class where relname in ('made_by_hand', 'given_up')";
        eventually(&format!("{} with what was accepted", node.name()), DEADLINE, async || {
            let tables: Vec<String> = node.sql().await?.column(tables).await?;
            Ok(if tables == ["made_by_hand"] { Ok(()) } else { Err(format!("{tables:?}")) })
        })
        .await?;
    }

    let told = timelines(&cluster).await?;
    let numbers: Vec<_> = told.timelines.iter().map(|t| (t.timeline.0, t.accepted)).collect();
    ensure!(numbers == [(1, false), (2, true), (4, false)], "{told:?}");
    ensure!(told.strays.is_empty(), "{told:?}");
    let events = cluster.monitor().events(0).await?;
    let accepted = events.iter().find(|event| event.reason.contains("it has the orders"));
    let accepted = accepted.context("no event")?;
    ensure!(accepted.evidence["given_up"][0]["bytes"].as_u64() > Some(0), "{accepted:?}");
    let again = cluster.refused(&["accept", "timeline", "2", "--reason", "again"]).await?;
    ensure!(again == "is_known", "{again}");
    cluster.perform(&["switchover", "--to", old.name()]).await?;
    cluster.judge().without_workload().await
}
