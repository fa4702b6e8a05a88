//! The keeper's plan is total and converges: from every view of a large enumeration, every goal is
//! reached, or ends at a wait that names what is missing for it.

mod assignments;
mod bodies;
mod examples;

use crate::rig::{Outcome, Rig};
use assignments::{assignment, goals, spec};
use bodies::{bodies, files};
use fsm::node::consent::Asked;
use fsm::node::plan::Next;
use fsm::node::view::{Admitted, Lack, Persisted};
use fsm::node::{Archive, Data, File, LocalView, Process, Sync, Upstream, plan};
use shared::goal::{Assignment, Goal};
use shared::ids::{Epoch, Gen, NodeId, Ticket, TimelineId};
use shared::lsn::{Lsn, Position};
use shared::report::Promoted;
use shared::spec::Spec;
use sim::node::empty_view;
use std::collections::BTreeSet;

const OWN: NodeId = NodeId(2);
const UPSTREAM: NodeId = NodeId(1);
/// Epoch 1 on timeline 1; 2 on 3, from 500 on; 3 is reserved timeline 5 and has not begun.
const NEW: TimelineId = TimelineId(5);
/// Waits in which a plan may end, for whichever goal.
pub const WAITS: &[&str] = &[
    "the monitor's answer",
    "a lease: an answer of the monitor",
    "data to be sealed",
    "data to fetch into",
    "WAL from the source",
    "a log that the source's continues",
    "a data directory that can be used",
    "a primary of an epoch that is not older than the own log",
    "the primary as its upstream",
    "another primary: the data of this one is lost",
    "another primary: this one was promoted by somebody else",
    "another timeline number: the promotion was interrupted",
    "a cluster that is not a standby: the first node must bring a primary",
    "the end of crash recovery",
    "the signs that the walreceiver has ended",
];

/// What a keeper may remember beside its assignment.
fn memories(assignment: &Assignment) -> Vec<Persisted> {
    let promoted = |epoch: u64, timeline| Promoted {
        epoch: Epoch(epoch),
        timeline,
        parent: None,
        start: Lsn(0),
        ancestors: Vec::new(),
    };
    let own = assignment.lineage.entry(assignment.epoch).unwrap().timeline;
    let admitted =
        |epoch, admission| Admitted { upstream: UPSTREAM, epoch, admission: Ticket(admission) };
    let mut memories = Vec::new();
    for promoted in
        [None, Some(promoted(assignment.epoch.0, own)), Some(promoted(0, TimelineId(9)))]
    {
        for admitted in
            [None, Some(admitted(assignment.epoch, 9)), Some(admitted(assignment.epoch, 3))]
        {
            for sealed in [None, Some(Ticket(12))] {
                memories.push(Persisted {
                    own: Some(OWN),
                    sealed,
                    promoted: promoted.clone(),
                    admitted,
                    ..Persisted::of(assignment.clone())
                });
            }
        }
    }
    memories
}

/// Is coherent: what streams has an upstream, what is sealed has none, an admission stands for a log
/// that was proved to be a prefix.
fn is_coherent(view: &LocalView, persisted: &Persisted, end: Lsn) -> bool {
    let server = view.server.as_ref();
    let streaming = server.is_some_and(|server| server.streaming);
    let sealed = server.is_some_and(|server| server.sealed);
    let member = matches!(view.file.upstream, Some(Upstream::Member { .. }));
    if streaming && !member || sealed && view.file.upstream.is_some() {
        return false;
    }
    let lineage = &persisted.assignment.lineage;
    let Data::Present { history, .. } = &view.data else { return true };
    let position = lineage.position(history, end);
    let follows = position.is_some_and(|position| {
        lineage.is_prefix(position, persisted.assignment.epoch)
            && lineage.epoch_of(history.timeline).is_some_and(|epoch| {
                let start = Position { epoch, lsn: history.start() };
                lineage.is_prefix(start, persisted.assignment.epoch)
            })
    });
    persisted.admitted.is_none() || follows
}

/// Whether the goal holds.
fn holds(rig: &Rig) -> bool {
    let view = &rig.view;
    let server = view.server.as_ref();
    let stopped = view.process == Process::Stopped;
    match &rig.persisted.assignment.goal {
        Goal::Wait => true,
        Goal::Primary { spec, timeline } => {
            // A log without a position makes nobody a witness, nor whoever is copied from it.
            let lineage = &rig.persisted.assignment.lineage;
            let has_position = server.is_some_and(|server| {
                let end = server.end.unwrap_or_default();
                lineage.position(&server.history, end).is_some()
            });
            (has_position || timeline.is_none())
                && view.is_writable()
                && view.sync == Sync::InForce(spec.generation)
                && view.file.spec.as_ref() == Some(spec)
                && rig.persisted.promoted.as_ref().map(|p| p.epoch)
                    == Some(rig.persisted.assignment.epoch)
        }
        Goal::Follow { .. } => server.is_some_and(|server| server.streaming),
        Goal::Seal { drain } => {
            view.established().is_some()
                && (*drain && stopped || server.is_some_and(|server| server.sealed))
        }
        Goal::FastForward { target, .. } => {
            rig.end >= target.lsn && server.is_some_and(|server| server.sealed)
        }
        Goal::Maintenance => !view.is_writable(),
        Goal::Dropped => stopped,
    }
}

/// Whether this goal may end at this wait, from where it was begun.
fn may_wait(rig: &Rig, what: &str) -> bool {
    let view = &rig.view;
    let (unusable, lost) = match view.data {
        Data::Empty | Data::Rebuilding => (false, true),
        Data::Unusable => (true, true),
        Data::Present { .. } => (false, false),
    };
    let standby = matches!(view.data, Data::Present { standby_signal: true, .. });
    let timeline = match &view.data {
        Data::Present { history, .. } => Some(history.timeline),
        Data::Empty | Data::Rebuilding | Data::Unusable => None,
    };
    match (&rig.persisted.assignment.goal, what) {
        (Goal::Follow { .. } | Goal::Primary { .. }, "the monitor's answer") => !rig.monitor,
        (Goal::Primary { .. }, "a lease: an answer of the monitor") => !view.may_write,
        (Goal::Primary { .. }, "another primary: this one was promoted by somebody else") => {
            rig.persisted.promoted.as_ref().map(|p| p.timeline) != timeline
        }
        (Goal::Primary { .. }, "another timeline number: the promotion was interrupted") => {
            timeline == Some(NEW) && rig.persisted.promoted.as_ref().map(|p| p.timeline) != timeline
        }
        (
            Goal::Primary { timeline: None, .. },
            "a cluster that is not a standby: the first node must bring a primary",
        ) => standby,
        (Goal::Primary { .. }, "another primary: the data of this one is lost")
        | (Goal::Seal { .. }, "data to be sealed")
        | (Goal::FastForward { .. }, "data to fetch into") => lost,
        // What it has is no prefix, or cannot be run, or its upstream lacks something: the monitor moves it.
        (Goal::Follow { upstream }, "the primary as its upstream") => upstream.is_standby(),
        (Goal::Follow { .. } | Goal::Primary { .. }, "a data directory that can be used") => {
            unusable
        }
        (Goal::Follow { .. }, "a primary of an epoch that is not older than the own log") => {
            timeline == Some(NEW)
        }
        // Of a log that is not a prefix of the source's: the monitor never asks for that.
        (Goal::FastForward { target, .. }, "WAL from the source") => rig.end < target.lsn,
        (Goal::FastForward { target, .. }, "a log that the source's continues") => {
            rig.end >= target.lsn
        }
        _ => false,
    }
}

fn circumstances() -> Vec<(bool, bool, bool)> {
    // (monitor, lease, stuck replay)
    vec![(true, true, false), (true, false, false), (false, false, false), (true, true, true)]
}

fn explain(rig: &Rig, before: &Rig, outcome: &Outcome) -> String {
    format!("{outcome:?}\nfrom {before:?}\nto {:?}", rig.view)
}

/// Runs one case; notes the names of its steps.
fn try_case(rig: Rig, seen: &mut BTreeSet<&'static str>) {
    let before = rig.clone();
    let mut rig = rig;
    let outcome = match rig.run() {
        Ok(outcome) => outcome,
        Err(why) => panic!("{why}\nfrom {before:?}"),
    };
    seen.extend(outcome.steps.iter().map(fsm::node::Step::name));
    match &outcome.plan.next {
        Next::Reached if rig.view.stopping => {
            assert_eq!(rig.view.process, Process::Stopped, "{}", explain(&rig, &before, &outcome));
        }
        Next::Reached => assert!(holds(&rig), "{}", explain(&rig, &before, &outcome)),
        Next::Wait(what) => {
            assert!(may_wait(&rig, what), "{}", explain(&rig, &before, &outcome));
        }
        Next::Do(step) => panic!("{step:?} was not done"),
    }
}

#[test]
fn every_goal_is_reached_from_everywhere() {
    let mut seen = BTreeSet::new();
    let mut cases = 0_u64;
    let syncs = [Sync::Unknown, Sync::Blocked, Sync::Set(Gen(7)), Sync::Set(Gen(4))];
    let in_force = [Sync::InForce(Gen(7)), Sync::InForce(Gen(4))];
    let syncs: Vec<_> = syncs.into_iter().chain(in_force).collect();
    for assignment in goals() {
        let primary = matches!(assignment.goal, Goal::Primary { .. });
        for persisted in memories(&assignment) {
            for (body, end) in bodies() {
                let syncs = if body.is_writable() && primary { &syncs[..] } else { &syncs[..1] };
                for file in files(assignment.epoch.0) {
                    for sync in syncs {
                        let view = LocalView { file: file.clone(), sync: *sync, ..body.clone() };
                        if !is_coherent(&view, &persisted, end) || !sync_fits(&view) {
                            continue;
                        }
                        for (monitor, lease, stuck) in circumstances() {
                            let view =
                                LocalView { adopted: file != empty_view().file, ..view.clone() };
                            let persisted = persisted.clone();
                            cases += 1;
                            try_case(
                                Rig { view, persisted, end, monitor, lease, stuck },
                                &mut seen,
                            );
                        }
                    }
                }
            }
        }
    }
    assert!(cases > 100_000, "{cases} cases");
    assert_eq!(seen.len(), 16, "some steps are taken in no case: {seen:?}");
}

/// What has been seen of rule 9 is what the file says.
fn sync_fits(view: &LocalView) -> bool {
    let generation = view.file.spec.as_ref().map(|spec| spec.generation);
    match view.sync {
        Sync::Unknown => true,
        Sync::Blocked => generation.is_none(),
        Sync::Set(seen) | Sync::InForce(seen) => generation == Some(seen),
    }
}

/// The flags that change little elsewhere, all combinations of them.
#[test]
fn flags_do_not_keep_a_goal_from_being_reached() {
    let mut seen = BTreeSet::new();
    for assignment in goals() {
        for (body, end) in bodies() {
            for bits in 0..64_u32 {
                let flag = |bit: u32| bits & (1 << bit) != 0;
                let memory = memories(&assignment).remove(0);
                let persisted = Persisted { restored: bits % 11 < 5, ..memory };
                let restore = bits % 13 < 4 && body.server.as_ref().is_none_or(|s| !s.streaming);
                let view = LocalView {
                    heard: flag(0),
                    may_write: flag(1),
                    stopping: flag(2),
                    adopted: flag(3),
                    broken: flag(4),
                    upstream_lacks: flag(5).then_some(if bits % 2 == 0 {
                        Lack::Wal
                    } else {
                        Lack::Slot
                    }),
                    checkpointed: bits % 3 == 0,
                    settled: bits % 5 == 0,
                    due: match bits % 7 {
                        0 => Some(fsm::node::view::Due::Restart),
                        1 => Some(fsm::node::view::Due::Copy),
                        _ => None,
                    },
                    archive: match bits % 17 {
                        0..=5 => Archive::None,
                        6..=11 => Archive::Unasked,
                        _ => Archive::Exhausted,
                    },
                    file: File { restore, current: true, ..body.file.clone() },
                    ..body.clone()
                };
                if !is_coherent(&view, &persisted, end) {
                    continue;
                }
                for (monitor, lease, stuck) in circumstances() {
                    let (view, persisted) = (view.clone(), persisted.clone());
                    try_case(Rig { view, persisted, end, monitor, lease, stuck }, &mut seen);
                }
            }
        }
    }
}

/// Only a promotion and a hand-over wait for hooks, and only a promotion can be refused.
#[test]
fn hooks_hold_up_only_the_step_that_they_are_about() {
    let mut held = BTreeSet::new();
    for assignment in goals() {
        let drains = assignment.goal == Goal::Seal { drain: true };
        for (persisted, (body, _)) in memories(&assignment)
            .iter()
            .flat_map(|known| bodies().into_iter().map(move |b| (known, b)))
        {
            for file in files(assignment.epoch.0) {
                let view = LocalView { file, heard: true, adopted: true, ..body.clone() };
                let clear = plan(&view, Some(persisted));
                for hook in [Asked::Running, Asked::Refused] {
                    let asked = plan(&LocalView { hook, ..view.clone() }, Some(persisted));
                    if asked == clear {
                        continue;
                    }
                    let Next::Wait(what) = asked.next else { panic!("{clear:?} is {asked:?}") };
                    let promotes = matches!(clear.next, Next::Do(fsm::node::Step::Promote { .. }));
                    let stops = clear.next == Next::Do(fsm::node::Step::StopFast);
                    assert!(promotes || stops && drains && hook == Asked::Running, "{clear:?}");
                    assert_eq!(asked.state, clear.state);
                    held.insert(what);
                }
            }
        }
    }
    let all = [
        "another primary: the pre_promote hook refuses",
        "the pre_demote hook",
        "the pre_promote hook",
    ];
    assert_eq!(held.into_iter().collect::<Vec<_>>(), all);
}

/// A primary that waits for its hook before it hands over has proofs by streaming still: nothing of the spec
/// that is in force has changed (rule 12).
#[test]
fn a_draining_primary_is_proved_by_the_spec_of_its_file() {
    let in_force = |goal, file: Option<Spec>, sync| {
        let assignment = assignment(goal, 2);
        let known = Persisted { own: Some(OWN), ..Persisted::of(assignment) };
        known.in_force(&File { upstream: None, spec: file, restore: false, current: true }, sync)
    };
    let drain = || Goal::Seal { drain: true };
    let (ours, passed) = (|| Some(spec(7, 2)), Sync::InForce(Gen(7)));
    assert_eq!(in_force(drain(), ours(), passed), ours());
    assert_eq!(in_force(drain(), ours(), Sync::Set(Gen(7))), None);
    assert_eq!(in_force(drain(), None, passed), None);
    assert_eq!(in_force(Goal::Seal { drain: false }, ours(), passed), None);
}

/// Views from which an assignment made by the monitor is tried (see `decisions`).
pub fn samples() -> Vec<(LocalView, Lsn)> {
    bodies().into_iter().filter(|(view, _)| view.server.is_none() || view.is_writable()).collect()
}
