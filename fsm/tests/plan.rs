//! The keeper's plan is total and converges: from every view of a large enumeration, every goal is
//! reached, or ends at a wait that names what is missing for it.

use crate::rig::{Outcome, Rig};
use fsm::node::consent::Asked;
use fsm::node::plan::Next;
use fsm::node::view::{Admitted, Lack, Persisted};
use fsm::node::{Archive, Data, File, LocalView, Plan, Process, Server, Sync, Upstream, plan};
use shared::goal::{self, Assignment, Goal, Member, Order, Orders};
use shared::history::{History, Lineage, LineageEntry, Segment, Start};
use shared::ids::{Epoch, Gen, NodeId, Ticket, TimelineId};
use shared::lsn::{Lsn, Position};
use shared::pgsettings::NodeSettings;
use shared::report::Promoted;
use shared::settings::Settings;
use shared::spec::Spec;
use shared::state::NodeState;
use sim::node::{SYSTEM, empty_view};
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

fn lineage() -> Lineage {
    let entry = |epoch, timeline, start: Option<(Option<u64>, u64)>| LineageEntry {
        start: start.map(|(parent, lsn)| Start { parent: parent.map(Epoch), lsn: Lsn(lsn) }),
        ..LineageEntry::reserved(Epoch(epoch), TimelineId(timeline))
    };
    Lineage(vec![
        entry(1, 1, Some((None, 0))),
        entry(2, 3, Some((Some(1), 500))),
        entry(3, NEW.0, None),
    ])
}

fn spec(generation: u64, epoch: u64) -> Spec {
    Spec {
        generation: Gen(generation),
        epoch: Epoch(epoch),
        primary: OWN,
        required: 1,
        standbys: [UPSTREAM].into(),
    }
}

fn member(id: NodeId) -> Member {
    Member {
        id,
        name: format!("n{id}").parse().unwrap(),
        host: format!("host-{id}"),
        port: 5432,
        rest: format!("host-{id}:6432"),
        admission: Ticket(9),
    }
}

/// An assignment of a goal in an epoch.
fn assignment(goal: Goal, epoch: u64) -> Assignment {
    let founding = epoch == 1;
    let lineage = if founding { Lineage(lineage().0[..1].to_vec()) } else { lineage() };
    Assignment {
        order: Order { ticket: Ticket(12), generation: Gen(7) },
        epoch: Epoch(epoch),
        goal_state: NodeState::Secondary,
        goal,
        members: vec![member(UPSTREAM), member(OWN)],
        lineage,
        system_identifier: if founding { None } else { Some(SYSTEM) },
        timers: Settings::default().timers(),
        may_stop: false,
        settings: NodeSettings::default(),
        orders: Orders::default(),
        keepsake: None,
    }
}

fn goals() -> Vec<Assignment> {
    let follow = || Goal::Follow { upstream: goal::Upstream::Primary { node: UPSTREAM } };
    let cascade = || Goal::Follow {
        upstream: goal::Upstream::Standby { node: UPSTREAM, primary: NodeId(3) },
    };
    let target = |lsn| Position { epoch: Epoch(2), lsn: Lsn(lsn) };
    let source = UPSTREAM;
    vec![
        assignment(Goal::Wait, 2),
        assignment(Goal::Primary { timeline: None, spec: spec(7, 1) }, 1),
        assignment(Goal::Primary { timeline: Some(NEW), spec: spec(7, 3) }, 3),
        assignment(follow(), 2),
        assignment(follow(), 3),
        assignment(cascade(), 2),
        assignment(cascade(), 3),
        assignment(Goal::Seal { drain: false }, 2),
        assignment(Goal::Seal { drain: true }, 2),
        assignment(Goal::FastForward { source, target: target(800) }, 2),
        assignment(Goal::FastForward { source, target: target(550) }, 2),
        assignment(Goal::Maintenance, 2),
        assignment(Goal::Dropped, 2),
    ]
}

/// Logs, with their ends: see [`lineage`].
fn logs() -> Vec<(History, Lsn)> {
    let history = |ancestors: &[(u32, u64)], timeline| History {
        ancestors: ancestors
            .iter()
            .map(|(timeline, end)| Segment { timeline: TimelineId(*timeline), end: Lsn(*end) })
            .collect(),
        timeline: TimelineId(timeline),
    };
    vec![
        // A prefix of epoch 2, and of 3 where that continues 2.
        (history(&[], 1), Lsn(400)),
        // Epoch 2 itself.
        (history(&[(1, 500)], 3), Lsn(700)),
        // The unshared tail of an old primary.
        (history(&[], 1), Lsn(600)),
        // Epoch 3, promoted or not: newer than a primary of epoch 2.
        (history(&[(1, 500), (3, 700)], 5), Lsn(800)),
        // A promotion that was interrupted before its first record.
        (history(&[(1, 400)], 5), Lsn(400)),
        // Promoted by hand.
        (history(&[(1, 400)], 2), Lsn(500)),
    ]
}

/// Data and process, whatever they can be together.
fn bodies() -> Vec<(LocalView, Lsn)> {
    let mut bodies = Vec::new();
    for data in [Data::Empty, Data::Rebuilding, Data::Unusable] {
        bodies.push((LocalView { data, ..empty_view() }, Lsn(0)));
    }
    // The files of a server that runs were removed, or cannot be read.
    for data in [Data::Empty, Data::Unusable] {
        let process = Process::Starting;
        bodies.push((LocalView { data, process, ..empty_view() }, Lsn(0)));
    }
    for (history, end) in logs() {
        for standby_signal in [false, true] {
            let data = |clean: bool| Data::Present {
                system_identifier: SYSTEM,
                standby_signal,
                history: history.clone(),
                clean_end: clean.then_some(end),
            };
            bodies.push((LocalView { data: data(false), ..empty_view() }, end));
            if !standby_signal {
                bodies.push((LocalView { data: data(true), ..empty_view() }, end));
            }
            let process = Process::Starting;
            bodies.push((LocalView { data: data(false), process, ..empty_view() }, end));
            let process = Process::Running;
            bodies.push((LocalView { data: data(false), process, ..empty_view() }, end));
            for (sealed, streaming) in [(false, false), (true, false), (false, true)] {
                let in_recovery = standby_signal || sealed;
                if in_recovery && !standby_signal {
                    // Only a standby shows the signs of a seal.
                    continue;
                }
                let server = Server {
                    in_recovery: standby_signal,
                    history: history.clone(),
                    end: Some(end),
                    sealed: sealed && standby_signal,
                    streaming: streaming && standby_signal,
                };
                let server = Some(server);
                bodies
                    .push((LocalView { data: data(false), process, server, ..empty_view() }, end));
            }
        }
    }
    bodies
}

fn files(epoch: u64) -> Vec<File> {
    let upstreams = [
        None,
        Some(Upstream::Member { node: UPSTREAM, admission: Ticket(9) }),
        Some(Upstream::Member { node: UPSTREAM, admission: Ticket(3) }),
        Some(Upstream::Fetch { node: UPSTREAM }),
    ];
    let specs = [None, Some(spec(7, epoch)), Some(spec(4, epoch)), Some(spec(2, epoch - 1))];
    let mut files = Vec::new();
    for upstream in &upstreams {
        for spec in &specs {
            for current in [true, false] {
                let (upstream, spec) = (upstream.clone(), spec.clone());
                files.push(File { upstream, spec, current, restore: false });
            }
        }
    }
    files
}

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
        Goal::Primary { spec, .. } => {
            view.is_writable()
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

#[test]
fn a_keeper_without_state_does_nothing() {
    for (body, _) in bodies() {
        let plan: Plan = plan(&body, None);
        assert_eq!(plan.next, Next::Wait("the monitor's first answer"));
    }
}

/// It goes on with the files that it has open, and its keeper cannot ask it.
#[test]
fn a_server_whose_files_were_removed_is_stopped_before_they_are_copied() {
    let body = LocalView { process: Process::Starting, heard: true, ..empty_view() };
    assert!(body.is_primary());
    for assignment in goals().into_iter().filter(|assignment| assignment.epoch == Epoch(2)) {
        let others = matches!(assignment.goal, Goal::Wait | Goal::Primary { .. } | Goal::Dropped);
        for persisted in memories(&assignment).into_iter().filter(|_| !others) {
            let next = plan(&body, Some(&persisted)).next;
            let stops = [fsm::node::Step::StopFast, fsm::node::Step::StopImmediate];
            assert!(stops.map(Next::Do).contains(&next), "{:?}: {next:?}", assignment.goal);
        }
    }
}

/// Timeline 2 was begun by hand on the upstream, and accepted: whoever else has records on one of that number
/// cannot prove that it is the same one. The log up to the fork is a prefix as ever.
#[test]
fn an_accepted_timeline_is_taken_from_its_node_only() {
    let follow = Goal::Follow { upstream: goal::Upstream::Primary { node: UPSTREAM } };
    let mut assignment = assignment(follow, 3);
    let start = |parent, lsn| Some(Start { parent: Some(Epoch(parent)), lsn: Lsn(lsn) });
    let (begun, next) = (start(1, 400), start(2, 600));
    let accepted = LineageEntry {
        start: begun,
        accepted: Some(UPSTREAM),
        ..LineageEntry::reserved(Epoch(2), TimelineId(2))
    };
    let newest = LineageEntry { start: next, ..LineageEntry::reserved(Epoch(3), NEW) };
    assignment.lineage.0.splice(1.., [accepted, newest]);
    let sealed = |ancestors: &[(u32, u64)], timeline, end| {
        let segment = |(timeline, end): &(u32, u64)| Segment {
            timeline: TimelineId(*timeline),
            end: Lsn(*end),
        };
        let ancestors = ancestors.iter().map(segment).collect();
        let history = History { ancestors, timeline: TimelineId(timeline) };
        let (data, process) = (
            Data::Present {
                system_identifier: SYSTEM,
                standby_signal: true,
                history: history.clone(),
                clean_end: None,
            },
            Process::Running,
        );
        let server = Some(Server {
            in_recovery: true,
            history,
            end: Some(Lsn(end)),
            sealed: true,
            streaming: false,
        });
        let file = File { upstream: None, spec: None, current: true, restore: false };
        LocalView { data, process, server, file, heard: true, ..empty_view() }
    };
    let persisted = Persisted { admitted: None, ..memories(&assignment).remove(0) };
    let next = |view: &LocalView| plan(view, Some(&persisted)).next;
    let clone = Next::Do(fsm::node::Step::Clone { from: UPSTREAM });
    assert_eq!(next(&sealed(&[(1, 400)], 2, 500)), clone);
    assert_eq!(next(&sealed(&[(1, 400), (2, 450)], 3, 500)), clone);
    let admitted = |view: &LocalView| {
        matches!(next(view), Next::Do(fsm::node::Step::Admit { upstream: UPSTREAM, .. }))
    };
    assert!(admitted(&sealed(&[], 1, 400)));
    assert!(admitted(&sealed(&[(1, 400), (2, 600)], NEW.0, 700)));
    let rewind = Next::Do(fsm::node::Step::Rewind { from: UPSTREAM });
    assert_eq!(next(&sealed(&[], 1, 401)), rewind);
}

/// Views from which an assignment made by the monitor is tried (see `decisions`).
pub fn samples() -> Vec<(LocalView, Lsn)> {
    bodies().into_iter().filter(|(view, _)| view.server.is_none() || view.is_writable()).collect()
}
