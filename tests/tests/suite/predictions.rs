//! What is foreseen against what real processes then do. Many more situations than fit here are compared
//! in the simulator (`fsm/tests/predictions.rs`).

use anyhow::{Context as _, Result, ensure};
use shared::api::{Explanation, PredictedOutcome, Prediction, Status};
use shared::ids::NodeName;
use sim::random::Random;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tests::harness::cluster::summary;
use tests::harness::wait::DEADLINE;
use tests::harness::{Cluster, Node};

/// What is drawn comes from here.
const SEED: u64 = 5;
/// How many situations are drawn, as far as they fit into the time.
const SITUATIONS: usize = 24;
const TIME: Duration = Duration::from_mins(3);
/// Fewer would say nothing.
const FEWEST: usize = 3;
/// For how long it is watched that nothing comes after all: longer than the node timeout.
const LONG_ENOUGH: Duration = Duration::from_secs(4);

/// What is so when it is asked what would happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    Healthy,
    StandbyKilled,
    StandbyInMaintenance,
    Asynchronous,
}

/// What then happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    PrimaryDies,
    Switchover,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_groups_end_as_foreseen() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let began = Instant::now();
    let mut chance = Random::new(SEED);
    let mut seen = Vec::new();
    while seen.len() < SITUATIONS && began.elapsed() < TIME.mul_f64(0.8) {
        let situation = chance
            .pick(&[
                Situation::Healthy,
                Situation::StandbyKilled,
                Situation::StandbyInMaintenance,
                Situation::Asynchronous,
            ])
            .context("a situation")?;
        let change = chance.pick(&[Change::PrimaryDies, Change::PrimaryDies, Change::Switchover]);
        let change = change.context("a change")?;
        let turn = take_turn(&cluster, &mut chance, (situation, change));
        let drawn = format!("{situation:?}, {change:?}");
        let outcome = turn.await.with_context(|| format!("{drawn}, after {seen:?}"))?;
        seen.push(format!("{drawn}: {outcome}"));
    }
    ensure!(seen.len() >= FEWEST, "only {seen:?} in {:?}", began.elapsed());
    let explanation = cluster.monitor().explain().await?;
    let outage = explanation.succession.and_then(|succession| succession.outage);
    ensure!(outage.as_ref().is_some_and(|outage| outage.changes > 0), "{outage:?}");
    cluster.judge().without_workload().await
}

/// Brings the situation about, asks what would happen, lets it happen, and brings all back. Says how it
/// ended.
async fn take_turn(
    cluster: &Cluster,
    chance: &mut Random,
    (situation, change): (Situation, Change),
) -> Result<String> {
    set_priorities(cluster, chance).await?;
    let standbys = cluster.standbys().await?;
    let standby = chance.pick(&standbys).context("a standby")?;
    bring_about(cluster, situation, standby).await?;
    let outcome = match change {
        Change::PrimaryDies => primary_dies(cluster).await?,
        Change::Switchover => switchover(cluster).await?,
    };
    for node in cluster.nodes().iter().filter(|node| !node.is_up()) {
        node.start_keeper()?;
    }
    // Maintenance cannot be left before somebody serves.
    cluster.wait_until("a primary", |status| status.phase == "serving").await?;
    for node in cluster.nodes() {
        cluster.perform(&["set", "node", node.name(), "replication-quorum", "true"]).await?;
        cluster.perform(&["maintenance", "off", node.name()]).await?;
    }
    cluster.settled().await?;
    Ok(outcome)
}

/// Everybody has another priority: what is foreseen does not hang on the last bytes of WAL.
async fn set_priorities(cluster: &Cluster, chance: &mut Random) -> Result<()> {
    let mut priorities = vec!["0", "50", "100"];
    for node in cluster.nodes() {
        let priority = chance.pick(&priorities).context("a priority")?;
        priorities.retain(|other| *other != priority);
        cluster.perform(&["set", "node", node.name(), "candidate-priority", priority]).await?;
    }
    Ok(())
}

async fn bring_about(cluster: &Cluster, situation: Situation, standby: &Node) -> Result<()> {
    match situation {
        Situation::Healthy => {}
        Situation::StandbyKilled => {
            standby.kill_both()?;
            cluster.wait_for_node(standby.name(), "dead", |node| node.health == "bad").await?;
        }
        Situation::StandbyInMaintenance => {
            cluster.perform(&["maintenance", "on", standby.name()]).await?;
        }
        Situation::Asynchronous => {
            for node in cluster.standbys().await? {
                let name = node.name();
                cluster.perform(&["set", "node", name, "replication-quorum", "false"]).await?;
            }
        }
    }
    cluster.settled().await?;
    Ok(())
}

async fn primary_dies(cluster: &Cluster) -> Result<String> {
    let primary = cluster.primary().await?;
    let answer = cluster.pgtandem(&["explain", "--if-dies", primary.name()]).await?;
    ensure!(answer.code == 0, "{answer:?}");
    let prediction: Prediction = serde_json::from_value(answer.json)?;
    let explanation = cluster.monitor().explain().await?;
    let succession = explanation.succession.context("no succession")?;
    ensure!(
        (succession.prediction.outcome, &succession.prediction.primary)
            == (prediction.outcome, &prediction.primary),
        "{succession:?} and {prediction:?}"
    );
    primary.kill_both()?;
    ends_as_foreseen(cluster, &prediction).await
}

async fn switchover(cluster: &Cluster) -> Result<String> {
    let revision = cluster.monitor().status().await?.revision;
    let answer = cluster.pgtandem(&["switchover", "--dry-run"]).await?;
    ensure!(cluster.monitor().status().await?.revision == revision, "it changed something");
    if answer.code == 3 {
        let reason = cluster.refused(&["switchover"]).await?;
        ensure!(reason == answer.text("reason"), "{reason} instead of {answer:?}");
        return Ok(format!("refused: {reason}"));
    }
    ensure!(answer.code == 0, "{answer:?}");
    let prediction: Prediction = serde_json::from_value(answer.json)?;
    let result = cluster.perform(&["switchover"]).await?;
    ensure!(result.new_primary == prediction.primary, "{result:?} instead of {prediction:?}");
    ends_as_foreseen(cluster, &prediction).await
}

/// Waits until it is as foreseen, and watches that it stays so.
async fn ends_as_foreseen(cluster: &Cluster, prediction: &Prediction) -> Result<String> {
    ensure!(prediction.alternatives.is_empty(), "nothing is left to chance: {prediction:?}");
    let look = |status: &Status| match difference(status, prediction) {
        None => Ok(()),
        Some(difference) => Err(format!("{difference} {}", summary(status))),
    };
    cluster.wait_within("what was foreseen", DEADLINE, look).await?;
    let stays = |status: &Status| difference(status, prediction).is_none();
    cluster.stays("as foreseen", LONG_ENOUGH, stays).await?;
    let explanation: Explanation = cluster.monitor().explain().await?;
    let codes = |blocked: &[shared::api::Blocker]| {
        blocked.iter().map(|blocker| blocker.code.clone()).collect::<BTreeSet<_>>()
    };
    ensure!(
        codes(&explanation.blocked_by) == codes(&prediction.blocked_by),
        "{:?} instead of {:?}",
        explanation.blocked_by,
        prediction.blocked_by
    );
    Ok(prediction.reason.clone())
}

/// What is not as foreseen, if anything.
fn difference(status: &Status, prediction: &Prediction) -> Option<String> {
    let alive = |name: &&NodeName| {
        let node = status.nodes.iter().find(|node| node.name == **name);
        node.is_some_and(|node| node.health == "ok")
    };
    let primary = status.primary.as_ref().filter(alive);
    let members = |sync: &shared::api::SyncStatus| {
        let members: BTreeSet<_> = sync.members.iter().cloned().collect();
        (members, sync.required, sync.pending.is_some())
    };
    let foreseen = (prediction.primary.as_ref(), prediction.writable);
    if (primary, status.writable) != foreseen {
        return Some(format!("{foreseen:?} was foreseen;"));
    }
    let compared = prediction.outcome != PredictedOutcome::StandsStill
        && members(&status.sync) != members(&prediction.sync);
    compared.then(|| format!("{:?} was foreseen;", prediction.sync))
}
