//! Who would follow the primary if it died now: every node with its place, in the order of the election
//! itself, and why it stands there.

use crate::Now;
use crate::group::course::Stages;
use crate::group::detector::{Verdict, verdict};
use crate::group::election::successors;
use crate::group::outage;
use crate::group::ranking::{Bar, Merit, Rank, bar, rank};
use crate::group::record::{Node, Phase, Record};
use crate::group::view::View;
use crate::group::whatif::{if_dies, plain_election};
use shared::api::{Ranked, Succession};
use shared::ids::NodeId;
use std::collections::BTreeSet;

/// What would come of the primary's death. `past` are the last changes of the primary; `None` where
/// there is no primary that could die.
pub fn succession(record: &Record, view: &View, past: &[Stages], now: Now) -> Option<Succession> {
    let primary = record.primary.filter(|_| record.phase == Phase::Serving)?;
    let prediction = if_dies(record, view, &BTreeSet::from([primary]), now);
    let outage = outage::estimate(&prediction, past);
    Some(Succession { ranking: ranking(record, view, now), outage, prediction })
}

/// All nodes but the primary, by their places.
fn ranking(record: &Record, view: &View, now: Now) -> Vec<Ranked> {
    let positions = successors(record, view, now);
    let ranked = rank(record, view, &plain_election(), &positions, 0);
    let end = record.primary.and_then(|id| view.report(id)?.postgres.lsn);
    let lag = |id: NodeId| Some(end?.bytes_since(view.report(id)?.postgres.lsn?));
    let row = |id: NodeId, place: Option<usize>, reason: String| {
        let node = record.nodes.get(&id)?.name.clone();
        Some(Ranked { node, place, reason, lag_bytes: lag(id) })
    };
    let placed = ranked.iter().enumerate().filter_map(|(index, (id, own))| {
        let before = index.checked_sub(1).and_then(|index| ranked.get(index));
        let mut reason = match (before, ranked.get(index + 1)) {
            (Some((other, better)), _) => below(&record.name_of(*other), better, own),
            (None, Some((other, next))) => above(&record.name_of(*other), own, next),
            (None, None) => "the only one that may be promoted".to_owned(),
        };
        for remark in remarks(record, view, *id) {
            reason = format!("{reason}; {remark}");
        }
        row(*id, Some(index + 1), reason)
    });
    let has_place: BTreeSet<_> = ranked.iter().map(|(id, _)| *id).collect();
    let others = record
        .nodes
        .iter()
        .filter(|(id, _)| Some(**id) != record.primary && !has_place.contains(id))
        .filter_map(|(id, node)| row(*id, None, why_never(record, view, (*id, node), now)));
    placed.chain(others).collect()
}

/// Why the first one comes first.
fn above(next: &str, own: &Rank, other: &Rank) -> String {
    match own.merit_over(other) {
        Merit::Preferred => "it has been asked for".to_owned(),
        Merit::Remains => format!("{next} is being dropped"),
        Merit::Replaces => format!("{next} is the one to be replaced"),
        Merit::Room => format!("it has room on its disks, {next} has not"),
        Merit::Priority => format!("its candidate priority, {}, is the highest", own.priority),
        Merit::Position => {
            format!("its log goes furthest among those with candidate priority {}", own.priority)
        }
        Merit::Begun => "it is fetching already".to_owned(),
        Merit::Chance => format!("as good as {next}: chance decides"),
    }
}

/// Why another one comes before this one.
fn below(better: &str, other: &Rank, own: &Rank) -> String {
    match other.merit_over(own) {
        Merit::Preferred => format!("{better} has been asked for"),
        Merit::Remains => "it is being dropped: only where nobody else can".to_owned(),
        Merit::Replaces => "it is the one to be replaced".to_owned(),
        Merit::Room => "its disk is full".to_owned(),
        Merit::Priority => {
            let (own, other) = (own.priority, other.priority);
            format!("its candidate priority, {own}, is below {better}'s, {other}")
        }
        Merit::Position if own.position.epoch < other.position.epoch => {
            format!("its log ends in epoch {}, before {better}'s", own.position.epoch)
        }
        Merit::Position => {
            let bytes = other.position.lsn.bytes_since(own.position.lsn);
            format!("its log ends {bytes} bytes before {better}'s")
        }
        Merit::Begun => format!("{better} is fetching already"),
        Merit::Chance => format!("as good as {better}: chance decides"),
    }
}

/// What does not change its place and should be known.
fn remarks(record: &Record, view: &View, id: NodeId) -> Vec<&'static str> {
    let quorum = record.nodes.get(&id).is_some_and(|node| node.replication_quorum);
    let streams = view.report(id).is_some_and(|report| report.streaming);
    let mut remarks = Vec::new();
    if !streams {
        remarks.push("it does not stream now");
    }
    if !quorum {
        remarks.push("commits never wait for it: it would fetch what it lacks first");
    }
    remarks
}

fn why_never(record: &Record, view: &View, (id, node): (NodeId, &Node), now: Now) -> String {
    if let Verdict::Dead(why) = verdict(view, id, &record.settings.timers(), now.mono) {
        return format!("never: it is dead ({why})");
    }
    match bar(record, view, id, None) {
        Some(Bar::Unheard) => "never: it has not been heard".to_owned(),
        Some(Bar::NoData) => "never: it has no complete copy of the data".to_owned(),
        Some(Bar::Strayed) => {
            "never: somebody has promoted it by hand; `pgtandem accept timeline` takes it all the same"
                .to_owned()
        }
        Some(Bar::CannotRun(why)) => format!("never: it cannot run Postgres ({why})"),
        Some(Bar::Leaving) => "never: its keeper has been asked to stop".to_owned(),
        Some(Bar::Maintenance) => "never: it is in maintenance".to_owned(),
        Some(Bar::Priority) if node.dropping => "never: it is being dropped".to_owned(),
        Some(Bar::Priority) => {
            "never: its candidate priority is 0; `pgtandem promote` takes it all the same"
                .to_owned()
        }
        Some(Bar::Vetoed(why)) => format!("not now: its pre_promote hook refuses ({why})"),
        None => "never: it has not said where on the group's history its log ends".to_owned(),
    }
}
