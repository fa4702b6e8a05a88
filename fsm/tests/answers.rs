//! What operators are told of a group: at every moment of random walks it fits what is so, and whoever
//! asks why a group stands still is given a reason.

use fsm::Millis;
use fsm::group::election::{Choice, choose};
use fsm::group::explain::explain;
use fsm::group::status::status;
use fsm::group::{Phase, Record};
use fsm::trace::{Cause, MonitorLine};
use shared::api::ArchiveStatus;
use shared::ids::{Epoch, TimelineId};
use shared::lsn::Lsn;
use shared::report::{ArchiveFailure, ArchiveView, ArchiveWork, Archived, ArchivedUpTo, Lease};
use sim::random::Random;
use sim::{Walk, World, at, walk};

const SEEDS: u64 = 60;
/// One of so many actions is a fault.
const CALM: u64 = 25;
/// Longer than every timer takes.
const ROUNDS: usize = 400;

fn worlds() -> impl Iterator<Item = World> {
    (0..SEEDS).map(|seed| {
        let mut world = Walk::new(2 + seed % 5).world(seed);
        walk::converge(&mut world).unwrap();
        world.faulty = true;
        world
    })
}

/// Status and explanation are of one record and one view, and agree with both.
fn agree(world: &World) {
    let (record, view, now) = (&*world.monitor.record, &*world.monitor.view, at(world.now));
    let status = status(record, view, now);
    let group = explain(record, view, None, now);
    let told = |text: &str| group.sentences.iter().any(|sentence| sentence.contains(text));
    assert_eq!(told("writes are being acknowledged"), status.writable, "{group:?}");
    assert_eq!(status.primary.is_some(), record.phase == Phase::Serving, "{status:?}");
    assert_eq!(status.nodes.len(), record.nodes.len());
    assert_eq!(status.sync.pending.is_some(), !record.is_sync_settled(), "{status:?}");
    if let Some(operation) = &status.operation {
        assert_eq!(operation.blocked_by, group.blocked_by);
    }
    for (id, node) in &record.nodes {
        let own = explain(record, view, Some(*id), now);
        assert!(own.sentences[0].starts_with(node.name.as_str()), "{own:?}");
        assert!(group.sentences.contains(&own.sentences[0]), "{group:?}");
        let zero = own.sentences.iter().any(|sentence| sentence.contains("candidate priority"));
        assert_eq!(zero, node.candidate_priority == 0);
    }
    let named = group.blocked_by.iter().flat_map(|blocker| &blocker.nodes);
    for name in named {
        assert!(record.nodes.values().any(|node| node.name == *name), "{group:?}");
    }
    if let Phase::Electing(election) = &record.phase
        && !election.drain
    {
        let waits = matches!(choose(record, view, election, now, 0), Choice::Wait(_));
        assert_eq!(waits, !group.blocked_by.is_empty(), "{group:?}");
    }
}

#[test]
fn they_fit_what_is_so() {
    let (mut writable, mut blocked) = (0, 0);
    for mut world in worlds() {
        for _ in 0..600 {
            walk::act(&mut world, CALM);
            agree(&world);
            let (record, view) = (&*world.monitor.record, &*world.monitor.view);
            let status = status(record, view, at(world.now));
            writable += u32::from(status.writable);
            blocked += u32::from(!explain(record, view, None, at(world.now)).blocked_by.is_empty());
        }
    }
    assert!(writable > 1000 && blocked > 1000, "{writable} {blocked}");
}

/// The lag in time is what the primary measured, never less than what stands still, and nothing that
/// nobody measures.
#[test]
fn the_lag_in_time() {
    let mut world = Walk::new(3).world(1);
    walk::converge(&mut world).unwrap();
    let primary = world.monitor.record.primary.unwrap();
    let standby = world.ids().into_iter().find(|id| *id != primary).unwrap();
    let index = world.monitor.record.nodes.keys().position(|id| *id == standby).unwrap();
    let row = |world: &mut World, measured, stalled_ms, replayed| {
        let evidence = world.monitor.view_mut().nodes.get_mut(&primary).unwrap();
        let report = evidence.report.as_mut().unwrap();
        let end = report.postgres.lsn;
        let row = report.replicas.iter_mut().find(|row| row.node == standby).unwrap();
        row.replay_lag_ms = measured;
        row.stalled_ms = stalled_ms;
        row.replayed = end.filter(|_| replayed);
    };
    let shown = |world: &World, after| {
        let (record, view) = (&*world.monitor.record, &*world.monitor.view);
        status(record, view, at(world.now + after)).nodes[index].lag_ms
    };
    for (measured, stalled, replayed, lag) in [
        (None, 0, false, None),
        (Some(40), 0, false, Some(40)),
        (Some(40), 7000, false, Some(7000)),
        (None, 7000, false, Some(7000)),
        (Some(40), 0, true, Some(0)),
    ] {
        row(&mut world, measured, stalled, replayed);
        assert_eq!(shown(&world, 0), lag, "{measured:?} {stalled} {replayed}");
    }
    // What a primary said that is not heard any more is not the lag of now.
    assert_eq!(shown(&world, 60_000), None);
}

/// What is left of the lease runs out with time.
#[test]
fn what_is_left_of_the_lease() {
    let mut world = Walk::new(3).world(1);
    let left = |world: &World, after| {
        let (record, view) = (&*world.monitor.record, &*world.monitor.view);
        status(record, view, at(world.now + after)).lease_left
    };
    walk::converge(&mut world).unwrap();
    let view = world.monitor.view_mut();
    view.unlimited_lease = false;
    view.leases_end = Millis(at(world.now).mono.0 + 500);
    assert_eq!(left(&world, 0), Some(Lease::For { ms: 500 }));
    assert_eq!(left(&world, 400), Some(Lease::For { ms: 100 }));
    assert_eq!(left(&world, 600), Some(Lease::For { ms: 0 }));
    world.monitor.view_mut().unlimited_lease = true;
    assert_eq!(left(&world, 600), Some(Lease::Unlimited));
    world.monitor.record_mut().primary = None;
    assert_eq!(left(&world, 0), None);
}

/// What fails has been failing since one moment: how old the report is counts too.
#[test]
fn how_far_the_archive_is() {
    let mut world = Walk::new(3).world(1);
    walk::converge(&mut world).unwrap();
    let primary = world.monitor.record.primary.unwrap();
    let index = world.monitor.record.nodes.keys().position(|id| *id == primary).unwrap();
    let shown = |world: &World, after| {
        let (record, view) = (&*world.monitor.record, &*world.monitor.view);
        status(record, view, at(world.now + after)).nodes[index].archive.clone()
    };
    assert_eq!(shown(&world, 0), None);
    let evidence = world.monitor.view_mut().nodes.get_mut(&primary).unwrap();
    let report = evidence.report.as_mut().unwrap();
    report.postgres.lsn = Some(Lsn(5000));
    let segment = Some(ArchivedUpTo { timeline: TimelineId(3), end: Lsn(4000) });
    let error = "the disk is full".to_owned();
    report.archive = Some(ArchiveView {
        archived: Archived { segment, history: None },
        waiting: 2,
        oldest_ms: Some(9000),
        backed_up: Epoch(0),
        failing: vec![ArchiveFailure { work: ArchiveWork::Push, ms: 7000, error }],
    });
    let archive = shown(&world, 0).unwrap();
    assert_eq!((archive.timeline, archive.lsn), (Some(TimelineId(3)), Some(Lsn(4000))));
    assert_eq!((archive.behind_bytes, archive.backed_up_epoch), (Some(1000), None));
    let since = |archive: &ArchiveStatus| archive.failing[0].since.unwrap();
    let between = since(&archive) - archive.waiting_since.unwrap();
    assert_eq!(between.num_milliseconds(), 2000);
    // The wall clock of these tests stands still: what is half a second older began half a second before.
    let later = shown(&world, 500).unwrap();
    assert_eq!((since(&archive) - since(&later)).num_milliseconds(), 500);
}

/// Some hosts are off for good, and so is what else has gone wrong; nothing happens any more.
#[test]
fn a_group_that_stands_still_says_why() {
    let mut still = 0;
    for mut world in worlds() {
        for _ in 0..200 {
            walk::act(&mut world, CALM);
        }
        world.random = Random::of_step(world.now, 0);
        world.mend();
        let ids = world.ids();
        for id in ids {
            if world.random.one_in(2) {
                world.crash_host(id);
            }
        }
        for _ in 0..ROUNDS {
            walk::round(&mut world);
        }
        let (record, view) = (&*world.monitor.record, &*world.monitor.view);
        let (status, why) =
            (status(record, view, at(world.now)), explain(record, view, None, at(world.now)));
        assert!(status.writable || !why.blocked_by.is_empty(), "{}", walk::describe(&world));
        still += u32::from(!status.writable);
    }
    assert!(still > 10, "{still}");
}

/// What a trace says is enough to decide again, and has no secret in it.
#[test]
fn a_trace_can_be_read_again() {
    let mut lines = 0;
    for mut world in worlds().take(10) {
        for step in 0..300 {
            let (record, view) = (Record::clone(&world.monitor.record), &*world.monitor.view);
            let now = at(world.now);
            for cause in [Cause::Started, Cause::Rule(step)] {
                let line = MonitorLine {
                    now,
                    cause,
                    view: view.clone(),
                    before: record.clone(),
                    decision: record.monitor_started(now),
                };
                let Some(decision) = line.decided_again() else { continue };
                let line = MonitorLine { decision, ..line }.redacted();
                let text = serde_json::to_string(&line).unwrap();
                assert!(!text.contains("secret\":\"s"), "{text}");
                let read: MonitorLine = serde_json::from_str(&text).unwrap();
                assert_eq!(read, line);
                assert_eq!(read.decided_again(), Some(read.decision.clone()));
                lines += 1;
            }
            walk::act(&mut world, CALM);
        }
    }
    assert!(lines > 1000, "{lines}");
}
