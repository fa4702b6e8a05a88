//! `pgtandem status`, and how a status looks to people.

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::deadline_after;
use crate::output;
use crate::text::{Table, blocker, bytes, duration, host_port, or_dash, yes_no};
use ctl::client::Client;
use shared::api::{NodeStatus, OperationStatus, Status as Snapshot};
use shared::ids::{NodeName, Revision};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The longest single wait that the monitor is asked for.
const LONG_POLL: Duration = Duration::from_secs(20);
/// Between two questions where the monitor answers too soon.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows the formation and its nodes
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Waits for a revision newer than this
    #[arg(long, value_name = "REVISION")]
    wait_revision: Option<Revision>,
    /// Waits at most so long for a newer revision
    #[arg(long, env = "PGTANDEM_TIMEOUT", value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

impl Status {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client()?;
        let status = match self.wait_revision {
            None => client.status(&context.formation, None, 0).await?,
            Some(seen) => newer_than(seen, context, &client, deadline_after(self.timeout)).await?,
        };
        if context.json {
            output::json(&status)?;
        } else {
            output::text(&render(&status))?;
        }
        Ok(Exit::Done)
    }
}

async fn newer_than(
    seen: Revision,
    context: &Context,
    client: &Client,
    deadline: Instant,
) -> Result<Snapshot, Failure> {
    loop {
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        let wait_ms = u64::try_from(left.min(LONG_POLL).as_millis()).unwrap_or(u64::MAX);
        let status = client.status(&context.formation, Some(seen), wait_ms).await?;
        if status.revision > seen {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            let message = format!("the revision is still {}", status.revision);
            return Err(Failure::new(Exit::TimedOut, "timeout", message));
        }
        if started.elapsed() < PAUSE {
            sleep(PAUSE.min(left)).await;
        }
    }
}

/// A status as people read it.
pub fn render(status: &Snapshot) -> String {
    let mut text = header(status);
    text.push_str("\n\n");
    text.push_str(&nodes(status));
    let mut notes: Vec<String> =
        status.nodes.iter().filter_map(|node| cascading(status, node)).collect();
    notes.extend(status.nodes.iter().filter_map(step));
    notes.extend(status.operation.iter().flat_map(operation));
    notes.extend(status.warnings.iter().map(|warning| format!("warning: {warning}")));
    for node in &status.nodes {
        notes.extend(node.warnings.iter().map(|text| format!("warning: {}: {text}", node.name)));
    }
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes.join("\n"));
        text.push('\n');
    }
    text
}

/// `synchronous_standby_names` with the nodes' names in place of their application names.
pub fn in_force_by_name(status: &Snapshot) -> String {
    status.sync.in_force.as_ref().map_or_else(|| "-".to_owned(), |setting| by_name(status, setting))
}

/// The same for a change under way.
pub fn pending_by_name(status: &Snapshot) -> Option<String> {
    status.sync.pending.as_ref().map(|setting| by_name(status, setting))
}

fn by_name(status: &Snapshot, setting: &str) -> String {
    if setting.is_empty() {
        return "nobody".to_owned();
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut text = String::new();
    let mut rest = setting;
    while let Some(next) = rest.chars().next() {
        let end = rest.find(|c| is_word(c) != is_word(next)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let node = status.nodes.iter().find(|node| node.application_name == word);
        text.push_str(node.map_or(word, |node| node.name.as_str()));
        rest = after;
    }
    text
}

fn header(status: &Snapshot) -> String {
    format!(
        "formation {}  primary {}  epoch {}  phase {}  sync {}  writable {}{}",
        status.formation,
        or_dash(status.primary.as_ref()),
        status.epoch,
        status.phase,
        in_force_by_name(status),
        yes_no(status.writable),
        if status.paused { "  PAUSED" } else { "" },
    )
}

fn nodes(status: &Snapshot) -> String {
    let mut table = Table::new(&[
        "Name",
        "Id",
        "Host:Port",
        "Timeline:LSN",
        "Lag",
        "Connection",
        "Health",
        "Reported",
        "Goal",
        "Priority",
        "Quorum",
        "Sync",
    ]);
    for node in &status.nodes {
        table.row(vec![
            node.name.to_string(),
            node.id.to_string(),
            host_port(&node.host, node.port),
            format!("{}:{}", or_dash(node.timeline), or_dash(node.lsn)),
            or_dash(node.lag_bytes.map(bytes)),
            connection(node).to_owned(),
            node.health.clone(),
            node.reported_state.to_string(),
            node.goal_state.to_string(),
            node.candidate_priority.to_string(),
            yes_no(node.replication_quorum).to_owned(),
            or_dash(node.sync_state.as_ref()),
        ]);
    }
    table.render()
}

fn connection(node: &NodeStatus) -> &'static str {
    match (node.pg_running, node.in_recovery) {
        (false, _) => "none",
        (true, Some(true)) => "read-only",
        (true, Some(false)) => "read-write",
        (true, None) => "unknown",
    }
}

/// Of a node that is to stream from a standby: whether it does.
fn cascading(status: &Snapshot, node: &NodeStatus) -> Option<String> {
    let name = &node.name;
    let is_primary = |name: &NodeName| status.primary.as_ref() == Some(name);
    let wish =
        node.replicate_from.as_ref().filter(|wish| !is_primary(name) && !is_primary(wish))?;
    Some(if node.upstream.as_ref() == Some(wish) {
        format!("{name} replicates from {wish}")
    } else {
        format!(
            "{name} is to replicate from {wish}, and does not now: `pgtandem explain {name}` says why"
        )
    })
}

fn step(node: &NodeStatus) -> Option<String> {
    let step = node.step.as_ref()?;
    let progress = step.progress.map(|(done, total)| {
        let (done, total) = (bytes(done), bytes(total));
        format!(", {done} of {total}")
    });
    let elapsed = duration(step.elapsed_ms / 1000 * 1000);
    let progress = progress.unwrap_or_default();
    let limit = step.limit_ms.map(|ms| format!(" of {} at most", duration(ms)));
    let limit = limit.unwrap_or_default();
    Some(format!("{}: {}{progress}, for {elapsed}{limit}", node.name, step.name))
}

fn operation(operation: &OperationStatus) -> Vec<String> {
    let target = operation.target.as_ref().map(|node| format!(" {node}")).unwrap_or_default();
    let mut lines = vec![format!(
        "operation {}: {}{target}, asked for at {}, phase {}",
        operation.id,
        operation.kind,
        operation.requested_at.format("%H:%M:%S"),
        operation.phase
    )];
    lines.extend(operation.blocked_by.iter().map(|it| format!("  waits for: {}", blocker(it))));
    lines
}

#[cfg(test)]
pub mod fixture {
    //! A status as the monitor sends it.

    use serde_json::{Value, json};
    use shared::api::Status;

    fn node(id: u64, host: &str, port: u16, state: &str) -> Value {
        let is_primary = state == "primary";
        json!({
            "id": id, "name": format!("node{id}"), "host": host, "port": port, "zone": null,
            "rest": crate::text::host_port(host, 8008),
            "reported_state": state, "goal_state": state,
            "role": if is_primary { "primary" } else { "standby" },
            "upstream": if is_primary { None } else { Some("node2") },
            "candidate_priority": 50, "replication_quorum": true,
            "health": "ok", "health_checked_at": null, "last_report_at": null,
            "state_changed_at": null, "pg_running": true, "in_recovery": !is_primary,
            "timeline": 2, "lsn": "0/3000060", "received_lsn": null, "replayed_lsn": null,
            "lag_bytes": if is_primary { None } else { Some(0) },
            "sync_state": if is_primary { None } else { Some("quorum") },
            "application_name": format!("pgtandem_{id}"), "slot_name": null,
            "maintenance_cause": null, "system_identifier": "7000000000000000001",
            "diverged": false, "pg_version": "15.18", "keeper_version": "0.1.0",
            "step": null, "warnings": []
        })
    }

    /// Three nodes, the second is the primary, the third is being cloned.
    pub fn status() -> Status {
        let mut third = node(3, "fd00::3", 5433, "secondary");
        third["reported_state"] = json!("catchingup");
        third["pg_running"] = json!(false);
        third["lsn"] = Value::Null;
        third["timeline"] = Value::Null;
        third["lag_bytes"] = json!(16 << 20);
        third["sync_state"] = Value::Null;
        third["health"] = json!("bad");
        third["step"] = json!({
            "name": "clone", "progress": [1 << 20, 16 << 20], "elapsed_ms": 12_345
        });
        third["warnings"] = json!(["its clock is 3 s behind"]);
        let value = json!({
            "formation": "default", "group": 0, "revision": 41, "epoch": 3, "ticket": 9,
            "phase": "serving", "paused": false, "number_sync_standbys": 1, "primary": "node2",
            "writable": true,
            "sync": { "in_force": "ANY 1 (pgtandem_1, \"pgtandem_3\")",
                "members": ["node1", "node3"], "required": 1, "pending": null, "generation": 5 },
            "operation": { "id": 7, "kind": "switchover", "target": "node1",
                "requested_at": "2026-01-02T03:04:05Z", "phase": "serving",
                "blocked_by": [
                    { "code": "lag", "nodes": ["node1"], "text": "the standby to catch up" }] },
            "nodes": [node(1, "10.0.0.1", 5432, "secondary"),
                node(2, "10.0.0.2", 5432, "primary"), third],
            "warnings": ["the monitor has no backup"]
        });
        serde_json::from_value(value).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = r#"
formation default  primary node2  epoch 3  phase serving  sync ANY 1 (node1, "node3")  writable yes

Name   Id  Host:Port       Timeline:LSN  Lag    Connection  Health  Reported    Goal       Priority  Quorum  Sync
node1  1   10.0.0.1:5432   2:0/3000060   0 B    read-only   ok      secondary   secondary  50        yes     quorum
node2  2   10.0.0.2:5432   2:0/3000060   -      read-write  ok      primary     primary    50        yes     -
node3  3   [fd00::3]:5433  -:-           16 MB  none        bad     catchingup  secondary  50        yes     -

node3: clone, 1024 kB of 16 MB, for 12s
operation 7: switchover node1, asked for at 03:04:05, phase serving
  waits for: the standby to catch up (node1)
warning: the monitor has no backup
warning: node3: its clock is 3 s behind
"#;

    #[test]
    fn golden_status() {
        assert_eq!(render(&fixture::status()), GOLDEN.trim_start());
    }

    #[test]
    fn who_replicates_from_a_standby_is_told() {
        let mut status = fixture::status();
        let mut note = |upstream: &str, wish: &str| {
            let name = |name: &str| name.parse().ok();
            (status.nodes[0].upstream, status.nodes[0].replicate_from) =
                (name(upstream), name(wish));
            let text = render(&status);
            text.lines().find(|line| line.contains("replicate")).map(ToOwned::to_owned)
        };
        assert_eq!(note("node2", ""), None);
        assert_eq!(note("node2", "node2"), None, "the primary");
        assert_eq!(note("node3", "node3").unwrap(), "node1 replicates from node3");
        let not_now = note("node2", "node3").unwrap();
        assert!(not_now.starts_with("node1 is to replicate from node3, and does not now"));
    }

    #[test]
    fn a_quiet_status_has_no_notes() {
        let mut status = fixture::status();
        status.operation = None;
        status.warnings.clear();
        status.nodes.truncate(2);
        status.sync.in_force = None;
        let text = render(&status);
        assert!(text.contains("sync -  writable"), "{text}");
        assert_eq!(text.lines().count(), 5, "{text}");
    }
}
