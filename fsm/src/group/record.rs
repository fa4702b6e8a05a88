//! The durable record of a group (docs/safety.md, rule 1): all that a restarted monitor knows.
//!
//! What it is made of has files of its own: the phase, the nodes, the operation under way, whom commits may wait
//! for, and the decision, which is a new record together with the events that say why. What is seen of the nodes
//! is in `view`.

mod decision;
mod node;
mod operation;
mod phase;
mod standbys;

pub use decision::{Decision, Note};
pub use node::Node;
pub use operation::{Operation, OperationKind};
pub use phase::{Election, LossAccepted, Phase};

use serde::{Deserialize, Serialize};
use shared::Timestamp;
use shared::api::{Identity, OperationResult};
use shared::goal::Order;
use shared::history::{Lineage, LineageEntry};
use shared::ids::{
    Epoch, FormationId, Gen, GroupId, NodeId, NodeName, Revision, SystemIdentifier, Ticket,
    TimelineId,
};
use shared::pgsettings::PostgresSettings;
use shared::settings::Settings;
use shared::spec::{InvalidSpec, Spec};
use std::collections::{BTreeMap, BTreeSet};

/// The durable state of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The formation.
    pub formation: FormationId,
    /// The group within it.
    pub group: GroupId,
    /// Raised by every decision; the store refuses one that was made on an older revision.
    pub revision: Revision,
    /// Rule 2.
    pub ticket: Ticket,
    /// The newest epoch decided.
    pub epoch: Epoch,
    /// Its primary, or the one that is to become it.
    pub primary: Option<NodeId>,
    /// Every spec that may be in force, oldest first.
    pub specs: Vec<Spec>,
    /// The newest confirmed one of them.
    pub confirmed: Option<Gen>,
    /// The generation that the next spec gets.
    pub next_generation: Gen,
    /// The epochs and their timelines.
    pub lineage: Lineage,
    /// The highest timeline number reserved or seen (rule 8).
    pub highest_timeline: TimelineId,
    /// The cluster that this group is.
    pub system_identifier: Option<SystemIdentifier>,
    /// Where the machine stands.
    pub phase: Phase,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The id that the next node gets.
    pub next_node: NodeId,
    /// The formation's settings.
    pub settings: Settings,
    /// The settings of PostgreSQL that the operator gave.
    #[serde(default)]
    pub postgres: PostgresSettings,
    /// The operation under way.
    pub operation: Option<Operation>,
    /// The newest finished ones, oldest first.
    pub finished: Vec<OperationResult>,
    /// The id that the next operation gets.
    pub next_operation: u64,
    /// The id that the next event gets.
    pub next_event: u64,
    /// This record is not to be trusted: it is an old copy, or the empty one of a monitor that has lost
    /// its own. No order and no lease is given on it until [`super::adopt`] has made another from what
    /// the keepers know (rule 14).
    #[serde(rename = "regressed")]
    pub quarantined: bool,
    /// The nodes that were dropped, with their secrets: they are to stop for good, and nobody else is.
    #[serde(default)]
    pub dropped: BTreeMap<NodeId, String>,
    /// Nobody is promoted unless an operator asks for it.
    #[serde(default)]
    pub paused: Option<Pause>,
}

/// Automation is switched off.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// The rule that would have begun an election, as long as it would.
    pub withheld: Option<String>,
}

/// A record that breaks an invariant: a damaged store or a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// A spec of it.
    #[error("spec generation {generation}: {source}")]
    Spec {
        /// Which.
        generation: Gen,
        /// What is wrong with it.
        source: InvalidSpec,
    },
    /// Generations out of order.
    #[error("spec generations are not rising below {0}")]
    Generations(Gen),
    /// A phase that needs a primary has none.
    #[error("phase {0} without a primary")]
    NoPrimary(&'static str),
    /// A spec of an epoch that has not been.
    #[error("spec of epoch {0}, which has not been decided")]
    FutureEpoch(Epoch),
    /// Two lineage entries for one timeline or epoch.
    #[error("timeline {0} stands twice in the lineage")]
    Lineage(TimelineId),
}

impl Record {
    /// The record of a group without nodes.
    pub fn new(formation: FormationId, group: GroupId, settings: Settings) -> Self {
        Self {
            formation,
            group,
            revision: Revision(1),
            ticket: Ticket(0),
            epoch: Epoch(0),
            primary: None,
            specs: Vec::new(),
            confirmed: None,
            next_generation: Gen(1),
            lineage: Lineage::default(),
            highest_timeline: TimelineId(0),
            system_identifier: None,
            phase: Phase::Forming,
            nodes: BTreeMap::new(),
            next_node: NodeId(1),
            settings,
            postgres: PostgresSettings::default(),
            operation: None,
            finished: Vec::new(),
            next_operation: 1,
            next_event: 1,
            quarantined: false,
            dropped: BTreeMap::new(),
            paused: None,
        }
    }

    /// The record of a group whose record was lost: in quarantine until its keepers have been heard.
    pub fn lost(formation: FormationId, group: GroupId, settings: Settings) -> Self {
        Self { quarantined: true, ..Self::new(formation, group, settings) }
    }

    /// Why it is in quarantine.
    pub fn quarantine(&self) -> Option<&'static str> {
        let why = if self.epoch == Epoch(0) {
            "this monitor has no record of the group"
        } else {
            "this monitor's database is an old copy: keepers know later decisions"
        };
        self.quarantined.then_some(why)
    }

    /// What must hold on both sides of the database.
    pub fn validate(&self) -> Result<(), InvalidRecord> {
        let mut last = None;
        for spec in &self.specs {
            spec.validate()
                .map_err(|source| InvalidRecord::Spec { generation: spec.generation, source })?;
            if last.is_some_and(|last| last >= spec.generation)
                || spec.generation >= self.next_generation
            {
                return Err(InvalidRecord::Generations(self.next_generation));
            }
            if spec.epoch > self.epoch {
                return Err(InvalidRecord::FutureEpoch(spec.epoch));
            }
            last = Some(spec.generation);
        }
        match self.phase {
            Phase::Serving | Phase::Promoting if self.primary.is_none() => {
                return Err(InvalidRecord::NoPrimary(self.phase.name()));
            }
            Phase::Forming
            | Phase::Serving
            | Phase::Promoting
            | Phase::Electing(_)
            | Phase::Forwarding { .. } => {}
        }
        let mut timelines = BTreeSet::new();
        for entry in &self.lineage.0 {
            if !timelines.insert(entry.timeline) {
                return Err(InvalidRecord::Lineage(entry.timeline));
            }
        }
        Ok(())
    }

    /// The place of the assignments made from this record.
    pub fn order(&self) -> Order {
        Order {
            ticket: self.ticket,
            generation: self.newest_spec().map_or(Gen(0), |s| s.generation),
        }
    }

    /// The newest spec.
    pub fn newest_spec(&self) -> Option<&Spec> {
        self.specs.last()
    }

    /// Whether the newest spec is known to be in force.
    pub fn is_sync_settled(&self) -> bool {
        self.newest_spec().is_some_and(|spec| self.confirmed == Some(spec.generation))
    }

    /// A node's name; its number where it is gone.
    pub fn name_of(&self, id: NodeId) -> String {
        self.nodes.get(&id).map_or_else(|| format!("node {id}"), |node| node.name.to_string())
    }

    /// The names of nodes, for a sentence.
    pub fn names_of(&self, ids: &BTreeSet<NodeId>) -> String {
        let names: Vec<_> = ids.iter().map(|id| self.name_of(*id)).collect();
        names.join(", ")
    }

    /// A spec with the names that people use instead of `application_name`s.
    pub fn describe_spec(&self, spec: &Spec) -> String {
        if spec.is_asynchronous() {
            return "asynchronous".to_owned();
        }
        format!("ANY {} ({})", spec.required, self.names_of(&spec.standbys))
    }

    /// The primary's name.
    pub fn primary_name(&self) -> Option<NodeName> {
        self.primary.and_then(|id| self.nodes.get(&id)).map(|node| node.name.clone())
    }

    /// The node with this name.
    pub fn node_named(&self, name: &NodeName) -> Option<(NodeId, &Node)> {
        self.nodes.iter().find(|(_, node)| node.name == *name).map(|(id, node)| (*id, node))
    }

    /// The identity that a keeper must show.
    pub fn identity_of(&self, id: NodeId) -> Option<Identity> {
        let secret = self.nodes.get(&id)?.secret.clone();
        Some(Identity { formation: self.formation.clone(), node_id: id, secret })
    }

    /// The lineage entry of the newest epoch.
    pub fn present_timeline(&self) -> Option<&LineageEntry> {
        self.lineage.entry(self.epoch)
    }
}
