//! What should hold of a group and of each node, as rows in the order in which a person would look: the
//! first that does not hold is the one to be told.

use crate::Now;
use crate::group::adopt::contradicts;
use crate::group::cascade::held_back;
use crate::group::detector::{Verdict, verdict};
use crate::group::election::could_replace_primary;
use crate::group::ranking::lacks_room;
use crate::group::record::{Node, Phase, Record};
use crate::group::sync::{replica, streams};
use crate::group::view::View;
use shared::api::Wanting;
use shared::ids::NodeId;
use shared::report::{Data, Report};

/// Further behind than this, a standby is not waited for (`sync`).
const FAR_BEHIND: u64 = 16 * 1024 * 1024;

/// All that a check looks at.
struct Seen<'a> {
    record: &'a Record,
    view: &'a View,
    now: Now,
}

/// A node, and the newest that it has said.
struct Subject<'a> {
    id: NodeId,
    node: &'a Node,
    report: &'a Report,
}

/// Something that should hold of the group.
type GroupCheck = (&'static str, fn(&Seen<'_>) -> Option<String>);
/// Something that should hold of a node that has been heard.
type NodeCheck = (&'static str, fn(&Seen<'_>, &Subject<'_>) -> Option<String>);

const GROUP: &[GroupCheck] = &[
    ("record-is-current", old_record),
    ("has-primary", no_primary),
    ("primary-lives", dead_primary),
    ("sync-set-confirmed", unsettled),
    ("enough-standbys", too_few_standbys),
    ("commits-are-elsewhere", asynchronous),
    ("primary-can-be-replaced", irreplaceable),
];

const NODE: &[NodeCheck] = &[
    ("runs-postgres", cannot_run),
    ("has-data", no_data),
    ("not-in-maintenance", in_maintenance),
    ("stays", goes),
    ("postgres-is-up", down),
    ("on-the-history", diverged),
    ("streams", does_not_stream),
    ("close-behind", far_behind),
    ("has-room", full),
    ("streams-from-its-wish", not_where_wished),
    ("may-be-waited-for", no_quorum),
    ("is-waited-for", not_in_sync_set),
    ("may-be-promoted", no_candidate),
];

/// What is wanting of the group.
pub(super) fn of_group(record: &Record, view: &View, now: Now) -> Option<Wanting> {
    let seen = Seen { record, view, now };
    let found = GROUP.iter().find_map(|(rule, fails)| Some((*rule, fails(&seen)?)));
    found.map(|(rule, text)| Wanting { node: None, rule: rule.to_owned(), text })
}

/// What is wanting of a node.
pub(super) fn of_node(record: &Record, view: &View, id: NodeId, now: Now) -> Option<Wanting> {
    let seen = Seen { record, view, now };
    let node = record.nodes.get(&id)?;
    let wanting = |rule: &str, text| {
        Some(Wanting { node: Some(node.name.clone()), rule: rule.to_owned(), text })
    };
    if let Some(text) = unheard(&seen, id) {
        return wanting("reports", text);
    }
    let subject = Subject { id, node, report: view.report(id)? };
    let found = NODE.iter().find_map(|(rule, fails)| Some((*rule, fails(&seen, &subject)?)));
    found.and_then(|(rule, text)| wanting(rule, text))
}

fn old_record(seen: &Seen<'_>) -> Option<String> {
    let why = seen.record.quarantine()?;
    Some(format!("quarantine: {why}"))
}

fn no_primary(seen: &Seen<'_>) -> Option<String> {
    let phase = &seen.record.phase;
    (*phase != Phase::Serving)
        .then(|| format!("there is no primary: the group is {}", phase.name()))
}

fn dead_primary(seen: &Seen<'_>) -> Option<String> {
    let id = seen.record.primary?;
    let name = seen.record.name_of(id);
    if let Some(why) = seen.view.report(id).and_then(|report| report.failed.as_ref()) {
        return Some(format!("the primary {name} cannot run Postgres: {why}"));
    }
    match verdict(seen.view, id, &seen.record.settings.timers(), seen.now.mono) {
        Verdict::Good => None,
        Verdict::Unknown | Verdict::Suspect => Some(format!("the primary {name} does not report")),
        Verdict::Dead(why) => Some(format!("the primary {name} is dead: {why}")),
    }
}

fn unsettled(seen: &Seen<'_>) -> Option<String> {
    let newest = seen.record.newest_spec().filter(|_| !seen.record.is_sync_settled())?;
    let spec = seen.record.describe_spec(newest);
    Some(format!("a change of the sync set to {spec} has not been confirmed by the primary yet"))
}

fn too_few_standbys(seen: &Seen<'_>) -> Option<String> {
    let spec = seen.record.newest_spec()?;
    let streams = |id: &&NodeId| replica(seen.record, seen.view, **id).is_some();
    let there = spec.standbys.iter().filter(streams).count();
    let text = format!(
        "commits wait for {} of {}, and {there} of them stream",
        spec.required,
        seen.record.names_of(&spec.standbys)
    );
    (there < spec.required).then_some(text)
}

fn asynchronous(seen: &Seen<'_>) -> Option<String> {
    let nobody = seen.record.newest_spec().is_some_and(shared::spec::Spec::is_asynchronous);
    let primary = seen.record.names_of(&seen.record.primary.into_iter().collect());
    let text = if seen.record.nodes.len() == 1 {
        format!("{primary} is the only node: what it has is nowhere else")
    } else {
        format!(
            "commits wait for no standby: what {primary} acknowledges may be nowhere else, and nobody is promoted by itself without it"
        )
    };
    nobody.then_some(text)
}

fn irreplaceable(seen: &Seen<'_>) -> Option<String> {
    let text = "if the primary died now, nobody could be promoted by itself";
    let could = could_replace_primary(seen.record, seen.view, seen.now);
    (!could).then(|| text.to_owned())
}

fn unheard(seen: &Seen<'_>, id: NodeId) -> Option<String> {
    let name = seen.record.name_of(id);
    let absent = seen.record.nodes.get(&id).is_some_and(|node| node.absent);
    if let Some((_, offer)) = seen.view.offer(id).filter(|_| absent)
        && let Some(epoch) = contradicts(seen.record, &offer.assignment)
    {
        return Some(format!(
            "{name} knows another epoch {epoch} than this group and gets no orders: drop it with --force, remove its data and state directories, and it joins anew"
        ));
    }
    match verdict(seen.view, id, &seen.record.settings.timers(), seen.now.mono) {
        Verdict::Good => None,
        Verdict::Unknown => Some(format!("{name} has not been heard since the monitor started")),
        Verdict::Suspect => Some(format!("{name} does not report, but something of it answers")),
        Verdict::Dead(why) => Some(format!("{name} is dead: {why}")),
    }
}

fn cannot_run(_: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let failed = subject.report.failed.as_ref()?;
    Some(format!("{} cannot run Postgres: {failed}", subject.node.name))
}

fn no_data(_: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let what = match subject.report.data {
        Data::Present { .. } => return None,
        Data::Empty => "has no data yet",
        Data::Rebuilding => "is being copied, or its copy was interrupted",
        Data::Unusable => "has a data directory that cannot be used",
    };
    Some(format!("{} {what}", subject.node.name))
}

fn in_maintenance(_: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let name = &subject.node.name;
    subject.node.maintenance.then(|| {
        format!("{name} is in maintenance, or on its way there; `pgtandem maintenance off {name}`")
    })
}

fn goes(_: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let name = &subject.node.name;
    if subject.node.dropping {
        Some(format!("{name} is being dropped"))
    } else {
        subject.report.leaving.then(|| format!("the keeper of {name} has been asked to stop"))
    }
}

fn down(_: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let text = format!("Postgres does not run on {}", subject.node.name);
    (!subject.report.postgres.running).then_some(text)
}

fn diverged(seen: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let timeline = subject.report.postgres.timeline?;
    let ours = seen.record.lineage.epoch_of(timeline).is_some();
    let text = format!(
        "{} is on timeline {timeline}, which is not the group's; `pgtandem timelines` says more",
        subject.node.name
    );
    (!ours).then_some(text)
}

/// A node that should stream from a primary that serves.
fn follows(seen: &Seen<'_>, subject: &Subject<'_>) -> bool {
    seen.record.phase == Phase::Serving && seen.record.primary != Some(subject.id)
}

fn does_not_stream(seen: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    if !follows(seen, subject) || streams(seen.record, seen.view, subject.id) {
        return None;
    }
    let upstream = subject.node.cascade.upstream.map(|id| seen.record.name_of(id));
    let upstream = upstream.unwrap_or_else(|| "the primary".to_owned());
    let step = subject.report.step.as_ref();
    let step = step.map(|step| format!(" ({})", step.name)).unwrap_or_default();
    Some(format!("{} does not stream from {upstream}{step}", subject.node.name))
}

fn far_behind(seen: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let end = seen.view.report(seen.record.primary?)?.postgres.lsn?;
    let lag = end.bytes_since(subject.report.postgres.lsn?);
    (lag > FAR_BEHIND && follows(seen, subject))
        .then(|| format!("{} is {lag} bytes behind the primary", subject.node.name))
}

fn full(seen: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let text = format!("a disk of {} is full", subject.node.name);
    lacks_room(seen.view, subject.id).then_some(text)
}

/// It streams from the primary, and shall not.
fn not_where_wished(seen: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let Seen { record, view, now } = seen;
    let comes = !record.is_direct_below(record.primary, subject.id)
        && follows(seen, subject)
        && subject.node.cascade.upstream.is_none();
    let wish = subject.node.cascade.wish.filter(|_| comes)?;
    let (own, name) = (&subject.node.name, record.name_of(wish));
    let why = held_back(record, view, (subject.id, wish), now.mono);
    let why = why.unwrap_or_else(|| "both have to stream for a while first".to_owned());
    Some(format!("{own} streams from the primary until it can replicate from {name}: {why}"))
}

fn no_quorum(seen: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    if let Some(upstream) = subject.node.cascade.upstream {
        return Some(format!(
            "commits never wait for {}: it replicates from {}",
            subject.node.name,
            seen.record.name_of(upstream)
        ));
    }
    let text =
        format!("commits never wait for {}: its replication quorum is false", subject.node.name);
    (!subject.node.replication_quorum).then_some(text)
}

fn not_in_sync_set(seen: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let member = seen.record.is_sync_member(subject.id);
    let text = format!("{} is not in the sync set yet", subject.node.name);
    (follows(seen, subject) && !member).then_some(text)
}

fn no_candidate(_: &Seen<'_>, subject: &Subject<'_>) -> Option<String> {
    let text =
        format!("{} is never promoted by itself: its candidate priority is 0", subject.node.name);
    (subject.node.candidate_priority == 0).then_some(text)
}
