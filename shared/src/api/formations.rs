//! The formations of a monitor, their settings and who may join them; and the monitor itself.

use crate::Timestamp;
use crate::ids::{FormationId, NodeName};
use crate::settings::{Settings, Timers};
use serde::{Deserialize, Serialize};

/// `GET /v1/formations/{f}/settings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormationSettings {
    /// The formation.
    pub formation: FormationId,
    /// What is set.
    pub settings: Settings,
    /// What is in force.
    pub timers: Timers,
    /// How many standbys each commit waits for, in force.
    pub number_sync_standbys: u32,
}

/// `POST /v1/formations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateFormation {
    /// Its name.
    pub name: FormationId,
    /// Its settings.
    #[serde(default)]
    pub settings: Settings,
}

/// `GET /v1/formations`, and the answer to [`CreateFormation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormationSummary {
    /// Its name.
    pub name: FormationId,
    /// How many nodes it has.
    pub nodes: usize,
    /// Its primary.
    pub primary: Option<NodeName>,
    /// Its phase.
    pub phase: String,
}

/// `GET /v1/formations/{f}/tokens`; the token itself is only in the answer to its creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Names it for revocation.
    pub id: String,
    /// What a keeper gives with `--join-token`.
    pub token: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The body of `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether requests are served.
    pub ready: bool,
    /// The product's version.
    pub version: String,
    /// The newest migration applied.
    pub schema_version: i64,
    /// When the process started.
    pub started_at: Timestamp,
    /// Its database.
    pub storage: Storage,
}

/// The monitor's database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// embedded or external.
    pub kind: String,
    /// The postmaster's process id, where it is embedded.
    pub pid: Option<i32>,
}
