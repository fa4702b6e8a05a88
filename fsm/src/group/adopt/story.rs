//! What the keepers know, put together: one story, or what contradicts what.

use crate::group::record::Record;
use crate::group::view::View;
use shared::goal::{Assignment, Goal, Member};
use shared::history::{Lineage, LineageEntry};
use shared::ids::{Epoch, Gen, NodeId, SystemIdentifier, Ticket, TimelineId};
use shared::report::{Data, Offer, Report};
use shared::spec::Spec;
use std::collections::{BTreeMap, BTreeSet};

/// Something that is missing for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// One word for programs.
    pub code: &'static str,
    /// The nodes concerned.
    pub nodes: BTreeSet<NodeId>,
    /// A sentence for people.
    pub text: String,
}

/// A node that has offered.
#[derive(Debug)]
pub(super) struct Voice<'a> {
    pub(super) id: NodeId,
    pub(super) report: &'a Report,
    pub(super) offer: &'a Offer,
}

impl Voice<'_> {
    /// The spec under which it acknowledges, by its own word: it has accepted none after it.
    pub(super) fn spec_in_force(&self) -> Option<&Spec> {
        let spec = self.offer.assignment.goal.spec()?;
        let in_force = self.report.in_force?;
        (in_force.epoch == spec.epoch && in_force.generation == spec.generation).then_some(spec)
    }

    /// Whom it takes for the primary of its epoch.
    fn chooses(&self) -> Option<NodeId> {
        self.offer.assignment.goal.primary_for(self.id)
    }
}

/// What all of them know.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) record: &'a Record,
    pub(super) voices: BTreeMap<NodeId, Voice<'a>>,
    /// The newest epoch that anybody has accepted, or the record has decided.
    pub(super) epoch: Epoch,
    /// The newest assignment that anybody has accepted.
    pub(super) newest: &'a Assignment,
    /// All members; those that have only been heard of with what the others know of them.
    pub(super) members: BTreeMap<NodeId, Option<&'a Member>>,
    pub(super) lineage: Lineage,
    pub(super) system_identifier: Option<SystemIdentifier>,
    /// Keepers that report and have never accepted anything.
    pub(super) stateless: BTreeSet<NodeId>,
    /// Nodes that the lost monitor had dropped.
    pub(super) gone: BTreeSet<NodeId>,
}

impl<'a> Story<'a> {
    /// Puts together what has been heard.
    pub(super) fn hear(record: &'a Record, view: &'a View) -> Result<Self, Vec<Missing>> {
        let mut voices: BTreeMap<_, _> =
            record.nodes.keys().filter_map(|id| Some((*id, voice(view, *id)?))).collect();
        let newest = voices.values().map(|voice| &voice.offer.assignment);
        let Some(newest) = newest.max_by_key(|told| (told.epoch, told.order)) else {
            return Err(vec![nobody(record)]);
        };
        let gone = gone(record, &voices, newest);
        voices.retain(|id, _| !gone.contains(id));
        let stateless = |id: &NodeId| view.report(*id).is_some_and(|r| r.accepted.is_none());
        let mut story = Self {
            record,
            epoch: newest.epoch.max(record.epoch),
            newest,
            members: members(record, &voices, newest, &gone),
            lineage: newest.lineage.clone(),
            system_identifier: None,
            stateless: record.nodes.keys().copied().filter(stateless).collect(),
            voices,
            gone,
        };
        let mut contradictions = story.join_lineages();
        contradictions.extend(story.join_systems());
        contradictions.extend(story.two_primaries());
        if contradictions.is_empty() { Ok(story) } else { Err(contradictions) }
    }

    /// The members that have not been heard.
    pub(super) fn absent(&self) -> BTreeSet<NodeId> {
        let heard = |id: &NodeId| self.voices.contains_key(id) || self.stateless.contains(id);
        self.members.keys().copied().filter(|id| !heard(id)).collect()
    }

    /// The primary of the newest epoch: promoted, not sealed, and with its data. Whether it runs makes no
    /// difference to what it holds. The first of a group may still be on its way to be one: nobody else
    /// holds anything.
    pub(super) fn primary(&self) -> Option<&Voice<'a>> {
        let first = self.lineage.0.first().map(|entry| entry.epoch) == Some(self.epoch);
        self.voices.values().find(|voice| {
            let Offer { assignment, sealed, promoted } = voice.offer;
            let serves = promoted.as_ref().is_some_and(|promoted| promoted.epoch == self.epoch)
                && matches!(voice.report.data, Data::Present { .. });
            matches!(assignment.goal, Goal::Primary { .. })
                && assignment.epoch == self.epoch
                && sealed.is_none()
                && (serves || first && promoted.is_none())
        })
    }

    /// The node that was elected in the newest epoch, by anybody's word.
    pub(super) fn chosen(&self) -> Option<NodeId> {
        self.claims().into_iter().next().filter(|id| self.members.contains_key(id))
    }

    fn claims(&self) -> BTreeSet<NodeId> {
        let present = |voice: &&Voice<'_>| voice.offer.assignment.epoch == self.epoch;
        let own = |voice: &Voice<'_>| {
            let promoted = voice.offer.promoted.as_ref()?;
            (promoted.epoch == self.epoch).then_some(voice.id)
        };
        let voices = self.voices.values().filter(present);
        voices.flat_map(|voice| [voice.chooses(), own(voice)]).flatten().collect()
    }

    fn two_primaries(&self) -> Option<Missing> {
        let claims = self.claims();
        (claims.len() > 1).then(|| {
            let text = format!(
                "{} are each said to be the primary of epoch {}: they cannot be of one group",
                self.names_of(&claims),
                self.epoch
            );
            Missing { code: "contradiction", nodes: claims, text }
        })
    }

    /// One cluster, by what is on the disks and by what was told.
    fn join_systems(&mut self) -> Option<Missing> {
        let mut systems: BTreeMap<SystemIdentifier, BTreeSet<NodeId>> = BTreeMap::new();
        for voice in self.voices.values() {
            let on_disk = match voice.report.data {
                Data::Present { system_identifier } => Some(system_identifier),
                Data::Empty | Data::Rebuilding | Data::Unusable => None,
            };
            for system in [on_disk, voice.offer.assignment.system_identifier].into_iter().flatten()
            {
                systems.entry(system).or_default().insert(voice.id);
            }
        }
        if let Some(own) = self.record.system_identifier {
            systems.entry(own).or_default();
        }
        self.system_identifier = systems.keys().next().copied();
        if systems.len() < 2 {
            return None;
        }
        let said: Vec<_> = systems
            .iter()
            .map(|(system, nodes)| match self.names_of(nodes) {
                names if names.is_empty() => format!("{system} (this monitor's record)"),
                names => format!("{system} ({names})"),
            })
            .collect();
        let text =
            format!("there is more than one cluster: system identifiers {}", said.join(", "));
        Some(Missing {
            code: "contradiction",
            nodes: systems.into_values().flatten().collect(),
            text,
        })
    }

    /// One lineage: what one of them does not know yet, another may.
    fn join_lineages(&mut self) -> Vec<Missing> {
        let mut wrong = Vec::new();
        let told = self.voices.values().map(|v| (Some(v.id), &v.offer.assignment.lineage));
        let told: Vec<_> = told.chain([(None, &self.record.lineage)]).collect();
        for (id, entry) in told.into_iter().flat_map(|(id, l)| l.0.iter().map(move |e| (id, e))) {
            let known = self.lineage.0.iter_mut().find(|known| known.epoch == entry.epoch);
            if !known.is_some_and(|known| agree(known, entry)) {
                let who = id.map_or_else(|| "this monitor".to_owned(), |id| self.name_of(id));
                let text = format!("{who} knows another epoch {} than the others", entry.epoch);
                wrong.push(Missing {
                    code: "contradiction",
                    nodes: id.into_iter().collect(),
                    text,
                });
            }
        }
        wrong
    }

    /// Who has not been heard.
    pub(super) fn unheard(&self) -> Missing {
        let absent = self.absent();
        let text = format!(
            "{} must be heard: they may know of a later primary. One that is lost for good can be given up, with what only it has: `pgtandem drop node NAME --force`",
            self.names_of(&absent)
        );
        Missing { code: "not_heard", nodes: absent, text }
    }

    /// Who may still come.
    pub(super) fn expected(&self) -> Missing {
        let absent = self.absent();
        let text = format!("{} are given a moment to come as well", self.names_of(&absent));
        Missing { code: "not_heard_yet", nodes: absent, text }
    }

    pub(super) fn name_of(&self, id: NodeId) -> String {
        match (self.record.nodes.get(&id), self.members.get(&id)) {
            (Some(node), _) => node.name.to_string(),
            (None, Some(Some(member))) => member.name.to_string(),
            (None, Some(None) | None) => format!("node {id}"),
        }
    }

    fn names_of(&self, ids: &BTreeSet<NodeId>) -> String {
        let names: Vec<_> = ids.iter().map(|id| self.name_of(*id)).collect();
        names.join(", ")
    }

    pub(super) fn highest_ticket(&self) -> Ticket {
        let accepted = self.voices.values().map(|voice| voice.offer.assignment.order.ticket);
        accepted.fold(self.record.ticket, Ticket::max)
    }

    pub(super) fn highest_generation(&self) -> Gen {
        let accepted = self.voices.values().map(|voice| voice.offer.assignment.order.generation);
        let own = Gen(self.record.next_generation.0.saturating_sub(1));
        accepted.fold(own, Gen::max)
    }

    pub(super) fn highest_timeline(&self) -> TimelineId {
        let reserved = self.lineage.0.iter().map(|entry| entry.timeline);
        let seen = self.voices.values().filter_map(|voice| voice.report.postgres.timeline);
        reserved.chain(seen).fold(self.record.highest_timeline, TimelineId::max)
    }

    /// The number of the newest operation that gave a keeper an order.
    pub(super) fn highest_order(&self) -> u64 {
        let orders = self.voices.values().flat_map(|voice| {
            let (due, done) = (voice.offer.assignment.orders, voice.report.done);
            [due.restart, due.copy, done.restart, done.copy]
        });
        orders.max().unwrap_or_default()
    }
}

/// What a node has offered, if its newest report is of the same assignment.
fn voice(view: &View, id: NodeId) -> Option<Voice<'_>> {
    let (report, offer) = view.offer(id)?;
    let accepted = report.accepted?;
    let same = accepted.order == offer.assignment.order && accepted.epoch == offer.assignment.epoch;
    same.then_some(Voice { id, report, offer })
}

/// Those that the record names, and those that the newest assignments do: one of several of the same
/// place may be older than a join. Whom an operator has given up is none.
fn members<'a>(
    record: &Record,
    voices: &BTreeMap<NodeId, Voice<'a>>,
    newest: &'a Assignment,
    gone: &BTreeSet<NodeId>,
) -> BTreeMap<NodeId, Option<&'a Member>> {
    let mut members: BTreeMap<_, _> = record.nodes.keys().map(|id| (*id, None)).collect();
    for member in named(voices, newest) {
        members.insert(member.id, Some(member));
    }
    members.retain(|id, _| !record.dropped.contains_key(id) && !gone.contains(id));
    members
}

/// The members by the newest assignments.
fn named<'a>(
    voices: &BTreeMap<NodeId, Voice<'a>>,
    newest: &'a Assignment,
) -> impl Iterator<Item = &'a Member> {
    let place = (newest.epoch, newest.order);
    let same = voices.values().map(|voice| &voice.offer.assignment);
    let same = same.filter(move |told| (told.epoch, told.order) == place);
    same.chain([newest]).flat_map(|told| &told.members)
}

/// Nodes that come to a monitor without any record and that the newest assignments do not name, although
/// they have accepted older ones: members leave by being dropped only.
fn gone<'a>(
    record: &Record,
    voices: &BTreeMap<NodeId, Voice<'a>>,
    newest: &'a Assignment,
) -> BTreeSet<NodeId> {
    if record.epoch != Epoch(0) {
        return BTreeSet::new();
    }
    let older = |voice: &&Voice<'_>| {
        let told = &voice.offer.assignment;
        (told.epoch, told.order) < (newest.epoch, newest.order)
    };
    let named: BTreeSet<_> = named(voices, newest).map(|member| member.id).collect();
    let older = voices.values().filter(older).map(|voice| voice.id);
    older.filter(|id| !named.contains(id)).collect()
}

/// Takes in what `entry` says more; whether they can be of one epoch. The timeline of the first is known
/// only once its primary has been seen. A node whose own timeline was accepted is not told that it was.
fn agree(known: &mut LineageEntry, entry: &LineageEntry) -> bool {
    known.accepted = known.accepted.or(entry.accepted);
    match (known.start, entry.start) {
        (None, Some(_)) => {
            *known = LineageEntry { accepted: known.accepted, ..*entry };
            true
        }
        (Some(_), None) => true,
        (Some(one), Some(other)) => one == other && known.timeline == entry.timeline,
        (None, None) => known.timeline == entry.timeline,
    }
}

/// The first epoch of which a late member knows something else than the record.
pub fn contradicts(record: &Record, told: &Assignment) -> Option<Epoch> {
    let differs = |entry: &LineageEntry| {
        let known = record.lineage.entry(entry.epoch);
        !known.is_some_and(|known| agree(&mut known.clone(), entry))
    };
    let strange = told.lineage.0.iter().find(|entry| differs(entry)).map(|entry| entry.epoch);
    let system = (told.system_identifier.is_some()
        && told.system_identifier != record.system_identifier)
        .then_some(told.epoch);
    strange.or(system)
}

fn nobody(record: &Record) -> Missing {
    let nodes: BTreeSet<_> = record.nodes.keys().copied().collect();
    let text = if nodes.is_empty() {
        "no keeper has come yet: each comes by itself where the monitor's address is the same, else by `pgtandem-keeper attach`".to_owned()
    } else {
        format!("{} have not said yet what they know", record.names_of(&nodes))
    };
    Missing { code: "not_heard", nodes, text }
}
