//! The process itself: probes, metrics, documents.

use super::{Result, State};
use crate::group::Group;
use crate::metrics::header;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse};
use fsm::group::rules::RULES;
use fsm::group::status::status;
use shared::api::{Ready, Status};
use shared::ids::FormationId;
use std::fmt::Write as _;

/// `GET /healthz`: the process runs.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: requests are served.
pub(super) async fn readyz(service: State) -> (StatusCode, Json<Ready>) {
    let mut ready = service.readiness();
    // What is so now: the database may have gone since it was last looked at.
    if ready.ready
        && let Ok(store) = service.store()
    {
        ready.ready = store.ping().await.is_ok();
    }
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready))
}

/// `GET /`.
pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}

/// `GET /v1/openapi.json`.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("openapi.json"))
}

/// `GET /v1/rules`.
pub(super) async fn rules() -> Json<serde_json::Value> {
    Json(rules_json())
}

/// The machine's rules as JSON.
pub fn rules_json() -> serde_json::Value {
    RULES
        .iter()
        .map(|rule| {
            serde_json::json!({
                "rule": rule.name,
                "phase": rule.phase,
                "conditions": rule.conditions,
                "next": rule.next,
            })
        })
        .collect()
}

/// `GET /metrics`.
pub(super) async fn metrics(service: State) -> Result<impl IntoResponse> {
    let mut all = Vec::new();
    // A monitor that is still starting has counters, too.
    let groups: Vec<(FormationId, Group)> = service.groups().unwrap_or_default();
    for (_, group) in groups {
        all.push(group.inspect(status).await?);
    }
    let mut text = String::new();
    let up = u8::from(service.readiness().ready);
    let written = header(&mut text, "ready", "gauge", "Whether requests are served.")
        .and_then(|()| writeln!(text, "pgtandem_ready {up}"))
        .and_then(|()| service.metrics().write(&mut text))
        .and_then(|()| write_groups(&mut text, &all));
    if written.is_err() {
        return Err(super::internal("the metrics could not be written").into());
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

fn write_groups(text: &mut String, all: &[Status]) -> std::fmt::Result {
    type Value = fn(&Status) -> String;
    let gauges: [(&str, &str, Value); 6] = [
        ("group_epoch", "The newest epoch.", |status| status.epoch.to_string()),
        ("group_ticket", "The newest ticket.", |status| status.ticket.to_string()),
        ("group_revision", "The record's revision.", |status| status.revision.to_string()),
        ("group_writable", "Whether commits are acknowledged.", |s| {
            u8::from(s.writable).to_string()
        }),
        ("group_paused", "Whether automation is off.", |s| u8::from(s.paused).to_string()),
        ("group_sync_required", "How many standbys a commit waits for.", |status| {
            status.sync.required.to_string()
        }),
    ];
    for (name, help, value) in gauges {
        header(text, name, "gauge", help)?;
        for status in all {
            let labels = group_labels(status);
            writeln!(text, "pgtandem_{name}{{{labels}}} {}", value(status))?;
        }
    }
    header(text, "group_phase", "gauge", "1 for the phase that the group is in.")?;
    for status in all {
        let labels = group_labels(status);
        writeln!(text, "pgtandem_group_phase{{{labels},phase=\"{}\"}} 1", status.phase)?;
    }
    header(text, "node_state", "gauge", "1 for the node's reported and goal state.")?;
    header(text, "node_healthy", "gauge", "1 for ok, 0 for bad, absent while unknown.")?;
    header(text, "node_lag_bytes", "gauge", "How far a standby is behind the primary.")?;
    all.iter().try_for_each(|status| write_nodes(text, status))
}

fn write_nodes(text: &mut String, status: &Status) -> std::fmt::Result {
    let group = group_labels(status);
    for node in &status.nodes {
        let labels = format!("{group},node=\"{}\"", node.name);
        let (reported, goal, role) = (node.reported_state, node.goal_state, &node.role);
        let states = format!("reported=\"{reported}\",goal=\"{goal}\",role=\"{role}\"");
        writeln!(text, "pgtandem_node_state{{{labels},{states}}} 1")?;
        match node.health.as_str() {
            "ok" => writeln!(text, "pgtandem_node_healthy{{{labels}}} 1")?,
            "bad" => writeln!(text, "pgtandem_node_healthy{{{labels}}} 0")?,
            _ => {}
        }
        if let Some(lag) = node.lag_bytes {
            writeln!(text, "pgtandem_node_lag_bytes{{{labels}}} {lag}")?;
        }
    }
    Ok(())
}

fn group_labels(status: &Status) -> String {
    format!("formation=\"{}\",group=\"{}\"", status.formation, status.group)
}
