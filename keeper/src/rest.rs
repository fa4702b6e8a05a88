//! What load balancers, peers and people ask the keeper: the paths that they know from Patroni.
//!
//! 200 where it holds, else 503. Whether this is the primary comes from the live right to serve,
//! never from what was believed a moment ago.

use crate::attachment::Attachment;
use crate::guard::Right;
use crate::link::Heard;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use postgres::insist::insist;
use serde::Deserialize;
use serde_json::json;
use shared::ids::NodeId;
use shared::report::{Replica, Report};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What the answers are made from.
#[derive(Clone, Debug)]
pub struct Rest {
    /// This node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The newest report.
    pub report: watch::Receiver<Option<Report>>,
    /// What was heard from the monitor.
    pub heard: watch::Receiver<Heard>,
    /// The right to serve.
    pub right: Right,
    /// Which monitor is called.
    pub attachment: watch::Receiver<Attachment>,
}

/// The routes.
pub fn router(rest: Rest) -> Router {
    let role = |handler: fn(&Rest, &Report, &Wanted) -> bool| -> MethodRouter<Rest> {
        let answer = move |State(rest): State<Rest>, Query(wanted): Query<Wanted>| async move {
            let report = rest.report.borrow().clone();
            let holds = report.as_ref().is_some_and(|report| handler(&rest, report, &wanted));
            answer(&rest, report.as_ref(), holds)
        };
        get(answer).options(answer)
    };
    Router::new()
        .route("/", role(is_primary))
        .route("/primary", role(is_primary))
        .route("/read-write", role(is_primary))
        .route("/leader", role(is_primary))
        .route("/replica", role(is_replica))
        .route("/read-only", role(is_replica))
        .route("/sync", role(is_sync))
        .route("/synchronous", role(is_sync))
        .route("/quorum", role(is_sync))
        .route("/async", role(is_async))
        .route("/asynchronous", role(is_async))
        .route("/health", role(|_, report, _| report.postgres.running))
        .route(
            "/readiness",
            role(|rest, report, wanted| {
                is_primary(rest, report, wanted) || is_replica(rest, report, wanted)
            }),
        )
        .route("/liveness", get(|| async { StatusCode::OK }))
        .route("/node", get(node))
        .route("/metrics", get(metrics))
        .route("/peers/{id}", get(peer))
        .with_state(rest)
}

/// The query of a role.
#[derive(Clone, Debug, Default, Deserialize)]
struct Wanted {
    /// The most that a replica may be behind, in bytes or as `10MB`.
    lag: Option<String>,
}

fn answer(rest: &Rest, report: Option<&Report>, holds: bool) -> Response {
    let status = if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = report.map(|report| {
        json!({
            "name": rest.name,
            "node_id": rest.id,
            "state": report.state,
            "role": if rest.right.serves() { "primary" } else { "replica" },
            "timeline": report.postgres.timeline,
            "lsn": report.postgres.lsn,
        })
    });
    (status, Json(body)).into_response()
}

fn is_primary(rest: &Rest, report: &Report, _: &Wanted) -> bool {
    rest.right.serves() && report.postgres.in_recovery == Some(false) && report.sealed.is_none()
}

fn is_replica(rest: &Rest, report: &Report, wanted: &Wanted) -> bool {
    let limit = wanted.lag.as_deref().map(parse_bytes);
    let behind = lag(rest, report);
    let near = match limit {
        None => true,
        Some(Some(limit)) => behind.is_some_and(|behind| behind <= limit),
        Some(None) => false,
    };
    report.streaming && report.postgres.running && near
}

fn lag(rest: &Rest, report: &Report) -> Option<u64> {
    let heard = rest.heard.borrow();
    let answer = heard.answer.as_ref()?;
    let primary = answer.assignment.goal.upstream()?;
    let end = answer.flushed.iter().find(|(id, _)| *id == primary)?.1;
    Some(end.bytes_since(report.postgres.replayed?))
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn is_member(rest: &Rest) -> bool {
    let heard = rest.heard.borrow();
    heard.answer.as_ref().is_some_and(|answer| answer.sync_members.contains(&rest.id))
}

fn is_sync(rest: &Rest, report: &Report, wanted: &Wanted) -> bool {
    is_replica(rest, report, wanted) && is_member(rest)
}

fn is_async(rest: &Rest, report: &Report, wanted: &Wanted) -> bool {
    is_replica(rest, report, wanted) && !is_member(rest)
}

async fn node(State(rest): State<Rest>) -> Response {
    let report = rest.report.borrow().clone();
    let heard = rest.heard.borrow().clone();
    let attachment = rest.attachment.borrow().clone();
    let contact = heard.at.map(|at| crate::clock::now().since(at));
    Json(json!({
        "name": rest.name,
        "node_id": rest.id,
        "report": report,
        "goal_state": heard.answer.as_ref().map(|answer| answer.assignment.goal_state),
        "monitor": { "reachable": heard.unreachable.is_none() && heard.answer.is_some(), "last_contact_ms": contact },
        "serves": rest.right.serves(),
        "attachment": { "monitors": attachment.monitors, "detached": attachment.detached },
    }))
    .into_response()
}

async fn metrics(State(rest): State<Rest>) -> String {
    let report = rest.report.borrow().clone();
    let Some(report) = report else { return String::new() };
    let number = |value: bool| u8::from(value);
    let mut text = String::new();
    let mut gauge = |name: &str, labels: &str, value: String| {
        text.push_str(&format!(
            "# TYPE pgtandem_keeper_{name} gauge\npgtandem_keeper_{name}{labels} {value}\n"
        ));
    };
    gauge("state", &format!("{{state=\"{}\"}}", report.state), "1".to_owned());
    gauge("postgres_running", "", number(report.postgres.running).to_string());
    gauge("serves_as_primary", "", number(rest.right.serves()).to_string());
    gauge("streaming", "", number(report.streaming).to_string());
    if let Some(lsn) = report.postgres.lsn {
        gauge("wal_end_bytes", "", lsn.0.to_string());
    }
    if let Some(archive) = &report.archive {
        gauge("archive_waiting_files", "", archive.waiting.to_string());
        let oldest = archive.oldest_ms.unwrap_or_default() / 1000;
        gauge("archive_oldest_seconds", "", oldest.to_string());
    }
    for Replica { node, stalled_ms, .. } in &report.replicas {
        gauge("replica_stalled_ms", &format!("{{node_id=\"{node}\"}}"), stalled_ms.to_string());
    }
    text
}

/// What this node sees of another member: asked by the monitor when it suspects that one.
async fn peer(State(rest): State<Rest>, Path(id): Path<u64>) -> Response {
    let member = {
        let heard = rest.heard.borrow();
        let answer = heard.answer.as_ref();
        answer.and_then(|answer| answer.assignment.member(NodeId(id)).cloned())
    };
    let Some(member) = member else { return StatusCode::NOT_FOUND.into_response() };
    let limit = Duration::from_millis(500);
    let keeper = reach(&member.rest, limit, b"GET /liveness HTTP/1.0\r\n\r\n");
    let address = format!("{}:{}", bracketed(&member.host), member.port);
    // SSLRequest: any Postgres that lives answers it with one byte, before any login.
    let postgres = reach(&address, limit, &[0, 0, 0, 8, 4, 210, 22, 47]);
    let (keeper, postgres) = tokio::join!(keeper, postgres);
    Json(json!({ "keeper": keeper, "postgres": postgres })).into_response()
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

async fn reach(address: &str, limit: Duration, question: &[u8]) -> &'static str {
    let reached = insist(limit, || async {
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(question).await?;
            stream.read_u8().await
        };
        match asked.await {
            Ok(_) => Some("answered"),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Some("refused"),
            Err(_) => None,
        }
    });
    reached.await.unwrap_or("silent")
}
