//! The settings of PostgreSQL that the operator gave: what each node is told of them, and how far each
//! node is. Projections of the record and of what the nodes report, with no state of their own. The limits
//! come from reports, hence may be old when they arrive: whatever is done under them, a node looks at its
//! own log before it starts.
//!
//! Not here: what may be set (`crate::pgsettings`), and what a node makes of it
//! (`crate::node::pgsettings`).

use super::detector::verdict;
use super::record::{Node, Record};
use super::view::View;
use crate::Now;
use shared::ids::NodeId;
use shared::pgsettings::{NodeConfig, NodeSettings, PostgresConfig, Required, SettingsReport};
use shared::report::Report;

/// What a node is told.
pub fn settings_of(record: &Record, view: &View, id: NodeId) -> NodeSettings {
    let settings = &record.postgres;
    let limit = |name: &str| {
        if record.primary == Some(id) {
            ceiling(record, view, id, name)
        } else {
            floor(record, view, name)
        }
    };
    NodeSettings {
        revision: settings.revision,
        values: settings.of(id),
        limits: settings.in_play().into_iter().map(|name| (name.to_owned(), limit(name))).collect(),
    }
}

/// What every node that may follow the primary has, now and after a restart.
fn ceiling(record: &Record, view: &View, primary: NodeId, name: &str) -> Option<u64> {
    let standbys = record.nodes.iter().filter(|(id, node)| **id != primary && counts(node));
    let mut least = u64::MAX;
    for (id, _) in standbys {
        let Required { running, next } = required(view, *id, name)?;
        least = least.min(running).min(next?);
    }
    Some(least)
}

/// What the primary has, now or after a restart.
fn floor(record: &Record, view: &View, name: &str) -> Option<u64> {
    let Required { running, next } = required(view, record.primary?, name)?;
    Some(running.max(next?))
}

/// Whether a standby has to have a value before the primary may have it.
fn counts(node: &Node) -> bool {
    !node.maintenance && !node.dropping
}

fn required(view: &View, id: NodeId, name: &str) -> Option<Required> {
    view.report(id)?.settings.required.get(name).copied()
}

/// How far all nodes are.
pub fn config(record: &Record, view: &View, now: Now) -> PostgresConfig {
    PostgresConfig {
        formation: record.formation.clone(),
        revision: record.postgres.revision,
        values: record.postgres.formation.clone(),
        nodes: record
            .nodes
            .iter()
            .map(|(id, node)| node_config(record, view, now, (*id, node)))
            .collect(),
    }
}

fn node_config(record: &Record, view: &View, now: Now, (id, node): (NodeId, &Node)) -> NodeConfig {
    let report = view.report(id);
    let gone = verdict(view, id, &record.settings.timers(), now.mono).is_dead();
    let running = report.is_some_and(|report| report.postgres.running);
    let said = report.map(|report| report.settings.clone()).unwrap_or_default();
    let refused = newest_refused(record, &said).map(str::to_owned);
    NodeConfig {
        name: node.name.clone(),
        values: record.postgres.nodes.get(&id).cloned().unwrap_or_default(),
        reachable: running && !gone && !node.maintenance,
        applied: said.revision >= record.postgres.revision,
        in_force: said.in_force,
        pending_restart: said.pending_restart,
        refused,
        waits: waits(record, view, id),
    }
}

/// Why the newest values were not taken, if they are the ones.
fn newest_refused<'a>(record: &Record, said: &'a SettingsReport) -> Option<&'a str> {
    let refused = said.refused.as_ref()?;
    (refused.revision >= record.postgres.revision).then_some(refused.why.as_str())
}

/// What has to happen before a node gets what is set, a sentence each.
fn waits(record: &Record, view: &View, id: NodeId) -> Vec<String> {
    let values = record.postgres.of(id);
    let wait = |name: &str| {
        let wanted: u64 = values.get(name)?.parse().ok()?;
        let own = required(view, id, name)?;
        if record.primary == Some(id) {
            let lacking: Vec<_> = lacking(record, view, id, (name, wanted));
            (wanted > own.running && !lacking.is_empty()).then(|| {
                let names = lacking.join(", ");
                format!(
                    "{name} stays at {} until it is at least {wanted} on {names}: restart there first",
                    own.running
                )
            })
        } else {
            let primary = record.primary?;
            let least = floor(record, view, name)?;
            (wanted < least).then(|| {
                let primary = record.name_of(primary);
                format!(
                    "{name} stays at {least} until it is at most {wanted} on {primary}: restart there first"
                )
            })
        }
    };
    record.postgres.in_play().into_iter().filter_map(wait).collect()
}

/// The standbys that do not have a value yet.
fn lacking(
    record: &Record,
    view: &View,
    primary: NodeId,
    (name, wanted): (&str, u64),
) -> Vec<String> {
    let lacks = |id: NodeId| {
        let has = required(view, id, name).and_then(|own| Some(own.running.min(own.next?)));
        has.is_none_or(|has| has < wanted)
    };
    let standbys = record.nodes.iter().filter(|(id, node)| **id != primary && counts(node));
    standbys.filter(|(id, _)| lacks(**id)).map(|(_, node)| node.name.to_string()).collect()
}

/// What `status` says of a node's settings.
pub(super) fn warnings(record: &Record, view: &View, id: NodeId, report: &Report) -> Vec<String> {
    let said = &report.settings;
    let mut warnings = Vec::new();
    if !said.pending_restart.is_empty() {
        let names: Vec<_> = said.pending_restart.iter().map(String::as_str).collect();
        warnings.push(format!("settings that wait for a restart: {}", names.join(", ")));
    }
    if let Some(why) = newest_refused(record, said) {
        warnings.push(format!("the newest settings were not taken: {why}"));
    }
    warnings.extend(waits(record, view, id));
    warnings
}
