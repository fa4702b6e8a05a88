//! Settings of PostgreSQL that an operator gives to a whole formation: what is kept of them, what a
//! node is told, what it says about them, and what people are shown.
//!
//! Deliberately not here: which settings may be given (`fsm::pgsettings`) and which value a node gets when
//! (`fsm::group::pgsettings`, `fsm::node::pgsettings`).

use crate::ids::{FormationId, NodeId, NodeName, Revision};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Names and values as text, as they stand in a configuration file.
pub type Values = BTreeMap<String, String>;

/// The settings of which a standby must have at least what the primary has
/// (`CheckRequiredParameterValues` in PostgreSQL): else it does not start, or does not replay.
pub const REQUIRED: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// Whether a standby must have at least what the primary has of this setting.
pub fn is_required(name: &str) -> bool {
    REQUIRED.contains(&name)
}

/// What an operator has set: part of the durable record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct PostgresSettings {
    /// The revision of the record at which any of this changed last; 0: never.
    pub revision: Revision,
    /// For all nodes.
    pub formation: Values,
    /// For one node, instead.
    pub nodes: BTreeMap<NodeId, Values>,
    /// Those of [`REQUIRED`] that were set once and were taken back: the way down has to keep its
    /// order too.
    pub released: BTreeSet<String>,
}

impl PostgresSettings {
    /// What a node shall have: its own values, and the formation's for the rest.
    pub fn of(&self, node: NodeId) -> Values {
        let mut values = self.formation.clone();
        values.extend(self.nodes.get(&node).cloned().unwrap_or_default());
        values
    }

    /// What is set for one node, or for all.
    pub fn place(&self, node: Option<NodeId>) -> Option<&Values> {
        match node {
            None => Some(&self.formation),
            Some(id) => self.nodes.get(&id),
        }
    }

    /// The names that are set anywhere.
    pub fn names(&self) -> BTreeSet<&str> {
        let all = self.nodes.values().chain([&self.formation]);
        all.flat_map(|values| values.keys().map(String::as_str)).collect()
    }

    /// Those of [`REQUIRED`] that are, or were, in our hands.
    pub fn in_play(&self) -> BTreeSet<&str> {
        let set = self.names().into_iter().filter(|name| is_required(name));
        set.chain(self.released.iter().map(String::as_str)).collect()
    }
}

/// What a node is told, as part of its assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSettings {
    /// See [`PostgresSettings::revision`].
    pub revision: Revision,
    /// What it shall have, once that is possible.
    pub values: Values,
    /// For each of [`REQUIRED`] that is in our hands: as the primary, the most that every standby has;
    /// as a standby, the least that the primary may have. `None`: not known, so as a primary nothing is
    /// raised, as a standby nothing is lowered.
    pub limits: BTreeMap<String, Option<u64>>,
}

/// What a server has of one of [`REQUIRED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Required {
    /// What it runs with.
    pub running: u64,
    /// What it would run with after a restart; `None` where that cannot be read.
    pub next: Option<u64>,
}

/// What a keeper says of the settings of its server; nothing while that is down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct SettingsReport {
    /// The newest [`NodeSettings::revision`] whose values the server has read.
    pub revision: Revision,
    /// What is in force of the settings that are set.
    pub in_force: Values,
    /// The names of all settings that wait for a restart.
    pub pending_restart: BTreeSet<String>,
    /// What it has of [`REQUIRED`].
    pub required: BTreeMap<String, Required>,
    /// The newest values were not taken; the ones before them stay.
    pub refused: Option<Refused>,
}

/// Values that a server did not take.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refused {
    /// The [`NodeSettings::revision`] that they came with.
    pub revision: Revision,
    /// What the server says against them.
    pub why: String,
}

/// What one version of PostgreSQL says of its settings (`pg_settings`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Catalogue {
    /// `server_version`.
    pub version: String,
    /// By name, as PostgreSQL spells it.
    pub settings: BTreeMap<String, Known>,
}

/// A setting that PostgreSQL knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Known {
    /// bool, integer, real, enum or string.
    pub vartype: String,
    /// What its numbers count, such as `8kB` or `ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The smallest value, in the unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_val: Option<String>,
    /// The largest value, in the unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_val: Option<String>,
    /// The values of an enum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enumvals: Vec<String>,
    /// Who may change it when: internal, postmaster, sighup and others.
    pub context: String,
}

/// `GET /v1/formations/{f}/postgres-settings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresConfig {
    /// The formation.
    pub formation: FormationId,
    /// See [`PostgresSettings::revision`].
    pub revision: Revision,
    /// What is set for all nodes.
    pub values: Values,
    /// The nodes, by id.
    pub nodes: Vec<NodeConfig>,
}

/// A node in [`PostgresConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Its name.
    pub name: NodeName,
    /// What is set for it instead.
    pub values: Values,
    /// Its keeper reports, its server runs, and it is not in maintenance.
    pub reachable: bool,
    /// Its server has read the newest values.
    pub applied: bool,
    /// What is in force on it.
    pub in_force: Values,
    /// What waits for a restart.
    pub pending_restart: BTreeSet<String>,
    /// Why its keeper did not take the newest values.
    pub refused: Option<String>,
    /// What has to happen before it gets what is set.
    pub waits: Vec<String>,
}
