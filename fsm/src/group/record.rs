//! The durable record of a group (docs/safety.md, rule 1) with its phase, nodes and settings, and the
//! decision: a new record together with the events that say why.
//!
//! The record is all that a restarted monitor knows. What is seen of the nodes is in `view`.

mod operation;

pub use operation::{Operation, OperationKind};

use crate::Now;
use serde::{Deserialize, Serialize};
use shared::Timestamp;
use shared::api::{Identity, OperationResult, Outcome};
use shared::event::Event;
use shared::goal::{Cascade, Order, Orders};
use shared::history::{Lineage, LineageEntry};
use shared::ids::{
    Epoch, FormationId, Gen, GroupId, NodeId, NodeName, Revision, SystemIdentifier, Ticket,
    TimelineId,
};
use shared::lsn::{Lsn, Position};
use shared::pgsettings::PostgresSettings;
use shared::settings::Settings;
use shared::spec::{InvalidSpec, Spec};
use shared::state::NodeState;
use std::collections::{BTreeMap, BTreeSet};

/// How many finished operations are remembered for clients that ask late.
const FINISHED_KEPT: usize = 32;

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

/// Where the machine stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// No primary yet.
    Forming,
    /// `Record::primary` is the primary of `Record::epoch`.
    Serving,
    /// The nodes are being sealed under `Record::ticket`.
    Electing(Election),
    /// The chosen candidate fetches what another sealed node has and it lacks.
    Forwarding {
        /// The election it belongs to.
        election: Election,
        /// Who fetches.
        candidate: NodeId,
        /// From whom.
        source: NodeId,
        /// Up to where.
        target: Position,
    },
    /// `Record::primary` has been elected and has not confirmed its promotion.
    Promoting,
}

impl Phase {
    /// The name for people and programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forming => "forming",
            Self::Serving => "serving",
            Self::Electing(_) => "electing",
            Self::Forwarding { .. } => "forwarding",
            Self::Promoting => "promoting",
        }
    }

    /// The election under way.
    pub fn election(&self) -> Option<&Election> {
        match self {
            Self::Electing(election) | Self::Forwarding { election, .. } => Some(election),
            Self::Forming | Self::Serving | Self::Promoting => None,
        }
    }
}

/// An election under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Election {
    /// Why it was begun: the rule.
    pub cause: String,
    /// The node that shall win if it can.
    pub preferred: Option<NodeId>,
    /// It was begun to replace a primary that serves: that one wins only if nobody else can.
    #[serde(default)]
    pub planned: bool,
    /// Candidates that have said that they cannot fetch what they lack.
    #[serde(default)]
    pub cannot_fetch: BTreeSet<NodeId>,
    /// The old primary is stopping by itself; the standbys still follow it.
    pub drain: bool,
    /// The operator accepted that acknowledged commits may be lost.
    pub loss: Option<LossAccepted>,
    /// And that they are, in favour of this timeline, which the preferred node is on.
    #[serde(default)]
    pub timeline: Option<TimelineId>,
}

/// What the operator accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LossAccepted {
    /// The operator stated that the old primary is fenced.
    pub fenced: bool,
}

/// A data node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each named where it is used")]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// The address of its Postgres.
    pub host: String,
    /// The port of its Postgres.
    pub port: u16,
    /// `host:port` of its keeper's REST interface.
    pub rest: String,
    /// Where it stands.
    pub zone: Option<String>,
    /// 0 to 100; 0: never promoted by itself.
    pub candidate_priority: u8,
    /// Whether it may be in the sync set.
    pub replication_quorum: bool,
    /// Its bearer token; empty while its keeper has not come (`absent`).
    pub secret: String,
    /// Known by the word of others only, since the monitor lost its record: what its keeper has accepted
    /// has not been heard yet.
    #[serde(default)]
    pub absent: bool,
    /// The ticket that its admission slot carries (rule 10).
    pub admission: Ticket,
    /// The revision at which it joined, until the primary has heard of it: before that it does not
    /// follow. The primary's HBA rules have to let it in, and a primary that was alone has no lease.
    pub joined: Option<Revision>,
    /// The keeper process that was admitted without state last (rule 2).
    pub stateless_keeper: Option<String>,
    /// Being taken out of the keeper's hands, or taken.
    pub maintenance: bool,
    /// Being dropped.
    pub dropping: bool,
    /// From whom it streams while it is not the primary.
    #[serde(default)]
    pub cascade: Cascade,
    /// What its keeper is to do once, as long as the operation that asks for it is under way.
    #[serde(default)]
    pub orders: Orders,
    /// What its keeper last said.
    pub reported_state: NodeState,
    /// When that last changed.
    pub state_changed_at: Option<Timestamp>,
}

/// A new record and why: the rows of one transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The record after it; its revision is one above the one it was decided on.
    pub record: Record,
    /// What it says about it.
    pub events: Vec<Event>,
}

/// An event before it has its id.
#[derive(Clone, Debug)]
pub struct Note {
    /// See [`Event::kind`].
    pub kind: &'static str,
    /// The rule.
    pub rule: String,
    /// The node that it is about.
    pub node: Option<NodeId>,
    /// What was before.
    pub from: Option<String>,
    /// What is now.
    pub to: Option<String>,
    /// The timeline, where one is concerned.
    pub timeline: Option<TimelineId>,
    /// The location, where one is concerned.
    pub lsn: Option<Lsn>,
    /// A sentence.
    pub reason: String,
    /// The facts.
    pub evidence: serde_json::Value,
}

impl Note {
    /// A note with a sentence and nothing else.
    pub fn new(kind: &'static str, rule: &str, reason: impl Into<String>) -> Self {
        Self {
            kind,
            rule: rule.to_owned(),
            node: None,
            from: None,
            to: None,
            timeline: None,
            lsn: None,
            reason: reason.into(),
            evidence: serde_json::Value::Object(serde_json::Map::new()),
        }
    }

    /// Says which node it is about.
    #[must_use]
    pub fn about(self, node: NodeId) -> Self {
        Self { node: Some(node), ..self }
    }

    /// Says what changed into what.
    #[must_use]
    pub fn change(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        Self { from: Some(from.into()), to: Some(to.into()), ..self }
    }

    /// Adds the facts.
    #[must_use]
    pub fn evidence(self, evidence: serde_json::Value) -> Self {
        Self { evidence, ..self }
    }
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

    /// How many standbys each commit waits for: what is set, else 1 from the third data node on, and
    /// never more than there are nodes that could be waited for.
    pub fn number_sync_standbys(&self) -> usize {
        self.number_sync_standbys_below(self.primary)
    }

    /// The same, were this node the primary. Whoever streams from a standby counts: it comes back where it is
    /// needed, and nothing is demanded less because it is elsewhere.
    pub fn number_sync_standbys_below(&self, primary: Option<NodeId>) -> usize {
        let standbys = self.eligible_standbys_below(primary).count();
        let wanted = match self.settings.number_sync_standbys {
            Some(number) => usize::try_from(number).unwrap_or(usize::MAX),
            None => usize::from(self.nodes.len() >= 3),
        };
        wanted.min(standbys)
    }

    /// The nodes that may be in the sync set of the present primary.
    pub fn quorum_standbys(&self) -> impl Iterator<Item = NodeId> {
        self.quorum_standbys_below(self.primary)
    }

    /// The same, were this node the primary. Whoever streams from a standby is not among them: commits on
    /// the primary wait for its own walsenders only.
    pub fn quorum_standbys_below(&self, primary: Option<NodeId>) -> impl Iterator<Item = NodeId> {
        let upstream = |id| self.nodes.get(&id).and_then(|node| node.cascade.upstream);
        self.eligible_standbys_below(primary).filter(move |id| upstream(*id).is_none())
    }

    /// The nodes that commits could wait for, were this one the primary: now, or as soon as those that stream from
    /// a standby have come to the primary.
    pub(crate) fn eligible_standbys_below(
        &self,
        primary: Option<NodeId>,
    ) -> impl Iterator<Item = NodeId> {
        self.nodes
            .iter()
            .filter(move |(id, node)| {
                Some(**id) != primary
                    && node.replication_quorum
                    && !node.maintenance
                    && !node.dropping
            })
            .map(|(id, _)| *id)
    }

    /// Whether a node is to stream from the primary, were this one the primary: nobody wishes otherwise, or
    /// it wishes for this very node.
    pub fn is_direct_below(&self, primary: Option<NodeId>, id: NodeId) -> bool {
        let wish = self.nodes.get(&id).and_then(|node| node.cascade.wish);
        wish.is_none_or(|wish| Some(wish) == primary || !self.nodes.contains_key(&wish))
    }

    /// The nodes that may be in the sync set of the present primary now and later: without those that go to
    /// another standby as soon as they can.
    pub fn lasting_standbys(&self) -> impl Iterator<Item = NodeId> {
        self.quorum_standbys().filter(|id| self.is_direct_below(self.primary, *id))
    }

    /// Whether a node stands in any spec that may be in force, as one that acknowledges.
    pub fn is_sync_member(&self, id: NodeId) -> bool {
        self.specs.iter().any(|spec| spec.standbys.contains(&id))
    }

    /// The lineage entry of the newest epoch.
    pub fn present_timeline(&self) -> Option<&LineageEntry> {
        self.lineage.entry(self.epoch)
    }

    /// The operation's result as of now.
    pub fn result_of(
        &self,
        operation: &Operation,
        outcome: Outcome,
        reason: &str,
    ) -> OperationResult {
        OperationResult {
            id: operation.id,
            outcome,
            reason: reason.to_owned(),
            old_primary: operation.old_primary.clone(),
            new_primary: self.primary_name(),
            timeline: self.present_timeline().map(|entry| entry.timeline),
            started_at: operation.requested_at,
            finished_at: None,
        }
    }

    /// A finished operation, or the one under way, by id.
    pub fn operation_result(&self, id: u64) -> Option<OperationResult> {
        if let Some(operation) = self.operation.as_ref().filter(|operation| operation.id == id) {
            return Some(self.result_of(operation, Outcome::Accepted, "under way"));
        }
        self.finished.iter().find(|result| result.id == id).cloned()
    }

    /// Whether an operator has asked for something that takes this standby away for a while.
    pub(crate) fn is_to_be_away(&self, id: NodeId) -> bool {
        self.operation.as_ref().is_some_and(|operation| {
            operation.target == Some(id) && operation.kind.is_order() && self.primary != Some(id)
        })
    }

    /// Ends the operation under way, and with it what it ordered.
    pub(crate) fn finish(&mut self, outcome: Outcome, reason: &str, now: Now) {
        if let Some(operation) = self.operation.take() {
            if let Some(node) = operation.target.and_then(|id| self.nodes.get_mut(&id))
                && operation.kind.is_order()
            {
                node.orders = Orders { destroy: node.orders.destroy, ..Orders::default() };
            }
            let mut result = self.result_of(&operation, outcome, reason);
            result.finished_at = Some(now.wall);
            self.finished.push(result);
            if self.finished.len() > FINISHED_KEPT {
                self.finished.remove(0);
            }
        }
    }

    /// Makes the decision that takes `self` to `next`, with the events of `notes`.
    pub(crate) fn decide(&self, mut next: Self, notes: Vec<Note>, now: Now) -> Decision {
        next.revision = self.revision.next();
        let mut events = Vec::with_capacity(notes.len());
        for note in notes {
            let named =
                note.node.and_then(|id| next.nodes.get(&id).or_else(|| self.nodes.get(&id)));
            events.push(Event {
                id: next.next_event,
                at: now.wall,
                formation: next.formation.clone(),
                group: next.group,
                node: named.map(|node| node.name.clone()),
                node_id: note.node,
                epoch: next.epoch,
                kind: note.kind.to_owned(),
                rule: note.rule,
                from: note.from,
                to: note.to,
                timeline: note.timeline,
                lsn: note.lsn,
                reason: note.reason,
                evidence: note.evidence,
            });
            next.next_event += 1;
        }
        Decision { record: next, events }
    }

    /// The first decision of a monitor process: raises the ticket (rule 2), so that nothing said by
    /// an earlier process can be confused with what this one says; an election starts afresh.
    pub fn monitor_started(&self, now: Now) -> Decision {
        let mut next = self.clone();
        next.ticket = next.ticket.next();
        if let Phase::Forwarding { election, .. } = &self.phase {
            next.phase = Phase::Electing(election.clone());
        }
        let note = Note::new("monitor", "monitor-started", "the monitor was started");
        self.decide(
            next,
            vec![note.change(self.ticket.to_string(), self.ticket.next().to_string())],
            now,
        )
    }
}
