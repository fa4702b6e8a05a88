//! Elections with too few nodes, and several in a row.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shared::api::{Explanation, Status};
use shared::ids::NodeName;
use std::time::Duration;
use tests::harness::{Cluster, Node};

/// Long against everything that the monitor might still be waiting for.
const LONG_ENOUGH: Duration = Duration::from_secs(8);

/// The primary and one standby of three die together. The other standby may lack what those two had
/// acknowledged. Returns the one that is left, and the two that died, the primary first.
async fn left_alone(cluster: &Cluster) -> Result<(&Node, &Node, &Node)> {
    let primary = cluster.primary().await?;
    let standbys = cluster.standbys().await?;
    let (left, lost) = standbys.split_first().context("no standby")?;
    let lost = *lost.first().context("one standby only")?;
    primary.kill_both()?;
    lost.kill_both()?;
    for node in [primary, lost] {
        cluster.wait_for_node(node.name(), "dead", |node| node.health == "bad").await?;
    }
    Ok((left, primary, lost))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_enough_witnesses_nobody_is_promoted() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let epoch = cluster.settled().await?.epoch;
    let workload = cluster.workload().await?;
    let (left, primary, lost) = left_alone(&cluster).await?;
    let nobody = |status: &Status| status.epoch == epoch && !status.writable;
    cluster.stays("without a new primary", LONG_ENOUGH, nobody).await?;
    let explained = cluster.pgtandem(&["explain"]).await?;
    let explanation: Explanation = serde_json::from_value(explained.json)?;
    let blocker = explanation.blocked_by.first().context("nothing is said to be in the way")?;
    ensure!(blocker.code == "not_enough_witnesses", "{explanation:?}");
    let missing: Vec<_> = blocker.nodes.iter().map(NodeName::as_str).collect();
    ensure!(missing.contains(&lost.name()), "{} is not named: {explanation:?}", lost.name());
    ensure!(!missing.contains(&left.name()), "{} is there: {explanation:?}", left.name());
    // It comes back: the election completes by itself.
    lost.start_keeper()?;
    let status = cluster.settled().await?;
    ensure!(status.epoch > epoch, "{status:?}");
    ensure!(status.primary.is_some_and(|name| name.as_str() != primary.name()));
    workload.goes_on().await?;
    primary.start_keeper()?;
    cluster.settled().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_loss_is_accepted_by_the_operator_alone() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let (left, primary, lost) = left_alone(&cluster).await?;
    // Refused, or busy with an election that does not get anywhere.
    let refused = cluster.pgtandem(&["failover"]).await?;
    ensure!([3, 6].contains(&refused.code), "{refused:?}");
    let newest = cluster.monitor().newest_event().await?;
    // Not waited for: writes wait for a standby, and so does the end of the operation.
    let accepted = cluster.pgtandem(&["failover", "--allow-data-loss", "--fenced", "--no-wait"]);
    let accepted = accepted.await?;
    ensure!(accepted.code == 0, "{accepted:?}");
    let promoted = |status: &Status| {
        let new = status.primary.as_ref().is_some_and(|name| name.as_str() == left.name());
        new && status.phase == "serving"
    };
    cluster.wait_until("the one that is left as the primary", promoted).await?;
    let events = cluster.monitor().events(newest).await?;
    let elected = events.iter().find(|event| event.rule == "elected").context("no election")?;
    let accepted = elected.evidence.get("data_loss_accepted").and_then(Value::as_bool);
    ensure!(accepted == Some(true), "{elected:?}");
    let given_up = elected.evidence.get("given_up").map(ToString::to_string).unwrap_or_default();
    ensure!(given_up.contains(lost.name()), "{elected:?}");
    lost.start_keeper()?;
    primary.start_keeper()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.judge().accepting_loss().of(workload).await?;
    Ok(())
}

/// A primary that stands still says goodbye to nobody: its standbys are sealed while they stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stands_still() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?;
    old.freeze()?;
    let another = |status: &Status| {
        status.writable && status.primary.as_ref().is_some_and(|name| name.as_str() != old.name())
    };
    cluster.wait_until("another primary", another).await?;
    old.kill_all()?;
    old.start_keeper()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// The second primary dies as well, before the first is back: the third holds everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_failovers_in_a_row() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    let first = cluster.primary().await?;
    first.kill_both()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    let second = cluster.primary().await?;
    second.kill_both()?;
    let promoted = |status: &Status| {
        let names = [first.name(), second.name()];
        let new = status.primary.as_ref().is_some_and(|name| !names.contains(&name.as_str()));
        new && status.phase == "serving"
    };
    cluster.wait_until("the third as the primary", promoted).await?;
    first.start_keeper()?;
    second.start_keeper()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    let history = cluster.verdict(workload).await?;
    ensure!(history.reigns().len() >= 3, "{:?}", history.reigns());
    Ok(())
}

/// The same with the first one back in between, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_with_the_old_primary_back_each_time() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let workload = cluster.workload().await?;
    for _ in 0..4 {
        let old = cluster.primary().await?;
        old.kill_both()?;
        cluster.settled().await?;
        workload.goes_on().await?;
        old.start_keeper()?;
        cluster.settled().await?;
    }
    cluster.verdict(workload).await?;
    Ok(())
}
