//! What the monitor sees of the nodes: volatile, lost with the process, never a reason for anything
//! that must be durable.

use super::course::Course;
use crate::Millis;
use serde::{Deserialize, Serialize};
use shared::ids::NodeId;
use shared::lsn::Position;
use shared::pgsettings::Catalogue;
use shared::report::{Lease, Offer, Replica, Report};
use std::collections::BTreeMap;

/// What is seen of all nodes at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// When this process began to watch, or woke after it was frozen.
    pub watching_since: Millis,
    /// When the group's phase was entered, on this process's clock.
    pub phase_since: Millis,
    /// When the last lease that any primary may hold ends; a whole lease after the start at least.
    pub leases_end: Millis,
    /// A primary was told that it needs no lease.
    pub unlimited_lease: bool,
    /// What is seen of each node.
    pub nodes: BTreeMap<NodeId, Evidence>,
    /// Most nodes have fallen silent: the monitor doubts itself.
    #[serde(default)]
    pub doubting: bool,
    /// How a change of the primary goes.
    #[serde(default)]
    pub course: Course,
    /// Which settings the versions of PostgreSQL that the nodes run have, as their keepers said.
    #[serde(default)]
    pub catalogues: BTreeMap<String, Catalogue>,
}

/// What is seen of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Evidence {
    /// Its newest report.
    pub report: Option<Report>,
    /// What came with it, in quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Box<Offer>>,
    /// When that came.
    pub reported_at: Millis,
    /// Its connection was closed without a new report since.
    pub closed: bool,
    /// What a connection to its keeper's REST interface gave.
    pub keeper: Probe,
    /// What a connection to its Postgres gave.
    pub postgres: Probe,
    /// What its peers see of it.
    pub peers: BTreeMap<NodeId, Probe>,
    /// As a standby: since when the primary's reports have not shown it streaming.
    pub absent_since: Option<Millis>,
    /// Since when its own reports have said that it streams.
    #[serde(default)]
    pub streaming_since: Option<Millis>,
    /// Since when they have said that it does not.
    #[serde(default)]
    pub idle_since: Option<Millis>,
}

impl Evidence {
    /// Follows whether it streams, by its newest report.
    pub(crate) fn note_stream(&mut self, now: Millis) {
        if self.report.as_ref().is_some_and(|report| report.streaming) {
            self.streaming_since.get_or_insert(now);
            self.idle_since = None;
        } else {
            self.idle_since.get_or_insert(now);
            self.streaming_since = None;
        }
    }
}

/// The result of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// Not tried.
    #[default]
    Unknown,
    /// It answered.
    Answered(Millis),
    /// The host answers, the process is not there.
    Refused(Millis),
    /// Nothing came back in time.
    Silent(Millis),
}

impl Probe {
    fn at(self) -> Option<Millis> {
        match self {
            Self::Unknown => None,
            Self::Answered(at) | Self::Refused(at) | Self::Silent(at) => Some(at),
        }
    }

    /// This result if it is no older than `since`.
    #[must_use]
    pub fn newer_than(self, since: Millis) -> Self {
        if self.at().is_some_and(|at| at >= since) { self } else { Self::Unknown }
    }
}

impl View {
    /// The view of a monitor that has just started.
    pub fn starting(now: Millis, lease_ms: u64) -> Self {
        Self {
            watching_since: now,
            phase_since: now,
            // A former process may have granted one up to its last instant.
            leases_end: now.plus(lease_ms),
            unlimited_lease: false,
            nodes: BTreeMap::new(),
            doubting: false,
            course: Course::default(),
            catalogues: BTreeMap::new(),
        }
    }

    /// The monitor was frozen: what it saw before says nothing about the time in between.
    pub fn woke(&mut self, now: Millis) {
        self.watching_since = now;
    }

    /// The newest report of a node.
    pub fn report(&self, id: NodeId) -> Option<&Report> {
        self.nodes.get(&id)?.report.as_ref()
    }

    /// What a node has offered, with the report that it came with.
    pub fn offer(&self, id: NodeId) -> Option<(&Report, &Offer)> {
        let evidence = self.nodes.get(&id)?;
        Some((evidence.report.as_ref()?, evidence.offer.as_deref()?))
    }

    /// Takes in a report; `false` if it is older than what is known.
    pub fn take_report(&mut self, id: NodeId, mut report: Report, now: Millis) -> bool {
        let evidence = self.nodes.entry(id).or_default();
        let late = evidence
            .report
            .as_ref()
            .is_some_and(|last| last.keeper == report.keeper && last.seq >= report.seq);
        if late {
            return false;
        }
        evidence.reported_at = now;
        evidence.closed = false;
        evidence.offer = report.offer.take();
        let catalogue = report.catalogue.take();
        evidence.report = Some(report);
        evidence.note_stream(now);
        if let Some(catalogue) = catalogue {
            self.take_catalogue(*catalogue);
        }
        true
    }

    /// Kept as long as a node runs this version.
    fn take_catalogue(&mut self, catalogue: Catalogue) {
        self.catalogues.insert(catalogue.version.clone(), catalogue);
        let reports = self.nodes.values().filter_map(|evidence| evidence.report.as_ref());
        let run: Vec<_> = reports.filter_map(|report| report.postgres.version.as_ref()).collect();
        self.catalogues.retain(|version, _| run.contains(&version));
    }

    /// The keeper of a node has started, perhaps elsewhere: it lives, and what else was seen of the node
    /// before, by its peers too, says nothing any more.
    pub fn note_join(&mut self, id: NodeId, now: Millis) {
        let Some(evidence) = self.nodes.get_mut(&id) else { return };
        (evidence.keeper, evidence.postgres) = (Probe::Answered(now), Probe::Unknown);
        evidence.peers.clear();
    }

    /// Whether it is not known which settings the server has that this report is about.
    pub fn wants_catalogue(&self, report: &Report) -> bool {
        let version = report.postgres.version.as_ref();
        version.is_some_and(|version| !self.catalogues.contains_key(version))
    }

    /// Follows which standbys the primary shows as streaming.
    pub fn track_replicas(&mut self, primary: NodeId, members: &[NodeId], now: Millis) {
        let streaming: Vec<_> = self
            .report(primary)
            .map(|report| {
                report.replicas.iter().filter(|r| is_streaming(r)).map(|r| r.node).collect()
            })
            .unwrap_or_default();
        for id in members {
            let evidence = self.nodes.entry(*id).or_default();
            if streaming.contains(id) {
                evidence.absent_since = None;
            } else {
                evidence.absent_since.get_or_insert(now);
            }
        }
    }

    /// Remembers what was granted: nobody is promoted with loss before it has ended (rule 12). The
    /// clocks of the two hosts may drift apart by a tenth.
    pub fn note_lease(&mut self, lease: Option<Lease>, now: Millis) {
        match lease {
            Some(Lease::For { ms }) => {
                self.leases_end = self.leases_end.max(now.plus(ms.saturating_add(ms / 10)));
                self.unlimited_lease = false;
            }
            Some(Lease::Unlimited) => self.unlimited_lease = true,
            None => {}
        }
    }

    /// The position at which a node is sealed under this ticket.
    pub fn sealed_position(&self, id: NodeId, ticket: shared::ids::Ticket) -> Option<Position> {
        let sealed = self.report(id)?.sealed?;
        if sealed.ticket == ticket { sealed.position } else { None }
    }
}

/// Whether a row of pg_stat_replication is one that acknowledges.
pub fn is_streaming(replica: &Replica) -> bool {
    replica.state == "streaming"
}
