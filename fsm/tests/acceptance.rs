//! Timelines that somebody began by hand, and that an operator accepts or does not.

use fsm::group::election::{Choice, Waiting, choose};
use fsm::group::request::{Reply, apply};
use fsm::group::timelines::timelines;
use fsm::group::{Phase, goals};
use shared::api::{Action, Outcome, TimelineState};
use shared::ids::{NodeId, TimelineId};
use shared::settings::Settings;
use sim::{Walk, World, at, walk};

fn formed() -> (World, NodeId, Vec<NodeId>) {
    let settings = Settings { node_timeout_ms: 3000, ..Settings::default() };
    let mut world = Walk { settings, ..Walk::new(3) }.world(1);
    walk::converge(&mut world).unwrap();
    let record = &world.monitor.record;
    let primary = record.primary.unwrap();
    let standbys = record.nodes.keys().copied().filter(|id| *id != primary).collect();
    (world, primary, standbys)
}

/// As `walk::round`, which would end the maintenance.
fn rounds(world: &mut World, count: usize) {
    for _ in 0..count {
        for id in world.ids() {
            drop(world.keeper_turn(id));
            world.postgres_turn(id);
        }
        while !world.messages.is_empty() {
            world.deliver();
        }
        world.monitor_turn();
        world.pass(10);
    }
}

fn accept(timeline: u32) -> Action {
    let reason = "it has what is needed".to_owned();
    Action::AcceptTimeline { timeline: TimelineId(timeline), reason, fenced: false }
}

fn ask(world: &mut World, action: &Action) -> Result<Outcome, (u8, String)> {
    let (record, view) = (&world.monitor.record, &world.monitor.view);
    match apply(record, view, action, at(world.now)) {
        Ok(Reply::Already(result)) => Ok(result.outcome),
        Ok(Reply::Decided(decision, result)) => {
            decision.record.validate().unwrap();
            world.monitor.commit(*decision, world.now);
            Ok(result.outcome)
        }
        Err(error) => Err((error.code, error.reason)),
    }
}

/// Out of the keeper's hands, promoted, and stopped by its keeper; it has a log of its own now.
fn promoted_by_hand(world: &mut World, id: NodeId) -> u32 {
    let node = world.monitor.record.nodes[&id].name.clone();
    ask(world, &Action::Maintenance { node, on: true, allow_failover: false }).unwrap();
    rounds(world, 100);
    world.promote_by_hand(id);
    rounds(world, 50);
    let view = &world.monitor.view;
    view.report(id).unwrap().stray.as_ref().unwrap().history.timeline.0
}

#[test]
fn what_is_accepted_is_the_group_s() {
    let (mut world, old, standbys) = formed();
    let chosen = standbys[0];
    let timeline = promoted_by_hand(&mut world, chosen);
    let epoch = world.monitor.record.epoch;
    assert_eq!(ask(&mut world, &accept(timeline)), Ok(Outcome::Accepted));
    assert!(!world.monitor.record.nodes[&chosen].maintenance);
    // Asked again, it goes on.
    assert_eq!(ask(&mut world, &accept(timeline)), Ok(Outcome::Accepted));
    rounds(&mut world, 400);
    assert_eq!(walk::settled(&world), Some(chosen), "{:?}", world.monitor.record.phase);
    let record = &world.monitor.record;
    assert_eq!(record.finished.last().unwrap().outcome, Outcome::Done);
    // The timeline has an epoch of its own, and the promotion another one.
    assert_eq!(record.epoch.0, epoch.0 + 2);
    let entry = record.lineage.entry(epoch.next()).unwrap();
    assert_eq!((entry.timeline.0, entry.accepted), (timeline, Some(chosen)));
    let parent = record.present_timeline().unwrap().start.unwrap().parent;
    assert_eq!(parent, Some(epoch.next()));
    for id in [old, standbys[1]] {
        let log = &world.machines.get(id).unwrap().log;
        assert_eq!(log.timeline(), world.machines.get(chosen).unwrap().log.timeline());
    }
    // Nobody else's log on a timeline of that number would be taken for it.
    let lineage = |id| goals::assignment(record, &world.monitor.view, id).unwrap().lineage;
    assert_eq!(lineage(chosen).entry(epoch.next()).unwrap().accepted, None);
    assert_eq!(lineage(old).entry(epoch.next()).unwrap().accepted, Some(chosen));
}

#[test]
fn what_cannot_be_accepted() {
    let (mut world, _, standbys) = formed();
    let timeline = promoted_by_hand(&mut world, standbys[0]);
    let mut expect = |action: &Action, code: u8, reason: &str| {
        assert_eq!(ask(&mut world, action), Err((code, reason.to_owned())), "{action:?}");
    };
    expect(&accept(timeline + 50), 3, "unknown_timeline");
    let silent = Action::AcceptTimeline {
        timeline: TimelineId(timeline),
        reason: "  ".to_owned(),
        fenced: true,
    };
    expect(&silent, 1, "bad_value");
    let present = world.monitor.record.present_timeline().unwrap().timeline.0;
    assert_eq!(ask(&mut world, &accept(present)), Ok(Outcome::Done));
    // A second one that claims the number, by the same files.
    let stray = world.monitor.view.report(standbys[0]).unwrap().stray.clone();
    let evidence = world.monitor.view_mut().nodes.get_mut(&standbys[1]).unwrap();
    evidence.report.as_mut().unwrap().stray = stray;
    assert_eq!(ask(&mut world, &accept(timeline)), Err((3, "ambiguous_timeline".to_owned())));
}

/// Nothing is given up for a node that is lost meanwhile.
#[test]
fn it_lapses_with_its_node() {
    let (mut world, old, standbys) = formed();
    let timeline = promoted_by_hand(&mut world, standbys[0]);
    assert_eq!(ask(&mut world, &accept(timeline)), Ok(Outcome::Accepted));
    world.crash_host(standbys[0]);
    rounds(&mut world, 600);
    let record = &world.monitor.record;
    assert_eq!(record.phase, Phase::Serving);
    assert!(record.primary == Some(old) || record.primary == Some(standbys[1]));
    assert!(record.lineage.0.iter().all(|entry| entry.accepted.is_none()));
    assert_eq!(record.finished.last().unwrap().outcome, Outcome::Failed);
}

/// Whoever may still serve has to be sealed, gone, or stated to be fenced, as with any loss.
#[test]
fn the_old_primary_is_silent_first() {
    let (mut world, old, standbys) = formed();
    let timeline = promoted_by_hand(&mut world, standbys[0]);
    world.set_cut(old, sim::world::MONITOR, true);
    world.set_cut(standbys[1], sim::world::MONITOR, true);
    assert_eq!(ask(&mut world, &accept(timeline)), Ok(Outcome::Accepted));
    rounds(&mut world, 300);
    let record = &world.monitor.record;
    let election = record.phase.election().unwrap();
    let choice = choose(record, &world.monitor.view, election, at(world.now), 0);
    assert!(matches!(choice, Choice::Wait(Waiting::Fencing(_))), "{choice:?}");
    let fenced = Action::AcceptTimeline {
        timeline: TimelineId(timeline),
        reason: "it is off".to_owned(),
        fenced: true,
    };
    assert_eq!(ask(&mut world, &fenced), Ok(Outcome::Accepted));
    rounds(&mut world, 200);
    assert_eq!(world.monitor.record.primary, Some(standbys[0]));
}

#[test]
fn a_history_with_one_that_was_begun_by_hand() {
    let (mut world, _, standbys) = formed();
    let timeline = promoted_by_hand(&mut world, standbys[0]);
    let told =
        |world: &World| timelines(&world.monitor.record, &world.monitor.view, &[], at(world.now));
    let before = told(&world);
    assert_eq!(before.strays.len(), 1);
    assert_eq!(before.strays[0].timeline.0, timeline);
    ask(&mut world, &accept(timeline)).unwrap();
    rounds(&mut world, 400);
    let after = told(&world);
    assert!(after.strays.is_empty());
    let states: Vec<_> = after.timelines.iter().map(|t| (t.state, t.accepted)).collect();
    let expected = [
        (TimelineState::Passed, false),
        (TimelineState::Passed, true),
        (TimelineState::Present, false),
    ];
    assert_eq!(states, expected);
    assert_eq!(after.timelines[2].nodes.len(), 3);
}
