//! The binary: what it prints and how it ends.

use crate::server::{api_error, nobody, serve};
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Sse;
use axum::response::sse::Event as SseEvent;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

pub async fn pgtandem(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgtandem"));
    for name in ["MONITOR", "FORMATION", "JSON", "CONFIG", "TIMEOUT", "LOG", "LOG_FORMAT"] {
        command.env_remove(format!("PGTANDEM_{name}"));
    }
    command.args(arguments).kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(30), command.output()).await.unwrap().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stdout)))
}

fn operation(outcome: &str) -> Value {
    json!({
        "id": 7, "outcome": outcome, "reason": "as asked", "old_primary": "node1",
        "new_primary": "node2", "timeline": 2, "started_at": "2026-01-02T03:04:05Z",
        "finished_at": null
    })
}

fn event(id: u64) -> Value {
    json!({
        "id": id, "at": "2026-01-02T03:04:05Z", "formation": "default", "group": 0, "node": null,
        "node_id": null, "epoch": 1, "kind": "phase", "rule": "r", "from": null, "to": null,
        "timeline": null, "lsn": null, "reason": format!("event {id} happened"), "evidence": {}
    })
}

/// Accepts any action; it is over at the third question about it, with this outcome.
fn monitor(outcome: &'static str) -> Router {
    let asked = Arc::new(AtomicUsize::new(0));
    let poll = move || async move {
        let over = asked.fetch_add(1, Ordering::Relaxed) >= 2;
        Json(operation(if over { outcome } else { "accepted" }))
    };
    let events = |Query(query): Query<HashMap<String, String>>| async move {
        let after = query.get("after").map(|after| after.parse::<u64>().unwrap());
        let ids = after.map_or(10..=10, |after| after + 1..=12);
        Json(ids.map(event).collect::<Vec<_>>())
    };
    Router::new()
        .route("/v1/formations/default/actions", post(|| async { Json(operation("accepted")) }))
        .route("/v1/formations/default/operations/7", get(poll))
        .route("/v1/formations/default/events", get(events))
}

#[tokio::test]
async fn waits_until_done_and_shows_what_happens() {
    let url = serve(monitor("done")).await.to_string();
    let output = pgtandem(&["switchover", "--monitor", &url]).await;
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(code(&output), 0, "{stderr}");
    assert_eq!(stderr, "03:04:05  event 11 happened\n03:04:05  event 12 happened\n");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.starts_with("operation 7 done: as asked\nprimary: node1 -> node2"), "{stdout}");
}

#[tokio::test]
async fn outcomes_are_exit_codes() {
    for (outcome, expected) in [("done", 0), ("failed", 3), ("refused", 3)] {
        let url = serve(monitor(outcome)).await.to_string();
        let output = pgtandem(&["failover", "--monitor", &url, "--json"]).await;
        assert_eq!(code(&output), expected, "{outcome}");
        assert_eq!(json_of(&output)["outcome"], outcome);
        assert!(output.stderr.is_empty());
    }
}

#[tokio::test]
async fn no_wait_and_timeout() {
    let url = serve(monitor("accepted")).await.to_string();
    let output = pgtandem(&["promote", "node2", "--monitor", &url, "--json", "--no-wait"]).await;
    assert_eq!((code(&output), &json_of(&output)["outcome"]), (0, &json!("accepted")));
    let arguments = ["promote", "node2", "--monitor", &url, "--json", "--timeout", "1"];
    let output = pgtandem(&arguments).await;
    assert_eq!((code(&output), &json_of(&output)["outcome"]), (5, &json!("timeout")));
}

#[tokio::test]
async fn a_refusal_is_shown_as_it_came() {
    let refuse = || async { (StatusCode::CONFLICT, Json(api_error(3, "no_candidate"))) };
    let events = || async { Json(json!([])) };
    let router = Router::new()
        .route("/v1/formations/default/actions", post(refuse))
        .route("/v1/formations/default/events", get(events));
    let url = serve(router).await.to_string();
    let output = pgtandem(&["switchover", "--monitor", &url, "--json"]).await;
    assert_eq!((code(&output), json_of(&output)), (3, api_error(3, "no_candidate")));
    let output = pgtandem(&["switchover", "--monitor", &url]).await;
    assert_eq!(code(&output), 3);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "pgtandem: says no_candidate (nodes: node1)\n");
    assert!(output.stdout.is_empty());
}

fn prediction(outcome: &str) -> Value {
    json!({
        "steps": [{ "after_ms": 0, "rule": "operator", "node": null, "reason": "as asked" }],
        "outcome": outcome, "reason": "node2 would be the primary", "primary": "node2",
        "alternatives": [], "writable": true, "writable_after_ms": 0, "blocked_by": [],
        "bytes_at_risk": 0, "sync": { "in_force": "ANY 1 (pgtandem_3)", "members": ["node3"],
            "required": 1, "pending": null, "generation": 4 }
    })
}

#[tokio::test]
async fn a_dry_run_asks_for_nothing_but_a_prediction() {
    for (outcome, expected) in [("would_take_writes", 0), ("would_fail", 3), ("would_not_end", 5)] {
        let answer = move || async move { Json(prediction(outcome)) };
        // There is no other path: whatever else is asked for fails.
        let router = Router::new().route("/v1/formations/default/predictions", post(answer));
        let url = serve(router).await.to_string();
        let arguments = ["switchover", "--to", "node2", "--dry-run", "--monitor", &url, "--json"];
        let output = pgtandem(&arguments).await;
        assert_eq!((code(&output), json_of(&output)), (expected, prediction(outcome)));
        let arguments = ["failover", "--dry-run", "--monitor", &url];
        let output = pgtandem(&arguments).await;
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("node2 would be the primary"), "{stdout}");
    }
    let refuse = || async { (StatusCode::CONFLICT, Json(api_error(3, "no_candidate"))) };
    let router = Router::new().route("/v1/formations/default/predictions", post(refuse));
    let url = serve(router).await.to_string();
    let output = pgtandem(&["promote", "node2", "--dry-run", "--monitor", &url, "--json"]).await;
    assert_eq!((code(&output), json_of(&output)), (3, api_error(3, "no_candidate")));
}

#[tokio::test]
async fn what_if_nodes_died() {
    let answer = |Query(query): Query<HashMap<String, String>>| async move {
        let asked = query.get("if_dies").map(String::as_str);
        let prediction = (asked == Some("node1,node3")).then(|| prediction("would_take_writes"));
        Json(json!({ "sentences": [], "blocked_by": [], "prediction": prediction }))
    };
    let url = serve(Router::new().route("/v1/formations/default/explain", get(answer))).await;
    let url = url.to_string();
    let arguments = ["explain", "--if-dies", "node1,node3", "--monitor", &url, "--json"];
    let output = pgtandem(&arguments).await;
    assert_eq!((code(&output), json_of(&output)), (0, prediction("would_take_writes")));
    // A monitor that does not know of it says nothing about it.
    let output = pgtandem(&["explain", "--if-dies", "node2", "--monitor", &url, "--json"]).await;
    assert_eq!((code(&output), &json_of(&output)["reason"]), (8, &json!("no_prediction")));
}

#[tokio::test]
async fn an_unreachable_monitor_ends_at_once() {
    let url = nobody().await.to_string();
    for command in ["status", "switchover"] {
        let output = pgtandem(&[command, "--monitor", &url, "--json"]).await;
        let json = json_of(&output);
        assert_eq!((code(&output), &json["code"]), (4, &json!(4)));
        assert_eq!(json["reason"], "monitor_unreachable");
        assert_eq!(json["nodes"], json!([]));
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let keys = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&keys);
    let action = move |headers: axum::http::HeaderMap| async move {
        let first = {
            let mut seen = seen.lock().unwrap();
            seen.push(headers["idempotency-key"].clone());
            seen.len() == 1
        };
        // The connection breaks before the answer.
        assert!(!first, "lost on purpose");
        Json(operation("done"))
    };
    let router = Router::new().route("/v1/formations/default/actions", post(action));
    let url = serve(router).await.to_string();
    let output = pgtandem(&["switchover", "--monitor", &url, "--json"]).await;
    assert_eq!(code(&output), 0, "{output:?}");
    let keys = keys.lock().unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn bad_arguments_and_configuration() {
    for (arguments, expected) in [
        (&["no-such-command"][..], 1),
        (&[], 1),
        (&["set", "node", "node1", "color", "red", "--monitor", "m1"], 1),
        (&["status", "--monitor", "https://m1"], 1),
        (&["status"], 2),
        (&["status", "--config", "/nonexistent.toml"], 2),
        (&["--help"], 0),
        (&["switchover", "--help"], 0),
        (&["--version"], 0),
    ] {
        assert_eq!(code(&pgtandem(arguments).await), expected, "{arguments:?}");
    }
    let output = pgtandem(&["status", "--bad", "--json"]).await;
    let json = json_of(&output);
    assert_eq!((code(&output), &json["code"]), (1, &json!(1)));
    assert!(json["message"].as_str().unwrap().contains("--bad"), "{json}");
}

#[tokio::test]
async fn version_as_json() {
    let json = json_of(&pgtandem(&["--version", "--json"]).await);
    assert_eq!(json["protocol"], shared::PROTOCOL);
    assert_eq!(json["product"], env!("CARGO_PKG_VERSION"));
    assert!(json["schema"].is_number());
}

#[tokio::test]
async fn events_are_one_object_a_line() {
    let url = serve(monitor("done")).await.to_string();
    let output = pgtandem(&["events", "--after", "10", "--json", "--monitor", &url]).await;
    let stdout = String::from_utf8(output.stdout).unwrap();
    let ids: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, [json!(11), json!(12)]);
}

#[tokio::test]
async fn the_file_gives_what_flags_leave_out() {
    let url = serve(monitor("done")).await.to_string();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgtandem.toml");
    std::fs::write(&file, format!("monitor = '{url}'\nformation = 'other'\n")).unwrap();
    let file = file.to_str().unwrap();
    let arguments = ["events", "--config", file, "--formation", "default", "--json"];
    assert_eq!(code(&pgtandem(&arguments).await), 0);
    // Without the flag the file's formation counts, which the server does not have.
    assert_ne!(code(&pgtandem(&["events", "--config", file]).await), 0);
}

fn status(revision: u64) -> Value {
    json!({
        "formation": "default", "group": 0, "revision": revision, "epoch": 1, "ticket": 1,
        "phase": "forming", "paused": false, "number_sync_standbys": 0, "primary": null,
        "writable": false, "sync": { "in_force": null, "members": [], "required": 0,
            "pending": null, "generation": null },
        "operation": null, "nodes": [], "warnings": []
    })
}

/// Its status has revision 1 where it is asked for; each stream has two more, and ends.
fn streaming() -> (Router, Arc<AtomicUsize>) {
    let streams = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&streams);
    let stream = move |Query(query): Query<HashMap<String, String>>| async move {
        let asked = ["after", "status"].map(|name| query.get(name).map(String::as_str));
        assert_eq!(asked, [Some("10"), Some("true")]);
        let earlier = u64::try_from(count.fetch_add(1, Ordering::Relaxed)).unwrap();
        let first = 2 + 2 * earlier;
        let sent = (first..first + 2).map(|revision| {
            let data = status(revision).to_string();
            Ok::<_, Infallible>(SseEvent::default().event("status").data(data))
        });
        Sse::new(futures::stream::iter(sent.collect::<Vec<_>>()))
    };
    let router = Router::new()
        .route("/v1/formations/default/status", get(|| async { Json(status(1)) }))
        .route("/v1/formations/default/events", get(|| async { Json(json!([event(10)])) }))
        .route("/v1/formations/default/stream", get(stream));
    (router, streams)
}

/// Every second after the first connect there is another one. What is newer takes the place of what has
/// not been printed yet.
#[tokio::test]
async fn a_watch_without_a_terminal_prints_what_is_streamed() {
    let (router, streams) = streaming();
    let url = serve(router).await.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgtandem"));
    command.args(["watch", "--json", "--monitor", &url]).kill_on_drop(true);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut revision = 0;
    while revision < 5 {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
        let status: Value = serde_json::from_str(&line.unwrap().unwrap().unwrap()).unwrap();
        assert_ne!(status["revision"], revision, "nothing is printed twice");
        revision = status["revision"].as_u64().unwrap();
    }
    assert!(streams.load(Ordering::Relaxed) >= 2, "it has connected again");
    child.kill().await.unwrap();
    let mut complaints = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = complaints.next_line().await.unwrap().unwrap();
    assert_eq!(said, "pgtandem: the monitor has ended the stream; trying again");
}

/// As `| head -1` does, while nothing is new: what follows the group ends, and not with the next news.
#[tokio::test]
async fn a_reader_that_goes_away_is_noticed_at_once() {
    let events = |Query(query): Query<HashMap<String, String>>| async move {
        if query.contains_key("after") {
            std::future::pending::<()>().await;
        }
        Json(json!([event(10)]))
    };
    let stream = || async { Sse::new(futures::stream::pending::<Result<SseEvent, Infallible>>()) };
    let router = Router::new()
        .route("/v1/formations/default/status", get(|| async { Json(status(1)) }))
        .route("/v1/formations/default/events", get(events))
        .route("/v1/formations/default/stream", get(stream));
    let url = serve(router).await.to_string();
    for arguments in [&["watch", "--json"][..], &["events", "--follow"][..]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgtandem"));
        command.args(arguments).args(["--monitor", &url]).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next_line().await.unwrap().is_some(), "{arguments:?}");
        drop(lines);
        let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
        assert_eq!(status.unwrap().unwrap().code(), Some(0), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_watch_that_cannot_begin_says_so() {
    let url = nobody().await.to_string();
    let output = pgtandem(&["watch", "--monitor", &url, "--json"]).await;
    assert_eq!((code(&output), &json_of(&output)["reason"]), (4, &json!("monitor_unreachable")));
    let refuse = || async { (StatusCode::NOT_FOUND, Json(api_error(1, "unknown_formation"))) };
    let router = Router::new().route("/v1/formations/other/status", get(refuse));
    let url = serve(router).await.to_string();
    let output = pgtandem(&["watch", "--monitor", &url, "--formation", "other"]).await;
    assert_eq!(code(&output), 1);
}
