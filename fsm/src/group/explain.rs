//! Answers to "why?": the facts, and the first thing that stands in the way. Who would follow the
//! primary is in `succession`; what would happen, in `whatif`.

mod checks;
mod succession;

pub use succession::succession;

use super::adopt::{Missing, adopt};
use super::detector::{Verdict, verdict};
use super::election::{self, Choice, Waiting, choose, could_replace_primary};
use super::ranking;
use super::record::{Phase, Record};
use super::status::is_writable;
use super::sync::replica;
use super::view::View;
use crate::Now;
use shared::api::{Blocker, Explanation, Wanting};
use shared::ids::{NodeId, NodeName};
use std::collections::{BTreeMap, BTreeSet};

/// Explains a group, or a node of it.
pub fn explain(record: &Record, view: &View, node: Option<NodeId>, now: Now) -> Explanation {
    let mut sentences = Vec::new();
    let mut wanting: Vec<Wanting> = Vec::new();
    if let Some(id) = node {
        sentences.extend(explain_node(record, view, id, now));
        wanting.extend(checks::of_node(record, view, id, now));
    } else {
        wanting.extend(checks::of_group(record, view, now));
        if let Some(why) = record.quarantine() {
            sentences.push(format!("the monitor is in quarantine and gives no orders: {why}"));
        }
        sentences.push(explain_group(record));
        sentences.push(explain_sync(record));
        sentences.push(explain_writable(record, view, now));
        for id in record.nodes.keys() {
            sentences.extend(explain_node(record, view, *id, now).into_iter().take(1));
            sentences.extend(explain_failure(record, view, *id));
            wanting.extend(checks::of_node(record, view, *id, now));
        }
    }
    let blocked_by = blockers(record, view, now);
    Explanation { sentences, blocked_by, wanting, succession: None, prediction: None }
}

fn explain_group(record: &Record) -> String {
    let name = record.primary.map(|id| record.name_of(id)).unwrap_or_default();
    match &record.phase {
        Phase::Forming => "the group has no primary yet: it waits for its first node".to_owned(),
        Phase::Serving => format!("{name} is the primary of epoch {}", record.epoch),
        Phase::Electing(election) if election.drain => {
            format!("{name} is stopping so that another node can take over ({})", election.cause)
        }
        Phase::Electing(election) => {
            format!("a new primary is being elected ({}); the last one was {name}", election.cause)
        }
        Phase::Forwarding { candidate, source, target, .. } => format!(
            "{} is to be promoted and first fetches from {} up to {target}",
            record.name_of(*candidate),
            record.name_of(*source)
        ),
        Phase::Promoting => format!("{name} has been elected and is being promoted"),
    }
}

fn explain_sync(record: &Record) -> String {
    let confirmed = record.specs.iter().find(|spec| Some(spec.generation) == record.confirmed);
    let present =
        confirmed.map_or_else(|| "nothing yet".to_owned(), |spec| record.describe_spec(spec));
    match record.newest_spec().filter(|_| !record.is_sync_settled()) {
        Some(pending) => format!(
            "commits wait for {present}; a change to {} is under way",
            record.describe_spec(pending)
        ),
        None => format!("commits wait for {present}"),
    }
}

fn explain_writable(record: &Record, view: &View, now: Now) -> String {
    if is_writable(record, view, now) {
        "writes are being acknowledged".to_owned()
    } else {
        "writes are not being acknowledged".to_owned()
    }
}

fn explain_node(record: &Record, view: &View, id: NodeId, now: Now) -> Vec<String> {
    let Some(node) = record.nodes.get(&id) else { return Vec::new() };
    let name = &node.name;
    let mut sentences = Vec::new();
    let health = match verdict(view, id, &record.settings.timers(), now.mono) {
        Verdict::Good => "reports".to_owned(),
        Verdict::Unknown => "has not been heard since the monitor started".to_owned(),
        Verdict::Suspect => {
            "is suspected: its reports have stopped, but something of it answers".to_owned()
        }
        Verdict::Dead(why) => format!("is dead: {why}"),
    };
    sentences.push(format!("{name} is {} and {health}", node.reported_state));
    sentences.extend(explain_failure(record, view, id));
    if let Some(report) = view.report(id) {
        if let Some(step) = &report.step {
            sentences
                .push(format!("{name} is busy with: {} for {} ms", step.name, step.elapsed_ms));
        }
        sentences.extend(report.warnings.iter().map(|warning| format!("{name}: {warning}")));
    }
    if node.candidate_priority == 0 {
        sentences.push(format!("{name} is never promoted by itself: its candidate priority is 0"));
    }
    if node.maintenance {
        sentences.push(format!("{name} is in maintenance, or on its way there"));
    }
    if !node.replication_quorum {
        sentences.push(format!("{name} is never waited for: its replication quorum is false"));
    }
    sentences
}

fn explain_failure(record: &Record, view: &View, id: NodeId) -> Option<String> {
    let failed = view.report(id)?.failed.as_ref()?;
    Some(format!("{} cannot run Postgres: {failed}", record.name_of(id)))
}

fn names(record: &Record, ids: &BTreeSet<NodeId>) -> Vec<NodeName> {
    ids.iter().filter_map(|id| record.nodes.get(id)).map(|node| node.name.clone()).collect()
}

fn blocker(record: &Record, code: &str, ids: &BTreeSet<NodeId>, text: String) -> Blocker {
    Blocker { code: code.to_owned(), nodes: names(record, ids), text }
}

/// What stands in the way of a primary that takes writes, or of the operation under way.
pub fn blockers(record: &Record, view: &View, now: Now) -> Vec<Blocker> {
    if record.quarantined {
        let missing = adopt(record, view, now).err().unwrap_or_default();
        let told = |missing: Missing| blocker(record, missing.code, &missing.nodes, missing.text);
        return missing.into_iter().map(told).collect();
    }
    match &record.phase {
        Phase::Forming => Vec::new(),
        Phase::Serving => blocked_serving(record, view, now).into_iter().collect(),
        Phase::Electing(election) if election.drain => {
            let primary: BTreeSet<_> = record.primary.into_iter().collect();
            let text = format!("{} has not stopped yet", record.names_of(&primary));
            vec![blocker(record, "draining", &primary, text)]
        }
        Phase::Electing(election) => match choose(record, view, election, now, 0) {
            Choice::Wait(Waiting::Candidate) if vetoed(record, view).is_some() => {
                vetoed(record, view).into_iter().collect()
            }
            Choice::Wait(waiting) => vec![explain_waiting(record, &waiting)],
            Choice::Elect { .. } | Choice::Forward { .. } => Vec::new(),
        },
        Phase::Forwarding { election, candidate, source, target } => {
            let reached = view.sealed_position(*candidate, record.ticket) >= Some(*target);
            if let Choice::Wait(waiting) = choose(record, view, election, now, 0)
                && reached
            {
                return vec![explain_waiting(record, &waiting)];
            }
            let text = format!(
                "{} is fetching from {}",
                record.name_of(*candidate),
                record.name_of(*source)
            );
            vec![blocker(record, "fast_forward", &BTreeSet::from([*candidate]), text)]
        }
        Phase::Promoting => {
            let primary: BTreeSet<_> = record.primary.into_iter().collect();
            if let Some(blocker) = vetoed(record, view) {
                return vec![blocker];
            }
            let text = format!("{} has not confirmed its promotion yet", record.names_of(&primary));
            vec![blocker(record, "promoting", &primary, text)]
        }
    }
}

/// Those whose hooks refuse a promotion, if any do.
fn vetoed(record: &Record, view: &View) -> Option<Blocker> {
    let said = |id: &NodeId| Some((*id, view.report(*id)?.vetoes.clone()?));
    let all: BTreeMap<_, _> = record.nodes.keys().filter_map(said).collect();
    if all.is_empty() {
        return None;
    }
    let whys: Vec<_> =
        all.iter().map(|(id, why)| format!("{}: {why}", record.name_of(*id))).collect();
    let text = format!(
        "no other node may be promoted, and pre_promote hooks refuse it; they are asked again ({})",
        whys.join("; ")
    );
    Some(blocker(record, "vetoed", &all.keys().copied().collect(), text))
}

fn explain_waiting(record: &Record, waiting: &Waiting) -> Blocker {
    match waiting {
        Waiting::Answers(ids) => {
            let text = format!(
                "{} have been asked for their positions and have not answered yet",
                record.names_of(ids)
            );
            blocker(record, "waiting_for_answers", ids, text)
        }
        Waiting::Witnesses(ids) => {
            let text = format!(
                "the nodes that answer may lack acknowledged commits; one of {} has to come back, or `pgtandem failover --allow-data-loss` gives up what only they have",
                record.names_of(ids)
            );
            blocker(record, "not_enough_witnesses", ids, text)
        }
        Waiting::Candidate => {
            let text = "every acknowledged commit is there, but no node that has them all may be promoted: check candidate priorities and maintenance".to_owned();
            blocker(record, "no_candidate", &BTreeSet::new(), text)
        }
        Waiting::Lease => {
            let text = "the old primary may hold its lease for another moment".to_owned();
            blocker(record, "lease", &BTreeSet::new(), text)
        }
        Waiting::Fencing(ids) => {
            let accepted = record.phase.election().and_then(|election| election.timeline);
            let command = accepted.map_or_else(
                || "failover --allow-data-loss".to_owned(),
                |timeline| format!("accept timeline {timeline} --reason TEXT"),
            );
            let text = format!(
                "{} could still acknowledge commits for the old primary; make sure that it is off, then say so with `pgtandem {command} --fenced`",
                if ids.is_empty() { "somebody".to_owned() } else { record.names_of(ids) }
            );
            blocker(record, "old_primary_not_fenced", ids, text)
        }
    }
}

fn blocked_serving(record: &Record, view: &View, now: Now) -> Option<Blocker> {
    let primary = record.primary?;
    let timers = record.settings.timers();
    let dead = verdict(view, primary, &timers, now.mono).is_dead();
    let failed = view.report(primary).is_some_and(|report| report.failed.is_some());
    if dead || failed {
        if could_replace_primary(record, view, now) {
            return None;
        }
        return Some(why_nobody(record, view, primary, now));
    }
    let spec = record.newest_spec()?;
    // A row outlives its peer, which will not confirm a change any more.
    let settled = record.is_sync_settled();
    let is_gone = |id: NodeId| !settled && verdict(view, id, &timers, now.mono).is_dead();
    let is_absent = |id: &NodeId| replica(record, view, *id).is_none() || is_gone(*id);
    let absent: BTreeSet<_> = spec.standbys.iter().copied().filter(is_absent).collect();
    if spec.standbys.len() - absent.len() >= spec.required {
        return None;
    }
    let text = format!(
        "commits wait for {} of {}; not streaming: {}",
        spec.required,
        record.names_of(&spec.standbys),
        record.names_of(&absent)
    );
    Some(blocker(record, "waiting_for_standbys", &absent, text))
}

/// The primary is gone and no election is begun: which nodes are missing for it.
fn why_nobody(record: &Record, view: &View, primary: NodeId, now: Now) -> Blocker {
    let timers = record.settings.timers();
    let alive: BTreeMap<_, _> = record
        .nodes
        .keys()
        .filter(|id| **id != primary && !verdict(view, **id, &timers, now.mono).is_dead())
        .filter_map(|id| Some((*id, view.report(*id)?)))
        .filter(|(_, report)| ranking::has_data(report))
        .map(|(id, report)| {
            let lsn = report.postgres.lsn.unwrap_or_default();
            let epoch = report.postgres.timeline.and_then(|t| record.lineage.epoch_of(t));
            (id, shared::lsn::Position { epoch: epoch.unwrap_or_default(), lsn })
        })
        .collect();
    let missing = election::missing(record, &alive);
    if missing.is_empty() && election::is_short_of_room(record, view, now) {
        let full = |id: &NodeId| ranking::lacks_room(view, *id);
        let nodes: BTreeSet<_> = record.nodes.keys().copied().filter(full).collect();
        let text = format!(
            "{} have too little room on their disks ({}): free some, and the primary goes on by itself",
            record.names_of(&nodes),
            nodes.iter().filter_map(|id| room(record, view, *id)).collect::<Vec<_>>().join(", ")
        );
        return blocker(record, "disk_full", &nodes, text);
    }
    if missing.is_empty() {
        return explain_waiting(record, &Waiting::Candidate);
    }
    explain_waiting(record, &Waiting::Witnesses(missing))
}

/// What is left on the fullest disk of a node.
fn room(record: &Record, view: &View, id: NodeId) -> Option<String> {
    let room = view.report(id)?.room.iter().min_by_key(|room| room.free)?;
    Some(format!("{}: {} in {}", record.name_of(id), room, room.path))
}
