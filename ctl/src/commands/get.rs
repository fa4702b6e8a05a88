//! `pgtandem get`, and the names of the settings.

use super::settings;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{output, text};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use shared::api::{FormationSettings, NodeStatus};
use shared::ids::NodeName;

/// Shows the settings of a node or of the formation
#[derive(Debug, clap::Args)]
pub struct Get {
    #[command(subcommand)]
    of: Of,
}

#[derive(Debug, clap::Subcommand)]
enum Of {
    /// Shows a node's settings, or one of them
    Node {
        /// The node's name
        node: NodeName,
        /// Only this setting
        key: Option<NodeKey>,
    },
    /// Shows the formation's settings, or one of them, with the values in force
    Formation {
        /// Only this setting
        key: Option<FormationKey>,
    },
}

/// A setting of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NodeKey {
    /// 0 to 100; 0: never promoted by itself
    CandidatePriority,
    /// Whether it may be in the sync set: true or false
    ReplicationQuorum,
    /// The standby that it streams from whenever that can be had; none: the primary
    ReplicateFrom,
    /// Where it stands
    Zone,
    /// Its name
    Name,
    /// The address of its Postgres
    Host,
    /// The port of its Postgres
    Port,
}

/// A setting of the formation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormationKey {
    /// How many standbys every commit waits for
    NumberSyncStandbys,
    /// Silence after which a node may be considered gone; the other times follow from it
    NodeTimeout,
    /// How often a keeper reports at least
    ReportInterval,
    /// How long a primary may go on after its last proof that it still is the primary
    Lease,
    /// How long a crashed Postgres may take to come back before a failover is faster
    RestartBudget,
    /// How long a standby may hold up commits before it leaves the sync set
    StallTimeout,
    /// How long an election that could be decided waits for nodes that have not answered
    ElectionGrace,
    /// How long a switchover may take to stop the old primary before it is given up
    DrainTimeout,
}

impl Get {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.of {
            Of::Node { node, key } => get_node(context, &node, key).await,
            Of::Formation { key: None } => settings::Settings {}.run(context).await,
            Of::Formation { key: Some(key) } => {
                let settings = context.client()?.settings(&context.formation).await?;
                show_one(context, key.name(), &key.value(&settings))
            }
        }
    }
}

impl NodeKey {
    /// The name that people and the monitor use.
    pub fn name(self) -> &'static str {
        match self {
            Self::CandidatePriority => "candidate-priority",
            Self::ReplicationQuorum => "replication-quorum",
            Self::ReplicateFrom => "replicate-from",
            Self::Zone => "zone",
            Self::Name => "name",
            Self::Host => "host",
            Self::Port => "port",
        }
    }

    fn value(self, node: &NodeStatus) -> Value {
        match self {
            Self::CandidatePriority => json!(node.candidate_priority),
            Self::ReplicationQuorum => json!(node.replication_quorum),
            Self::ReplicateFrom => {
                node.replicate_from.as_ref().map_or_else(|| json!("none"), |name| json!(name))
            }
            Self::Zone => json!(node.zone),
            Self::Name => json!(node.name),
            Self::Host => json!(node.host),
            Self::Port => json!(node.port),
        }
    }
}

impl FormationKey {
    /// The name that people and the monitor use.
    pub fn name(self) -> &'static str {
        match self {
            Self::NumberSyncStandbys => "number-sync-standbys",
            Self::NodeTimeout => "node-timeout",
            Self::ReportInterval => "report-interval",
            Self::Lease => "lease",
            Self::RestartBudget => "restart-budget",
            Self::StallTimeout => "stall-timeout",
            Self::ElectionGrace => "election-grace",
            Self::DrainTimeout => "drain-timeout",
        }
    }

    /// The value in force, in the form in which it is set.
    pub fn value(self, settings: &FormationSettings) -> Value {
        let timers = &settings.timers;
        let ms = match self {
            Self::NumberSyncStandbys => return json!(settings.number_sync_standbys),
            Self::NodeTimeout => timers.node_timeout_ms,
            Self::ReportInterval => timers.report_interval_ms,
            Self::Lease => timers.lease_ms,
            Self::RestartBudget => timers.restart_budget_ms,
            Self::StallTimeout => timers.stall_timeout_ms,
            Self::ElectionGrace => timers.election_grace_ms,
            Self::DrainTimeout => timers.drain_timeout_ms,
        };
        Value::String(text::duration(ms))
    }

    /// Whether the value was set, rather than following from a default.
    pub fn is_set(self, settings: &FormationSettings) -> bool {
        let set = &settings.settings;
        match self {
            Self::NumberSyncStandbys => set.number_sync_standbys.is_some(),
            Self::NodeTimeout => {
                set.node_timeout_ms != shared::settings::Settings::default().node_timeout_ms
            }
            Self::ReportInterval => set.report_interval_ms.is_some(),
            Self::Lease => set.lease_ms.is_some(),
            Self::RestartBudget => set.restart_budget_ms.is_some(),
            Self::StallTimeout => set.stall_timeout_ms.is_some(),
            Self::ElectionGrace => set.election_grace_ms.is_some(),
            Self::DrainTimeout => set.drain_timeout_ms.is_some(),
        }
    }
}

/// A setting's value as people read it.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

async fn get_node(
    context: &Context,
    name: &NodeName,
    key: Option<NodeKey>,
) -> Result<Exit, Failure> {
    let status = context.client()?.status(&context.formation, None, 0).await?;
    let Some(node) = status.nodes.iter().find(|node| node.name == *name) else {
        let message = format!("formation {} has no node {name}", context.formation);
        return Err(Failure::new(Exit::BadArguments, "unknown_node", message));
    };
    match key {
        Some(key) => show_one(context, key.name(), &key.value(node)),
        None => show_all(context, node),
    }
}

fn show_one(context: &Context, key: &str, value: &Value) -> Result<Exit, Failure> {
    if context.json {
        output::json(&json!({ "key": key, "value": value }))?;
    } else {
        output::text(&plain(value))?;
    }
    Ok(Exit::Done)
}

fn show_all(context: &Context, node: &NodeStatus) -> Result<Exit, Failure> {
    let keys = NodeKey::value_variants().iter();
    if context.json {
        let pairs = keys.map(|key| (key.name().replace('-', "_"), key.value(node)));
        output::json(&pairs.collect::<Map<_, _>>())?;
    } else {
        let mut table = text::Table::new(&["Setting", "Value"]);
        keys.for_each(|key| table.row(vec![key.name().to_owned(), plain(&key.value(node))]));
        output::text(&table.render())?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_arguments() {
        for key in NodeKey::value_variants() {
            assert_eq!(key.to_possible_value().unwrap().get_name(), key.name());
        }
        for key in FormationKey::value_variants() {
            assert_eq!(key.to_possible_value().unwrap().get_name(), key.name());
        }
    }
}
