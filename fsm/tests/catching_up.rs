//! WAL from an archive, and copies that are older than their primary: what comes from there is proved
//! before it counts, and a node that owes something is no witness (docs/safety.md, rules 10 and 11).

use crate::rig::{Rig, history_of};
use fsm::node::view::{Admitted, Lack, Persisted};
use fsm::node::{Archive, Data, LocalView, Process, Server, Step, Upstream};
use shared::goal::{self, Assignment, Goal, Member, Order, Orders};
use shared::history::{Lineage, LineageEntry, Start};
use shared::ids::{Epoch, Gen, NodeId, Ticket, TimelineId};
use shared::lsn::{Lsn, Position};
use shared::pgsettings::NodeSettings;
use shared::settings::Settings;
use shared::state::NodeState;
use sim::node::{SYSTEM, empty_view};

const OWN: NodeId = NodeId(2);
const PRIMARY: NodeId = NodeId(1);

/// Epoch 2 on timeline 3 continues epoch 1 at 500.
fn assignment() -> Assignment {
    let entry = |epoch, timeline, parent: Option<u64>, lsn| LineageEntry {
        start: Some(Start { parent: parent.map(Epoch), lsn: Lsn(lsn) }),
        ..LineageEntry::reserved(Epoch(epoch), TimelineId(timeline))
    };
    let member = |id: NodeId| Member {
        id,
        name: format!("n{id}").parse().unwrap(),
        host: format!("host-{id}"),
        port: 5432,
        rest: format!("host-{id}:6432"),
        admission: Ticket(9),
    };
    Assignment {
        order: Order { ticket: Ticket(12), generation: Gen(7) },
        epoch: Epoch(2),
        goal_state: NodeState::Secondary,
        goal: Goal::Follow { upstream: goal::Upstream::Primary { node: PRIMARY } },
        members: vec![member(PRIMARY), member(OWN)],
        lineage: Lineage(vec![entry(1, 1, None, 0), entry(2, 3, Some(1), 500)]),
        system_identifier: Some(SYSTEM),
        timers: Settings::default().timers(),
        may_stop: false,
        settings: NodeSettings::default(),
        orders: Orders::default(),
        keepsake: None,
    }
}

fn admitted() -> Admitted {
    Admitted { upstream: PRIMARY, epoch: Epoch(2), admission: Ticket(9) }
}

fn at(epoch: u64, lsn: u64) -> Position {
    Position { epoch: Epoch(epoch), lsn: Lsn(lsn) }
}

/// A standby whose log ends there, on the timeline of this epoch.
fn standby(epoch: u64, end: u64) -> Rig {
    let assignment = assignment();
    let history = history_of(&assignment.lineage, Epoch(epoch));
    let data = Data::Present {
        system_identifier: SYSTEM,
        standby_signal: true,
        history: history.clone(),
        clean_end: None,
    };
    let server =
        Server { in_recovery: true, history, end: Some(Lsn(end)), sealed: true, streaming: false };
    let (server, process) = (Some(server), Process::Running);
    let view = LocalView { data, process, server, heard: true, adopted: true, ..empty_view() };
    let persisted = Persisted { own: Some(OWN), ..Persisted::of(assignment) };
    Rig { view, persisted, end: Lsn(end), monitor: true, lease: false, stuck: false }
}

/// One that is stopped, just restored from a backup.
fn restored(epoch: u64, end: u64) -> Rig {
    let mut rig = standby(epoch, end);
    (rig.view.server, rig.view.process) = (None, Process::Stopped);
    rig.persisted.restored = true;
    rig.persisted.owes = Some(at(2, 700));
    rig
}

/// One that follows, and asks for WAL that its primary has no more.
fn left_behind() -> Rig {
    let mut rig = standby(1, 400);
    rig.view.file.upstream = Some(Upstream::Member { node: PRIMARY, admission: Ticket(9) });
    rig.view.file.current = true;
    rig.view.upstream_lacks = Some(Lack::Wal);
    rig.persisted.admitted = Some(admitted());
    if let Some(server) = &mut rig.view.server {
        server.sealed = false;
    }
    rig
}

fn names(rig: &mut Rig) -> Vec<&'static str> {
    rig.run().unwrap().steps.iter().map(Step::name).collect()
}

#[test]
fn what_was_restored_catches_up_from_the_archive_before_it_is_let_in() {
    let mut rig = restored(1, 400);
    rig.view.archive = Archive::Unasked;
    let steps = names(&mut rig);
    let all = ["configure", "start as a standby", "configure", "admission", "configure"];
    assert_eq!(steps, all);
    assert!(!rig.view.file.restore, "the archive is read no longer");
    // Without an archive the copy has to have all that it needs.
    let all = ["configure", "start as a standby", "admission", "configure"];
    assert_eq!(names(&mut restored(1, 400)), all);
}

#[test]
fn what_was_restored_may_have_diverged() {
    let mut rig = restored(1, 600);
    rig.view.archive = Archive::Unasked;
    let steps = rig.run().unwrap().steps;
    let first = steps.iter().find(|step| matches!(step, Step::Admit { .. } | Step::Rewind { .. }));
    assert_eq!(first, Some(&Step::Rewind { from: PRIMARY }));
}

/// A copy that does not become consistent.
#[test]
fn a_backup_whose_wal_is_gone_is_replaced() {
    let mut rig = restored(1, 400);
    rig.view.file.current = true;
    rig.view.file.restore = true;
    (rig.view.process, rig.view.archive) = (Process::Starting, Archive::Exhausted);
    let clone = fsm::node::plan::Next::Do(Step::Clone { from: PRIMARY });
    assert_eq!(fsm::node::plan(&rig.view, Some(&rig.persisted)).next, clone);
}

#[test]
fn wal_that_the_primary_lacks_may_be_in_the_archive() {
    let mut rig = left_behind();
    rig.view.archive = Archive::Unasked;
    let first = fsm::node::plan(&rig.view, Some(&rig.persisted)).next;
    assert_eq!(first, fsm::node::plan::Next::Do(Step::CatchUp));
    sim::node::apply(
        &mut rig.view,
        &mut rig.persisted,
        &Step::CatchUp,
        &history_of(&assignment().lineage, Epoch(2)),
    );
    // What was proved was another log, and nothing is received meanwhile.
    assert_eq!(rig.persisted.admitted, None);
    assert_eq!((&rig.view.file.upstream, rig.view.file.restore), (&None, true));
    for archive in [Archive::None, Archive::Exhausted] {
        let mut rig = left_behind();
        rig.view.archive = archive;
        assert_eq!(names(&mut rig).first(), Some(&"clone"), "{archive:?}");
    }
}

/// The lost disk of C15, made good from a backup.
#[test]
fn an_old_copy_is_no_witness_until_it_has_what_it_may_have_acknowledged() {
    let rig = |epoch, end| {
        let mut rig = standby(epoch, end);
        rig.persisted.owes = Some(at(2, 700));
        (rig.persisted.position(&rig.view), rig.persisted.is_behind(&rig.view))
    };
    assert_eq!(rig(1, 400), (None, true));
    assert_eq!(rig(2, 699), (None, true));
    assert_eq!(rig(2, 700), (Some(at(2, 700)), false));
    let mut later = standby(2, 600);
    later.persisted.owes = Some(at(1, 900));
    assert_eq!(later.persisted.position(&later.view), Some(at(2, 600)), "of a later epoch");
}
