//! What became of the group's history, for people: the lineage, with what the events say of each epoch and
//! who is where now. Where the record and the events differ, the record is right.

use super::acceptance::{beyond, claims};
use super::record::{Phase, Record};
use super::view::View;
use crate::Now;
use shared::api::{StrayStatus, TimelineState, TimelineStatus, Timelines};
use shared::event::Event;
use shared::history::LineageEntry;
use shared::ids::{Epoch, NodeName, TimelineId};
use std::collections::BTreeSet;

/// The group's history. `phases` are its events of kind `phase`, in order.
pub fn timelines(record: &Record, view: &View, phases: &[Event], now: Now) -> Timelines {
    let passed = ancestry(record);
    let status = |entry: &LineageEntry| TimelineStatus {
        nodes: nodes_on(record, view, entry.timeline),
        ..told(record, phases, (entry, state(record, &passed, entry)))
    };
    Timelines {
        formation: record.formation.clone(),
        group: record.group,
        epoch: record.epoch,
        timelines: record.lineage.0.iter().map(status).collect(),
        strays: strays(record, view, now),
    }
}

/// The newest epoch that was begun, and those that it continues.
fn ancestry(record: &Record) -> BTreeSet<Epoch> {
    let begun = record.lineage.0.iter().rev().find(|entry| entry.start.is_some());
    let mut passed = BTreeSet::new();
    let mut next = begun.map(|entry| entry.epoch);
    while let Some(epoch) = next {
        passed.insert(epoch);
        let start = record.lineage.entry(epoch).and_then(|entry| entry.start);
        // Parents are older, so the walk ends.
        next = start.and_then(|start| start.parent).filter(|parent| *parent < epoch);
    }
    passed
}

fn state(record: &Record, passed: &BTreeSet<Epoch>, entry: &LineageEntry) -> TimelineState {
    let newest = passed.last() == Some(&entry.epoch);
    match (entry.start, passed.contains(&entry.epoch)) {
        (Some(_), true) if newest => TimelineState::Present,
        (Some(_), true) => TimelineState::Passed,
        (Some(_), false) => TimelineState::Abandoned,
        (None, _) if entry.epoch == record.epoch && record.phase == Phase::Promoting => {
            TimelineState::Promoting
        }
        (None, _) => TimelineState::NeverBegun,
    }
}

/// An epoch, as the events tell it.
fn told(
    record: &Record,
    phases: &[Event],
    (entry, state): (&LineageEntry, TimelineState),
) -> TimelineStatus {
    let parent = entry.start.and_then(|start| start.parent);
    let parent = parent.and_then(|epoch| record.lineage.entry(epoch)).map(|entry| entry.timeline);
    let accepted = entry.accepted.is_some();
    let decided = if accepted {
        phases.iter().rfind(|event| accepts(event, entry) && event.epoch < entry.epoch)
    } else {
        phases.iter().find(|event| event.epoch == entry.epoch && decides(event))
    };
    let cause = decided.map(|decided| if accepted { decided } else { cause(phases, decided) });
    let served = phases.iter().find(|e| e.epoch == entry.epoch && e.rule == "promoted");
    let loss = |event: &Event| event.evidence.get("data_loss_accepted") == Some(&true.into());
    TimelineStatus {
        epoch: entry.epoch,
        timeline: entry.timeline,
        state,
        primary: decided.and_then(|event| event.node.clone()),
        decided_at: decided.map(|event| event.at),
        since: served.map(|event| event.at),
        parent,
        fork_lsn: parent.and(entry.start).map(|start| start.lsn),
        rule: decided.map(rule),
        reason: cause.map(|event| event.reason.clone()),
        accepted,
        data_loss_accepted: accepted || decided.is_some_and(loss),
        nodes: Vec::new(),
    }
}

fn decides(event: &Event) -> bool {
    event.rule == "elected" || event.rule == "birth"
}

fn accepts(event: &Event, entry: &LineageEntry) -> bool {
    event.evidence.get("accepted_timeline") == Some(&entry.timeline.0.into())
}

/// The event with which the election began, or the decision itself where there was none.
fn cause<'a>(phases: &'a [Event], decided: &'a Event) -> &'a Event {
    let before = phases.iter().rev().skip_while(|event| event.id >= decided.id);
    let mut of_this = before.take_while(|event| !decides(event));
    let begins = |event: &&Event| {
        event.to.as_deref() == Some("electing")
            && matches!(event.from.as_deref(), Some("serving" | "promoting"))
    };
    of_this.find(begins).unwrap_or(decided)
}

/// The rule that began the election; of an operator's request, what it was.
fn rule(decided: &Event) -> String {
    if accepts_any(decided) {
        return "accept timeline".to_owned();
    }
    let cause = decided.evidence.get("cause").and_then(serde_json::Value::as_str);
    cause.map_or_else(|| decided.rule.clone(), str::to_owned)
}

fn accepts_any(event: &Event) -> bool {
    event.evidence.get("accepted_timeline").is_some()
}

fn nodes_on(record: &Record, view: &View, timeline: TimelineId) -> Vec<NodeName> {
    let on = record.nodes.iter().filter(|(id, _)| {
        view.report(**id).is_some_and(|report| {
            report.stray.is_none() && report.postgres.timeline == Some(timeline)
        })
    });
    on.map(|(_, node)| node.name.clone()).collect()
}

fn strays(record: &Record, view: &View, now: Now) -> Vec<StrayStatus> {
    let status = |claim: super::acceptance::Claim<'_>| {
        let fork = claim.fork()?;
        let beyond = beyond(record, view, (claim.node, fork));
        Some(StrayStatus {
            timeline: claim.stray.history.timeline,
            node: record.nodes.get(&claim.node)?.name.clone(),
            parent: fork.timeline,
            fork_lsn: fork.end,
            lsn: claim.stray.end.or(view.report(claim.node)?.postgres.lsn),
            would_give_up: beyond.into_iter().map(|(name, _, bytes)| (name, bytes)).collect(),
        })
    };
    claims(record, view, now).into_iter().filter_map(status).collect()
}
