//! Plans for single views that no goal is reached from, or only in a certain way.

use super::assignments::{assignment, goals};
use super::bodies::bodies;
use super::{NEW, UPSTREAM, memories};
use fsm::node::plan::Next;
use fsm::node::view::Persisted;
use fsm::node::{Data, File, LocalView, Plan, Process, Server, plan};
use shared::goal::{self, Goal};
use shared::history::{History, LineageEntry, Segment, Start};
use shared::ids::{Epoch, TimelineId};
use shared::lsn::Lsn;
use sim::node::{SYSTEM, empty_view};

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
