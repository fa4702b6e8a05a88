//! Hooks: what happens is told at least once and in order, whatever is killed; nothing waits for it; and a
//! promotion can be refused.

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use shared::api::{OperationResult, Outcome, Status};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, NodeOptions};
use tokio::net::TcpListener;

/// A web server that hooks post to.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    /// Answers nothing but 503 meanwhile.
    refuses: bool,
    refused: usize,
    /// What was taken, in the order in which it came.
    taken: Vec<Value>,
}

impl Receiver {
    /// Begins to listen; says where.
    async fn start(&self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let receiver = self.clone();
        let take = move |headers: HeaderMap, body: String| async move {
            let told: Value = serde_json::from_str(&body).unwrap_or_default();
            let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
            let mut received = receiver.get();
            if received.refuses
                || key.is_none()
                || key != told.get("event_id").and_then(Value::as_str)
            {
                received.refused += 1;
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            received.taken.push(told);
            StatusCode::NO_CONTENT
        };
        let router = Router::new().route("/hook", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    fn get(&self) -> MutexGuard<'_, Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one node has told of one event, each once, in the order in which it first came.
    fn told_by(&self, node: &str, event: &str) -> Vec<Value> {
        let mut seen = BTreeSet::new();
        let of_it = |told: &&Value| told["node"] == node && told["event"] == event;
        let received = self.get();
        let first = |told: &&Value| seen.insert(told["event_id"].to_string());
        received.taken.iter().filter(of_it).filter(first).cloned().collect()
    }
}

fn with(arguments: &[String]) -> NodeOptions {
    let mut options = NodeOptions::default();
    for hook in arguments {
        options.arguments.extend(["--hook".to_owned(), hook.clone()]);
    }
    options.arguments.extend(["--hook-timeout".to_owned(), "3".to_owned()]);
    options
}

/// Each change leads on from the one before, and the numbers rise.
fn is_a_story(told: &[Value]) -> Result<()> {
    let mut role = "none".to_owned();
    let mut last = 0;
    for told in told {
        let text = |field: &str| told[field].as_str().unwrap_or_default().to_owned();
        let number = text("event_id").rsplit('-').next().unwrap_or_default().parse::<u64>()?;
        ensure!(number > last, "out of order: {told}");
        ensure!(text("old_role") == role, "something is missing before {told}");
        ensure!(told["missed"] == 0, "{told}");
        (role, last) = (text("role"), number);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_told_and_nothing_waits_for_it() -> Result<()> {
    let receiver = Receiver::default();
    let url = receiver.start().await?;
    let hooks = [
        format!("on_role_change={url}"),
        format!("post_promote={url}"),
        // They hang, and are killed again and again.
        "on_role_change=sh -c 'echo it begins; sleep 20; echo it ends'".to_owned(),
        "pre_promote=sleep 20".to_owned(),
    ];
    let builder = Cluster::builder().node(with(&hooks)).node(with(&hooks));
    let cluster = builder.untraced().starting(&[1]).start().await?;
    cluster.start_keepers(&["node2"])?;
    cluster.settled().await?;
    let history = Receiver::default();
    cluster.monitor().takes(&["--hook".to_owned(), format!("any={}", history.start().await?)]);
    ensure!(cluster.monitor().stop().await?.success());
    cluster.monitor().start()?;
    cluster.settled().await?;
    history.get().refuses = true;
    let (old, new) = (cluster.node("node1")?, cluster.node("node2")?);
    // From here on nothing is taken.
    receiver.get().refuses = true;
    old.kill_all()?;
    cluster.settled().await?;
    ensure!(cluster.primary().await?.name() == new.name(), "nobody was promoted");
    let log = new.keeper_log()?;
    ensure!(log.contains("it begins") && !log.contains("it ends"), "the hook did not hang: {log}");
    ensure!(log.contains("was not waited for"), "the hook that comes before did not hang: {log}");
    let warned = |text: &str| text.contains("does not take event");
    let status = cluster.wait_for_node("node2", "a warning", |node| {
        node.warnings.iter().any(|warning| warned(warning))
    });
    status.await?;
    let is_warned = |status: &Status| status.warnings.iter().any(|warning| warned(warning));
    cluster.wait_until("a warning of the monitor's hook", is_warned).await?;
    // Killed with everything untold.
    eventually("an attempt", DEADLINE, async || {
        Ok(if receiver.get().refused > 2 { Ok(()) } else { Err("none".to_owned()) })
    })
    .await?;
    new.kill_keeper()?;
    cluster.monitor().kill()?;
    (receiver.get().refuses, history.get().refuses) = (false, false);
    cluster.monitor().start()?;
    new.start_keeper()?;
    old.start_keeper()?;
    cluster.settled().await?;
    for (node, last) in [(old, "standby"), (new, "primary")] {
        eventually("all of it", DEADLINE, async || {
            let told = receiver.told_by(node.name(), "on_role_change");
            let there = told.last().is_some_and(|told| told["role"] == last);
            let promoted = receiver.told_by(node.name(), "post_promote").len();
            let there = there && promoted == 1;
            Ok(if there { Ok(()) } else { Err(format!("{told:?}, promoted {promoted} times")) })
        })
        .await?;
        is_a_story(&receiver.told_by(node.name(), "on_role_change"))?;
    }
    let promoted = receiver.told_by(new.name(), "post_promote");
    let port = u64::from(new.port());
    ensure!(promoted[0]["primary_port"] == port && promoted[0]["epoch"] == 2, "{promoted:?}");
    let newest = cluster.monitor().events(0).await?.last().context("no events")?.id;
    eventually("the whole history", DEADLINE, async || {
        let last = history.get().taken.last().and_then(|told| told["id"].as_u64());
        Ok(if last >= Some(newest) { Ok(()) } else { Err(format!("{last:?} of {newest}")) })
    })
    .await?;
    has_no_gap(&history.get().taken)?;
    cluster.wait_until("no warning any more", |status| !is_warned(status)).await?;
    cluster.judge().without_workload().await
}

/// Each event of the history comes after the one before it, or is repeated.
fn has_no_gap(told: &[Value]) -> Result<()> {
    let ids: Vec<_> = told.iter().filter_map(|told| told["id"].as_u64()).collect();
    ensure!(ids.len() == told.len() && ids.len() > 10, "{told:?}");
    for (before, after) in ids.iter().zip(ids.iter().skip(1)) {
        ensure!(after == before || *after == before + 1, "{ids:?}");
    }
    Ok(())
}

/// The hook of a node refuses as long as there is a file of its name.
fn veto(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "pre_promote=sh -c 'test ! -e {dir}/$PGTANDEM_NODE || {{ echo \"not $PGTANDEM_NODE\"; exit 1; }}'"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_can_be_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // Longer than a lease: the primary that is to hand over is proved by its standbys meanwhile.
    let hooks = [veto(dir.path()), "pre_demote=sleep 2.5".to_owned()];
    let builder = Cluster::builder().node(with(&hooks)).node(with(&hooks)).node(with(&hooks));
    let cluster = builder.untraced().starting(&[1]).start().await?;
    cluster.start_keepers(&["node2", "node3"])?;
    cluster.settled().await?;
    let workload = cluster.workload().await?;
    let refuse = |name: &str, refuses: bool| {
        let path = dir.path().join(name);
        if refuses { fs::write(path, "") } else { fs::remove_file(path) }
    };
    // A switchover by name: somebody serves, and the answer says why it is not the one that was asked for.
    refuse("node2", true)?;
    let answer = cluster.pgtandem(&["switchover", "--to", "node2"]).await?;
    let result: OperationResult =
        serde_json::from_value(answer.json.clone()).with_context(|| format!("{answer:?}"))?;
    ensure!(result.outcome == Outcome::Failed, "{result:?}");
    ensure!(
        result.reason.contains("the pre_promote hook of node2 refuses: not node2"),
        "{result:?}"
    );
    let status = cluster.settled().await?;
    ensure!(status.primary.is_some_and(|name| name.as_str() != "node2"));
    workload.goes_on().await?;
    // A failover: the other standby takes over, although this one comes first.
    cluster.perform(&["set", "node", "node2", "candidate-priority", "90"]).await?;
    let old = cluster.primary().await?;
    old.kill_all()?;
    let status = cluster.settled().await?;
    let primary = status.primary.context("no primary")?.to_string();
    ensure!(primary != "node2" && primary != old.name(), "{primary} was promoted");
    workload.goes_on().await?;
    old.start_keeper()?;
    cluster.settled().await?;
    // All refuse: the group waits, says so, and goes on when one of them agrees.
    for name in ["node1", "node2", "node3"] {
        refuse(name, true)?;
    }
    cluster.node(&primary)?.kill_all()?;
    eventually("a group that says who refuses", DEADLINE, async || {
        let blocked = cluster.monitor().explain().await?.blocked_by;
        let found = blocked.iter().any(|it| it.code == "vetoed" && it.text.contains("not node"));
        Ok(if found { Ok(()) } else { Err(format!("{blocked:?}")) })
    })
    .await?;
    for name in ["node1", "node2", "node3"] {
        refuse(name, false)?;
    }
    cluster.settled().await?;
    cluster.node(&primary)?.start_keeper()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}
