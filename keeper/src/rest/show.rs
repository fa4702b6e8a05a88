//! What the keeper shows of its node: the body of the answers to load balancers, `/node`, `/cluster` and
//! `/metrics`.

use super::moment::{Behind, Moment};
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use shared::goal::Member;
use shared::ids::NodeId;
use shared::report::{Replica, Report};
use std::fmt::Display;

/// The body of an answer about a role: with the epoch, so that two answers can be put in order.
pub(super) fn role(moment: &Moment) -> Value {
    let report = moment.report.as_ref();
    let postgres = report.map(|report| report.postgres.clone()).unwrap_or_default();
    json!({
        "name": moment.name,
        "node_id": moment.id,
        "state": report.map(|report| report.state),
        "role": word(moment),
        "epoch": moment.epoch(),
        "timeline": postgres.timeline,
        "lsn": postgres.lsn,
        "lag_bytes": if moment.is_replica() { moment.lag(Behind::Apply) } else { None },
        "look_age_ms": moment.look_age_ms(),
    })
}

fn word(moment: &Moment) -> &'static str {
    if moment.is_primary() {
        "primary"
    } else if moment.is_replica() {
        "replica"
    } else {
        "none"
    }
}

/// `/node`: all that the keeper knows.
pub(super) fn node(moment: &Moment) -> Response {
    let heard = &moment.heard;
    let contact = heard.at.map(|at| moment.now.since(at));
    let reachable = heard.unreachable.is_none() && heard.answer.is_some();
    Json(json!({
        "name": moment.name,
        "node_id": moment.id,
        "role": word(moment),
        "epoch": moment.epoch(),
        "report": moment.report,
        "look_age_ms": moment.look_age_ms(),
        "lag_bytes": if moment.is_replica() { moment.lag(Behind::Apply) } else { None },
        "goal_state": moment.assignment().map(|told| told.goal_state),
        "monitor": { "reachable": reachable, "last_contact_ms": contact },
        "serves": moment.is_primary(),
        "attachment": {
            "monitors": moment.attachment.monitors,
            "detached": moment.attachment.detached,
        },
    }))
    .into_response()
}

/// `/cluster`: the group as this node last heard of it. Who is the primary only that node itself can say for
/// certain.
pub(super) fn cluster(moment: &Moment) -> Response {
    let primary = primary(moment);
    let members = moment.assignment().map(|told| told.members.as_slice()).unwrap_or_default();
    let show = |member: &Member| {
        json!({
            "name": member.name,
            "node_id": member.id,
            "role": if Some(member.id) == primary { "leader" } else { "replica" },
            "host": member.host,
            "port": member.port,
            "api_url": format!("http://{}/", member.rest),
        })
    };
    let members: Vec<_> = members.iter().map(show).collect();
    let age = moment.heard.at.map(|at| moment.now.since(at));
    Json(json!({ "epoch": moment.epoch(), "members": members, "age_ms": age })).into_response()
}

/// Whom the monitor takes for the primary, as far as a node hears of it.
fn primary(moment: &Moment) -> Option<NodeId> {
    moment.assignment()?.goal.primary_for(moment.id)
}

/// Gauges in the text format of Prometheus.
#[derive(Debug, Default)]
struct Gauges {
    text: String,
}

impl Gauges {
    fn add(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help);
        self.line(name, "", value);
    }

    /// The lines that come once, before all values of a name.
    fn head(&mut self, name: &str, help: &str) {
        self.text.push_str(&format!(
            "# HELP pgtandem_keeper_{name} {help}\n# TYPE pgtandem_keeper_{name} gauge\n"
        ));
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        self.text.push_str(&format!("pgtandem_keeper_{name}{labels} {value}\n"));
    }
}

/// `/metrics`.
pub(super) fn metrics(moment: &Moment) -> Response {
    let mut gauges = Gauges::default();
    gauges.add("look_age_ms", "Since the last look at the node", moment.look_age_ms());
    if let Some(report) = &moment.report {
        of_report(&mut gauges, moment, report);
    }
    ([("content-type", "text/plain; version=0.0.4")], gauges.text).into_response()
}

fn of_report(gauges: &mut Gauges, moment: &Moment, report: &Report) {
    let flag = |value: bool| u8::from(value);
    gauges.head("state", "1 for the node's present state");
    gauges.line("state", &format!("{{state=\"{}\"}}", report.state), 1);
    let running = report.postgres.running;
    gauges.add("postgres_running", "Whether Postgres accepts connections", flag(running));
    let primary = moment.is_primary();
    gauges.add("serves_as_primary", "Whether /primary answers 200", flag(primary));
    gauges.add("serves_as_replica", "Whether /replica answers 200", flag(moment.is_replica()));
    gauges.add("streaming", "Whether a standby streams", flag(report.streaming));
    if let Some(epoch) = moment.epoch() {
        gauges.add("epoch", "The newest epoch that the node knows of", epoch);
    }
    if let Some(lsn) = report.postgres.lsn {
        gauges.add("wal_end_bytes", "The end of WAL on disk", lsn.0);
    }
    if let Some(archive) = &report.archive {
        let oldest = archive.oldest_ms.unwrap_or_default() / 1000;
        gauges.add("archive_waiting_files", "Files that wait to be archived", archive.waiting);
        gauges.add("archive_oldest_seconds", "For how long the oldest of them does", oldest);
    }
    if let Some(lag) = moment.lag(Behind::Apply).filter(|_| moment.is_replica()) {
        gauges.add("lag_bytes", "What a standby has not replayed yet", lag);
    }
    if !report.replicas.is_empty() {
        gauges.head("replica_stalled_ms", "Since a standby's flush position last moved");
    }
    for Replica { node, stalled_ms, .. } in &report.replicas {
        gauges.line("replica_stalled_ms", &format!("{{node_id=\"{node}\"}}"), stalled_ms);
    }
}
